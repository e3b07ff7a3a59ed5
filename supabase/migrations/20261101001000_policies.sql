-- Why: what policies/ says now of who may do what.
-- Locks: each table named, for as long as it takes to replace its policies.
-- Workers: need not stop.

-- policies/account_statement.sql sha256:38b19394b9db7c3160e90a297f7d3ea1c719f1fcfd4281a05bd45f912760c75b

grant select on public.account_statement to authenticated;

-- policies/audit_log.sql sha256:2f76b67d11a7d188ddb5c5fbae68939a5feab1f1e446e0ca691bd633df43e3d2

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

-- policies/billing_invoices.sql sha256:9991d1fba50f2d7104c17a62def3798bde5d1aed4bc12e57f632875a0abf4427

grant select on public.billing_invoices to authenticated;

-- policies/cash_report.sql sha256:fdf4e5a2fe25c7c7a50b3ab734e5aea0ab95b50ee05bcab81461ea9862cec08b

grant select on public.cash_report to authenticated;

-- policies/customer_balances.sql sha256:585dde1e35b77556d581e78c3a6dfb6f1f25c0a7ad047a7b2301decf3b41fc5e

grant select on public.customer_balances to authenticated;

-- policies/customers.sql sha256:85c4a9e10d1784ad418805185ea7827063e08a421388e94893226c3c2f36e360

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

-- policies/invitations.sql sha256:d1a93827b69a901739a22236ea62bc318ff49604c84332275a67e8d042882bcf

grant select on public.invitations to authenticated, service_role;

drop policy if exists invitations_select on public.invitations;
create policy invitations_select on public.invitations for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('members.invite') limit authz.refuse_estimates())));
comment on policy invitations_select on public.invitations is 'Those who may invite, in their workspaces.';

drop policy if exists invitations_live on public.invitations;
create policy invitations_live on public.invitations as restrictive for all to authenticated
using (deleted_at is null);
comment on policy invitations_live on public.invitations is 'What is in the trash is not there.';

-- policies/ledger.sql sha256:04b581a143c7b3f032ae99cb409d10021d8097f4f44267d22e50f935104d807e

-- Read by the views of public, which read as their caller. Written by functions alone.
grant select (
    workspace_id, id, code, name, kind, currency, refuses_overdraft, subject, subject_id, created_at
) on ledger.accounts to authenticated;
grant select (
    workspace_id, account_id, balance, entry_count
) on ledger.balances to authenticated;
grant select (
    workspace_id, id, kind, description, occurred_on, posted_at, posted_by, amount, subject, subject_id, method,
    refunds_id, reverses_id
) on ledger.transactions to authenticated;
grant select (
    workspace_id, account_id, number, transaction_id, amount, balance
) on ledger.entries to authenticated;

drop policy if exists accounts_select on ledger.accounts;
create policy accounts_select on ledger.accounts for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('ledger.read') limit authz.refuse_estimates())));
comment on policy accounts_select on ledger.accounts is 'Those whose role allows it, in their workspaces.';

drop policy if exists balances_select on ledger.balances;
create policy balances_select on ledger.balances for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('ledger.read') limit authz.refuse_estimates())));
comment on policy balances_select on ledger.balances is 'Those whose role allows it, in their workspaces.';

drop policy if exists transactions_select on ledger.transactions;
create policy transactions_select on ledger.transactions for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('ledger.read') limit authz.refuse_estimates())));
comment on policy transactions_select on ledger.transactions is 'Those whose role allows it, in their workspaces.';

drop policy if exists entries_select on ledger.entries;
create policy entries_select on ledger.entries for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('ledger.read') limit authz.refuse_estimates())));
comment on policy entries_select on ledger.entries is 'Those whose role allows it, in their workspaces.';

-- policies/metered_usage.sql sha256:c8ba4dd24f913d12d8661413079934196c08966c6f7bea6a5ed99e15b3a67501

grant select on public.metered_usage to authenticated;

-- policies/notification_hours.sql sha256:a65e56728d0d98b81358a17f24241628a29136d5b3d224878c941c23bbe21a90

grant select, delete on public.notification_hours to authenticated;
grant insert (user_id, digest_hour, digest_weekday, quiet_from, quiet_until)
on public.notification_hours to authenticated;
grant update (digest_hour, digest_weekday, quiet_from, quiet_until) on public.notification_hours to authenticated;
grant select, insert, update, delete on public.notification_hours to service_role;

drop policy if exists notification_hours_select on public.notification_hours;
create policy notification_hours_select on public.notification_hours for select to authenticated
using (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())));
comment on policy notification_hours_select on public.notification_hours is 'Everybody their own.';

drop policy if exists notification_hours_insert on public.notification_hours;
create policy notification_hours_insert on public.notification_hours for insert to authenticated
with check (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())));
comment on policy notification_hours_insert on public.notification_hours is 'Everybody their own.';

drop policy if exists notification_hours_update on public.notification_hours;
create policy notification_hours_update on public.notification_hours for update to authenticated
using (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())))
with check (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())));
comment on policy notification_hours_update on public.notification_hours is 'Everybody their own.';

drop policy if exists notification_hours_delete on public.notification_hours;
create policy notification_hours_delete on public.notification_hours for delete to authenticated
using (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())));
comment on policy notification_hours_delete on public.notification_hours is 'Everybody their own.';

-- policies/notification_kinds.sql sha256:80417b9faadb4c98ee34cb7aafd2e36d3b13aecd91f3f3b94e3c4aca3eed993f

grant select on public.notification_kinds to authenticated, service_role;

drop policy if exists notification_kinds_select on public.notification_kinds;
create policy notification_kinds_select on public.notification_kinds for select to authenticated
using ((select authz.user_id()) is not null);
comment on policy notification_kinds_select on public.notification_kinds is 'Whoever is signed in: it is a catalogue.';

-- policies/notification_preferences.sql sha256:a28265031e0c5e3195ccabed61dab32ddff5436fd2ad5f524fc87fae22cfb359

grant select, delete on public.notification_preferences to authenticated;
grant insert (user_id, workspace_id, kind, frequency, is_muted) on public.notification_preferences to authenticated;
grant update (frequency, is_muted) on public.notification_preferences to authenticated;
grant select, insert, update, delete on public.notification_preferences to service_role;

drop policy if exists notification_preferences_select on public.notification_preferences;
create policy notification_preferences_select on public.notification_preferences for select to authenticated
using (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())));
comment on policy notification_preferences_select on public.notification_preferences is 'Everybody their own.';

drop policy if exists notification_preferences_insert on public.notification_preferences;
create policy notification_preferences_insert on public.notification_preferences for insert to authenticated
with check (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())));
comment on policy notification_preferences_insert on public.notification_preferences is 'Everybody their own.';

drop policy if exists notification_preferences_update on public.notification_preferences;
create policy notification_preferences_update on public.notification_preferences for update to authenticated
using (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())))
with check (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())));
comment on policy notification_preferences_update on public.notification_preferences is 'Everybody their own.';

drop policy if exists notification_preferences_delete on public.notification_preferences;
create policy notification_preferences_delete on public.notification_preferences for delete to authenticated
using (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())));
comment on policy notification_preferences_delete on public.notification_preferences is 'Everybody their own.';

-- policies/notifications.sql sha256:02e58b4c23948039483e25c81e6cdb4f028efebcc3f804f8a222890e5ca1e59e

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

-- policies/permissions.sql sha256:06c9101aeb71263f155536407dd9548f997fa811ba17d4a2b5aef07fdcc358f5

grant select on public.permissions to authenticated, service_role;

drop policy if exists permissions_select on public.permissions;
create policy permissions_select on public.permissions for select to authenticated
using ((select authz.user_id()) is not null);
comment on policy permissions_select on public.permissions is 'Whoever is signed in: it is a catalogue.';

-- policies/profiles.sql sha256:0e2537cec3632ff9bb06a4cb60753dc8e27eae54c5341ebcdca2c9b537f7df55

grant select on public.profiles to authenticated, service_role;
grant update (display_name, avatar_url, locale, time_zone) on public.profiles to authenticated;

drop policy if exists profiles_select on public.profiles;
create policy profiles_select on public.profiles for select to authenticated
using (id = any (array(select authz.people() limit authz.refuse_estimates())));
comment on policy profiles_select on public.profiles is 'Oneself, and fellow members.';

drop policy if exists profiles_update on public.profiles;
create policy profiles_update on public.profiles for update to authenticated
using (id = (select authz.user_id()))
with check (id = (select authz.user_id()));
comment on policy profiles_update on public.profiles is 'Oneself.';

-- policies/project_members.sql sha256:f35da9df3543f69b1730d275834c9cd6bdd6d6333a2bfbb5170fce84be281333

grant select, delete on public.project_members to authenticated;
grant insert (workspace_id, id, project_id, user_id) on public.project_members to authenticated;
grant select, insert, update, delete on public.project_members to service_role;

drop policy if exists project_members_select on public.project_members;
create policy project_members_select on public.project_members for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('projects.read') limit authz.refuse_estimates())));
comment on policy project_members_select on public.project_members is
'Those whose role allows it, in their workspaces.';

drop policy if exists project_members_insert on public.project_members;
create policy project_members_insert on public.project_members for insert to authenticated
with check (workspace_id = any (array(select authz.workspaces_with('projects.update') limit authz.refuse_estimates())));
comment on policy project_members_insert on public.project_members is
'Those whose role allows it, in their workspaces.';

drop policy if exists project_members_delete on public.project_members;
create policy project_members_delete on public.project_members for delete to authenticated
using (workspace_id = any (array(select authz.workspaces_with('projects.update') limit authz.refuse_estimates())));
comment on policy project_members_delete on public.project_members is
'Those whose role allows it, in their workspaces.';

-- On top of the role: only through a project one is in, so that nobody adds themselves.
drop policy if exists project_members_private on public.project_members;
create policy project_members_private on public.project_members as restrictive for all to authenticated
using (
    not project_is_private
    or (workspace_id, project_id) in (
        select joined.workspace_id, joined.project_id from authz.joined_projects() as joined
    )
    or workspace_id = any (array(select authz.workspaces_with('projects.read_private')))
);
comment on policy project_members_private on public.project_members is
'Who is in a private project: only for those who see it.';

drop policy if exists project_members_live on public.project_members;
create policy project_members_live on public.project_members as restrictive for all to authenticated
using (deleted_at is null);
comment on policy project_members_live on public.project_members is 'What is in the trash is not there.';

-- policies/projects.sql sha256:106dbbe2f35a912676e49a5b93e0518581df5ce4219deb1163194a0cb2d7948d

grant select, delete on public.projects to authenticated;
grant insert (workspace_id, id, name, description, is_private, lead_id) on public.projects to authenticated;
grant update (name, description, is_private, lead_id) on public.projects to authenticated;
grant select, insert, update, delete on public.projects to service_role;

drop policy if exists projects_select on public.projects;
create policy projects_select on public.projects for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('projects.read') limit authz.refuse_estimates())));
comment on policy projects_select on public.projects is 'Those whose role allows it, in their workspaces.';

drop policy if exists projects_insert on public.projects;
create policy projects_insert on public.projects for insert to authenticated
with check (workspace_id = any (array(select authz.workspaces_with('projects.create') limit authz.refuse_estimates())));
comment on policy projects_insert on public.projects is 'Those whose role allows it, in their workspaces.';

drop policy if exists projects_update on public.projects;
create policy projects_update on public.projects for update to authenticated
using (workspace_id = any (array(select authz.workspaces_with('projects.update') limit authz.refuse_estimates())))
with check (workspace_id = any (array(select authz.workspaces_with('projects.update') limit authz.refuse_estimates())));
comment on policy projects_update on public.projects is 'Those whose role allows it, in their workspaces.';

drop policy if exists projects_delete on public.projects;
create policy projects_delete on public.projects for delete to authenticated
using (workspace_id = any (array(select authz.workspaces_with('projects.delete') limit authz.refuse_estimates())));
comment on policy projects_delete on public.projects is 'Those whose role allows it, in their workspaces.';

-- On top of the role: what the row itself says.
drop policy if exists projects_private on public.projects;
create policy projects_private on public.projects as restrictive for all to authenticated
using (
    not is_private
    or lead_id = (select authz.user_id())
    or (workspace_id, id) in (select joined.workspace_id, joined.project_id from authz.joined_projects() as joined)
    or workspace_id = any (array(select authz.workspaces_with('projects.read_private')))
);
comment on policy projects_private on public.projects is
'A private project: only its lead, its members and those who may see all of them.';

drop policy if exists projects_live on public.projects;
create policy projects_live on public.projects as restrictive for all to authenticated
using (deleted_at is null);
comment on policy projects_live on public.projects is 'What is in the trash is not there.';

-- policies/role_permissions.sql sha256:302c7f934cd3f41f810ad1b29c42888c144c6710eb81151e91b02ed2601f138e

grant select on public.role_permissions to authenticated, service_role;

drop policy if exists role_permissions_select on public.role_permissions;
create policy role_permissions_select on public.role_permissions for select to authenticated
using (role_id = any (array(select authz.visible_roles() limit authz.refuse_estimates())));
comment on policy role_permissions_select on public.role_permissions is
'The system roles, and the custom ones of one''s workspaces.';

-- policies/roles.sql sha256:1c8bba49f545e5a7056be12c3ecf09cd151fa08b2507d6fc3c12aff3223dd54d

grant select on public.roles to authenticated, service_role;

drop policy if exists roles_select on public.roles;
create policy roles_select on public.roles for select to authenticated
using (id = any (array(select authz.visible_roles() limit authz.refuse_estimates())));
comment on policy roles_select on public.roles is 'The system roles, and the custom ones of one''s workspaces.';

-- policies/tasks.sql sha256:4989d4e7044a2804d86818eaaed7842e25820b07214307e673edd8a12918a729

grant select, delete on public.tasks to authenticated;
grant insert (workspace_id, id, project_id, title, notes, status, due_on, assignee_id)
on public.tasks to authenticated;
grant update (project_id, title, notes, status, due_on, assignee_id) on public.tasks to authenticated;
grant select, insert, update, delete on public.tasks to service_role;

drop policy if exists tasks_select on public.tasks;
create policy tasks_select on public.tasks for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('tasks.read') limit authz.refuse_estimates())));
comment on policy tasks_select on public.tasks is 'Those whose role allows it, in their workspaces.';

drop policy if exists tasks_insert on public.tasks;
create policy tasks_insert on public.tasks for insert to authenticated
with check (workspace_id = any (array(select authz.workspaces_with('tasks.create') limit authz.refuse_estimates())));
comment on policy tasks_insert on public.tasks is 'Those whose role allows it, in their workspaces.';

drop policy if exists tasks_update on public.tasks;
create policy tasks_update on public.tasks for update to authenticated
using (workspace_id = any (array(select authz.workspaces_with('tasks.update') limit authz.refuse_estimates())))
with check (workspace_id = any (array(select authz.workspaces_with('tasks.update') limit authz.refuse_estimates())));
comment on policy tasks_update on public.tasks is 'Those whose role allows it, in their workspaces.';

drop policy if exists tasks_delete on public.tasks;
create policy tasks_delete on public.tasks for delete to authenticated
using (workspace_id = any (array(select authz.workspaces_with('tasks.delete') limit authz.refuse_estimates())));
comment on policy tasks_delete on public.tasks is 'Those whose role allows it, in their workspaces.';

-- On top of the role: a task is seen by those who see its project.
drop policy if exists tasks_private on public.tasks;
create policy tasks_private on public.tasks as restrictive for all to authenticated
using (
    not project_is_private
    or (workspace_id, project_id) in (
        select joined.workspace_id, joined.project_id from authz.joined_projects() as joined
    )
    or workspace_id = any (array(select authz.workspaces_with('projects.read_private')))
);
comment on policy tasks_private on public.tasks is 'Of a private project: only for those who see it.';

drop policy if exists tasks_live on public.tasks;
create policy tasks_live on public.tasks as restrictive for all to authenticated
using (deleted_at is null);
comment on policy tasks_live on public.tasks is 'What is in the trash is not there.';

-- policies/ticket_balances.sql sha256:8b62ee14b1c4d5dd13f8baa5d4f41ba2a72688fcf746edbc3e271ab594a54212

grant select on public.ticket_balances to authenticated;

-- policies/ticket_status_changes.sql sha256:ea51836acb9be7ae302d9d5915691669a0ac1e55a6b4a9f603d3102fd2630934

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

-- policies/ticket_transitions.sql sha256:0380221ba5267b2c36d1be7c6280a857b9ae4896204415e7df05bb2cdd98342c

grant select on public.ticket_transitions to authenticated, service_role;

drop policy if exists ticket_transitions_select on public.ticket_transitions;
create policy ticket_transitions_select on public.ticket_transitions for select to authenticated
using ((select authz.user_id()) is not null);
comment on policy ticket_transitions_select on public.ticket_transitions is 'Whoever is signed in: it is a catalogue.';

-- policies/tickets.sql sha256:435f7e7f63b05145dc225e473f1f5fcf68352a665574b03fda6a04886aab2e5a

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

-- policies/trash.sql sha256:bbd3a3074d2f98d50ff1114260def8afbbcf7fa4685304452579311dea903d6b

grant select on public.trash to authenticated;

-- policies/trial_balance.sql sha256:405434c84efbd47f96c7c1db09142633b9403a26c2dd1beedc6d7daabd2d31a5

grant select on public.trial_balance to authenticated;

-- policies/workspace_members.sql sha256:0b394b9237eb95bbadc74605250fe242e0d5b6b3d8dfe69b6b3417af02b94c1d

grant select on public.workspace_members to authenticated, service_role;

drop policy if exists workspace_members_select on public.workspace_members;
create policy workspace_members_select on public.workspace_members for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('members.read') limit authz.refuse_estimates())));
comment on policy workspace_members_select on public.workspace_members is 'Fellow members.';

-- policies/workspace_usage.sql sha256:f1274389f9d474efc4a06ce3bc5db9d1a4497b07187005185a5238a302cd0c68

grant select on public.workspace_usage to authenticated;

-- policies/workspaces.sql sha256:e9116899d9d1ba2e07ab609d1eda65f8a65a901c92ba1beba2a15f1aa887aa6a

grant select on public.workspaces to authenticated, service_role;
grant update (slug, name, require_mfa) on public.workspaces to authenticated;

drop policy if exists workspaces_select on public.workspaces;
create policy workspaces_select on public.workspaces for select to authenticated
using (id = any (array(select authz.workspaces_with('workspace.read') limit authz.refuse_estimates())));
comment on policy workspaces_select on public.workspaces is 'Its members.';

drop policy if exists workspaces_update on public.workspaces;
create policy workspaces_update on public.workspaces for update to authenticated
using (id = any (array(select authz.workspaces_with('workspace.update') limit authz.refuse_estimates())))
with check (id = any (array(select authz.workspaces_with('workspace.update') limit authz.refuse_estimates())));
comment on policy workspaces_update on public.workspaces is 'Those whose role allows it.';

-- policies/functions.sql sha256:f2b87c9a0f03f40bfe4e59b8b9658b867ad8ef789b8a966b5422f2de7f23f829

-- Every function that a role of the API may call, and the schemas it must enter for that. What is
-- not here runs for nobody but its owner.

grant usage on schema authz, ops, tenancy, billing, audit, ledger, notify to authenticated, service_role;

-- What policies and column defaults ask.
grant execute on function ops.now() to authenticated, service_role;
grant execute on function ops.is_allowed(text) to authenticated, service_role;
grant execute on function authz.claims() to authenticated, service_role;
grant execute on function authz.user_id() to authenticated, service_role;
grant execute on function authz.workspaces_with(text) to authenticated;
grant execute on function authz.refuse_estimates() to authenticated;
grant execute on function ops.raise_http(integer, text, text, jsonb, text, jsonb) to authenticated;
grant execute on function authz.people() to authenticated;
grant execute on function authz.visible_roles() to authenticated;
grant execute on function authz.joined_projects() to authenticated;
grant execute on function billing.usage() to authenticated;
grant execute on function billing.usage_now() to authenticated;
grant execute on function billing.invoices() to authenticated;
grant execute on function tenancy.trash() to authenticated;
-- search() runs as its caller, and asks these.
grant execute on function tenancy.search(uuid, text, text[], integer) to authenticated;
grant execute on function tenancy.search_words(text) to authenticated;
grant execute on function tenancy.search_parts(text) to authenticated;
grant execute on function tenancy.search_mark(uuid) to authenticated;
grant execute on function tenancy.search_query(uuid, text[], text) to authenticated;
grant execute on function tenancy.search_candidates(uuid, text[], regclass[], text, integer) to authenticated;
grant execute on function tenancy.searchable_tables(text[]) to authenticated;
grant execute on function tenancy.similar_words(uuid, text[]) to authenticated;
grant execute on function tenancy.search_text(text) to authenticated;
grant execute on function public.search(uuid, text, text[], integer) to authenticated;

-- What clients call, each with the definer function behind it.
grant execute on function public.create_workspace(text, text) to authenticated;
grant execute on function tenancy.create_workspace(text, text) to authenticated;
grant execute on function public.delete_workspace(uuid) to authenticated;
grant execute on function tenancy.delete_workspace(uuid) to authenticated;
grant execute on function public.restore_workspace(uuid) to authenticated;
grant execute on function tenancy.restore_workspace(uuid) to authenticated;
grant execute on function public.my_workspaces() to authenticated;
grant execute on function tenancy.my_workspaces() to authenticated;
grant execute on function public.my_permissions(uuid) to authenticated;
grant execute on function tenancy.my_permissions(uuid) to authenticated;
grant execute on function public.set_member_role(uuid, uuid, text) to authenticated;
grant execute on function tenancy.set_member_role(uuid, uuid, text) to authenticated;
grant execute on function public.remove_member(uuid, uuid) to authenticated;
grant execute on function tenancy.remove_member(uuid, uuid) to authenticated;
grant execute on function public.leave_workspace(uuid) to authenticated;
grant execute on function tenancy.leave_workspace(uuid) to authenticated;
grant execute on function public.transfer_ownership(uuid, uuid) to authenticated;
grant execute on function tenancy.transfer_ownership(uuid, uuid) to authenticated;
grant execute on function public.invite_member(uuid, text, text) to authenticated;
grant execute on function tenancy.invite_member(uuid, text, text) to authenticated;
grant execute on function public.resend_invitation(uuid, uuid) to authenticated;
grant execute on function tenancy.resend_invitation(uuid, uuid) to authenticated;
grant execute on function public.revoke_invitation(uuid, uuid) to authenticated;
grant execute on function tenancy.revoke_invitation(uuid, uuid) to authenticated;
grant execute on function public.preview_invitation(text) to authenticated;
grant execute on function tenancy.preview_invitation(text) to authenticated;
grant execute on function public.accept_invitation(text) to authenticated;
grant execute on function tenancy.accept_invitation(text) to authenticated;
grant execute on function public.create_role(uuid, text, text, text[], text) to authenticated;
grant execute on function tenancy.create_role(uuid, text, text, text[], text) to authenticated;
grant execute on function public.update_role(uuid, uuid, text, text[], text) to authenticated;
grant execute on function tenancy.update_role(uuid, uuid, text, text[], text) to authenticated;
grant execute on function public.delete_role(uuid, uuid) to authenticated;
grant execute on function tenancy.delete_role(uuid, uuid) to authenticated;
grant execute on function public.restore(uuid, text, uuid) to authenticated;
grant execute on function tenancy.restore(uuid, text, uuid) to authenticated;
grant execute on function public.record_charge(uuid, uuid, numeric, text, text) to authenticated;
grant execute on function ledger.record_charge(uuid, uuid, numeric, text, text) to authenticated;
grant execute on function public.record_payment(uuid, uuid, numeric, text, text) to authenticated;
grant execute on function ledger.record_payment(uuid, uuid, numeric, text, text) to authenticated;
grant execute on function public.record_refund(uuid, uuid, numeric, text, text) to authenticated;
grant execute on function ledger.record_refund(uuid, uuid, numeric, text, text) to authenticated;
grant execute on function public.write_off(uuid, uuid, numeric, text, text) to authenticated;
grant execute on function ledger.write_off(uuid, uuid, numeric, text, text) to authenticated;
grant execute on function public.mark_notifications_read(uuid[]) to authenticated;
grant execute on function notify.mark_read(uuid[]) to authenticated;
grant execute on function public.mark_all_notifications_read(uuid) to authenticated;
grant execute on function notify.mark_all_read(uuid) to authenticated;
grant execute on function public.unread_notification_count(uuid) to authenticated;
grant execute on function public.set_brand(uuid, text, text, text, boolean, boolean) to authenticated;
grant execute on function notify.set_brand(uuid, text, text, text, boolean, boolean) to authenticated;
grant execute on function public.billing_access(uuid) to authenticated;
grant execute on function billing.read_access(uuid) to authenticated;
grant execute on function public.billing_details(uuid) to authenticated;
grant execute on function billing.details(uuid) to authenticated;
grant execute on function public.set_billing_details(uuid, jsonb) to authenticated;
grant execute on function billing.set_details(uuid, jsonb) to authenticated;
grant execute on function public.start_trial(uuid) to authenticated;
grant execute on function billing.start_trial(uuid) to authenticated;
grant execute on function public.start_checkout(uuid, text, bigint, text, text) to authenticated;
grant execute on function billing.start_checkout(uuid, text, bigint, text, text) to authenticated;
grant execute on function public.start_portal(uuid, text) to authenticated;
grant execute on function billing.start_portal(uuid, text) to authenticated;
grant execute on function public.preview_change(uuid, text, bigint) to authenticated;
grant execute on function billing.preview_change(uuid, text, bigint) to authenticated;
grant execute on function public.change_plan(uuid, text, bigint, text) to authenticated;
grant execute on function billing.change_plan(uuid, text, bigint, text) to authenticated;

-- It belongs to authenticated, whose policies it asks; those who fan notifications out call it.
grant execute on function notify.may_see(uuid, regclass, uuid, uuid) to postgres;

-- What edge functions call, with the service role's key.
grant execute on function public.claim_deliveries(integer) to service_role;
grant execute on function notify.claim_deliveries(integer) to service_role;
grant execute on function public.settle_delivery(jsonb) to service_role;
grant execute on function notify.settle_delivery(jsonb) to service_role;
grant execute on function public.receive_mail_event(text, jsonb) to service_role;
grant execute on function notify.receive(text, jsonb) to service_role;
grant execute on function public.unsubscribe(text, boolean) to service_role;
grant execute on function notify.unsubscribe(text, boolean) to service_role;
grant execute on function public.receive_stripe_events(jsonb) to service_role;
grant execute on function billing.receive_many(jsonb) to service_role;
grant execute on function public.take_stripe_call(jsonb, text) to service_role;
grant execute on function billing.take_call(jsonb, text) to service_role;
grant execute on function public.settle_stripe_call(jsonb, jsonb) to service_role;
grant execute on function billing.settle_call(jsonb, jsonb) to service_role;
grant execute on function public.stripe_result(uuid) to service_role;
grant execute on function billing.result_of(uuid) to service_role;
grant execute on function public.record_usage(uuid, text, bigint, text, timestamptz) to service_role;
grant execute on function billing.record_usage(uuid, text, bigint, text, timestamptz) to service_role;
grant execute on function public.record_usage_many(uuid, jsonb) to service_role;
grant execute on function billing.record_usage_many(uuid, jsonb) to service_role;
grant execute on function public.claim_stripe_calls(integer) to service_role;
grant execute on function billing.claim_calls(integer) to service_role;
grant execute on function public.finish_stripe_call(jsonb) to service_role;
grant execute on function billing.finish_call(jsonb) to service_role;

-- Supabase Auth's hook.
grant usage on schema notify to supabase_auth_admin;
grant execute on function notify.send_auth_email(jsonb) to supabase_auth_admin;

-- What executors of jobs call, and all that they may: they read no table.
grant usage on schema jobs to rowhouse_worker;
grant execute on function jobs.register(jsonb) to rowhouse_worker;
grant execute on function jobs.claim(text[], integer, text, double precision) to rowhouse_worker;
grant execute on function jobs.claim_for_postgres(text[], integer) to rowhouse_worker;
grant execute on function jobs.execute(uuid, double precision) to rowhouse_worker;
grant execute on function jobs.heartbeat(uuid[], double precision) to rowhouse_worker;
grant execute on function jobs.complete(uuid, bigint[]) to rowhouse_worker;
grant execute on function jobs.fail(uuid, jsonb) to rowhouse_worker;
grant execute on function jobs.release(uuid, bigint[], double precision) to rowhouse_worker;
grant usage on schema notify to rowhouse_worker;
grant execute on function notify.take(uuid) to rowhouse_worker;
grant execute on function notify.accepted(uuid, jsonb) to rowhouse_worker;
grant execute on function notify.refused(uuid, text, boolean, boolean) to rowhouse_worker;
grant execute on function notify.taken_before(uuid, text) to rowhouse_worker;
grant usage on schema billing to rowhouse_worker;
grant execute on function billing.take_call(jsonb, text) to rowhouse_worker;
grant execute on function billing.settle_call(jsonb, jsonb) to rowhouse_worker;
