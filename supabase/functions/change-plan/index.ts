/**
 * Changes a subscription's price or seats: POST {workspace_id, price, seats?, preview?}. With `preview` it answers what
 * that would cost today, prorated by Stripe, and changes nothing. For members who may manage billing.
 */
import { refuse } from "../_shared/database.ts";
import { answerWish, keyOf, wishOf } from "../_shared/stripe.ts";

Deno.serve(async (request) => {
  const wish = await wishOf(request);
  if (wish instanceof Response) return wish;
  const { workspace_id, price = null, seats = null, preview = false } = wish;
  // What is not clearly a preview must not be charged for.
  if (typeof preview !== "boolean") return refuse(400, "request_invalid", "preview is true or false.");
  if (preview) return await answerWish(request, "preview_change", { workspace_id, price, seats });
  return await answerWish(request, "change_plan", { workspace_id, price, seats, idempotency_key: keyOf(request) });
});
