-- Why: what belongs to a workspace or to a person can be taken out whole, and brought into another database.
-- Locks: none on existing tables.
-- Workers: need not stop.

create table ops.not_exported (
    relation regclass not null,
    reason text not null,
    constraint not_exported_pkey primary key (relation)
);
alter table ops.not_exported enable row level security;
create policy not_exported_nobody on ops.not_exported using (false);
comment on table ops.not_exported is 'Tables with rows of workspaces that an export leaves out.';
comment on column ops.not_exported.relation is 'The table.';
comment on column ops.not_exported.reason is 'Why.';

insert into ops.not_exported (relation, reason)
values
('billing.usage_counters', 'Counted afresh where it is imported.'),
('tenancy.search_documents', 'Written afresh where it is imported.'),
('tenancy.search_spellings', 'Written afresh where it is imported.'),
('tenancy.invitation_tokens', 'Secrets: invitations are sent again.'),
('audit.entries', 'Exported with what is not sealed yet, as audit.inbox: the chain is the database''s own.');

-- What belongs to a workspace ----------------------------------------------------------------

create function ops.workspace_tables() returns table (relation regclass, query text, depth integer)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with recursive tables as (
        select c.oid::regclass as relation
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        join pg_attribute a on a.attrelid = c.oid and a.attname = 'workspace_id' and not a.attisdropped
        where
            n.nspname = any (ops.house_schemas())
            and c.relkind in ('r', 'p') and not c.relispartition
            and not exists (select from ops.not_exported x where x.relation = c.oid)
        union
        values ('public.workspaces'::regclass), ('public.role_permissions'::regclass)
    ),
    ways (relation, depth) as (
        select t.relation, 0 from tables t
        union
        select k.conrelid::regclass, w.depth + 1
        from ways w
        join pg_constraint k on k.confrelid = w.relation and k.contype = 'f' and k.conrelid <> k.confrelid
        join tables t on t.relation = k.conrelid
        where w.depth < 20
    )
    select
        w.relation,
        case w.relation
            when 'public.workspaces'::regclass then 'select to_jsonb(t) from public.workspaces t where t.id = $1'
            when 'public.role_permissions'::regclass then
                'select to_jsonb(t) from public.role_permissions t '
                'join public.roles r on r.id = t.role_id where r.workspace_id = $1 order by t.role_id, t.permission'
            when 'audit.inbox'::regclass then
                'select r.line from (select to_jsonb(t) - ''{number,transaction_id}''::text[] as line, t.occurred_at, t.number '
                'from audit.inbox t where t.workspace_id = $1 union all '
                'select to_jsonb(t) - ''{number,transaction_id,kept_until,position,seal_number,salt,details_hash,entry_hash,'
                'erased_by}''::text[], t.occurred_at, t.number from audit.entries t where t.workspace_id = $1) r '
                'order by r.occurred_at, r.number'
            else format(
                'select to_jsonb(t) from %s t where t.workspace_id = $1%s', w.relation,
                coalesce(
                    (
                        select ' order by ' || string_agg(format('t.%I', a.attname), ', ' order by u.place)
                        from pg_constraint k
                        cross join unnest(k.conkey) with ordinality as u (attnum, place)
                        join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.attnum
                        where k.conrelid = w.relation and k.contype = 'p'
                    ),
                    ''
                )
            )
        end,
        max(w.depth)
    from ways w
    group by w.relation
    order by 3, 1
$$;
comment on function ops.workspace_tables() is
'The tables that hold what belongs to a workspace, parents first, and the query ($1 is the workspace) for its rows.';

create function ops.workspace_people() returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        'select jsonb_build_object(''id'', p.id, ''email'', p.email, ''display_name'', p.display_name, '
        '''avatar_url'', p.avatar_url, ''locale'', p.locale, ''time_zone'', p.time_zone) '
        'from public.profiles p where p.id in ('
        || string_agg(
            format(
                'select t.%I from %s t where t.%I = $1', a.attname, ops.name_of(t.relation),
                case t.relation when 'public.workspaces'::regclass then 'id' else 'workspace_id' end
            ),
            ' union ' order by t.relation::text, a.attname
        )
        || ') order by p.id'
    from ops.workspace_tables() t
    join pg_constraint k on k.conrelid = t.relation and k.contype = 'f' and k.confrelid = 'public.profiles'::regclass
    join pg_attribute a on a.attrelid = t.relation and a.attnum = any (k.conkey)
$$;
comment on function ops.workspace_people() is
'The query for the people of a workspace: its members, and whoever its rows still name.';

-- What belongs to a person -------------------------------------------------------------------

create function ops.person_tables() returns table (relation regclass, query text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        about.relation,
        format(
            'select to_jsonb(t) from %s t where %s', about.relation,
            string_agg(
                case
                    when about.identifies
                        then format('lower(t.%I) = (select lower(p.email) from public.profiles p where p.id = $1)', about.name)
                    else format('t.%I = $1', about.name)
                end,
                ' or '
                order by about.name
            )
        )
    from (
        select c.oid::regclass as relation, a.attname as name, false as identifies
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        join pg_constraint k on k.conrelid = c.oid and k.contype = 'f'
        join pg_attribute a on a.attrelid = c.oid and a.attnum = any (k.conkey)
        where
            n.nspname = any (ops.house_schemas()) and c.relkind in ('r', 'p') and not c.relispartition
            and k.confrelid in ('public.profiles'::regclass, 'public.workspace_members'::regclass)
            and a.attname <> 'workspace_id'
        union
        select p.relation, p.column_name, true from ops.erasure_plan p where p.identifies
        union
        values
        ('public.profiles'::regclass, 'id', false),
        ('audit.inbox'::regclass, 'actor_id', false),
        ('audit.entries'::regclass, 'actor_id', false),
        ('ledger.transactions'::regclass, 'posted_by', false),
        ('ledger.accounts'::regclass, 'created_by', false)
    ) as about
    group by about.relation
    union all
    select
        'auth.users'::regclass,
        'select to_jsonb(r) from (select u.id, u.email, to_jsonb(u) -> ''phone'' as phone, u.created_at, '
        'u.last_sign_in_at, u.raw_user_meta_data from auth.users u where u.id = $1) r'
$$;
comment on function ops.person_tables() is
'The tables that hold what belongs to a person, and the query ($1 is the person) for its rows: those that refer to them,
and those that are about their address.';

-- Bringing a workspace in --------------------------------------------------------------------

create function ops.begin_import(workspace jsonb) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    its_id uuid := (begin_import.workspace ->> 'id')::uuid;
begin
    if its_id is null then
        perform ops.raise_http(400, 'archive_invalid', 'The archive holds no workspace.');
    end if;
    if exists (select from public.workspaces w where w.id = its_id) then
        perform ops.raise_http(409, 'workspace_exists', 'This workspace is here already.', null, 'Erase it first, or keep it.');
    end if;
    if exists (select from ledger.accounts a where a.workspace_id = its_id) then
        perform ops.raise_http(
            409, 'workspace_exists', 'Its books are here: they stayed when it was erased.', null, 'Import it into another database.'
        );
    end if;
    if exists (select from public.workspaces w where lower(w.slug) = lower(begin_import.workspace ->> 'slug')) then
        perform ops.raise_http(409, 'slug_taken', 'Another workspace has its slug.', null, 'Change the slug of one of them first.');
    end if;
    perform ops.allow('import');
    create temporary table if not exists rowhouse_incoming (line jsonb) on commit drop;
    return its_id;
end
$$;
comment on function ops.begin_import(jsonb) is
'Begins to bring a workspace in, in this transaction: nothing of it may be here. Makes pg_temp.rowhouse_incoming, into
which the lines of one table at a time are copied. For operators.';

create function ops.import_people() returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    incoming constant text := 'pg_temp.rowhouse_incoming';
    clash text;
    columns text;
    added bigint;
begin
    execute format(
        'select i.line ->> ''email'' from %s i '
        'join auth.users u on lower(u.email) = lower(i.line ->> ''email'') and u.id <> (i.line ->> ''id'')::uuid limit 1',
        incoming
    ) into clash;
    if clash is not null then
        perform ops.raise_http(
            409, 'person_differs', format('%s is somebody else here.', left(clash, 320)), null,
            'The same address has another id in this database: change one of them first.'
        );
    end if;
    -- Supabase's auth looks people up by these; not every version has them all.
    select string_agg(format('%I', a.attname), ', ' order by a.attnum) into columns
    from pg_attribute a
    where
        a.attrelid = 'auth.users'::regclass and not a.attisdropped
        and a.attname = any (
            '{id,email,instance_id,aud,role,raw_user_meta_data,raw_app_meta_data,created_at,updated_at,confirmation_token,
            recovery_token,email_change,email_change_token_new,email_change_token_current,reauthentication_token,
            phone_change,phone_change_token}'::text[]
        );
    execute format(
        'insert into auth.users (%1$s) select %1$s from pg_temp.rowhouse_incoming i '
        'cross join lateral jsonb_populate_record(null::auth.users, jsonb_build_object('
        '''id'', i.line -> ''id'', ''email'', i.line -> ''email'', ''aud'', ''authenticated'', ''role'', ''authenticated'', '
        '''instance_id'', ''00000000-0000-0000-0000-000000000000'', ''created_at'', now(), ''updated_at'', now(), '
        '''raw_user_meta_data'', jsonb_build_object(''display_name'', i.line -> ''display_name''), '
        '''raw_app_meta_data'', jsonb ''{"provider": "email", "providers": ["email"]}'', '
        -- Supabase's auth cannot read a user in whom these are null.
        '''confirmation_token'', '''', ''recovery_token'', '''', ''email_change'', '''', ''email_change_token_new'', '''', '
        '''email_change_token_current'', '''', ''reauthentication_token'', '''', ''phone_change'', '''', '
        '''phone_change_token'', '''')) u '
        'where not exists (select from auth.users known where known.id = (i.line ->> ''id'')::uuid)',
        columns
    );
    get diagnostics added = row_count;
    execute format('select count(tenancy.ensure_profile((i.line ->> ''id'')::uuid)) from %s i', incoming);
    return added;
end
$$;
comment on function ops.import_people() is
'Signs up whoever of the people copied is not here yet, without a password: they reset it. Returns how many.';

create function ops.import_rows(relation regclass, workspace_id uuid) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    columns text;
    foreign_rows bigint;
    added bigint;
begin
    if not exists (select from ops.workspace_tables() t where t.relation = import_rows.relation) then
        perform ops.raise_http(400, 'archive_invalid', format('%s holds nothing of a workspace.', import_rows.relation));
    end if;
    execute format(
        'select count(*) from pg_temp.rowhouse_incoming i where (i.line::text ~ ''"-?infinity"'' and not %L::boolean)%s',
        import_rows.relation in ('ledger.periods'::regclass, 'audit.inbox'::regclass),
        case import_rows.relation
            when 'audit.inbox'::regclass then
                ' or (i.line ->> ''occurred_at'')::timestamptz '
                'not between now() - interval ''20 years'' and now() + interval ''1 day'''
            when 'tenancy.deletions'::regclass then
                ' or not exists (select from tenancy.tenant_tables t '
                'where t.relation = to_regclass(i.line ->> ''relation'')) '
                'or exists (select from jsonb_array_elements_text(i.line -> ''tables'') n (name) where not exists ('
                'select from tenancy.tenant_tables t where t.relation = to_regclass(n.name)))'
            else ''
        end
    ) into foreign_rows;
    if foreign_rows > 0 then
        perform ops.raise_http(
            400, 'archive_invalid', format('%s rows of %s hold what cannot be.', foreign_rows, import_rows.relation)
        );
    end if;
    -- A row of another tenant would be planted there.
    execute format(
        'select count(*) from pg_temp.rowhouse_incoming i where %s',
        case import_rows.relation
            when 'public.workspaces'::regclass then '(i.line ->> ''id'')::uuid is distinct from $1'
            when 'public.role_permissions'::regclass then
                'not exists (select from public.roles r where r.id = (i.line ->> ''role_id'')::uuid and r.workspace_id = $1)'
            else '(i.line ->> ''workspace_id'')::uuid is distinct from $1'
        end
    ) into foreign_rows using import_rows.workspace_id;
    if foreign_rows > 0 then
        perform ops.raise_http(
            400, 'archive_invalid', format('%s rows of %s are of another workspace.', foreign_rows, import_rows.relation)
        );
    end if;
    select string_agg(format('%I', a.attname), ', ' order by a.attnum) into columns
    from pg_attribute a
    where
        a.attrelid = import_rows.relation and a.attnum > 0 and not a.attisdropped
        and a.attgenerated = '' and a.attidentity = '' and a.attname <> 'transaction_id' or
        (a.attrelid = import_rows.relation and a.attname = 'transaction_id' and import_rows.relation = 'ledger.entries'::regclass);
    -- Not in one case: the workspace came with a plan.
    if import_rows.relation = 'billing.workspace_plans'::regclass then
        delete from billing.workspace_plans wp where wp.workspace_id = import_rows.workspace_id;
    end if;
    -- One statement, so that rows may refer to each other in any order.
    execute format(
        'insert into %1$s (%2$s) select %3$s from pg_temp.rowhouse_incoming i '
        'cross join lateral jsonb_populate_record(null::%1$s, i.line) r',
        import_rows.relation, columns, regexp_replace(columns, '(^|, )', '\1r.', 'g')
    );
    get diagnostics added = row_count;
    -- However much of it there is: what came is not growth.
    update billing.usage_counters c set max = null, used = null where c.workspace_id = import_rows.workspace_id;
    return added;
end
$$;
comment on function ops.import_rows(regclass, uuid) is
'Adds the lines copied to a table, ids and times as they are. Returns how many rows.';

create function ops.finish_import(workspace_id uuid) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    wrong record;
begin
    perform ops.allow(null);
    update tenancy.counters c set last_number = greatest(
        c.last_number, (select max(t.number) from public.tickets t where t.workspace_id = finish_import.workspace_id)
    )
    where c.workspace_id = finish_import.workspace_id and c.name = 'tickets';
    perform billing.refresh_limit(finish_import.workspace_id, r.resource) from billing.resources r order by r.resource;
    select f.* into wrong from ledger.findings(finish_import.workspace_id) f limit 1;
    if found then
        perform ops.raise_http(
            400, 'archive_invalid', format('Its books do not hold: %s: %s.', wrong.subject, wrong.finding)
        );
    end if;
    perform audit.write(
        'workspaces.import', finish_import.workspace_id, 'workspaces', finish_import.workspace_id::text
    );
end
$$;
comment on function ops.finish_import(uuid) is
'Counts what came under the plan''s limits, checks the books, and records the import.';
