grant select on public.metered_usage to authenticated;
