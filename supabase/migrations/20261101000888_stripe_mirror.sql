-- Why: what Stripe knows is kept here as it came, and read through one normaliser per fact, which understands the
--      shapes before and after 2025-03-31. There is one way to learn: billing.apply().
-- Locks: none on existing tables.
-- Workers: need not stop.

create table billing.settings (
    singleton boolean not null default true,
    account_id text,
    is_live boolean not null default false,
    api_version text not null default '2026-10-28.endive',
    connected_at timestamptz,
    grace_days bigint not null default 14,
    dunning_days bigint[] not null default '{0,3,7}',
    trial_reminder_days bigint[] not null default '{3,1}',
    renewal_reminder_days bigint not null default 7,
    card_reminder_days bigint not null default 30,
    late_usage_days bigint not null default 30,
    keep_events_days bigint not null default 90,
    events_seen_at timestamptz,
    constraint settings_pkey primary key (singleton),
    constraint settings_have_one_row check (singleton),
    constraint settings_grace_is_within_a_year check (grace_days between 0 and 365),
    constraint settings_keep_events_for_a_month check (keep_events_days >= 31)
);
alter table billing.settings enable row level security;
create policy settings_nobody on billing.settings using (false);
comment on table billing.settings is 'The Stripe account that this database belongs to, and how patient billing is.';
comment on column billing.settings.singleton is 'Keeps the table at one row.';
comment on column billing.settings.account_id is
'The account; null until `rowhouse stripe connect`: nothing is sent to Stripe before.';
comment on column billing.settings.is_live is
'Whether the account''s live mode is meant; a key or an event of the other mode is refused.';
comment on column billing.settings.api_version is
'The version of Stripe''s API in which it is asked: that of the SDKs.';
comment on column billing.settings.connected_at is 'Since when.';
comment on column billing.settings.grace_days is 'How long a workspace may write after a payment failed.';
comment on column billing.settings.dunning_days is 'On which days of the grace period mails go out, from 0.';
comment on column billing.settings.trial_reminder_days is 'How many days before a trial ends reminders go out.';
comment on column billing.settings.renewal_reminder_days is
'How many days before a renewal its reminder goes out; 0 for none.';
comment on column billing.settings.card_reminder_days is
'How many days before a card expires its reminder goes out; 0 for none.';
comment on column billing.settings.late_usage_days is
'How late usage may be recorded; Stripe takes meter events of 35 days.';
comment on column billing.settings.keep_events_days is 'How long processed events are kept.';
comment on column billing.settings.events_seen_at is 'Until when Stripe''s own list of events was read.';
insert into billing.settings default values;

create table billing.customers (
    workspace_id uuid not null,
    stripe_id text,
    name text,
    email text,
    address jsonb not null default '{}',
    tax_ids jsonb not null default '[]',
    purchase_order text,
    invoice_footer text,
    revision bigint not null default 0,
    updated_at timestamptz not null default ops.now(),
    constraint customers_pkey primary key (workspace_id),
    constraint customers_stripe_id_is_one_workspace_s unique (stripe_id),
    constraint customers_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade
);
alter table billing.customers enable row level security;
create policy customers_nobody on billing.customers using (false);
comment on table billing.customers is 'Who pays for each workspace, and what its invoices say.';
comment on column billing.customers.workspace_id is 'The tenant.';
comment on column billing.customers.stripe_id is 'The customer at Stripe; null until it is made.';
comment on column billing.customers.name is 'The name on invoices; null for the workspace''s.';
comment on column billing.customers.email is 'Where invoices go; null for its maker''s.';
comment on column billing.customers.address is 'line1, line2, city, postal_code, state, country (ISO 3166).';
comment on column billing.customers.tax_ids is 'A list of {"type": "eu_vat", "value": "DE123456789"}.';
comment on column billing.customers.purchase_order is 'The number that the customer''s bookkeeping wants to see.';
comment on column billing.customers.invoice_footer is 'What stands at the foot of invoices.';
comment on column billing.customers.revision is 'How often these details were changed.';
comment on column billing.customers.updated_at is 'When they last were.';
select audit.watch('billing.customers', 'billing_details', 'r.workspace_id', 'r.workspace_id');

create table billing.object_types (
    object text not null,
    place bigint not null,
    get_path text,
    list_path text,
    list_params jsonb not null default '{}',
    per text,
    amount_field text,
    constraint object_types_pkey primary key (object),
    constraint object_types_place_is_unique unique (place)
);
alter table billing.object_types enable row level security;
create policy object_types_nobody on billing.object_types using (false);
comment on table billing.object_types is
'The objects that are learnt from Stripe. Events of others are stored and answered, and no more.';
comment on column billing.object_types.object is 'Its `object` at Stripe.';
comment on column billing.object_types.place is 'When a backfill comes to it: parents first.';
comment on column billing.object_types.get_path is
'Where one is fetched; {id} and {parent} are filled in. Null: only with its parent.';
comment on column billing.object_types.list_path is 'Where they are listed; null: only with their parents.';
comment on column billing.object_types.list_params is 'What is asked besides.';
comment on column billing.object_types.per is 'Where a list is of one parent: the parent''s object.';
comment on column billing.object_types.amount_field is 'The amount by which drift is reported in money.';

insert into billing.object_types (place, object, get_path, list_path, list_params, per, amount_field)
values
(10, 'product', '/v1/products/{id}', '/v1/products', '{}', null, null),
(20, 'price', '/v1/prices/{id}', '/v1/prices', '{}', null, 'unit_amount'),
(30, 'billing.meter', '/v1/billing/meters/{id}', '/v1/billing/meters', '{}', null, null),
(40, 'entitlements.feature', '/v1/entitlements/features/{id}', '/v1/entitlements/features', '{}', null, null),
(50, 'product_feature', null, '/v1/products/{parent}/features', '{}', 'product', null),
(60, 'coupon', '/v1/coupons/{id}', '/v1/coupons', '{}', null, 'amount_off'),
(70, 'promotion_code', '/v1/promotion_codes/{id}', '/v1/promotion_codes', '{}', null, null),
(80, 'customer', '/v1/customers/{id}', '/v1/customers', '{"expand": ["data.tax_ids"]}', null, 'balance'),
(90, 'tax_id', '/v1/customers/{parent}/tax_ids/{id}', null, '{}', 'customer', null),
(100, 'discount', null, null, '{}', null, null),
(110, 'subscription', '/v1/subscriptions/{id}', '/v1/subscriptions', '{"status": "all"}', null, null),
(120, 'subscription_schedule', '/v1/subscription_schedules/{id}', '/v1/subscription_schedules', '{}', null, null),
(130, 'checkout.session', '/v1/checkout/sessions/{id}', '/v1/checkout/sessions', '{}', null, 'amount_total'),
(140, 'invoice', '/v1/invoices/{id}', '/v1/invoices', '{"expand": ["data.payments"]}', null, 'amount_paid'),
(150, 'invoice_payment', '/v1/invoice_payments/{id}', '/v1/invoice_payments', '{}', null, 'amount_paid'),
(160, 'payment_intent', '/v1/payment_intents/{id}', '/v1/payment_intents', '{}', null, 'amount_received'),
(170, 'charge', '/v1/charges/{id}', '/v1/charges', '{}', null, 'amount_captured'),
(180, 'refund', '/v1/refunds/{id}', '/v1/refunds', '{}', null, 'amount'),
(190, 'dispute', '/v1/disputes/{id}', '/v1/disputes', '{}', null, 'amount'),
(200, 'credit_note', '/v1/credit_notes/{id}', '/v1/credit_notes', '{}', null, 'amount'),
(
    210, 'customer_balance_transaction', '/v1/customers/{parent}/balance_transactions/{id}',
    '/v1/customers/{parent}/balance_transactions', '{}', 'customer', 'amount'
),
(220, 'entitlements.active_entitlement_summary', null, '/v1/entitlements/active_entitlements', '{}', 'customer', null);

create table billing.objects (
    id text not null,
    object text not null,
    customer_id text,
    parent_id text,
    data jsonb not null,
    api_version text not null,
    as_of timestamptz not null,
    is_fetched boolean not null,
    is_deleted boolean not null default false,
    revision bigint not null default 1,
    source text not null,
    learned_at timestamptz not null default ops.now(),
    checked_at timestamptz not null default clock_timestamp(),
    constraint objects_pkey primary key (id),
    constraint objects_are_of_a_known_type foreign key (object) references billing.object_types (object)
) with (fillfactor = 80);
alter table billing.objects enable row level security;
create policy objects_nobody on billing.objects using (false);
-- Not by the id: a plan of when the table was empty might take it for the key.
create index objects_object on billing.objects (object, checked_at);
create index objects_customer_id on billing.objects (customer_id, object) where customer_id is not null;
create index objects_parent_id on billing.objects (parent_id, object) where parent_id is not null;
create index objects_payment on billing.objects ((data #>> '{payment,payment_intent}')) where object
= 'invoice_payment';
comment on table billing.objects is
'What Stripe knows, as it came: one row per object. A deleted one stays, as a tombstone.';
comment on column billing.objects.id is 'Its id at Stripe.';
comment on column billing.objects.object is 'What it is.';
comment on column billing.objects.customer_id is 'Whose it is, if anybody''s.';
comment on column billing.objects.parent_id is
'What it belongs to: a refund to a charge, a price to a product. It may not have arrived yet.';
comment on column billing.objects.data is 'The object.';
comment on column billing.objects.api_version is 'In which version''s shape.';
comment on column billing.objects.as_of is 'Of when this is, by Stripe''s clock, to the second.';
comment on column billing.objects.is_fetched is 'Whether it was asked for; otherwise an event brought it.';
comment on column billing.objects.is_deleted is 'Whether Stripe has deleted it.';
comment on column billing.objects.revision is
'How often it has changed here: an answer to what was asked before a change is stale.';
comment on column billing.objects.source is 'What brought it: event, fetch, answer, page.';
comment on column billing.objects.learned_at is 'When it last changed here.';
comment on column billing.objects.checked_at is 'When it was last learnt, changed or not.';

-- Normalisers --------------------------------------------------------------------------------

-- In PL/pgSQL, whose plans last as long as the session: an SQL function that pins its search_path is planned anew in
-- every transaction.
create function billing.id_of(reference jsonb) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select case jsonb_typeof(id_of.reference)
            when 'string' then id_of.reference #>> '{}'
            when 'object' then id_of.reference ->> 'id'
        end
    );
end
$$;
comment on function billing.id_of(jsonb) is
'The id in a field that is an id, or the object itself where it was expanded.';

create function billing.moment(seconds jsonb) returns timestamptz
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select case
            when jsonb_typeof(moment.seconds) = 'number' then to_timestamp((moment.seconds #>> '{}')::numeric::double precision)
        end
    );
end
$$;
comment on function billing.moment(jsonb) is 'A time as Stripe writes it: seconds since 1970.';

create function billing.period_start_of(subscription jsonb) returns timestamptz
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Since 2025-03-31 each item has a period of its own.
    return (
        select coalesce(
            billing.moment(subscription -> 'current_period_start'),
            (
                select max(billing.moment(i.item -> 'current_period_start'))
                from jsonb_array_elements(subscription #> '{items,data}') as i (item)
            )
        )
    );
end
$$;
comment on function billing.period_start_of(jsonb) is 'When a subscription''s period began, whatever the version.';

create function billing.period_end_of(subscription jsonb) returns timestamptz
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select coalesce(
            billing.moment(subscription -> 'current_period_end'),
            (
                select max(billing.moment(i.item -> 'current_period_end'))
                from jsonb_array_elements(subscription #> '{items,data}') as i (item)
            )
        )
    );
end
$$;
comment on function billing.period_end_of(jsonb) is 'Until when a subscription''s period goes, whatever the version.';

create function billing.ends_at_of(subscription jsonb) returns timestamptz
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select coalesce(
            billing.moment(subscription -> 'cancel_at'),
            case when subscription -> 'cancel_at_period_end' = 'true' then billing.period_end_of(subscription) end
        )
    );
end
$$;
comment on function billing.ends_at_of(jsonb) is
'When a subscription that was cancelled for later will end; null for one that goes on.';

create function billing.subscription_of(invoice jsonb) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select coalesce(
            billing.id_of(invoice -> 'subscription'),
            billing.id_of(invoice #> '{parent,subscription_details,subscription}')
        )
    );
end
$$;
comment on function billing.subscription_of(jsonb) is 'The subscription that an invoice is for, whatever the version.';

create function billing.line_price_of(line jsonb) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select coalesce(billing.id_of(line -> 'price'), billing.id_of(line #> '{pricing,price_details,price}'))
    );
end
$$;
comment on function billing.line_price_of(jsonb) is 'The price of an invoice''s line, whatever the version.';

create function billing.discount_of(line jsonb) returns bigint
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(sum((d.item ->> 'amount')::bigint), 0)::bigint
    from jsonb_array_elements(
        case jsonb_typeof(line -> 'discount_amounts') when 'array' then line -> 'discount_amounts' else '[]' end
    ) as d (item)
$$;
comment on function billing.discount_of(jsonb) is 'What is taken off a line of an invoice, in minor units.';

create function billing.lines_total(invoice jsonb) returns bigint
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(sum((l.line ->> 'amount')::bigint - billing.discount_of(l.line)), 0)::bigint
    from jsonb_array_elements(invoice #> '{lines,data}') as l (line)
$$;
comment on function billing.lines_total(jsonb) is 'What the lines of an invoice come to, less discounts.';

create function billing.paid_at_of(invoice jsonb) returns timestamptz
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(billing.moment(invoice #> '{status_transitions,paid_at}'), billing.moment(invoice -> 'created'))
$$;
comment on function billing.paid_at_of(jsonb) is 'When an invoice was paid.';

create function billing.tax_of(invoice jsonb) returns bigint
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(
        (invoice ->> 'tax')::bigint,
        (
            select sum((t.tax ->> 'amount')::bigint)::bigint
            from jsonb_array_elements(
                case jsonb_typeof(invoice -> 'total_taxes') when 'array' then invoice -> 'total_taxes' else '[]' end
            ) as t (tax)
        ),
        0
    )
$$;
comment on function billing.tax_of(jsonb) is 'The tax on an invoice, in minor units, whatever the version.';

create function billing.net_of(invoice jsonb) returns bigint
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select (invoice ->> 'total')::bigint - coalesce((invoice ->> 'pre_payment_credit_notes_amount')::bigint, 0)
        - billing.tax_of(invoice)
$$;
comment on function billing.net_of(jsonb) is
'What an invoice sells for, without tax, and without what was credited before it was paid.';

create function billing.coupon_of(discount jsonb) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(
        billing.id_of(discount -> 'coupon'),
        billing.id_of(discount #> '{source,coupon}'),
        billing.id_of(discount #> '{promotion,coupon}')
    )
$$;
comment on function billing.coupon_of(jsonb) is
'The coupon behind a discount or a promotion code, whatever the version.';

create function billing.invoice_of(charge jsonb) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Since 2025-03-31 a payment does not name its invoice: an invoice payment stands between them.
    return (
        select coalesce(
            billing.id_of(charge -> 'invoice'),
            (
                select o.parent_id from billing.objects o
                where o.object = 'invoice_payment' and o.data #>> '{payment,payment_intent}' = billing.id_of(charge -> 'payment_intent')
                order by o.id limit 1
            ),
            (
                select billing.id_of(p.data -> 'invoice') from billing.objects p where p.id = billing.id_of(charge -> 'payment_intent')
            )
        )
    );
end
$$;
comment on function billing.invoice_of(jsonb) is
'The invoice that a charge paid, whatever the version; null if none is known.';

create function billing.parent_of(object jsonb) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select case object ->> 'object'
            when 'price' then billing.id_of(object -> 'product')
            when 'promotion_code' then billing.coupon_of(object)
            when 'subscription_schedule' then billing.id_of(object -> 'subscription')
            when 'checkout.session' then billing.id_of(object -> 'subscription')
            when 'discount' then coalesce(billing.id_of(object -> 'subscription'), billing.id_of(object -> 'customer'))
            when 'invoice' then billing.subscription_of(object)
            when 'invoice_payment' then billing.id_of(object -> 'invoice')
            when 'payment_intent' then billing.id_of(object -> 'invoice')
            when 'charge' then billing.id_of(object -> 'payment_intent')
            when 'refund' then billing.id_of(object -> 'charge')
            when 'dispute' then billing.id_of(object -> 'charge')
            when 'credit_note' then billing.id_of(object -> 'invoice')
            when 'customer_balance_transaction' then billing.id_of(object -> 'customer')
            when 'tax_id' then coalesce(billing.id_of(object -> 'customer'), billing.id_of(object #> '{owner,customer}'))
            when 'entitlements.active_entitlement_summary' then billing.id_of(object -> 'customer')
        end
    );
end
$$;
comment on function billing.parent_of(jsonb) is 'What an object belongs to.';

create function billing.key_of(object jsonb) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    -- A summary has no id of its own: there is one per customer.
    return (
        select case object ->> 'object'
            when 'entitlements.active_entitlement_summary' then 'entitlements:' || billing.id_of(object -> 'customer')
            else object ->> 'id'
        end
    );
end
$$;
comment on function billing.key_of(jsonb) is 'By what an object is known here: its id.';

-- Learning -----------------------------------------------------------------------------------

create function billing.lock_learning() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    -- One at a time, until commit: batches that meet the same workspaces in another order would deadlock.
    perform pg_advisory_xact_lock(8888, 1);
end
$$;
comment on function billing.lock_learning() is 'Holds off everybody else who learns from Stripe, until commit.';

create function billing.ask_again(object text, id text, parent_id text default null) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    select jobs.enqueue(
        'billing.call',
        jsonb_strip_nulls(jsonb_build_object('object', ask_again.object, 'id', ask_again.id, 'parent', ask_again.parent_id)),
        dedupe_key => 'fetch:' || ask_again.id
    )
$$;
comment on function billing.ask_again(text, text, text) is 'Has an object fetched: what is known of it may be stale.';

create function billing.apply(
    object jsonb, api_version text, as_of timestamptz, source text, parent_id text default null,
    is_deletion boolean default false
) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    key text := billing.key_of(apply.object);
    known billing.objects;
    next billing.objects;
    embedded jsonb;
begin
    if key is null or not exists (select from billing.object_types t where t.object = apply.object ->> 'object') then
        return false;
    end if;
    -- The other mode's objects are another world's; some carry no mode.
    if (apply.object ->> 'livemode')::boolean <> (select s.is_live from billing.settings s) then
        return false;
    end if;
    perform billing.lock_learning();
    select o.* into known from billing.objects o where o.id = key;
    next.is_deleted := apply.is_deletion or coalesce((apply.object ->> 'deleted')::boolean, false);
    if found and known.is_deleted and apply.source = 'event' then
        return false;
    end if;
    next.data := case
        -- A tombstone says nothing but its id: what was known stays readable.
        when next.is_deleted then coalesce(known.data, '{}') || apply.object
        else apply.object
    end;
    next.is_fetched := apply.source <> 'event';
    if known.id is not null and known.data = next.data and known.is_deleted = next.is_deleted then
        update billing.objects o
        set as_of = greatest(o.as_of, apply.as_of), is_fetched = next.is_fetched, api_version = apply.api_version,
            checked_at = clock_timestamp()
        where o.id = key;
        return false;
    end if;
    insert into billing.objects as o (
        id, object, customer_id, parent_id, data, api_version, as_of, is_fetched, is_deleted, source
    ) values (
        key, apply.object ->> 'object',
        case when apply.object ->> 'object' = 'customer' then key
            else coalesce(
                billing.id_of(apply.object -> 'customer'), case when apply.parent_id like 'cus\_%' then apply.parent_id end,
                -- A dispute, a refund and an invoice's payment name no customer: it is their parent's.
                (select o.customer_id from billing.objects o where o.id = billing.parent_of(apply.object))
            )
        end,
        coalesce(billing.parent_of(apply.object), apply.parent_id), next.data, apply.api_version, apply.as_of,
        next.is_fetched, next.is_deleted, apply.source
    )
    on conflict on constraint objects_pkey do update
    set
        customer_id = coalesce(excluded.customer_id, o.customer_id), parent_id = coalesce(excluded.parent_id, o.parent_id),
        data = excluded.data, api_version = excluded.api_version, as_of = greatest(o.as_of, excluded.as_of),
        is_fetched = excluded.is_fetched, is_deleted = excluded.is_deleted, revision = o.revision + 1,
        source = excluded.source, learned_at = ops.now(), checked_at = clock_timestamp()
    returning o.* into next;
    for embedded in
        select e.item
        from (values ('customer', 'tax_ids'), ('invoice', 'payments'), ('charge', 'refunds')) as n (object, field)
        cross join lateral jsonb_array_elements(
            case jsonb_typeof(next.data #> array[n.field, 'data']) when 'array' then next.data #> array[n.field, 'data'] else '[]' end
        ) as e (item)
        where n.object = next.object and not next.is_deleted
    loop
        perform billing.apply_unless_newer(embedded, apply.api_version, apply.as_of, apply.source, key);
    end loop;
    perform billing.heed(next, known);
    return true;
end
$$;
comment on function billing.apply(jsonb, text, timestamptz, text, text, boolean) is
'The one way to learn from Stripe: keeps an object as of a time, and draws the consequences. True if anything changed.
source is event, fetch, answer or page.';

create function billing.apply_unless_newer(
    object jsonb, api_version text, as_of timestamptz, source text, parent_id text default null
) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    key text := billing.key_of(apply_unless_newer.object);
    known billing.objects;
begin
    perform billing.lock_learning();
    select o.* into known from billing.objects o where o.id = key;
    -- Learnt while the answer was under way: which of the two is newer, only Stripe can tell.
    if found and known.data <> apply_unless_newer.object
        and known.as_of > apply_unless_newer.as_of - interval '2 seconds'
    then
        perform billing.ask_again(known.object, known.id, known.parent_id);
        return false;
    end if;
    return billing.apply(
        apply_unless_newer.object, apply_unless_newer.api_version, apply_unless_newer.as_of, apply_unless_newer.source,
        apply_unless_newer.parent_id
    );
end
$$;
comment on function billing.apply_unless_newer(jsonb, text, timestamptz, text, text) is
'Learns an object from an answer or a page of a list, unless something was learnt meanwhile: then it is asked
for anew.';
