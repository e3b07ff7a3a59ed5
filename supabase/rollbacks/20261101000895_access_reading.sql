delete from public.notification_kinds
where kind like 'billing.%';
drop function billing.extend_trial;
drop function billing.begin_trial;
drop function billing.advance;
drop function billing.take_step;
drop function billing.plan_card_reminders;
drop function billing.plan_reminders;
drop function billing.require_reason;
drop function billing.override_dunning;
drop function billing.follow_dunning;
drop table billing.steps;
drop function billing.tell_of_change;
drop function billing.plan_name;
drop function billing.tell;
drop function billing.day;
drop view billing.billable_members;
drop function billing.access;
