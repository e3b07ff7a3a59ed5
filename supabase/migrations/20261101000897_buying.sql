-- Why: buying, changing and ending a subscription are requests to Stripe, composed here for those who may, once per
--      key. What came of them is learnt like everything else.
-- Locks: none on existing tables.
-- Workers: need not stop.

create function billing.price_for(lookup_key text) returns billing.objects
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    price billing.objects;
begin
    select o.* into price
    from billing.prices r
    join billing.objects o on o.object = 'price' and o.data ->> 'lookup_key' = r.lookup_key and o.data ->> 'active' = 'true' and not o.is_deleted
    where r.lookup_key = price_for.lookup_key and not r.is_archived and r.meter is null
    order by o.id limit 1;
    if not found then
        perform ops.raise_http(
            404, 'price_not_found', format('There is no price %L to buy.', left(price_for.lookup_key, 100)), null,
            coalesce((
                select 'Use ' || string_agg(r.lookup_key, ', ' order by r.lookup_key) || '.' from billing.prices r where not r.is_archived and r.meter is null
            ), 'Declare prices in supabase/plans.toml and run `rowhouse plans apply`.')
        );
    end if;
    return price;
end
$$;
comment on function billing.price_for(text) is 'Stripe''s price of a lookup key; answers 404 for one that is not sold.';

create function billing.seats_for(workspace_id uuid, lookup_key text, seats bigint) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    taken bigint := coalesce(
        (select b.seats from billing.billable_members b where b.workspace_id = seats_for.workspace_id), 1::bigint
    );
begin
    if not (select r.is_per_seat from billing.prices r where r.lookup_key = seats_for.lookup_key) then
        if coalesce(seats_for.seats, 1) <> 1 then
            perform ops.raise_http(400, 'seats_invalid', 'This price is not per seat.', null, 'Leave seats out.');
        end if;
        return 1::bigint;
    end if;
    if seats_for.seats not between taken and 1000000 then
        perform ops.raise_http(
            400, 'seats_invalid', format('There are %s seats taken, and at most 1,000,000 to buy.', taken), jsonb_build_object('taken', taken),
            'Ask for as many, or for more.'
        );
    end if;
    return coalesce(seats_for.seats, taken);
end
$$;
comment on function billing.seats_for(uuid, text, bigint) is
'How many seats to buy; answers 400 for fewer than are taken.';

create function billing.metered_prices(lookup_key text) returns setof billing.objects
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    -- What is metered is billed beside: of the same plan, currency and interval.
    select o.*
    from billing.prices chosen
    join billing.prices r
        on r.plan_id = chosen.plan_id and r.meter is not null and not r.is_archived
        and (r.currency, r.interval, r.interval_count) = (chosen.currency, chosen.interval, chosen.interval_count)
    join billing.objects o on o.object = 'price' and o.data ->> 'lookup_key' = r.lookup_key and o.data ->> 'active' = 'true' and not o.is_deleted
    where chosen.lookup_key = metered_prices.lookup_key
    order by r.lookup_key
$$;
comment on function billing.metered_prices(text) is 'The metered prices that go with a price.';

create function billing.live_subscription(workspace_id uuid) returns billing.objects
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select o.*
    from billing.customers c
    join billing.objects o on o.customer_id = c.stripe_id and o.object = 'subscription' and not o.is_deleted
    where c.workspace_id = live_subscription.workspace_id and o.data ->> 'status' not in ('canceled', 'incomplete_expired', 'incomplete')
    order by (o.data ->> 'created')::bigint desc, o.id
    limit 1
$$;
comment on function billing.live_subscription(uuid) is 'The subscription that a workspace has; null if it has none.';

create function billing.require_subscription(workspace_id uuid) returns billing.objects
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    subscription billing.objects := billing.live_subscription(require_subscription.workspace_id);
begin
    if subscription.id is null then
        perform ops.raise_http(409, 'no_subscription', 'This workspace has no subscription.', null, 'Buy a plan first.');
    end if;
    return subscription;
end
$$;
comment on function billing.require_subscription(uuid) is
'The subscription that a workspace has; answers 409 if it has none.';

create function billing.page_of(path text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Only pages of our own: a place within the site, never an address.
    if coalesce(page_of.path, '') !~ '^/([A-Za-z0-9_~.%=&?-]+/?)*$' or page_of.path ~ '^/[/\\]' or length(page_of.path) > 500 then
        perform ops.raise_http(
            400, 'return_path_invalid', 'This is no page of this product.', null, 'Give a path such as /billing; the site is set by the operator.'
        );
    end if;
    return rtrim((select s.site_url from notify.settings s), '/') || page_of.path;
end
$$;
comment on function billing.page_of(text) is
'The address of a page of the product; answers 400 for anything that could lead elsewhere.';

create function billing.require_key(key text) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    -- It travels in a header.
    if require_key.key !~ '^[!-~]{1,100}$' then
        perform ops.raise_http(
            400, 'idempotency_key_invalid', 'There is no idempotency key, or it is too long.', null,
            'Use 1 to 100 characters of ASCII, such as a UUID.'
        );
    end if;
    return require_key.key;
end
$$;
comment on function billing.require_key(text) is
'An idempotency key, or null; answers 400 for one that cannot be sent.';

create function billing.start_checkout(
    workspace_id uuid, price text, seats bigint, return_path text, idempotency_key text
) returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    bought billing.objects;
    quantity bigint;
    trial_days bigint := 0::bigint;
    plan billing.plans;
    page text;
    wish jsonb := jsonb_build_array(start_checkout.price, start_checkout.seats, start_checkout.return_path);
    known uuid;
begin
    perform authz.require(start_checkout.workspace_id, 'billing.manage');
    perform billing.require_connected();
    known := billing.known_request(
        'checkout', start_checkout.workspace_id,
        format('checkout:%s:%s', start_checkout.workspace_id, billing.require_key(start_checkout.idempotency_key)), wish
    );
    if start_checkout.idempotency_key is not null and known is not null then
        return known;
    end if;
    bought := billing.price_for(start_checkout.price);
    quantity := billing.seats_for(start_checkout.workspace_id, start_checkout.price, start_checkout.seats);
    page := billing.page_of(coalesce(start_checkout.return_path, '/billing'));
    if (billing.live_subscription(start_checkout.workspace_id)).id is not null then
        perform ops.raise_http(409, 'already_subscribed', 'This workspace has a subscription.', null, 'Change it instead: change-plan, or the portal.');
    end if;
    select p.* into plan from billing.plans p join billing.prices r on r.plan_id = p.id where r.lookup_key = start_checkout.price;
    if not exists (select from billing.trials t where t.workspace_id = start_checkout.workspace_id) then
        trial_days := plan.trial_days;
    end if;
    return billing.request(
        'checkout', '/v1/checkout/sessions',
        jsonb_build_object(
            'mode', 'subscription', 'customer', '{customer}', 'client_reference_id', start_checkout.workspace_id,
            'line_items', jsonb_build_array(jsonb_build_object('price', bought.id, 'quantity', quantity)) || coalesce((
                select jsonb_agg(jsonb_build_object('price', m.id)) from billing.metered_prices(start_checkout.price) m
            ), '[]'),
            'allow_promotion_codes', true, 'customer_update', '{"address": "auto", "name": "auto"}'::jsonb,
            'success_url', page || case when position('?' in page) > 0 then '&' else '?' end || 'checkout=done', 'cancel_url', page,
            'subscription_data', jsonb_strip_nulls(jsonb_build_object(
                'metadata', jsonb_strip_nulls(jsonb_build_object('workspace_id', start_checkout.workspace_id, 'seats', start_checkout.seats::text)),
                'trial_period_days', nullif(trial_days, 0)
            ))
        ),
        format('checkout:%s:%s', start_checkout.workspace_id, coalesce(
            start_checkout.idempotency_key,
            -- The same wish within the hour is the same checkout, until it came to something, or to nothing.
            md5(concat_ws(
                '|', bought.id, quantity, page, trial_days,
                (
                    select count(*) from billing.customers c join billing.objects o on o.customer_id = c.stripe_id
                    where c.workspace_id = start_checkout.workspace_id and o.object in ('subscription', 'checkout.session') and o.data ->> 'status' <> 'open'
                ),
                (
                    select count(*) from billing.requests r
                    where r.workspace_id = start_checkout.workspace_id and r.kind = 'checkout' and r.state = 'failed'
                )
            )) || ':' || floor(extract(epoch from ops.now()) / 3600)
        )),
        start_checkout.workspace_id, is_enqueued => false, wish => wish
    );
end
$$;
comment on function billing.start_checkout(uuid, text, bigint, text, text) is 'Behind public.start_checkout().';

create function billing.start_portal(workspace_id uuid, return_path text) returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform authz.require(start_portal.workspace_id, 'billing.manage');
    perform billing.require_connected();
    return billing.request(
        'portal', '/v1/billing_portal/sessions',
        jsonb_build_object('customer', '{customer}', 'return_url', billing.page_of(coalesce(start_portal.return_path, '/billing'))),
        format('portal:%s:%s', start_portal.workspace_id, gen_random_uuid()), start_portal.workspace_id, is_enqueued => false
    );
end
$$;
comment on function billing.start_portal(uuid, text) is 'Behind public.start_portal().';

create function billing.change_items(workspace_id uuid, subscription billing.objects, price text, seats bigint)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    chosen billing.objects := billing.price_for(change_items.price);
    quantity bigint := billing.seats_for(change_items.workspace_id, change_items.price, change_items.seats);
begin
    return (
        -- The plan's own item is changed in place; metered items of the old plan go, those of the new one come.
        select jsonb_agg(case
            when i.item #>> '{price,recurring,usage_type}' = 'metered' then jsonb_build_object('id', i.item -> 'id', 'deleted', true)
            else jsonb_build_object('id', i.item -> 'id', 'price', chosen.id, 'quantity', quantity)
        end order by i.place)
        from jsonb_array_elements(subscription.data #> '{items,data}') with ordinality as i (item, place)
        where not exists (select from billing.metered_prices(change_items.price) m where m.id = billing.id_of(i.item -> 'price'))
    ) || coalesce((
        select jsonb_agg(jsonb_build_object('price', m.id)) from billing.metered_prices(change_items.price) m
        where not exists (
            select from jsonb_array_elements(subscription.data #> '{items,data}') as i (item) where billing.id_of(i.item -> 'price') = m.id
        )
    ), '[]');
end
$$;
comment on function billing.change_items(uuid, billing.objects, text, bigint) is
'The items of a subscription as Stripe is told of their change.';

create function billing.preview_change(workspace_id uuid, price text, seats bigint default null) returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    subscription billing.objects;
begin
    perform authz.require(preview_change.workspace_id, 'billing.manage');
    perform billing.require_connected();
    subscription := billing.require_subscription(preview_change.workspace_id);
    return billing.request(
        'preview', '/v1/invoices/create_preview',
        jsonb_build_object(
            'customer', subscription.customer_id, 'subscription', subscription.id,
            'subscription_details', jsonb_build_object(
                'items', billing.change_items(preview_change.workspace_id, subscription, preview_change.price, preview_change.seats),
                'proration_behavior', 'always_invoice',
                'proration_date', extract(epoch from date_trunc('minute', ops.now()))::bigint
            )
        ),
        format('preview:%s:%s', preview_change.workspace_id, gen_random_uuid()), preview_change.workspace_id, is_enqueued => false
    );
end
$$;
comment on function billing.preview_change(uuid, text, bigint) is
'Asks Stripe what a change of plan or seats would cost today. Returns the request, which the edge function change-plan
carries. Behind public.preview_change().';

create function billing.request_change(
    workspace_id uuid, price text, seats bigint, idempotency_key text, reason text, is_enqueued boolean
) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    subscription billing.objects;
    wish jsonb := jsonb_build_array(request_change.price, request_change.seats);
    key text;
    known uuid;
begin
    perform billing.require_connected();
    subscription := billing.require_subscription(request_change.workspace_id);
    -- Without a key the same wish is the same change, until there is another subscription to change.
    key := format('change:%s:%s', request_change.workspace_id, coalesce(
        billing.require_key(request_change.idempotency_key),
        md5(wish::text) || ':' || subscription.id || ':' || subscription.revision || ':' || (
            select count(*) from billing.requests r
            where r.workspace_id = request_change.workspace_id and r.kind = 'change' and r.state = 'failed'
        )
    ));
    known := billing.known_request('change', request_change.workspace_id, key, wish);
    if known is not null then
        return known;
    end if;
    return billing.request(
        'change', '/v1/subscriptions/' || subscription.id,
        jsonb_build_object(
            'items', billing.change_items(request_change.workspace_id, subscription, request_change.price, request_change.seats),
            'proration_behavior', 'always_invoice', 'cancel_at_period_end', false,
            -- Nothing changes unless it is paid.
            'payment_behavior', 'error_if_incomplete',
            'metadata', jsonb_build_object('workspace_id', request_change.workspace_id, 'seats', coalesce(request_change.seats::text, ''))
        ),
        key, request_change.workspace_id, reason => request_change.reason, is_enqueued => request_change.is_enqueued,
        wish => wish
    );
end
$$;
comment on function billing.request_change(uuid, text, bigint, text, text, boolean) is
'Has a subscription changed to another price or number of seats, prorated and paid at once, or not at all.';

create function billing.change_plan(workspace_id uuid, price text, seats bigint, idempotency_key text) returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform authz.require(change_plan.workspace_id, 'billing.manage');
    return billing.request_change(
        change_plan.workspace_id, change_plan.price, change_plan.seats, change_plan.idempotency_key, 'changed by a member', false
    );
end
$$;
comment on function billing.change_plan(uuid, text, bigint, text) is 'Behind public.change_plan().';

create function billing.result_of(request_id uuid) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select case
        when r.state = 'failed' then jsonb_build_object('error', coalesce(r.answer #>> '{error,message}', r.error), 'code', r.answer #>> '{error,code}')
        when r.state = 'waiting' then jsonb_build_object('error', coalesce(r.error, 'Stripe has not answered yet'), 'code', 'waiting')
        when r.kind in ('checkout', 'portal') then jsonb_build_object('url', r.answer -> 'url')
        when r.kind = 'preview' then jsonb_build_object(
            'currency', r.answer -> 'currency', 'amount_due', r.answer -> 'amount_due', 'total', r.answer -> 'total',
            'lines', (
                select coalesce(jsonb_agg(jsonb_build_object(
                    'description', l.line -> 'description', 'amount', l.line -> 'amount', 'quantity', l.line -> 'quantity', 'period', l.line -> 'period',
                    'is_proration', coalesce(l.line -> 'proration', l.line #> '{parent,subscription_item_details,proration}', l.line #> '{parent,invoice_item_details,proration}')
                ) order by l.place), '[]')
                from jsonb_array_elements(r.answer #> '{lines,data}') with ordinality as l (line, place)
            )
        )
        else jsonb_build_object('id', r.answer -> 'id', 'status', r.answer -> 'status')
    end
    from billing.requests r where r.id = result_of.request_id
$$;
comment on function billing.result_of(uuid) is
'What a request came to, for whoever asked: an address, a sum, or why not.';

-- The operator -------------------------------------------------------------------------------

create function billing.cancel(workspace_id uuid, is_immediate boolean, reason text, idempotency_key text default null)
returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    subscription billing.objects;
begin
    perform billing.require_reason(cancel.reason);
    perform billing.require_connected();
    subscription := billing.require_subscription(cancel.workspace_id);
    perform audit.write('billing.cancel', cancel.workspace_id, 'subscriptions', subscription.id, null, jsonb_build_object('is_immediate', cancel.is_immediate, 'reason', cancel.reason));
    return case
        when cancel.is_immediate then billing.request(
            'cancel', '/v1/subscriptions/' || subscription.id, '{}', billing.derived_key('cancel:' || subscription.id || ':now'), cancel.workspace_id, 'delete',
            cancel.reason
        )
        else billing.request(
            'cancel', '/v1/subscriptions/' || subscription.id,
            jsonb_build_object('cancel_at_period_end', true, 'cancellation_details', jsonb_build_object('comment', left(cancel.reason, 500))),
            billing.derived_key(format('cancel:%s:%s', subscription.id, coalesce(cancel.idempotency_key, subscription.revision::text))),
            cancel.workspace_id, reason => cancel.reason
        )
    end;
end
$$;
comment on function billing.cancel(uuid, boolean, text, text) is
'Has a subscription end with its period, or at once. For operators.';

create function billing.resume(workspace_id uuid, reason text) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    subscription billing.objects;
begin
    perform billing.require_reason(resume.reason);
    perform billing.require_connected();
    subscription := billing.require_subscription(resume.workspace_id);
    if billing.ends_at_of(subscription.data) is null and subscription.data ->> 'pause_collection' is null then
        perform ops.raise_http(409, 'nothing_to_resume', 'This subscription goes on.', null, 'Only one that ends, or is paused, can be resumed.');
    end if;
    perform audit.write('billing.resume', resume.workspace_id, 'subscriptions', subscription.id, null, jsonb_build_object('reason', resume.reason));
    return billing.request(
        'resume', '/v1/subscriptions/' || subscription.id,
        case when subscription.data ->> 'pause_collection' is not null then '{"pause_collection": ""}'::jsonb else '{}'::jsonb end
        || case when subscription.data ->> 'cancel_at_period_end' = 'true' then '{"cancel_at_period_end": false}'::jsonb
            when subscription.data ->> 'cancel_at' is not null then '{"cancel_at": ""}'::jsonb else '{}'::jsonb end,
        billing.derived_key(format('resume:%s:%s', subscription.id, subscription.revision)), resume.workspace_id,
        reason => resume.reason
    );
end
$$;
comment on function billing.resume(uuid, text) is
'Has a subscription go on that was to end, or was paused. Answers 409 for one that goes on. For operators.';

create function billing.refund(
    workspace_id uuid, invoice_id text, amount bigint, reason text, idempotency_key text
) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    invoice billing.objects;
    charge billing.objects;
    left_over bigint;
begin
    perform billing.require_reason(refund.reason);
    perform billing.require_connected();
    select o.* into invoice
    from billing.objects o join billing.customers c on c.stripe_id = o.customer_id
    where c.workspace_id = refund.workspace_id and o.object = 'invoice' and (o.id = refund.invoice_id or o.data ->> 'number' = refund.invoice_id);
    if not found then
        perform ops.raise_http(404, 'invoice_not_found', 'This workspace has no such invoice.', null, 'rowhouse billing invoices lists them.');
    end if;
    select c.* into charge from billing.charges_of(invoice) c where c.data ->> 'status' = 'succeeded' order by (c.data ->> 'created')::bigint desc limit 1;
    -- A refund may be known before its charge says so.
    left_over := (charge.data ->> 'amount_captured')::bigint - greatest((charge.data ->> 'amount_refunded')::bigint, coalesce((
        select sum((k.data ->> 'amount')::bigint)::bigint from billing.objects k
        where k.parent_id = charge.id and k.object = 'refund' and k.data ->> 'status' not in ('failed', 'canceled')
    ), 0));
    -- What was asked for already, and has not come back yet, is gone as well.
    left_over := left_over - coalesce((
        select sum((r.params ->> 'amount')::bigint)::bigint from billing.requests r
        where r.workspace_id = refund.workspace_id and r.kind = 'refund' and r.params ->> 'charge' = charge.id
        and r.idempotency_key <> 'refund:' || refund.idempotency_key
        and (r.state = 'waiting' or (r.state = 'done' and not exists (select from billing.objects k where k.id = r.answer ->> 'id')))
    ), 0);
    if exists (select from billing.requests r where r.idempotency_key = 'refund:' || refund.idempotency_key) then
        null;
    elsif charge.id is null or left_over <= 0 or refund.amount > left_over then
        perform ops.raise_http(
            409, 'refund_exceeds_payment', 'More would be refunded than was paid.', jsonb_build_object('left', coalesce(left_over, 0)),
            format('At most %s can be refunded, in minor units.', coalesce(left_over, 0))
        );
    end if;
    if refund.amount <= 0 then
        perform ops.raise_http(400, 'amount_invalid', 'A refund is of something.', null, 'Give minor units (cents) from 1, or leave it out for all.');
    end if;
    perform ledger.require_key(billing.require_key(refund.idempotency_key));
    perform audit.write(
        'billing.refund', refund.workspace_id, 'invoices', invoice.id, null, jsonb_build_object('amount', coalesce(refund.amount, left_over), 'reason', refund.reason)
    );
    return billing.request(
        'refund', '/v1/refunds',
        coalesce(
            (select r.params from billing.requests r where r.idempotency_key = 'refund:' || refund.idempotency_key and refund.amount is null),
            jsonb_build_object(
                'charge', charge.id, 'amount', coalesce(refund.amount, left_over), 'reason', 'requested_by_customer',
                'metadata', jsonb_build_object('reason', left(refund.reason, 400))
            )
        ),
        'refund:' || refund.idempotency_key, refund.workspace_id, reason => refund.reason
    );
end
$$;
comment on function billing.refund(uuid, text, bigint, text, text) is
'Has an invoice refunded through Stripe, whole or in part, once per key. Answers 404, or 409 beyond what is
left. For operators.';

create function billing.adjust(workspace_id uuid, amount bigint, currency text, reason text, idempotency_key text)
returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform billing.require_reason(adjust.reason);
    perform billing.require_connected();
    perform ledger.require_key(billing.require_key(adjust.idempotency_key));
    if coalesce(adjust.amount, 0) = 0 or abs(adjust.amount) > 99999999999 then
        perform ops.raise_http(400, 'amount_invalid', 'An adjustment is of something.', null, 'Give minor units (cents): positive owes the customer, negative charges them.');
    end if;
    if not billing.is_currency(adjust.currency) then
        perform ops.raise_http(400, 'currency_unknown', format('There is no currency %L.', left(adjust.currency, 10)), null, 'Use a code of ISO 4217, such as EUR.');
    end if;
    perform audit.write(
        'billing.adjust', adjust.workspace_id, 'customers', adjust.workspace_id::text, null,
        jsonb_build_object('amount', adjust.amount, 'currency', adjust.currency, 'reason', adjust.reason)
    );
    return billing.request(
        'adjust', '/v1/customers/{customer}/balance_transactions',
        -- Stripe's balance is what the customer owes: a credit is negative.
        jsonb_build_object('amount', -adjust.amount, 'currency', lower(adjust.currency), 'description', left(adjust.reason, 350)),
        'adjust:' || adjust.idempotency_key, adjust.workspace_id, reason => adjust.reason
    );
end
$$;
comment on function billing.adjust(uuid, bigint, text, text, text) is
'Has a customer''s balance changed, in minor units: what is positive is used up before the next invoice is
charged. For operators.';
