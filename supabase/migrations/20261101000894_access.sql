-- Why: one function decides what a workspace may do and why: by the operator's word, its subscriptions, its trial, or
--      the default plan. The rules and the transitions are rows.
-- Locks: none on existing tables.
-- Workers: need not stop.

create table billing.access_rules (
    reason text not null,
    state text,
    precedence bigint not null,
    description text not null,
    constraint access_rules_pkey primary key (reason),
    constraint access_rules_state_is_known check (state in ('trialing', 'active', 'grace', 'restricted', 'free'))
);
alter table billing.access_rules enable row level security;
create policy access_rules_nobody on billing.access_rules using (false);
comment on table billing.access_rules is
'What each fact means for a workspace. Of several subscriptions the one of the lowest precedence counts.';
comment on column billing.access_rules.reason is 'The fact: a status of Stripe''s, or what became of the money.';
comment on column billing.access_rules.state is
'The state that follows; null gives nothing, as if there were no subscription.';
comment on column billing.access_rules.precedence is
'Its place among others that hold at once: the lower ten counts, then the larger plan.';
comment on column billing.access_rules.description is 'What it means.';
insert into billing.access_rules (precedence, reason, state, description)
values
(0, 'operator', 'active', 'The operator has given this plan.'),
(10, 'active', 'active', 'The subscription is paid.'),
(11, 'canceling', 'active', 'The subscription is paid, and ends with its period.'),
(20, 'trialing', 'trialing', 'The subscription is in its trial.'),
(21, 'trial_canceling', 'trialing', 'The subscription is in its trial, and ends with it.'),
(30, 'trial', 'trialing', 'A trial without a card.'),
(40, 'past_due', 'grace', 'A payment failed; Stripe tries again.'),
(42, 'unpaid', 'grace', 'A payment failed; Stripe has given up on it.'),
(41, 'disputed', 'grace', 'The payment of this period is disputed.'),
(50, 'grace_over', 'restricted', 'A payment failed, and the grace period is over.'),
(52, 'refunded', 'restricted', 'The payment of this period was refunded whole.'),
(53, 'dispute_lost', 'restricted', 'The payment of this period was lost in a dispute.'),
(54, 'paused', 'restricted', 'The trial ended without a means of payment.'),
(55, 'collection_paused', 'restricted', 'Collection is paused, and invoices are voided.'),
(60, 'default_plan', 'free', 'Nothing is bought.'),
(90, 'incomplete', null, 'The first payment has not succeeded.'),
(91, 'incomplete_expired', null, 'The first payment never succeeded.'),
(92, 'canceled', null, 'The subscription has ended.'),
(93, 'plan_unknown', null, 'The subscription is to no plan of this catalogue.');

create table billing.access_transitions (
    from_state text not null,
    to_state text not null,
    kind text not null,
    constraint access_transitions_pkey primary key (from_state, to_state)
);
alter table billing.access_transitions enable row level security;
create policy access_transitions_nobody on billing.access_transitions using (false);
comment on table billing.access_transitions is
'From which state a workspace can come to which, and what its people are told.';
comment on column billing.access_transitions.from_state is 'Before.';
comment on column billing.access_transitions.to_state is 'After.';
comment on column billing.access_transitions.kind is 'The kind of notification.';
insert into billing.access_transitions (from_state, to_state, kind)
select
    f.state as from_state,
    t.state as to_state,
    case
        when t.state = 'grace' then 'billing.payment_failed'
        when t.state = 'restricted' then 'billing.restricted'
        when t.state = 'trialing' then 'billing.trial_started'
        when f.state in ('grace', 'restricted') and t.state = 'active' then 'billing.restored'
        when t.state = 'active' then 'billing.activated'
        when f.state = 'trialing' then 'billing.trial_ended'
        else 'billing.ended'
    end as kind
from unnest('{trialing,active,grace,restricted,free}'::text[]) as f (state)
cross join unnest('{trialing,active,grace,restricted,free}'::text[]) as t (state)
where f.state <> t.state;

create table billing.access_changes (
    workspace_id uuid not null,
    id uuid not null default gen_random_uuid(),
    from_state text not null,
    to_state text not null,
    from_plan_id text not null,
    to_plan_id text not null,
    reason text not null,
    changed_at timestamptz not null default ops.now(),
    constraint access_changes_pkey primary key (workspace_id, id),
    constraint access_changes_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade
);
alter table billing.access_changes enable row level security;
create policy access_changes_nobody on billing.access_changes using (false);
create index access_changes_changed_at on billing.access_changes (workspace_id, changed_at);
create trigger access_changes_are_append_only before update on billing.access_changes
for each row execute function ops.refuse_change();
comment on table billing.access_changes is 'Every transition of a workspace''s plan or state. What was, is kept.';
comment on column billing.access_changes.workspace_id is 'The tenant.';
comment on column billing.access_changes.id is 'The change.';
comment on column billing.access_changes.from_state is 'The state before.';
comment on column billing.access_changes.to_state is 'The state after.';
comment on column billing.access_changes.from_plan_id is 'The plan before.';
comment on column billing.access_changes.to_plan_id is 'The plan after.';
comment on column billing.access_changes.reason is 'Why.';
comment on column billing.access_changes.changed_at is 'When.';

create table billing.assignments (
    workspace_id uuid not null,
    plan_id text not null,
    reason text not null default '',
    created_at timestamptz not null default ops.now(),
    constraint assignments_pkey primary key (workspace_id),
    constraint assignments_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint assignments_name_a_plan foreign key (plan_id) references billing.plans (id)
);
alter table billing.assignments enable row level security;
create policy assignments_nobody on billing.assignments using (false);
create index assignments_plan_id on billing.assignments (plan_id);
comment on table billing.assignments is 'Plans given by the operator, such as by contract.';
comment on column billing.assignments.workspace_id is 'The tenant.';
comment on column billing.assignments.plan_id is 'The plan.';
comment on column billing.assignments.reason is 'Why, for the operator.';
comment on column billing.assignments.created_at is 'Since when.';

create table billing.trials (
    workspace_id uuid not null,
    plan_id text not null,
    started_at timestamptz not null default ops.now(),
    ends_at timestamptz not null,
    with_card boolean not null default false,
    constraint trials_pkey primary key (workspace_id),
    constraint trials_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint trials_name_a_plan foreign key (plan_id) references billing.plans (id),
    constraint trials_end_after_they_start check (ends_at >= started_at)
);
alter table billing.trials enable row level security;
create policy trials_nobody on billing.trials using (false);
create index trials_plan_id on billing.trials (plan_id);
create index trials_ends_at on billing.trials (ends_at);
comment on table billing.trials is 'The one trial of each workspace, with a card (at Stripe) or without.';
comment on column billing.trials.workspace_id is 'The tenant.';
comment on column billing.trials.plan_id is 'The plan that is tried.';
comment on column billing.trials.started_at is 'When it began.';
comment on column billing.trials.ends_at is 'When it ends.';
comment on column billing.trials.with_card is 'Whether it is a subscription''s, which Stripe decides about.';

create table billing.dunning_cases (
    workspace_id uuid not null,
    started_at timestamptz not null,
    grace_until timestamptz not null,
    is_overridden boolean not null default false,
    reason text not null default '',
    ended_at timestamptz,
    constraint dunning_cases_pkey primary key (workspace_id, started_at),
    constraint dunning_cases_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade
);
alter table billing.dunning_cases enable row level security;
create policy dunning_cases_nobody on billing.dunning_cases using (false);
comment on table billing.dunning_cases is
'Payments that failed, from the first failure until they were paid or given up.';
comment on column billing.dunning_cases.workspace_id is 'The tenant.';
comment on column billing.dunning_cases.started_at is 'When the payment first failed, by Stripe''s clock.';
comment on column billing.dunning_cases.grace_until is 'Until when the workspace may write.';
comment on column billing.dunning_cases.is_overridden is 'Whether the operator has said so.';
comment on column billing.dunning_cases.reason is 'Why, where the operator has.';
comment on column billing.dunning_cases.ended_at is 'When it was over.';

-- What is bought -----------------------------------------------------------------------------

create function billing.plan_of(price jsonb) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    -- A price carries its plan and version with it, so that it can be read before anything else has arrived.
    return (
        select coalesce(
            (
                select p.id from billing.plans p
                where
                    coalesce(p.version_of, p.id) = coalesce(price #>> '{metadata,rowhouse_plan}', o.data #>> '{metadata,rowhouse_plan}')
                    and p.version::text = coalesce(price #>> '{metadata,rowhouse_version}', o.data #>> '{metadata,rowhouse_version}')
            ),
            (select r.plan_id from billing.prices r where r.lookup_key = coalesce(price ->> 'lookup_key', o.data ->> 'lookup_key'))
        )
        from (select 1) as one left join billing.objects o on o.id = billing.id_of(price)
    );
end
$$;
comment on function billing.plan_of(jsonb) is
'The plan, or version of one, that a price of Stripe''s buys; null for a stranger.';

create function billing.charges_of(invoice billing.objects) returns setof billing.objects
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select c.* from billing.objects c where c.id = billing.id_of(invoice.data -> 'charge') and c.object = 'charge'
    union
    select c.* from billing.objects c where c.object = 'charge' and c.parent_id = billing.id_of(invoice.data -> 'payment_intent')
    union
    select c.*
    from billing.objects p
    join billing.objects c on c.object = 'charge' and c.parent_id = p.data #>> '{payment,payment_intent}'
    where p.object = 'invoice_payment' and p.parent_id = invoice.id;
end
$$;
comment on function billing.charges_of(billing.objects) is 'The charges that an invoice was paid by, or was not.';

create function billing.is_proration(line jsonb) returns boolean
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select coalesce(
            (line ->> 'proration')::boolean, (line #>> '{parent,subscription_item_details,proration}')::boolean,
            (line #>> '{parent,invoice_item_details,proration}')::boolean, false
        )
    );
end
$$;
comment on function billing.is_proration(jsonb) is
'Whether an invoice''s line is for a part of a period, whatever the version.';

create function billing.period_invoice(subscription billing.objects) returns billing.objects
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    -- The one with a whole line until the period's end. Others of the period are for parts of it.
    return (
        select o from billing.objects o
        where
            o.parent_id = subscription.id and o.object = 'invoice' and not o.is_deleted
            and o.data ->> 'status' = 'paid' and (o.data ->> 'amount_paid')::bigint > 0
        order by
            exists (
                select from jsonb_array_elements(o.data #> '{lines,data}') as l (line)
                where not billing.is_proration(l.line) and billing.moment(l.line #> '{period,end}') = billing.period_end_of(subscription.data)
            ) desc,
            (o.data ->> 'billing_reason' in ('subscription_create', 'subscription_cycle')) desc nulls last,
            (o.data ->> 'created')::bigint desc, o.id desc
        limit 1
    );
end
$$;
comment on function billing.period_invoice(billing.objects) is
'The invoice that a subscription''s present period was paid by; null if none was.';

create function billing.money_fact(subscription billing.objects) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select case
            when bool_or(d.is_lost) then 'dispute_lost'
            when bool_or(d.is_open) then 'disputed'
            when sum((c.data ->> 'amount_refunded')::bigint) >= max((i.data ->> 'amount_paid')::bigint) then 'refunded'
        end
        from billing.period_invoice(subscription) i
        cross join lateral billing.charges_of(i) c
        cross join lateral (
            select
                coalesce(bool_or(o.data ->> 'status' = 'lost'), false) as is_lost,
                coalesce(bool_or(o.data ->> 'status' in ('needs_response', 'under_review')), false) as is_open
            from billing.objects o where o.object = 'dispute' and o.parent_id = c.id
        ) d
        where i.id is not null
    );
end
$$;
comment on function billing.money_fact(billing.objects) is
'What became of the money of a subscription''s period: refunded, disputed, dispute_lost; null where it stayed.';

create function billing.paid_plan(subscription_id text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select p.id
        from (
            select o.data from billing.objects o
            where
                o.parent_id = paid_plan.subscription_id and o.object = 'invoice' and not o.is_deleted
                and o.data ->> 'status' = 'paid' and (o.data ->> 'amount_paid')::bigint > 0
            order by (o.data ->> 'created')::bigint desc, o.id desc limit 1
        ) as paid
        cross join lateral jsonb_array_elements(paid.data #> '{lines,data}') as l (line)
        join billing.objects price on price.id = billing.line_price_of(l.line)
        join billing.plans p on p.id = billing.plan_of(price.data)
        where (l.line ->> 'amount')::bigint > 0
        order by p.rank desc
        limit 1
    );
end
$$;
comment on function billing.paid_plan(text) is
'The plan that a subscription''s last payment was for; null if nothing was ever paid.';

create function billing.failing_since(subscription billing.objects) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Of what came after the last payment: what was given up before that is forgiven.
    return (
        select coalesce(
            min(case
                when i.data ->> 'collection_method' = 'send_invoice' then billing.moment(i.data -> 'due_date')
                else coalesce(billing.moment(i.data #> '{status_transitions,finalized_at}'), billing.moment(i.data -> 'created'))
            end),
            billing.period_start_of(subscription.data)
        )
        from billing.objects i
        where
            i.parent_id = subscription.id and i.object = 'invoice' and not i.is_deleted and i.data ->> 'status' = 'open'
            and case
                when i.data ->> 'collection_method' = 'send_invoice' then billing.moment(i.data -> 'due_date') <= ops.now()
                else coalesce((i.data ->> 'attempt_count')::bigint, 0) > 0
            end
            and (i.data ->> 'created')::bigint >= coalesce((
                select max((o.data ->> 'created')::bigint) from billing.objects o
                where o.parent_id = subscription.id and o.object = 'invoice' and o.data ->> 'status' = 'paid' and (o.data ->> 'amount_paid')::bigint > 0
            ), 0)
    );
end
$$;
comment on function billing.failing_since(billing.objects) is
'When the oldest invoice since the last payment was due and could not be collected.';

create type billing.standing as (
    plan_id text, state text, reason text, until timestamptz, next_plan_id text, next_state text, next_reason text,
    seats bigint, failing_since timestamptz
);
comment on type billing.standing is 'What was decided for a workspace, as billing.workspace_plans keeps it.';

create function billing.subscription_standing(workspace_id uuid, subscription billing.objects) returns billing.standing
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    standing billing.standing;
    status text := subscription.data ->> 'status';
    ends_at timestamptz := billing.ends_at_of(subscription.data);
    fact text;
    settings billing.settings;
    default_plan text := (select p.id from billing.plans p where p.is_default);
begin
    select s.* into settings from billing.settings s;
    select p.id into standing.plan_id
    from jsonb_array_elements(subscription.data #> '{items,data}') as i (item)
    join billing.plans p on p.id = billing.plan_of(coalesce(i.item -> 'price', i.item -> 'plan'))
    order by p.rank desc, p.version desc
    limit 1;
    select sum((i.item ->> 'quantity')::bigint)::bigint into standing.seats
    from jsonb_array_elements(subscription.data #> '{items,data}') as i (item)
    where billing.is_per_seat(i.item -> 'price');
    standing.reason := status;
    standing.until := billing.period_end_of(subscription.data);
    if subscription.is_deleted or ends_at <= ops.now() then
        standing.reason := 'canceled';
    elsif standing.plan_id is null then
        standing.reason := 'plan_unknown';
    elsif status in ('active', 'trialing') then
        fact := case when status = 'active' then billing.money_fact(subscription) end;
        if subscription.data #>> '{pause_collection,behavior}' = 'void' then
            standing.reason := 'collection_paused';
            standing.until := billing.moment(subscription.data #> '{pause_collection,resumes_at}');
        elsif fact is not null then
            standing.reason := fact;
            standing.until := null;
        else
            if status = 'trialing' then
                standing.until := billing.moment(subscription.data -> 'trial_end');
            end if;
            if ends_at is not null then
                standing.reason := case status when 'active' then 'canceling' else 'trial_canceling' end;
                standing.until := ends_at;
                standing.next_plan_id := default_plan;
                standing.next_state := 'free';
                standing.next_reason := 'canceled';
            end if;
        end if;
    elsif status in ('past_due', 'unpaid') then
        standing.failing_since := billing.failing_since(subscription);
        -- What was never paid for is not given on credit: an upgrade that failed is none yet.
        standing.plan_id := coalesce((
            select p.id from billing.plans p join billing.plans asked on asked.id = standing.plan_id
            where p.id = billing.paid_plan(subscription.id) and p.rank < asked.rank
        ), standing.plan_id);
        select d.grace_until into standing.until from billing.dunning_cases d
        where d.workspace_id = subscription_standing.workspace_id and d.started_at = standing.failing_since and d.is_overridden;
        standing.until := coalesce(standing.until, standing.failing_since + make_interval(days => settings.grace_days::integer));
        if standing.until <= ops.now() then
            standing.reason := 'grace_over';
            standing.until := null;
        else
            standing.next_plan_id := standing.plan_id;
            standing.next_state := 'restricted';
            standing.next_reason := 'grace_over';
        end if;
    elsif status = 'paused' then
        standing.until := null;
    end if;
    select r.state into standing.state from billing.access_rules r where r.reason = standing.reason;
    return standing;
end
$$;
comment on function billing.subscription_standing(uuid, billing.objects) is
'What one subscription is worth now; state is null for one that is worth nothing.';

create function billing.standing_of(workspace_id uuid) returns billing.standing
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    best billing.standing;
    trial billing.trials;
begin
    select a.plan_id, 'active', 'operator' into best.plan_id, best.state, best.reason
    from billing.assignments a where a.workspace_id = standing_of.workspace_id;
    if found then
        return best;
    end if;
    select s.* into best
    from billing.customers c
    join billing.objects o on o.customer_id = c.stripe_id and o.object = 'subscription'
    cross join lateral billing.subscription_standing(c.workspace_id, o) s
    join billing.access_rules r on r.reason = s.reason
    join billing.plans p on p.id = s.plan_id
    where c.workspace_id = standing_of.workspace_id and s.state is not null
    -- By tens: of two that are both paid, the larger plan counts.
    order by r.precedence / 10, p.rank desc, r.precedence, s.until desc nulls last, o.id
    limit 1;
    select t.* into trial from billing.trials t
    where t.workspace_id = standing_of.workspace_id and not t.with_card and t.ends_at > ops.now();
    if found and (best.state is null or best.state = 'restricted') then
        best := (
            trial.plan_id, 'trialing', 'trial', trial.ends_at, (select p.id from billing.plans p where p.is_default), 'free', 'default_plan', null, null
        )::billing.standing;
    end if;
    if best.state is null then
        select p.id, 'free', 'default_plan' into best.plan_id, best.state, best.reason from billing.plans p where p.is_default;
    end if;
    return best;
end
$$;
comment on function billing.standing_of(uuid) is
'Decides what a workspace may do now: the operator''s word, then its subscriptions, then its trial, then the
default plan.';

create function billing.decide(workspace_id uuid, is_silent boolean default false) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    before billing.workspace_plans;
    decided billing.standing;
begin
    -- Held first: of two decisions at once the later knows more.
    select wp.* into before from billing.workspace_plans wp where wp.workspace_id = decide.workspace_id for update;
    if not found and not exists (select from public.workspaces w where w.id = decide.workspace_id) then
        return false;
    end if;
    decided := billing.standing_of(decide.workspace_id);
    if decided.plan_id is null then
        return false;
    end if;
    perform billing.follow_dunning(decide.workspace_id, decided);
    if (before.plan_id, before.state, before.reason, before.until, before.next_plan_id, before.next_state, before.next_reason, before.seats)
        is not distinct from (
            decided.plan_id, decided.state, decided.reason, decided.until, decided.next_plan_id, decided.next_state,
            decided.next_reason, decided.seats
        )
    then
        return false;
    end if;
    insert into billing.workspace_plans as wp (
        workspace_id, plan_id, state, reason, until, next_plan_id, next_state, next_reason, seats
    ) values (
        decide.workspace_id, decided.plan_id, decided.state, decided.reason, decided.until, decided.next_plan_id,
        decided.next_state, decided.next_reason, decided.seats
    )
    on conflict on constraint workspace_plans_pkey do update
    set
        plan_id = excluded.plan_id, state = excluded.state, reason = excluded.reason, until = excluded.until,
        next_plan_id = excluded.next_plan_id, next_state = excluded.next_state, next_reason = excluded.next_reason,
        seats = excluded.seats,
        changed_at = case
            when (wp.plan_id, wp.state) is distinct from (excluded.plan_id, excluded.state) then ops.now() else wp.changed_at
        end;
    if (before.plan_id, before.state, before.reason) is distinct from (decided.plan_id, decided.state, decided.reason) then
        insert into billing.access_changes (workspace_id, from_state, to_state, from_plan_id, to_plan_id, reason)
        values (
            decide.workspace_id, coalesce(before.state, 'free'), decided.state, coalesce(before.plan_id, decided.plan_id),
            decided.plan_id, decided.reason
        );
        if not decide.is_silent and before.workspace_id is not null then
            perform billing.tell_of_change(decide.workspace_id, before, decided);
        end if;
    end if;
    return true;
end
$$;
comment on function billing.decide(uuid, boolean) is
'Decides for a workspace and records what changed; tells its people unless silent. True if anything changed.';

create function billing.set_plan(workspace_id uuid, plan_id text, reason text default '') returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    plan billing.plans;
begin
    select p.* into plan from billing.plans p where p.id = set_plan.plan_id;
    if not found then
        perform ops.raise_http(
            404, 'plan_not_found', format('There is no plan %L.', left(set_plan.plan_id, 64)), null,
            (select 'Plans: ' || string_agg(p.id, ', ' order by p.rank, p.id) || '.' from billing.plans p)
        );
    end if;
    if plan.is_default then
        delete from billing.assignments a where a.workspace_id = set_plan.workspace_id;
    else
        insert into billing.assignments as a (workspace_id, plan_id, reason)
        values (set_plan.workspace_id, set_plan.plan_id, set_plan.reason)
        on conflict on constraint assignments_pkey do update
        set plan_id = excluded.plan_id, reason = excluded.reason, created_at = ops.now();
    end if;
    perform billing.decide(set_plan.workspace_id);
end
$$;
comment on function billing.set_plan(uuid, text, text) is
'Gives a workspace a plan, whatever it has bought; the default plan takes that back. Having more than the plan allows
blocks growth, nothing else. For operators.';
