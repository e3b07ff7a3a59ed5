grant select, delete on public.customers to authenticated;
grant insert (workspace_id, id, name, email, phone, notes)
on public.customers to authenticated;
grant update (name, email, phone, notes) on public.customers to authenticated;
grant select, insert, update, delete on public.customers to service_role;

drop policy if exists customers_select on public.customers;
create policy customers_select on public.customers for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('customers.read') limit authz.refuse_estimates())));
comment on policy customers_select on public.customers is 'Those whose role allows it, in their workspaces.';

drop policy if exists customers_insert on public.customers;
create policy customers_insert on public.customers for insert to authenticated
with check (
    workspace_id = any (array(select authz.workspaces_with('customers.create') limit authz.refuse_estimates()))
);
comment on policy customers_insert on public.customers is 'Those whose role allows it, in their workspaces.';

drop policy if exists customers_update on public.customers;
create policy customers_update on public.customers for update to authenticated
using (workspace_id = any (array(select authz.workspaces_with('customers.update') limit authz.refuse_estimates())))
with check (
    workspace_id = any (array(select authz.workspaces_with('customers.update') limit authz.refuse_estimates()))
);
comment on policy customers_update on public.customers is 'Those whose role allows it, in their workspaces.';

drop policy if exists customers_delete on public.customers;
create policy customers_delete on public.customers for delete to authenticated
using (workspace_id = any (array(select authz.workspaces_with('customers.delete') limit authz.refuse_estimates())));
comment on policy customers_delete on public.customers is 'Those whose role allows it, in their workspaces.';

drop policy if exists customers_live on public.customers;
create policy customers_live on public.customers as restrictive for all to authenticated
using (deleted_at is null);
comment on policy customers_live on public.customers is 'What is in the trash is not there.';
