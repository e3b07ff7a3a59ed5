-- Why: what belongs to a workspace or to a person can be taken out whole, brought into another database, and erased.
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

-- Erasing ------------------------------------------------------------------------------------

create function ops.values_of(value jsonb) returns setof text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select v #>> '{}' from jsonb_path_query(values_of.value, 'strict $.**') as v
    where jsonb_typeof(v) in ('string', 'number')
$$;
comment on function ops.values_of(jsonb) is 'The strings and numbers in a JSON value, without its keys.';

create function ops.is_about(
    action text, workspace_id uuid, resource text, row_id text, actor_id uuid, on_behalf_of uuid, before jsonb,
    after jsonb, user_agent text, person uuid, workspace uuid, things text[], words text[]
) returns boolean
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select
        -- The records of erasures name nobody, and tell what they emptied.
        is_about.action not like '%.erase'
        and coalesce(
            is_about.workspace_id = is_about.workspace
            or is_about.row_id = is_about.workspace::text
            or is_about.actor_id = is_about.person
            or is_about.on_behalf_of = is_about.person
            or is_about.row_id = is_about.person::text
            or (is_about.resource || ':' || is_about.row_id) = any (is_about.things)
            or (
                cardinality(is_about.words) > 0
                and exists (
                    select
                    from (
                        select * from ops.values_of(is_about.before)
                        union all
                        select * from ops.values_of(is_about.after)
                        union all
                        select is_about.user_agent
                    ) as said (value)
                    join unnest(is_about.words) as w (word) on position(w.word in lower(said.value)) > 0
                )
            ),
            false
        )
$$;
comment on function ops.is_about(
    text, uuid, text, text, uuid, uuid, jsonb, jsonb, text, uuid, uuid, text[], text[]
) is
'Whether an audit record is about a person or a workspace: by them, about them or one of the things (resource:id), or
with one of the words in a value.';

create function ops.erase_details(erasure uuid, person uuid, workspace uuid, things text[], words text[])
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    sealed bigint;
    waiting bigint;
begin
    -- A sealer at work would carry a record past us.
    perform pg_advisory_xact_lock(hashtextextended('rowhouse audit seal', 0));
    perform ops.allow('erase');
    update audit.entries e
    set before = null, after = null, ip = null, user_agent = null, salt = null, erased_by = erase_details.erasure
    where e.erased_by is null and ops.is_about(
        e.action, e.workspace_id, e.resource, e.row_id, e.actor_id, e.on_behalf_of, e.before, e.after, e.user_agent,
        erase_details.person, erase_details.workspace, erase_details.things, erase_details.words
    );
    get diagnostics sealed = row_count;
    update audit.inbox e set before = null, after = null, ip = null, user_agent = null
    where ops.is_about(
        e.action, e.workspace_id, e.resource, e.row_id, e.actor_id, e.on_behalf_of, e.before, e.after, e.user_agent,
        erase_details.person, erase_details.workspace, erase_details.things, erase_details.words
    );
    get diagnostics waiting = row_count;
    perform ops.allow(null);
    return sealed + waiting;
end
$$;
comment on function ops.erase_details(uuid, uuid, uuid, text[], text[]) is
'Empties audit records of values, addresses and user agents; what was done, when and by which id stays, and the chain
holds.';

create function ops.record_erasure(erasure uuid, action text, workspace_id uuid, row_id uuid) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    select audit.write(
        record_erasure.action, record_erasure.workspace_id, split_part(record_erasure.action, '.', 1),
        record_erasure.row_id::text, null,
        (
            select jsonb_build_object('records', e.records, 'hash', e.hash) from audit.erased() e
            where e.erasure = record_erasure.erasure
        ),
        null,
        record_erasure.erasure
    )
$$;
comment on function ops.record_erasure(uuid, text, uuid, uuid) is
'Records an erasure, and which sealed records it emptied: whoever empties others is found out.';

create function ops.erase_user(user_id uuid)
returns table (relation text, column_name text, action text, row_count bigint)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    person public.profiles;
    addresses text[];
    texts text := '';
    things text[] := '{}'::text[];
    erasure uuid := gen_random_uuid();
    place record;
    part record;
    ids uuid[];
    said text;
    tokens text[];
    affected bigint;
begin
    select p.* into person from public.profiles p where p.id = erase_user.user_id for update;
    if not found then
        perform ops.raise_http(404, 'user_not_found', 'There is nobody of that id.');
    end if;
    -- What finds them anywhere: addresses and numbers. A name is looked for where they are meant.
    addresses := array(
        select distinct lower(btrim(w.word))
        from (
            values (person.email), ((select to_jsonb(u) ->> 'phone' from auth.users u where u.id = person.id))
        ) as w (word)
        where length(btrim(w.word)) >= 5
    );
    texts := concat_ws(' ', person.email, person.display_name);

    for place in
        select
            p.relation, (select c.relname::text from pg_class c where c.oid = p.relation) as resource,
            string_agg(format('lower(btrim(%I)) = lower(btrim($1))', p.column_name), ' or ')
            || coalesce(
                (
                    select string_agg(format(' or %I = $2', r.column_name), '')
                    from tenancy.personal_columns(p.relation) r
                    where r.refers and r.column_name <> 'created_by'
                ),
                ''
            ) as condition
        from ops.erasure_plan p where p.identifies group by p.relation order by p.relation::text
    loop
        execute format('select array_agg(id order by id) from %s where %s', place.relation, place.condition)
        into ids using person.email, person.id;
        select string_agg(quote_ident(p.column_name), ', ') into said
        from ops.erasure_plan p
        join tenancy.personal_columns(place.relation) c on c.column_name = p.column_name and not c.refers
        where p.relation = place.relation and p.action = 'anonymise';
        continue when said is null;
        if ids is not null then
            things := things || array(select place.resource || ':' || i.id from unnest(ids) as i (id));
            -- Their words, and every address that they ever had there.
            execute format(
                'select coalesce(string_agg(concat_ws('' '', %s), '' ''), '''') from %s where id = any ($1)',
                said, place.relation
            ) into said using ids;
            texts := texts || ' ' || said;
            addresses := addresses || array(
                select lower(m.found[1]) from regexp_matches(said, '[^[:space:]]+@[^[:space:]]+', 'g') as m (found)
            );
        end if;
        perform ops.allow('erase');
        for part in
            select p.column_name, a.attnotnull, p.identifies
            from ops.erasure_plan p
            join pg_attribute a on a.attrelid = p.relation and a.attname = p.column_name
            join tenancy.personal_columns(place.relation) c on c.column_name = p.column_name and not c.refers
            where p.relation = place.relation and p.action = 'anonymise'
            order by p.column_name
        loop
            execute format(
                'update %1$s set %2$I = %3$s where id = any ($1) and %2$I is distinct from %3$s',
                place.relation, part.column_name,
                case
                    when not part.attnotnull then 'null'
                    when part.identifies then '''erased-'' || substr(id::text, 1, 8) || ''@erased.invalid'''
                    else quote_literal('[erased]')
                end
            ) using ids;
            get diagnostics affected = row_count;
            return query select ops.name_of(place.relation), part.column_name, 'anonymise'::text, affected;
        end loop;
        perform ops.allow(null);
    end loop;

    for part in
        select p.relation, p.column_name, p.action
        from ops.erasure_plan p
        where exists (
            select from tenancy.personal_columns(p.relation) c where c.column_name = p.column_name and c.refers
        )
        order by p.action desc, p.relation::text, p.column_name
    loop
        if part.action = 'delete' then
            perform ops.allow('purge');
            execute format('delete from %s where %I = $1', part.relation, part.column_name) using person.id;
        elsif part.action = 'anonymise' then
            perform ops.allow('erase');
            execute format('update %1$s set %2$I = null where %2$I = $1', part.relation, part.column_name)
            using person.id;
        else
            execute format('select from %s where %I = $1', part.relation, part.column_name) using person.id;
        end if;
        get diagnostics affected = row_count;
        perform ops.allow(null);
        return query select ops.name_of(part.relation), part.column_name, part.action, affected;
    end loop;

    if to_regclass('auth.audit_log_entries') is not null then
        execute 'delete from auth.audit_log_entries a where a.payload::text like $2 or exists ('
            'select from unnest($1) w where position(w in lower(a.payload::text)) > 0)'
        using addresses, '%' || person.id || '%';
    end if;
    perform ops.allow('erase');
    delete from auth.users u where u.id = person.id;
    perform ops.allow(null);
    return query select 'auth.users'::text, '*'::text, 'delete'::text, 1::bigint;

    -- What records of theirs still say, too, before it goes.
    select texts || ' ' || coalesce(string_agg(v.value, ' '), '') into texts
    from (
        select e.before, e.after from audit.entries e where (e.resource || ':' || e.row_id) = any (things)
        union all
        select i.before, i.after from audit.inbox i where (i.resource || ':' || i.row_id) = any (things)
    ) as told
    cross join lateral (
        select * from ops.values_of(told.before)
        union all
        select * from ops.values_of(told.after)
    ) as v (value);
    return query
    select
        'audit.entries'::text, 'before, after, ip, user_agent'::text, 'anonymise'::text,
        ops.erase_details(erasure, person.id, null, things, addresses);
    perform ops.record_erasure(erasure, 'users.erase', null, person.id);
    tokens := tenancy.search_words(texts);
    perform tenancy.forget_words(known.workspace_id, tokens)
    from (select distinct s.workspace_id from tenancy.search_spellings s where s.word = any (tokens)) as known;
end
$$;
comment on function ops.erase_user(uuid) is
'Erases a person by the plan in ops.erasure_plan. Returns what was done to how many rows; roll back for a rehearsal.
Answers 409 for the last owner of a workspace. For operators.';

create function ops.erase_workspace(workspace_id uuid)
returns table (relation text, column_name text, action text, row_count bigint)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    erasure uuid := gen_random_uuid();
    place record;
    counted bigint;
begin
    if not exists (select from public.workspaces w where w.id = erase_workspace.workspace_id) then
        perform ops.raise_http(404, 'workspace_not_found', 'There is no such workspace.');
    end if;
    for place in select t.relation, t.query from ops.workspace_tables() t order by t.relation::text loop
        continue when place.relation::text ~ '^(audit|ledger)\.';
        execute format('select count(*) from (%s) as rows', place.query) into counted using erase_workspace.workspace_id;
        return query select ops.name_of(place.relation), '*'::text, 'delete'::text, counted;
    end loop;
    for place in select t.relation, t.query from ops.workspace_tables() t where t.relation::text like 'ledger.%' order by 1 loop
        execute format('select count(*) from (%s) as rows', place.query) into counted using erase_workspace.workspace_id;
        return query select ops.name_of(place.relation), '*'::text, 'keep'::text, counted;
    end loop;
    delete from public.workspaces w where w.id = erase_workspace.workspace_id;
    return query
    select
        'audit.entries'::text, 'before, after, ip, user_agent'::text, 'anonymise'::text,
        ops.erase_details(erasure, null, erase_workspace.workspace_id, '{}', '{}');
    perform ops.record_erasure(erasure, 'workspaces.erase', erase_workspace.workspace_id, erase_workspace.workspace_id);
end
$$;
comment on function ops.erase_workspace(uuid) is
'Erases a workspace at once, without a grace period. The ledger keeps its figures, the audit log what was done when.
Returns what was done to how many rows; roll back for a rehearsal. For operators.';

-- The plan for what is no tenant table.
insert into ops.erasure_plan (relation, column_name, action)
values
('public.profiles', 'id', 'delete'),
('public.workspace_members', 'user_id', 'delete'),
('public.workspace_members', 'created_by', 'anonymise'),
('public.workspaces', 'created_by', 'anonymise'),
('public.workspaces', 'name', 'keep'),
('public.workspaces', 'slug', 'keep'),
('public.roles', 'created_by', 'anonymise'),
('public.roles', 'name', 'keep'),
('public.roles', 'description', 'keep'),
('ledger.accounts', 'name', 'keep'),
('ledger.transactions', 'description', 'keep');
