grant select on public.ticket_status_changes to authenticated;
grant select on public.ticket_status_changes to service_role;

drop policy if exists ticket_status_changes_select on public.ticket_status_changes;
create policy ticket_status_changes_select on public.ticket_status_changes for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('tickets.read') limit authz.refuse_estimates())));
comment on policy ticket_status_changes_select on public.ticket_status_changes is
'Those whose role allows it, in their workspaces.';

drop policy if exists ticket_status_changes_live on public.ticket_status_changes;
create policy ticket_status_changes_live on public.ticket_status_changes as restrictive for all to authenticated
using (deleted_at is null);
comment on policy ticket_status_changes_live on public.ticket_status_changes is 'What is in the trash is not there.';
