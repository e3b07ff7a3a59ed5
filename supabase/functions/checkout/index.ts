/**
 * Opens Stripe Checkout for a price: POST {workspace_id, price, seats?, return_path?}, answered with {url}. For members
 * who may manage billing; the database says who they are, what it costs and where they come back to.
 */
import { answerWish, keyOf, wishOf } from "../_shared/stripe.ts";

Deno.serve(async (request) => {
  const wish = await wishOf(request);
  if (wish instanceof Response) return wish;
  const { workspace_id, price, seats = null, return_path = null } = wish;
  return await answerWish(request, "start_checkout", {
    workspace_id,
    price: price ?? null,
    seats,
    return_path,
    idempotency_key: keyOf(request),
  });
});
