-- Why: a person or a workspace can be erased, by a plan that is data; the chain and the books hold.
-- Locks: none on existing tables.
-- Workers: need not stop.

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
    return query
    select 'notify.messages'::text, '*'::text, 'delete'::text, notify.forget_person(person.id, addresses, person.display_name);
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
