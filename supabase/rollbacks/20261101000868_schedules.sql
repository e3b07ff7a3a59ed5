-- The extension stays: others may use it.
drop function
ops.pause_schedule(text, boolean), ops.schedule_status(), ops.run_schedule(text),
ops.beat(text, timestamptz, timestamptz, text), ops.is_paused(text), ops.schedule_named(text), ops.unschedule(text),
ops.schedule(text, text, text, interval), ops.cron_command(ops.schedules);
drop table ops.schedules;
