select billing.release_rows('public.workspace_members');
drop trigger workspaces_start_on_default_plan on public.workspaces;
drop index public.permissions_required_feature;
alter table public.permissions drop constraint permissions_required_feature_exists;
drop schema billing cascade;
