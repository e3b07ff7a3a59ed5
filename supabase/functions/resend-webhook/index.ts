/**
 * What Resend tells of mails: delivered, bounced, complained. The signature is checked over the body as it came; then
 * one call of the database keeps the event before it is answered. https://resend.com/docs/dashboard/webhooks
 */
import { Resend } from "npm:resend@6.38.0";
import { bodyOf, call, DatabaseError, refuse } from "../_shared/database.ts";

const LIMIT_BYTES = 256 * 1024;

Deno.serve(async (request) => {
  if (request.method !== "POST") return refuse(405, "method_not_allowed", "Events are posted.");
  const secrets = (Deno.env.get("RESEND_WEBHOOK_SECRET") ?? "").split(",").filter(Boolean);
  if (secrets.length === 0) return refuse(503, "not_configured", "RESEND_WEBHOOK_SECRET is not set.");
  const payload = await bodyOf(request, LIMIT_BYTES);
  if (payload === undefined) return refuse(413, "request_too_large", `An event may have ${LIMIT_BYTES} bytes.`);
  const headers = {
    id: request.headers.get("svix-id") ?? "",
    timestamp: request.headers.get("svix-timestamp") ?? "",
    signature: request.headers.get("svix-signature") ?? "",
  };
  // Several while a secret is exchanged for another.
  const isGenuine = secrets.some((webhookSecret) => {
    try {
      new Resend("re_none").webhooks.verify({ payload, headers, webhookSecret });
      return true;
    } catch {
      return false;
    }
  });
  if (!isGenuine) return refuse(401, "signature_invalid", "This was not signed by Resend, or too long ago.");
  try {
    const isNew = await call<boolean>("receive_mail_event", { id: headers.id, event: JSON.parse(payload) });
    return Response.json({ is_new: isNew });
  } catch (error) {
    // Resend asks again after anything but 2xx.
    if (error instanceof DatabaseError && error.status < 500) return refuse(error.status, error.code, error.message);
    console.error(error);
    return refuse(503, "not_ready", "The event could not be kept.");
  }
});
