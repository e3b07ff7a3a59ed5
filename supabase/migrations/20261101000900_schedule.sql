-- Why: what the clock starts, all in one place.
-- Locks: none on existing tables.
-- Workers: need not stop.

select ops.schedule('rowhouse-purge-workspaces', '17 3 * * *', 'select tenancy.purge_workspaces()', '1 day');
select ops.schedule('rowhouse-purge', '*/10 * * * *', 'select ops.purge()', '10 minutes');
select ops.schedule('rowhouse-audit-seal', '* * * * *', 'select audit.seal()', '1 minute');
select ops.schedule('rowhouse-audit-maintain', '27 3 * * *', 'select audit.maintain()', '1 day');
select ops.schedule('rowhouse-jobs', '* * * * *', 'call jobs.run()', '1 minute');
select ops.schedule('rowhouse-jobs-watch', '* * * * *', 'select jobs.watch()', '1 minute');
select ops.schedule('rowhouse-jobs-maintain', '37 * * * *', 'select jobs.maintain()', '1 hour');
select ops.schedule('rowhouse-cron-log', '47 3 * * *', 'select jobs.clear_cron_log()', '1 day');
select ops.schedule('rowhouse-digests', '* * * * *', 'call notify.run_digests()', '1 minute');
select ops.schedule('rowhouse-notify-maintain', '57 3 * * *', 'select notify.maintain()', '1 day');
select ops.schedule('rowhouse-deliver', '* * * * *', 'select notify.nudge()', '1 minute');
