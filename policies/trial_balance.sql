grant select on public.trial_balance to authenticated;
