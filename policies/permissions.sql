grant select on public.permissions to authenticated, service_role;

drop policy if exists permissions_select on public.permissions;
create policy permissions_select on public.permissions for select to authenticated
using ((select authz.user_id()) is not null);
comment on policy permissions_select on public.permissions is 'Whoever is signed in: it is a catalogue.';
