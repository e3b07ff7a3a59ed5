/**
 * What Stripe tells. The signature is checked by Stripe's library over the body as it came; then one call of the database
 * keeps the event before it is answered. What is done about it is a job. https://docs.stripe.com/webhooks
 */
import Stripe from "npm:stripe@23.1.0";
import { bodyOf, call, DatabaseError, refuse } from "../_shared/database.ts";

const LIMIT_BYTES = 1024 * 1024;
const TOLERANCE_SECONDS = 300;
const AT_ONCE = 50;

const secrets = (Deno.env.get("STRIPE_WEBHOOK_SECRET") ?? "").split(",").map((word) => word.trim()).filter(Boolean);
const verifier = Stripe.webhooks ?? new Stripe("sk_test_none").webhooks;
const crypto = Stripe.createSubtleCryptoProvider();

type Kept = boolean | null;
interface Waiting {
  event: unknown;
  resolve: (kept: Kept) => void;
  reject: (error: unknown) => void;
}
let waiting: Waiting[] = [];
let isKeeping = false;

/** Keeps an event. Those that arrive while others are being kept share one call. */
function keep(event: unknown): Promise<Kept> {
  const kept = new Promise<Kept>((resolve, reject) => waiting.push({ event, resolve, reject }));
  if (!isKeeping) void keepAll();
  return kept;
}

async function keepAll(): Promise<void> {
  isKeeping = true;
  while (waiting.length > 0) {
    const batch = waiting.slice(0, AT_ONCE);
    waiting = waiting.slice(AT_ONCE);
    await store(batch);
  }
  isKeeping = false;
}

async function store(batch: Waiting[]): Promise<void> {
  try {
    const outcomes = await call<Kept[]>("receive_stripe_events", { events: batch.map(({ event }) => event) });
    batch.forEach(({ resolve }, place) => resolve(outcomes[place]));
  } catch (error) {
    // One that Postgres cannot read, or that waited for another, takes no other along.
    if (batch.length > 1 && error instanceof DatabaseError) {
      for (const one of batch) await store([one]);
    } else {
      for (const { reject } of batch) reject(error);
    }
  }
}

/** The event in a body that one of the secrets signed; several hold while one is exchanged for another. */
async function genuine(payload: string, signature: string): Promise<unknown> {
  for (const secret of secrets) {
    try {
      return await verifier.constructEventAsync(payload, signature, secret, TOLERANCE_SECONDS, crypto);
    } catch (error) {
      if (!(error instanceof Stripe.errors.StripeSignatureVerificationError)) throw error;
    }
  }
  return undefined;
}

Deno.serve(async (request) => {
  if (request.method !== "POST") return refuse(405, "method_not_allowed", "Events are posted.");
  if (secrets.length === 0) return refuse(503, "not_configured", "STRIPE_WEBHOOK_SECRET is not set.");
  const payload = await bodyOf(request, LIMIT_BYTES);
  if (payload === undefined) return refuse(413, "request_too_large", `An event may have ${LIMIT_BYTES} bytes.`);
  let event: unknown;
  try {
    event = await genuine(payload, request.headers.get("stripe-signature") ?? "");
  } catch {
    // It was signed, and is no JSON.
    return refuse(400, "event_invalid", "This is no event of Stripe.");
  }
  if (event === undefined) return refuse(401, "signature_invalid", "This was not signed by Stripe, or too long ago.");
  try {
    const kept = await keep(event);
    if (kept === null) return refuse(400, "event_invalid", "This is no event of Stripe.");
    return Response.json({ is_new: kept });
  } catch (error) {
    // Stripe asks again after anything but 2xx.
    if (error instanceof DatabaseError && error.status < 500) return refuse(error.status, error.code, error.message);
    console.error(error);
    return refuse(503, "not_ready", "The event could not be kept.");
  }
});
