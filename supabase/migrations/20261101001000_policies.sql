-- Why: what policies/ says now of who may do what.
-- Locks: each table named, for as long as it takes to replace its policies.
-- Workers: need not stop.

-- policies/audit_log.sql sha256:2f76b67d11a7d188ddb5c5fbae68939a5feab1f1e446e0ca691bd633df43e3d2

grant select on public.audit_log to authenticated;
-- The view reads as its caller. What is not on this list (seals, partitions, salts) is nobody's.
grant select (
    id, workspace_id, occurred_at, action, resource, row_id, changed, before, after, actor_kind, actor_id,
    on_behalf_of, ip, user_agent, request_id
) on audit.inbox, audit.entries to authenticated;

drop policy if exists inbox_select on audit.inbox;
create policy inbox_select on audit.inbox for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('audit.read') limit authz.refuse_estimates())));
comment on policy inbox_select on audit.inbox is 'Those whose role allows it, in their workspaces.';

drop policy if exists entries_select on audit.entries;
create policy entries_select on audit.entries for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('audit.read') limit authz.refuse_estimates())));
comment on policy entries_select on audit.entries is 'Those whose role allows it, in their workspaces.';

-- policies/invitations.sql sha256:d1a93827b69a901739a22236ea62bc318ff49604c84332275a67e8d042882bcf

grant select on public.invitations to authenticated, service_role;

drop policy if exists invitations_select on public.invitations;
create policy invitations_select on public.invitations for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('members.invite') limit authz.refuse_estimates())));
comment on policy invitations_select on public.invitations is 'Those who may invite, in their workspaces.';

drop policy if exists invitations_live on public.invitations;
create policy invitations_live on public.invitations as restrictive for all to authenticated
using (deleted_at is null);
comment on policy invitations_live on public.invitations is 'What is in the trash is not there.';

-- policies/permissions.sql sha256:06c9101aeb71263f155536407dd9548f997fa811ba17d4a2b5aef07fdcc358f5

grant select on public.permissions to authenticated, service_role;

drop policy if exists permissions_select on public.permissions;
create policy permissions_select on public.permissions for select to authenticated
using ((select authz.user_id()) is not null);
comment on policy permissions_select on public.permissions is 'Whoever is signed in: it is a catalogue.';

-- policies/profiles.sql sha256:0e2537cec3632ff9bb06a4cb60753dc8e27eae54c5341ebcdca2c9b537f7df55

grant select on public.profiles to authenticated, service_role;
grant update (display_name, avatar_url, locale, time_zone) on public.profiles to authenticated;

drop policy if exists profiles_select on public.profiles;
create policy profiles_select on public.profiles for select to authenticated
using (id = any (array(select authz.people() limit authz.refuse_estimates())));
comment on policy profiles_select on public.profiles is 'Oneself, and fellow members.';

drop policy if exists profiles_update on public.profiles;
create policy profiles_update on public.profiles for update to authenticated
using (id = (select authz.user_id()))
with check (id = (select authz.user_id()));
comment on policy profiles_update on public.profiles is 'Oneself.';

-- policies/project_members.sql sha256:f35da9df3543f69b1730d275834c9cd6bdd6d6333a2bfbb5170fce84be281333

grant select, delete on public.project_members to authenticated;
grant insert (workspace_id, id, project_id, user_id) on public.project_members to authenticated;
grant select, insert, update, delete on public.project_members to service_role;

drop policy if exists project_members_select on public.project_members;
create policy project_members_select on public.project_members for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('projects.read') limit authz.refuse_estimates())));
comment on policy project_members_select on public.project_members is
'Those whose role allows it, in their workspaces.';

drop policy if exists project_members_insert on public.project_members;
create policy project_members_insert on public.project_members for insert to authenticated
with check (workspace_id = any (array(select authz.workspaces_with('projects.update') limit authz.refuse_estimates())));
comment on policy project_members_insert on public.project_members is
'Those whose role allows it, in their workspaces.';

drop policy if exists project_members_delete on public.project_members;
create policy project_members_delete on public.project_members for delete to authenticated
using (workspace_id = any (array(select authz.workspaces_with('projects.update') limit authz.refuse_estimates())));
comment on policy project_members_delete on public.project_members is
'Those whose role allows it, in their workspaces.';

-- On top of the role: only through a project one is in, so that nobody adds themselves.
drop policy if exists project_members_private on public.project_members;
create policy project_members_private on public.project_members as restrictive for all to authenticated
using (
    not project_is_private
    or (workspace_id, project_id) in (
        select joined.workspace_id, joined.project_id from authz.joined_projects() as joined
    )
    or workspace_id = any (array(select authz.workspaces_with('projects.read_private')))
);
comment on policy project_members_private on public.project_members is
'Who is in a private project: only for those who see it.';

drop policy if exists project_members_live on public.project_members;
create policy project_members_live on public.project_members as restrictive for all to authenticated
using (deleted_at is null);
comment on policy project_members_live on public.project_members is 'What is in the trash is not there.';

-- policies/projects.sql sha256:106dbbe2f35a912676e49a5b93e0518581df5ce4219deb1163194a0cb2d7948d

grant select, delete on public.projects to authenticated;
grant insert (workspace_id, id, name, description, is_private, lead_id) on public.projects to authenticated;
grant update (name, description, is_private, lead_id) on public.projects to authenticated;
grant select, insert, update, delete on public.projects to service_role;

drop policy if exists projects_select on public.projects;
create policy projects_select on public.projects for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('projects.read') limit authz.refuse_estimates())));
comment on policy projects_select on public.projects is 'Those whose role allows it, in their workspaces.';

drop policy if exists projects_insert on public.projects;
create policy projects_insert on public.projects for insert to authenticated
with check (workspace_id = any (array(select authz.workspaces_with('projects.create') limit authz.refuse_estimates())));
comment on policy projects_insert on public.projects is 'Those whose role allows it, in their workspaces.';

drop policy if exists projects_update on public.projects;
create policy projects_update on public.projects for update to authenticated
using (workspace_id = any (array(select authz.workspaces_with('projects.update') limit authz.refuse_estimates())))
with check (workspace_id = any (array(select authz.workspaces_with('projects.update') limit authz.refuse_estimates())));
comment on policy projects_update on public.projects is 'Those whose role allows it, in their workspaces.';

drop policy if exists projects_delete on public.projects;
create policy projects_delete on public.projects for delete to authenticated
using (workspace_id = any (array(select authz.workspaces_with('projects.delete') limit authz.refuse_estimates())));
comment on policy projects_delete on public.projects is 'Those whose role allows it, in their workspaces.';

-- On top of the role: what the row itself says.
drop policy if exists projects_private on public.projects;
create policy projects_private on public.projects as restrictive for all to authenticated
using (
    not is_private
    or lead_id = (select authz.user_id())
    or (workspace_id, id) in (select joined.workspace_id, joined.project_id from authz.joined_projects() as joined)
    or workspace_id = any (array(select authz.workspaces_with('projects.read_private')))
);
comment on policy projects_private on public.projects is
'A private project: only its lead, its members and those who may see all of them.';

drop policy if exists projects_live on public.projects;
create policy projects_live on public.projects as restrictive for all to authenticated
using (deleted_at is null);
comment on policy projects_live on public.projects is 'What is in the trash is not there.';

-- policies/role_permissions.sql sha256:302c7f934cd3f41f810ad1b29c42888c144c6710eb81151e91b02ed2601f138e

grant select on public.role_permissions to authenticated, service_role;

drop policy if exists role_permissions_select on public.role_permissions;
create policy role_permissions_select on public.role_permissions for select to authenticated
using (role_id = any (array(select authz.visible_roles() limit authz.refuse_estimates())));
comment on policy role_permissions_select on public.role_permissions is
'The system roles, and the custom ones of one''s workspaces.';

-- policies/roles.sql sha256:1c8bba49f545e5a7056be12c3ecf09cd151fa08b2507d6fc3c12aff3223dd54d

grant select on public.roles to authenticated, service_role;

drop policy if exists roles_select on public.roles;
create policy roles_select on public.roles for select to authenticated
using (id = any (array(select authz.visible_roles() limit authz.refuse_estimates())));
comment on policy roles_select on public.roles is 'The system roles, and the custom ones of one''s workspaces.';

-- policies/tasks.sql sha256:4989d4e7044a2804d86818eaaed7842e25820b07214307e673edd8a12918a729

grant select, delete on public.tasks to authenticated;
grant insert (workspace_id, id, project_id, title, notes, status, due_on, assignee_id)
on public.tasks to authenticated;
grant update (project_id, title, notes, status, due_on, assignee_id) on public.tasks to authenticated;
grant select, insert, update, delete on public.tasks to service_role;

drop policy if exists tasks_select on public.tasks;
create policy tasks_select on public.tasks for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('tasks.read') limit authz.refuse_estimates())));
comment on policy tasks_select on public.tasks is 'Those whose role allows it, in their workspaces.';

drop policy if exists tasks_insert on public.tasks;
create policy tasks_insert on public.tasks for insert to authenticated
with check (workspace_id = any (array(select authz.workspaces_with('tasks.create') limit authz.refuse_estimates())));
comment on policy tasks_insert on public.tasks is 'Those whose role allows it, in their workspaces.';

drop policy if exists tasks_update on public.tasks;
create policy tasks_update on public.tasks for update to authenticated
using (workspace_id = any (array(select authz.workspaces_with('tasks.update') limit authz.refuse_estimates())))
with check (workspace_id = any (array(select authz.workspaces_with('tasks.update') limit authz.refuse_estimates())));
comment on policy tasks_update on public.tasks is 'Those whose role allows it, in their workspaces.';

drop policy if exists tasks_delete on public.tasks;
create policy tasks_delete on public.tasks for delete to authenticated
using (workspace_id = any (array(select authz.workspaces_with('tasks.delete') limit authz.refuse_estimates())));
comment on policy tasks_delete on public.tasks is 'Those whose role allows it, in their workspaces.';

-- On top of the role: a task is seen by those who see its project.
drop policy if exists tasks_private on public.tasks;
create policy tasks_private on public.tasks as restrictive for all to authenticated
using (
    not project_is_private
    or (workspace_id, project_id) in (
        select joined.workspace_id, joined.project_id from authz.joined_projects() as joined
    )
    or workspace_id = any (array(select authz.workspaces_with('projects.read_private')))
);
comment on policy tasks_private on public.tasks is 'Of a private project: only for those who see it.';

drop policy if exists tasks_live on public.tasks;
create policy tasks_live on public.tasks as restrictive for all to authenticated
using (deleted_at is null);
comment on policy tasks_live on public.tasks is 'What is in the trash is not there.';

-- policies/trash.sql sha256:bbd3a3074d2f98d50ff1114260def8afbbcf7fa4685304452579311dea903d6b

grant select on public.trash to authenticated;

-- policies/workspace_members.sql sha256:0b394b9237eb95bbadc74605250fe242e0d5b6b3d8dfe69b6b3417af02b94c1d

grant select on public.workspace_members to authenticated, service_role;

drop policy if exists workspace_members_select on public.workspace_members;
create policy workspace_members_select on public.workspace_members for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('members.read') limit authz.refuse_estimates())));
comment on policy workspace_members_select on public.workspace_members is 'Fellow members.';

-- policies/workspace_usage.sql sha256:f1274389f9d474efc4a06ce3bc5db9d1a4497b07187005185a5238a302cd0c68

grant select on public.workspace_usage to authenticated;

-- policies/workspaces.sql sha256:e9116899d9d1ba2e07ab609d1eda65f8a65a901c92ba1beba2a15f1aa887aa6a

grant select on public.workspaces to authenticated, service_role;
grant update (slug, name, require_mfa) on public.workspaces to authenticated;

drop policy if exists workspaces_select on public.workspaces;
create policy workspaces_select on public.workspaces for select to authenticated
using (id = any (array(select authz.workspaces_with('workspace.read') limit authz.refuse_estimates())));
comment on policy workspaces_select on public.workspaces is 'Its members.';

drop policy if exists workspaces_update on public.workspaces;
create policy workspaces_update on public.workspaces for update to authenticated
using (id = any (array(select authz.workspaces_with('workspace.update') limit authz.refuse_estimates())))
with check (id = any (array(select authz.workspaces_with('workspace.update') limit authz.refuse_estimates())));
comment on policy workspaces_update on public.workspaces is 'Those whose role allows it.';

-- policies/functions.sql sha256:063ca398caf9c2ad612aeeeac50b4649c7b6a35f09c2480b3a958c668c81a015

-- Every function that a role of the API may call, and the schemas it must enter for that. What is
-- not here runs for nobody but its owner.

grant usage on schema authz, ops, tenancy, billing, audit to authenticated, service_role;

-- What policies and column defaults ask.
grant execute on function ops.now() to authenticated, service_role;
grant execute on function ops.is_allowed(text) to authenticated, service_role;
grant execute on function authz.claims() to authenticated, service_role;
grant execute on function authz.user_id() to authenticated, service_role;
grant execute on function authz.workspaces_with(text) to authenticated;
grant execute on function authz.refuse_estimates() to authenticated;
grant execute on function ops.raise_http(integer, text, text, jsonb, text, jsonb) to authenticated;
grant execute on function authz.people() to authenticated;
grant execute on function authz.visible_roles() to authenticated;
grant execute on function authz.joined_projects() to authenticated;
grant execute on function billing.usage() to authenticated;
grant execute on function tenancy.trash() to authenticated;
-- search() runs as its caller, and asks these.
grant execute on function tenancy.search(uuid, text, text[], integer) to authenticated;
grant execute on function tenancy.search_words(text) to authenticated;
grant execute on function tenancy.search_mark(uuid) to authenticated;
grant execute on function tenancy.search_query(uuid, text[], boolean) to authenticated;
grant execute on function tenancy.search_candidates(uuid, text[], regclass[], boolean, integer) to authenticated;
grant execute on function tenancy.searchable_tables(text[]) to authenticated;
grant execute on function tenancy.similar_words(uuid, text[]) to authenticated;
grant execute on function tenancy.search_text(text) to authenticated;
grant execute on function public.search(uuid, text, text[], integer) to authenticated;

-- What clients call, each with the definer function behind it.
grant execute on function public.create_workspace(text, text) to authenticated;
grant execute on function tenancy.create_workspace(text, text) to authenticated;
grant execute on function public.delete_workspace(uuid) to authenticated;
grant execute on function tenancy.delete_workspace(uuid) to authenticated;
grant execute on function public.restore_workspace(uuid) to authenticated;
grant execute on function tenancy.restore_workspace(uuid) to authenticated;
grant execute on function public.my_workspaces() to authenticated;
grant execute on function tenancy.my_workspaces() to authenticated;
grant execute on function public.my_permissions(uuid) to authenticated;
grant execute on function tenancy.my_permissions(uuid) to authenticated;
grant execute on function public.set_member_role(uuid, uuid, text) to authenticated;
grant execute on function tenancy.set_member_role(uuid, uuid, text) to authenticated;
grant execute on function public.remove_member(uuid, uuid) to authenticated;
grant execute on function tenancy.remove_member(uuid, uuid) to authenticated;
grant execute on function public.leave_workspace(uuid) to authenticated;
grant execute on function tenancy.leave_workspace(uuid) to authenticated;
grant execute on function public.transfer_ownership(uuid, uuid) to authenticated;
grant execute on function tenancy.transfer_ownership(uuid, uuid) to authenticated;
grant execute on function public.invite_member(uuid, text, text) to authenticated;
grant execute on function tenancy.invite_member(uuid, text, text) to authenticated;
grant execute on function public.resend_invitation(uuid, uuid) to authenticated;
grant execute on function tenancy.resend_invitation(uuid, uuid) to authenticated;
grant execute on function public.revoke_invitation(uuid, uuid) to authenticated;
grant execute on function tenancy.revoke_invitation(uuid, uuid) to authenticated;
grant execute on function public.preview_invitation(text) to authenticated;
grant execute on function tenancy.preview_invitation(text) to authenticated;
grant execute on function public.accept_invitation(text) to authenticated;
grant execute on function tenancy.accept_invitation(text) to authenticated;
grant execute on function public.create_role(uuid, text, text, text[], text) to authenticated;
grant execute on function tenancy.create_role(uuid, text, text, text[], text) to authenticated;
grant execute on function public.update_role(uuid, uuid, text, text[], text) to authenticated;
grant execute on function tenancy.update_role(uuid, uuid, text, text[], text) to authenticated;
grant execute on function public.delete_role(uuid, uuid) to authenticated;
grant execute on function tenancy.delete_role(uuid, uuid) to authenticated;
grant execute on function public.restore(uuid, text, uuid) to authenticated;
grant execute on function tenancy.restore(uuid, text, uuid) to authenticated;
