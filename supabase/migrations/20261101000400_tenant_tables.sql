-- Why: the kit that makes a table a tenant table. An adopter's table is checked against the rules
--      of the house and then gets what every tenant table has.
-- Locks: none on existing tables. Adopting a table later locks that table for a moment.
-- Workers: need not stop.

create schema tenancy;
comment on schema tenancy is 'What makes a table a tenant table, and the life of workspaces and memberships.';

create table tenancy.tenant_tables (
    relation regclass not null,
    resource text not null,
    adopted_at timestamptz not null default ops.now(),
    constraint tenant_tables_pkey primary key (relation)
);
alter table tenancy.tenant_tables enable row level security;
create policy tenant_tables_nobody on tenancy.tenant_tables using (false);
comment on table tenancy.tenant_tables is 'The tables under the roof.';
comment on column tenancy.tenant_tables.relation is 'The table.';
comment on column tenancy.tenant_tables.resource is 'What its permissions are called: resource.read and so on.';
comment on column tenancy.tenant_tables.adopted_at is 'When it was adopted.';

create table tenancy.other_tables (
    relation regclass not null,
    reason text not null,
    constraint other_tables_pkey primary key (relation)
);
alter table tenancy.other_tables enable row level security;
create policy other_tables_nobody on tenancy.other_tables using (false);
comment on table tenancy.other_tables is 'Tables in public that are not tenant tables, each with its reason.';
comment on column tenancy.other_tables.relation is 'The table.';
comment on column tenancy.other_tables.reason is 'Why it is none.';

insert into tenancy.other_tables (relation, reason)
values
('public.profiles', 'One row per person, in whatever workspaces they are.'),
('public.workspaces', 'The tenants themselves.'),
('public.permissions', 'The registry, the same for all.'),
('public.roles', 'System roles belong to no workspace.'),
('public.role_permissions', 'Follows roles.'),
('public.workspace_members', 'Decides access, so it cannot ask for it; its key is (workspace_id, user_id).');

create function tenancy.guard_update() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    -- RLS cannot compare old with new: without this, a member of two workspaces could carry a
    -- row from one into the other.
    if new.workspace_id is distinct from old.workspace_id or new.id is distinct from old.id then
        raise exception 'a row of % cannot change its workspace_id or id', tg_table_name
            using errcode = 'insufficient_privilege', hint = 'Insert it anew where it belongs.';
    end if;
    new.updated_at := ops.now();
    return new;
end
$$;
comment on function tenancy.guard_update() is 'Trigger: keeps a row in its tenant, and stamps updated_at.';

-- Every tenant column that a foreign key or a unique constraint carries must be first in mind:
-- a foreign key check ignores RLS, and a unique constraint answers for rows nobody may see.
create function tenancy.findings(relation regclass) returns table (code text, finding text, hint text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with this as (
        select
            c.oid,
            c.relname,
            c.relkind,
            c.relrowsecurity,
            (
                select a.attnum from pg_attribute a
                where a.attrelid = c.oid and a.attname = 'workspace_id' and not a.attisdropped
            ) as tenant
        from pg_class c
        where c.oid = findings.relation
    ),
    keys as (
        select k.*, this.tenant from pg_constraint k join this on k.conrelid = this.oid where k.contype in ('p', 'f')
    ),
    columns_wanted (name, type) as (
        values
        ('workspace_id', 'uuid'), ('id', 'uuid'), ('created_at', 'timestamp with time zone'),
        ('updated_at', 'timestamp with time zone'), ('created_by', 'uuid')
    )
    select
        'column_missing',
        format('%s has no column %s of type %s', findings.relation, wanted.name, wanted.type),
        'rowhouse new table writes a table with every column it needs.'
    from columns_wanted wanted, this
    where not exists (
        select from pg_attribute a
        where
            a.attrelid = this.oid
            and a.attname = wanted.name
            and format_type(a.atttypid, null) = wanted.type
            and not a.attisdropped
    )
    union all
    select
        'not_row_secured',
        format('row level security is off on %s', findings.relation),
        format('alter table %s enable row level security;', findings.relation)
    from this where not this.relrowsecurity
    union all
    select
        'key_without_tenant',
        format('the primary key of %s is not (workspace_id, id)', findings.relation),
        'One index then serves the key, the tenant and every foreign key, and a chosen id probes nobody.'
    from this
    where not exists (
        select from keys k
        where k.contype = 'p' and (
            select array_agg(a.attname::text order by u.place)
            from unnest(k.conkey) with ordinality as u (attnum, place)
            join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.attnum
        ) = '{workspace_id,id}'
    )
    union all
    select
        'tenant_not_referenced',
        format('workspace_id of %s does not reference public.workspaces with on delete cascade', findings.relation),
        'A purged workspace must take its rows along.'
    from this
    where not exists (
        select from keys k
        where
            k.contype = 'f' and k.confrelid = 'public.workspaces'::regclass
            and k.conkey = array[this.tenant] and k.confdeltype = 'c'
    )
    union all
    select
        'reference_crosses_tenants',
        format('%s of %s references %s without the tenant', k.conname, findings.relation, k.confrelid::regclass),
        'Reference (workspace_id, id): the check of a foreign key ignores RLS.'
    from keys k
    where
        k.contype = 'f'
        and k.confrelid in (
            select t.relation from tenancy.tenant_tables t
            union all
            values ('public.workspace_members'::regclass)
            union all
            select findings.relation
        )
        and not exists (
            select from unnest(k.conkey, k.confkey) as pair (here, there)
            join pg_attribute a on a.attrelid = k.confrelid and a.attnum = pair.there
            where pair.here = k.tenant and a.attname = 'workspace_id'
        )
    union all
    select
        'unique_across_tenants',
        format('the unique index %s does not contain workspace_id', i.indexrelid::regclass),
        'Put workspace_id first, or the constraint tells one tenant what another has.'
    from pg_index i
    join this on i.indrelid = this.oid
    where
        i.indisunique
        and (i.indkey::smallint[])[0:i.indnkeyatts - 1] @> array[this.tenant] is not true
    union all
    select
        'reference_without_index',
        format('no index of %s begins with the columns of %s', findings.relation, k.conname),
        'Without one, a delete on the other side reads the whole table.'
    from keys k
    where
        k.contype = 'f'
        and not exists (
            select from pg_index i
            where
                i.indrelid = k.conrelid
                and i.indpred is null
                and (i.indkey::smallint[])[0:cardinality(k.conkey) - 1] @> k.conkey
        )
        -- Null for most rows of most deletes: an index on the rest is enough.
        and not exists (
            select from pg_index i
            where
                i.indrelid = k.conrelid
                and cardinality(k.conkey) = 1
                and i.indkey[0] = k.conkey[1]
                and i.indpred is not null
        )
    union all
    select
        'tenant_not_locked',
        format('%s lacks the trigger that keeps a row in its tenant', findings.relation),
        'tenancy.adopt_table() attaches it.'
    from this
    where
        exists (select from tenancy.tenant_tables t where t.relation = findings.relation)
        and not exists (
            select from pg_trigger t
            where
                t.tgrelid = this.oid
                and t.tgfoid = 'tenancy.guard_update()'::regprocedure
                and t.tgtype = 19 -- before each row's update
                and t.tgenabled in ('O', 'A')
                and t.tgqual is null
                and t.tgattr = ''
        )
    union all
    select
        'not_counted',
        format('%s is under a plan limit but lacks its counting triggers', findings.relation),
        'billing.limit_rows() attaches them.'
    from this
    where exists (
        select from billing.resources r
        -- After each statement's insert, and delete.
        cross join (values ('billing.count_inserted()', 4), ('billing.count_deleted()', 8)) as wanted (called, type)
        where
            r.relation = findings.relation
            and not exists (
                select from pg_trigger t
                where
                    t.tgrelid = this.oid
                    and t.tgfoid = wanted.called::regprocedure
                    and t.tgtype = wanted.type
                    and t.tgargs = convert_to(r.resource, 'UTF8') || '\000'::bytea
                    and t.tgenabled in ('O', 'A')
                    and t.tgqual is null
            )
    )
    union all
    select
        'exclusion_constraint', format('%s is an exclusion constraint', i.indexrelid::regclass),
        'It tells one tenant what another has. Check it in a function that asks for the tenant first.'
    from pg_index i join this on i.indrelid = this.oid
    where i.indisexclusion
    union all
    select
        'reference_clears_tenant', format('%s of %s would clear workspace_id', k.conname, findings.relation),
        'Name the one column to clear: on delete set null (other_id).'
    from keys k
    where
        k.contype = 'f'
        and k.confdeltype in ('n', 'd')
        and k.tenant = any (coalesce(k.confdelsetcols, k.conkey))
$$;
comment on function tenancy.findings(regclass) is
'What keeps a table from being a sound tenant table; no rows when nothing does.';

create function tenancy.adopt_table(relation regclass, resource text, limits jsonb default null) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    table_name text := (select c.relname::text from pg_class c where c.oid = adopt_table.relation);
    found_amiss record;
begin
    if not exists (select from public.permissions p where p.permission = adopt_table.resource || '.read') then
        raise exception 'there is no permission %.read', adopt_table.resource
            using errcode = 'invalid_parameter_value',
            hint = format('select authz.register_resource(%L, ''…'') first.', adopt_table.resource);
    end if;
    select * into found_amiss from tenancy.findings(adopt_table.relation) limit 1;
    if found then
        raise exception '%', found_amiss.finding using errcode = 'invalid_table_definition', hint = found_amiss.hint;
    end if;
    execute format(
        'create trigger %I before update on %s for each row execute function tenancy.guard_update()',
        table_name || '_guard_update', adopt_table.relation
    );
    insert into tenancy.tenant_tables (relation, resource) values (adopt_table.relation, adopt_table.resource);
    if adopt_table.limits is not null then
        perform billing.limit_rows(adopt_table.relation, adopt_table.resource, adopt_table.limits);
    end if;
end
$$;
comment on function tenancy.adopt_table(regclass, text, jsonb) is
'Makes a table a tenant table: checks it, locks its rows to their tenants, counts them under plan limits if
given ({"plan": max or null}), and enters it in the registry. For migrations.';

create function tenancy.release_table(relation regclass) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform billing.release_rows(release_table.relation);
    execute format(
        'drop trigger if exists %I on %s',
        (select c.relname from pg_class c where c.oid = release_table.relation) || '_guard_update',
        release_table.relation
    );
    delete from tenancy.tenant_tables t where t.relation = release_table.relation;
end
$$;
comment on function tenancy.release_table(regclass) is
'Undoes adopt_table(). For rollbacks, before the table is dropped.';
