grant select on public.workspace_usage to authenticated;
