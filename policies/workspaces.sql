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
