grant select on public.notification_kinds to authenticated, service_role;

drop policy if exists notification_kinds_select on public.notification_kinds;
create policy notification_kinds_select on public.notification_kinds for select to authenticated
using ((select authz.user_id()) is not null);
comment on policy notification_kinds_select on public.notification_kinds is 'Whoever is signed in: it is a catalogue.';
