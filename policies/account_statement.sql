grant select on public.account_statement to authenticated;
