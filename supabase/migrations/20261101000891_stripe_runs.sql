-- Why: events get lost. What Stripe lists is compared with what is known here, mended, and the difference reported,
--      in counts and in money. A backfill is the same with nothing to begin with.
-- Locks: none on existing tables.
-- Workers: need not stop.

create table billing.runs (
    id uuid not null default gen_random_uuid(),
    kind text not null,
    objects text[] not null,
    since timestamptz,
    place bigint not null default 0,
    parent_id text,
    cursor text,
    listed bigint not null default 0,
    failed bigint not null default 0,
    started_at timestamptz not null default ops.now(),
    walks_since timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    error text,
    constraint runs_pkey primary key (id),
    constraint runs_kind_is_known check (kind in ('sync', 'reconcile', 'events'))
);
alter table billing.runs enable row level security;
create policy runs_nobody on billing.runs using (false);
create index runs_started_at on billing.runs (started_at);
create unique index runs_one_at_a_time on billing.runs (kind, objects) where finished_at is null;
comment on table billing.runs is
'Walks through what Stripe lists, each with a bookmark: one that was stopped goes on from there.';
comment on column billing.runs.id is 'The run.';
comment on column billing.runs.kind is 'sync (a backfill), reconcile, or events (what Stripe says it sent).';
comment on column billing.runs.objects is 'Which objects it lists.';
comment on column billing.runs.since is 'Only what was made since then; null for everything.';
comment on column billing.runs.place is 'The bookmark: the object it is at, by its place.';
comment on column billing.runs.parent_id is 'The bookmark: the parent whose list it is in.';
comment on column billing.runs.cursor is 'The bookmark: the last one listed.';
comment on column billing.runs.listed is 'How many have been listed.';
comment on column billing.runs.failed is 'How many of them could not be learnt; the server''s log says why.';
comment on column billing.runs.started_at is 'When it began.';
comment on column billing.runs.walks_since is
'The same by the wall''s clock: what was learnt before is not listed yet.';
comment on column billing.runs.finished_at is 'When it came to the end.';
comment on column billing.runs.error is 'Why it ended before its time.';

create table billing.drift (
    run_id uuid not null,
    object text not null,
    listed bigint not null default 0,
    missing bigint not null default 0,
    different bigint not null default 0,
    amounts jsonb not null default '{}',
    amounts_off jsonb not null default '{}',
    constraint drift_pkey primary key (run_id, object),
    constraint drift_belongs_to_a_run foreign key (run_id) references billing.runs (id) on delete cascade
);
alter table billing.drift enable row level security;
create policy drift_nobody on billing.drift using (false);
comment on table billing.drift is 'What a run found: how far this database was from Stripe, before it was mended.';
comment on column billing.drift.run_id is 'The run.';
comment on column billing.drift.object is 'Which objects.';
comment on column billing.drift.listed is 'How many Stripe listed.';
comment on column billing.drift.missing is 'How many of them were not known here.';
comment on column billing.drift.different is 'How many were known otherwise.';
comment on column billing.drift.amounts is 'What Stripe''s add up to, in minor units by currency.';
comment on column billing.drift.amounts_off is
'By how much those here were off: the sum of what they lacked or had too much.';

create function billing.start_run(kind text, objects text[] default null, since timestamptz default null) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    wanted text[];
    unknown text;
    run billing.runs;
begin
    perform billing.require_connected();
    select o.name into unknown from unnest(start_run.objects) as o (name)
    where not exists (select from billing.object_types t where t.object = o.name and t.list_path is not null) limit 1;
    if found then
        perform ops.raise_http(
            400, 'object_unknown', format('Stripe has no list of %L here.', left(unknown, 100)), null,
            (select 'Use ' || string_agg(t.object, ', ' order by t.place) || '.' from billing.object_types t where t.list_path is not null)
        );
    end if;
    select coalesce(array_agg(t.object order by t.place), '{}') into wanted from billing.object_types t
    where start_run.kind <> 'events' and t.list_path is not null and (start_run.objects is null or t.object = any (start_run.objects));
    -- One that was stopped is gone on with, unless it would read less than is wanted now.
    update billing.runs r set finished_at = ops.now(), error = 'replaced by a run that reads more'
    where
        r.kind = start_run.kind and r.objects = wanted and r.finished_at is null
        and r.since is not null and (start_run.since is null or start_run.since < r.since);
    insert into billing.runs (kind, objects, since) values (start_run.kind, wanted, start_run.since)
    on conflict (kind, objects) where finished_at is null do nothing
    returning * into run;
    if not found then
        select r.* into strict run from billing.runs r
        where r.kind = start_run.kind and r.objects = wanted and r.finished_at is null;
    end if;
    return run.id;
end
$$;
comment on function billing.start_run(text, text[], timestamptz) is
'Begins a run, or goes on with the one of that kind and those objects that was stopped. Returns its id.';

create function billing.next_parent(list text, per text, after text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select o.id from billing.objects o
    where
        o.object = next_parent.per and not o.is_deleted and o.id > coalesce(next_parent.after, '')
        -- There is no use in asking for each what most do not have.
        and case next_parent.list
            when 'customer_balance_transaction' then (o.data ->> 'balance')::bigint <> 0 or exists (
                select from billing.objects i
                where
                    i.customer_id = o.id and i.object in ('invoice', 'customer_balance_transaction')
                    and (i.object <> 'invoice' or coalesce((i.data ->> 'starting_balance')::bigint, 0) <> 0)
            )
            when 'entitlements.active_entitlement_summary' then exists (
                select from billing.objects f where f.object = 'entitlements.feature'
            ) and exists (
                select from billing.objects s where s.customer_id = o.id and s.object = 'subscription'
            )
            else true
        end
    order by o.id
    limit 1
$$;
comment on function billing.next_parent(text, text, text) is
'The next object whose list of something is worth reading; null after the last.';

create function billing.next_list(run billing.runs) returns billing.runs
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    kind billing.object_types;
begin
    -- The next parent of this list, or the next list, or the end.
    run.cursor := null;
    while run.finished_at is null loop
        select t.* into kind from billing.object_types t where t.place = run.place;
        run.parent_id := case when kind.per is not null then billing.next_parent(kind.object, kind.per, run.parent_id) end;
        exit when run.parent_id is not null;
        select t.* into kind from billing.object_types t
        where t.object = any (run.objects) and t.place > run.place order by t.place limit 1;
        run.place := coalesce(kind.place, run.place);
        run.finished_at := case when kind.object is null then ops.now() end;
        exit when kind.per is null;
    end loop;
    return run;
end
$$;
comment on function billing.next_list(billing.runs) is
'A run with its bookmark at the head of the next list, or at the end.';

create function billing.take_page(id uuid) returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    run billing.runs;
    kind billing.object_types;
begin
    select r.* into run from billing.runs r where r.id = take_page.id for update;
    if not found or run.finished_at is not null then
        return null;
    end if;
    if run.kind = 'events' then
        return jsonb_build_object(
            'token', jsonb_build_object('run', run.id, 'cursor', run.cursor), 'method', 'get', 'path', '/v1/events',
            'params', jsonb_strip_nulls(jsonb_build_object(
                'limit', 100, 'starting_after', run.cursor,
                -- With an overlap; Stripe keeps them for 30 days.
                'created', jsonb_build_object('gte', extract(epoch from date_trunc('second', greatest(
                    run.since, run.started_at - interval '29 days'
                )))::bigint)
            ))
        );
    end if;
    if run.place = 0 then
        run := billing.next_list(run);
        update billing.runs r set place = run.place, parent_id = run.parent_id, finished_at = run.finished_at where r.id = run.id;
        if run.finished_at is not null then
            return null;
        end if;
    end if;
    select t.* into strict kind from billing.object_types t where t.place = run.place;
    return jsonb_build_object(
        'token', jsonb_build_object('run', run.id, 'place', run.place, 'parent', run.parent_id, 'cursor', run.cursor),
        'method', 'get', 'path', replace(kind.list_path, '{parent}', coalesce(run.parent_id, '')),
        -- Alone they are those that are alive, which Stripe lists when it is not told otherwise.
        'params', case when run.kind = 'reconcile' and run.objects = '{subscription}' then '{}' else kind.list_params end || jsonb_strip_nulls(jsonb_build_object(
            'limit', 100, 'starting_after', run.cursor,
            'customer', case when kind.object = 'entitlements.active_entitlement_summary' then run.parent_id end,
            'created', case when run.since is not null and kind.per is null and kind.object not like 'billing.%' and kind.object not like 'entitlements.%'
                then jsonb_build_object('gte', extract(epoch from date_trunc('second', run.since))::bigint) end
        ))
    );
end
$$;
comment on function billing.take_page(uuid) is 'The next page of a run; null at its end.';

create function billing.facts_of(data jsonb) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    -- What decides anything, in no version's shape. Of the rest, versions differ.
    select case data ->> 'object'
        when 'subscription' then jsonb_build_array(
            data -> 'status', billing.period_start_of(data), billing.period_end_of(data), billing.ends_at_of(data),
            data -> 'trial_end', data -> 'pause_collection' -> 'behavior', billing.id_of(data -> 'customer'), data #> '{metadata,seats}',
            (
                select jsonb_agg(jsonb_build_array(i.item -> 'id', billing.id_of(i.item -> 'price'), i.item -> 'quantity') order by i.item ->> 'id')
                from jsonb_array_elements(data #> '{items,data}') as i (item)
            )
        )
        when 'invoice' then jsonb_build_array(
            data -> 'status', data -> 'amount_paid', data -> 'amount_due', data -> 'total', billing.subscription_of(data),
            billing.tax_of(data), data -> 'attempt_count', data -> 'number'
        )
        when 'charge' then jsonb_build_array(
            data -> 'status', data -> 'amount_captured', data -> 'amount_refunded', data -> 'disputed', data -> 'refunded'
        )
        when 'customer' then jsonb_build_array(data -> 'name', data -> 'email', data -> 'balance', data -> 'metadata', data -> 'delinquent')
        when 'payment_intent' then jsonb_build_array(data -> 'status', data -> 'amount_received')
        when 'promotion_code' then jsonb_build_array(data -> 'active', data -> 'code', billing.coupon_of(data))
        when 'product' then jsonb_build_array(data -> 'active', data -> 'name', data -> 'metadata')
        when 'credit_note' then jsonb_build_array(
            data -> 'status', data -> 'amount', data -> 'type', data -> 'out_of_band_amount', billing.id_of(data -> 'customer_balance_transaction')
        )
        when 'discount' then jsonb_build_array(data -> 'start', data -> 'end', billing.coupon_of(data), data -> 'subscription')
        when 'price' then jsonb_build_array(data -> 'active', data -> 'lookup_key', data -> 'unit_amount', data -> 'metadata')
        else data - 'tax_ids' - 'payments' - 'refunds'
    end
$$;
comment on function billing.facts_of(jsonb) is 'What of an object is compared with Stripe''s, whatever the version.';

create function billing.page_sums(items jsonb, amount_field text)
returns table (currency text, amount bigint, off bigint)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        i.item ->> 'currency', sum(coalesce((i.item ->> page_sums.amount_field)::bigint, 0))::bigint,
        sum(abs(coalesce((i.item ->> page_sums.amount_field)::bigint, 0) - coalesce((o.data ->> page_sums.amount_field)::bigint, 0)))::bigint
    from jsonb_array_elements(page_sums.items) as i (item)
    left join billing.objects o on o.id = i.item ->> 'id'
    where page_sums.amount_field is not null and i.item ->> 'currency' is not null
    group by 1
$$;
comment on function billing.page_sums(jsonb, text) is
'What the objects of a page add up to, by currency, and by how much those known here are off.';

create function billing.add_amounts(one jsonb, other jsonb) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(jsonb_object_agg(s.currency, s.amount), '{}')
    from (
        select e.key as currency, sum(e.value::bigint) as amount
        from (select * from jsonb_each_text(one) union all select * from jsonb_each_text(other)) as e
        group by e.key
    ) as s
$$;
comment on function billing.add_amounts(jsonb, jsonb) is 'Adds amounts by currency.';

create function billing.compare_page(run billing.runs, kind billing.object_types, items jsonb) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    insert into billing.drift as d (run_id, object, listed, missing, different, amounts, amounts_off)
    select
        run.id, kind.object, p.listed, p.missing, p.different,
        coalesce((select jsonb_object_agg(s.currency, s.amount) from billing.page_sums(items, kind.amount_field) s), '{}'),
        coalesce((select jsonb_object_agg(s.currency, s.off) from billing.page_sums(items, kind.amount_field) s where s.off <> 0), '{}')
    from (
        select
            count(*) as listed, count(*) filter (where o.id is null) as missing,
            count(*) filter (where billing.facts_of(o.data) <> billing.facts_of(i.item) or o.is_deleted) as different
        from jsonb_array_elements(items) as i (item)
        left join billing.objects o on o.id = i.item ->> 'id'
    ) as p
    on conflict on constraint drift_pkey do update
    set
        listed = d.listed + excluded.listed, missing = d.missing + excluded.missing,
        different = d.different + excluded.different,
        amounts = billing.add_amounts(d.amounts, excluded.amounts),
        amounts_off = billing.add_amounts(d.amounts_off, excluded.amounts_off)
$$;
comment on function billing.compare_page(billing.runs, billing.object_types, jsonb) is
'Counts how a page of Stripe''s list differs from what is known here.';

create function billing.ask_unlisted(run billing.runs, kind billing.object_types) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    unlisted bigint;
begin
    select count(*) into unlisted
    from billing.objects o
    cross join lateral (select billing.ask_again(o.object, o.id, o.parent_id)) as asked
    where
        o.object = kind.object and not o.is_deleted and o.checked_at < run.walks_since
        and kind.get_path is not null
        and (kind.object <> 'subscription' or o.data ->> 'status' not in ('canceled', 'incomplete_expired'));
    update billing.drift d set different = d.different + unlisted
    where d.run_id = run.id and d.object = kind.object and unlisted > 0;
end
$$;
comment on function billing.ask_unlisted(billing.runs, billing.object_types) is
'Asks for what is known here and was not in Stripe''s list: it may have ended, or been deleted.';

create function billing.settle_page(token jsonb, answer jsonb) returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    run billing.runs;
    kind billing.object_types;
    items jsonb := coalesce(answer #> '{body,data}', '[]');
    item jsonb;
    settings billing.settings;
    complaint text := answer #>> '{body,error,message}';
begin
    perform billing.lock_learning();
    select s.* into settings from billing.settings s;
    select r.* into run from billing.runs r where r.id = (token ->> 'run')::uuid for update;
    -- Another has read this page meanwhile.
    if not found or run.finished_at is not null or run.cursor is distinct from token ->> 'cursor'
        or run.place <> coalesce((token ->> 'place')::bigint, run.place) or run.parent_id is distinct from token ->> 'parent'
    then
        return '{"again": true}'::jsonb;
    end if;
    if (answer ->> 'status')::bigint not between 200 and 299 then
        if run.cursor is not null then
            -- What the bookmark stood at is gone: that list is read from its beginning.
            update billing.runs r set cursor = null where r.id = run.id;
            return '{"again": true}'::jsonb;
        elsif (answer ->> 'status')::bigint <> 404 then
            complaint := format('Stripe: %s: %s', answer ->> 'status', complaint);
            update billing.runs r set finished_at = ops.now(), error = complaint where r.id = run.id;
            return jsonb_build_object('failed', true, 'error', complaint);
        end if;
        -- The parent whose list it is is gone.
    end if;
    if run.kind = 'events' then
        for item in select e.item from jsonb_array_elements(items) as e (item) order by e.item #>> '{data,object,id}', e.item ->> 'id' loop
            begin
                run.listed := run.listed + billing.receive(item, 'poll')::integer;
            exception
                when sqlstate 'PGRST' then run.failed := run.failed + 1;
            end;
        end loop;
    else
        select t.* into strict kind from billing.object_types t where t.place = run.place;
        if kind.object = 'entitlements.active_entitlement_summary' then
            items := jsonb_build_array(jsonb_build_object(
                'object', kind.object, 'customer', run.parent_id, 'entitlements', answer -> 'body'
            ));
            run.cursor := null;
        elsif run.kind = 'reconcile' then
            perform billing.compare_page(run, kind, items);
        end if;
        run.listed := run.listed + jsonb_array_length(items);
        for item in select e.item from jsonb_array_elements(items) as e (item) loop
            begin
                perform billing.apply_unless_newer(item, settings.api_version, billing.answered_at(answer), 'page', run.parent_id);
            exception
                when deadlock_detected or serialization_failure then raise;
                -- One that cannot be learnt keeps nobody else from it.
                when others then
                    run.failed := run.failed + 1;
                    raise warning '% was not learnt: %', item ->> 'id', sqlerrm;
            end;
        end loop;
    end if;
    if (answer #>> '{body,has_more}')::boolean and jsonb_array_length(items) > 0 and kind.object is distinct from 'entitlements.active_entitlement_summary' then
        run.cursor := items -> -1 ->> 'id';
    elsif run.kind = 'events' then
        run.finished_at := ops.now();
        update billing.settings s set events_seen_at = greatest(s.events_seen_at, run.started_at);
    else
        if kind.per is null and run.since is null and (answer ->> 'status')::bigint <> 404 then
            perform billing.ask_unlisted(run, kind);
        end if;
        run := billing.next_list(run);
    end if;
    update billing.runs r
    set
        place = run.place, parent_id = run.parent_id, cursor = run.cursor, listed = run.listed, failed = run.failed,
        finished_at = run.finished_at
    where r.id = run.id;
    return '{"again": true}'::jsonb;
end
$$;
comment on function billing.settle_page(jsonb, jsonb) is 'Learns a page of a run, and moves its bookmark.';

create function billing.reconcile(objects text[] default null) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    run uuid;
    events uuid;
    seen timestamptz := (select s.events_seen_at from billing.settings s);
begin
    if (select s.account_id from billing.settings s) is null then
        return null;
    end if;
    events := billing.start_run('events', null, coalesce(seen, ops.now() - interval '1 day') - interval '10 minutes');
    run := billing.start_run('reconcile', reconcile.objects);
    perform jobs.enqueue('billing.call', jsonb_build_object('run', events), dedupe_key => 'run:' || events);
    perform jobs.enqueue('billing.call', jsonb_build_object('run', run), dedupe_key => 'run:' || run);
    return run;
end
$$;
comment on function billing.reconcile(text[]) is
'Has Stripe''s events since the last time read, with an overlap, and its lists of these objects, or of all, compared and
mended. Returns the run; null where no account is connected. Run by the clock.';
