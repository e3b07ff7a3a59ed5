/**
 * Where the links to unsubscribe lead. A person sees a page and confirms, so that programs that open links end nothing;
 * a mail program posts as RFC 8058 says, and is done. The database checks the link's signature.
 */
import { bodyOf, call, DatabaseError } from "../_shared/database.ts";

interface About {
  about: string;
  workspace: string | null;
  product: string;
  is_done: boolean;
}

const escaped = (text: string) => text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);

function page(status: number, title: string, content: string): Response {
  const html = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${escaped(title)}</title><body style="font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:4rem auto;padding:0 1rem">
<h1 style="font-size:1.4rem">${escaped(title)}</h1>${content}</body></html>`;
  return new Response(html, {
    status,
    headers: {
      "content-type": "text/html; charset=utf-8",
      "cache-control": "no-store",
      "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
      "referrer-policy": "no-referrer",
    },
  });
}

Deno.serve(async (request) => {
  if (request.method !== "GET" && request.method !== "POST") return page(405, "This is a link to open", "");
  const token = new URL(request.url).searchParams.get("token") ?? "";
  if (request.method === "POST" && (await bodyOf(request, 4096)) === undefined) return page(413, "That was too much", "");
  try {
    const answer = await call<About>("unsubscribe", { token, is_confirmed: request.method === "POST" });
    const what = escaped(answer.workspace ? `${answer.about}, in ${answer.workspace}` : answer.about);
    if (answer.is_done) return page(200, "Unsubscribed", `<p>${what}: ${escaped(answer.product)} sends no more of them.</p>`);
    return page(200, "Unsubscribe?", `<p>${what}</p><form method="post"><button>Unsubscribe</button></form>`);
  } catch (error) {
    if (error instanceof DatabaseError && error.status < 500) return page(400, "This link does not work", `<p>${escaped(error.message)}</p>`);
    console.error(error);
    return page(503, "Not now", "<p>Try again in a minute.</p>");
  }
});
