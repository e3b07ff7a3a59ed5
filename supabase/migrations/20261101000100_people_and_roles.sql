-- Why: who may do what. People, workspaces, their members and roles, and the one door that every
--      policy asks: authz.workspaces_with(permission).
-- Locks: adds a trigger to auth.users (a brief lock that conflicts with writes to it).
-- Workers: need not stop.

create schema authz;
comment on schema authz is 'Permissions, the meaning of roles, and the one door.';

-- The caller ---------------------------------------------------------------------------------

-- What every statement asks is written in plpgsql, which keeps its plans for the session. A function
-- in SQL that is not inlined, as none with a search_path is, would be planned anew by each statement.

create function authz.claims() returns jsonb
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce(nullif(current_setting('request.jwt.claims', true), ''), '{}')::jsonb;
end
$$;
comment on function authz.claims() is 'The claims of the request''s JWT, an empty object without one.';

create function authz.user_id() returns uuid
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    claims jsonb := authz.claims();
begin
    return case when (claims ->> 'is_anonymous')::boolean then null else nullif(claims ->> 'sub', '')::uuid end;
end
$$;
comment on function authz.user_id() is
'The signed-in person. Null without a session, and for an anonymous sign-in: it is nobody yet.';

-- People -------------------------------------------------------------------------------------

create table public.profiles (
    id uuid not null,
    email text,
    display_name text not null default '',
    avatar_url text,
    locale text not null default 'en',
    time_zone text not null default 'UTC',
    created_at timestamptz not null default ops.now(),
    updated_at timestamptz not null default ops.now(),
    constraint profiles_pkey primary key (id),
    constraint profiles_belong_to_a_user foreign key (id) references auth.users (id) on delete cascade,
    -- One line, for it stands in subjects of mails.
    constraint profiles_display_name_is_a_line check (
        length(display_name) <= 200 and display_name !~ '[[:cntrl:]]'
    ),
    constraint profiles_avatar_url_is_short check (length(avatar_url) <= 2000),
    constraint profiles_locale_is_short check (length(locale) <= 35),
    constraint profiles_time_zone_is_short check (length(time_zone) <= 64)
);
alter table public.profiles enable row level security;
create index profiles_email on public.profiles (lower(email));
comment on table public.profiles is 'What people may know of each other; kept in step with auth.users.';
comment on column public.profiles.id is 'The person: auth.users.id.';
comment on column public.profiles.email is 'The address they sign in with; null for a phone or anonymous sign-in.';
comment on column public.profiles.display_name is 'The name they go by.';
comment on column public.profiles.avatar_url is 'A picture.';
comment on column public.profiles.locale is 'BCP 47 language tag.';
comment on column public.profiles.time_zone is 'IANA time zone; digests arrive by its clock.';
comment on column public.profiles.created_at is 'When they signed up.';
comment on column public.profiles.updated_at is 'When the profile last changed.';

-- Workspaces ---------------------------------------------------------------------------------

create table public.workspaces (
    id uuid not null default gen_random_uuid(),
    slug text not null,
    name text not null,
    require_mfa boolean not null default false,
    membership_version bigint not null default 0,
    created_at timestamptz not null default ops.now(),
    updated_at timestamptz not null default ops.now(),
    created_by uuid default authz.user_id(),
    deleted_at timestamptz,
    purge_after timestamptz,
    constraint workspaces_pkey primary key (id),
    constraint workspaces_creator_exists foreign key (created_by) references public.profiles (id) on delete set null,
    constraint workspaces_slug_is_well_formed check (slug ~ '^[a-z0-9]([a-z0-9-]{1,46}[a-z0-9])$'),
    constraint workspaces_name_is_a_line check (length(btrim(name)) between 1 and 120 and name !~ '[[:cntrl:]]'),
    constraint workspaces_purge_follows_deletion check ((deleted_at is null) = (purge_after is null))
);
alter table public.workspaces enable row level security;
-- A slug stays taken until its workspace is purged, so that a restore cannot collide. It is a
-- public name, like a domain: that it is taken is no secret.
create unique index workspaces_slug_key on public.workspaces (lower(slug));
create index workspaces_created_at on public.workspaces (created_at, id);
create index workspaces_created_by on public.workspaces (created_by) where created_by is not null;
create index workspaces_purge_after on public.workspaces (purge_after) where purge_after is not null;
comment on table public.workspaces is 'The tenants.';
comment on column public.workspaces.id is 'The tenant.';
comment on column public.workspaces.slug is
'Its name in URLs: 3 to 48 of a-z, 0-9 and inner hyphens, unique regardless of case.';
comment on column public.workspaces.name is 'Its name for people, 1 to 120 characters.';
comment on column public.workspaces.require_mfa is 'Whether sessions below aal2 are shown nothing.';
comment on column public.workspaces.membership_version is 'Counts changes of membership: two at once meet here.';
comment on column public.workspaces.created_at is 'When it was made.';
comment on column public.workspaces.updated_at is 'When it last changed.';
comment on column public.workspaces.created_by is 'Who made it.';
comment on column public.workspaces.deleted_at is 'When its owner deleted it; it can be restored until purge_after.';
comment on column public.workspaces.purge_after is 'From when on the purge may remove it for good.';

-- Roles --------------------------------------------------------------------------------------

create table public.permissions (
    permission text not null,
    description text not null,
    required_feature text,
    works_read_only boolean not null default false,
    constraint permissions_pkey primary key (permission),
    constraint permissions_are_resource_dot_action check (permission ~ '^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$')
);
alter table public.permissions enable row level security;
comment on table public.permissions is 'The registry of everything a role can allow.';
comment on column public.permissions.permission is 'resource.action';
comment on column public.permissions.description is 'What it allows, for the people who compose roles.';
comment on column public.permissions.required_feature is 'The plan feature without which it allows nothing.';
comment on column public.permissions.works_read_only is
'Whether it holds in a workspace that is restricted to reading, because it was not paid for.';

create table public.roles (
    id uuid not null default gen_random_uuid(),
    workspace_id uuid,
    key text not null,
    name text not null,
    description text not null default '',
    created_at timestamptz not null default ops.now(),
    updated_at timestamptz not null default ops.now(),
    created_by uuid default authz.user_id(),
    constraint roles_pkey primary key (id),
    constraint roles_belong_to_a_workspace foreign key (workspace_id) references public.workspaces (id)
    on delete cascade,
    constraint roles_creator_exists foreign key (created_by) references public.profiles (id) on delete set null,
    constraint roles_key_is_unique unique nulls not distinct (workspace_id, key),
    constraint roles_key_is_well_formed check (key ~ '^[a-z][a-z0-9_]{0,47}$'),
    constraint roles_name_is_a_line check (length(btrim(name)) between 1 and 80 and name !~ '[[:cntrl:]]'),
    constraint roles_description_is_short check (length(description) <= 500)
);
alter table public.roles enable row level security;
create index roles_created_by on public.roles (created_by) where created_by is not null;
comment on table public.roles is 'System roles, which every workspace has, and the custom roles of one workspace.';
comment on column public.roles.id is 'The role.';
comment on column public.roles.workspace_id is 'Whose custom role it is; null for a system role.';
comment on column public.roles.key is 'Its name for programs.';
comment on column public.roles.name is 'Its name for people.';
comment on column public.roles.description is 'Who should have it.';
comment on column public.roles.created_at is 'When it was made.';
comment on column public.roles.updated_at is 'When it last changed.';
comment on column public.roles.created_by is 'Who made it.';

create table public.role_permissions (
    role_id uuid not null,
    permission text not null,
    constraint role_permissions_pkey primary key (role_id, permission),
    constraint role_permissions_belong_to_a_role foreign key (role_id) references public.roles (id)
    on delete cascade,
    constraint role_permissions_are_registered foreign key (permission) references public.permissions (permission)
    on delete cascade
);
alter table public.role_permissions enable row level security;
create index role_permissions_permission on public.role_permissions (permission);
comment on table public.role_permissions is 'What each role allows.';
comment on column public.role_permissions.role_id is 'The role.';
comment on column public.role_permissions.permission is 'What it allows.';

-- Fixed ids, so that a workspace means the same in every database it is moved to.
insert into public.roles (id, key, name, description)
values
('00000000-0000-4000-8000-000000000001', 'owner', 'Owner', 'Everything, including the end of the workspace.'),
('00000000-0000-4000-8000-000000000002', 'admin', 'Admin', 'Everything but deleting the workspace or giving it away.'),
('00000000-0000-4000-8000-000000000003', 'member', 'Member', 'The daily work.'),
('00000000-0000-4000-8000-000000000004', 'viewer', 'Viewer', 'Looks, changes nothing.');

create function authz.owner_role() returns uuid
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select '00000000-0000-4000-8000-000000000001'::uuid $$;
comment on function authz.owner_role() is 'The id of the system role owner.';

create function authz.register_permission(
    permission text,
    description text,
    granted_to text[],
    required_feature text default null,
    works_read_only boolean default null
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    unknown text;
begin
    select given.key into unknown
    from unnest(register_permission.granted_to) as given (key)
    where not exists (select from public.roles r where r.workspace_id is null and r.key = given.key);
    if found then
        raise exception 'there is no system role %', quote_literal(unknown)
            using errcode = 'invalid_parameter_value', hint = 'Use owner, admin, member or viewer.';
    end if;

    insert into public.permissions as p (permission, description, required_feature, works_read_only)
    values (
        register_permission.permission, register_permission.description, register_permission.required_feature,
        coalesce(register_permission.works_read_only, register_permission.permission like '%.read')
    )
    on conflict on constraint permissions_pkey do update
    set
        description = excluded.description, required_feature = excluded.required_feature,
        works_read_only = excluded.works_read_only;

    insert into public.role_permissions (role_id, permission)
    select r.id, register_permission.permission
    from public.roles r
    where r.workspace_id is null and (r.key = any (register_permission.granted_to) or r.key = 'owner')
    on conflict do nothing;
end
$$;
comment on function authz.register_permission(text, text, text[], text, boolean) is
'Adds a permission to the registry and to the system roles named; the owner holds every one. For migrations.';

create function authz.register_resource(resource text, title text) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    select authz.register_permission(resource || '.read', 'See ' || title, '{admin,member,viewer}');
    select authz.register_permission(resource || '.create', 'Add ' || title, '{admin,member}');
    select authz.register_permission(resource || '.update', 'Change ' || title, '{admin,member}');
    select authz.register_permission(resource || '.delete', 'Delete ' || title, '{admin,member}');
$$;
comment on function authz.register_resource(text, text) is
'Registers read, create, update and delete for a resource: viewers read, members and admins do all. For migrations.';

-- Members ------------------------------------------------------------------------------------

create table public.workspace_members (
    workspace_id uuid not null,
    user_id uuid not null,
    role_id uuid not null,
    created_at timestamptz not null default ops.now(),
    updated_at timestamptz not null default ops.now(),
    created_by uuid default authz.user_id(),
    constraint workspace_members_pkey primary key (workspace_id, user_id),
    constraint workspace_members_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint workspace_members_are_people foreign key (user_id) references public.profiles (id) on delete cascade,
    constraint workspace_members_have_a_role foreign key (role_id) references public.roles (id),
    constraint workspace_members_creator_exists foreign key (created_by) references public.profiles (id)
    on delete set null
);
alter table public.workspace_members enable row level security;
create index workspace_members_user_id on public.workspace_members (user_id, workspace_id) include (role_id);
create index workspace_members_role_id on public.workspace_members (role_id, workspace_id);
create index workspace_members_created_by on public.workspace_members (created_by) where created_by is not null;
comment on table public.workspace_members is 'Who belongs to which workspace, and as what.';
comment on column public.workspace_members.workspace_id is 'The tenant.';
comment on column public.workspace_members.user_id is 'The person.';
comment on column public.workspace_members.role_id is 'A system role or one of the workspace''s own.';
comment on column public.workspace_members.created_at is 'When they joined.';
comment on column public.workspace_members.updated_at is 'When their role last changed.';
comment on column public.workspace_members.created_by is 'Who let them in.';

-- Suspensions --------------------------------------------------------------------------------

create table authz.suspended_users (
    user_id uuid not null,
    reason text not null,
    suspended_at timestamptz not null default ops.now(),
    constraint suspended_users_pkey primary key (user_id),
    constraint suspended_users_are_people foreign key (user_id) references public.profiles (id) on delete cascade
);
alter table authz.suspended_users enable row level security;
create policy suspended_users_nobody on authz.suspended_users using (false);
comment on table authz.suspended_users is 'People whom the operator shut out.';
comment on column authz.suspended_users.user_id is 'The person.';
comment on column authz.suspended_users.reason is 'Why, for the operator.';
comment on column authz.suspended_users.suspended_at is 'Since when.';

create table authz.suspended_workspaces (
    workspace_id uuid not null,
    reason text not null,
    suspended_at timestamptz not null default ops.now(),
    constraint suspended_workspaces_pkey primary key (workspace_id),
    constraint suspended_workspaces_exist foreign key (workspace_id)
    references public.workspaces (id) on delete cascade
);
alter table authz.suspended_workspaces enable row level security;
create policy suspended_workspaces_nobody on authz.suspended_workspaces using (false);
comment on table authz.suspended_workspaces is 'Workspaces that the operator shut.';
comment on column authz.suspended_workspaces.workspace_id is 'The tenant.';
comment on column authz.suspended_workspaces.reason is 'Why, for the operator.';
comment on column authz.suspended_workspaces.suspended_at is 'Since when.';
