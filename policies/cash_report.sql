grant select on public.cash_report to authenticated;
