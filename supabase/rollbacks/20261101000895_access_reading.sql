delete from public.notification_kinds
where kind like 'billing.%';
drop function billing.tell_of_change;
drop function billing.plan_name;
drop function billing.tell;
drop function billing.day;
drop view billing.billable_members;
drop function billing.access;
