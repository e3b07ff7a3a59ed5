/**
 * Carries calls to Stripe that the database asks for, and brings back what it answered. What is asked, under which
 * idempotency key, and what an answer means is decided in the database.
 */
import Stripe from "npm:stripe@23.1.0";
import { bodyOf, call, DatabaseError, refuse } from "./database.ts";

interface Call {
  token: unknown;
  method: "get" | "post" | "delete";
  path: string;
  params: Record<string, unknown>;
  idempotency_key?: string;
  api_version: string;
}
interface Answer {
  status?: number;
  body?: unknown;
  date?: string;
  elapsed?: number;
  retry_after?: number;
  error?: string;
}
export interface Outcome {
  again?: boolean;
  retry?: boolean;
  failed?: boolean;
  error?: string;
  code?: string;
  status?: number;
  retry_in?: number | null;
  counts?: boolean;
}

/** STRIPE_SECRET_KEY, if it is one: an error of the network would print whatever else it holds. */
function secretKey(): string | undefined {
  const key = Deno.env.get("STRIPE_SECRET_KEY")?.trim();
  return key && /^(sk|rk)_(live|test)_\w{1,250}$/.test(key) ? key : undefined;
}

/** Stripe's SDK, led to another address where STRIPE_API_URL names one; undefined without a key. */
export function stripeClient(): Stripe | undefined {
  const key = secretKey();
  if (!key) return undefined;
  const url = Deno.env.get("STRIPE_API_URL");
  const place = url ? new URL(url) : undefined;
  return new Stripe(key, {
    maxNetworkRetries: 1,
    timeout: 20_000,
    telemetry: false,
    httpClient: Stripe.createFetchHttpClient(),
    ...(place && {
      host: place.hostname,
      port: place.port || (place.protocol === "https:" ? "443" : "80"),
      protocol: place.protocol.replace(":", "") as "http" | "https",
    }),
  });
}

async function ask(stripe: Stripe, asked: Call): Promise<Answer> {
  const begun = performance.now();
  const elapsed = () => (performance.now() - begun) / 1000;
  const options = {
    apiVersion: asked.api_version,
    ...(asked.idempotency_key && { idempotencyKey: asked.idempotency_key }),
  };
  try {
    const nothing = Object.keys(asked.params).length === 0;
    const answered = await stripe.rawRequest(
      asked.method.toUpperCase(),
      asked.path,
      nothing ? undefined : asked.params,
      options,
    );
    const { lastResponse, ...body } = answered as { lastResponse: { statusCode: number; headers: Record<string, string> } };
    return { status: lastResponse.statusCode, body, date: lastResponse.headers.date, elapsed: elapsed() };
  } catch (error) {
    if (!(error instanceof Stripe.errors.StripeError) || !error.statusCode) {
      return { error: String(error).slice(0, 500).replaceAll(secretKey() ?? "\0", "…") };
    }
    const wait = Number(error.headers?.["retry-after"]);
    return {
      status: error.statusCode,
      body: { error: { type: error.rawType, message: error.message, code: error.code } },
      date: error.headers?.date,
      elapsed: elapsed(),
      ...(wait > 0 && { retry_after: wait }),
    };
  }
}

/** Makes the calls of a payload one after the other, until none is left. Returns what the last came to. */
export async function carry(stripe: Stripe, payload: unknown, until = Infinity): Promise<Outcome> {
  const key = secretKey()!;
  const mode = key.slice(3).startsWith("live_") ? "live" : "test";
  while (true) {
    const asked = await call<Call | null>("take_stripe_call", { payload, mode });
    if (asked === null) return {};
    const outcome = await call<Outcome>("settle_stripe_call", { token: asked.token, answer: await ask(stripe, asked) });
    if (!outcome.again) return outcome;
    // A long walk is cut into jobs: its bookmark is in the database.
    if (Date.now() > until) return { error: "there is more to read", retry_in: 0, counts: false };
  }
}

const STATUS_OF_STRIPE = 402;
const LIMIT_BYTES = 16 * 1024;

/**
 * Answers a member's wish: `name` is a function of the database that says as the caller whether they may, and makes a
 * request of it; that is carried to Stripe here, and its result is the answer.
 */
export async function answerWish(request: Request, name: string, body: Record<string, unknown>): Promise<Response> {
  const stripe = stripeClient();
  if (!stripe) return refuse(503, "not_configured", "STRIPE_SECRET_KEY is not set, or is no secret key.");
  try {
    const id = await call<string>(name, body, request.headers.get("authorization") ?? "");
    const outcome = await carry(stripe, { request: id });
    const result = await call<{ error?: string; code?: string }>("stripe_result", { request_id: id });
    if (result.error === undefined) return Response.json(result, { headers: { "cache-control": "no-store" } });
    if (outcome.failed || result.code !== "waiting") {
      return refuse(STATUS_OF_STRIPE, "stripe_refused", result.error, "Stripe has refused this; nothing was changed.");
    }
    return refuse(503, "stripe_not_reached", "Stripe has not answered.", "Try again with the same idempotency key.");
  } catch (error) {
    if (error instanceof DatabaseError) return refuse(error.status, error.code, error.message, error.hint);
    console.error(error);
    return refuse(503, "not_ready", "This cannot be done now.", "Try again with the same idempotency key.");
  }
}

/** The body of a wish as an object; a refusal for anything else. */
export async function wishOf(request: Request): Promise<Record<string, unknown> | Response> {
  if (request.method !== "POST") return refuse(405, "method_not_allowed", "This is posted.");
  try {
    const body = JSON.parse(await bodyOf(request, LIMIT_BYTES) ?? "");
    if (typeof body === "object" && body !== null && typeof body.workspace_id === "string") return body;
  } catch {
    // It is told below.
  }
  return refuse(400, "request_invalid", "The body is no JSON object with a workspace_id.");
}

/** The caller's own key, which makes trying again safe. */
export function keyOf(request: Request): string | null {
  return request.headers.get("idempotency-key") || null;
}
