grant select on public.invitations to authenticated, service_role;

drop policy if exists invitations_select on public.invitations;
create policy invitations_select on public.invitations for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('members.invite') limit authz.refuse_estimates())));
comment on policy invitations_select on public.invitations is 'Those who may invite, in their workspaces.';

drop policy if exists invitations_live on public.invitations;
create policy invitations_live on public.invitations as restrictive for all to authenticated
using (deleted_at is null);
comment on policy invitations_live on public.invitations is 'What is in the trash is not there.';
