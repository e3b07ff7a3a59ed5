-- The way back: what policies/ said before.

revoke all on schema authz, ops, tenancy, billing, audit, ledger, notify from authenticated, service_role;
revoke all on function ops.now() from authenticated, service_role;
revoke all on function ops.is_allowed(text) from authenticated, service_role;
revoke all on function authz.claims() from authenticated, service_role;
revoke all on function authz.user_id() from authenticated, service_role;
revoke all on function authz.workspaces_with(text) from authenticated;
revoke all on function authz.refuse_estimates() from authenticated;
revoke all on function ops.raise_http(integer, text, text, jsonb, text, jsonb) from authenticated;
revoke all on function authz.people() from authenticated;
revoke all on function authz.visible_roles() from authenticated;
revoke all on function authz.joined_projects() from authenticated;
revoke all on function billing.usage() from authenticated;
revoke all on function billing.usage_now() from authenticated;
revoke all on function billing.invoices() from authenticated;
revoke all on function tenancy.trash() from authenticated;
revoke all on function tenancy.search(uuid, text, text[], integer) from authenticated;
revoke all on function tenancy.search_words(text) from authenticated;
revoke all on function tenancy.search_parts(text) from authenticated;
revoke all on function tenancy.search_mark(uuid) from authenticated;
revoke all on function tenancy.search_query(uuid, text[], text) from authenticated;
revoke all on function tenancy.search_candidates(uuid, text[], regclass[], text, integer) from authenticated;
revoke all on function tenancy.searchable_tables(text[]) from authenticated;
revoke all on function tenancy.similar_words(uuid, text[]) from authenticated;
revoke all on function tenancy.search_text(text) from authenticated;
revoke all on function public.search(uuid, text, text[], integer) from authenticated;
revoke all on function public.create_workspace(text, text) from authenticated;
revoke all on function tenancy.create_workspace(text, text) from authenticated;
revoke all on function public.delete_workspace(uuid) from authenticated;
revoke all on function tenancy.delete_workspace(uuid) from authenticated;
revoke all on function public.restore_workspace(uuid) from authenticated;
revoke all on function tenancy.restore_workspace(uuid) from authenticated;
revoke all on function public.my_workspaces() from authenticated;
revoke all on function tenancy.my_workspaces() from authenticated;
revoke all on function public.my_permissions(uuid) from authenticated;
revoke all on function tenancy.my_permissions(uuid) from authenticated;
revoke all on function public.set_member_role(uuid, uuid, text) from authenticated;
revoke all on function tenancy.set_member_role(uuid, uuid, text) from authenticated;
revoke all on function public.remove_member(uuid, uuid) from authenticated;
revoke all on function tenancy.remove_member(uuid, uuid) from authenticated;
revoke all on function public.leave_workspace(uuid) from authenticated;
revoke all on function tenancy.leave_workspace(uuid) from authenticated;
revoke all on function public.transfer_ownership(uuid, uuid) from authenticated;
revoke all on function tenancy.transfer_ownership(uuid, uuid) from authenticated;
revoke all on function public.invite_member(uuid, text, text) from authenticated;
revoke all on function tenancy.invite_member(uuid, text, text) from authenticated;
revoke all on function public.resend_invitation(uuid, uuid) from authenticated;
revoke all on function tenancy.resend_invitation(uuid, uuid) from authenticated;
revoke all on function public.revoke_invitation(uuid, uuid) from authenticated;
revoke all on function tenancy.revoke_invitation(uuid, uuid) from authenticated;
revoke all on function public.preview_invitation(text) from authenticated;
revoke all on function tenancy.preview_invitation(text) from authenticated;
revoke all on function public.accept_invitation(text) from authenticated;
revoke all on function tenancy.accept_invitation(text) from authenticated;
revoke all on function public.create_role(uuid, text, text, text[], text) from authenticated;
revoke all on function tenancy.create_role(uuid, text, text, text[], text) from authenticated;
revoke all on function public.update_role(uuid, uuid, text, text[], text) from authenticated;
revoke all on function tenancy.update_role(uuid, uuid, text, text[], text) from authenticated;
revoke all on function public.delete_role(uuid, uuid) from authenticated;
revoke all on function tenancy.delete_role(uuid, uuid) from authenticated;
revoke all on function public.restore(uuid, text, uuid) from authenticated;
revoke all on function tenancy.restore(uuid, text, uuid) from authenticated;
revoke all on function public.record_charge(uuid, uuid, numeric, text, text) from authenticated;
revoke all on function ledger.record_charge(uuid, uuid, numeric, text, text) from authenticated;
revoke all on function public.record_payment(uuid, uuid, numeric, text, text) from authenticated;
revoke all on function ledger.record_payment(uuid, uuid, numeric, text, text) from authenticated;
revoke all on function public.record_refund(uuid, uuid, numeric, text, text) from authenticated;
revoke all on function ledger.record_refund(uuid, uuid, numeric, text, text) from authenticated;
revoke all on function public.write_off(uuid, uuid, numeric, text, text) from authenticated;
revoke all on function ledger.write_off(uuid, uuid, numeric, text, text) from authenticated;
revoke all on function public.mark_notifications_read(uuid[]) from authenticated;
revoke all on function notify.mark_read(uuid[]) from authenticated;
revoke all on function public.mark_all_notifications_read(uuid) from authenticated;
revoke all on function notify.mark_all_read(uuid) from authenticated;
revoke all on function public.unread_notification_count(uuid) from authenticated;
revoke all on function public.set_brand(uuid, text, text, text, boolean, boolean) from authenticated;
revoke all on function notify.set_brand(uuid, text, text, text, boolean, boolean) from authenticated;
revoke all on function public.billing_access(uuid) from authenticated;
revoke all on function billing.read_access(uuid) from authenticated;
revoke all on function public.billing_details(uuid) from authenticated;
revoke all on function billing.details(uuid) from authenticated;
revoke all on function public.set_billing_details(uuid, jsonb) from authenticated;
revoke all on function billing.set_details(uuid, jsonb) from authenticated;
revoke all on function public.start_trial(uuid) from authenticated;
revoke all on function billing.start_trial(uuid) from authenticated;
revoke all on function public.start_checkout(uuid, text, bigint, text, text) from authenticated;
revoke all on function billing.start_checkout(uuid, text, bigint, text, text) from authenticated;
revoke all on function public.start_portal(uuid, text) from authenticated;
revoke all on function billing.start_portal(uuid, text) from authenticated;
revoke all on function public.preview_change(uuid, text, bigint) from authenticated;
revoke all on function billing.preview_change(uuid, text, bigint) from authenticated;
revoke all on function public.change_plan(uuid, text, bigint, text) from authenticated;
revoke all on function billing.change_plan(uuid, text, bigint, text) from authenticated;
revoke all on function notify.may_see(uuid, regclass, uuid, uuid) from postgres;
revoke all on function public.claim_deliveries(integer) from service_role;
revoke all on function notify.claim_deliveries(integer) from service_role;
revoke all on function public.settle_delivery(jsonb) from service_role;
revoke all on function notify.settle_delivery(jsonb) from service_role;
revoke all on function public.receive_mail_event(text, jsonb) from service_role;
revoke all on function notify.receive(text, jsonb) from service_role;
revoke all on function public.unsubscribe(text, boolean) from service_role;
revoke all on function notify.unsubscribe(text, boolean) from service_role;
revoke all on function public.receive_stripe_events(jsonb) from service_role;
revoke all on function billing.receive_many(jsonb) from service_role;
revoke all on function public.take_stripe_call(jsonb, text) from service_role;
revoke all on function billing.take_call(jsonb, text) from service_role;
revoke all on function public.settle_stripe_call(jsonb, jsonb) from service_role;
revoke all on function billing.settle_call(jsonb, jsonb) from service_role;
revoke all on function public.stripe_result(uuid) from service_role;
revoke all on function billing.result_of(uuid) from service_role;
revoke all on function public.record_usage(uuid, text, bigint, text, timestamptz) from service_role;
revoke all on function billing.record_usage(uuid, text, bigint, text, timestamptz) from service_role;
revoke all on function public.record_usage_many(uuid, jsonb) from service_role;
revoke all on function billing.record_usage_many(uuid, jsonb) from service_role;
revoke all on function public.claim_stripe_calls(integer) from service_role;
revoke all on function billing.claim_calls(integer) from service_role;
revoke all on function public.finish_stripe_call(jsonb) from service_role;
revoke all on function billing.finish_call(jsonb) from service_role;
revoke all on schema notify from supabase_auth_admin;
revoke all on function notify.send_auth_email(jsonb) from supabase_auth_admin;
revoke all on schema jobs from rowhouse_worker;
revoke all on function jobs.register(jsonb) from rowhouse_worker;
revoke all on function jobs.claim(text[], integer, text, double precision) from rowhouse_worker;
revoke all on function jobs.claim_for_postgres(text[], integer) from rowhouse_worker;
revoke all on function jobs.execute(uuid, double precision) from rowhouse_worker;
revoke all on function jobs.heartbeat(uuid[], double precision) from rowhouse_worker;
revoke all on function jobs.complete(uuid, bigint[]) from rowhouse_worker;
revoke all on function jobs.fail(uuid, jsonb) from rowhouse_worker;
revoke all on function jobs.release(uuid, bigint[], double precision) from rowhouse_worker;
revoke all on schema notify from rowhouse_worker;
revoke all on function notify.take(uuid) from rowhouse_worker;
revoke all on function notify.accepted(uuid, jsonb) from rowhouse_worker;
revoke all on function notify.refused(uuid, text, boolean, boolean) from rowhouse_worker;
revoke all on function notify.taken_before(uuid, text) from rowhouse_worker;
revoke all on schema billing from rowhouse_worker;
revoke all on function billing.take_call(jsonb, text) from rowhouse_worker;
revoke all on function billing.settle_call(jsonb, jsonb) from rowhouse_worker;


drop policy if exists workspaces_select on public.workspaces;
drop policy if exists workspaces_update on public.workspaces;
revoke all on public.workspaces from authenticated, service_role;
revoke all on public.workspaces from authenticated;


revoke all on public.workspace_usage from authenticated;


drop policy if exists workspace_members_select on public.workspace_members;
revoke all on public.workspace_members from authenticated, service_role;


revoke all on public.trial_balance from authenticated;


revoke all on public.trash from authenticated;


drop policy if exists tickets_select on public.tickets;
drop policy if exists tickets_insert on public.tickets;
drop policy if exists tickets_update on public.tickets;
drop policy if exists tickets_delete on public.tickets;
drop policy if exists tickets_live on public.tickets;
revoke all on public.tickets from authenticated;
revoke all on public.tickets from service_role;


drop policy if exists ticket_transitions_select on public.ticket_transitions;
revoke all on public.ticket_transitions from authenticated, service_role;


drop policy if exists ticket_status_changes_select on public.ticket_status_changes;
drop policy if exists ticket_status_changes_live on public.ticket_status_changes;
revoke all on public.ticket_status_changes from authenticated;
revoke all on public.ticket_status_changes from service_role;


revoke all on public.ticket_balances from authenticated;


drop policy if exists tasks_select on public.tasks;
drop policy if exists tasks_insert on public.tasks;
drop policy if exists tasks_update on public.tasks;
drop policy if exists tasks_delete on public.tasks;
drop policy if exists tasks_private on public.tasks;
drop policy if exists tasks_live on public.tasks;
revoke all on public.tasks from authenticated;
revoke all on public.tasks from service_role;


drop policy if exists roles_select on public.roles;
revoke all on public.roles from authenticated, service_role;


drop policy if exists role_permissions_select on public.role_permissions;
revoke all on public.role_permissions from authenticated, service_role;


drop policy if exists projects_select on public.projects;
drop policy if exists projects_insert on public.projects;
drop policy if exists projects_update on public.projects;
drop policy if exists projects_delete on public.projects;
drop policy if exists projects_private on public.projects;
drop policy if exists projects_live on public.projects;
revoke all on public.projects from authenticated;
revoke all on public.projects from service_role;


drop policy if exists project_members_select on public.project_members;
drop policy if exists project_members_insert on public.project_members;
drop policy if exists project_members_delete on public.project_members;
drop policy if exists project_members_private on public.project_members;
drop policy if exists project_members_live on public.project_members;
revoke all on public.project_members from authenticated;
revoke all on public.project_members from service_role;


drop policy if exists profiles_select on public.profiles;
drop policy if exists profiles_update on public.profiles;
revoke all on public.profiles from authenticated, service_role;
revoke all on public.profiles from authenticated;


drop policy if exists permissions_select on public.permissions;
revoke all on public.permissions from authenticated, service_role;


drop policy if exists notifications_select on public.notifications;
revoke all on public.notifications from authenticated, service_role;


drop policy if exists notification_preferences_select on public.notification_preferences;
drop policy if exists notification_preferences_insert on public.notification_preferences;
drop policy if exists notification_preferences_update on public.notification_preferences;
drop policy if exists notification_preferences_delete on public.notification_preferences;
revoke all on public.notification_preferences from authenticated;
revoke all on public.notification_preferences from service_role;


drop policy if exists notification_kinds_select on public.notification_kinds;
revoke all on public.notification_kinds from authenticated, service_role;


drop policy if exists notification_hours_select on public.notification_hours;
drop policy if exists notification_hours_insert on public.notification_hours;
drop policy if exists notification_hours_update on public.notification_hours;
drop policy if exists notification_hours_delete on public.notification_hours;
revoke all on public.notification_hours from authenticated;
revoke all on public.notification_hours from service_role;


revoke all on public.metered_usage from authenticated;


drop policy if exists accounts_select on ledger.accounts;
drop policy if exists balances_select on ledger.balances;
drop policy if exists transactions_select on ledger.transactions;
drop policy if exists entries_select on ledger.entries;
revoke all on ledger.accounts from authenticated;
revoke all on ledger.balances from authenticated;
revoke all on ledger.transactions from authenticated;
revoke all on ledger.entries from authenticated;


drop policy if exists invitations_select on public.invitations;
drop policy if exists invitations_live on public.invitations;
revoke all on public.invitations from authenticated, service_role;


drop policy if exists customers_select on public.customers;
drop policy if exists customers_insert on public.customers;
drop policy if exists customers_update on public.customers;
drop policy if exists customers_delete on public.customers;
drop policy if exists customers_live on public.customers;
revoke all on public.customers from authenticated;
revoke all on public.customers from service_role;


revoke all on public.customer_balances from authenticated;


revoke all on public.cash_report from authenticated;


revoke all on public.billing_invoices from authenticated;


drop policy if exists inbox_select on audit.inbox;
drop policy if exists entries_select on audit.entries;
revoke all on public.audit_log from authenticated;
revoke all on audit.inbox, audit.entries from authenticated;


revoke all on public.account_statement from authenticated;
