grant select on public.audit_log to authenticated;
-- The view reads as its caller. What is not on this list (seals, partitions, salts) is nobody's.
grant select (
    id, workspace_id, occurred_at, action, resource, row_id, changed, before, after, actor_kind, actor_id,
    on_behalf_of, ip, user_agent, request_id
) on audit.inbox, audit.entries to authenticated;

drop policy if exists inbox_select on audit.inbox;
create policy inbox_select on audit.inbox for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('audit.read') limit authz.refuse_estimates())));
comment on policy inbox_select on audit.inbox is 'Those whose role allows it, in their workspaces.';

drop policy if exists entries_select on audit.entries;
create policy entries_select on audit.entries for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('audit.read') limit authz.refuse_estimates())));
comment on policy entries_select on audit.entries is 'Those whose role allows it, in their workspaces.';
