drop table authz.suspended_workspaces, authz.suspended_users;
drop table public.workspace_members, public.role_permissions, public.roles, public.permissions;
drop table public.workspaces, public.profiles;
drop schema authz cascade;
