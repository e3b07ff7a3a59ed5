drop function
jobs.enqueue_many(text, jsonb[], uuid, text, bigint, timestamptz, bigint),
jobs.enqueue(text, jsonb, uuid, text, bigint, timestamptz, bigint, text), jobs.wake(text, text),
jobs.check_queue(text), jobs.check_payload(jobs.kinds, jsonb), jobs.kind_of(text), jobs.refuse(text, text),
jobs.payload_flaw(jsonb, jsonb, text), jobs.format_flaw(text, text), jobs.schema_flaw(jsonb, text);
