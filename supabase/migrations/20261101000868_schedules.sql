-- Why: what the clock starts. Without pg_cron the same can be called from outside. Each run leaves a heartbeat of our
--      own: a schedule that silently stopped is one whose heart has not beaten.
-- Locks: none on existing tables.
-- Workers: need not stop.

create table ops.schedules (
    name text not null,
    timing text not null,
    command text not null,
    every interval not null,
    is_paused boolean not null default false,
    scheduled_at timestamptz not null default ops.now(),
    started_at timestamptz,
    finished_at timestamptz,
    failed_at timestamptz,
    last_error text,
    run_count bigint not null default 0,
    failure_count bigint not null default 0,
    constraint schedules_pkey primary key (name),
    constraint schedules_every_is_positive check (every > interval '0')
);
alter table ops.schedules enable row level security;
create policy schedules_nobody on ops.schedules using (false);
comment on table ops.schedules is
'What the clock starts, whether pg_cron is here to do it or not, and when it last did.';
comment on column ops.schedules.name is 'Its name in cron.job.';
comment on column ops.schedules.timing is 'When, as cron writes it, in UTC.';
comment on column ops.schedules.command is 'What is run.';
comment on column ops.schedules.every is 'How long it is from one run to the next.';
comment on column ops.schedules.is_paused is 'Whether the operator has stopped it for now.';
comment on column ops.schedules.scheduled_at is 'When it was scheduled, or resumed.';
comment on column ops.schedules.started_at is 'When the last run began.';
comment on column ops.schedules.finished_at is 'When the last run that went well ended.';
comment on column ops.schedules.failed_at is 'When the last run that failed did.';
comment on column ops.schedules.last_error is 'Why it did.';
comment on column ops.schedules.run_count is 'How many runs there were.';
comment on column ops.schedules.failure_count is 'How many of them failed.';

create function ops.cron_command(schedule ops.schedules) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    -- A procedure commits as it goes, so it cannot be wrapped, and keeps its heartbeat itself.
    select case
        when schedule.command ~* '^call ' then schedule.command
        else format('select ops.run_schedule(%L)', schedule.name)
    end
$$;
comment on function ops.cron_command(ops.schedules) is 'What pg_cron is told to run.';

create function ops.schedule(name text, timing text, command text, every interval) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    made ops.schedules;
begin
    insert into ops.schedules as s (name, timing, command, every)
    values (schedule.name, schedule.timing, schedule.command, schedule.every)
    on conflict on constraint schedules_pkey do update
    set timing = excluded.timing, command = excluded.command, every = excluded.every
    returning * into made;
    if to_regprocedure('cron.schedule(text,text,text)') is null then
        raise notice 'pg_cron is not here: % is not scheduled', schedule.name
            using hint = format('Run %L from outside, at %s.', ops.cron_command(made), schedule.timing);
        return false;
    end if;
    if not made.is_paused then
        perform cron.schedule(schedule.name, schedule.timing, ops.cron_command(made));
    end if;
    return true;
end
$$;
comment on function ops.schedule(text, text, text, interval) is
'Has pg_cron run a command, a select or a call, which comes round after `every`; says so and returns false where there
is no pg_cron. For migrations.';

create function ops.unschedule(name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from ops.schedules s where s.name = unschedule.name;
    if to_regprocedure('cron.unschedule(text)') is not null then
        perform cron.unschedule(j.jobname) from cron.job j where j.jobname = unschedule.name;
    end if;
end
$$;
comment on function ops.unschedule(text) is 'Ends a schedule, if there is one. For rollbacks.';

create function ops.schedule_named(name text) returns ops.schedules
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    known ops.schedules;
begin
    select s.* into known from ops.schedules s where s.name = schedule_named.name;
    if not found then
        perform ops.raise_http(
            404, 'schedule_not_found', format('There is no schedule %s.', quote_literal(left(schedule_named.name, 100))), null,
            'rowhouse schedules list shows them.'
        );
    end if;
    return known;
end
$$;
comment on function ops.schedule_named(text) is 'A schedule; answers 404 if there is none of that name.';

create function ops.is_paused(name text) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select coalesce((select s.is_paused from ops.schedules s where s.name = is_paused.name), false) $$;
comment on function ops.is_paused(text) is 'Whether the operator has stopped a schedule.';

create function ops.beat(name text, started timestamptz, finished timestamptz, error text default null) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    update ops.schedules s
    set
        started_at = coalesce(beat.started, s.started_at),
        finished_at = case when beat.error is null then coalesce(beat.finished, s.finished_at) else s.finished_at end,
        failed_at = case when beat.error is null then s.failed_at else beat.finished end,
        last_error = case when beat.error is null then s.last_error else left(beat.error, 2000) end,
        run_count = s.run_count + case when beat.finished is null then 0 else 1 end,
        failure_count = s.failure_count + case when beat.error is null then 0 else 1 end
    where s.name = beat.name
$$;
comment on function ops.beat(text, timestamptz, timestamptz, text) is
'A schedule''s heartbeat: it has begun, or ended, well or with an error.';

create function ops.run_schedule(name text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    known ops.schedules := ops.schedule_named(run_schedule.name);
    begun timestamptz := clock_timestamp();
    complaint text;
begin
    -- Two clocks, or one that hurries: the second run finds the first at work.
    if known.is_paused or not pg_try_advisory_xact_lock(1930, hashtext(run_schedule.name)) then
        return false;
    end if;
    begin
        execute known.command;
        perform ops.beat(run_schedule.name, begun, clock_timestamp());
        return true;
    exception
        when query_canceled or assert_failure or others then
            get stacked diagnostics complaint = message_text;
            perform ops.beat(run_schedule.name, begun, clock_timestamp(), format('%s: %s', sqlstate, complaint));
            raise warning '% failed: %', run_schedule.name, complaint;
            return false;
    end;
end
$$;
comment on function ops.run_schedule(text) is
'Runs a schedule''s command now, unless it is paused or running; its heartbeat says how it went.';

create function ops.schedule_status() returns table (
    name text, timing text, command text, is_paused boolean, started_at timestamptz, finished_at timestamptz,
    duration interval, outcome text, last_error text, missed bigint
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        s.name, s.timing, s.command, s.is_paused, s.started_at, s.finished_at,
        case when s.finished_at >= s.started_at then s.finished_at - s.started_at end,
        case
            when s.started_at is null then 'never ran'
            when s.failed_at >= s.started_at then 'failed'
            when s.finished_at >= s.started_at then 'succeeded'
            else 'running'
        end,
        s.last_error,
        -- Since it last went well. Half a period is let pass: the clock is not that exact.
        case
            when s.is_paused then 0
            else greatest(
                0,
                floor(
                    extract(epoch from now() - greatest(s.finished_at, s.scheduled_at)) / extract(epoch from s.every) - 0.5
                )
            )::bigint
        end
    from ops.schedules s
    order by s.name
$$;
comment on function ops.schedule_status() is
'Each schedule: when it last ran, for how long, how it ended, and how many runs it has missed since one went well.';

create function ops.pause_schedule(name text, paused boolean) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    known ops.schedules := ops.schedule_named(pause_schedule.name);
begin
    update ops.schedules s set is_paused = pause_schedule.paused, scheduled_at = ops.now() where s.name = known.name;
    if to_regprocedure('cron.schedule(text,text,text)') is not null then
        perform cron.unschedule(j.jobname) from cron.job j where j.jobname = known.name;
        if not pause_schedule.paused then
            perform cron.schedule(known.name, known.timing, ops.cron_command(known));
        end if;
    end if;
    perform audit.write(
        case when pause_schedule.paused then 'schedules.pause' else 'schedules.resume' end, null, 'schedules', known.name
    );
end
$$;
comment on function ops.pause_schedule(text, boolean) is 'Stops a schedule until it is resumed, or resumes it.';

do $$
begin
    create extension if not exists pg_cron with schema pg_catalog;
exception
    -- It is not on this server, or only a superuser may make it, or it lives in another database.
    when others then raise notice 'pg_cron is not available: %', sqlerrm;
end
$$;
