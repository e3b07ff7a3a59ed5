// Supabase-compatible auth for the local platform: the auth part of @supabase/lite on a schema
// `auth` that is there already. Takes paths with or without /auth/v1. Settings come from the
// environment: DATABASE_URL, JWT_SECRET, SITE_URL, EXTERNAL_URL, PORT, CONFIRM_EMAIL.
import { serve } from "@hono/node-server";
import { App } from "@supabase/lite";
import { createPostgresConnection } from "@supabase/lite/postgres";
import { Kysely, PostgresDialect } from "kysely";
import pg from "pg";
import { checkedBody, refuse } from "./requests.mjs";
import { correctedService } from "./service.mjs";

const { DATABASE_URL, JWT_SECRET, SITE_URL, EXTERNAL_URL, PORT, CONFIRM_EMAIL } = process.env;

// node-postgres in place of lite's own driver, which dies with the first connection that the
// server ends (github.com/porsager/postgres/issues/1208) and stores jsonb encoded twice.
// Times as Supabase Auth prints them: supabase-py refuses "2026-01-01 00:00:00+00".
const time = (text) => `${text.replace(" ", "T").replace(/\+00$/, "")}Z`;
const parsers = { 20: Number, 1114: time, 1184: time };
const pool = new pg.Pool({
  connectionString: DATABASE_URL,
  max: 5,
  connectionTimeoutMillis: 5000,
  application_name: "auth",
  options: "-c timezone=UTC",
  types: { getTypeParser: (oid, format) => parsers[oid] ?? pg.types.getTypeParser(oid, format) },
});
// A connection that breaks in use fails its next query; one that breaks while idle is replaced.
pool.on("connect", (client) => client.on("error", () => {}));
pool.on("error", (error) => console.error(`database: ${error.message}`));
const connection = createPostgresConnection({ url: DATABASE_URL }); // lazy: it never connects
connection.kysely = new Kysely({ dialect: new PostgresDialect({ pool }) });

// The send-email hook of config.toml, as Supabase Auth calls it.
const sendEmail = (event) => pool.query("select notify.send_auth_email($1)", [JSON.stringify(event)]);

// app.ensureSystemSchema() is never called: lite then runs no DDL and leaves auth.uid() alone.
const app = new App({
  connection,
  auth: {
    enabled: true,
    jwt_secret: JWT_SECRET,
    jwt_expiry: 3600,
    site_url: SITE_URL,
    minimum_password_length: 6,
    enable_anonymous_sign_ins: true,
    email: {
      enable_signup: true,
      enable_confirmations: CONFIRM_EMAIL === "true",
      double_confirm_changes: false,
    },
  },
  options: {
    server: {
      middlewares: [correctedService({ jwtSecret: JWT_SECRET, externalUrl: EXTERNAL_URL, sendEmail })],
      apiKeys: false,
      disableStudio: true,
    },
  },
});

async function handle(request) {
  const url = new URL(request.url);
  if (!url.pathname.startsWith("/auth/v1/")) url.pathname = `/auth/v1${url.pathname}`;
  if (url.searchParams.get("type") === "email") url.searchParams.set("type", "magiclink");
  const { body, refusal } = await checkedBody(request);
  if (refusal) return refusal;
  const headers = new Headers(request.headers);
  headers.delete("content-length");
  const response = await app.fetch(new Request(url, { method: request.method, headers, body }));
  return response.status < 500 ? response : refuse(response.status, "unexpected_failure", "Unexpected failure");
}

process.on("unhandledRejection", (error) => console.error("unhandled rejection:", error));
const server = serve(
  {
    overrideGlobalObjects: false, // its own Response breaks instanceof
    hostname: "127.0.0.1",
    port: Number(PORT),
    fetch: (request) =>
      handle(request).catch((error) => {
        console.error(error);
        return refuse(500, "unexpected_failure", "Unexpected failure");
      }),
  },
  () => console.log(`auth listens on 127.0.0.1:${PORT}`),
);
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    server.close();
    pool.end().finally(() => process.exit(0));
    setTimeout(() => process.exit(0), 2000).unref();
  });
}
