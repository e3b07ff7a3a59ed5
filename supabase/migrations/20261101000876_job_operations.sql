-- Why: what surrounds the queue: jobs that table events ask for, what operators do with failed ones, and alarms.
-- Locks: none on existing tables.
-- Workers: need not stop.

-- Table events -------------------------------------------------------------------------------

create table jobs.table_events (
    relation regclass not null,
    trigger_name text not null,
    kind text not null,
    constraint table_events_pkey primary key (relation, trigger_name),
    constraint table_events_kind_exists foreign key (kind) references jobs.kinds (kind)
);
alter table jobs.table_events enable row level security;
create policy table_events_nobody on jobs.table_events using (false);
create index table_events_kind on jobs.table_events (kind);
comment on table jobs.table_events is 'The tables whose changes ask for jobs.';
comment on column jobs.table_events.relation is 'The table.';
comment on column jobs.table_events.trigger_name is 'The trigger that does it.';
comment on column jobs.table_events.kind is 'The kind of job.';

create function jobs.enqueue_for_row() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    subject jsonb := case when tg_op = 'DELETE' then to_jsonb(old) else to_jsonb(new) end;
begin
    if not ops.is_allowed('import') then
        perform jobs.enqueue(
            tg_argv[0],
            jsonb_build_object(
                'event', tg_argv[1], 'table', tg_table_name, 'id', subject -> 'id', 'workspace_id', subject -> 'workspace_id'
            ),
            (subject ->> 'workspace_id')::uuid
        );
    end if;
    return null;
end
$$;
comment on function jobs.enqueue_for_row() is
'Trigger: enqueues a job of the kind named in its arguments, {"event", "table", "id", "workspace_id"}.';

create function jobs.event_trigger(event text, kind text) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select format(
        'job_%s_%s_%s', event_trigger.event, left(replace(event_trigger.kind, '.', '_'), 40), left(md5(event_trigger.kind), 8)
    )
$$;
comment on function jobs.event_trigger(text, text) is 'The name of the trigger that enqueues jobs of a kind.';

create function jobs.on_event(
    relation regclass, event text, kind text, columns text[] default null, condition text default null
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    has_trash boolean;
    trigger_name text;
    conditions text[] := '{}'::text[];
begin
    perform jobs.kind_of(on_event.kind);
    if on_event.event is null or on_event.event not in ('insert', 'update', 'delete') then
        perform jobs.refuse(
            format('%s is no event of a table', coalesce(quote_literal(on_event.event), 'null')), 'Use insert, update or delete.'
        );
    end if;
    if on_event.columns is not null and on_event.event <> 'update' then
        perform jobs.refuse(format('an %s changes no columns', on_event.event), 'Name columns for updates only.');
    end if;
    select exists (
        select from pg_attribute a
        where a.attrelid = on_event.relation and a.attname = 'deleted_at' and not a.attisdropped
    ) into has_trash;
    trigger_name := jobs.event_trigger(on_event.event, on_event.kind);
    if on_event.event = 'delete' and has_trash then
        conditions := conditions || 'old.deleted_at is null and new.deleted_at is not null'::text;
    elsif on_event.event = 'update' and on_event.columns is not null then
        conditions := conditions || (
            select string_agg(format('old.%1$I is distinct from new.%1$I', given.name), ' or ')
            from unnest(on_event.columns) as given (name)
        );
    end if;
    if on_event.condition is not null then
        conditions := conditions || on_event.condition;
    end if;
    execute format(
        'create or replace trigger %I after %s on %s for each row %s execute function jobs.enqueue_for_row(%L, %L)',
        trigger_name,
        case
            when on_event.event = 'delete' and has_trash then 'update of deleted_at'
            when on_event.columns is not null then 'update of ' || (
                select string_agg(quote_ident(given.name), ', ') from unnest(on_event.columns) as given (name)
            )
            else on_event.event
        end,
        on_event.relation,
        case when conditions = '{}' then '' else format('when ((%s))', array_to_string(conditions, ') and (')) end,
        on_event.kind, on_event.event
    );
    insert into jobs.table_events as t (relation, trigger_name, kind)
    values (on_event.relation, trigger_name, on_event.kind)
    on conflict on constraint table_events_pkey do update set kind = excluded.kind;
end
$$;
comment on function jobs.on_event(regclass, text, text, text[], text) is
'Has every insert, update (of these columns, if their values change) or delete of a row enqueue a job, where the
condition over old and new holds. Moving a row to the trash is its delete. For migrations.';

create function jobs.drop_event(relation regclass, event text, kind text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    name text := jobs.event_trigger(drop_event.event, drop_event.kind);
begin
    execute format('drop trigger if exists %I on %s', name, drop_event.relation);
    delete from jobs.table_events t where t.relation = drop_event.relation and t.trigger_name = name;
end
$$;
comment on function jobs.drop_event(regclass, text, text) is 'Undoes jobs.on_event(). For rollbacks.';

-- Failed jobs --------------------------------------------------------------------------------

create function jobs.retry(ids bigint[]) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    job jobs.jobs;
    retried bigint := 0::bigint;
begin
    for job in select j.* from jobs.jobs j where j.id = any (retry.ids) and j.state = 'failed' order by j.id for update loop
        -- The error stays to be read until the next attempt ends.
        update jobs.jobs j set failed_at = null where j.id = job.id;
        perform jobs.put_back(job, ops.now(), 0, null);
        perform jobs.wake(job.executor, job.queue);
        retried := retried + 1;
    end loop;
    return retried;
end
$$;
comment on function jobs.retry(bigint[]) is 'Has failed jobs wait again, with all their attempts; returns how many.';

create function jobs.discard(ids bigint[]) returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
    select jobs.file_away(
        array(
            select j.id from jobs.jobs j
            where j.id = any (discard.ids) and j.state in ('failed', 'pending')
            order by j.id
            for update
        ),
        'discarded'
    )
$$;
comment on function jobs.discard(bigint[]) is
'Drops jobs that wait or have failed; history keeps them. Returns how many.';

-- Alarms -------------------------------------------------------------------------------------

create function jobs.stats() returns table (
    queue text, executor text, ready bigint, later bigint, processing bigint, failed bigint,
    oldest_seconds double precision, completed_in_the_last_hour bigint
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with waiting as (
        select
            j.queue, j.executor,
            count(*) filter (where j.state = 'pending' and j.run_at <= ops.now()) as ready,
            count(*) filter (where j.state = 'pending' and j.run_at > ops.now()) as later,
            count(*) filter (where j.state = 'processing') as processing,
            count(*) filter (where j.state = 'failed') as failed,
            extract(epoch from ops.now() - min(j.run_at) filter (where j.state = 'pending' and j.run_at <= ops.now()))
                as oldest_seconds
        from jobs.jobs j
        group by j.queue, j.executor
    ),
    done as (
        select h.queue, k.executor, count(*) as completed
        from jobs.history h
        left join jobs.kinds k on k.kind = h.kind
        where h.finished_at > ops.now() - interval '1 hour' and h.state = 'completed'
        group by h.queue, k.executor
    )
    select
        coalesce(w.queue, d.queue), coalesce(w.executor, d.executor), coalesce(w.ready, 0), coalesce(w.later, 0),
        coalesce(w.processing, 0), coalesce(w.failed, 0), coalesce(w.oldest_seconds, 0)::double precision,
        coalesce(d.completed, 0)
    from waiting w
    full join done d on d.queue = w.queue and d.executor = w.executor
    order by 1, 2
$$;
comment on function jobs.stats() is
'How full each queue is, how old its oldest ready job, and what was done in the last hour.';

create table jobs.alarm_rules (
    alarm text not null,
    threshold double precision not null,
    unit text not null,
    hint text not null,
    constraint alarm_rules_pkey primary key (alarm)
);
alter table jobs.alarm_rules enable row level security;
create policy alarm_rules_nobody on jobs.alarm_rules using (false);
comment on table jobs.alarm_rules is 'When something is too much. Thresholds are the operator''s to change.';
comment on column jobs.alarm_rules.alarm is 'Its name.';
comment on column jobs.alarm_rules.threshold is 'More than this raises it.';
comment on column jobs.alarm_rules.unit is 'What the threshold counts.';
comment on column jobs.alarm_rules.hint is 'What to do about it.';

insert into jobs.alarm_rules (alarm, threshold, unit, hint)
values
('queue_depth', 10000, 'ready jobs in a queue', 'Start more workers: rowhouse work, on any machine.'),
(
    'queue_age', 600, 'seconds that a ready job has waited',
    'Is a worker running? rowhouse jobs stats shows which queue.'
),
('dead_letters', 0, 'jobs failed for good', 'rowhouse jobs dead shows them; rowhouse jobs retry runs them again.'),
('failure_rate', 0.2, 'share of attempts in the last hour, of 20 or more', 'rowhouse jobs dead shows the errors.'),
('vacuum_pinned', 3600, 'seconds that a transaction has been open', 'End it: nothing that died since can be cleared.'),
('dead_rows', 25000, 'dead rows in the queue''s tables', 'Is autovacuum on, and does a transaction pin it?'),
('schedule_overdue', 3, 'runs that a schedule has missed', 'rowhouse schedules list shows it; is pg_cron running?');

create function jobs.current_alarms()
returns table (alarm text, subject text, value double precision, threshold double precision, hint text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with measured (alarm, subject, value) as (
        select 'queue_depth', s.queue, s.ready::double precision from jobs.stats() s
        union all
        select 'queue_age', s.queue, s.oldest_seconds from jobs.stats() s
        union all
        select 'dead_letters', j.kind, count(*)::double precision from jobs.jobs j where j.state = 'failed' group by j.kind
        union all
        select 'failure_rate', a.kind, a.failed::double precision / a.ended
        from (
            select
                e.kind, count(*) as ended, count(*) filter (where e.has_failed) as failed
            from (
                select h.kind, false as has_failed from jobs.history h
                where h.finished_at > ops.now() - interval '1 hour' and h.state = 'completed'
                union all
                select j.kind, true from jobs.jobs j
                where j.last_error is not null and j.started_at > ops.now() - interval '1 hour'
            ) as e
            group by e.kind
        ) as a
        where a.ended >= 20
        union all
        select
            'vacuum_pinned', format('process %s of %s', a.pid, coalesce(a.usename, a.backend_type)),
            extract(epoch from clock_timestamp() - a.xact_start)::double precision
        from pg_stat_activity a
        where a.datname = current_database() and a.backend_xmin is not null and a.backend_type <> 'autovacuum worker'
        union all
        select 'vacuum_pinned', format('prepared transaction %s', p.gid), extract(epoch from clock_timestamp() - p.prepared)::double precision
        from pg_prepared_xacts p where p.database = current_database()
        union all
        select 'dead_rows', t.schemaname || '.' || t.relname, t.n_dead_tup::double precision
        from pg_stat_user_tables t where t.schemaname = 'jobs'
        union all
        select 'schedule_overdue', m.name, m.missed::double precision from ops.schedule_status() m where not m.is_paused
    )
    select m.alarm, m.subject, m.value, r.threshold, r.hint
    from measured m
    join jobs.alarm_rules r on r.alarm = m.alarm
    where m.value > r.threshold
$$;
comment on function jobs.current_alarms() is 'What is too much right now, by jobs.alarm_rules.';

create table jobs.alarms (
    id bigint not null generated always as identity,
    alarm text not null,
    subject text not null,
    value double precision not null,
    threshold double precision not null,
    raised_at timestamptz not null,
    seen_at timestamptz not null,
    cleared_at timestamptz,
    constraint alarms_pkey primary key (id)
);
alter table jobs.alarms enable row level security;
create policy alarms_nobody on jobs.alarms using (false);
create unique index alarms_raised_once on jobs.alarms (alarm, subject) where cleared_at is null;
comment on table jobs.alarms is 'Every alarm that was raised, and when it cleared.';
comment on column jobs.alarms.id is 'The alarm.';
comment on column jobs.alarms.alarm is 'Which rule.';
comment on column jobs.alarms.subject is 'Which queue, kind, table, schedule or process.';
comment on column jobs.alarms.value is 'How much, when it was last seen.';
comment on column jobs.alarms.threshold is 'How much would have been too much.';
comment on column jobs.alarms.raised_at is 'Since when.';
comment on column jobs.alarms.seen_at is 'When it was last seen.';
comment on column jobs.alarms.cleared_at is 'Until when; null while it lasts.';

create function jobs.watch() returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    moment timestamptz := ops.now();
    raised bigint;
begin
    perform jobs.cancel_overdue();
    perform jobs.reap();
    insert into jobs.alarms as a (alarm, subject, value, threshold, raised_at, seen_at)
    select distinct on (c.alarm, c.subject) c.alarm, c.subject, c.value, c.threshold, moment, moment
    from jobs.current_alarms() c
    order by c.alarm, c.subject, c.value desc
    on conflict (alarm, subject) where cleared_at is null
    do update set value = excluded.value, threshold = excluded.threshold, seen_at = excluded.seen_at;
    update jobs.alarms a set cleared_at = moment where a.cleared_at is null and a.seen_at < moment;
    delete from jobs.alarms a where a.cleared_at < moment - interval '90 days';
    select count(*) into raised from jobs.alarms a where a.cleared_at is null;
    return raised;
end
$$;
comment on function jobs.watch() is
'Cancels what takes too long, takes back what its worker left, raises and clears alarms; returns how many are up.';

create function jobs.clear_cron_log() returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    cleared bigint := 0::bigint;
begin
    if to_regclass('cron.job_run_details') is not null then
        execute 'delete from cron.job_run_details d where d.end_time < now() - interval ''7 days''';
        get diagnostics cleared = row_count;
    end if;
    return cleared;
end
$$;
comment on function jobs.clear_cron_log() is 'Trims pg_cron''s own log to a week; returns how many lines went.';
