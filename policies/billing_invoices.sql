grant select on public.billing_invoices to authenticated;
