grant select on public.role_permissions to authenticated, service_role;

drop policy if exists role_permissions_select on public.role_permissions;
create policy role_permissions_select on public.role_permissions for select to authenticated
using (role_id = any (array(select authz.visible_roles() limit authz.refuse_estimates())));
comment on policy role_permissions_select on public.role_permissions is
'The system roles, and the custom ones of one''s workspaces.';
