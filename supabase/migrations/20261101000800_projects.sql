-- Why: the reference app: projects, private or open to the workspace, and their tasks. Made with
--      the kit that any adopter's table is made with.
-- Locks: none on existing tables.
-- Workers: need not stop.

select authz.register_permission('projects.read', 'See projects', '{admin,member,viewer}');
select authz.register_permission('projects.read_private', 'See private projects without being in them', '{admin}');
select authz.register_permission('projects.create', 'Add projects', '{admin,member}');
select authz.register_permission('projects.update', 'Change projects and who is in them', '{admin,member}');
select authz.register_permission('projects.delete', 'Delete projects', '{admin}');
select authz.register_resource('tasks', 'tasks');

create table public.projects (
    workspace_id uuid not null,
    id uuid not null default gen_random_uuid(),
    name text not null,
    description text not null default '',
    is_private boolean not null default false,
    lead_id uuid default authz.user_id(),
    deleted_at timestamptz,
    created_at timestamptz not null default ops.now(),
    updated_at timestamptz not null default ops.now(),
    created_by uuid default authz.user_id(),
    constraint projects_pkey primary key (workspace_id, id),
    constraint projects_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint projects_lead_is_a_member foreign key (workspace_id, lead_id)
    references public.workspace_members (workspace_id, user_id) on delete set null (lead_id),
    constraint projects_creator_exists foreign key (created_by) references public.profiles (id) on delete set null,
    -- What tasks and members refer to, so that they always know whether the project is private;
    -- with lead_id it holds all that the policies ask, so that a count reads nothing but this index.
    constraint projects_privacy_key unique (workspace_id, id, is_private) include (lead_id, deleted_at),
    constraint projects_name_is_a_line check (length(btrim(name)) between 1 and 200 and name !~ '[[:cntrl:]]'),
    constraint projects_description_is_short check (length(description) <= 10000)
);
alter table public.projects enable row level security;
create index projects_created_at on public.projects (workspace_id, created_at desc, id);
create index projects_lead_id on public.projects (workspace_id, lead_id);
create index projects_created_by on public.projects (created_by) where created_by is not null;
comment on table public.projects is 'Pieces of work. A private one is seen by its lead, its members and admins.';
comment on column public.projects.workspace_id is 'The tenant.';
comment on column public.projects.id is 'The project.';
comment on column public.projects.name is 'What it is called, 1 to 200 characters.';
comment on column public.projects.description is 'What it is about.';
comment on column public.projects.is_private is 'Whether only its lead, its members and admins see it.';
comment on column public.projects.lead_id is 'Who answers for it, and always sees it.';
comment on column public.projects.deleted_at is 'When it was deleted; restore() brings it back.';
comment on column public.projects.created_at is 'When it was made.';
comment on column public.projects.updated_at is 'When it last changed.';
comment on column public.projects.created_by is 'Who made it.';

create table public.project_members (
    workspace_id uuid not null,
    id uuid not null default gen_random_uuid(),
    project_id uuid not null,
    project_is_private boolean not null,
    user_id uuid not null,
    deleted_at timestamptz,
    created_at timestamptz not null default ops.now(),
    updated_at timestamptz not null default ops.now(),
    created_by uuid default authz.user_id(),
    constraint project_members_pkey primary key (workspace_id, id),
    constraint project_members_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint project_members_are_in_a_project foreign key (workspace_id, project_id, project_is_private)
    references public.projects (workspace_id, id, is_private) on update cascade on delete cascade,
    constraint project_members_are_members foreign key (workspace_id, user_id)
    references public.workspace_members (workspace_id, user_id) on delete cascade,
    constraint project_members_creator_exists foreign key (created_by)
    references public.profiles (id) on delete set null
);
alter table public.project_members enable row level security;
create unique index project_members_once_each on public.project_members (workspace_id, project_id, user_id)
where deleted_at is null;
create index project_members_project_id on public.project_members (workspace_id, project_id, project_is_private);
create index project_members_user_id on public.project_members (workspace_id, user_id, project_id);
create index project_members_created_by on public.project_members (created_by) where created_by is not null;
comment on table public.project_members is 'Who sees a private project.';
comment on column public.project_members.workspace_id is 'The tenant.';
comment on column public.project_members.id is 'The entry.';
comment on column public.project_members.project_id is 'The project.';
comment on column public.project_members.project_is_private is 'Whether the project is private; follows it.';
comment on column public.project_members.user_id is 'A member of the workspace.';
comment on column public.project_members.deleted_at is 'When it was deleted; restore() brings it back.';
comment on column public.project_members.created_at is 'When they were added.';
comment on column public.project_members.updated_at is 'When the entry last changed.';
comment on column public.project_members.created_by is 'Who added them.';

create table public.tasks (
    workspace_id uuid not null,
    id uuid not null default gen_random_uuid(),
    project_id uuid not null,
    project_is_private boolean not null,
    title text not null,
    notes text not null default '',
    status text not null default 'open',
    due_on date,
    assignee_id uuid,
    deleted_at timestamptz,
    created_at timestamptz not null default ops.now(),
    updated_at timestamptz not null default ops.now(),
    created_by uuid default authz.user_id(),
    constraint tasks_pkey primary key (workspace_id, id),
    constraint tasks_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint tasks_belong_to_a_project foreign key (workspace_id, project_id, project_is_private)
    references public.projects (workspace_id, id, is_private) on update cascade on delete cascade,
    constraint tasks_assignee_is_a_member foreign key (workspace_id, assignee_id)
    references public.workspace_members (workspace_id, user_id) on delete set null (assignee_id),
    constraint tasks_creator_exists foreign key (created_by) references public.profiles (id) on delete set null,
    constraint tasks_title_is_a_line check (length(btrim(title)) between 1 and 500 and title !~ '[[:cntrl:]]'),
    constraint tasks_notes_are_short check (length(notes) <= 50000),
    constraint tasks_status_is_known check (status in ('open', 'in_progress', 'done'))
);
alter table public.tasks enable row level security;
create index tasks_project_id on public.tasks (workspace_id, project_id, project_is_private) include (deleted_at);
create index tasks_assignee_id on public.tasks (workspace_id, assignee_id);
create index tasks_created_at on public.tasks (workspace_id, created_at desc, id);
create index tasks_created_by on public.tasks (created_by) where created_by is not null;
comment on table public.tasks is 'What there is to do in a project. Seen by those who see the project.';
comment on column public.tasks.workspace_id is 'The tenant.';
comment on column public.tasks.id is 'The task.';
comment on column public.tasks.project_id is 'A project of the same workspace.';
comment on column public.tasks.project_is_private is 'Whether the project is private; follows it.';
comment on column public.tasks.title is 'What is to be done, 1 to 500 characters.';
comment on column public.tasks.notes is 'What there is to know.';
comment on column public.tasks.status is 'open, in_progress or done.';
comment on column public.tasks.due_on is 'Until when.';
comment on column public.tasks.assignee_id is 'Who does it: a member of the workspace.';
comment on column public.tasks.deleted_at is 'When it was deleted; restore() brings it back.';
comment on column public.tasks.created_at is 'When it was made.';
comment on column public.tasks.updated_at is 'When it last changed.';
comment on column public.tasks.created_by is 'Who made it.';

create function authz.joined_projects() returns table (workspace_id uuid, project_id uuid)
language plpgsql stable parallel safe security definer rows 10
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    caller uuid := authz.user_id();
    places uuid[] := array(select authz.workspaces_with('projects.read'));
begin
    return query
    select pm.workspace_id, pm.project_id from public.project_members pm
    where pm.user_id = caller and pm.workspace_id = any (places) and pm.deleted_at is null
    union
    select p.workspace_id, p.id from public.projects p
    where p.lead_id = caller and p.workspace_id = any (places) and p.is_private and p.deleted_at is null;
end
$$;
comment on function authz.joined_projects() is
'The private projects that the caller sees for being in them or leading them.';

create function tenancy.follow_project() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    select p.is_private into new.project_is_private from public.projects p
    where p.workspace_id = new.workspace_id and p.id = new.project_id and p.deleted_at is null;
    -- A project that does not exist is refused in the same words as one that may not be seen.
    new.project_is_private := coalesce(new.project_is_private, true);
    return new;
end
$$;
comment on function tenancy.follow_project() is 'Trigger: what is in a project is as private as the project.';

create trigger tasks_follow_project
before insert or update of project_id on public.tasks
for each row execute function tenancy.follow_project();

create trigger project_members_follow_project
before insert or update of project_id on public.project_members
for each row execute function tenancy.follow_project();

select tenancy.adopt_table(
    'public.projects', 'projects', '{"free": 3, "pro": 100, "enterprise": null}',
    searchable => '{name,description}',
    erasure => '{"name": "keep", "description": "keep", "lead_id": "anonymise"}'
);
select tenancy.adopt_table('public.project_members', 'projects', erasure => '{"user_id": "delete"}');
select tenancy.adopt_table(
    'public.tasks', 'tasks',
    searchable => '{title,notes}',
    erasure => '{"title": "keep", "notes": "keep", "status": "keep", "assignee_id": "anonymise"}'
);
