-- Why: Postgres itself is an executor: kinds whose handler is an SQL function run where the data is, started by the
--      clock
--      or by any worker. Declaring a kind writes the function that runs a batch of it, with the handler's call planned.
-- Locks: none on existing tables.
-- Workers: need not stop.

create function jobs.runner_name(kind text) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 'run_' || left(replace(runner_name.kind, '.', '_'), 40) || '_' || left(md5(runner_name.kind), 8) $$;
comment on function jobs.runner_name(text) is 'The name of the function that runs a kind''s jobs in Postgres.';

create function jobs.handler_of(known jobs.kinds) returns regprocedure
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return to_regprocedure(known.handler || '(jobs.jobs)');
exception
    when others then return null;
end
$$;
comment on function jobs.handler_of(jobs.kinds) is
'The SQL function of a kind; null if there is none of that name that takes a jobs.jobs.';

create function jobs.write_runner(known jobs.kinds) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    execute format(
        $code$
create or replace function jobs.%1$I(token uuid, ids bigint[], until timestamptz) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    job jobs.jobs;
    done bigint[] := '{}'::bigint[];
    unbegun bigint[] := '{}'::bigint[];
    failures jsonb := '[]'::jsonb;
    is_over boolean := false;
    complaint text;
    context text;
begin
    for job in select j.* from jobs.jobs j where j.id = any (ids) and j.lease = token order by j.id loop
        if is_over or clock_timestamp() > until then
            unbegun := unbegun || job.id;
            continue;
        end if;
        begin
            -- The watchman, jobs.cancel_overdue(), reads here how long this may take.
            perform set_config(
                'application_name', 'rowhouse job until ' || (extract(epoch from clock_timestamp()) + %2$s)::bigint, true
            );
            perform set_config('rowhouse.actor', 'job:' || %3$L || ':' || job.id, true);
            set constraints all deferred;
            perform %4$s(job);
            -- What is checked at commit is checked now: it is this job's fault, not its batch's.
            set constraints all immediate;
            done := done || job.id;
        exception
            when query_canceled then
                failures := failures || jsonb_build_object('id', job.id, 'error', 'it was cancelled: it may take %2$s seconds');
                is_over := true;
            when assert_failure or others then
                get stacked diagnostics complaint = message_text, context = pg_exception_context;
                failures := failures || jsonb_build_object(
                    'id', job.id, 'error', format('%%s: %%s (%%s)', sqlstate, complaint, split_part(context, E'\n', 1))
                );
        end;
    end loop;
    perform set_config('rowhouse.actor', '', true);
    perform jobs.complete(token, done);
    if failures <> '[]' then
        perform jobs.fail(token, failures);
    end if;
    if unbegun <> '{}' then
        perform jobs.release(token, unbegun);
    end if;
end
$body$
        $code$,
        jobs.runner_name(known.kind), extract(epoch from known.timeout)::bigint, known.kind,
        (select format('%I.%I', n.nspname, p.proname) from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where p.oid = jobs.handler_of(known))
    );
    execute format(
        'comment on function jobs.%I(uuid, bigint[], timestamptz) is %L', jobs.runner_name(known.kind),
        format('Runs jobs %s in Postgres, each in its own subtransaction. Written by jobs.declare_kind().', known.kind)
    );
end
$$;
comment on function jobs.write_runner(jobs.kinds) is 'Writes the function that runs a kind''s jobs in Postgres.';

create function jobs.declare_kind(
    kind text,
    executor text,
    handler text default null,
    queue text default 'default',
    priority bigint default 100,
    payload_schema jsonb default '{}',
    timeout interval default interval '1 minute',
    max_attempts bigint default 5,
    backoff interval default interval '5 seconds',
    max_backoff interval default interval '1 hour',
    description text default ''
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    declared jobs.kinds;
    flaw text := jobs.schema_flaw(declare_kind.payload_schema);
begin
    if flaw is not null then
        perform jobs.refuse(format('kind %s: %s', declare_kind.kind, flaw), 'docs/jobs.md names the keywords.');
    end if;
    insert into jobs.kinds as k (
        kind, executor, handler, queue, priority, payload_schema, timeout, max_attempts, backoff, max_backoff,
        description
    ) values (
        declare_kind.kind, declare_kind.executor, coalesce(declare_kind.handler, declare_kind.kind), declare_kind.queue,
        declare_kind.priority, declare_kind.payload_schema, declare_kind.timeout, declare_kind.max_attempts,
        declare_kind.backoff, greatest(declare_kind.max_backoff, declare_kind.backoff), declare_kind.description
    )
    on conflict on constraint kinds_pkey do update
    set
        executor = excluded.executor, handler = excluded.handler, queue = excluded.queue, priority = excluded.priority,
        payload_schema = excluded.payload_schema, timeout = excluded.timeout, max_attempts = excluded.max_attempts,
        backoff = excluded.backoff, max_backoff = excluded.max_backoff, description = excluded.description
    returning k.* into declared;
    -- What waits goes to whoever runs it from now on.
    update jobs.jobs j set executor = declared.executor
    where j.kind = declared.kind and j.executor <> declared.executor and j.state <> 'processing';
    if declared.executor <> 'postgres' then
        execute format('drop function if exists jobs.%I(uuid, bigint[], timestamptz)', jobs.runner_name(declared.kind));
    else
        if jobs.handler_of(declared) is null then
            perform jobs.refuse(
                format('kind %s: there is no function %s(jobs.jobs)', declared.kind, declared.handler),
                'Create it first: create function … (job jobs.jobs) returns void.'
            );
        end if;
        perform jobs.write_runner(declared);
    end if;
end
$$;
comment on function jobs.declare_kind(
    text, text, text, text, bigint, jsonb, interval, bigint, interval, interval, text
) is
'Declares a kind of job, or changes what was declared. executor is postgres, with a function that takes a jobs.jobs as
handler, or worker. For migrations.';

create function jobs.register(kinds jsonb) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    given jobs.kinds;
    registered bigint := 0::bigint;
begin
    for given in
        select r.* from jsonb_array_elements(register.kinds) e
        cross join lateral jsonb_populate_record(
            jsonb_populate_record(
                null::jobs.kinds,
                '{"is_registered": true, "queue": "default", "priority": 100, "payload_schema": {}, "timeout": "1 minute", "max_attempts": 5,
                "backoff": "5 seconds", "max_backoff": "1 hour", "description": ""}'
            ), e.value
        ) as r
    loop
        if exists (select from jobs.kinds k where k.kind = given.kind and not k.is_registered) then
            perform jobs.refuse(
                format('kind %s was declared by a migration', given.kind),
                'Change it there; the worker''s function takes is_declared_in_sql=True.'
            );
        end if;
        -- A worker that starts changes nothing where nothing is new.
        continue when exists (
            select from jobs.kinds k
            where
                (k.kind, k.handler, k.queue, k.priority, k.payload_schema, k.timeout, k.max_attempts, k.backoff, k.description)
                = (
                    given.kind, coalesce(given.handler, given.kind), given.queue, given.priority, given.payload_schema,
                    given.timeout, given.max_attempts, given.backoff, given.description
                )
                and k.max_backoff = greatest(given.max_backoff, given.backoff)
        );
        perform jobs.declare_kind(
            given.kind, 'worker', coalesce(given.handler, given.kind), given.queue, given.priority, given.payload_schema,
            given.timeout, given.max_attempts, given.backoff, given.max_backoff, given.description
        );
        update jobs.kinds k set is_registered = true where k.kind = given.kind;
        registered := registered + 1;
    end loop;
    return registered;
end
$$;
comment on function jobs.register(jsonb) is
'Declares the kinds that a worker was given, an array of objects with the columns of jobs.kinds; returns how many were
new or have changed. Kinds that migrations declared are not a worker''s to change.';

create function jobs.drop_kind(kind text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from jobs.jobs j where j.kind = drop_kind.kind and j.state <> 'failed') then
        perform jobs.refuse(format('jobs %s are waiting', drop_kind.kind), 'Let them finish, or discard them.');
    end if;
    delete from jobs.kinds k where k.kind = drop_kind.kind;
    execute format('drop function if exists jobs.%I(uuid, bigint[], timestamptz)', jobs.runner_name(drop_kind.kind));
end
$$;
comment on function jobs.drop_kind(text) is 'Takes a kind back that no job waits for. For rollbacks.';

-- Running ------------------------------------------------------------------------------------

create function jobs.claim_for_postgres(queues text[] default null, size integer default 200) returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
<<given>>
declare
    token uuid;
    taken bigint[];
    moment timestamptz := ops.now();
begin
    perform set_config('synchronous_commit', 'off', true);
    token := jobs.lease_of(
        'postgres', claim_for_postgres.queues, claim_for_postgres.size, 'postgres ' || pg_backend_pid(), 300
    );
    select l.job_ids into taken from jobs.leases l where l.token = given.token;
    update jobs.jobs j
    set state = 'processing', lease = given.token, attempts = j.attempts + 1, started_at = moment
    where j.id = any (taken);
    return token;
end
$$;
comment on function jobs.claim_for_postgres(text[], integer) is
'Claims jobs of the executor postgres for jobs.execute(), which takes the token; null where nothing is ready.';

create function jobs.execute(lease uuid, seconds double precision default 1) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    held jobs.leases;
    batch record;
    missing bigint[];
begin
    -- Whoever else asks for the same lease waits here, and then finds nothing.
    select l.* into held from jobs.leases l where l.token = execute.lease and l.worker ~ '^postgres ' for update;
    if not found then
        return 0::bigint;
    end if;
    for batch in
        select j.kind, array_agg(j.id order by j.id) as ids
        from jobs.jobs j where j.id = any (held.job_ids) and j.lease = execute.lease group by j.kind
    loop
        if to_regproc('jobs.' || jobs.runner_name(batch.kind)) is null then
            perform jobs.fail(
                execute.lease,
                (
                    select jsonb_agg(
                        jsonb_build_object(
                            'id', missing_one.id, 'is_permanent', true,
                            'error', format('kind %s is not declared for postgres any more', batch.kind)
                        )
                    )
                    from unnest(batch.ids) as missing_one (id)
                )
            );
            missing := missing || batch.ids;
            continue;
        end if;
        execute format('select jobs.%I($1, $2, $3)', jobs.runner_name(batch.kind))
        using execute.lease, batch.ids, clock_timestamp() + make_interval(secs => execute.seconds);
    end loop;
    return (cardinality(held.job_ids) - coalesce(cardinality(missing), 0))::bigint;
end
$$;
comment on function jobs.execute(uuid, double precision) is
'Runs the jobs claimed for Postgres, each in its own subtransaction, for about so many seconds; what was not begun
waits again. Returns how many were dealt with.';

create procedure jobs.run(budget interval default interval '50 seconds', size integer default 200)
language plpgsql
as $$
declare
    until timestamptz := clock_timestamp() + budget;
    token uuid;
begin
    -- No search_path is set, since a procedure that sets one cannot commit: every name says its schema.
    if ops.is_paused('rowhouse-jobs') then
        return;
    end if;
    perform ops.beat('rowhouse-jobs', pg_catalog.clock_timestamp(), null);
    commit;
    loop
        token := jobs.claim_for_postgres(null, size);
        commit;
        exit when token is null;
        perform jobs.execute(token);
        commit;
        exit when pg_catalog.clock_timestamp() >= until;
    end loop;
    perform jobs.reap();
    perform ops.beat('rowhouse-jobs', null, pg_catalog.clock_timestamp());
end
$$;
comment on procedure jobs.run is
'Runs what is ready for Postgres, commits batch by batch, and ends when nothing is left or the budget is spent.';

create function jobs.cancel_overdue() returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
    select count(*) from (
        select pg_cancel_backend(a.pid) from pg_stat_activity a
        where
            a.datname = current_database() and a.application_name ~ '^rowhouse job until \d{1,12}$'
            and split_part(a.application_name, ' ', 4)::bigint < extract(epoch from clock_timestamp())
            and a.state = 'active'
    ) as cancelled
$$;
comment on function jobs.cancel_overdue() is
'Cancels jobs in Postgres that take longer than their kind allows; the attempt counts as failed. Returns how many.';
