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
select ops.schedule('rowhouse-billing', '* * * * *', 'select billing.advance()', '1 minute');
select ops.schedule('rowhouse-billing-reminders', '*/10 * * * *', 'select billing.plan_reminders()', '10 minutes');
select ops.schedule('rowhouse-billing-usage', '*/5 * * * *', 'select billing.push_usage()', '5 minutes');
select ops.schedule('rowhouse-billing-credits', '7 * * * *', 'select billing.expire_credits()', '1 hour');
select ops.schedule('rowhouse-billing-cards', '23 8 * * *', 'select billing.plan_card_reminders()', '1 day');
select ops.schedule('rowhouse-billing-events', '33 3 * * *', 'select billing.clear_events()', '1 day');
select ops.schedule(
    'rowhouse-reconcile-subscriptions', '*/15 * * * *', 'select billing.reconcile(''{subscription}'')', '15 minutes'
);
select ops.schedule(
    'rowhouse-reconcile', '43 2 * * *', 'select billing.reconcile(), billing.post_missing()', '1 day'
);
