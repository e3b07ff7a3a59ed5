// Hosts the edge functions of supabase/functions under one port, as Supabase's edge runtime does:
// each folder's index.ts calls Deno.serve(handler) and is reached at /<folder>.
// Settings: PORT, FUNCTIONS (the folder), SUPABASE_JWT_SECRET, OPEN_FUNCTIONS (names, verify_jwt = false).

const port = Number(Deno.env.get("PORT"));
const folder = Deno.env.get("FUNCTIONS")!;
const open = new Set((Deno.env.get("OPEN_FUNCTIONS") ?? "").split(",").filter(Boolean));
const encoder = new TextEncoder();
const key = await crypto.subtle.importKey(
  "raw",
  encoder.encode(Deno.env.get("SUPABASE_JWT_SECRET")),
  { name: "HMAC", hash: "SHA-256" },
  false,
  ["verify"],
);

type Handler = (request: Request) => Response | Promise<Response>;
const handlers = new Map<string, Handler>();
const serve = Deno.serve;

function refuse(status: number, code: string, message: string): Response {
  return Response.json({ code, message }, { status });
}

function decode(part: string): Uint8Array<ArrayBuffer> {
  const text = atob(part.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

async function isSignedIn(request: Request): Promise<boolean> {
  const [header, payload, signature] = (request.headers.get("authorization") ?? "")
    .replace(/^Bearer /, "").split(".");
  if (!signature) return false;
  try {
    const signed = encoder.encode(`${header}.${payload}`);
    const algorithm = JSON.parse(new TextDecoder().decode(decode(header))).alg;
    const claims = JSON.parse(new TextDecoder().decode(decode(payload)));
    const valid = await crypto.subtle.verify("HMAC", key, decode(signature), signed);
    return valid && algorithm === "HS256" && claims.exp > Date.now() / 1000;
  } catch {
    return false;
  }
}

for await (const entry of Deno.readDir(folder)) {
  if (!entry.isDirectory || entry.name.startsWith("_")) continue;
  Deno.serve = ((...given: unknown[]) => {
    handlers.set(entry.name, given.find((part) => typeof part === "function") as Handler);
  }) as typeof Deno.serve;
  await import(`file://${folder}/${entry.name}/index.ts`);
}

serve({ hostname: "127.0.0.1", port, onListen: () => console.log(`functions listen on 127.0.0.1:${port}`) }, async (request) => {
  const name = new URL(request.url).pathname.split("/")[1];
  const handler = handlers.get(name);
  if (!handler) return refuse(404, "function_not_found", `There is no function ${name.slice(0, 64)}.`);
  if (!open.has(name) && !(await isSignedIn(request))) {
    return refuse(401, "not_authenticated", "This function needs a valid JWT.");
  }
  try {
    return await handler(request);
  } catch (error) {
    console.error(error);
    return refuse(500, "function_failed", "The function failed.");
  }
});
