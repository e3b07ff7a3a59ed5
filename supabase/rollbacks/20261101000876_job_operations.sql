drop function
jobs.clear_cron_log(), jobs.watch(), jobs.current_alarms(), jobs.stats(), jobs.discard(bigint[]), jobs.retry(bigint[]),
jobs.drop_event(regclass, text, text), jobs.on_event(regclass, text, text, text[], text),
jobs.event_trigger(text, text), jobs.enqueue_for_row();
drop table jobs.alarms, jobs.alarm_rules, jobs.table_events;
