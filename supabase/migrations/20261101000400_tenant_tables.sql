-- Why: the kit that makes a table a tenant table. An adopter's table is checked against the rules
--      of the house and then gets what every tenant table has.
-- Locks: none on existing tables. Adopting a table later locks that table for a moment.
-- Workers: need not stop.

create schema tenancy;
comment on schema tenancy is 'What makes a table a tenant table, and the life of workspaces and memberships.';

create table tenancy.tenant_tables (
    relation regclass not null,
    resource text not null,
    searchable text[] not null default '{}',
    title text,
    adopted_at timestamptz not null default ops.now(),
    constraint tenant_tables_pkey primary key (relation)
);
alter table tenancy.tenant_tables enable row level security;
create policy tenant_tables_nobody on tenancy.tenant_tables using (false);
comment on table tenancy.tenant_tables is 'The tables under the roof.';
comment on column tenancy.tenant_tables.relation is 'The table.';
comment on column tenancy.tenant_tables.resource is 'What its permissions are called: resource.read and so on.';
comment on column tenancy.tenant_tables.searchable is
'The columns that search() looks at, the one that names a row first.';
comment on column tenancy.tenant_tables.title is
'The column that names a row for people, in search results and the trash.';
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
    if new.deleted_at is distinct from old.deleted_at and not ops.is_allowed('delete') then
        raise exception 'deleted_at of % cannot be set by hand', tg_table_name
            using errcode = 'insufficient_privilege', hint = 'DELETE the row, or restore() it.';
    end if;
    new.updated_at := ops.now();
    return new;
end
$$;
comment on function tenancy.guard_update() is
'Trigger: keeps a row in its tenant, keeps deleted_at for DELETE and restore(), and stamps updated_at.';
