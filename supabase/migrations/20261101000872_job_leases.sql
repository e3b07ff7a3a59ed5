-- Why: the contract of every executor: claim, heartbeat, complete, fail, release. Each works on batches, and each but
--      the claim is fenced by the lease's token: who lost it changes nothing.
-- Locks: none on existing tables.
-- Workers: need not stop.

create type jobs.claimed as (
    id bigint, kind text, queue text, workspace_id uuid, payload jsonb, attempt bigint, max_attempts bigint,
    timeout double precision, lease uuid, enqueued_at timestamptz
);
comment on type jobs.claimed is 'A job as its worker gets it; the timeout in seconds.';

-- The table is empty in one moment and has a hundred thousand rows in the next, so no plan of these functions may
-- rest on its statistics: all go by the keys, whatever they say.

create function jobs.ready_lanes(executor text, queues text[], size integer)
returns table (queue text, priority bigint, lane uuid, first_id bigint)
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
    spot uuid := gen_random_uuid();
    waiting jobs.jobs;
    head jobs.jobs;
    found_count integer;
    after_queue text := '';
    after_priority bigint := -1::bigint;
begin
    loop
        -- The first job of the next queue and priority. Dead rows before it are walked once: all goes on from its id.
        select j.* into head from jobs.jobs j
        where
            j.executor = ready_lanes.executor and j.state = 'pending' and j.is_due
            and (j.queue, j.priority) > (after_queue, after_priority)
        order by j.queue, j.priority, coalesce(j.workspace_id, '00000000-0000-0000-0000-000000000000'::uuid), j.id
        limit 1;
        exit when not found;
        after_queue := head.queue;
        after_priority := head.priority;
        if ready_lanes.queues is not null and head.queue <> all (ready_lanes.queues) then
            after_priority := 1001::bigint;
            continue;
        end if;
        -- Lanes from a random one on, so that none is always the last where there are more than this claim takes.
        found_count := 0;
        lane := spot;
        while found_count < ready_lanes.size loop
            select j.* into waiting from jobs.jobs j
            where
                j.executor = ready_lanes.executor and j.state = 'pending' and j.is_due
                and j.queue = head.queue and j.priority = head.priority and coalesce(j.workspace_id, '00000000-0000-0000-0000-000000000000'::uuid) > lane
            order by coalesce(j.workspace_id, '00000000-0000-0000-0000-000000000000'::uuid), j.id
            limit 1;
            exit when not found;
            queue := head.queue; priority := head.priority; lane := coalesce(waiting.workspace_id, '00000000-0000-0000-0000-000000000000'::uuid);
            first_id := waiting.id;
            return next;
            found_count := found_count + 1;
        end loop;
        waiting := head;
        while found_count < ready_lanes.size and coalesce(waiting.workspace_id, '00000000-0000-0000-0000-000000000000'::uuid) <= spot loop
            queue := head.queue; priority := head.priority; lane := coalesce(waiting.workspace_id, '00000000-0000-0000-0000-000000000000'::uuid);
            first_id := waiting.id;
            return next;
            found_count := found_count + 1;
            exit when found_count >= ready_lanes.size;
            select j.* into waiting from jobs.jobs j
            where
                j.executor = ready_lanes.executor and j.state = 'pending' and j.is_due
                and j.queue = head.queue and j.priority = head.priority and coalesce(j.workspace_id, '00000000-0000-0000-0000-000000000000'::uuid) > lane
            order by coalesce(j.workspace_id, '00000000-0000-0000-0000-000000000000'::uuid), j.id
            limit 1;
            exit when not found;
        end loop;
    end loop;
end
$$;
comment on function jobs.ready_lanes(text, text[], integer) is
'The workspaces that have jobs ready, for each queue and priority no more of them than a claim of this size can serve.';

create function jobs.pick(executor text, queues text[], size integer) returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    lanes record;
    picked bigint[] := '{}'::bigint[];
    more bigint[];
    remaining integer := pick.size;
    share integer;
begin
    -- Priority by priority; within one, every workspace has the same share; what is left over goes round again.
    for lanes in
        select
            r.priority, array_agg(r.queue order by r.place) as queues, array_agg(r.lane order by r.place) as lanes,
            array_agg(r.first_id order by r.place) as ids
        from jobs.ready_lanes(pick.executor, pick.queues, pick.size)
            with ordinality as r (queue, priority, lane, first_id, place)
        group by r.priority
        order by r.priority
    loop
        for round in 1 .. 2 loop
            share := case
                when round = 2 then remaining
                else ceil(remaining::numeric / cardinality(lanes.lanes))::integer
            end;
            for i in 1 .. cardinality(lanes.lanes) loop
                exit when remaining <= 0;
                more := array(
                    select j.id from jobs.jobs j
                    where
                        j.executor = pick.executor and j.state = 'pending' and j.is_due
                        and j.queue = lanes.queues[i] and j.priority = lanes.priority
                        and coalesce(j.workspace_id, '00000000-0000-0000-0000-000000000000'::uuid) = lanes.lanes[i] and j.id >= lanes.ids[i]
                    order by j.id
                    limit least(share, remaining)
                    for update skip locked
                );
                if cardinality(more) > 0 then
                    picked := picked || more;
                    remaining := remaining - cardinality(more);
                    lanes.ids[i] := more[cardinality(more)] + 1;
                end if;
            end loop;
            exit when remaining <= 0;
        end loop;
        exit when remaining <= 0;
    end loop;
    return picked;
end
$$;
comment on function jobs.pick(text, text[], integer) is
'Locks jobs that are ready, urgent ones first, each workspace its share; returns their ids.';

create function jobs.promote(moment timestamptz) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    promoted bigint;
begin
    update jobs.jobs j set is_due = true
    where j.id = any (
        array(
            select l.id from jobs.jobs l
            where l.state = 'pending' and not l.is_due and l.run_at <= promote.moment
            order by l.run_at
            limit 5000
            for update skip locked
        )
    );
    get diagnostics promoted = row_count;
    return promoted;
end
$$;
comment on function jobs.promote(timestamptz) is 'Makes ready what has waited for its time; returns how many.';

-- What ends an attempt without success -------------------------------------------------------

create function jobs.backoff(known jobs.kinds, attempts bigint) returns interval
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    -- Doubling, and spread over half of it: those that failed together do not come back together.
    select make_interval(
        secs => least(
            extract(epoch from known.max_backoff)::double precision,
            extract(epoch from known.backoff)::double precision * power(2, least(backoff.attempts - 1, 40))
        ) * (0.75 + random() / 2)
    )
$$;
comment on function jobs.backoff(jobs.kinds, bigint) is
'How long to wait after so many attempts: exponential, with jitter.';

create function jobs.delay(seconds double precision) returns interval
language sql immutable parallel safe strict
set search_path = pg_catalog, pg_temp
as $$
    select make_interval(
        secs => case when delay.seconds between 0 and 604800 then delay.seconds when delay.seconds > 0 then 604800 else 0 end
    )
$$;
comment on function jobs.delay(double precision) is
'So many seconds, but at most a week, and never less than none; null for null.';

create function jobs.settle(lease uuid, settled bigint) returns void
language sql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
    update jobs.leases l set open_count = l.open_count - settle.settled where l.token = settle.lease;
    delete from jobs.leases l where l.token = settle.lease and l.open_count <= 0;
$$;
comment on function jobs.settle(uuid, bigint) is 'Counts jobs of a lease as settled; the lease goes with the last.';

create function jobs.file_away(
    ids bigint[], state text, lease uuid default null, worker text default null, error text default null
) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    moment timestamptz := ops.now();
    filed bigint;
begin
    with gone as (
        delete from jobs.jobs j
        where j.id = any (file_away.ids) and (file_away.lease is null or j.lease = file_away.lease)
        returning j.*
    )
    insert into jobs.history (
        id, kind, queue, workspace_id, priority, state, attempts, run_at, enqueued_at, started_at, finished_at,
        worker, dedupe_key, payload, last_error
    )
    select
        g.id, g.kind, g.queue, g.workspace_id, g.priority, file_away.state, g.attempts, g.run_at, g.enqueued_at,
        g.started_at, moment, file_away.worker, g.dedupe_key, g.payload, coalesce(file_away.error, g.last_error)
    from gone g;
    get diagnostics filed = row_count;
    return filed;
end
$$;
comment on function jobs.file_away(bigint[], text, uuid, text, text) is
'Moves jobs to history, all of them or those that a lease still holds; returns how many.';

create function jobs.put_back(job jobs.jobs, run_at timestamptz, attempts bigint, error text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
    moment timestamptz := ops.now();
begin
    -- A waiting twin may appear at any moment, and the index then refuses this one.
    update jobs.jobs j
    set
        state = 'pending', lease = null, attempts = put_back.attempts, run_at = put_back.run_at,
        is_due = put_back.run_at <= moment, last_error = coalesce(put_back.error, j.last_error)
    where j.id = job.id;
    return true;
exception
    when lock_not_available then
        -- A twin is being enqueued in a transaction that is still open. Nobody waits for it: this one loses its key.
        update jobs.jobs j
        set
            state = 'pending', lease = null, attempts = put_back.attempts, run_at = put_back.run_at, dedupe_key = null,
            is_due = put_back.run_at <= moment, last_error = coalesce(put_back.error, j.last_error)
        where j.id = job.id;
        return true;
    when unique_violation then
        perform jobs.file_away(array[job.id], 'merged', error => put_back.error);
        return false;
end
$$;
comment on function jobs.put_back(jobs.jobs, timestamptz, bigint, text) is
'Has a job wait again; false where one of its dedupe key waits already, into which it is merged.';

create function jobs.fail_one(
    job jobs.jobs, error text, retry_in interval, is_permanent boolean
) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    known jobs.kinds;
    moment timestamptz := ops.now();
begin
    if fail_one.is_permanent or job.attempts >= job.max_attempts then
        update jobs.jobs j
        set state = 'failed', is_due = false, lease = null, failed_at = moment, last_error = left(fail_one.error, 10000)
        where j.id = job.id;
        return 'failed';
    end if;
    select k.* into known from jobs.kinds k where k.kind = job.kind;
    if jobs.put_back(
        job, moment + coalesce(fail_one.retry_in, jobs.backoff(known, job.attempts), interval '1 minute'),
        job.attempts, left(fail_one.error, 10000)
    ) then
        return 'pending';
    end if;
    return 'merged';
end
$$;
comment on function jobs.fail_one(jobs.jobs, text, interval, boolean) is
'Counts an attempt as failed: the job waits for another, or has failed for good. Returns its state.';

create function jobs.reap() returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    expired jobs.leases;
    job jobs.jobs;
    reaped bigint := 0::bigint;
begin
    for expired in
        select l.* from jobs.leases l where l.expires_at < ops.now() order by l.expires_at limit 100
        for update skip locked
    loop
        for job in
            select j.* from jobs.jobs j where j.id = any (expired.job_ids) and j.lease = expired.token
            order by j.id for update
        loop
            -- No job may keep others from being claimed, whatever is wrong with it.
            begin
                if expired.worker ~ '^postgres ' and cardinality(expired.job_ids) > 1 then
                    -- One of them took the others along. It does not count, and each is tried by itself next.
                    perform jobs.put_back(
                        job, ops.now() + interval '1 second', job.attempts - 1,
                        format('the lease ran out: %s died with it and others', expired.worker)
                    );
                else
                    perform jobs.fail_one(
                        job, format('the lease ran out: %s died, stalled or was cut off', expired.worker), null, false
                    );
                end if;
            exception
                when others then
                    update jobs.jobs j
                    set state = 'failed', is_due = false, lease = null, failed_at = ops.now(), last_error = sqlerrm
                    where j.id = job.id;
            end;
            reaped := reaped + 1;
        end loop;
        delete from jobs.leases l where l.token = expired.token;
    end loop;
    return reaped;
end
$$;
comment on function jobs.reap() is
'Takes back the jobs whose workers have not spoken until their leases ran out; returns how many. Claims do it too.';

-- The contract -------------------------------------------------------------------------------

create function jobs.lease_of(
    executor text, queues text[], size integer, worker text, seconds double precision
) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    moment timestamptz := ops.now();
    token uuid := gen_random_uuid();
    ids bigint[];
begin
    if lease_of.size is null or lease_of.size not between 1 and 10000 then
        perform jobs.refuse('a claim takes 1 to 10,000 jobs', 'Ask for fewer.');
    end if;
    if exists (select from jobs.leases l where l.expires_at < moment) then
        perform jobs.reap();
    end if;
    perform jobs.promote(moment);
    ids := jobs.pick(lease_of.executor, lease_of.queues, lease_of.size);
    if cardinality(ids) = 0 then
        return null;
    end if;
    if lease_of.executor = 'postgres' and cardinality(ids) > 1 then
        -- What died with others is tried alone, so that it takes nobody along again.
        select case when count(*) = 0 then ids else array[min(j.id)] end into ids from jobs.jobs j
        where j.id = any (ids) and j.last_error like 'the lease ran out: postgres %';
    end if;
    insert into jobs.leases (token, worker, expires_at, open_count, job_ids)
    values (
        token, left(coalesce(lease_of.worker, session_user::text), 200),
        moment + jobs.delay(lease_of.seconds), cardinality(ids), ids
    );
    return token;
end
$$;
comment on function jobs.lease_of(text, text[], integer, text, double precision) is
'Picks jobs for a new lease and returns its token; null where nothing is ready. The caller hands the jobs over to it.';

create function jobs.claim(
    queues text[] default null,
    size integer default 1,
    worker text default null,
    seconds double precision default 60
) returns setof jobs.claimed
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
<<given>>
declare
    token uuid;
    taken bigint[];
    moment timestamptz := ops.now();
    -- Looked up once, not for each of a thousand.
    timeouts jsonb := (select jsonb_object_agg(k.kind, extract(epoch from k.timeout)) from jobs.kinds k);
begin
    -- A claim that a crash of the server forgets is a job that waits again: no need to wait for the disk.
    perform set_config('synchronous_commit', 'off', true);
    token := jobs.lease_of('worker', claim.queues, claim.size, claim.worker, claim.seconds);
    select l.job_ids into taken from jobs.leases l where l.token = given.token;
    return query
    update jobs.jobs j
    set state = 'processing', lease = given.token, attempts = j.attempts + 1, started_at = moment
    where j.id = any (taken)
    returning
        j.id, j.kind, j.queue, j.workspace_id, j.payload, j.attempts, j.max_attempts,
        coalesce((timeouts ->> j.kind)::double precision, 60), j.lease, j.enqueued_at;
end
$$;
comment on function jobs.claim(text[], integer, text, double precision) is
'Takes up to `size` jobs of the executor worker for so many seconds, from these queues or all. One lease for all of
them.';

create function jobs.heartbeat(leases uuid[], seconds double precision default 60) returns setof uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
begin
    perform set_config('synchronous_commit', 'off', true);
    return query
    update jobs.leases l set expires_at = ops.now() + jobs.delay(heartbeat.seconds)
    where l.token = any (heartbeat.leases) and l.expires_at >= ops.now()
    returning l.token;
end
$$;
comment on function jobs.heartbeat(uuid[], double precision) is
'Keeps leases for so many seconds from now; returns those that are still held. What is missing is lost.';

create function jobs.complete(lease uuid, ids bigint[]) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    by_whom text;
    completed bigint;
begin
    -- The lease first, then its jobs: so does whoever takes them back.
    select l.worker into by_whom from jobs.leases l where l.token = complete.lease for update;
    completed := jobs.file_away(complete.ids, 'completed', complete.lease, by_whom);
    perform jobs.settle(complete.lease, completed);
    return completed;
end
$$;
comment on function jobs.complete(uuid, bigint[]) is
'Jobs of a lease are done. Returns how many were: those that were taken away meanwhile are not.';

create function jobs.fail(lease uuid, failures jsonb) returns table (id bigint, state text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    failure record;
    job jobs.jobs;
    settled bigint := 0::bigint;
begin
    perform l.token from jobs.leases l where l.token = fail.lease for update;
    for failure in
        select f.id, f.error, f.retry_in, f.is_permanent
        from jsonb_to_recordset(fail.failures)
            as f (id bigint, error text, retry_in double precision, is_permanent boolean)
        order by f.id
    loop
        select j.* into job from jobs.jobs j where j.id = failure.id and j.lease = fail.lease for update;
        continue when not found;
        fail.id := job.id;
        fail.state := jobs.fail_one(
            job, coalesce(failure.error, 'it did not say why'), jobs.delay(failure.retry_in),
            coalesce(failure.is_permanent, false)
        );
        settled := settled + 1;
        return next;
    end loop;
    perform jobs.settle(fail.lease, settled);
end
$$;
comment on function jobs.fail(uuid, jsonb) is
'Attempts of a lease have failed: [{"id": 1, "error": "…", "retry_in": seconds, "is_permanent": false}]. Returns the
state that each job is in now: pending, failed or merged. Those that were taken away meanwhile are left out.';

create function jobs.release(lease uuid, ids bigint[], seconds double precision default 0) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    job jobs.jobs;
    released bigint := 0::bigint;
    queues text[] := '{}'::text[];
begin
    perform l.token from jobs.leases l where l.token = release.lease for update;
    for job in
        select j.* from jobs.jobs j where j.id = any (release.ids) and j.lease = release.lease order by j.id for update
    loop
        perform jobs.put_back(
            job,
            ops.now() + coalesce(
                jobs.delay(release.seconds),
                (select jobs.backoff(k, 1) from jobs.kinds k where k.kind = job.kind), interval '1 minute'
            ),
            job.attempts - 1, null
        );
        released := released + 1;
        if release.seconds <= 0 and job.queue <> all (queues) then
            queues := queues || job.queue;
            perform jobs.wake(job.executor, job.queue);
        end if;
    end loop;
    perform jobs.settle(release.lease, released);
    return released;
end
$$;
comment on function jobs.release(uuid, bigint[], double precision) is
'Gives jobs of a lease back that were not begun, for so many seconds, or for the kind''s own backoff if that is null;
the attempt is not counted. Returns how many.';
