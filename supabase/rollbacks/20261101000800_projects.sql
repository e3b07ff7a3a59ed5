drop trigger tasks_follow_project on public.tasks;
drop trigger project_members_follow_project on public.project_members;
drop function tenancy.follow_project(), authz.joined_projects();
select tenancy.release_table('public.tasks');
select tenancy.release_table('public.project_members');
select tenancy.release_table('public.projects');
drop table public.tasks, public.project_members, public.projects;
delete from public.permissions
where permission ~ '^(projects|tasks)\.';
