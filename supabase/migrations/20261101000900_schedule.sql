-- Why: what the clock starts. Without pg_cron the same functions can be called from outside.
-- Locks: none on existing tables.
-- Workers: need not stop.

create table ops.schedules (
    name text not null,
    timing text not null,
    command text not null,
    constraint schedules_pkey primary key (name)
);
alter table ops.schedules enable row level security;
create policy schedules_nobody on ops.schedules using (false);
comment on table ops.schedules is 'What the clock starts, whether pg_cron is here to do it or not.';
comment on column ops.schedules.name is 'Its name in cron.job.';
comment on column ops.schedules.timing is 'When, as cron writes it, in UTC.';
comment on column ops.schedules.command is 'What is run.';

create function ops.schedule(name text, timing text, command text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into ops.schedules as s (name, timing, command)
    values (schedule.name, schedule.timing, schedule.command)
    on conflict on constraint schedules_pkey do update set timing = excluded.timing, command = excluded.command;
    if to_regprocedure('cron.schedule(text,text,text)') is null then
        raise notice 'pg_cron is not here: % is not scheduled', schedule.name
            using hint = format('Run %L from outside, at %s.', schedule.command, schedule.timing);
        return false;
    end if;
    perform cron.schedule(schedule.name, schedule.timing, schedule.command);
    return true;
end
$$;
comment on function ops.schedule(text, text, text) is
'Has pg_cron run a command; says so and returns false where there is no pg_cron. For migrations.';

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

do $$
begin
    create extension if not exists pg_cron with schema pg_catalog;
exception
    -- It is not on this server, or only a superuser may make it, or it lives in another database.
    when others then raise notice 'pg_cron is not available: %', sqlerrm;
end
$$;

select ops.schedule('rowhouse-purge-workspaces', '17 3 * * *', 'select tenancy.purge_workspaces()');
select ops.schedule('rowhouse-purge', '*/10 * * * *', 'select ops.purge()');
select ops.schedule('rowhouse-audit-seal', '* * * * *', 'select audit.seal()');
select ops.schedule('rowhouse-audit-maintain', '27 3 * * *', 'select audit.maintain()');
