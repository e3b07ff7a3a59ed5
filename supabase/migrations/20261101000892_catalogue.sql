-- Why: supabase/plans.toml says what is sold. It is checked whole before anything changes; whoever bought what was
--      sold before stays on it, as a version of the plan.
-- Locks: none on existing tables.
-- Workers: need not stop.

create table billing.meters (
    meter text not null,
    name text not null,
    is_archived boolean not null default false,
    constraint meters_pkey primary key (meter),
    constraint meters_name_is_well_formed check (meter ~ '^[a-z][a-z0-9_]{0,47}$')
);
alter table billing.meters enable row level security;
create policy meters_nobody on billing.meters using (false);
comment on table billing.meters is 'What is counted as it is used.';
comment on column billing.meters.meter is 'Its name for programs, and the event''s name at Stripe.';
comment on column billing.meters.name is 'Its name for people.';
comment on column billing.meters.is_archived is 'Whether it is no longer counted.';

create table billing.plan_meters (
    plan_id text not null,
    meter text not null,
    included bigint not null default 0,
    cap bigint,
    is_hard boolean not null default false,
    constraint plan_meters_pkey primary key (plan_id, meter),
    constraint plan_meters_belong_to_a_plan foreign key (plan_id) references billing.plans (id) on delete cascade,
    constraint plan_meters_name_a_meter foreign key (meter) references billing.meters (meter),
    constraint plan_meters_amounts_are_not_negative check (included >= 0 and cap >= 0)
);
alter table billing.plan_meters enable row level security;
create policy plan_meters_nobody on billing.plan_meters using (false);
create index plan_meters_meter on billing.plan_meters (meter);
comment on table billing.plan_meters is
'How much of each meter a plan includes, and how far it goes. A missing row includes and caps nothing.';
comment on column billing.plan_meters.plan_id is 'The plan.';
comment on column billing.plan_meters.meter is 'What is counted.';
comment on column billing.plan_meters.included is 'How much of it is paid for by the plan in each period.';
comment on column billing.plan_meters.cap is 'How much may be used in a period; null is without cap.';
comment on column billing.plan_meters.is_hard is 'Whether more is refused; otherwise it is told of.';

create table billing.prices (
    lookup_key text not null,
    plan_id text not null,
    currency text not null,
    amount bigint not null,
    interval text not null,
    interval_count bigint not null default 1,
    is_per_seat boolean not null default false,
    meter text,
    is_archived boolean not null default false,
    constraint prices_pkey primary key (lookup_key),
    constraint prices_belong_to_a_plan foreign key (plan_id) references billing.plans (id),
    constraint prices_name_a_meter foreign key (meter) references billing.meters (meter),
    constraint prices_have_a_currency foreign key (currency) references ledger.currencies (code),
    constraint prices_interval_is_known check (interval in ('day', 'week', 'month', 'year')),
    constraint prices_amount_is_not_negative check (amount >= 0),
    constraint prices_are_per_seat_or_metered check (not (is_per_seat and meter is not null))
);
alter table billing.prices enable row level security;
create policy prices_nobody on billing.prices using (false);
create index prices_plan_id on billing.prices (plan_id);
create index prices_meter on billing.prices (meter) where meter is not null;
create index prices_currency on billing.prices (currency);
comment on table billing.prices is
'At what plans are sold now. What was sold before is known by Stripe''s prices alone.';
comment on column billing.prices.lookup_key is
'Its name for programs: Stripe''s lookup_key, which moves to a new price when the amount changes.';
comment on column billing.prices.plan_id is 'What it buys.';
comment on column billing.prices.currency is 'ISO 4217.';
comment on column billing.prices.amount is 'In minor units, for each interval, seat, or unit of the meter.';
comment on column billing.prices.interval is 'day, week, month or year.';
comment on column billing.prices.interval_count is 'How many of them.';
comment on column billing.prices.is_per_seat is 'Whether it is paid for each seat.';
comment on column billing.prices.meter is 'What is counted, for a metered price.';
comment on column billing.prices.is_archived is 'Whether it can no longer be bought.';

create function billing.is_per_seat(price jsonb) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    -- By what the price carries with it: its lookup key may have moved on to another.
    return (
        select coalesce(
            (price #>> '{metadata,rowhouse_per_seat}')::boolean,
            (select r.is_per_seat from billing.prices r where r.lookup_key = price ->> 'lookup_key'),
            false
        )
    );
end
$$;
comment on function billing.is_per_seat(jsonb) is 'Whether a price of Stripe''s is paid for each seat.';

-- The file -----------------------------------------------------------------------------------

create function billing.as_object(value jsonb) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select case jsonb_typeof(as_object.value) when 'object' then as_object.value else '{}' end $$;
comment on function billing.as_object(jsonb) is 'An object, or an empty one for anything else.';

create function billing.is_currency(code text) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    -- These Stripe counts otherwise than ISO 4217 does: https://docs.stripe.com/currencies#special-cases
    select exists (select from ledger.currencies c where c.code = upper(is_currency.code))
        and upper(is_currency.code) <> all ('{ISK,UGX,MGA}'::text[])
$$;
comment on function billing.is_currency(text) is 'Whether amounts of a currency mean the same here and at Stripe.';

create function billing.count_flaw(value jsonb, minimum bigint default 0) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select case
        when count_flaw.value is null or count_flaw.value::text ~ '^\d{1,15}$' and (count_flaw.value)::bigint >= count_flaw.minimum then null
        else format('is %s, and must be a whole number from %s', left(count_flaw.value::text, 60), count_flaw.minimum)
    end
$$;
comment on function billing.count_flaw(jsonb, bigint) is
'Why something is no whole number from a minimum; null if it is one, or is absent.';

create function billing.plan_flaws(catalogue jsonb) returns table (path text, flaw text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with
    known_keys (kind, keys) as (
        values
        ('', '{settings,features,meters,plans}'::text[]),
        ('settings', '{grace_days,dunning_days,trial_reminder_days,renewal_reminder_days,card_reminder_days}'),
        ('feature', '{description}'),
        ('meter', '{name}'),
        ('plan', '{name,rank,default,audit_months,trial_days,starts_with_trial,limits,features,meters,prices}'),
        ('plan_meter', '{included,cap,hard}'),
        ('price', '{lookup_key,currency,amount,interval,interval_count,per_seat,meter}')
    ),
    items (kind, path, item) as (
        select '', '', catalogue
        union all select 'settings', 'settings', catalogue -> 'settings' where catalogue ? 'settings'
        union all select 'feature', 'features.' || e.key, e.value from jsonb_each(billing.as_object(catalogue -> 'features')) e
        union all select 'meter', 'meters.' || e.key, e.value from jsonb_each(billing.as_object(catalogue -> 'meters')) e
        union all select 'plan', 'plans.' || e.key, e.value from jsonb_each(billing.as_object(catalogue -> 'plans')) e
        union all
        select 'plan_meter', format('plans.%s.meters.%s', e.key, m.key), m.value
        from jsonb_each(billing.as_object(catalogue -> 'plans')) e
        cross join lateral jsonb_each(billing.as_object(e.value -> 'meters')) m
        union all
        select 'price', format('plans.%s.prices[%s]', e.key, p.place - 1), p.item
        from jsonb_each(billing.as_object(catalogue -> 'plans')) e
        cross join lateral jsonb_array_elements(
            case jsonb_typeof(e.value -> 'prices') when 'array' then e.value -> 'prices' else '[]' end
        ) with ordinality as p (item, place)
    )
    select i.path, 'is no table' from items i where jsonb_typeof(i.item) is distinct from 'object'
    union all
    select concat_ws('.', nullif(i.path, ''), k.key), 'is not known here; there are ' || array_to_string(n.keys, ', ')
    from items i
    join known_keys n on n.kind = i.kind
    cross join lateral jsonb_object_keys(billing.as_object(i.item)) as k (key)
    where k.key <> all (n.keys)
    union all
    select i.path || '.' || r.key, 'is missing'
    from items i
    join (values ('plan', 'name'), ('plan', 'rank'), ('feature', 'description'), ('meter', 'name'), ('price', 'lookup_key'), ('price', 'currency'), ('price', 'amount'), ('price', 'interval')) as r (kind, key) on r.kind = i.kind
    where not billing.as_object(i.item) ? r.key
    union all
    select i.path, 'must be named by a-z, 0-9 and _, from a letter' from items i
    where i.kind in ('plan', 'feature', 'meter') and regexp_replace(i.path, '^\w+\.', '') !~ '^[a-z][a-z0-9_]{0,47}$'
    union all
    select i.path || '.' || k.key, f.flaw
    from items i
    join (values
        ('plan', 'rank', 0), ('plan', 'trial_days', 0), ('plan', 'audit_months', 12), ('price', 'amount', 0), ('price', 'interval_count', 1),
        ('plan_meter', 'included', 0), ('plan_meter', 'cap', 0), ('settings', 'grace_days', 0), ('settings', 'renewal_reminder_days', 0), ('settings', 'card_reminder_days', 0)
    ) as k (kind, key, minimum) on k.kind = i.kind
    cross join lateral (select billing.count_flaw(billing.as_object(i.item) -> k.key, k.minimum)) as f (flaw)
    where f.flaw is not null
    union all
    select 'settings.' || k.key, 'must be a list of days, such as [0, 3, 7]'
    from unnest('{dunning_days,trial_reminder_days}'::text[]) as k (key)
    where catalogue #> array['settings', k.key] is not null and (catalogue #> array['settings', k.key])::text !~ '^\[(\d{1,3}(, \d{1,3})*)?\]$'
    union all
    select i.path || '.' || k.key, 'must be true or false'
    from items i
    join (values ('plan', 'default'), ('plan', 'starts_with_trial'), ('price', 'per_seat'), ('plan_meter', 'hard')) as k (kind, key) on k.kind = i.kind
    where billing.as_object(i.item) ? k.key and jsonb_typeof(i.item -> k.key) <> 'boolean'
    union all
    select i.path || '.' || k.key, 'must be text'
    from items i
    join (values ('plan', 'name'), ('feature', 'description'), ('meter', 'name'), ('price', 'lookup_key'), ('price', 'currency'), ('price', 'interval'), ('price', 'meter')) as k (kind, key) on k.kind = i.kind
    where billing.as_object(i.item) ? k.key and (jsonb_typeof(i.item -> k.key) <> 'string' or i.item ->> k.key !~ '\S')
    union all
    select format('%s.limits.%s', i.path, r.resource), 'is missing: say how many, or "unlimited"'
    from items i cross join billing.resources r
    where i.kind = 'plan' and not billing.as_object(billing.as_object(i.item) -> 'limits') ? r.resource
    union all
    select format('%s.limits.%s', i.path, l.key), case
        when not exists (select from billing.resources r where r.resource = l.key) then 'limits nothing: there are ' || coalesce((select string_agg(r.resource, ', ' order by r.resource) from billing.resources r), 'no tables under limits')
        else 'must be a whole number, or "unlimited"' end
    from items i cross join lateral jsonb_each(billing.as_object(billing.as_object(i.item) -> 'limits')) l
    where
        i.kind = 'plan'
        and (
            not exists (select from billing.resources r where r.resource = l.key)
            or (l.value <> '"unlimited"' and l.value::text !~ '^\d{1,15}$')
        )
    union all
    select i.path || '.features', format('names %s, which is not among the features', f.name)
    from items i cross join lateral jsonb_array_elements_text(
        case jsonb_typeof(billing.as_object(i.item) -> 'features') when 'array' then i.item -> 'features' else '[]' end
    ) as f (name)
    where i.kind = 'plan' and not billing.as_object(catalogue -> 'features') ? f.name
    union all
    select i.path || '.features', format('names %s twice', f.name)
    from items i cross join lateral jsonb_array_elements_text(
        case jsonb_typeof(billing.as_object(i.item) -> 'features') when 'array' then i.item -> 'features' else '[]' end
    ) as f (name)
    where i.kind = 'plan'
    group by i.path, f.name having count(*) > 1
    union all
    select i.path || '.features', 'must be a list of names' from items i
    where i.kind = 'plan' and billing.as_object(i.item) ? 'features' and jsonb_typeof(i.item -> 'features') <> 'array'
    union all
    select i.path || '.prices', 'must be a list: [[plans.….prices]]' from items i
    where i.kind = 'plan' and billing.as_object(i.item) ? 'prices' and jsonb_typeof(i.item -> 'prices') <> 'array'
    union all
    select i.path, 'is of a meter that is not declared' from items i
    where i.kind = 'plan_meter' and not billing.as_object(catalogue -> 'meters') ? split_part(i.path, '.', 4)
    union all
    select i.path || '.meter', 'is not declared' from items i
    where i.kind = 'price' and billing.as_object(i.item) ? 'meter' and not billing.as_object(catalogue -> 'meters') ? (i.item ->> 'meter')
    union all
    select i.path || '.currency', 'is no currency that can be sold in' from items i
    where i.kind = 'price' and jsonb_typeof(billing.as_object(i.item) -> 'currency') = 'string'
    and not billing.is_currency(i.item ->> 'currency')
    union all
    select i.path || '.interval', 'must be day, week, month or year' from items i
    where i.kind = 'price' and billing.as_object(i.item) ->> 'interval' not in ('day', 'week', 'month', 'year')
    union all
    select i.path || '.per_seat', 'and a meter exclude each other' from items i
    where i.kind = 'price' and billing.as_object(i.item) ? 'meter' and i.item -> 'per_seat' = 'true'
    union all
    select max(i.path) || '.lookup_key', format('%s is given twice', i.item ->> 'lookup_key') from items i
    where i.kind = 'price' and billing.as_object(i.item) ? 'lookup_key'
    group by i.item ->> 'lookup_key' having count(*) > 1
    union all
    select max(i.path) || '.rank', format('%s is given twice', i.item ->> 'rank') from items i
    where i.kind = 'plan' and billing.as_object(i.item) ? 'rank'
    group by i.item ->> 'rank' having count(*) > 1
    union all
    select 'plans', 'must have one with default = true'
    where (select count(*) from items i where i.kind = 'plan' and billing.as_object(i.item) -> 'default' = 'true') <> 1
    union all
    select 'plans', 'may have one with starts_with_trial = true'
    where (select count(*) from items i where i.kind = 'plan' and billing.as_object(i.item) -> 'starts_with_trial' = 'true') > 1
    union all
    select i.path || '.starts_with_trial', 'needs trial_days' from items i
    where i.kind = 'plan' and billing.as_object(i.item) -> 'starts_with_trial' = 'true' and coalesce(i.item ->> 'trial_days', '0') = '0'
$$;
comment on function billing.plan_flaws(jsonb) is 'What is wrong with a catalogue, plans.toml as JSON: where, and what.';
