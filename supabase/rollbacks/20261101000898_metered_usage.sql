delete from public.notification_kinds
where kind in ('billing.usage_cap');
drop function billing.usage_now;
drop function billing.push_usage;
drop function billing.rebuild_usage;
drop function billing.record_usage;
drop function billing.record_usage_many;
drop function billing.usage_flaw;
drop function billing.count_usage;
drop function billing.usage_period;
drop table billing.usage_pushes;
drop table billing.usage_periods;
drop table billing.usage_hours;
drop table billing.usage_events;
