grant select on public.workspace_members to authenticated, service_role;

drop policy if exists workspace_members_select on public.workspace_members;
create policy workspace_members_select on public.workspace_members for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('members.read') limit authz.refuse_estimates())));
comment on policy workspace_members_select on public.workspace_members is 'Fellow members.';
