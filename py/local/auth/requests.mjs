// Refuses with a 4xx the requests that @supabase/lite would answer 500 to.

const MAX_BODY_BYTES = 256 * 1024;
const MAX_EMAIL_LENGTH = 255;
const TEXT_FIELDS = [
  "email", "password", "phone", "type", "token", "token_hash", "refresh_token", "nonce", "auth_code",
  "code_verifier", "scope",
];

export function refuse(status, error_code, msg) {
  return Response.json({ code: status, error_code, msg }, { status });
}

async function text(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request.body ?? []) {
    size += chunk.length;
    if (size <= MAX_BODY_BYTES) chunks.push(chunk);
  }
  return size > MAX_BODY_BYTES ? undefined : Buffer.concat(chunks).toString();
}

/** Returns `{ body }` to pass on, or `{ refusal }`, a response. */
export async function checkedBody(request) {
  if (["GET", "HEAD"].includes(request.method)) return {};
  const raw = await text(request);
  if (raw === undefined) {
    return { refusal: refuse(413, "request_too_large", `A request may have ${MAX_BODY_BYTES} bytes.`) };
  }
  if (raw === "") return {};

  let unstorable = false;
  let body;
  try {
    body = JSON.parse(raw, (key, value) => {
      for (const part of [key, value]) {
        if (typeof part === "string" && (part.includes("\0") || !part.isWellFormed())) unstorable = true;
      }
      return value;
    });
  } catch {
    return { refusal: refuse(400, "bad_json", "The request body is not JSON.") };
  }
  if (body === null || typeof body !== "object" || Array.isArray(body)) {
    return { refusal: refuse(400, "bad_json", "The request body is not a JSON object.") };
  }
  if (unstorable) {
    return { refusal: refuse(400, "validation_failed", "Text cannot hold null characters or lone surrogates.") };
  }
  for (const name of TEXT_FIELDS) {
    if (body[name] === null) delete body[name]; // Supabase Auth takes null for absent
    if (body[name] !== undefined && typeof body[name] !== "string") {
      return { refusal: refuse(400, "validation_failed", `${name} must be text.`) };
    }
  }
  if (body.email?.length > MAX_EMAIL_LENGTH) {
    return { refusal: refuse(400, "validation_failed", `email is over ${MAX_EMAIL_LENGTH} characters.`) };
  }
  if (body.data !== undefined && body.data !== null && (typeof body.data !== "object" || Array.isArray(body.data))) {
    return { refusal: refuse(400, "validation_failed", "data must be an object.") };
  }
  if (body.data === null) delete body.data;
  if (body.type === "email") body.type = "magiclink"; // which also tries the confirmation token
  return { body: JSON.stringify(body) };
}
