-- Why: an event is kept before it is answered, and is no more than a signal: where its place among others is in
--      doubt, Stripe is asked how things stand.
-- Locks: none on existing tables.
-- Workers: need not stop.

create table billing.events (
    id text not null,
    type text not null,
    created_at timestamptz not null,
    api_version text not null,
    object text,
    object_id text,
    payload jsonb not null,
    source text not null,
    received_at timestamptz not null default ops.now(),
    outcome text not null default 'waiting',
    detail text,
    processed_at timestamptz,
    constraint events_pkey primary key (id),
    constraint events_outcome_is_known check (
        outcome in ('waiting', 'applied', 'superseded', 'asked', 'ignored')
    )
);
alter table billing.events enable row level security;
create policy events_nobody on billing.events using (false);
create index events_object_id on billing.events (object_id, created_at) where object_id is not null;
create index events_waiting on billing.events (object_id) where outcome = 'waiting';
create index events_received_at on billing.events (received_at);
comment on table billing.events is 'The inbox: every event that Stripe sent, once, in whatever order.';
comment on column billing.events.id is 'Its id at Stripe.';
comment on column billing.events.type is 'What happened, such as invoice.paid.';
comment on column billing.events.created_at is 'When, by Stripe''s clock, to the second.';
comment on column billing.events.api_version is 'In which version''s shape it is.';
comment on column billing.events.object is 'What kind of object it is about.';
comment on column billing.events.object_id is 'Which.';
comment on column billing.events.payload is 'The event as it came.';
comment on column billing.events.source is 'webhook, or poll where it was found in Stripe''s list.';
comment on column billing.events.received_at is 'When it was kept.';
comment on column billing.events.outcome is
'waiting; applied; superseded by something newer; asked: Stripe was asked instead; ignored, and why.';
comment on column billing.events.detail is 'Why it was ignored.';
comment on column billing.events.processed_at is 'When it was dealt with.';

create function billing.receive(event jsonb, source text default 'webhook') returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    subject jsonb := receive.event #> '{data,object}';
    settings billing.settings;
    reason text;
begin
    -- The time is Stripe's: whole seconds, of this century.
    if jsonb_typeof(receive.event) is distinct from 'object' or jsonb_typeof(subject) is distinct from 'object'
        or coalesce(receive.event ->> 'id', '') !~ '^evt_\S{1,250}$' or coalesce(receive.event ->> 'type', '') !~ '^\S{1,200}$'
        or coalesce(receive.event ->> 'created', '') !~ '^\d{1,11}$'
    then
        perform ops.raise_http(
            400, 'event_invalid', 'This is no event of Stripe.', null,
            'An event has an id, a type, created and data.object; thin events of API v2 are not taken here.'
        );
    end if;
    select s.* into settings from billing.settings s;
    reason := case
        when (receive.event ->> 'livemode')::boolean is distinct from settings.is_live then 'other mode'
        when receive.event ->> 'account' <> coalesce(settings.account_id, '') then 'other account'
        when not exists (select from billing.object_types t where t.object = subject ->> 'object') then 'unknown object'
        when billing.key_of(subject) is null then 'no id'
    end;
    insert into billing.events (
        id, type, created_at, api_version, object, object_id, payload, source, outcome, detail, processed_at
    ) values (
        receive.event ->> 'id', receive.event ->> 'type', billing.moment(receive.event -> 'created'),
        coalesce(receive.event ->> 'api_version', ''), left(subject ->> 'object', 200), left(billing.key_of(subject), 250),
        receive.event, receive.source, case when reason is null then 'waiting' else 'ignored' end, reason,
        case when reason is not null then ops.now() end
    )
    on conflict on constraint events_pkey do nothing;
    if not found then
        return false;
    end if;
    if reason is null then
        perform jobs.enqueue(
            'billing.learn', jsonb_build_object('object_id', billing.key_of(subject)),
            dedupe_key => 'learn:' || billing.key_of(subject)
        );
    end if;
    return true;
end
$$;
comment on function billing.receive(jsonb, text) is
'Keeps an event, once, and has it processed. False if it was here before. Answers 400 for what is no event.';

create function billing.receive_many(events jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    outcomes jsonb := '{}'::jsonb;
    item jsonb;
    place bigint;
begin
    -- In one order by everybody: batches that hold the same objects would deadlock.
    for item, place in
        select e.item, e.place from jsonb_array_elements(receive_many.events) with ordinality as e (item, place)
        order by e.item #>> '{data,object,id}', e.item ->> 'id', e.place
    loop
        begin
            outcomes := outcomes || jsonb_build_object(place::text, billing.receive(item));
        exception
            -- One that cannot be kept takes no other along; who sent it is told.
            when sqlstate 'PGRST' then outcomes := outcomes || jsonb_build_object(place::text, null);
        end;
    end loop;
    return (
        select coalesce(jsonb_agg(outcomes -> n::text order by n), '[]')
        from generate_series(1, jsonb_array_length(receive_many.events)) as n
    );
end
$$;
comment on function billing.receive_many(jsonb) is
'Keeps several events that arrived at once. For each true, false if it was here before, null if it is no event.';

create function billing.note_outcome(event_ids text[], outcome text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    update billing.events e set outcome = note_outcome.outcome, processed_at = ops.now(), detail = null
    where e.id = any (note_outcome.event_ids);
end
$$;
comment on function billing.note_outcome(text[], text) is 'Says what became of events.';

-- The tables are empty in one month and have millions of rows in the next: no plan may rest on what they were when the
-- session began.
create function billing.learn(job jobs.jobs) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    key text := job.payload ->> 'object_id';
    known billing.objects;
    waiting text[];
    newest billing.events;
    deletion billing.events;
    is_alone boolean;
    slack interval := interval '0';
begin
    perform billing.lock_learning();
    select array_agg(e.id) into waiting from billing.events e where e.object_id = key and e.outcome = 'waiting';
    if waiting is null then
        return;
    end if;
    select e.* into newest from billing.events e where e.id = any (waiting) order by e.created_at desc, e.id desc limit 1;
    -- An end is final whatever its place; a subscription's is only another state of it.
    select e.* into deletion from billing.events e
    where e.id = any (waiting) and e.type like '%.deleted' and e.object <> 'subscription' limit 1;
    if deletion.id is not null then
        perform billing.apply(
            deletion.payload #> '{data,object}', deletion.api_version, deletion.created_at, 'event', is_deletion => true
        );
        perform billing.note_outcome(waiting, 'applied');
        return;
    end if;
    select o.* into known from billing.objects o where o.id = key;
    -- An answer's second is by another clock than an event's.
    if known.is_fetched then
        slack := interval '2 seconds';
    end if;
    is_alone := not exists (
        select from billing.events e
        where e.object_id = key and e.created_at = newest.created_at and e.id <> newest.id
    );
    if known.id is not null and known.as_of > newest.created_at + slack then
        perform billing.note_outcome(waiting, 'superseded');
    elsif known.id is null and is_alone
        or newest.created_at > known.as_of + slack and is_alone
    then
        perform billing.apply(newest.payload #> '{data,object}', newest.api_version, newest.created_at, 'event');
        perform billing.note_outcome(waiting, 'superseded');
        perform billing.note_outcome(array[newest.id], 'applied');
    elsif (select t.get_path from billing.object_types t where t.object = newest.object) is not null
        or newest.object = 'entitlements.active_entitlement_summary'
    then
        perform billing.ask_again(
            newest.object, key, coalesce(billing.parent_of(newest.payload #> '{data,object}'), known.parent_id)
        );
        perform billing.note_outcome(waiting, 'asked');
    else
        -- It cannot be asked for: it is read with what it belongs to.
        perform billing.apply(newest.payload #> '{data,object}', newest.api_version, newest.created_at, 'event');
        perform billing.ask_again(o.object, o.id, o.parent_id) from billing.objects o
        where o.id = billing.parent_of(newest.payload #> '{data,object}');
        perform billing.note_outcome(waiting, 'applied');
    end if;
end
$$;
comment on function billing.learn(jobs.jobs) is
'Handler of billing.learn: reads what events say of one object. Of two in the same second neither is believed: Stripe
is asked.';

select jobs.declare_kind(
    'billing.learn', 'postgres', 'billing.learn', queue => 'billing', priority => 50::bigint,
    payload_schema => '{"type": "object", "required": ["object_id"], "properties": {"object_id": {"type": "string"}}}',
    max_attempts => 20::bigint, description => 'Reads what events say of one object.'
);

create function billing.replay(event_id text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    event billing.events;
begin
    select e.* into event from billing.events e where e.id = replay.event_id;
    if not found then
        perform ops.raise_http(
            404, 'event_not_found', format('There is no event %L.', left(replay.event_id, 100)), null,
            'rowhouse stripe events list shows them.'
        );
    end if;
    if event.object_id is null or event.detail in ('other mode', 'other account')
        or not exists (select from billing.object_types t where t.object = event.object)
    then
        perform ops.raise_http(409, 'event_not_learnt', 'Nothing is learnt from this event.', jsonb_build_object('detail', event.detail));
    end if;
    update billing.events e set outcome = 'waiting', processed_at = null, detail = null where e.id = event.id;
    perform jobs.enqueue('billing.learn', jsonb_build_object('object_id', event.object_id), dedupe_key => 'learn:' || event.object_id);
end
$$;
comment on function billing.replay(text) is
'Processes an event again. It is as old as it was: what is newer stays. Answers 404 or 409. For operators.';

create function billing.clear_events(at_most bigint default 10000) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    cleared bigint;
begin
    delete from billing.events e
    where e.id in (
        select old.id from billing.events old
        where
            old.outcome <> 'waiting'
            and old.received_at < ops.now() - make_interval(days => (select s.keep_events_days::integer from billing.settings s))
        limit clear_events.at_most
        for update skip locked
    );
    get diagnostics cleared = row_count;
    return cleared;
end
$$;
comment on function billing.clear_events(bigint) is
'Removes processed events past their time. Returns how many. Run daily.';

create function billing.event_types() returns text[]
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select '{
        customer.created,customer.updated,customer.deleted,customer.discount.created,customer.discount.updated,
        customer.discount.deleted,customer.tax_id.created,customer.tax_id.updated,customer.tax_id.deleted,
        customer.subscription.created,customer.subscription.updated,customer.subscription.deleted,
        customer.subscription.paused,customer.subscription.resumed,customer.subscription.trial_will_end,
        subscription_schedule.created,subscription_schedule.updated,subscription_schedule.canceled,
        subscription_schedule.completed,subscription_schedule.released,
        product.created,product.updated,product.deleted,price.created,price.updated,price.deleted,
        coupon.created,coupon.updated,coupon.deleted,promotion_code.created,promotion_code.updated,
        invoice.created,invoice.updated,invoice.finalized,invoice.paid,invoice.payment_failed,invoice.voided,
        invoice.marked_uncollectible,invoice.deleted,invoice_payment.paid,
        payment_intent.succeeded,payment_intent.payment_failed,charge.succeeded,charge.failed,charge.refunded,
        charge.updated,charge.dispute.created,charge.dispute.updated,charge.dispute.funds_withdrawn,
        charge.dispute.funds_reinstated,charge.dispute.closed,refund.created,refund.updated,refund.failed,
        credit_note.created,credit_note.updated,credit_note.voided,
        checkout.session.completed,checkout.session.expired,checkout.session.async_payment_succeeded,
        checkout.session.async_payment_failed,billing.meter.created,billing.meter.updated,billing.meter.deactivated,
        entitlements.active_entitlement_summary.updated
    }'::text[]
$$;
comment on function billing.event_types() is 'The events that a webhook endpoint is to be sent.';
