-- Why: what waits for the clock is brought about by it: trials that end, grace that is over, reminders, mails on their
--      days.
-- Locks: none on existing tables.
-- Workers: need not stop.

-- Dunning and reminders ----------------------------------------------------------------------

create table billing.steps (
    workspace_id uuid not null,
    kind text not null,
    due_at timestamptz not null,
    of timestamptz not null,
    done_at timestamptz,
    outcome text,
    constraint steps_pkey primary key (workspace_id, kind, of, due_at),
    constraint steps_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint steps_kind_is_known check (kind in ('dunning', 'restrict', 'trial', 'renewal', 'card')),
    constraint steps_outcome_is_known check (
        outcome in ('told', 'skipped', 'done') and (outcome is null) = (done_at is null)
    )
);
alter table billing.steps enable row level security;
create policy steps_nobody on billing.steps using (false);
create index steps_due_at on billing.steps (due_at) where done_at is null;
comment on table billing.steps is
'What the clock will tell a workspace of, and has: dunning on its days, reminders of trials, renewals, cards.';
comment on column billing.steps.workspace_id is 'The tenant.';
comment on column billing.steps.kind is 'dunning, restrict, trial, renewal or card.';
comment on column billing.steps.due_at is 'When it is due.';
comment on column billing.steps.of is
'What it leads to or comes from: the failure, the trial''s end, the renewal, the card''s expiry.';
comment on column billing.steps.done_at is 'When it was dealt with.';
comment on column billing.steps.outcome is 'told, done, or skipped: it no longer mattered, or the operator said so.';

create function billing.follow_dunning(workspace_id uuid, decided billing.standing) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    settings billing.settings;
begin
    -- What is over is closed with all that was still to come of it.
    update billing.dunning_cases d set ended_at = ops.now()
    where d.workspace_id = follow_dunning.workspace_id and d.ended_at is null and d.started_at is distinct from decided.failing_since;
    if found then
        update billing.steps s set done_at = ops.now(), outcome = 'skipped'
        where
            s.workspace_id = follow_dunning.workspace_id and s.kind in ('dunning', 'restrict') and s.done_at is null
            and s.of is distinct from decided.failing_since;
    end if;
    if decided.failing_since is null then
        return;
    end if;
    select s.* into settings from billing.settings s;
    insert into billing.dunning_cases as d (workspace_id, started_at, grace_until)
    values (
        follow_dunning.workspace_id, decided.failing_since,
        coalesce(decided.until, decided.failing_since + make_interval(days => settings.grace_days::integer))
    )
    on conflict on constraint dunning_cases_pkey do update set ended_at = null
    where d.ended_at is not null;
    insert into billing.steps (workspace_id, kind, of, due_at)
    select follow_dunning.workspace_id, 'dunning', decided.failing_since, decided.failing_since + make_interval(days => d.day::integer)
    -- The first word is the transition's own.
    from unnest(settings.dunning_days) as d (day) where d.day > 0
    union all
    select c.workspace_id, 'restrict', c.started_at, c.grace_until from billing.dunning_cases c
    where c.workspace_id = follow_dunning.workspace_id and c.started_at = decided.failing_since
    on conflict do nothing;
end
$$;
comment on function billing.follow_dunning(uuid, billing.standing) is
'Opens a case of dunning with its steps, or closes it.';

create function billing.override_dunning(workspace_id uuid, grace_until timestamptz, reason text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    given billing.dunning_cases;
begin
    perform billing.require_reason(override_dunning.reason);
    -- In the order of whoever decides.
    perform from billing.workspace_plans wp where wp.workspace_id = override_dunning.workspace_id for update;
    update billing.dunning_cases d
    set grace_until = override_dunning.grace_until, is_overridden = true, reason = override_dunning.reason
    where d.workspace_id = override_dunning.workspace_id and d.ended_at is null
    returning d.* into given;
    if not found then
        perform ops.raise_http(409, 'no_dunning', 'No payment of this workspace is failing.', null, 'There is nothing to override.');
    end if;
    update billing.steps s set done_at = ops.now(), outcome = 'skipped'
    where s.workspace_id = given.workspace_id and s.of = given.started_at and s.kind = 'restrict' and s.done_at is null;
    insert into billing.steps (workspace_id, kind, of, due_at) values (given.workspace_id, 'restrict', given.started_at, given.grace_until)
    on conflict on constraint steps_pkey do update set done_at = null, outcome = null;
    perform audit.write(
        'billing.override_dunning', given.workspace_id, 'dunning_cases', given.started_at::text, null,
        jsonb_build_object('grace_until', given.grace_until, 'reason', given.reason)
    );
    perform billing.decide(given.workspace_id);
end
$$;
comment on function billing.override_dunning(uuid, timestamptz, text) is
'Says until when a workspace whose payment fails may write; a moment that is past restricts it now. Answers 409 where
nothing fails. For operators.';

create function billing.require_reason(reason text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(require_reason.reason, '') !~ '\S' or length(require_reason.reason) > 1000 then
        perform ops.raise_http(
            400, 'reason_missing', 'There is no reason.', null, 'Say why, in at most 1,000 characters: it is kept.'
        );
    end if;
end
$$;
comment on function billing.require_reason(text) is 'Answers 400 for no reason.';

create function billing.plan_reminders() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    settings billing.settings;
begin
    select s.* into settings from billing.settings s;
    insert into billing.steps (workspace_id, kind, of, due_at)
    select wp.workspace_id, 'trial', wp.until, wp.until - make_interval(days => d.day::integer)
    from billing.workspace_plans wp cross join unnest(settings.trial_reminder_days) as d (day)
    where
        wp.state in ('trialing', 'active') and wp.state = 'trialing'
        and wp.until between ops.now() + make_interval(days => d.day::integer) - interval '1 day' and ops.now() + make_interval(days => d.day::integer) + interval '1 hour'
        and not exists (
            select from billing.steps s where s.workspace_id = wp.workspace_id and s.kind = 'trial' and s.of = wp.until
            and s.due_at = wp.until - make_interval(days => d.day::integer)
        )
    union all
    select wp.workspace_id, 'renewal', wp.until, wp.until - make_interval(days => settings.renewal_reminder_days::integer)
    from billing.workspace_plans wp
    where
        settings.renewal_reminder_days > 0 and wp.state in ('trialing', 'active') and wp.reason = 'active'
        and wp.until between ops.now() + make_interval(days => settings.renewal_reminder_days::integer) - interval '1 day'
        and ops.now() + make_interval(days => settings.renewal_reminder_days::integer)
        and not exists (
            select from billing.steps s where s.workspace_id = wp.workspace_id and s.kind = 'renewal' and s.of = wp.until
        )
    on conflict do nothing;
end
$$;
comment on function billing.plan_reminders() is
'Writes down which reminders are due: of trials that end and of renewals. Run every 10 minutes.';

create function billing.plan_card_reminders() returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    -- The card of the last charge that succeeded is the one that will be charged again. It holds until its month ends.
    insert into billing.steps (workspace_id, kind, of, due_at)
    select c.workspace_id, 'card', l.expires, ops.now()
    from billing.workspace_plans wp
    join billing.customers c on c.workspace_id = wp.workspace_id
    cross join billing.settings s
    cross join lateral (
        select (make_date((o.data #>> '{payment_method_details,card,exp_year}')::integer, (o.data #>> '{payment_method_details,card,exp_month}')::integer, 1) + interval '1 month') at time zone 'UTC' as expires
        from billing.objects o
        where o.customer_id = c.stripe_id and o.object = 'charge' and o.data ->> 'status' = 'succeeded' and o.data #>> '{payment_method_details,card,exp_year}' is not null
        order by (o.data ->> 'created')::bigint desc limit 1
    ) l
    where
        wp.reason = 'active' and s.card_reminder_days > 0
        and l.expires between ops.now() and ops.now() + make_interval(days => s.card_reminder_days::integer)
        and not exists (select from billing.steps k where k.workspace_id = c.workspace_id and k.kind = 'card' and k.of = l.expires)
$$;
comment on function billing.plan_card_reminders() is 'Writes down which cards are about to expire. Run daily.';

create function billing.take_step(step billing.steps) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    access record;
    facts jsonb;
begin
    select ca.* into access from billing.current_access ca where ca.workspace_id = step.workspace_id;
    facts := jsonb_build_object('plan', billing.plan_name(access.plan_id), 'until', billing.day(access.until));
    if step.kind = 'restrict' then
        perform billing.decide(step.workspace_id);
        return 'done';
    elsif step.kind = 'dunning' and access.state = 'grace' then
        perform billing.tell(step.workspace_id, 'billing.payment_reminder', facts);
    elsif step.kind = 'trial' and access.state = 'trialing' and access.until = step.of then
        perform billing.tell(
            step.workspace_id, 'billing.trial_ending',
            facts || jsonb_build_object('days', greatest(1, ceil(extract(epoch from step.of - ops.now()) / 86400)::bigint))
        );
    elsif step.kind = 'renewal' and access.reason = 'active' and access.until = step.of then
        perform billing.tell(step.workspace_id, 'billing.renewal_upcoming', facts);
    elsif step.kind = 'card' then
        perform billing.tell(
            step.workspace_id, 'billing.card_expiring', facts || jsonb_build_object(
                'expires', to_char((step.of - interval '1 day') at time zone 'UTC', 'MM/YYYY'),
                'last_digits', coalesce((
                    select o.data #>> '{payment_method_details,card,last4}'
                    from billing.customers c join billing.objects o on o.customer_id = c.stripe_id and o.object = 'charge'
                    where c.workspace_id = step.workspace_id order by (o.data ->> 'created')::bigint desc limit 1
                ), '')
            )
        );
    else
        return 'skipped';
    end if;
    return 'told';
end
$$;
comment on function billing.take_step(billing.steps) is
'Takes one step; returns told, done, or skipped where it no longer matters.';

create function billing.advance(at_most bigint default 1000) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    due record;
    step billing.steps;
    became text;
    advanced bigint := 0::bigint;
begin
    -- Each for itself: what is wrong with one holds up nobody.
    for due in
        select wp.workspace_id from billing.workspace_plans wp
        where wp.next_state is not null and wp.until <= ops.now()
        order by wp.workspace_id limit advance.at_most
        for update skip locked
    loop
        begin
            advanced := advanced + billing.decide(due.workspace_id)::integer;
        exception
            when others then raise warning 'the access of workspace % was not decided: %', due.workspace_id, sqlerrm;
        end;
    end loop;
    for step in
        select s.* from billing.steps s where s.done_at is null and s.due_at <= ops.now()
        order by s.due_at, s.workspace_id limit advance.at_most
        for update skip locked
    loop
        begin
            became := billing.take_step(step);
            update billing.steps s set done_at = ops.now(), outcome = became
            where s.workspace_id = step.workspace_id and s.kind = step.kind and s.of = step.of and s.due_at = step.due_at;
            advanced := advanced + 1;
        exception
            when others then raise warning 'a step of workspace % was not taken: %', step.workspace_id, sqlerrm;
        end;
    end loop;
    return advanced;
end
$$;
comment on function billing.advance(bigint) is
'Brings about what time has: trials that ended, grace that is over, mails on their days. Returns how much. Run
every minute.';

-- Trials -------------------------------------------------------------------------------------

create function billing.begin_trial(workspace_id uuid, plan_id text default null) returns timestamptz
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    plan billing.plans;
    trial billing.trials;
begin
    select p.* into plan from billing.plans p
    where p.version_of is null and not p.is_archived and p.trial_days > 0 and (begin_trial.plan_id is null or p.id = begin_trial.plan_id)
    order by p.starts_with_trial desc, p.rank limit 1;
    if not found then
        perform ops.raise_http(404, 'trial_not_offered', 'No such plan can be tried.', null, 'Plans with trial_days can.');
    end if;
    insert into billing.trials (workspace_id, plan_id, ends_at)
    values (begin_trial.workspace_id, plan.id, ops.now() + make_interval(days => plan.trial_days::integer))
    on conflict on constraint trials_pkey do nothing
    returning * into trial;
    if not found then
        perform ops.raise_http(409, 'trial_used', 'This workspace has had its trial.', null, 'Choose a plan.');
    end if;
    perform billing.decide(begin_trial.workspace_id);
    return trial.ends_at;
end
$$;
comment on function billing.begin_trial(uuid, text) is
'Begins the one trial of a workspace, without a card. Returns its end. Answers 404 or 409.';

create function billing.extend_trial(workspace_id uuid, ends_at timestamptz, reason text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    trial billing.trials;
begin
    perform billing.require_reason(extend_trial.reason);
    select t.* into trial from billing.trials t where t.workspace_id = extend_trial.workspace_id for update;
    if not found then
        perform ops.raise_http(404, 'trial_not_found', 'This workspace has had no trial.', null, 'Begin one.');
    end if;
    if extend_trial.ends_at <= ops.now() or extend_trial.ends_at > ops.now() + interval '730 days' then
        perform ops.raise_http(400, 'trial_end_invalid', 'A trial ends within two years from now.', null, 'Give a day to come.');
    end if;
    if trial.with_card then
        perform billing.request(
            'trial.extend', '/v1/subscriptions/' || o.id,
            jsonb_build_object('trial_end', extract(epoch from date_trunc('second', extend_trial.ends_at))::bigint, 'proration_behavior', 'none'),
            format('trial.extend:%s:%s', o.id, extract(epoch from extend_trial.ends_at)::bigint), extend_trial.workspace_id,
            reason => extend_trial.reason
        )
        from billing.customers c join billing.objects o on o.customer_id = c.stripe_id and o.object = 'subscription' and o.data ->> 'status' = 'trialing'
        where c.workspace_id = extend_trial.workspace_id;
    end if;
    update billing.trials t set ends_at = extend_trial.ends_at where t.workspace_id = extend_trial.workspace_id;
    perform audit.write(
        'billing.extend_trial', extend_trial.workspace_id, 'trials', extend_trial.workspace_id::text, jsonb_build_object('ends_at', trial.ends_at),
        jsonb_build_object('ends_at', extend_trial.ends_at, 'reason', extend_trial.reason)
    );
    perform billing.decide(extend_trial.workspace_id);
end
$$;
comment on function billing.extend_trial(uuid, timestamptz, text) is
'Moves the end of a trial, also one that is over; at Stripe for a trial with a card. For operators.';
