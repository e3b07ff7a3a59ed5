-- Why: what plans.toml declares is brought to the database, and from there to Stripe: never deleted, archived where
--      it is gone; a changed amount is a new price, to which the lookup key moves.
-- Locks: none on existing tables.
-- Workers: need not stop.

create function billing.terms_of(plan_id text) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_object(
        'limits', (select coalesce(jsonb_object_agg(l.resource, coalesce(to_jsonb(l.max), '"unlimited"')), '{}') from billing.plan_limits l where l.plan_id = terms_of.plan_id),
        'features', (select coalesce(jsonb_agg(f.feature order by f.feature), '[]') from billing.plan_features f where f.plan_id = terms_of.plan_id),
        'meters', (
            select coalesce(jsonb_object_agg(m.meter, jsonb_strip_nulls(jsonb_build_object('included', m.included, 'cap', m.cap, 'hard', m.is_hard))), '{}')
            from billing.plan_meters m where m.plan_id = terms_of.plan_id
        )
    )
$$;
comment on function billing.terms_of(text) is
'What a plan gives: limits, features, meters. A version of a plan is one of these.';

create function billing.declared_terms(plan jsonb) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_object(
        'limits', billing.as_object(plan -> 'limits'),
        'features', (select coalesce(jsonb_agg(f.name order by f.name), '[]') from jsonb_array_elements_text(coalesce(plan -> 'features', '[]')) as f (name)),
        'meters', (
            select coalesce(jsonb_object_agg(m.key, '{"included": 0, "hard": false}' || m.value), '{}')
            from jsonb_each(billing.as_object(plan -> 'meters')) m
        )
    )
$$;
comment on function billing.declared_terms(jsonb) is 'What a plan of the file gives, in the form of terms_of().';

create function billing.catalogue_now() returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_object(
        'settings', (
            select jsonb_build_object(
                'grace_days', s.grace_days, 'dunning_days', s.dunning_days, 'trial_reminder_days', s.trial_reminder_days,
                'renewal_reminder_days', s.renewal_reminder_days, 'card_reminder_days', s.card_reminder_days
            ) from billing.settings s
        ),
        'features', (select coalesce(jsonb_object_agg(f.feature, jsonb_build_object('description', f.description)), '{}') from billing.features f where not f.is_archived),
        'meters', (select coalesce(jsonb_object_agg(m.meter, jsonb_build_object('name', m.name)), '{}') from billing.meters m where not m.is_archived),
        'plans', (
            select coalesce(jsonb_object_agg(p.id, jsonb_build_object(
                'name', p.name, 'rank', p.rank, 'default', p.is_default, 'audit_months', p.audit_months,
                'trial_days', p.trial_days, 'starts_with_trial', p.starts_with_trial,
                'prices', (
                    select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                        'lookup_key', r.lookup_key, 'currency', lower(r.currency), 'amount', r.amount, 'interval', r.interval,
                        'interval_count', r.interval_count, 'per_seat', r.is_per_seat, 'meter', r.meter
                    )) order by r.lookup_key), '[]')
                    from billing.prices r where r.plan_id = p.id and not r.is_archived
                )
            ) || billing.terms_of(p.id)), '{}')
            from billing.plans p where p.version_of is null and not p.is_archived
        )
    )
$$;
comment on function billing.catalogue_now() is 'The catalogue as it is here, in the form of plans.toml.';

create function billing.catalogue_declared(catalogue jsonb) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    -- With what is left out as it stands, so that the two can be laid side by side.
    select jsonb_build_object(
        'settings', (billing.catalogue_now() -> 'settings') || billing.as_object(catalogue -> 'settings'),
        'features', billing.as_object(catalogue -> 'features'),
        'meters', billing.as_object(catalogue -> 'meters'),
        'plans', (
            select jsonb_object_agg(e.key, jsonb_build_object(
                'name', e.value -> 'name', 'rank', e.value -> 'rank', 'default', coalesce(e.value -> 'default', 'false'),
                'audit_months', coalesce(e.value -> 'audit_months', '12'), 'trial_days', coalesce(e.value -> 'trial_days', '0'),
                'starts_with_trial', coalesce(e.value -> 'starts_with_trial', 'false'),
                'prices', (
                    select coalesce(jsonb_agg(
                        '{"interval_count": 1, "per_seat": false}' || r.item || jsonb_build_object('currency', lower(r.item ->> 'currency'))
                        order by r.item ->> 'lookup_key'
                    ), '[]')
                    from jsonb_array_elements(coalesce(e.value -> 'prices', '[]')) as r (item)
                )
            ) || billing.declared_terms(e.value))
            from jsonb_each(catalogue -> 'plans') e
        )
    )
$$;
comment on function billing.catalogue_declared(jsonb) is
'A catalogue with everything written out that it leaves to the default.';

create function billing.differences(one jsonb, other jsonb, place text default '')
returns table (path text, before jsonb, after jsonb)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    key text;
begin
    if one is not distinct from other then
        return;
    end if;
    if jsonb_typeof(one) = 'object' and jsonb_typeof(other) = 'object' then
        for key in select k.key from (select jsonb_object_keys(one) as key union select jsonb_object_keys(other)) as k order by k.key loop
            return query select d.* from billing.differences(one -> key, other -> key, concat_ws('.', nullif(differences.place, ''), key)) d;
        end loop;
        return;
    end if;
    return query select differences.place, one, other;
end
$$;
comment on function billing.differences(jsonb, jsonb, text) is
'Where two documents differ: the path, and what is there before and after.';

create function billing.keep_version(plan_id text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    plan billing.plans;
    kept text;
begin
    select p.* into strict plan from billing.plans p where p.id = keep_version.plan_id for update;
    kept := format('%s_v%s', left(plan.id, 40), plan.version);
    insert into billing.plans (id, name, rank, audit_months, version_of, version)
    values (kept, plan.name, plan.rank, plan.audit_months, plan.id, plan.version);
    insert into billing.plan_limits (plan_id, resource, max) select kept, l.resource, l.max from billing.plan_limits l where l.plan_id = plan.id;
    insert into billing.plan_features (plan_id, feature) select kept, f.feature from billing.plan_features f where f.plan_id = plan.id;
    insert into billing.plan_meters (plan_id, meter, included, cap, is_hard)
    select kept, m.meter, m.included, m.cap, m.is_hard from billing.plan_meters m where m.plan_id = plan.id;
    update billing.plans p set version = p.version + 1 where p.id = plan.id;
    -- Who bought it was sold this version: their price says so.
    perform billing.decide(wp.workspace_id) from billing.workspace_plans wp where wp.plan_id = plan.id order by wp.workspace_id;
end
$$;
comment on function billing.keep_version(text) is
'Keeps a plan as it is for those who bought it; the plan itself becomes its next version.';

create function billing.is_sold(plan_id text) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select from billing.objects o
        join billing.plans p on p.id = is_sold.plan_id
        where o.object = 'price' and o.data #>> '{metadata,rowhouse_plan}' = p.id and o.data #>> '{metadata,rowhouse_version}' = p.version::text
    )
$$;
comment on function billing.is_sold(text) is
'Whether a plan as it is now has a price at Stripe, so that somebody may have bought it.';

create function billing.apply_plans(catalogue jsonb, is_dry_run boolean default false)
returns table (path text, before jsonb, after jsonb)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    declared jsonb;
    flaws jsonb;
    differing jsonb;
    plan record;
begin
    select jsonb_agg(jsonb_build_object('path', f.path, 'flaw', f.flaw) order by f.path) into flaws from billing.plan_flaws(catalogue) f;
    if flaws is not null then
        perform ops.raise_http(
            400, 'catalogue_invalid', format('%s %s.', flaws #>> '{0,path}', flaws #>> '{0,flaw}'),
            jsonb_build_object('flaws', flaws), 'Mend it; nothing was changed.'
        );
    end if;
    perform billing.lock_learning();
    declared := billing.catalogue_declared(catalogue);
    select jsonb_agg(to_jsonb(d) order by d.path) into differing
    from billing.differences(billing.catalogue_now(), declared) d;
    if not is_dry_run and differing is not null then
        update billing.settings s set
            grace_days = (declared #>> '{settings,grace_days}')::bigint,
            dunning_days = array(select e.day::bigint from jsonb_array_elements_text(declared #> '{settings,dunning_days}') as e (day)),
            trial_reminder_days = array(select e.day::bigint from jsonb_array_elements_text(declared #> '{settings,trial_reminder_days}') as e (day)),
            renewal_reminder_days = (declared #>> '{settings,renewal_reminder_days}')::bigint,
            card_reminder_days = (declared #>> '{settings,card_reminder_days}')::bigint;
        insert into billing.features as f (feature, description)
        select e.key, e.value ->> 'description' from jsonb_each(declared -> 'features') e
        on conflict on constraint features_pkey do update set description = excluded.description, is_archived = false;
        update billing.features f set is_archived = true where not declared -> 'features' ? f.feature;
        insert into billing.meters as m (meter, name)
        select e.key, e.value ->> 'name' from jsonb_each(declared -> 'meters') e
        on conflict on constraint meters_pkey do update set name = excluded.name, is_archived = false;
        update billing.meters m set is_archived = true where not declared -> 'meters' ? m.meter;
        -- Two swap ranks, or the default: not one after the other.
        update billing.plans p set is_default = false where p.is_default and declared #> array['plans', p.id, 'default'] is distinct from 'true';
        update billing.plans p set starts_with_trial = false where p.starts_with_trial;
        update billing.plans p set rank = -1 - p.rank where p.version_of is null and declared -> 'plans' ? p.id and p.rank <> (declared #>> array['plans', p.id, 'rank'])::bigint;
        update billing.plans p
        set is_archived = true
        where p.version_of is null and not p.is_archived and not declared -> 'plans' ? p.id;
        for plan in select e.key as id, e.value as item from jsonb_each(declared -> 'plans') e order by (e.value ->> 'rank')::bigint loop
            if exists (select from billing.plans p where p.id = plan.id)
                and billing.terms_of(plan.id) <> billing.declared_terms(plan.item) and billing.is_sold(plan.id)
            then
                perform billing.keep_version(plan.id);
            end if;
            insert into billing.plans as p (id, name, rank, is_default, audit_months, trial_days, starts_with_trial)
            values (
                plan.id, plan.item ->> 'name', (plan.item ->> 'rank')::bigint, (plan.item ->> 'default')::boolean,
                (plan.item ->> 'audit_months')::bigint, (plan.item ->> 'trial_days')::bigint, (plan.item ->> 'starts_with_trial')::boolean
            )
            on conflict on constraint plans_pkey do update
            set
                name = excluded.name, rank = excluded.rank, is_default = excluded.is_default, audit_months = excluded.audit_months,
                trial_days = excluded.trial_days, starts_with_trial = excluded.starts_with_trial, is_archived = false;
            insert into billing.plan_limits as l (plan_id, resource, max)
            select plan.id, e.key, nullif(e.value, '"unlimited"')::bigint from jsonb_each(plan.item -> 'limits') e order by e.key
            on conflict on constraint plan_limits_pkey do update set max = excluded.max where l.max is distinct from excluded.max;
            delete from billing.plan_features f where f.plan_id = plan.id and not plan.item -> 'features' ? f.feature;
            insert into billing.plan_features (plan_id, feature)
            select plan.id, e.feature from jsonb_array_elements_text(plan.item -> 'features') as e (feature) on conflict do nothing;
            delete from billing.plan_meters m where m.plan_id = plan.id and not plan.item -> 'meters' ? m.meter;
            insert into billing.plan_meters (plan_id, meter, included, cap, is_hard)
            select plan.id, e.key, (e.value ->> 'included')::bigint, (e.value ->> 'cap')::bigint, (e.value ->> 'hard')::boolean
            from jsonb_each(plan.item -> 'meters') e
            on conflict on constraint plan_meters_pkey do update
            set included = excluded.included, cap = excluded.cap, is_hard = excluded.is_hard;
            insert into billing.prices (lookup_key, plan_id, currency, amount, interval, interval_count, is_per_seat, meter)
            select
                e.item ->> 'lookup_key', plan.id, upper(e.item ->> 'currency'), (e.item ->> 'amount')::bigint, e.item ->> 'interval',
                (e.item ->> 'interval_count')::bigint, (e.item ->> 'per_seat')::boolean, e.item ->> 'meter'
            from jsonb_array_elements(plan.item -> 'prices') as e (item)
            on conflict on constraint prices_pkey do update
            set
                plan_id = excluded.plan_id, currency = excluded.currency, amount = excluded.amount, interval = excluded.interval,
                interval_count = excluded.interval_count, is_per_seat = excluded.is_per_seat, meter = excluded.meter, is_archived = false;
        end loop;
        update billing.prices r set is_archived = true
        where not exists (
            select from jsonb_each(declared -> 'plans') e cross join lateral jsonb_array_elements(e.value -> 'prices') as i (item)
            where i.item ->> 'lookup_key' = r.lookup_key
        );
        -- Nobody stays on a default that is none any more.
        perform billing.decide(wp.workspace_id) from billing.workspace_plans wp
        where
            (wp.reason = 'default_plan' and wp.plan_id <> (select p.id from billing.plans p where p.is_default))
            or wp.next_plan_id in (select p.id from billing.plans p where p.is_archived)
        order by wp.workspace_id;
        perform audit.write('catalogue.apply', null, 'plans', 'plans.toml', null, differing);
    end if;
    return query
    select d.path, d.before, d.after
    from jsonb_to_recordset(coalesce(differing, '[]')) as d (path text, before jsonb, after jsonb) order by d.path;
end
$$;
comment on function billing.apply_plans(jsonb, boolean) is
'Brings the catalogue to what plans.toml, as JSON, declares; returns the differences there were. Answers 400 with all
that is wrong with it, and then changes nothing. For operators.';

-- Stripe's side ------------------------------------------------------------------------------

create function billing.catalogue_calls()
returns table (what text, kind text, method text, path text, params jsonb, subject text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with
    known as (select o.* from billing.objects o where not o.is_deleted),
    wanted as (
        select
            r.*, p.version,
            jsonb_build_object(
                'rowhouse_plan', p.id, 'rowhouse_version', p.version::text, 'rowhouse_amount', r.amount::text,
                'rowhouse_included', coalesce(m.included, 0)::text, 'rowhouse_per_seat', r.is_per_seat::text
            ) as metadata,
            coalesce(m.included, 0) as included,
            (select m.id from known m where m.object = 'billing.meter' and m.data ->> 'event_name' = r.meter and m.data ->> 'status' = 'active' order by m.id limit 1) as meter_id,
            (select k.id from known k where k.object = 'price' and k.data ->> 'lookup_key' = r.lookup_key order by k.id limit 1) as price_id
        from billing.prices r join billing.plans p on p.id = r.plan_id
        left join billing.plan_meters m on m.plan_id = r.plan_id and m.meter = r.meter
        where not r.is_archived and not p.is_archived
    )
    select c.what, c.kind, c.method, c.path, c.params, c.subject
    from (
        select 1 as place, format('feature %s', f.feature) as what, 'feature.create' as kind, 'post' as method, '/v1/entitlements/features' as path,
            jsonb_build_object('lookup_key', f.feature, 'name', left(f.description, 80)) as params, f.feature as subject
        from billing.features f
        where not f.is_archived and not exists (select from known k where k.object = 'entitlements.feature' and k.data ->> 'lookup_key' = f.feature)
        union all
        select 1, format('feature %s: %s', f.feature, case when f.is_archived then 'archive' else 'update' end), 'feature.update', 'post', '/v1/entitlements/features/' || k.id,
            jsonb_build_object('active', not f.is_archived), f.feature
        from billing.features f
        join known k on k.object = 'entitlements.feature' and k.data ->> 'lookup_key' = f.feature and (k.data ->> 'active')::boolean = f.is_archived
        union all
        select 2, format('meter %s', m.meter), 'meter.create', 'post', '/v1/billing/meters',
            jsonb_build_object('display_name', m.name, 'event_name', m.meter, 'default_aggregation', '{"formula": "sum"}'::jsonb), m.meter
        from billing.meters m
        where not m.is_archived and not exists (
            select from known k where k.object = 'billing.meter' and k.data ->> 'event_name' = m.meter and k.data ->> 'status' = 'active'
        )
        union all
        select 3, format('product %s', p.id), 'product.create', 'post', '/v1/products',
            jsonb_build_object('id', 'rowhouse_' || p.id, 'name', p.name, 'metadata', jsonb_build_object('rowhouse_plan', p.id)), p.id
        from billing.plans p
        where
            p.version_of is null and not p.is_archived and exists (select from wanted w where w.plan_id = p.id)
            and not exists (select from known k where k.id = 'rowhouse_' || p.id)
        union all
        select 4, format('product %s: %s', p.id, case when p.is_archived then 'archive' else 'update' end), 'product.update', 'post', '/v1/products/' || k.id,
            jsonb_build_object('name', p.name, 'active', not p.is_archived), p.id
        from billing.plans p join known k on k.id = 'rowhouse_' || p.id
        where p.version_of is null and (k.data ->> 'name' <> p.name or (k.data ->> 'active')::boolean = p.is_archived)
        union all
        select 5, format('product %s: feature %s', p.id, f.feature), 'product_feature.create', 'post', format('/v1/products/%s/features', k.id),
            jsonb_build_object('entitlement_feature', e.id), p.id || '/' || f.feature
        from billing.plans p
        join known k on k.id = 'rowhouse_' || p.id
        join billing.plan_features f on f.plan_id = p.id
        join known e on e.object = 'entitlements.feature' and e.data ->> 'lookup_key' = f.feature
        where not p.is_archived and not exists (
            select from known a where a.object = 'product_feature' and a.parent_id = k.id and a.data #>> '{entitlement_feature,id}' = e.id
        )
        union all
        select 6, format('product %s: no feature %s', p.id, a.data #>> '{entitlement_feature,lookup_key}'), 'product_feature.delete', 'delete',
            format('/v1/products/%s/features/%s', a.parent_id, a.id), '{}', a.id
        from known a join billing.plans p on a.parent_id = 'rowhouse_' || p.id
        where a.object = 'product_feature' and p.version_of is null and not p.is_archived and not exists (
            select from billing.plan_features f where f.plan_id = p.id and f.feature = a.data #>> '{entitlement_feature,lookup_key}'
        )
        union all
        select 7, format('price %s: %s %s per %s', w.lookup_key, w.amount, w.currency, w.interval), 'price.create', 'post', '/v1/prices',
            -- What is included costs nothing, what is beyond costs the amount: Stripe's tiers.
            case when w.included > 0 then jsonb_build_object(
                'billing_scheme', 'tiered', 'tiers_mode', 'graduated', 'tiers', jsonb_build_array(
                    jsonb_build_object('up_to', w.included, 'unit_amount', 0), jsonb_build_object('up_to', 'inf', 'unit_amount', w.amount)
                )
            ) else jsonb_build_object('unit_amount', w.amount) end
            || jsonb_build_object(
                'product', 'rowhouse_' || w.plan_id, 'currency', lower(w.currency), 'lookup_key', w.lookup_key,
                'transfer_lookup_key', true, 'metadata', w.metadata,
                'recurring', jsonb_strip_nulls(jsonb_build_object(
                    'interval', w.interval, 'interval_count', w.interval_count,
                    'usage_type', case when w.meter is null then 'licensed' else 'metered' end, 'meter', w.meter_id
                ))
            ), w.lookup_key
        from wanted w left join known k on k.id = w.price_id
        where k.id is null or (
            k.data -> 'metadata', upper(k.data ->> 'currency'), k.data #>> '{recurring,interval}', (k.data #>> '{recurring,interval_count}')::bigint,
            coalesce(k.data #>> '{recurring,meter}', ''), k.data ->> 'active'
        ) is distinct from (w.metadata, w.currency, w.interval, w.interval_count, coalesce(w.meter_id, ''), 'true')
        union all
        select 8, format('price %s: archive', coalesce(k.data ->> 'lookup_key', k.id)), 'price.update', 'post', '/v1/prices/' || k.id, '{"active": false}', k.id
        from known k
        where
            k.object = 'price' and k.data #>> '{metadata,rowhouse_plan}' is not null and k.data ->> 'active' = 'true'
            and not exists (select from wanted w where w.price_id = k.id)
        union all
        select 9, format('meter %s: archive', m.meter), 'meter.deactivate', 'post', format('/v1/billing/meters/%s/deactivate', k.id), '{}', m.meter
        from billing.meters m join known k on k.object = 'billing.meter' and k.data ->> 'event_name' = m.meter and k.data ->> 'status' = 'active'
        where m.is_archived
    ) as c
    order by c.place, c.subject
$$;
comment on function billing.catalogue_calls() is
'What Stripe is to be asked for so that it has the catalogue, in order. Read Stripe''s first.';

create function billing.next_catalogue_request() returns table (request_id uuid, what text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    call record;
    key text;
begin
    select c.* into call from billing.catalogue_calls() c limit 1;
    if not found then
        return;
    end if;
    -- Of what it builds on, so that the same change made again later is another one.
    key := format(
        'catalogue:%s:%s:%s', call.kind, call.subject,
        md5(call.params::text || coalesce((
            select string_agg(o.id || o.revision, ',' order by o.id) from billing.objects o
            where o.object in ('price', 'product', 'product_feature', 'billing.meter', 'entitlements.feature')
        ), ''))
    );
    key := key || ':' || (select count(*) from billing.requests r where r.idempotency_key like key || '%' and r.state = 'failed');
    return query select billing.request(call.kind, call.path, call.params, key, method => call.method, is_enqueued => false), call.what;
end
$$;
comment on function billing.next_catalogue_request() is
'The next request that brings the catalogue to Stripe, for the command line to carry; nothing when it is there.';
