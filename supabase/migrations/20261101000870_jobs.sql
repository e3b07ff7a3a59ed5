-- Why: one way to work later. A job is a row, written in the transaction that needs it: it exists if and only if that
--      transaction committed. What is done moves on to history; what waits, runs or gave up stays in a small table.
-- Locks: none on existing tables.
-- Workers: need not stop.

create schema jobs;
comment on schema jobs is 'The queue: what is to be done later, who does it, and what became of it.';

-- Who claims jobs without being the owner: it may call what policies/functions.sql names, and reads nothing else.
-- Roles belong to the cluster, so it may be here already.
do $$
begin
    if not exists (select from pg_roles r where r.rolname = 'rowhouse_worker') then
        create role rowhouse_worker nologin;
    end if;
    -- So that whoever owns the house can act as one.
    if not pg_has_role(current_user, 'rowhouse_worker', 'member') then
        grant rowhouse_worker to current_user;
    end if;
end
$$;

create table jobs.settings (
    singleton boolean not null default true,
    history_days bigint not null default 14,
    max_payload_bytes bigint not null default 65536,
    constraint settings_pkey primary key (singleton),
    constraint settings_has_one_row check (singleton),
    constraint settings_history_days_are_sensible check (history_days between 1 and 3650),
    constraint settings_max_payload_bytes_are_sensible check (max_payload_bytes between 1024 and 1048576)
);
alter table jobs.settings enable row level security;
create policy settings_nobody on jobs.settings using (false);
insert into jobs.settings default values;
comment on table jobs.settings is 'How the queue keeps house.';
comment on column jobs.settings.singleton is 'Keeps the table at one row.';
comment on column jobs.settings.history_days is 'For how many days finished jobs are kept.';
comment on column jobs.settings.max_payload_bytes is 'How large a payload may be, as stored.';

-- Kinds --------------------------------------------------------------------------------------

create table jobs.kinds (
    kind text not null,
    executor text not null,
    handler text not null,
    queue text not null default 'default',
    priority bigint not null default 100,
    payload_schema jsonb not null default '{}',
    timeout interval not null default interval '1 minute',
    max_attempts bigint not null default 5,
    backoff interval not null default interval '5 seconds',
    max_backoff interval not null default interval '1 hour',
    description text not null default '',
    is_registered boolean not null default false,
    constraint kinds_pkey primary key (kind),
    constraint kinds_kind_is_well_formed check (kind ~ '^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$' and length(kind) <= 63),
    constraint kinds_executor_is_known check (executor in ('postgres', 'worker')),
    constraint kinds_queue_is_well_formed check (queue ~ '^[a-z][a-z0-9_]{0,47}$'),
    constraint kinds_priority_is_in_range check (priority between 0 and 1000),
    constraint kinds_timeout_is_sensible check (timeout between interval '1 second' and interval '1 day'),
    constraint kinds_max_attempts_are_sensible check (max_attempts between 1 and 100),
    constraint kinds_backoff_grows check (
        backoff > interval '0' and max_backoff >= backoff and max_backoff <= interval '7 days'
    )
);
alter table jobs.kinds enable row level security;
create policy kinds_nobody on jobs.kinds using (false);
comment on table jobs.kinds is 'Every kind of job there is: who runs it, and how often it is tried.';
comment on column jobs.kinds.kind is 'Its name, such as notify.send.';
comment on column jobs.kinds.executor is
'postgres: the handler is an SQL function. worker: it is registered in a worker, and crosses the network.';
comment on column jobs.kinds.handler is
'The SQL function, which takes a jobs.jobs; or the name the worker knows it by.';
comment on column jobs.kinds.queue is 'Where its jobs wait unless enqueued elsewhere.';
comment on column jobs.kinds.priority is '0 to 1000; lower goes first.';
comment on column jobs.kinds.payload_schema is
'What a payload must be, in the keywords of JSON Schema that docs/jobs.md names.';
comment on column jobs.kinds.timeout is 'How long one attempt may take.';
comment on column jobs.kinds.max_attempts is 'After so many it has failed for good.';
comment on column jobs.kinds.backoff is 'About how long after the first failure it is tried again; doubles each time.';
comment on column jobs.kinds.max_backoff is 'The longest wait between two attempts.';
comment on column jobs.kinds.description is 'What it does.';
comment on column jobs.kinds.is_registered is 'Whether a worker declared it, rather than a migration.';

-- Jobs ---------------------------------------------------------------------------------------

create table jobs.jobs (
    id bigint not null generated always as identity,
    kind text not null,
    executor text not null,
    queue text not null,
    workspace_id uuid,
    priority bigint not null,
    state text not null default 'pending',
    is_due boolean not null,
    attempts bigint not null default 0,
    max_attempts bigint not null,
    run_at timestamptz not null,
    enqueued_at timestamptz not null,
    dedupe_key text,
    payload jsonb not null,
    lease uuid,
    started_at timestamptz,
    failed_at timestamptz,
    last_error text,
    constraint jobs_pkey primary key (id),
    constraint jobs_state_is_known check (state in ('pending', 'processing', 'failed')),
    constraint jobs_priority_is_in_range check (priority between 0 and 1000),
    constraint jobs_max_attempts_are_sensible check (max_attempts between 1 and 100),
    constraint jobs_dedupe_key_is_short check (length(dedupe_key) between 1 and 200),
    constraint jobs_run_at_is_a_time check (isfinite(run_at))
) with (
    -- Rows come and go: dead ones are cleared by the thousand, not by the share of a table that is near empty.
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 20000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0
);
alter table jobs.jobs enable row level security;
create policy jobs_nobody on jobs.jobs using (false);
-- What a claim walks: by priority, and workspace by workspace, so that no tenant stands behind another's thousands.
create index jobs_ready on jobs.jobs (
    executor, queue, priority, coalesce(workspace_id, '00000000-0000-0000-0000-000000000000'::uuid), id
)
where state = 'pending' and is_due;
create index jobs_later on jobs.jobs (run_at) where state = 'pending' and not is_due;
create index jobs_failed on jobs.jobs (failed_at) where state = 'failed';
create unique index jobs_waiting_once on jobs.jobs (
    kind, dedupe_key, coalesce(workspace_id, '00000000-0000-0000-0000-000000000000'::uuid)
)
where state = 'pending' and dedupe_key is not null;
comment on table jobs.jobs is 'What waits, runs, or has failed for good. What is completed is in jobs.history.';
comment on column jobs.jobs.id is 'The job.';
comment on column jobs.jobs.kind is 'What is to be done.';
comment on column jobs.jobs.executor is 'By whom: postgres or worker.';
comment on column jobs.jobs.queue is 'Where it waits.';
comment on column jobs.jobs.workspace_id is 'For which tenant; null for the house.';
comment on column jobs.jobs.priority is '0 to 1000; lower goes first.';
comment on column jobs.jobs.state is 'pending, processing or failed.';
comment on column jobs.jobs.is_due is 'Whether run_at has come, as the last claim saw it.';
comment on column jobs.jobs.attempts is 'How often it was begun.';
comment on column jobs.jobs.max_attempts is 'How often it may be.';
comment on column jobs.jobs.run_at is 'Not before.';
comment on column jobs.jobs.enqueued_at is 'When it was asked for.';
comment on column jobs.jobs.dedupe_key is 'Of one kind, workspace and key only one waits.';
comment on column jobs.jobs.payload is 'What the handler needs to know: ids rather than contents.';
comment on column jobs.jobs.lease is 'The token of whoever runs it.';
comment on column jobs.jobs.started_at is 'When it was last claimed.';
comment on column jobs.jobs.failed_at is 'When it was given up.';
comment on column jobs.jobs.last_error is 'Why the last attempt failed.';

-- One row for each claim, not for each job: a heartbeat and a check for the dead touch this alone.
create table jobs.leases (
    token uuid not null,
    worker text not null,
    expires_at timestamptz not null,
    open_count bigint not null,
    job_ids bigint[] not null,
    constraint leases_pkey primary key (token)
) with (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);
alter table jobs.leases enable row level security;
create policy leases_nobody on jobs.leases using (false);
-- A thousand ids compress to little less, and take longer.
alter table jobs.leases alter column job_ids set storage external;
create index leases_expires_at on jobs.leases (expires_at);
comment on table jobs.leases is 'Who runs what, and until when they must have spoken again.';
comment on column jobs.leases.token is 'What completes these jobs, and nothing else does.';
comment on column jobs.leases.worker is 'Who: a host and a process.';
comment on column jobs.leases.expires_at is 'Then the jobs are anybody''s again.';
comment on column jobs.leases.open_count is 'How many of the jobs are not settled.';
comment on column jobs.leases.job_ids is 'The jobs claimed with it.';

create table jobs.history (
    id bigint not null,
    kind text not null,
    queue text not null,
    workspace_id uuid,
    priority bigint not null,
    state text not null,
    attempts bigint not null,
    run_at timestamptz not null,
    enqueued_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz not null,
    worker text,
    dedupe_key text,
    payload jsonb not null,
    last_error text,
    constraint history_state_is_known check (state in ('completed', 'discarded', 'merged'))
) partition by range (finished_at);
alter table jobs.history enable row level security;
create policy history_nobody on jobs.history using (false);
create index history_id on jobs.history using brin (id);
comment on table jobs.history is 'What was done, by the day on which it was; days past their time are dropped.';
comment on column jobs.history.id is 'The job.';
comment on column jobs.history.kind is 'What was done.';
comment on column jobs.history.queue is 'Where it waited.';
comment on column jobs.history.workspace_id is 'For which tenant.';
comment on column jobs.history.priority is 'With which priority.';
comment on column jobs.history.state is
'completed; discarded by an operator; or merged into a job that waited with the same dedupe key.';
comment on column jobs.history.attempts is 'How often it was begun.';
comment on column jobs.history.run_at is 'From when on it could run.';
comment on column jobs.history.enqueued_at is 'When it was asked for.';
comment on column jobs.history.started_at is 'When the last attempt began.';
comment on column jobs.history.finished_at is 'When it ended.';
comment on column jobs.history.worker is 'Who did it.';
comment on column jobs.history.dedupe_key is 'Its dedupe key.';
comment on column jobs.history.payload is 'What the handler was told.';
comment on column jobs.history.last_error is 'Why the attempt before failed, if it did.';

-- Where a day has no partition, nothing is lost and nobody is stopped.
create table jobs.history_other partition of jobs.history default;
alter table jobs.history_other enable row level security;
create policy history_other_nobody on jobs.history_other using (false);
comment on table jobs.history_other is 'What was finished on days that have no partition.';

create function jobs.ensure_partition(day date) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
    name text := 'history_' || to_char(ensure_partition.day, 'YYYY_MM_DD');
begin
    if to_regclass('jobs.' || name) is not null or exists (
        select from jobs.history_other h
        where
            h.finished_at >= (ensure_partition.day::timestamp at time zone 'UTC')
            and h.finished_at < ((ensure_partition.day + 1)::timestamp at time zone 'UTC')
    ) then
        return;
    end if;
    -- Attached when it is there: whoever reads or writes history waits for less.
    execute format('create table jobs.%I (like jobs.history including all)', name);
    execute format(
        'alter table jobs.%1$I enable row level security; create policy %2$I on jobs.%1$I using (false)',
        name, name || '_nobody'
    );
    execute format(
        'alter table jobs.history attach partition jobs.%I for values from (%L) to (%L)', name,
        ensure_partition.day::timestamp at time zone 'UTC', (ensure_partition.day + 1)::timestamp at time zone 'UTC'
    );
exception
    -- Somebody reads for long. Nobody waits behind us: days are made in advance, and this runs again.
    when lock_not_available then null;
end
$$;
comment on function jobs.ensure_partition(date) is 'Makes the partition of a day, if it is not there.';

create function jobs.maintain() returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
    today date := (ops.now() at time zone 'UTC')::date;
    oldest date := today - (select s.history_days::integer from jobs.settings s);
    expired regclass;
    dropped bigint := 0::bigint;
begin
    for ahead in 0 .. 3 loop
        perform jobs.ensure_partition(today + ahead);
    end loop;
    for expired in
        select c.oid::regclass from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where
            i.inhparent = 'jobs.history'::regclass and c.relname ~ '^history_\d{4}_\d\d_\d\d$'
            and to_date(right(c.relname, 10), 'YYYY_MM_DD') < oldest
    loop
        begin
            execute format('drop table %s', expired);
            dropped := dropped + 1;
        exception
            when lock_not_available then null;
        end;
    end loop;
    delete from jobs.history_other h where h.finished_at < oldest::timestamp at time zone 'UTC';
    return dropped;
end
$$;
comment on function jobs.maintain() is
'Makes the partitions of the days to come, drops those past settings.history_days; returns how many. Run hourly.';

select jobs.maintain();
