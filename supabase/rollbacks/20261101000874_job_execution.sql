select jobs.drop_kind(kinds.kind) from jobs.kinds;
drop procedure jobs.run(interval, integer);
drop function
jobs.cancel_overdue(), jobs.execute(uuid, double precision), jobs.claim_for_postgres(text[], integer),
jobs.drop_kind(text), jobs.register(jsonb),
jobs.declare_kind(text, text, text, text, bigint, jsonb, interval, bigint, interval, interval, text),
jobs.write_runner(jobs.kinds), jobs.handler_of(jobs.kinds), jobs.runner_name(text);
