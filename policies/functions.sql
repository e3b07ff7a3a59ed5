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
