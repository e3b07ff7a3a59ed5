-- The extension stays: others may use it.
select ops.unschedule('rowhouse-purge-workspaces');
drop function ops.unschedule(text), ops.schedule(text, text, text);
drop table ops.schedules;
