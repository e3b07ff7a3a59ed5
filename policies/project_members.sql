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
