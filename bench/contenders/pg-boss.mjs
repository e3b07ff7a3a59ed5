// node pg-boss.mjs install|enqueue_one N|enqueue_batch N|drain N|latency N|size   (DATABASE_URL)
import { PgBoss } from "pg-boss";
import pg from "pg";
const [mode, count] = [process.argv[2], Number(process.argv[3] || 0)];
const url = process.env.DATABASE_URL;
const env = (name, fallback) => Number(process.env[name] ?? fallback);
const sleep = (ms) => new Promise((r) => setTimeout(r, ms));
const print = (value) => console.log(JSON.stringify(value));
const rate = (jobs, from) => print({ jobs, seconds: (performance.now() - from) / 1000 });
const queue = "noop";
const percentiles = (times) => {
  times.sort((a, b) => a - b);
  const at = (q) => times[Math.min(times.length - 1, Math.floor(q * times.length))];
  return { p50: at(0.5), p95: at(0.95) };
};
const boot = async (options = {}) => {
  // useListenNotify: docs/api/constructor.md
  const boss = new PgBoss({ connectionString: url, useListenNotify: false, ...options });
  boss.on("error", (error) => { console.error(error); process.exitCode = 1; });
  boss.on("warning", (warning) => { if (process.env.WARN) console.error(warning); });
  await boss.start();
  return boss;
};
const quick = async (boss) => { await boss.stop({ graceful: false }); };

if (mode === "install") {
  const boss = await boot();
  // notify: docs/api/queues.md; partition: its own table rather than the shared one
  await boss.createQueue(queue, { notify: true, partition: process.env.PARTITION === "1" });
  await quick(boss);
} else if (mode === "enqueue_one") {
  const boss = await boot();
  await boss.getQueue(queue);
  const start = performance.now();
  for (let i = 0; i < count; i++) await boss.send(queue, { i });
  rate(count, start);
  await quick(boss);
} else if (mode === "enqueue_batch") {
  const boss = await boot();
  const start = performance.now();
  for (let i = 0; i < count; i += 1000) {
    const jobs = [];
    for (let j = i; j < Math.min(i + 1000, count); j++) jobs.push({ data: { i: j } });
    await boss.insert(queue, jobs);
  }
  rate(count, start);
  await quick(boss);
} else if (mode === "drain") {
  const boss = await boot({ useListenNotify: true });
  let ran = 0, all;
  const ranAll = new Promise((resolve) => { all = resolve; });
  const start = performance.now();
  // docs/api/workers.md: batchSize, burstWhenBatchFull (no pause between full batches), localConcurrency
  await boss.work(queue, { batchSize: env("BATCH", 2500), burstWhenBatchFull: true, localConcurrency: env("LOCAL", 2),
    pollingIntervalSeconds: 0.5, notifyPollingIntervalSeconds: 0.5 },
    async (jobs) => { for (const job of jobs) ran++; if (ran >= count) all(); });
  await ranAll;
  await boss.offWork(queue, { wait: true }); // returns once the batches in flight are completed in the table
  rate(count, start);
  const client = new pg.Client(url);
  await client.connect();
  const { rows: [row] } = await client.query("select count(*)::int as left from pgboss.job where name = $1 and state <> 'completed'", [queue]);
  if (row.left !== 0 || ran !== count) { console.error({ left: row.left, ran }); process.exitCode = 1; }
  await client.end();
  await quick(boss);
} else if (mode === "latency") {
  const boss = await boot({ useListenNotify: true });
  const sender = await boot({ supervise: false, schedule: false });
  let started;
  await boss.work(queue, { batchSize: 1 }, async () => { started(performance.now()); });
  await sleep(1500);
  const times = [];
  for (let i = -20; i < count; i++) {
    const begun = new Promise((resolve) => { started = resolve; });
    const from = performance.now();
    await sender.send(queue, { i });
    const at = await begun;
    if (i >= 0) times.push(at - from);
    await sleep(20);
  }
  print(percentiles(times));
  await quick(boss);
  await quick(sender);
} else if (mode === "size") {
  const client = new pg.Client(url);
  await client.connect();
  const { rows: [row] } = await client.query(`select sum(pg_table_size(oid))::float8 as table_bytes,
    sum(pg_indexes_size(oid))::float8 as index_bytes
    from pg_class where relnamespace = 'pgboss'::regnamespace and relkind = 'r' and relname ~ '^(job_common|j[0-9a-f]{10,})'`);
  print(row);
  await client.end();
} else throw new Error(`no mode ${mode}`);
process.exit();
