-- Why: what is used is a fact, recorded once per key, counted by the hour and by the period in the transaction that
--      records it, and told to Stripe by the hour, exactly once.
-- Locks: none on existing tables.
-- Workers: need not stop.

create table billing.usage_events (
    workspace_id uuid not null,
    idempotency_key text not null,
    meter text not null,
    quantity bigint not null,
    used_at timestamptz not null,
    recorded_at timestamptz not null default ops.now(),
    constraint usage_events_pkey primary key (workspace_id, idempotency_key),
    constraint usage_events_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint usage_events_name_a_meter foreign key (meter) references billing.meters (meter),
    constraint usage_events_quantity_is_positive check (quantity between 1 and 1000000000000)
);
alter table billing.usage_events enable row level security;
create policy usage_events_nobody on billing.usage_events using (false);
create index usage_events_meter on billing.usage_events (meter);
create trigger usage_events_are_append_only before update on billing.usage_events
for each row execute function ops.refuse_change();
comment on table billing.usage_events is 'What was used, once per key.';
comment on column billing.usage_events.workspace_id is 'The tenant.';
comment on column billing.usage_events.idempotency_key is 'The caller''s key: once per workspace.';
comment on column billing.usage_events.meter is 'What was used.';
comment on column billing.usage_events.quantity is 'How much of it.';
comment on column billing.usage_events.used_at is 'When.';
comment on column billing.usage_events.recorded_at is 'When that was recorded.';

create table billing.usage_hours (
    workspace_id uuid not null,
    meter text not null,
    hour timestamptz not null,
    quantity bigint not null,
    event_count bigint not null,
    last_used_at timestamptz not null,
    pushed bigint not null default 0,
    constraint usage_hours_pkey primary key (workspace_id, meter, hour),
    constraint usage_hours_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint usage_hours_name_a_meter foreign key (meter) references billing.meters (meter)
) with (fillfactor = 70);
alter table billing.usage_hours enable row level security;
create policy usage_hours_nobody on billing.usage_hours using (false);
create index usage_hours_meter on billing.usage_hours (meter);
create index usage_hours_unpushed on billing.usage_hours (hour) where pushed < quantity;
comment on table billing.usage_hours is
'What was used by the hour: a roll-up, which billing.rebuild_usage() can make anew.';
comment on column billing.usage_hours.workspace_id is 'The tenant.';
comment on column billing.usage_hours.meter is 'What was used.';
comment on column billing.usage_hours.hour is 'The beginning of the hour.';
comment on column billing.usage_hours.quantity is 'How much.';
comment on column billing.usage_hours.event_count is 'In how many events.';
comment on column billing.usage_hours.last_used_at is 'The last of them.';
comment on column billing.usage_hours.pushed is 'How much of it Stripe has been told of, or is about to be.';

create table billing.usage_periods (
    workspace_id uuid not null,
    meter text not null,
    starts_at timestamptz not null,
    ends_at timestamptz not null,
    quantity bigint not null,
    constraint usage_periods_pkey primary key (workspace_id, meter, starts_at),
    constraint usage_periods_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint usage_periods_name_a_meter foreign key (meter) references billing.meters (meter)
) with (fillfactor = 50);
alter table billing.usage_periods enable row level security;
create policy usage_periods_nobody on billing.usage_periods using (false);
create index usage_periods_meter on billing.usage_periods (meter);
comment on table billing.usage_periods is 'What was used by the period: the row that makes a hard cap exact.';
comment on column billing.usage_periods.workspace_id is 'The tenant.';
comment on column billing.usage_periods.meter is 'What was used.';
comment on column billing.usage_periods.starts_at is
'When the period began: the subscription''s, or the calendar month in UTC.';
comment on column billing.usage_periods.ends_at is 'When it ends.';
comment on column billing.usage_periods.quantity is 'How much.';

create table billing.usage_pushes (
    workspace_id uuid not null,
    meter text not null,
    hour timestamptz not null,
    number bigint not null,
    quantity bigint not null,
    request_id uuid not null,
    pushed_at timestamptz,
    constraint usage_pushes_pkey primary key (workspace_id, meter, hour, number),
    constraint usage_pushes_belong_to_an_hour foreign key (workspace_id, meter, hour)
    references billing.usage_hours (workspace_id, meter, hour) on delete cascade,
    constraint usage_pushes_are_a_request foreign key (request_id) references billing.requests (id) on delete cascade
);
alter table billing.usage_pushes enable row level security;
create policy usage_pushes_nobody on billing.usage_pushes using (false);
create index usage_pushes_request_id on billing.usage_pushes (request_id);
comment on table billing.usage_pushes is 'What Stripe was told of each hour: its sum, and what came late.';
comment on column billing.usage_pushes.workspace_id is 'The tenant.';
comment on column billing.usage_pushes.meter is 'What was used.';
comment on column billing.usage_pushes.hour is 'The hour.';
comment on column billing.usage_pushes.number is 'From 1; those after it are of what came late.';
comment on column billing.usage_pushes.quantity is 'How much.';
comment on column billing.usage_pushes.request_id is 'The request that tells it.';
comment on column billing.usage_pushes.pushed_at is 'When Stripe took it.';

select notify.declare_kind(
    'billing.usage_cap',
    '{meter}: {cap} of this period are used',
    '{count} caps are reached',
    'A cap on usage is reached',
    body => '{consequence}', link => '/billing', permission => 'billing.manage', default_frequency => 'immediately'
);

create function billing.usage_period(
    workspace_id uuid, moment timestamptz, out starts_at timestamptz, out ends_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    subscription jsonb;
    step interval;
begin
    select o.data into subscription
    from billing.customers c
    join billing.objects o on o.customer_id = c.stripe_id and o.object = 'subscription' and not o.is_deleted
    where
        c.workspace_id = usage_period.workspace_id
        and o.data ->> 'status' in ('active', 'trialing', 'past_due', 'unpaid') and usage_period.moment >= billing.period_start_of(o.data)
    order by (o.data ->> 'created')::bigint desc, o.id
    limit 1;
    starts_at := billing.period_start_of(subscription);
    ends_at := billing.period_end_of(subscription);
    step := make_interval(
        days => case subscription #>> '{items,data,0,price,recurring,interval}' when 'day' then 1 when 'week' then 7 else 0 end,
        months => case subscription #>> '{items,data,0,price,recurring,interval}' when 'year' then 12 when 'month' then 1 else 0 end
    ) * greatest(1, coalesce((subscription #>> '{items,data,0,price,recurring,interval_count}')::integer, 1));
    -- A renewal that was not heard of yet is a renewal.
    while usage_period.moment >= ends_at and step > interval '0' loop
        starts_at := ends_at;
        ends_at := ends_at + step;
    end loop;
    if starts_at is null or usage_period.moment >= ends_at then
        starts_at := date_trunc('month', usage_period.moment at time zone 'UTC') at time zone 'UTC';
        ends_at := (date_trunc('month', usage_period.moment at time zone 'UTC') + interval '1 month') at time zone 'UTC';
    end if;
end
$$;
comment on function billing.usage_period(uuid, timestamptz) is
'The period that a moment belongs to: the subscription''s present one, or a calendar month in UTC.';

create function billing.count_usage(
    workspace_id uuid, meter text, starts_at timestamptz, ends_at timestamptz, amount bigint
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    used bigint;
    terms billing.plan_meters;
begin
    insert into billing.usage_periods as p (workspace_id, meter, starts_at, ends_at, quantity)
    values (count_usage.workspace_id, count_usage.meter, count_usage.starts_at, count_usage.ends_at, count_usage.amount)
    on conflict on constraint usage_periods_pkey do update
    set quantity = p.quantity + excluded.quantity, ends_at = excluded.ends_at
    returning p.quantity into used;
    select m.* into terms from billing.current_access ca
    join billing.plan_meters m on m.plan_id = ca.plan_id and m.meter = count_usage.meter
    where ca.workspace_id = count_usage.workspace_id;
    if terms.cap is null or used < terms.cap or (used = terms.cap and count_usage.amount = 0) then
        return;
    end if;
    if terms.is_hard and used > terms.cap and count_usage.ends_at > ops.now() then
        perform ops.raise_http(
            402, 'usage_cap_reached', format('The plan allows %s of %s in a period.', terms.cap, count_usage.meter),
            jsonb_build_object('meter', count_usage.meter, 'cap', terms.cap, 'used', used - count_usage.amount, 'ends_at', count_usage.ends_at),
            'A larger plan, or the next period, lifts this.'
        );
    end if;
    if used - count_usage.amount < terms.cap then
        perform billing.tell(
            count_usage.workspace_id, 'billing.usage_cap', jsonb_build_object(
                'meter', (select k.name from billing.meters k where k.meter = count_usage.meter), 'cap', terms.cap,
                'consequence', case when terms.is_hard then 'No more is taken until ' || billing.day(count_usage.ends_at) || '.' else 'More is taken, and charged for.' end
            )
        );
    end if;
end
$$;
comment on function billing.count_usage(uuid, text, timestamptz, timestamptz, bigint) is
'Counts usage in its period; answers 402 beyond a hard cap, tells of a cap when it is reached.';

create function billing.usage_flaw(
    meter text, quantity bigint, idempotency_key text, used_at timestamptz, late_days bigint
) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select case
        when not exists (select from billing.meters m where m.meter = usage_flaw.meter and not m.is_archived) then 'names no meter'
        when coalesce(usage_flaw.quantity not between 1 and 1000000000000, true) then 'has no quantity: a whole number from 1'
        when coalesce(length(usage_flaw.idempotency_key) not between 1 and 200, true) then 'has no idempotency key of 1 to 200 characters'
        when usage_flaw.used_at > ops.now() + interval '5 minutes' then 'is of the future'
        when usage_flaw.used_at < ops.now() - make_interval(days => usage_flaw.late_days::integer) then format('is more than %s days late', usage_flaw.late_days)
    end
$$;
comment on function billing.usage_flaw(text, bigint, text, timestamptz, bigint) is
'Why an event of usage cannot be recorded; null if it can.';

create function billing.record_usage_many(workspace_id uuid, events jsonb) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    moment timestamptz := ops.now();
    late_days bigint := (select s.late_usage_days from billing.settings s);
    meters text[];
    quantities bigint[];
    keys text[];
    times timestamptz[];
    flaw record;
    period record;
    sums record;
    counted jsonb;
    recorded bigint;
begin
    if jsonb_typeof(events) is distinct from 'array' or jsonb_array_length(events) > 10000 then
        perform ops.raise_http(
            400, 'usage_too_many', 'Usage comes as a list of at most 10,000 events.', null,
            'Send [{"meter", "quantity", "idempotency_key", "at"}, …] in several calls.'
        );
    end if;
    if not exists (select from public.workspaces w where w.id = record_usage_many.workspace_id) then
        perform ops.raise_http(404, 'workspace_not_found', 'There is no such workspace.');
    end if;
    begin
        select
            array_agg(e.item ->> 'meter' order by e.place),
            array_agg(case when e.item ->> 'quantity' ~ '^\d{1,13}$' then (e.item ->> 'quantity')::bigint end order by e.place),
            array_agg(e.item ->> 'idempotency_key' order by e.place),
            array_agg(coalesce((e.item ->> 'at')::timestamptz, moment) order by e.place)
        into meters, quantities, keys, times
        from jsonb_array_elements(events) with ordinality as e (item, place);
    exception
        when data_exception then
            perform ops.raise_http(
                400, 'usage_invalid', 'A time among the events is none.', null, 'Write times as 2026-11-20T12:00:00Z.'
            );
    end;
    -- The shapes first, without asking for each what is the same for all.
    select i.place, billing.usage_flaw(i.meter, i.quantity, i.key, i.used_at, late_days) as words into flaw
    from unnest(meters, quantities, keys, times) with ordinality as i (meter, quantity, key, used_at, place)
    left join billing.meters m on m.meter = i.meter and not m.is_archived
    where
        m.meter is null or i.quantity is null or i.quantity not between 1 and 1000000000000
        or i.key is null or length(i.key) not between 1 and 200
        or i.used_at > moment + interval '5 minutes' or i.used_at < moment - make_interval(days => late_days::integer)
    order by i.place limit 1;
    if found then
        perform ops.raise_http(
            400, 'usage_invalid', format('Event %s %s.', flaw.place, flaw.words), jsonb_build_object('event', flaw.place),
            'Nothing was recorded. Meters: '
            || coalesce((select string_agg(k.meter, ', ' order by k.meter) from billing.meters k where not k.is_archived), 'none') || '.'
        );
    end if;
    with added as (
        insert into billing.usage_events as u (workspace_id, idempotency_key, meter, quantity, used_at)
        select distinct on (i.key) record_usage_many.workspace_id, i.key, i.meter, i.quantity, i.used_at
        from unnest(meters, quantities, keys, times) with ordinality as i (meter, quantity, key, used_at, place)
        order by i.key, i.place
        on conflict on constraint usage_events_pkey do nothing
        returning u.meter, u.quantity, u.used_at
    ),
    by_hour as (
        select
            a.meter, date_trunc('hour', a.used_at at time zone 'UTC') at time zone 'UTC' as hour, sum(a.quantity)::bigint as quantity,
            count(*) as event_count, max(a.used_at) as last_used_at
        from added a group by 1, 2 order by 1, 2
    ),
    rolled_up as (
        insert into billing.usage_hours as h (workspace_id, meter, hour, quantity, event_count, last_used_at)
        select record_usage_many.workspace_id, b.meter, b.hour, b.quantity, b.event_count, b.last_used_at from by_hour b
        on conflict on constraint usage_hours_pkey do update
        set
            quantity = h.quantity + excluded.quantity, event_count = h.event_count + excluded.event_count,
            last_used_at = greatest(h.last_used_at, excluded.last_used_at)
        returning 1
    )
    select coalesce(sum(b.event_count), 0)::bigint, jsonb_agg(to_jsonb(b) order by b.meter, b.hour)
    into recorded, counted
    from by_hour b where (select count(*) from rolled_up) >= 0;
    -- The same key for something else is a mistake that would otherwise lose usage.
    if recorded < jsonb_array_length(events) then
        select i.place into flaw
        from unnest(meters, quantities, keys) with ordinality as i (meter, quantity, key, place)
        join billing.usage_events u on u.workspace_id = record_usage_many.workspace_id and u.idempotency_key = i.key
        where (u.meter, u.quantity) is distinct from (i.meter, i.quantity)
        order by i.place limit 1;
        if found then
            perform ops.raise_http(
                409, 'idempotency_key_reused', format('The key of event %s was used for something else.', flaw.place), jsonb_build_object('event', flaw.place),
                'Nothing was recorded. Use a new key for what is new.'
            );
        end if;
    end if;
    -- In one order by everybody.
    for sums in
        select s.meter, s.hour, s.quantity from jsonb_to_recordset(counted) as s (meter text, hour timestamptz, quantity bigint)
        order by s.meter, s.hour
    loop
        select p.starts_at, p.ends_at into period from billing.usage_period(record_usage_many.workspace_id, sums.hour + interval '59 minutes 59 seconds') p;
        perform billing.count_usage(record_usage_many.workspace_id, sums.meter, period.starts_at, period.ends_at, sums.quantity);
    end loop;
    return recorded;
end
$$;
comment on function billing.record_usage_many(uuid, jsonb) is
'Records up to 10,000 events of usage, all or none: [{"meter", "quantity", "idempotency_key", "at"}]. Returns how
many were new. Answers 400, 402 beyond a hard cap, 409 for a key that was used for something else.';

create function billing.record_usage(
    workspace_id uuid, meter text, quantity bigint, idempotency_key text, at timestamptz default null
) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    moment timestamptz := ops.now();
    used_at timestamptz := coalesce(record_usage.at, moment);
    period record;
begin
    insert into billing.usage_events (workspace_id, idempotency_key, meter, quantity, used_at)
    select record_usage.workspace_id, record_usage.idempotency_key, m.meter, record_usage.quantity, used_at
    from billing.meters m
    where
        m.meter = record_usage.meter and not m.is_archived and record_usage.quantity between 1 and 1000000000000
        and length(record_usage.idempotency_key) between 1 and 200 and used_at <= moment + interval '5 minutes'
        and used_at >= moment - (select make_interval(days => s.late_usage_days::integer) from billing.settings s)
    on conflict on constraint usage_events_pkey do nothing;
    if not found then
        -- A duplicate, or what is wrong: it is said in one place.
        return billing.record_usage_many(
            record_usage.workspace_id,
            jsonb_build_array(jsonb_build_object(
                'meter', record_usage.meter, 'quantity', record_usage.quantity, 'idempotency_key', record_usage.idempotency_key, 'at', used_at
            ))
        ) > 0;
    end if;
    insert into billing.usage_hours as h (workspace_id, meter, hour, quantity, event_count, last_used_at)
    values (
        record_usage.workspace_id, record_usage.meter, date_trunc('hour', used_at at time zone 'UTC') at time zone 'UTC',
        record_usage.quantity, 1, used_at
    )
    on conflict on constraint usage_hours_pkey do update
    set
        quantity = h.quantity + excluded.quantity, event_count = h.event_count + 1,
        last_used_at = greatest(h.last_used_at, excluded.last_used_at);
    select p.starts_at, p.ends_at into period
    from billing.usage_period(record_usage.workspace_id, date_trunc('hour', used_at) + interval '59 minutes 59 seconds') p;
    perform billing.count_usage(record_usage.workspace_id, record_usage.meter, period.starts_at, period.ends_at, record_usage.quantity);
    return true;
end
$$;
comment on function billing.record_usage(uuid, text, bigint, text, timestamptz) is
'Records that so much of a meter was used, once per key; false if it was recorded before. at is within the last days, or
5 minutes ahead. Answers as record_usage_many().';

create function billing.rebuild_usage(workspace_id uuid) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    differing bigint;
begin
    perform from billing.usage_hours h where h.workspace_id = rebuild_usage.workspace_id for update;
    with facts as (
        select u.meter, date_trunc('hour', u.used_at at time zone 'UTC') at time zone 'UTC' as hour, sum(u.quantity)::bigint as quantity, count(*) as event_count,
            max(u.used_at) as last_used_at
        from billing.usage_events u where u.workspace_id = rebuild_usage.workspace_id group by 1, 2
    ),
    mended as (
        insert into billing.usage_hours as h (workspace_id, meter, hour, quantity, event_count, last_used_at)
        select rebuild_usage.workspace_id, f.meter, f.hour, f.quantity, f.event_count, f.last_used_at from facts f
        on conflict on constraint usage_hours_pkey do update
        set quantity = excluded.quantity, event_count = excluded.event_count, last_used_at = excluded.last_used_at
        where (h.quantity, h.event_count) <> (excluded.quantity, excluded.event_count)
        returning 1
    )
    select count(*) into differing from mended;
    return differing;
end
$$;
comment on function billing.rebuild_usage(uuid) is
'Makes the hourly roll-up of a workspace anew from the events. Returns how many hours were off.';

create function billing.push_usage(at_most bigint default 10000) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    owed record;
    number bigint;
    request uuid;
    pushed bigint := 0::bigint;
begin
    for owed in
        select h.*, c.stripe_id
        from billing.usage_hours h
        join billing.customers c on c.workspace_id = h.workspace_id and c.stripe_id is not null
        where
            h.pushed < h.quantity
            -- An hour is told once it is over, with a while for what comes late.
            and h.hour + interval '65 minutes' <= ops.now()
            -- Stripe bills what falls in the present period, and takes nothing older than 35 days.
            and h.hour > ops.now() - interval '34 days'
            and exists (
                select from billing.objects o cross join lateral jsonb_array_elements(o.data #> '{items,data}') as i (item)
                join billing.objects m on m.id = i.item #>> '{price,recurring,meter}' and m.data ->> 'event_name' = h.meter
                where
                    o.customer_id = c.stripe_id and o.object = 'subscription' and not o.is_deleted
                    and (
                        o.data ->> 'status' in ('active', 'trialing', 'past_due', 'unpaid')
                        or billing.moment(o.data -> 'ended_at') > ops.now() - interval '2 hours'
                    )
                    -- The invoice of the period before is a draft for an hour: its last hour still counts.
                    and h.last_used_at >= greatest(
                        billing.moment(o.data -> 'start_date'), billing.period_start_of(o.data) - interval '2 hours'
                    )
            )
        order by h.hour, h.workspace_id, h.meter
        limit push_usage.at_most
        for update of h skip locked
    loop
        select count(*) + 1 into number from billing.usage_pushes p
        where p.workspace_id = owed.workspace_id and p.meter = owed.meter and p.hour = owed.hour;
        request := billing.request(
            'usage', '/v1/billing/meter_events',
            jsonb_build_object(
                'event_name', owed.meter,
                'identifier', format('%s:%s:%s:%s', owed.workspace_id, owed.meter, extract(epoch from owed.hour)::bigint, number),
                'timestamp', extract(epoch from date_trunc('second', owed.last_used_at))::bigint,
                'payload', jsonb_build_object('stripe_customer_id', owed.stripe_id, 'value', (owed.quantity - owed.pushed)::text)
            ),
            format('usage:%s:%s:%s:%s', owed.workspace_id, owed.meter, extract(epoch from owed.hour)::bigint, number), owed.workspace_id
        );
        insert into billing.usage_pushes (workspace_id, meter, hour, number, quantity, request_id)
        values (owed.workspace_id, owed.meter, owed.hour, number, owed.quantity - owed.pushed, request);
        update billing.usage_hours h set pushed = h.quantity
        where h.workspace_id = owed.workspace_id and h.meter = owed.meter and h.hour = owed.hour;
        pushed := pushed + 1;
    end loop;
    return pushed;
end
$$;
comment on function billing.push_usage(bigint) is
'Has Stripe told of the hours that are over, and of what came late for earlier ones. Returns how many. Run
every 5 minutes.';

create function billing.usage_now() returns table (
    workspace_id uuid, meter text, name text, used bigint, included bigint, cap bigint, is_hard boolean,
    starts_at timestamptz, ends_at timestamptz
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select
        ca.workspace_id, m.meter, m.name, coalesce(u.quantity, 0), coalesce(t.included, 0), t.cap, coalesce(t.is_hard, false), p.starts_at, p.ends_at
    from billing.current_access ca
    cross join billing.meters m
    cross join lateral billing.usage_period(ca.workspace_id, ops.now()) p
    left join billing.plan_meters t on t.plan_id = ca.plan_id and t.meter = m.meter
    left join billing.usage_periods u on u.workspace_id = ca.workspace_id and u.meter = m.meter and u.starts_at = p.starts_at
    where
        ca.workspace_id = any (array(select authz.workspaces_with('billing.read')))
        and not m.is_archived
        and (t.meter is not null or u.meter is not null)
$$;
comment on function billing.usage_now() is 'Behind public.metered_usage.';
