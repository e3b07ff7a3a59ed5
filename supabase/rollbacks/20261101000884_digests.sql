select jobs.drop_kind('notify.send'), jobs.drop_kind('notify.mail_now');
drop procedure notify.run_digests();
drop function
notify.build_digests(bigint), notify.render_digests(uuid[], timestamptz), notify.open_workspaces(),
notify.mail_now(jobs.jobs),
notify.rendered_notification(public.notifications), notify.random_ids(bigint), notify.enqueue_batches(uuid[]);
drop table notify.digests;
