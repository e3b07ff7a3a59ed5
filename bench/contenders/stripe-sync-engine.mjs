// Supabase's own way to take Stripe's webhooks: checked and written by its library, in a plain Node server.
// node stripe-sync-engine.mjs DATABASE_URL PORT SECRET
import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";

const [databaseUrl, port, secret] = process.argv.slice(2);
// Without it its migrations do nothing, and say nothing.
globalThis.__dirname = path.dirname(createRequire(import.meta.url).resolve("@supabase/stripe-sync-engine"));
const { runMigrations, StripeSync } = await import("@supabase/stripe-sync-engine");
await runMigrations({ databaseUrl, schema: "stripe" });
const sync = new StripeSync({
  poolConfig: { connectionString: databaseUrl, max: 10 },
  stripeSecretKey: "sk_test_bench",
  stripeWebhookSecret: secret,
  backfillRelatedEntities: false,
  autoExpandLists: false,
});

http.createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", async () => {
    try {
      await sync.processWebhook(Buffer.concat(chunks), request.headers["stripe-signature"]);
      response.writeHead(200, { "content-type": "application/json" }).end('{"received":true}');
    } catch (error) {
      console.error(error);
      response.writeHead(500).end(String(error));
    }
  });
}).listen(Number(port), "127.0.0.1", () => console.log("ready"));
