grant select on public.invoices to authenticated;
