-- The extension stays: others may use it.
select
    ops.unschedule('rowhouse-purge-workspaces'),
    ops.unschedule('rowhouse-purge'),
    ops.unschedule('rowhouse-audit-seal'),
    ops.unschedule('rowhouse-audit-maintain');
drop function ops.unschedule(text), ops.schedule(text, text, text);
drop table ops.schedules;
