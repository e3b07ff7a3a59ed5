delete from tenancy.other_tables
where relation = 'public.ticket_transitions'::regclass;
select tenancy.release_table('public.ticket_status_changes');
select tenancy.release_table('public.tickets');
select tenancy.release_table('public.customers');
drop table public.ticket_status_changes, public.tickets, public.customers, public.ticket_transitions;
drop function
tenancy.keep_status_change(), tenancy.guard_ticket(), tenancy.next_number(uuid, text);
drop table tenancy.counters;
delete from public.permissions
where permission ~ '^(customers|tickets)\.';
