grant select on public.trash to authenticated;
