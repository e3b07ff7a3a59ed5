-- Why: what was learnt, and what was answered, has consequences: links, money, access, seats.
-- Locks: adds a trigger to workspace_members (briefly).
-- Workers: need not stop.

create function billing.link_customer(customer billing.objects) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    named text := customer.data #>> '{metadata,workspace_id}';
    owner uuid;
begin
    if named ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' and not customer.is_deleted then
        insert into billing.customers as c (workspace_id, stripe_id)
        select w.id, customer.id from public.workspaces w where w.id = named::uuid
        on conflict on constraint customers_pkey do update set stripe_id = excluded.stripe_id
        where c.stripe_id is null;
    elsif customer.is_deleted then
        -- The workspace can have another; what the old one bought has ended.
        update billing.customers c set stripe_id = null where c.stripe_id = customer.id returning c.workspace_id into owner;
        if found then
            update billing.requests r set state = 'failed', error = 'the customer was deleted at Stripe'
            where r.kind = 'customer.create' and r.answer ->> 'id' = customer.id;
            perform billing.decide(owner);
        end if;
    end if;
exception
    when unique_violation then
        raise warning 'customer % names workspace %, and is another''s already', customer.id, named;
end
$$;
comment on function billing.link_customer(billing.objects) is
'Links a customer to the workspace that it names, if that has none. Of two for one workspace the first stays.';

create function billing.heed(learned billing.objects, before billing.objects) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    workspace uuid;
    is_silent boolean := learned.source = 'page' and before.id is null;
begin
    if learned.object = 'customer' then
        perform billing.link_customer(learned);
        if (learned.data ->> 'balance') is distinct from coalesce(before.data ->> 'balance', '0') and not learned.is_deleted then
            perform billing.ask_for_balance(learned.id);
        end if;
    end if;
    if learned.object = 'price' and learned.data ->> 'lookup_key' is not null then
        -- A key has one holder: whoever had it before has lost it.
        update billing.objects o set data = o.data || '{"lookup_key": null}', revision = o.revision + 1
        where
            o.object = 'price' and o.id <> learned.id and o.data ->> 'lookup_key' = learned.data ->> 'lookup_key'
            and o.as_of <= learned.as_of;
    end if;
    select c.workspace_id into workspace from billing.customers c where c.stripe_id = learned.customer_id;
    if learned.object in ('invoice', 'charge', 'refund', 'dispute', 'credit_note', 'customer_balance_transaction', 'invoice_payment', 'checkout.session') then
        begin
            perform billing.post_facts(learned);
        exception
            when deadlock_detected or serialization_failure then raise;
            -- What cannot be posted is still known; the books are asked for it again every night.
            when others then raise warning '% was not posted: %', learned.id, sqlerrm;
        end;
    end if;
    if workspace is null then
        return;
    end if;
    if learned.object = 'subscription' and learned.data ->> 'trial_end' is not null then
        insert into billing.trials as t (workspace_id, plan_id, started_at, ends_at, with_card)
        select
            workspace, p.id,
            least(
                billing.moment(coalesce(nullif(learned.data -> 'trial_start', 'null'), learned.data -> 'created')),
                billing.moment(learned.data -> 'trial_end')
            ), billing.moment(learned.data -> 'trial_end'), true
        from billing.plans p
        where p.id = coalesce(billing.plan_of(learned.data #> '{items,data,0,price}'), (select d.id from billing.plans d where d.is_default))
        on conflict on constraint trials_pkey do update
        -- Whoever buys while trying has ended the trial without a card. One that Stripe knew long ago changes nothing.
        set
            started_at = least(t.started_at, excluded.started_at), ends_at = excluded.ends_at, with_card = true,
            plan_id = excluded.plan_id
        where learned.data ->> 'status' = 'trialing' or excluded.ends_at > t.started_at;
    end if;
    -- Most of what Stripe tells changes nothing that decides anything.
    if before.id is not null and learned.is_deleted = before.is_deleted and learned.object in ('subscription', 'customer')
        and billing.facts_of(learned.data) = billing.facts_of(before.data)
    then
        return;
    end if;
    if learned.object in ('customer', 'subscription', 'invoice', 'invoice_payment', 'charge', 'dispute') then
        perform billing.decide(workspace, is_silent);
    end if;
    if learned.object = 'subscription' then
        perform billing.sync_seats(workspace);
    end if;
end
$$;
comment on function billing.heed(billing.objects, billing.objects) is
'Draws the consequences of what was learnt: links, money, access, seats.';

create function billing.ask_for_balance(customer_id text) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    select jobs.enqueue(
        'billing.call', jsonb_build_object('object', 'balance', 'id', ask_for_balance.customer_id),
        dedupe_key => 'fetch:balance:' || ask_for_balance.customer_id
    )
$$;
comment on function billing.ask_for_balance(text) is
'Has a customer''s balance transactions read: Stripe sends no events of them.';

create function billing.heed_answer(request billing.requests) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if request.kind = 'customer.create' then
        update billing.customers c set stripe_id = request.answer ->> 'id'
        where c.workspace_id = request.workspace_id and c.stripe_id is null;
        -- What waited for it.
        perform jobs.enqueue('billing.call', jsonb_build_object('request', r.id), r.workspace_id, dedupe_key => 'request:' || r.id)
        from billing.requests r
        where r.workspace_id = request.workspace_id and r.state = 'waiting' and r.kind not in ('checkout', 'portal', 'preview');
    elsif request.kind = 'customer.update' and exists (
        select from billing.requests later
        where later.workspace_id = request.workspace_id and later.kind = 'customer.update' and later.first_attempt_at > request.first_attempt_at
        and later.state = 'done'
    ) then
        -- It was overtaken by the one after it: the last word is said again.
        update billing.customers c set revision = c.revision + 1 where c.workspace_id = request.workspace_id;
        perform billing.push_details(c) from billing.customers c where c.workspace_id = request.workspace_id;
    elsif request.kind = 'usage' then
        update billing.usage_pushes p set pushed_at = ops.now() where p.request_id = request.id;
    end if;
end
$$;
comment on function billing.heed_answer(billing.requests) is
'Draws the consequences of a request that Stripe has done.';

create function billing.heed_failure(request billing.requests) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if request.kind = 'usage' then
        -- It is owed still; but what Stripe refuses time and again is for the operator to look at.
        update billing.usage_hours h set pushed = greatest(0, h.pushed - p.quantity)
        from billing.usage_pushes p
        where
            p.request_id = request.id and p.number < 5
            and h.workspace_id = p.workspace_id and h.meter = p.meter and h.hour = p.hour;
    elsif request.kind = 'customer.create' and not exists (
        select from billing.requests r
        where r.workspace_id = request.workspace_id and r.kind = 'customer.create' and r.id <> request.id
    ) then
        perform billing.make_customer(request.workspace_id);
    end if;
end
$$;
comment on function billing.heed_failure(billing.requests) is
'Draws the consequences of a request that Stripe has refused.';

-- Seats --------------------------------------------------------------------------------------

create function billing.sync_seats(workspace_id uuid) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    item record;
begin
    for item in
        select
            o.id as subscription_id, o.revision, i.item ->> 'id' as item_id, (i.item ->> 'quantity')::bigint as quantity,
            -- Seats that were asked for are paid for, whether taken or not.
            greatest(
                1, (select b.seats from billing.billable_members b where b.workspace_id = c.workspace_id),
                case when o.data #>> '{metadata,seats}' ~ '^\d{1,9}$' then (o.data #>> '{metadata,seats}')::bigint end
            ) as wanted
        from billing.customers c
        join billing.objects o on o.customer_id = c.stripe_id and o.object = 'subscription' and not o.is_deleted
        cross join lateral jsonb_array_elements(o.data #> '{items,data}') as i (item)
        where billing.is_per_seat(i.item -> 'price') and c.workspace_id = sync_seats.workspace_id and o.data ->> 'status' in ('active', 'trialing', 'past_due')
        order by o.id
    loop
        if item.wanted <> item.quantity then
            perform billing.request(
                'seats', '/v1/subscription_items/' || item.item_id,
                jsonb_build_object('quantity', item.wanted, 'proration_behavior', 'create_prorations'),
                billing.derived_key(format('seats:%s:%s:%s', item.item_id, item.revision, item.wanted)), sync_seats.workspace_id
            );
            perform audit.write(
                'billing.seats', sync_seats.workspace_id, 'subscriptions', item.subscription_id, jsonb_build_object('seats', item.quantity),
                jsonb_build_object('seats', item.wanted)
            );
        end if;
    end loop;
end
$$;
comment on function billing.sync_seats(uuid) is
'Has Stripe charge for as many seats as are taken, or were asked for where that is more.';

create function billing.count_seats() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    place uuid := coalesce(new.workspace_id, old.workspace_id);
begin
    if (select ca.seats from billing.current_access ca where ca.workspace_id = place) is not null and not ops.is_allowed('import') then
        perform jobs.enqueue('billing.seats', jsonb_build_object('workspace_id', place), place, dedupe_key => 'seats:' || place);
    end if;
    return null;
end
$$;
comment on function billing.count_seats() is
'Trigger: where seats are counted, a change of members has them counted anew.';
create trigger workspace_members_count_seats after insert or delete or update of role_id on public.workspace_members
for each row execute function billing.count_seats();

create function billing.seats_job(job jobs.jobs) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform billing.sync_seats((job.payload ->> 'workspace_id')::uuid);
end
$$;
comment on function billing.seats_job(jobs.jobs) is 'Handler of billing.seats.';
select jobs.declare_kind(
    'billing.seats', 'postgres', 'billing.seats_job', queue => 'billing',
    payload_schema => '{
        "type": "object", "required": ["workspace_id"], "properties": {"workspace_id": {"type": "string", "format": "uuid"}}
    }',
    description => 'Has Stripe charge for the seats that are taken.'
);
