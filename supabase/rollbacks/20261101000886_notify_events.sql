select audit.unwatch('notify.settings'), audit.unwatch('notify.brands');
drop trigger suspended_workspaces_tell on authz.suspended_workspaces;
drop trigger usage_counters_tell on billing.usage_counters;
drop trigger transactions_tell on ledger.transactions;
drop trigger ticket_status_changes_tell on public.ticket_status_changes;
drop trigger tasks_tell on public.tasks;
drop trigger tasks_tell_of_new on public.tasks;
drop trigger workspace_members_tell on public.workspace_members;
drop trigger invitations_tell on public.invitations;
drop function
notify.nudge(), notify.forget_person(uuid, text[], text),
public.unsubscribe(text, boolean), public.receive_mail_event(text, jsonb), public.settle_delivery(jsonb),
public.claim_deliveries(integer), public.set_brand(uuid, text, text, text, boolean, boolean),
notify.settle_delivery(jsonb), notify.claim_deliveries(integer),
notify.set_brand(uuid, text, text, text, boolean, boolean), notify.send_auth_email(jsonb),
notify.mail_for_auth(text, uuid, text, text, text, text), notify.url_encode(text), notify.tell_of_suspension(),
notify.tell_of_limit(),
notify.tell_of_payment(), notify.amount(bigint, text), notify.tell_of_status(), notify.tell_of_task(),
notify.tell_of_member(), notify.mail_invitation(uuid, uuid, text), notify.tell_of_invitation(), notify.actor_name();
delete from public.notification_kinds;
