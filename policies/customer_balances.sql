grant select on public.customer_balances to authenticated;
