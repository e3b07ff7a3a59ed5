-- Why: a table is watched by naming it once. Each watched table gets a trigger function of its own, written
--      from its columns: comparing them by name costs a fifth of taking whole rows apart as JSON.
-- Locks: adds triggers to roles, permissions, members, workspaces, plans and what hangs on them (briefly).
-- Workers: need not stop.

create table audit.watched_tables (
    relation regclass not null,
    resource text not null,
    workspace text,
    row_id text not null,
    redacted text[] not null,
    ignored text[] not null,
    constraint watched_tables_pkey primary key (relation)
);
alter table audit.watched_tables enable row level security;
create policy watched_tables_nobody on audit.watched_tables using (false);
comment on table audit.watched_tables is 'The tables whose changes are recorded.';
comment on column audit.watched_tables.relation is 'The table.';
comment on column audit.watched_tables.resource is 'What it is called in actions.';
comment on column audit.watched_tables.workspace is 'The SQL expression that tells whose a row is; null for nobody''s.';
comment on column audit.watched_tables.row_id is 'The SQL expression that names a row.';
comment on column audit.watched_tables.redacted is 'Columns whose change is recorded without their values.';
comment on column audit.watched_tables.ignored is 'Columns whose change alone is not recorded.';

create function audit.redacted_columns(relation regclass, declared text[]) returns text[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(array_agg(a.attname::text order by a.attnum), '{}')
    from pg_attribute a
    where
        a.attrelid = redacted_columns.relation and a.attnum > 0 and not a.attisdropped
        -- What is called a secret is one, declared or not.
        and (a.attname = any (redacted_columns.declared) or a.attname ~* '(password|passwd|secret|token|api_?key|private_?key)')
$$;
comment on function audit.redacted_columns(regclass, text[]) is
'The columns whose values no record may hold: those declared, and those whose names say so.';

create function audit.recorder(watched audit.watched_tables) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    redacted text[] := audit.redacted_columns(watched.relation, watched.redacted);
    housekeeping constant text[] := '{workspace_id,id,created_at,updated_at,created_by,deleted_at}'::text[];
    has_trash boolean;
    changed text;
    before text;
    after text;
    whole text;
    old_values text;
    new_values text;
    whose text := coalesce(watched.workspace, 'null::uuid');
begin
    select coalesce(bool_or(a.attname = 'deleted_at'), false) into has_trash
    from pg_attribute a where a.attrelid = watched.relation and a.attnum > 0 and not a.attisdropped;
    select
        string_agg(format('case when o.%1$I is distinct from n.%1$I then %1$L end', a.attname), ', ' order by a.attnum),
        string_agg(
            format('%1$L, case when o.%1$I is distinct from n.%1$I then %2$s end', a.attname,
                case when a.attname = any (redacted) then quote_literal('[redacted]') else format('o.%I', a.attname) end),
            ', ' order by a.attnum
        ),
        string_agg(
            format('%1$L, case when o.%1$I is distinct from n.%1$I then %2$s end', a.attname,
                case when a.attname = any (redacted) then quote_literal('[redacted]') else format('n.%I', a.attname) end),
            ', ' order by a.attnum
        ),
        string_agg(
            format('%1$L, %2$s', a.attname,
                case
                    when a.attname = any (redacted)
                        then format('case when r.%I is not null then %L end', a.attname, '[redacted]')
                    else format('r.%I', a.attname)
                end),
            ', ' order by a.attnum
        ) filter (where a.attname <> all (housekeeping)),
        string_agg(format('o.%I', a.attname), ', ' order by a.attnum),
        string_agg(format('n.%I', a.attname), ', ' order by a.attnum)
    into changed, before, after, whole, old_values, new_values
    from pg_attribute a
    where
        a.attrelid = watched.relation and a.attnum > 0 and not a.attisdropped
        and a.attname <> 'updated_at' and a.attname <> all (watched.ignored);
    return format(
        $code$
declare
    origin audit.origin := audit.origin();
    is_hidden boolean := ops.is_allowed('erase') or ops.is_allowed('purge');
begin
    if ops.is_allowed('import') then
        return null;
    end if;
    if tg_op = 'INSERT' then
        insert into audit.inbox (
            workspace_id, action, resource, row_id, after,
            actor_kind, actor_id, actor_name, on_behalf_of, ip, user_agent, request_id
        )
        select
            %1$s, %2$L, %3$L, (%4$s)::text, jsonb_strip_nulls(jsonb_build_object(%5$s)),
            origin.actor_kind, origin.actor_id, origin.actor_name, origin.on_behalf_of,
            origin.ip, origin.user_agent, origin.request_id
        from new_rows r;
    elsif tg_op = 'DELETE' then
        -- A workspace that goes for good takes everything along, and its own record says so.
        insert into audit.inbox (
            workspace_id, action, resource, row_id, before,
            actor_kind, actor_id, actor_name, on_behalf_of, ip, user_agent, request_id
        )
        select
            gone.workspace_id, %6$L || case when is_hidden then 'purge' else 'delete' end,
            %3$L, gone.row_id, case when not is_hidden then gone.before end,
            origin.actor_kind, origin.actor_id, origin.actor_name, origin.on_behalf_of,
            origin.ip, origin.user_agent, origin.request_id
        from (
            select
                %1$s as workspace_id, (%4$s)::text as row_id,
                jsonb_strip_nulls(jsonb_build_object(%5$s)) as before
            from old_rows r
        ) as gone
        where
            gone.workspace_id is null or %3$L = 'workspaces'
            or exists (select from public.workspaces w where w.id = gone.workspace_id);
    else
        insert into audit.inbox (
            workspace_id, action, resource, row_id, changed, before, after,
            actor_kind, actor_id, actor_name, on_behalf_of, ip, user_agent, request_id
        )
        select
            %7$s, %8$s, %3$L, (%9$s)::text, array_remove(array[%12$s], null),
            case when not is_hidden then jsonb_strip_nulls(jsonb_build_object(%10$s)) end,
            case when not is_hidden then jsonb_strip_nulls(jsonb_build_object(%11$s)) end,
            origin.actor_kind, origin.actor_id, origin.actor_name, origin.on_behalf_of,
            origin.ip, origin.user_agent, origin.request_id
        -- Both are filled pair by pair, as rows are updated: a row that one statement updates twice is two pairs.
        from (select row_number() over () as rowhouse_place, old_rows.* from old_rows) o
        join (select row_number() over () as rowhouse_place, new_rows.* from new_rows) n
            on n.rowhouse_place = o.rowhouse_place
        where (%13$s) is distinct from (%14$s);
    end if;
    return null;
end
$code$,
        whose, watched.resource || '.create', watched.resource, watched.row_id, whole, watched.resource || '.',
        regexp_replace(whose, '\mr\.', 'n.', 'g'),
        case
            when has_trash then format(
                'case when o.deleted_at is null and n.deleted_at is not null then %L '
                'when o.deleted_at is not null and n.deleted_at is null then %L else %L end',
                watched.resource || '.delete', watched.resource || '.restore', watched.resource || '.update'
            )
            else quote_literal(watched.resource || '.update')
        end,
        regexp_replace(watched.row_id, '\mr\.', 'n.', 'g'),
        before, after, changed, old_values, new_values
    );
end
$$;
comment on function audit.recorder(audit.watched_tables) is
'The body of the trigger function that records a table''s changes, as its columns are now.';

create function audit.recorder_name(relation regclass) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select format('record_%s_%s', n.nspname, c.relname)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.oid = recorder_name.relation
$$;
comment on function audit.recorder_name(regclass) is 'The name of a table''s trigger function in the schema audit.';

create function audit.watch(
    relation regclass,
    resource text,
    workspace text default null,
    row_id text default 'r.id',
    redacted text[] default '{}',
    ignored text[] default '{}'
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    watched audit.watched_tables;
    event text;
    unknown text;
begin
    select given.name into unknown from unnest(watch.redacted || watch.ignored) as given (name)
    where not exists (
        select from pg_attribute a
        where a.attrelid = watch.relation and a.attname = given.name and a.attnum > 0 and not a.attisdropped
    );
    if found then
        raise exception '% has no column %', watch.relation, quote_ident(unknown)
            using errcode = 'undefined_column', hint = 'Name columns of the table.';
    end if;
    insert into audit.watched_tables as w (relation, resource, workspace, row_id, redacted, ignored)
    values (watch.relation, watch.resource, watch.workspace, watch.row_id, watch.redacted, watch.ignored)
    on conflict on constraint watched_tables_pkey do update
    set
        resource = excluded.resource, workspace = excluded.workspace, row_id = excluded.row_id,
        redacted = excluded.redacted, ignored = excluded.ignored
    returning * into watched;
    execute format(
        -- A plan made for one row must not be kept for a thousand: old and new are always hashed.
        'create or replace function audit.%I() returns trigger language plpgsql security definer '
        'set search_path = pg_catalog, pg_temp set enable_nestloop = off as %L',
        audit.recorder_name(watch.relation), audit.recorder(watched)
    );
    execute format(
        'comment on function audit.%I() is %L',
        audit.recorder_name(watch.relation),
        format('Trigger: records the changes of %s. Written by audit.watch().', watch.relation)
    );
    foreach event in array '{insert,update,delete}'::text[] loop
        execute format(
            'create or replace trigger %I after %s on %s referencing %s for each statement execute function audit.%I()',
            format('audit_%s', event), event, watch.relation,
            case event
                when 'insert' then 'new table as new_rows'
                when 'delete' then 'old table as old_rows'
                else 'old table as old_rows new table as new_rows'
            end,
            audit.recorder_name(watch.relation)
        );
    end loop;
end
$$;
comment on function audit.watch(regclass, text, text, text, text[], text[]) is
'Has every change of a table recorded, as resource.create, .update and .delete. `workspace` and `row_id` are SQL
expressions over a row r. Called again, it follows the table''s columns. For migrations.';

create function audit.unwatch(relation regclass) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    event text;
begin
    foreach event in array '{insert,update,delete}'::text[] loop
        execute format('drop trigger if exists audit_%s on %s', event, unwatch.relation);
    end loop;
    execute format('drop function if exists audit.%I()', audit.recorder_name(unwatch.relation));
    delete from audit.watched_tables w where w.relation = unwatch.relation;
end
$$;
comment on function audit.unwatch(regclass) is 'Undoes audit.watch(). For rollbacks.';

create function audit.watch_findings(relation regclass) returns table (code text, finding text, hint text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    watched audit.watched_tables;
begin
    select w.* into watched from audit.watched_tables w where w.relation = watch_findings.relation;
    if not found or (
        select count(*) from pg_trigger t
        where
            t.tgrelid = watch_findings.relation
            and t.tgfoid = to_regproc('audit.' || audit.recorder_name(watch_findings.relation))
            and t.tgtype in (4, 8, 16)
            and t.tgenabled in ('O', 'A')
            and t.tgqual is null
    ) < 3 then
        return query select
            'not_audited', format('%s lacks the triggers that record its changes', watch_findings.relation),
            'select audit.watch(…) attaches them.';
        return;
    end if;
    if (
        select p.prosrc from pg_proc p
        where p.oid = to_regproc('audit.' || audit.recorder_name(watch_findings.relation))
    ) <> audit.recorder(watched) then
        return query select
            'audit_out_of_step',
            format('%s has changed since its recorder was written: a column is not recorded', watch_findings.relation),
            format('select tenancy.refresh_table(%L); in the migration that changes it.', watch_findings.relation);
    end if;
end
$$;
comment on function audit.watch_findings(regclass) is 'Whether a table''s changes are recorded, all of its columns.';

create function audit.rewatch(relation regclass) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    select audit.watch(w.relation, w.resource, w.workspace, w.row_id, w.redacted, w.ignored)
    from audit.watched_tables w where w.relation = rewatch.relation
$$;
comment on function audit.rewatch(regclass) is
'Writes a table''s recorder anew, for columns that came or went. For migrations.';

select
    audit.watch(
        'public.workspaces', 'workspaces', 'r.id', 'r.id',
        ignored => '{membership_version}'
    ),
    audit.watch('public.workspace_members', 'members', 'r.workspace_id', 'r.user_id'),
    audit.watch('public.roles', 'roles', 'r.workspace_id'),
    audit.watch(
        'public.role_permissions', 'role_permissions',
        '(select its.workspace_id from public.roles as its where its.id = r.role_id)', 'r.role_id'
    ),
    audit.watch('public.permissions', 'permissions', null, 'r.permission'),
    audit.watch('billing.plans', 'plans'),
    audit.watch('billing.plan_limits', 'plan_limits', null, 'r.plan_id'),
    audit.watch('billing.features', 'features', null, 'r.feature'),
    audit.watch('billing.plan_features', 'plan_features', null, 'r.plan_id'),
    audit.watch(
        'billing.workspace_plans', 'workspace_plans', 'r.workspace_id', 'r.workspace_id',
        -- A period that moves on is no decision.
        ignored => '{until,next_plan_id,next_state,next_reason,changed_at}'
    ),
    audit.watch(
        'billing.limit_overrides', 'limit_overrides', 'r.workspace_id', 'r.workspace_id',
        redacted => '{reason}'
    ),
    audit.watch(
        'billing.feature_overrides', 'feature_overrides', 'r.workspace_id', 'r.workspace_id',
        redacted => '{reason}'
    ),
    audit.watch('authz.suspended_users', 'suspended_users', null, 'r.user_id'),
    audit.watch('authz.suspended_workspaces', 'suspended_workspaces', null, 'r.workspace_id'),
    audit.watch('audit.settings', 'audit_settings', null, 'r.singleton');
