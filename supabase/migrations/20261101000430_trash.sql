-- Why: what is deleted goes to the trash. DELETE stamps a row and what hangs on it, and nothing new hangs on that.
-- Locks: none on existing tables.
-- Workers: need not stop.

create table tenancy.deletions (
    workspace_id uuid not null,
    deleted_at timestamptz not null,
    relation regclass not null,
    row_id uuid not null,
    deleted_by uuid,
    tables regclass[] not null default '{}',
    row_count bigint not null default 0,
    purge_after timestamptz not null,
    constraint deletions_pkey primary key (workspace_id, deleted_at),
    constraint deletions_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint deletions_were_made_by_a_person foreign key (deleted_by)
    references public.profiles (id) on delete set null
);
alter table tenancy.deletions enable row level security;
create policy deletions_nobody on tenancy.deletions using (false);
create index deletions_relation on tenancy.deletions (workspace_id, relation, row_id);
create index deletions_purge_after on tenancy.deletions (purge_after);
create index deletions_deleted_by on tenancy.deletions (deleted_by) where deleted_by is not null;
comment on table tenancy.deletions is
'What is in the trash: one row per thing deleted. All that went with it carries the same stamp.';
comment on column tenancy.deletions.workspace_id is 'The tenant.';
comment on column tenancy.deletions.deleted_at is 'The stamp, which no other deletion in the workspace has.';
comment on column tenancy.deletions.relation is 'The table of the row that was deleted.';
comment on column tenancy.deletions.row_id is 'That row.';
comment on column tenancy.deletions.deleted_by is 'Who deleted it.';
comment on column tenancy.deletions.tables is 'The tables in which rows carry the stamp, parents first.';
comment on column tenancy.deletions.row_count is 'How many rows carry it.';
comment on column tenancy.deletions.purge_after is 'Until when it can be restored.';

-- References ---------------------------------------------------------------------------------

-- What the catalogue says, kept where every delete can look it up by a key.
create table tenancy.child_references (
    parent regclass not null,
    child regclass not null,
    reference text not null,
    on_delete text not null,
    constraint child_references_pkey primary key (parent, child, reference)
);
alter table tenancy.child_references enable row level security;
create policy child_references_nobody on tenancy.child_references using (false);
create index child_references_child on tenancy.child_references (child);
comment on table tenancy.child_references is 'The columns of tenant tables that refer to rows of others.';
comment on column tenancy.child_references.parent is 'The table referred to.';
comment on column tenancy.child_references.child is 'The table that refers.';
comment on column tenancy.child_references.reference is 'The column that holds the id.';
comment on column tenancy.child_references.on_delete is 'What a delete does there, as in pg_constraint.';

create function tenancy.references_of(relation regclass)
returns table (parent regclass, child regclass, reference text, on_delete text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select k.confrelid::regclass, k.conrelid::regclass, a.attname::text, k.confdeltype::text
    from pg_constraint k
    cross join unnest(k.conkey, k.confkey) as pair (here, there)
    join pg_attribute a on a.attrelid = k.conrelid and a.attnum = pair.here
    join pg_attribute b on b.attrelid = k.confrelid and b.attnum = pair.there
    where
        k.contype = 'f' and k.conrelid = references_of.relation and b.attname = 'id'
        and k.confrelid not in ('public.workspaces'::regclass, 'public.profiles'::regclass, 'public.roles'::regclass)
$$;
comment on function tenancy.references_of(regclass) is 'What the catalogue says of a table''s references.';

create function tenancy.children(relation regclass)
returns table (child regclass, reference text, on_delete text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select r.child, r.reference, r.on_delete from tenancy.child_references r
    where r.parent = children.relation
    order by r.child, r.reference;
end
$$;
comment on function tenancy.children(regclass) is
'The columns of tenant tables that refer to rows of this one, and what a delete does there (as in pg_constraint).';

create function tenancy.parents(relation regclass)
returns table (parent regclass, reference text, on_delete text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select r.parent, r.reference, r.on_delete
    from tenancy.references_of(parents.relation) r
    join pg_attribute trash on trash.attrelid = r.parent and trash.attname = 'deleted_at' and not trash.attisdropped
    order by r.reference, r.parent
$$;
comment on function tenancy.parents(regclass) is
'The columns of this table that refer to rows which can be in the trash.';

create function tenancy.parent_arguments(relation regclass) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(string_agg(
        format('%L, %L, %L', p.reference, p.parent::text, p.on_delete), ', ' order by p.reference, p.parent
    ), '')
    from tenancy.parents(parent_arguments.relation) p
$$;
comment on function tenancy.parent_arguments(regclass) is 'tenancy.parents() as the arguments of a trigger.';

create function tenancy.refuse_deleted_parent(parent text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    -- In the words of a row that never was.
    raise exception 'the row of % that it refers to does not exist', refuse_deleted_parent.parent
        using errcode = 'foreign_key_violation', hint = 'If it was deleted, restore it first.';
end
$$;
comment on function tenancy.refuse_deleted_parent(text) is 'Refuses a reference to what is in the trash.';

create function tenancy.require_live_parents() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    is_dead boolean;
begin
    -- After the checks of the foreign keys, which wait for whoever deletes the parent right now.
    for i in 0 .. tg_nargs / 3 - 1 loop
        execute format(
            'select exists (select from new_rows n join %s p on p.workspace_id = n.workspace_id and p.id = n.%I '
            'where p.deleted_at is not null and n.deleted_at is null)',
            tg_argv[3 * i + 1], tg_argv[3 * i]
        ) into is_dead;
        if is_dead then
            perform tenancy.refuse_deleted_parent(tg_argv[3 * i + 1]);
        end if;
    end loop;
    return null;
end
$$;
comment on function tenancy.require_live_parents() is 'Statement trigger: no new row refers to one in the trash.';

create function tenancy.require_live_parents_of_row() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    is_live boolean;
    this jsonb := to_jsonb(new);
    was jsonb := to_jsonb(old);
begin
    for i in 0 .. tg_nargs / 3 - 1 loop
        continue when this ->> tg_argv[3 * i] is null
            -- What would only be cleared may stay behind, when its parent goes, and may come back so.
            or (tg_argv[3 * i + 2] in ('n', 'd') and this -> tg_argv[3 * i] = was -> tg_argv[3 * i])
            or (old.deleted_at is null and this -> tg_argv[3 * i] = was -> tg_argv[3 * i]);
        -- Held like the check of a foreign key holds it: whoever deletes it now waits, or is waited for.
        execute format(
            'select true from %s p where p.workspace_id = $1 and p.id = $2 and p.deleted_at is null for key share',
            tg_argv[3 * i + 1]
        ) into is_live using new.workspace_id, (this ->> tg_argv[3 * i])::uuid;
        if is_live is null then
            perform tenancy.refuse_deleted_parent(tg_argv[3 * i + 1]);
        end if;
    end loop;
    return null;
end
$$;
comment on function tenancy.require_live_parents_of_row() is
'Trigger: no row comes to refer to one in the trash, or comes back to one.';

-- Deleting -----------------------------------------------------------------------------------

create function tenancy.stamp(relation regclass, workspace_id uuid, id uuid, deleted_at timestamptz) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    places regclass[] := array[stamp.relation];
    place_ids jsonb := jsonb_build_array(jsonb_build_array(stamp.id));
    at_place integer := 1;
    stamped bigint;
    total bigint := 0::bigint;
    ids uuid[];
    reference record;
    found_ids uuid[];
begin
    -- Generation by generation, parents before children.
    while at_place <= cardinality(places) loop
        select array_agg(i.id::uuid) into ids from jsonb_array_elements_text(place_ids -> (at_place - 1)) as i (id);
        -- FOR UPDATE waits for whoever is adding children: the check of their foreign key holds the parent.
        execute format(
            'select count(*) from '
            '(select from %s where workspace_id = $1 and id = any ($2) order by id for update) as held',
            places[at_place]
        ) using stamp.workspace_id, ids;
        execute format(
            'update %s set deleted_at = $3 where workspace_id = $1 and id = any ($2) and deleted_at is null',
            places[at_place]
        ) using stamp.workspace_id, ids, stamp.deleted_at;
        get diagnostics stamped = row_count;
        total := total + stamped;
        for reference in select c.* from tenancy.children(places[at_place]) c where c.on_delete = 'c' loop
            execute format(
                'select array_agg(id order by id) from %s '
                'where workspace_id = $1 and %I = any ($2) and deleted_at is null',
                reference.child, reference.reference
            ) into found_ids using stamp.workspace_id, ids;
            continue when found_ids is null;
            places := places || reference.child;
            place_ids := place_ids || jsonb_build_array(to_jsonb(found_ids));
        end loop;
        at_place := at_place + 1;
    end loop;
    -- Only now, as what went along no longer stands in the way.
    for reference in
        select c.*, p.place from (select distinct u.place from unnest(places) as u (place)) as p
        cross join lateral tenancy.children(p.place) c
        where c.on_delete in ('a', 'r')
    loop
        execute format(
            'select array_agg(c.id) from %s c join %s p on p.workspace_id = c.workspace_id and p.id = c.%I '
            'where p.workspace_id = $1 and p.deleted_at = $2 and c.deleted_at is null',
            reference.child, reference.place, reference.reference
        ) into found_ids using stamp.workspace_id, stamp.deleted_at;
        if found_ids is not null then
            raise exception '% % still refer to it', cardinality(found_ids),
                (select c.relname from pg_class c where c.oid = reference.child)
                using errcode = 'foreign_key_violation', hint = 'Delete them first, or keep it.',
                table = reference.child::text;
        end if;
    end loop;
    update tenancy.deletions d
    set
        row_count = total,
        tables = array(select u.place from unnest(places) with ordinality as u (place, nth) group by 1 order by min(u.nth))
    where d.workspace_id = stamp.workspace_id and d.deleted_at = stamp.deleted_at;
    return total;
end
$$;
comment on function tenancy.stamp(regclass, uuid, uuid, timestamptz) is
'Takes a row to the trash, and what cascades from it; refuses (23503) while rows that restrict it are live.';

create function tenancy.lock_rows(workspace_id uuid) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select pg_advisory_xact_lock(hashtextextended(lock_rows.workspace_id::text, 1930)) $$;
comment on function tenancy.lock_rows(uuid) is
'What changes many rows of a workspace in several tables (a cascade, a restore, the end of a membership) goes one after
the other.';

create function tenancy.delete_row(relation regclass, workspace_id uuid, id uuid) returns timestamptz
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    stamp timestamptz;
    has_children boolean := exists (
        select from tenancy.children(delete_row.relation) c where c.on_delete in ('a', 'r', 'c')
    );
begin
    if has_children then
        -- Whoever removes a member clears references in an order of its own: the two would deadlock.
        perform tenancy.lock_rows(delete_row.workspace_id);
    end if;
    if has_children and current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'what others can refer to can only be deleted in a read committed transaction'
            using errcode = 'active_sql_transaction',
            hint = 'Rows that came to refer to it since the transaction began would be missed.';
    end if;
    loop
        -- Its own in the workspace: it is what restore() knows the set by.
        select greatest(max(d.deleted_at) + interval '1 microsecond', ops.now()) into stamp
        from tenancy.deletions d
        where d.workspace_id = delete_row.workspace_id and d.deleted_at >= ops.now();
        stamp := coalesce(stamp, ops.now());
        insert into tenancy.deletions (workspace_id, deleted_at, relation, row_id, deleted_by, purge_after)
        select
            delete_row.workspace_id, stamp, delete_row.relation, delete_row.id,
            (select p.id from public.profiles p where p.id = authz.user_id()),
            ops.now() + tenancy.grace_period()
        on conflict do nothing;
        exit when found;
    end loop;
    perform ops.allow('delete');
    perform tenancy.stamp(delete_row.relation, delete_row.workspace_id, delete_row.id, stamp);
    perform ops.allow(null);
    return stamp;
end
$$;
comment on function tenancy.delete_row(regclass, uuid, uuid) is
'Takes a row of a tenant table to the trash, with what cascades from it. Returns the stamp.';

create function tenancy.is_orphan(relation regclass, this jsonb) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    reference record;
    is_gone boolean;
begin
    for reference in
        select
            k.confrelid::regclass as parent,
            string_agg(format('p.%I = %L', b.attname, is_orphan.this ->> a.attname), ' and ') as condition
        from pg_constraint k
        cross join unnest(k.conkey, k.confkey) as pair (here, there)
        join pg_attribute a on a.attrelid = k.conrelid and a.attnum = pair.here
        join pg_attribute b on b.attrelid = k.confrelid and b.attnum = pair.there
        where k.contype = 'f' and k.conrelid = is_orphan.relation and k.confdeltype = 'c'
        group by k.oid, k.confrelid
        having bool_and(is_orphan.this ->> a.attname is not null)
    loop
        execute format('select not exists (select from %s p where %s)', reference.parent, reference.condition) into is_gone;
        if is_gone then
            return true;
        end if;
    end loop;
    return false;
end
$$;
comment on function tenancy.is_orphan(regclass, jsonb) is
'Whether a row''s parent is gone for good, so that it must go too.';

create function tenancy.soft_delete() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if ops.is_allowed('purge') then
        return old;
    end if;
    -- A cascade comes from within the delete of the parent. If that is really gone, so must this be: the workspace,
    -- which is cheap to ask for, or another.
    if pg_trigger_depth() > 1 then
        perform from public.workspaces w where w.id = old.workspace_id;
        if not found or tenancy.is_orphan(tg_relid::regclass, to_jsonb(old)) then
            return old;
        end if;
    end if;
    if old.deleted_at is null then
        perform tenancy.delete_row(tg_relid::regclass, old.workspace_id, old.id);
    end if;
    return null;
end
$$;
comment on function tenancy.soft_delete() is
'Trigger: DELETE takes a row to the trash instead. Only a purge, and the end of its parent, really delete.';

create function tenancy.refuse_deleted() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if not ops.is_allowed('import') then
        raise exception 'a row of % cannot be inserted into the trash', tg_table_name
            using errcode = 'insufficient_privilege', hint = 'Insert it, then DELETE it.';
    end if;
    return new;
end
$$;
comment on function tenancy.refuse_deleted() is 'Trigger: nothing is inserted into the trash, but by an import.';
