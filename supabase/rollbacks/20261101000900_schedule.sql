select ops.unschedule(schedules.name) from ops.schedules;
