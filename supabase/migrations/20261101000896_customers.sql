-- Why: the Stripe customer belongs to the workspace, is made by a job when the workspace is, and there is one
--      whatever happens. What invoices say of it is the workspace's own to change.
-- Locks: adds triggers to workspaces (briefly).
-- Workers: need not stop.

create function billing.customer_params(workspace_id uuid) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_strip_nulls(jsonb_build_object(
        'name', coalesce(c.name, w.name),
        'email', coalesce(c.email, (select p.email from public.profiles p where p.id = w.created_by and notify.is_address('email', p.email))),
        'address', nullif(c.address, '{}'),
        'metadata', jsonb_build_object('workspace_id', w.id),
        'invoice_settings', nullif(jsonb_strip_nulls(jsonb_build_object(
            'custom_fields', case when c.purchase_order is not null then
                jsonb_build_array(jsonb_build_object('name', 'Purchase order', 'value', c.purchase_order)) end,
            'footer', c.invoice_footer
        )), '{}')
    ))
    from public.workspaces w left join billing.customers c on c.workspace_id = w.id
    where w.id = customer_params.workspace_id
$$;
comment on function billing.customer_params(uuid) is 'What Stripe is told of a workspace''s customer.';

create function billing.make_customer(workspace_id uuid) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    key text := 'customer:' || make_customer.workspace_id;
    made uuid;
    failures bigint;
    refusals bigint;
begin
    insert into billing.customers (workspace_id) values (make_customer.workspace_id) on conflict do nothing;
    select r.id into made from billing.requests r
    where r.workspace_id = make_customer.workspace_id and r.kind = 'customer.create' and r.state <> 'failed';
    if found then
        return made;
    end if;
    select count(*), count(*) filter (where r.error like 'Stripe: %') into failures, refusals from billing.requests r
    where r.workspace_id = make_customer.workspace_id and r.kind = 'customer.create';
    return billing.request(
        'customer.create', '/v1/customers',
        -- What Stripe has refused is left out the second time: a customer without an address can still buy.
        case when refusals = 0 then billing.customer_params(make_customer.workspace_id)
            else billing.customer_params(make_customer.workspace_id) - '{email,address,invoice_settings}'::text[] end,
        key || case when failures > 0 then ':' || failures else '' end, make_customer.workspace_id
    );
end
$$;
comment on function billing.make_customer(uuid) is
'Has a workspace''s customer made at Stripe, once. Returns the request.';

create function billing.open_workspace() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if ops.is_allowed('import') then
        return null;
    end if;
    insert into billing.customers (workspace_id) values (new.id) on conflict do nothing;
    if (select s.account_id from billing.settings s) is not null then
        perform billing.make_customer(new.id);
    end if;
    if exists (select from billing.plans p where p.starts_with_trial and not p.is_archived) then
        perform billing.begin_trial(new.id);
    end if;
    return null;
end
$$;
comment on function billing.open_workspace() is
'Trigger: a new workspace gets its customer, and its trial where plans say so.';

-- After workspaces_start_on_default_plan, by its name.
create trigger workspaces_start_paying after insert on public.workspaces
for each row execute function billing.open_workspace();

create function billing.connect_account(account_id text, is_live boolean) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    settings billing.settings;
    made bigint;
begin
    if coalesce(connect_account.account_id, '') !~ '^acct_\w{1,100}$' then
        perform ops.raise_http(400, 'account_invalid', 'This is no account of Stripe.', null, 'Accounts begin with acct_.');
    end if;
    select s.* into settings from billing.settings s for update;
    if settings.account_id is not null and (settings.account_id, settings.is_live) <> (connect_account.account_id, connect_account.is_live)
        and exists (select from billing.objects)
    then
        perform ops.raise_http(
            409, 'account_differs', format('This database belongs to %s (%s).', settings.account_id, case when settings.is_live then 'live' else 'test' end),
            null, 'What is known of one account means nothing in another: use a database of its own.'
        );
    end if;
    update billing.settings s
    set account_id = connect_account.account_id, is_live = connect_account.is_live, connected_at = coalesce(s.connected_at, ops.now());
    select count(*) into made
    from public.workspaces w cross join lateral (select billing.make_customer(w.id)) as m
    where w.deleted_at is null and not exists (select from billing.customers c where c.workspace_id = w.id and c.stripe_id is not null);
    perform audit.write('billing.connect', null, 'billing_settings', connect_account.account_id, null, jsonb_build_object('is_live', connect_account.is_live));
    return made;
end
$$;
comment on function billing.connect_account(text, boolean) is
'Connects the database to a Stripe account in its live or its test mode, and has customers made for all workspaces
without. Returns how many. Answers 409 for another account than the one that is known. For operators.';

create function billing.end_with_workspace() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    subscription billing.objects;
begin
    if (select s.account_id from billing.settings s) is null then
        return coalesce(new, old);
    end if;
    -- Nobody is charged for a workspace that is gone; one that comes back goes on.
    for subscription in
        select o.* from billing.customers c
        join billing.objects o on o.customer_id = c.stripe_id and o.object = 'subscription' and not o.is_deleted
        where c.workspace_id = old.id and o.data ->> 'status' not in ('canceled', 'incomplete_expired')
    loop
        if tg_op = 'DELETE' then
            perform billing.request(
                'cancel', '/v1/subscriptions/' || subscription.id, '{}', billing.derived_key('purge:' || subscription.id),
                method => 'delete', reason => 'the workspace was purged'
            );
        elsif new.deleted_at is not null and billing.ends_at_of(subscription.data) is null then
            perform billing.request(
                'cancel', '/v1/subscriptions/' || subscription.id,
                '{"cancel_at_period_end": true, "metadata": {"ends_with_workspace": "true"}}',
                billing.derived_key(format('delete:%s:%s', subscription.id, extract(epoch from new.deleted_at))), old.id, reason => 'the workspace was deleted'
            );
        elsif new.deleted_at is null and exists (
            select from billing.requests r where r.workspace_id = old.id and r.idempotency_key like format('delete:%s:%%', subscription.id)
        ) then
            perform billing.request(
                'resume', '/v1/subscriptions/' || subscription.id,
                '{"cancel_at_period_end": false, "metadata": {"ends_with_workspace": ""}}',
                billing.derived_key(format('restore:%s:%s', subscription.id, extract(epoch from old.deleted_at))), old.id, reason => 'the workspace was restored'
            );
        end if;
    end loop;
    return coalesce(new, old);
end
$$;
comment on function billing.end_with_workspace() is
'Trigger: the subscription of a deleted workspace ends with its period, that of a purged one at once; a restored one
goes on.';
create trigger workspaces_end_subscription before delete or update of deleted_at on public.workspaces
for each row execute function billing.end_with_workspace();

-- Details ------------------------------------------------------------------------------------

create function billing.details_flaw(details jsonb) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select case
        when jsonb_typeof(details) is distinct from 'object' then 'the details are no object'
        when exists (
            select from jsonb_object_keys(details) k (key)
            where k.key not in ('name', 'email', 'address', 'tax_ids', 'purchase_order', 'invoice_footer')
        ) then 'there are name, email, address, tax_ids, purchase_order and invoice_footer'
        when exists (
            select from unnest('{name,email,purchase_order,invoice_footer}'::text[]) k (key)
            where details -> k.key is not null and jsonb_typeof(details -> k.key) not in ('string', 'null')
        ) then 'name, email, purchase_order and invoice_footer are text'
        when length(details ->> 'name') > 150 then 'a name has at most 150 characters'
        when details ->> 'email' is not null and not notify.is_address('email', details ->> 'email') then 'the e-mail address is none'
        when length(details ->> 'purchase_order') > 140 then 'a purchase order has at most 140 characters'
        when length(details ->> 'invoice_footer') > 5000 then 'a footer has at most 5,000 characters'
        when details -> 'address' is not null and jsonb_typeof(details -> 'address') <> 'object' then 'the address is no object'
        when exists (
            select from jsonb_each(billing.as_object(details -> 'address')) a
            where a.key not in ('line1', 'line2', 'city', 'postal_code', 'state', 'country') or jsonb_typeof(a.value) not in ('string', 'null') or length(a.value #>> '{}') > 200
        ) then 'an address has line1, line2, city, postal_code, state and country, each text of at most 200 characters'
        when details #>> '{address,country}' !~ '^[A-Z]{2}$' then 'a country is two letters of ISO 3166, such as DE'
        when details -> 'tax_ids' is not null and jsonb_typeof(details -> 'tax_ids') <> 'array' then 'tax_ids is no list'
        when jsonb_array_length(case jsonb_typeof(details -> 'tax_ids') when 'array' then details -> 'tax_ids' else '[]' end) > 5 then 'there are at most five tax ids'
        when exists (
            select from jsonb_array_elements(case jsonb_typeof(details -> 'tax_ids') when 'array' then details -> 'tax_ids' else '[]' end) as t (item)
            where coalesce(billing.as_object(t.item) ->> 'type', '') !~ '^[a-z_]{2,30}$' or coalesce(billing.as_object(t.item) ->> 'value', '') !~ '^\S.{0,60}$'
        ) then 'a tax id is {"type": "eu_vat", "value": "DE123456789"}'
        -- Control characters are refused by Stripe, and break lines of a mail.
        when details::text ~ '\\u00[01]' or replace(details::text, '\n', '') ~ '\\[bfrt]' then 'there are control characters in it'
    end
$$;
comment on function billing.details_flaw(jsonb) is 'Why billing details cannot be taken; null if they can.';

create function billing.set_details(workspace_id uuid, details jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    flaw text := billing.details_flaw(set_details.details);
    customer billing.customers;
begin
    perform authz.require(set_details.workspace_id, 'billing.manage');
    if flaw is not null then
        perform ops.raise_http(400, 'details_invalid', format('These billing details cannot be taken: %s.', flaw), null, 'Mend them; nothing was changed.');
    end if;
    insert into billing.customers (workspace_id) values (set_details.workspace_id) on conflict do nothing;
    update billing.customers c
    set
        name = case when details ? 'name' then details ->> 'name' else c.name end,
        email = case when details ? 'email' then details ->> 'email' else c.email end,
        address = case when details ? 'address' then jsonb_strip_nulls(billing.as_object(details -> 'address')) else c.address end,
        tax_ids = case when details ? 'tax_ids' then coalesce(nullif(details -> 'tax_ids', 'null'), '[]') else c.tax_ids end,
        purchase_order = case when details ? 'purchase_order' then details ->> 'purchase_order' else c.purchase_order end,
        invoice_footer = case when details ? 'invoice_footer' then details ->> 'invoice_footer' else c.invoice_footer end,
        revision = c.revision + 1, updated_at = ops.now()
    where c.workspace_id = set_details.workspace_id
    returning c.* into customer;
    perform billing.push_details(customer);
    return billing.show_details(customer);
end
$$;
comment on function billing.set_details(uuid, jsonb) is 'Behind public.set_billing_details().';

create function billing.show_details(customer billing.customers) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_object(
        'name', customer.name, 'email', customer.email, 'address', customer.address, 'tax_ids', customer.tax_ids,
        'purchase_order', customer.purchase_order, 'invoice_footer', customer.invoice_footer
    )
$$;
comment on function billing.show_details(billing.customers) is 'Billing details as clients see them.';

create function billing.details(workspace_id uuid) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    customer billing.customers;
begin
    perform authz.require(details.workspace_id, 'billing.manage');
    select c.* into customer from billing.customers c where c.workspace_id = details.workspace_id;
    return billing.show_details(customer);
end
$$;
comment on function billing.details(uuid) is 'Behind public.billing_details().';

create function billing.push_details(customer billing.customers) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    item jsonb;
begin
    if (select s.account_id from billing.settings s) is null then
        return;
    end if;
    -- Filled in when it is first sent, so that it is the latest word.
    perform billing.request(
        'customer.update', '/v1/customers/{customer}', '{}', format('customer.update:%s:%s', customer.workspace_id, customer.revision),
        customer.workspace_id
    );
    for item in
        select t.item from jsonb_array_elements(customer.tax_ids) as t (item)
        where not exists (
            select from billing.objects o
            where o.object = 'tax_id' and o.customer_id = customer.stripe_id and not o.is_deleted
            and o.data ->> 'type' = t.item ->> 'type' and o.data ->> 'value' = t.item ->> 'value'
        )
    loop
        perform billing.request(
            'tax_id.create', '/v1/customers/{customer}/tax_ids', item,
            billing.derived_key(format('tax_id:%s:%s:%s', customer.workspace_id, customer.revision, md5(item::text))),
            customer.workspace_id
        );
    end loop;
    perform billing.request(
        'tax_id.delete', format('/v1/customers/%s/tax_ids/%s', o.customer_id, o.id), '{}', billing.derived_key(format('tax_id.delete:%s', o.id)),
        customer.workspace_id, 'delete'
    )
    from billing.objects o
    where
        o.object = 'tax_id' and o.customer_id = customer.stripe_id and not o.is_deleted
        and not exists (
            select from jsonb_array_elements(customer.tax_ids) as t (item)
            where t.item ->> 'type' = o.data ->> 'type' and t.item ->> 'value' = o.data ->> 'value'
        );
end
$$;
comment on function billing.push_details(billing.customers) is 'Has Stripe told of a workspace''s billing details.';

create function billing.settle_search(id uuid, answer jsonb) returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if (answer ->> 'status')::bigint = 200 and jsonb_array_length(coalesce(answer #> '{body,data}', '[]')) > 0 then
        return billing.settle_request(settle_search.id, jsonb_set(answer, '{body}', answer #> '{body,data,0}'));
    end if;
    -- It was never made: the key may be used anew.
    update billing.requests r set first_attempt_at = ops.now() where r.id = settle_search.id and r.state = 'waiting';
    return '{"again": true}'::jsonb;
end
$$;
comment on function billing.settle_search(uuid, jsonb) is
'Takes in whether a customer had been made by an attempt that nobody heard the answer of.';
