/**
 * The executor for projects that run no server: hands what waits in the outbox to Resend and Twilio, makes the calls to
 * Stripe that wait, and says what came of it. Called with the service role's key, by pg_cron through pg_net or by any other clock. What is sent, to whom and
 * whether again is decided in the database.
 */
import { Resend } from "npm:resend@6.38.0";
import { call, refuse } from "../_shared/database.ts";
import { carry, stripeClient } from "../_shared/stripe.ts";

const TIMEOUT_MS = 20_000;
const BUDGET_MS = 50_000;
const AT_ONCE = 5;

interface Message {
  id: string;
  // deno-lint-ignore no-explicit-any
  body: any;
}
interface Delivery {
  batch_id: string;
  channel?: "email" | "sms";
  is_first?: boolean;
  first_attempt_at?: string;
  messages: Message[];
}
interface Text {
  sid: string;
  body: string;
  from: string;
  date_created: string;
}
interface Claimed {
  job: number;
  lease: string;
  delivery: Delivery;
}
interface StripeJob {
  job: number;
  lease: string;
  payload: unknown;
}
interface Outcome {
  accepted?: { id: string; provider_id: string }[];
  error?: string;
  is_permanent?: boolean;
  /** The provider took this batch before, under the same key, as it was then. */
  is_known?: boolean;
  /** Whether it was an attempt at all: being asked to wait is none. */
  counts?: boolean;
  retry_in?: number | null;
}

function timeLimit<Answer>(work: Promise<Answer>): Promise<Answer> {
  let timer: ReturnType<typeof setTimeout>;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("no answer in time")), TIMEOUT_MS);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

async function email(delivery: Delivery): Promise<Outcome> {
  const key = Deno.env.get("RESEND_API_KEY");
  if (!key) return { error: "RESEND_API_KEY is not set: mails wait", counts: false, retry_in: 300 };
  const resend = new Resend(key);
  const options = { idempotencyKey: delivery.batch_id };
  const bodies = delivery.messages.map((message) => message.body);
  const answer = bodies.length === 1
    ? await timeLimit(resend.emails.send(bodies[0], options))
    : await timeLimit(resend.batch.send(bodies, options));
  if (answer.error) {
    const { name, message, statusCode } = answer.error as { name: string; message: string; statusCode?: number | null };
    const status = statusCode ?? 500;
    const wait = Number(answer.headers?.["retry-after"]);
    return {
      error: `Resend: ${status} ${name}: ${message}`,
      is_permanent: [400, 413, 422].includes(status),
      is_known: name === "invalid_idempotent_request",
      counts: status !== 429,
      retry_in: status === 429 ? (wait > 0 ? wait : 5) : null,
    };
  }
  const data = answer.data as { id?: string; data?: { id: string }[] };
  const ids = bodies.length === 1 ? [data.id] : (data.data ?? []).map((row) => row.id);
  if (ids.length !== bodies.length || ids.some((id) => !id)) return { error: "Resend: its answer could not be read" };
  return { accepted: delivery.messages.map((message, place) => ({ id: message.id, provider_id: ids[place]! })) };
}

async function sms(delivery: Delivery): Promise<Outcome> {
  const account = Deno.env.get("TWILIO_ACCOUNT_SID");
  const token = Deno.env.get("TWILIO_AUTH_TOKEN");
  if (!account || !token) {
    return { error: "TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN are not set: SMS wait", counts: false, retry_in: 300 };
  }
  const base = Deno.env.get("TWILIO_API_URL") ?? "https://api.twilio.com";
  const url = `${base}/2010-04-01/Accounts/${account}/Messages.json`;
  const headers = { authorization: `Basic ${btoa(`${account}:${token}`)}` };
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const [message] = delivery.messages;
  if (!delivery.is_first) {
    // Twilio knows no idempotency key: what was tried before may have arrived, and then its list tells.
    // By the time it was made, with room for clocks that differ: one that is queued has no time of sending yet.
    const since = Date.parse(delivery.first_attempt_at!) - 5 * 60_000;
    const query = new URLSearchParams({ To: message.body.To, PageSize: "50" });
    const known: { messages?: Text[] } = await (await fetch(`${url}?${query}`, { headers, signal })).json();
    const same = known.messages?.find((row) =>
      row.body === message.body.Body && row.from === message.body.From && !(Date.parse(row.date_created) < since)
    );
    if (same) return { accepted: [{ id: message.id, provider_id: same.sid }] };
  }
  const response = await fetch(url, { method: "POST", headers, body: new URLSearchParams(message.body), signal });
  const answer = await response.json();
  if (!response.ok) {
    return {
      error: `Twilio: ${response.status} ${answer.code ?? ""}: ${answer.message ?? ""}`,
      is_permanent: [400, 404, 410, 422].includes(response.status),
      counts: response.status !== 429,
      retry_in: response.status === 429 ? 5 : null,
    };
  }
  return { accepted: [{ id: message.id, provider_id: answer.sid }] };
}

async function deliver({ job, lease, delivery }: Claimed): Promise<string> {
  let outcome: Outcome;
  try {
    outcome = delivery.messages.length === 0
      ? { accepted: [] }
      : await (delivery.channel === "sms" ? sms(delivery) : email(delivery));
  } catch (error) {
    outcome = { error: String(error).slice(0, 500) };
  }
  return await call<string>("settle_delivery", { result: { job, lease, batch_id: delivery.batch_id, ...outcome } });
}

function isService(request: Request): boolean {
  // The platform has checked the signature; any signed-in user's token would have passed.
  try {
    const payload = (request.headers.get("authorization") ?? "").split(".")[1];
    return JSON.parse(atob(payload.replaceAll("-", "+").replaceAll("_", "/"))).role === "service_role";
  } catch {
    return false;
  }
}

Deno.serve(async (request) => {
  if (!isService(request)) return refuse(403, "permission_denied", "Only the service role may have mail delivered.");
  const until = Date.now() + BUDGET_MS;
  const outcomes: Record<string, number> = {};
  while (Date.now() < until) {
    const claimed = await call<Claimed[]>("claim_deliveries", { size: AT_ONCE });
    if (claimed.length === 0) break;
    for (const outcome of await Promise.all(claimed.map(deliver))) outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  }
  const stripe = stripeClient();
  while (stripe && Date.now() < until) {
    const claimed = await call<StripeJob[]>("claim_stripe_calls", { size: AT_ONCE });
    if (claimed.length === 0) break;
    for (const { job, lease, payload } of claimed) {
      const outcome = await carry(stripe, payload, until).catch((error) => ({ error: String(error).slice(0, 500) }));
      const name = await call<string>("finish_stripe_call", { result: { job, lease, ...outcome } });
      outcomes[`stripe_${name}`] = (outcomes[`stripe_${name}`] ?? 0) + 1;
    }
  }
  return Response.json(outcomes, { headers: { "cache-control": "no-store" } });
});
