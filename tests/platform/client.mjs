// What supabase-js does against the local platform; prints a word for each thing that worked.
import { readFileSync } from "node:fs";
import { createClient } from "@supabase/supabase-js";
import ws from "ws";

const { SUPABASE_URL, SUPABASE_ANON_KEY, OUTBOX } = process.env;
const options = { auth: { persistSession: false, autoRefreshToken: false }, realtime: { transport: ws } };
const client = createClient(SUPABASE_URL, SUPABASE_ANON_KEY, options);
const email = `js-${Date.now()}@example.com`;
const password = "a long enough password";

function must({ data, error }) {
  if (error) throw new Error(`${error.code}: ${error.message}`);
  return data;
}
async function newestMail(type) {
  for (let tries = 0; tries < 300; tries += 1) {
    const mails = readFileSync(OUTBOX, "utf8").trim().split("\n").filter(Boolean).map((line) => JSON.parse(line));
    const mail = mails.findLast((mail) => mail.to === email && mail.type === type);
    if (mail) return mail;
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new Error("no mail came");
}

must(await client.auth.signUp({ email, password }));
must(await client.auth.verifyOtp({ type: "email", token_hash: (await newestMail("signup")).token_hash }));
console.log("signed-up");
const { session } = must(await client.auth.signInWithPassword({ email, password }));
console.log("signed-in");
must(await client.auth.refreshSession({ refresh_token: session.refresh_token }));
console.log("refreshed");
const made = must(await client.rpc("create_workspace", { name: "Js", slug: `js-${Date.now()}` }));
const seen = must(await client.from("workspaces").select("id"));
if (seen.length !== 1 || seen[0].id !== made.id) throw new Error("it does not see its workspace");
console.log("workspace");
const rows = [1, 2, 3, 4].map((n) => ({ workspace_id: made.id, name: `P${n}` }));
const refusal = await client.from("projects").insert(rows);
if (refusal.status !== 402 || refusal.error.code !== "plan_limit_reached") throw new Error(`not refused: ${refusal.status}`);
console.log("refused");
const other = createClient(SUPABASE_URL, SUPABASE_ANON_KEY, options);
if (!must(await other.auth.signInAnonymously()).user.is_anonymous) throw new Error("not anonymous");
console.log("anonymous");
must(await client.auth.resetPasswordForEmail(email));
must(await client.auth.verifyOtp({ type: "recovery", token_hash: (await newestMail("recovery")).token_hash }));
must(await client.auth.updateUser({ password: "another long password" }));
console.log("reset");
must(await client.auth.signOut());
console.log("signed-out");
