drop trigger suspended_workspaces_tell on authz.suspended_workspaces;
drop trigger usage_counters_tell on billing.usage_counters;
drop trigger transactions_tell on ledger.transactions;
drop trigger ticket_status_changes_tell on public.ticket_status_changes;
drop trigger tasks_tell on public.tasks;
drop trigger tasks_tell_of_new on public.tasks;
drop trigger workspace_members_tell on public.workspace_members;
drop trigger invitations_tell on public.invitations;
drop function
notify.tell_of_suspension(), notify.tell_of_limit(), notify.tell_of_payment(), notify.amount(bigint, text),
notify.tell_of_status(), notify.tell_of_task(), notify.tell_of_member(), notify.mail_invitation(uuid, uuid, text),
notify.tell_of_invitation(), notify.actor_name();
delete from public.notification_kinds;
