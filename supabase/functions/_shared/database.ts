/**
 * Calls one function of the database: as whoever `authorization` says, or else with the service role's key. Throws what
 * the database answered.
 */
export async function call<Answer>(
  name: string,
  body: Record<string, unknown>,
  authorization?: string,
): Promise<Answer> {
  const key = Deno.env.get("SUPABASE_SERVICE_ROLE_KEY") ?? "";
  const response = await fetch(`${Deno.env.get("SUPABASE_URL")}/rest/v1/rpc/${name}`, {
    method: "POST",
    headers: { apikey: key, authorization: authorization ?? `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(20_000),
  });
  const answer = await response.json();
  if (!response.ok) {
    throw new DatabaseError(response.status, answer?.code ?? "", answer?.message ?? "", answer?.hint ?? undefined);
  }
  return answer as Answer;
}

/** What the database refused: the HTTP status, and the code of docs/errors.md. */
export class DatabaseError extends Error {
  constructor(readonly status: number, readonly code: string, message: string, readonly hint?: string) {
    super(message);
  }
}

/** An error as every surface of Rowhouse answers it. */
export function refuse(status: number, code: string, message: string, hint?: string): Response {
  return Response.json({ code, message, hint }, { status, headers: { "cache-control": "no-store" } });
}

/** The body as text; undefined if it is over the limit. */
export async function bodyOf(request: Request, limit: number): Promise<string | undefined> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of request.body ?? []) {
    size += chunk.length;
    if (size > limit) return undefined;
    chunks.push(chunk);
  }
  return new TextDecoder().decode(new Uint8Array(await new Blob(chunks as BlobPart[]).arrayBuffer()));
}
