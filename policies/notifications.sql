grant select on public.notifications to authenticated, service_role;

drop policy if exists notifications_select on public.notifications;
create policy notifications_select on public.notifications for select to authenticated
using (
    recipient_id = (select authz.user_id())
    and workspace_id = any (
        array(select authz.workspaces_with('workspace.read') limit authz.refuse_estimates())
    )
);
comment on policy notifications_select on public.notifications is 'Everybody their own, where they still are a member.';
