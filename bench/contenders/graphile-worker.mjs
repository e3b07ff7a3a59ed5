// node graphile-worker.mjs install|enqueue_one N|enqueue_batch N|drain N|latency N|size   (DATABASE_URL)
import { run, makeWorkerUtils, Logger } from "graphile-worker";
import pg from "pg";
const [mode, count] = [process.argv[2], Number(process.argv[3] || 0)];
const url = process.env.DATABASE_URL;
const env = (name, fallback) => Number(process.env[name] ?? fallback);
const logger = new Logger(() => () => {});
process.env.NO_LOG_SUCCESS = "1"; // as in its perfTest/run.js
const sleep = (ms) => new Promise((r) => setTimeout(r, ms));
const print = (value) => console.log(JSON.stringify(value));
const rate = (jobs, from) => print({ jobs, seconds: (performance.now() - from) / 1000 });
const concurrentJobs = env("JOBS", 24);
// https://worker.graphile.org/docs/performance, "Quick stats"
const worker = {
  connectionString: url, logger, concurrentJobs, maxPoolSize: concurrentJobs + 1,
  localQueue: { size: env("LOCAL_QUEUE", 5000) },
  completeJobBatchDelay: env("BATCH_DELAY", 0), failJobBatchDelay: env("BATCH_DELAY", 0),
};
const percentiles = (times) => {
  times.sort((a, b) => a - b);
  const at = (q) => times[Math.min(times.length - 1, Math.floor(q * times.length))];
  return { p50: at(0.5), p95: at(0.95) };
};

if (mode === "install") {
  const utils = await makeWorkerUtils({ preset: { worker } });
  await utils.migrate();
  await utils.release();
} else if (mode === "enqueue_one") {
  const utils = await makeWorkerUtils({ preset: { worker } });
  await utils.addJob("warm_up_never_run", {}, { runAt: new Date("2100-01-01"), jobKey: "warm" });
  const start = performance.now();
  for (let i = 0; i < count; i++) await utils.addJob("noop", { i });
  rate(count, start);
  await utils.withPgClient((c) => c.query("select graphile_worker.remove_job('warm')"));
  await utils.release();
} else if (mode === "enqueue_batch") {
  const utils = await makeWorkerUtils({ preset: { worker } });
  await utils.withPgClient((c) => c.query("select 1"));
  const start = performance.now();
  for (let i = 0; i < count; i += 1000) {
    const specs = [];
    for (let j = i; j < Math.min(i + 1000, count); j++) specs.push({ identifier: "noop", payload: { i: j } });
    await utils.addJobs(specs);
  }
  rate(count, start);
  await utils.release();
} else if (mode === "drain") {
  const client = new pg.Client(url);
  await client.connect();
  let ran = 0, all;
  const ranAll = new Promise((resolve) => { all = resolve; });
  const start = performance.now();
  const runner = await run({ preset: { worker }, noHandleSignals: true, parsedCronItems: [],
    taskList: { noop: () => { if (++ran === count) all(); } } });
  await ranAll;
  // A completed job is a deleted row.
  while ((await client.query("select 1 from graphile_worker._private_jobs limit 1")).rowCount) await sleep(1);
  rate(count, start);
  await runner.stop();
  await client.end();
} else if (mode === "latency") {
  const utils = await makeWorkerUtils({ preset: { worker } });
  let started;
  const preset = { worker: { ...worker } };
  if (!process.env.LATENCY_BATCHED) { // its latencyTest.js runs the plain worker
    delete preset.worker.localQueue; delete preset.worker.completeJobBatchDelay; delete preset.worker.failJobBatchDelay;
  }
  const runner = await run({ preset, noHandleSignals: true, parsedCronItems: [],
    taskList: { noop: () => { started(performance.now()); } } });
  await sleep(500);
  const times = [];
  for (let i = -20; i < count; i++) {
    const begun = new Promise((resolve) => { started = resolve; });
    const from = performance.now();
    await utils.addJob("noop", { i });
    const at = await begun;
    if (i >= 0) times.push(at - from);
    await sleep(20);
  }
  print(percentiles(times));
  await runner.stop();
  await utils.release();
} else if (mode === "size") {
  const client = new pg.Client(url);
  await client.connect();
  const { rows: [row] } = await client.query(`select sum(pg_table_size(oid))::float8 as table_bytes,
    sum(pg_indexes_size(oid))::float8 as index_bytes
    from pg_class where relnamespace = 'graphile_worker'::regnamespace and relkind = 'r'`);
  print(row);
  await client.end();
} else throw new Error(`no mode ${mode}`);
