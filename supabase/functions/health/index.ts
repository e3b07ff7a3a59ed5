/**
 * Tells whether the API answers: 200 and `{"status":"ok"}`, or 503 and what does not.
 * For load balancers and uptime checks; it needs no key and says nothing else.
 */

const TIMEOUT_MS = 3000;

Deno.serve(async () => {
  const url = Deno.env.get("SUPABASE_URL");
  const key = Deno.env.get("SUPABASE_ANON_KEY") ?? "";
  let rest = "ok";
  try {
    const response = await fetch(`${url}/rest/v1/`, {
      method: "HEAD",
      headers: { apikey: key },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    if (response.status >= 500) rest = `status ${response.status}`;
  } catch {
    rest = "unreachable";
  }
  const status = rest === "ok" ? "ok" : "unavailable";
  return Response.json({ status, rest }, {
    status: status === "ok" ? 200 : 503,
    headers: { "cache-control": "no-store" },
  });
});
