grant select, delete on public.tickets to authenticated;
grant insert (workspace_id, id, customer_id, device, problem, estimate, currency, assignee_id)
on public.tickets to authenticated;
grant update (customer_id, device, problem, estimate, currency, status, assignee_id) on public.tickets to authenticated;
grant select, insert, update, delete on public.tickets to service_role;

drop policy if exists tickets_select on public.tickets;
create policy tickets_select on public.tickets for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('tickets.read') limit authz.refuse_estimates())));
comment on policy tickets_select on public.tickets is 'Those whose role allows it, in their workspaces.';

drop policy if exists tickets_insert on public.tickets;
create policy tickets_insert on public.tickets for insert to authenticated
with check (workspace_id = any (array(select authz.workspaces_with('tickets.create') limit authz.refuse_estimates())));
comment on policy tickets_insert on public.tickets is 'Those whose role allows it, in their workspaces.';

drop policy if exists tickets_update on public.tickets;
create policy tickets_update on public.tickets for update to authenticated
using (workspace_id = any (array(select authz.workspaces_with('tickets.update') limit authz.refuse_estimates())))
with check (workspace_id = any (array(select authz.workspaces_with('tickets.update') limit authz.refuse_estimates())));
comment on policy tickets_update on public.tickets is 'Those whose role allows it, in their workspaces.';

drop policy if exists tickets_delete on public.tickets;
create policy tickets_delete on public.tickets for delete to authenticated
using (workspace_id = any (array(select authz.workspaces_with('tickets.delete') limit authz.refuse_estimates())));
comment on policy tickets_delete on public.tickets is 'Those whose role allows it, in their workspaces.';

drop policy if exists tickets_live on public.tickets;
create policy tickets_live on public.tickets as restrictive for all to authenticated
using (deleted_at is null);
comment on policy tickets_live on public.tickets is 'What is in the trash is not there.';
