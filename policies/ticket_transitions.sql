grant select on public.ticket_transitions to authenticated, service_role;

drop policy if exists ticket_transitions_select on public.ticket_transitions;
create policy ticket_transitions_select on public.ticket_transitions for select to authenticated
using ((select authz.user_id()) is not null);
comment on policy ticket_transitions_select on public.ticket_transitions is 'Whoever is signed in: it is a catalogue.';
