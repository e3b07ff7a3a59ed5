-- Why: restore() brings back exactly what a delete took; ops.purge() removes for good what nobody asked for in time.
-- Locks: none on existing tables.
-- Workers: need not stop.

create function tenancy.table_named(kind text) returns regclass
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    relation regclass;
begin
    select t.relation into relation
    from tenancy.tenant_tables t
    join pg_class c on c.oid = t.relation
    where c.relname = table_named.kind;
    if not found then
        perform ops.raise_http(
            400, 'kind_unknown', format('There are no %L.', left(table_named.kind, 64)), null,
            (
                select 'Kinds: ' || string_agg(c.relname, ', ' order by c.relname) || '.'
                from tenancy.tenant_tables t join pg_class c on c.oid = t.relation
            )
        );
    end if;
    return relation;
end
$$;
comment on function tenancy.table_named(text) is 'The tenant table of that name; answers 400 if there is none.';

create function tenancy.restore_row(workspace_id uuid, relation regclass, id uuid) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    stamp timestamptz;
    deletion tenancy.deletions;
    place regclass;
    restored bigint;
    total bigint := 0::bigint;
    violated text;
begin
    perform tenancy.lock_rows(restore_row.workspace_id);
    execute format('select deleted_at from %s where workspace_id = $1 and id = $2 for update', restore_row.relation)
    into stamp using restore_row.workspace_id, restore_row.id;
    select d.* into deletion from tenancy.deletions d
    where d.workspace_id = restore_row.workspace_id and d.deleted_at = stamp
    for update;
    -- From then on the purge may have taken a part of it.
    if stamp is null or not found or deletion.purge_after <= ops.now() then
        perform ops.raise_http(
            404, 'not_in_trash', 'This is not in the trash.', null, 'The view trash lists what can be restored.'
        );
    end if;
    if (deletion.relation, deletion.row_id) <> (restore_row.relation, restore_row.id) then
        perform ops.raise_http(
            409, 'deleted_with_parent', 'This was deleted along with something else.',
            jsonb_build_object('kind', (select c.relname from pg_class c where c.oid = deletion.relation), 'id', deletion.row_id),
            'Restore that, and this comes back with it.'
        );
    end if;
    perform ops.allow('delete');
    begin
        foreach place in array deletion.tables loop
            execute format('update %s set deleted_at = null where workspace_id = $1 and deleted_at = $2', place)
            using restore_row.workspace_id, stamp;
            get diagnostics restored = row_count;
            total := total + restored;
        end loop;
    exception
        when unique_violation then
            get stacked diagnostics violated = constraint_name;
            perform ops.raise_http(
                409, 'restore_conflict', 'Something else has taken its place meanwhile.',
                jsonb_build_object('constraint', violated), 'Rename or delete that first.'
            );
        when foreign_key_violation then
            perform ops.raise_http(
                409, 'restore_conflict', 'What it belongs to is in the trash itself.', null, 'Restore that first.'
            );
    end;
    perform ops.allow(null);
    delete from tenancy.deletions d where d.workspace_id = deletion.workspace_id and d.deleted_at = deletion.deleted_at;
    return total;
end
$$;
comment on function tenancy.restore_row(uuid, regclass, uuid) is
'Brings back a row and what went with it. Returns how many rows; answers 404 or 409, and then nothing has
changed. For operators.';

create function tenancy.restore(workspace_id uuid, kind text, id uuid) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    caller uuid := authz.refuse_unless_signed_in();
    place regclass := tenancy.table_named(restore.kind);
    sees_all boolean := restore.workspace_id in (select authz.workspaces_with('trash.manage'));
begin
    perform authz.require(
        restore.workspace_id,
        (select t.resource from tenancy.tenant_tables t where t.relation = place) || '.delete'
    );
    if not sees_all and not exists (
        select from tenancy.deletions d
        where
            d.workspace_id = restore.workspace_id and d.relation = place and d.row_id = restore.id
            and d.deleted_by = caller
    ) then
        perform ops.raise_http(
            404, 'not_in_trash', 'This is not in the trash.', null, 'The view trash lists what can be restored.'
        );
    end if;
    return tenancy.restore_row(restore.workspace_id, place, restore.id);
end
$$;
comment on function tenancy.restore(uuid, text, uuid) is 'Behind public.restore().';

create type tenancy.trashed as (
    workspace_id uuid, kind text, id uuid, title text, deleted_at timestamptz, deleted_by uuid, row_count bigint,
    purge_after timestamptz
);
comment on type tenancy.trashed is 'Something in the trash.';

create function tenancy.trash() returns setof tenancy.trashed
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    all_of uuid[] := array(select authz.workspaces_with('trash.manage'));
    place record;
begin
    for place in
        select t.relation, t.resource, c.relname, t.title
        from tenancy.tenant_tables t join pg_class c on c.oid = t.relation
        order by c.relname
    loop
        return query execute format(
            'select d.workspace_id, %L::text, d.row_id, (%s)::text, d.deleted_at, d.deleted_by, d.row_count, d.purge_after '
            'from tenancy.deletions d join %s r on r.workspace_id = d.workspace_id and r.id = d.row_id '
            'where d.relation = $1 and d.workspace_id = any ($2) and (d.workspace_id = any ($3) or d.deleted_by = $4) '
            'and d.purge_after > ops.now()',
            place.relname, case when place.title is null then 'null' else format('r.%I', place.title) end, place.relation
        ) using
            place.relation, array(select authz.workspaces_with(place.resource || '.delete')), all_of, authz.user_id();
    end loop;
end
$$;
comment on function tenancy.trash() is 'Behind public.trash.';

create view public.trash with (security_invoker = true) as
select
    t.workspace_id,
    t.kind,
    t.id,
    t.title,
    t.deleted_at,
    t.deleted_by,
    t.row_count,
    t.purge_after
from tenancy.trash() as t;
comment on view public.trash is
'What the caller can restore: what they deleted themselves, and with the permission trash.manage all there is.';
comment on column public.trash.workspace_id is 'The tenant.';
comment on column public.trash.kind is 'What it is: the name of its table.';
comment on column public.trash.id is 'The row.';
comment on column public.trash.title is 'What it is called, if its table says which column tells.';
comment on column public.trash.deleted_at is 'When it was deleted.';
comment on column public.trash.deleted_by is 'By whom.';
comment on column public.trash.row_count is 'How many rows come back with it, itself included.';
comment on column public.trash.purge_after is 'Until when it can be restored.';

create trigger trash_is_read_only instead of insert or update or delete on public.trash
for each row execute function ops.refuse_change();

create function public.restore(workspace_id uuid, kind text, id uuid) returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$ select tenancy.restore($1, $2, $3) $$;
comment on function public.restore(uuid, text, uuid) is
'Brings back what is in the trash, and what went with it. Returns how many rows.';

-- Purging ------------------------------------------------------------------------------------

create function ops.purge(at_most integer default 1000) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    place record;
    reference record;
    conditions text;
    purged bigint;
    total bigint := 0::bigint;
begin
    perform ops.allow('purge');
    -- Children before parents: the longest way down from a table is its turn.
    for place in
        with recursive ways (relation, depth) as (
            select t.relation, 0 from tenancy.tenant_tables t
            union
            select c.child, w.depth + 1 from ways w cross join lateral tenancy.children(w.relation) c
            where c.child <> w.relation and w.depth < 20
        )
        select w.relation, max(w.depth) as depth from ways w group by 1 order by 2 desc, 1
    loop
        conditions := '';
        for reference in select c.* from tenancy.children(place.relation) c where c.on_delete in ('a', 'r') loop
            conditions := conditions || format(
                ' and not exists (select from %s c where c.workspace_id = r.workspace_id and c.%I = r.id)',
                reference.child, reference.reference
            );
        end loop;
        execute format(
            'delete from %1$s where (workspace_id, id) in (select r.workspace_id, r.id from %1$s r '
            'where r.deleted_at <= ops.now() - tenancy.grace_period()%2$s limit $1 for update skip locked)',
            place.relation, conditions
        ) using purge.at_most - total;
        get diagnostics purged = row_count;
        total := total + purged;
        exit when total >= purge.at_most;
    end loop;
    perform ops.allow(null);
    delete from tenancy.deletions d where d.purge_after <= ops.now() and total < purge.at_most;
    return total;
end
$$;
comment on function ops.purge(integer) is
'Removes for good what has been in the trash for longer than the grace period: at most so many rows, children first.
Returns how many. The ledger and the audit log hang on none of it. Run often.';
