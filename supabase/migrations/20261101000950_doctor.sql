-- Why: whether a database is sound can be asked of the database itself.
-- Locks: none on existing tables.
-- Workers: need not stop.

create function ops.access_findings() returns table (severity text, subject text, finding text, hint text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with relations as (
        select c.oid, c.oid::regclass::text as name, c.relkind, c.relrowsecurity, c.reloptions, c.relacl,
            n.nspname as schema
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        where
            n.nspname = any (ops.house_schemas())
            and c.relkind in ('r', 'p', 'v', 'm', 'f')
            and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e')
    ),
    functions as (
        select p.oid, p.oid::regprocedure::text as name, p.prosecdef, p.proconfig, p.proacl, p.proowner
        from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        where
            n.nspname = any (ops.house_schemas())
            and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
    )
    select 'error', name, 'row level security is off', format('alter table %s enable row level security;', name)
    from relations where relkind in ('r', 'p') and not relrowsecurity
    union all
    select
        'error', name, 'the view reads with its owner''s rights',
        format('alter view %s set (security_invoker = true);', name)
    from relations
    where relkind = 'v' and not coalesce(reloptions && '{security_invoker=true,security_invoker=on}', false)
    union all
    select 'error', name, 'neither a materialized view nor a foreign table can have policies', 'Move it out of public.'
    from relations where relkind in ('m', 'f') and schema = 'public'
    union all
    select
        'error', r.name, format('%s holds %s', coalesce(a.grantee::regrole::text, 'PUBLIC'), a.privilege_type),
        format('revoke %s on %s from %s;', a.privilege_type, r.name, coalesce(a.grantee::regrole::text, 'public'))
    from relations r, aclexplode(r.relacl) a
    where
        (a.grantee = 0 or a.grantee in ('anon'::regrole, 'authenticated'::regrole, 'service_role'::regrole))
        and (a.privilege_type in ('TRUNCATE', 'REFERENCES', 'TRIGGER') or a.grantee = 0)
    union all
    select
        'error', f.name, 'everybody may call it', format('revoke execute on function %s from public;', f.name)
    from functions f, aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) a
    where a.grantee = 0 and a.privilege_type = 'EXECUTE'
    union all
    select
        'error', f.name, 'it runs with its owner''s rights and the caller''s search_path',
        format('alter function %s set search_path = pg_catalog, pg_temp;', f.name)
    from functions f
    where f.prosecdef and not coalesce(f.proconfig @> '{"search_path=pg_catalog, pg_temp"}', false)
    union all
    select
        'error', r.name, 'it is neither adopted nor on the list of other tables',
        format('select tenancy.adopt_table(%L, …), or enter it in tenancy.other_tables with the reason.', r.name)
    from relations r
    where
        r.schema = 'public' and r.relkind in ('r', 'p')
        and not exists (select from tenancy.tenant_tables t where t.relation = r.oid)
        and not exists (select from tenancy.other_tables t where t.relation = r.oid)
    union all
    select 'error', t.relation::text, f.finding, f.hint
    from tenancy.tenant_tables t, tenancy.findings(t.relation) f
    union all
    -- A tenant table's permissive policies say the one line and nothing else; what a row itself
    -- says goes into a restrictive one.
    select
        'error', format('%s on %s', p.policyname, t.relation), 'the policy says more or less than the one line',
        'workspace_id = any (array(select authz.workspaces_with(''resource.action'') limit authz.refuse_estimates()))'
    from tenancy.tenant_tables t
    join pg_class c on c.oid = t.relation
    join pg_namespace n on n.oid = c.relnamespace
    join pg_policies p on p.schemaname = n.nspname and p.tablename = c.relname
    cross join lateral (values (p.qual), (p.with_check)) as said (expression)
    where
        p.permissive = 'PERMISSIVE'
        and said.expression !~ (
            '^\(workspace_id = ANY \(ARRAY\( SELECT authz\.workspaces_with\(''[a-z0-9_.]+''::text\)'
            || '( AS workspaces_with)?\s+LIMIT authz\.refuse_estimates\(\)\)\)\)$'
        )
    union all
    select
        'error', t.relation::text, 'it shows what is in the trash',
        format('create policy … on %s as restrictive for all to authenticated using (deleted_at is null);', t.relation)
    from tenancy.tenant_tables t
    join pg_class c on c.oid = t.relation
    join pg_namespace n on n.oid = c.relnamespace
    where not exists (
        select from pg_policies p
        where
            p.schemaname = n.nspname and p.tablename = c.relname and p.permissive = 'RESTRICTIVE' and p.cmd = 'ALL'
            and p.qual = '(deleted_at IS NULL)' and p.roles = '{authenticated}'
    )
    union all
    select
        'error', format('%s on %s', p.policyname, p.tablename), format('there is no permission %s', asked.permission[1]),
        'select authz.register_permission(…), or mend the policy: it shows nothing to anybody.'
    from pg_policies p
    cross join lateral regexp_matches(
        coalesce(p.qual, '') || coalesce(p.with_check, ''), 'authz\.workspaces_with\(''([^'']+)''', 'g'
    ) as asked (permission)
    where
        p.schemaname = 'public'
        and not exists (select from public.permissions known where known.permission = asked.permission[1])
    union all
    select
        'error', format('%s on %s', p.policyname, p.tablename), 'the policy lets everybody in',
        'Say who; the pages of policies/ show how.'
    from pg_policies p
    where p.schemaname = 'public' and p.permissive = 'PERMISSIVE' and (p.qual = 'true' or p.with_check = 'true')
    union all
    select
        'error', format('schema %s', n.nspname), format('%s may create in it', coalesce(a.grantee::regrole::text, 'PUBLIC')),
        format('revoke create on schema %I from %s;', n.nspname, coalesce(a.grantee::regrole::text, 'public'))
    from pg_namespace n, aclexplode(n.nspacl) a
    where
        n.nspname = any (ops.house_schemas())
        and a.privilege_type = 'CREATE'
        and (a.grantee = 0 or a.grantee in ('anon'::regrole, 'authenticated'::regrole, 'service_role'::regrole))
    union all
    select
        'error', format('schema %s', n.nspname), format('%s may enter it, and nobody answers for it', a.grantee::regrole),
        'Move what it holds into a schema of the house.'
    from pg_namespace n, aclexplode(n.nspacl) a
    where
        a.privilege_type = 'USAGE'
        and a.grantee in ('anon'::regrole, 'authenticated'::regrole)
        and n.nspname <> all (ops.house_schemas())
        -- Supabase's own.
        and n.nspname <> all (
            '{auth,storage,realtime,extensions,graphql,graphql_public,vault,pgsodium,net,cron,supabase_functions,
            pgmq_public}'::text[]
        )
    union all
    select
        'error', m.member::regrole::text, format('the role is a member of %s', m.roleid::regrole),
        format('revoke %s from %s;', m.roleid::regrole, m.member::regrole)
    from pg_auth_members m where m.member in ('anon'::regrole, 'authenticated'::regrole)
    union all
    select
        'error', r.name, format('the rule %s rewrites what is done to it', w.rulename),
        format('drop rule %I on %s;', w.rulename, r.name)
    from relations r join pg_rewrite w on w.ev_class = r.oid where r.relkind in ('r', 'p')
    union all
    select
        'error', r.name, format('%s may read a materialized view, which knows no policies', a.grantee::regrole),
        format('revoke all on %s from %s;', r.name, a.grantee::regrole)
    from relations r, aclexplode(r.relacl) a
    where r.relkind = 'm' and a.grantee in ('anon'::regrole, 'authenticated'::regrole)
    union all
    select
        'error', 'what is made tomorrow', format('%s will hold %s on it', coalesce(a.grantee::regrole::text, 'PUBLIC'), a.privilege_type),
        'alter default privileges … revoke …;'
    from pg_default_acl d, aclexplode(d.defaclacl) a
    where
        d.defaclrole = (select p.proowner from pg_proc p where p.oid = 'ops.now()'::regprocedure)
        and (d.defaclnamespace = 0 or d.defaclnamespace::regnamespace::text = any (ops.house_schemas()))
        and (a.grantee = 0 or a.grantee in ('anon'::regrole, 'authenticated'::regrole, 'service_role'::regrole))
    union all
    select
        'error', wanted.relation, format('it lacks the trigger of %s', wanted.called),
        'Roll the migration that attaches it back and forth.'
    from (
        values
        ('public.workspace_members', 'tenancy.guard_membership()', 31),
        ('public.workspace_members', 'tenancy.keep_an_owner()', 25),
        ('public.workspaces', 'tenancy.have_an_owner()', 21),
        ('public.workspaces', 'tenancy.check_workspace()', 23),
        ('public.workspaces', 'billing.start_on_default_plan()', 5),
        ('public.roles', 'tenancy.guard_role()', 19)
    ) as wanted (relation, called, type)
    where not exists (
        select from pg_trigger t
        where
            t.tgrelid = wanted.relation::regclass
            and t.tgfoid = wanted.called::regprocedure
            and t.tgtype = wanted.type
            and t.tgenabled in ('O', 'A')
            and t.tgqual is null
    )
    union all
    select
        'error', r.rolname, 'the role ignores row level security', format('alter role %I nobypassrls;', r.rolname)
    from pg_roles r
    where r.rolname in ('anon', 'authenticated') and (r.rolbypassrls or r.rolsuper)
    union all
    select
        'error', 'functions to come', 'everybody may call a function that is created tomorrow',
        'alter default privileges revoke execute on functions from public;'
    where not exists (
        select from pg_default_acl d
        where
            d.defaclrole = (select p.proowner from pg_proc p where p.oid = 'ops.now()'::regprocedure)
            and d.defaclobjtype = 'f' and d.defaclnamespace = 0
            and not exists (select from aclexplode(d.defaclacl) a where a.grantee = 0)
    )
$$;
comment on function ops.access_findings() is
'Whatever shows or allows more than the house rules: RLS, views, grants, definers, policies, adoption.';

create function ops.data_findings() returns table (severity text, subject text, finding text, hint text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    counted record;
begin
    return query
    select 'error', w.slug, 'the workspace has no owner', format('rowhouse members set-role %s EMAIL owner', w.slug)
    from public.workspaces w
    where w.deleted_at is null and not tenancy.has_owner(w.id);

    return query
    select 'error', w.slug, 'the workspace has no plan', format('rowhouse workspaces set-plan %s free', w.slug)
    from public.workspaces w
    where not exists (select from billing.workspace_plans wp where wp.workspace_id = w.id);

    return query
    select
        'error', format('plan %s', p.id), format('it does not say how many %s it allows, so it allows none', r.resource),
        'Insert the limit into billing.plan_limits; null is without limit.'
    from billing.plans p cross join billing.resources r
    where not exists (select from billing.plan_limits pl where pl.plan_id = p.id and pl.resource = r.resource);

    return query
    select
        'error', w.slug, format('the limit on %s in force is not the one agreed', r.resource),
        format('select billing.refresh_limit(%L, %L);', w.id, r.resource)
    from public.workspaces w
    cross join billing.resources r
    left join billing.usage_counters c on c.workspace_id = w.id and c.resource = r.resource
    where c.workspace_id is null or c.max is distinct from billing.limit_of(w.id, r.resource);

    return query
    select
        'warning', 'audit', format('records wait to be sealed since %s', min(i.occurred_at)),
        'rowhouse audit seal; pg_cron does it every minute, once the transactions before them are over.'
    from audit.inbox i having min(i.occurred_at) < now() - interval '15 minutes';

    return query
    select
        'error', 'audit', format('there is no partition for records kept until %s', wanted.month),
        'select audit.maintain(); pg_cron does it every day.'
    from (
        select distinct audit.kept_until(now() + interval '1 month', p.audit_months) as month from billing.plans p
    ) as wanted
    where to_regclass('audit.' || audit.partition_of(wanted.month)) is null;

    for counted in select r.resource, r.relation from billing.resources r order by r.resource loop
        return query execute format(
            $query$
            select
                'error', w.slug, format('it counts %%s %%s where there are %%s', c.used, c.resource, coalesce(t.there, 0)),
                'Set billing.usage_counters.used to the number of rows, and find what bypassed the triggers.'
            from billing.usage_counters c
            join public.workspaces w on w.id = c.workspace_id
            left join (select workspace_id, count(*) as there from %s where %s group by 1) t on t.workspace_id = c.workspace_id
            where c.resource = %L and c.used <> coalesce(t.there, 0)
            $query$,
            counted.relation, billing.live_rows(counted.relation), counted.resource
        );
    end loop;
end
$$;
comment on function ops.data_findings() is
'Workspaces without owner or plan, plans without limits, and counters that differ from the rows.';

create function ops.server_findings() returns table (severity text, subject text, finding text, hint text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    version integer := current_setting('server_version_num')::integer;
    -- The minor versions that close what lets RLS be bypassed: CVE-2024-10976 and CVE-2025-8713.
    -- Source: postgresql.org/support/security.
    oldest constant jsonb := jsonb '{"15": 150014, "16": 160010, "17": 170006, "18": 180000}';
    failed record;
begin
    if version < coalesce((oldest ->> (version / 10000)::text)::integer, 150014) then
        return query values (
            'error', 'server', format('Postgres %s has known holes in row level security', current_setting('server_version')),
            'Update to the newest minor version.'
        );
    end if;
    if exists (select from ops.clock) then
        return query values ('error', 'clock', 'the clock is set by hand', 'delete from ops.clock;');
    end if;
    if to_regclass('cron.job') is null then
        return query values (
            'warning', 'pg_cron', 'pg_cron is not here: nothing runs on schedule',
            'Create the extension, or run what the migrations schedule from outside.'
        );
        return;
    end if;
    if not exists (select from pg_stat_activity a where a.backend_type = 'pg_cron launcher') then
        return query values (
            'warning', 'pg_cron', 'its launcher does not run', 'Check shared_preload_libraries and restart the server.'
        );
    end if;
    for failed in execute
        'select j.jobname::text, d.return_message::text from cron.job j '
        'join lateral (select * from cron.job_run_details d where d.jobid = j.jobid order by d.runid desc limit 1) d '
        'on true where d.status = ''failed'' and j.database = current_database()'
    loop
        return query values ('warning', failed.jobname, format('its last run failed: %s', failed.return_message), 'See cron.job_run_details.');
    end loop;
    return query execute
        'select ''error'', s.name, ''pg_cron does not run it'', '
        'format(''select cron.schedule(%L, %L, %L);'', s.name, s.timing, ops.cron_command(s)) from ops.schedules s '
        'where not s.is_paused and not exists ('
        'select from cron.job j where j.jobname = s.name and j.command = ops.cron_command(s) and j.active)';
end
$$;
comment on function ops.server_findings() is 'What is wrong with the server under the house: version, clock, pg_cron.';

create function ops.job_findings() returns table (severity text, subject text, finding text, hint text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        'error', k.kind, 'it runs in Postgres, and the function that would run it is gone',
        'Create its handler, and call jobs.declare_kind() again.'
    from jobs.kinds k
    where
        k.executor = 'postgres'
        and (jobs.handler_of(k) is null or to_regproc('jobs.' || jobs.runner_name(k.kind)) is null)
    union all
    select
        'error', e.relation::text, format('the trigger that enqueues jobs %s is gone or off', e.kind),
        'Call jobs.on_event() again, or jobs.drop_event().'
    from jobs.table_events e
    where not exists (
        select from pg_trigger t
        where t.tgrelid = e.relation and t.tgname = e.trigger_name and t.tgenabled in ('O', 'A')
    )
    union all
    select
        'warning', s.name, format('its last run failed: %s', s.last_error), 'rowhouse schedules run runs it again.'
    from ops.schedules s
    where s.failed_at >= s.started_at
    union all
    select
        'warning', a.subject, format('%s: %s, and %s is too much', a.alarm, round(a.value::numeric, 2), a.threshold), a.hint
    from jobs.current_alarms() a
$$;
comment on function ops.job_findings() is
'Jobs that nobody can run, events that ask for none, schedules that failed, alarms.';

create function ops.doctor() returns table (severity text, subject text, finding text, hint text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select * from ops.server_findings()
    union all
    select * from ops.access_findings()
    union all
    select * from ops.data_findings()
    union all
    select * from ops.job_findings()
$$;
comment on function ops.doctor() is 'Whether this database is sound: no rows if it is. For operators.';
