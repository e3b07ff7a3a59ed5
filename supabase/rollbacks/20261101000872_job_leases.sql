drop function
jobs.release(uuid, bigint[], double precision), jobs.fail(uuid, jsonb), jobs.complete(uuid, bigint[]),
jobs.heartbeat(uuid[], double precision), jobs.claim(text[], integer, text, double precision),
jobs.lease_of(text, text[], integer, text, double precision), jobs.reap(),
jobs.fail_one(jobs.jobs, text, interval, boolean), jobs.put_back(jobs.jobs, timestamptz, bigint, text),
jobs.file_away(bigint[], text, uuid, text, text),
jobs.settle(uuid, bigint), jobs.delay(double precision), jobs.backoff(jobs.kinds, bigint), jobs.promote(timestamptz),
jobs.pick(text, text[], integer), jobs.ready_lanes(text, text[], integer);
drop type jobs.claimed;
