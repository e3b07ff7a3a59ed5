grant select on public.roles to authenticated, service_role;

drop policy if exists roles_select on public.roles;
create policy roles_select on public.roles for select to authenticated
using (id = any (array(select authz.visible_roles() limit authz.refuse_estimates())));
comment on policy roles_select on public.roles is 'The system roles, and the custom ones of one''s workspaces.';
