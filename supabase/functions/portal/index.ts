/**
 * Opens Stripe's customer portal: POST {workspace_id, return_path?}, answered with {url}. For members who may manage
 * billing.
 */
import { answerWish, wishOf } from "../_shared/stripe.ts";

Deno.serve(async (request) => {
  const wish = await wishOf(request);
  if (wish instanceof Response) return wish;
  const { workspace_id, return_path = null } = wish;
  return await answerWish(request, "start_portal", { workspace_id, return_path });
});
