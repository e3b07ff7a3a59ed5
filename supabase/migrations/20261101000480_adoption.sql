-- Why: one call makes a table a tenant table: it is checked against the rules of the house, and gets what every
--      tenant table has: a lock on its tenant, plan limits, audit, trash, search and an erasure plan.
-- Locks: none on existing tables. Adopting a table later locks that table for a moment.
-- Workers: need not stop.

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
        ('updated_at', 'timestamp with time zone'), ('created_by', 'uuid'),
        ('deleted_at', 'timestamp with time zone')
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
        -- After each statement's insert, and delete; after each row's update.
        cross join (
            values ('billing.count_inserted()', 4), ('billing.count_deleted()', 8), ('billing.count_trash()', 17)
        ) as wanted (called, type)
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
                    and (t.tgqual is null or wanted.type = 17)
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
    union all
    select
        'not_soft_deleted',
        format('%s lacks the trigger that takes deleted rows to the trash', findings.relation),
        'tenancy.adopt_table() attaches it.'
    from this
    where
        exists (select from tenancy.tenant_tables t where t.relation = findings.relation)
        and not exists (
            select from pg_trigger t
            where
                t.tgrelid = this.oid
                and t.tgfoid = 'tenancy.soft_delete()'::regprocedure
                and t.tgtype = 11 -- before each row's delete
                and t.tgenabled in ('O', 'A')
                and t.tgqual is null
        )
    union all
    select
        'parents_not_watched',
        format('%s can refer to a row in the trash', findings.relation),
        format('select tenancy.refresh_table(%L);', findings.relation)
    from this
    where
        exists (select from tenancy.tenant_tables t where t.relation = findings.relation)
        and tenancy.parent_arguments(findings.relation) <> ''
        and (
            select count(*) from pg_trigger t
            where
                t.tgrelid = this.oid
                and (t.tgfoid, t.tgtype) in (
                    ('tenancy.require_live_parents()'::regprocedure, 4),
                    ('tenancy.require_live_parents_of_row()'::regprocedure, 17)
                )
                and position(format('(%s)', tenancy.parent_arguments(findings.relation)) in pg_get_triggerdef(t.oid)) > 0
                and t.tgenabled in ('O', 'A')
        ) < 2
    union all
    select
        'references_not_known', format('%s has references that a delete would not know of', findings.relation),
        format('select tenancy.refresh_table(%L);', findings.relation)
    from this
    where
        exists (select from tenancy.tenant_tables t where t.relation = findings.relation)
        and (
            exists (
                select r.parent, r.child, r.reference, r.on_delete from tenancy.references_of(findings.relation) r
                except
                select k.parent, k.child, k.reference, k.on_delete from tenancy.child_references k
                where k.child = findings.relation
            )
            or exists (
                select k.parent, k.child, k.reference, k.on_delete from tenancy.child_references k
                where k.child = findings.relation
                except
                select r.parent, r.child, r.reference, r.on_delete from tenancy.references_of(findings.relation) r
            )
        )
    union all
    select
        'self_reference_cascades', format('%s of %s cascades within the table', k.conname, findings.relation),
        'One statement may delete parent and child: use on delete restrict, or set null (other_id).'
    from keys k
    where k.contype = 'f' and k.confrelid = findings.relation and k.confdeltype = 'c'
    union all
    select w.code, w.finding, w.hint
    from this, audit.watch_findings(findings.relation) w
    where exists (select from tenancy.tenant_tables t where t.relation = findings.relation)
    union all
    select e.code, e.finding, e.hint
    from this, tenancy.erasure_findings(findings.relation) e
    where exists (select from tenancy.tenant_tables t where t.relation = findings.relation)
$$;
comment on function tenancy.findings(regclass) is
'What keeps a table from being a sound tenant table; no rows when nothing does.';

create function tenancy.attach(relation regclass) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    table_name text := (select c.relname::text from pg_class c where c.oid = attach.relation);
    adopted tenancy.tenant_tables;
    arguments text := tenancy.parent_arguments(attach.relation);
    watched text;
begin
    select t.* into strict adopted from tenancy.tenant_tables t where t.relation = attach.relation;
    delete from tenancy.child_references r where r.child = attach.relation;
    insert into tenancy.child_references (parent, child, reference, on_delete)
    select r.parent, r.child, r.reference, r.on_delete from tenancy.references_of(attach.relation) r;
    execute format(
        'create or replace trigger %I before update on %s for each row execute function tenancy.guard_update()',
        table_name || '_guard_update', attach.relation
    );
    execute format(
        'create or replace trigger %I before delete on %s for each row execute function tenancy.soft_delete()',
        table_name || '_soft_delete', attach.relation
    );
    execute format(
        'create or replace trigger %I before insert on %s for each row when (new.deleted_at is not null) '
        'execute function tenancy.refuse_deleted()',
        table_name || '_refuse_deleted', attach.relation
    );
    execute format(
        'create or replace trigger %I before truncate on %s for each statement execute function ops.refuse_change()',
        table_name || '_is_not_truncated', attach.relation
    );
    execute format('drop trigger if exists %I on %s', table_name || '_live_parents_inserted', attach.relation);
    execute format('drop trigger if exists %I on %s', table_name || '_live_parents_updated', attach.relation);
    if arguments <> '' then
        execute format(
            'create trigger %I after insert on %s referencing new table as new_rows for each statement '
            'execute function tenancy.require_live_parents(%s)',
            table_name || '_live_parents_inserted', attach.relation, arguments
        );
        execute format(
            'create trigger %I after update of deleted_at, %s on %s for each row when (new.deleted_at is null) '
            'execute function tenancy.require_live_parents_of_row(%s)',
            table_name || '_live_parents_updated',
            (
                select string_agg(distinct quote_ident(p.reference), ', ') from tenancy.parents(attach.relation) p
            ),
            attach.relation, arguments
        );
    end if;
    execute format('drop trigger if exists %I on %s', table_name || '_search_changed', attach.relation);
    execute format('drop trigger if exists %I on %s', table_name || '_search_updated', attach.relation);
    if adopted.searchable <> '{}' then
        select string_agg(format('old.%1$I is distinct from new.%1$I', s.name), ' or ') into watched
        from unnest(adopted.searchable || 'deleted_at'::text) as s (name);
        execute format(
            'create trigger %I after insert or delete on %s for each row execute function tenancy.index_row(%s)',
            table_name || '_search_changed', attach.relation,
            (select string_agg(quote_literal(s.name), ', ') from unnest(adopted.searchable) as s (name))
        );
        execute format(
            'create trigger %I after update on %s for each row when (%s) execute function tenancy.index_row(%s)',
            table_name || '_search_updated', attach.relation, watched,
            (select string_agg(quote_literal(s.name), ', ') from unnest(adopted.searchable) as s (name))
        );
    end if;
end
$$;
comment on function tenancy.attach(regclass) is
'Gives an adopted table the triggers it needs, as its columns and references are now.';

create function tenancy.adopt_table(
    relation regclass,
    resource text,
    limits jsonb default null,
    searchable text[] default '{}',
    title text default null,
    redacted text[] default '{}',
    erasure jsonb default '{}',
    identified_by text default null
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    table_name text := (select c.relname::text from pg_class c where c.oid = adopt_table.relation);
    found_amiss record;
    unknown text;
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
    select given.name into unknown from unnest(adopt_table.searchable || adopt_table.title) as given (name)
    where given.name is not null and not exists (
        select from pg_attribute a
        where a.attrelid = adopt_table.relation and a.attname = given.name and a.attnum > 0 and not a.attisdropped
    );
    if found then
        raise exception '% has no column %', adopt_table.relation, quote_ident(unknown)
            using errcode = 'undefined_column', hint = 'Name columns of the table.';
    end if;
    insert into tenancy.tenant_tables (relation, resource, searchable, title)
    values (
        adopt_table.relation, adopt_table.resource, adopt_table.searchable,
        coalesce(adopt_table.title, adopt_table.searchable[1])
    );
    perform tenancy.attach(adopt_table.relation);
    execute format(
        'create index %I on %s (workspace_id, deleted_at) where deleted_at is not null',
        table_name || '_deleted_at', adopt_table.relation
    );
    perform audit.watch(adopt_table.relation, table_name, 'r.workspace_id', 'r.id', adopt_table.redacted);
    perform tenancy.plan_erasure(
        adopt_table.relation, jsonb '{"created_by": "anonymise"}' || adopt_table.erasure, adopt_table.identified_by
    );
    if adopt_table.limits is not null then
        perform billing.limit_rows(adopt_table.relation, adopt_table.resource, adopt_table.limits);
    end if;
end
$$;
comment on function tenancy.adopt_table(regclass, text, jsonb, text[], text, text[], jsonb, text) is
'Makes a table a tenant table: checks it, locks its rows to their tenants, records its changes, takes what is deleted
to the trash, and enters it in the registry. For migrations.
limits: {"plan": max or null} counts its rows under plan limits.
searchable: the columns that search() looks at, the one that names a row first.
title: the column that names a row in the trash; the first searchable one by default.
redacted: columns whose values no audit record may hold.
erasure, identified_by: as in tenancy.plan_erasure().';

create function tenancy.refresh_table(relation regclass) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform tenancy.attach(refresh_table.relation);
    perform audit.rewatch(refresh_table.relation);
end
$$;
comment on function tenancy.refresh_table(regclass) is
'Brings an adopted table''s triggers in line with columns and references that came or went. For the migration that
changes the table.';

create function tenancy.release_table(relation regclass) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    table_name text := (select c.relname::text from pg_class c where c.oid = release_table.relation);
    suffix text;
begin
    perform billing.release_rows(release_table.relation);
    perform audit.unwatch(release_table.relation);
    foreach suffix in array
        '{guard_update,soft_delete,refuse_deleted,is_not_truncated,live_parents_inserted,live_parents_updated,search_changed,search_updated}'::text[]
    loop
        execute format('drop trigger if exists %I on %s', table_name || '_' || suffix, release_table.relation);
    end loop;
    execute format(
        'drop index if exists %I.%I',
        (
            select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where c.oid = release_table.relation
        ),
        table_name || '_deleted_at'
    );
    delete from tenancy.search_documents d where d.relation = release_table.relation;
    delete from tenancy.deletions d where d.relation = release_table.relation;
    update tenancy.deletions d set tables = array_remove(d.tables, release_table.relation)
    where release_table.relation = any (d.tables);
    delete from tenancy.child_references r where release_table.relation in (r.child, r.parent);
    delete from ops.erasure_plan p where p.relation = release_table.relation;
    delete from tenancy.tenant_tables t where t.relation = release_table.relation;
end
$$;
comment on function tenancy.release_table(regclass) is
'Undoes adopt_table(). For rollbacks, before the table is dropped.';

select authz.register_permission('audit.read', 'See who changed what', '{admin}');
select authz.register_permission('trash.manage', 'See and restore what anybody deleted, private things too', '{admin}');
