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
