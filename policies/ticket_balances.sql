grant select on public.ticket_balances to authenticated;
