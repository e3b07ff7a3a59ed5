-- Why: what a workspace's plan allows. Features are looked up; limits are counter rows that
--      refuse to grow past their maximum, changed in the transaction that adds the rows.
-- Locks: none on existing tables.
-- Workers: need not stop.

create schema billing;
comment on schema billing is 'Plans, limits, usage, and what is known from Stripe: who may do what, and what was paid.';

-- The catalogue ------------------------------------------------------------------------------

create table billing.plans (
    id text not null,
    name text not null,
    rank bigint not null,
    is_default boolean not null default false,
    audit_months bigint not null default 12,
    trial_days bigint not null default 0,
    starts_with_trial boolean not null default false,
    version_of text,
    version bigint not null default 1,
    is_archived boolean not null default false,
    constraint plans_pkey primary key (id),
    constraint plans_id_is_well_formed check (id ~ '^[a-z][a-z0-9_]{0,47}$'),
    constraint plans_are_versions_of_a_plan foreign key (version_of) references billing.plans (id),
    constraint plans_trial_is_within_two_years check (trial_days between 0 and 730),
    constraint plans_keep_audit_records_for_a_year check (audit_months between 12 and 120)
);
alter table billing.plans enable row level security;
create policy plans_nobody on billing.plans using (false);
create unique index plans_one_default on billing.plans (is_default) where is_default;
create unique index plans_one_trial on billing.plans (starts_with_trial) where starts_with_trial;
create unique index plans_rank on billing.plans (rank) where version_of is null and not is_archived;
create index plans_version_of on billing.plans (version_of) where version_of is not null;
comment on table billing.plans is 'What can be bought, the smallest first.';
comment on column billing.plans.id is 'Its name for programs.';
comment on column billing.plans.name is 'Its name for people.';
comment on column billing.plans.rank is 'Its place: of two plans that lift a limit, the lower is named.';
comment on column billing.plans.is_default is 'Whether a new workspace starts on it.';
comment on column billing.plans.audit_months is 'How many months its audit records are kept.';
comment on column billing.plans.trial_days is 'How long it can be tried without a card; 0 for not at all.';
comment on column billing.plans.starts_with_trial is 'Whether a new workspace begins by trying it.';
comment on column billing.plans.version_of is
'The plan that this was before it changed: those who bought it then stay on it.';
comment on column billing.plans.version is 'Which version of the plan this is, from 1.';
comment on column billing.plans.is_archived is 'Whether it cannot be bought any more.';

create table billing.resources (
    resource text not null,
    relation regclass not null,
    constraint resources_pkey primary key (resource),
    constraint resources_count_one_table_each unique (relation)
);
alter table billing.resources enable row level security;
create policy resources_nobody on billing.resources using (false);
comment on table billing.resources is 'What plans limit: the rows of which table.';
comment on column billing.resources.resource is 'Its name in limits, usage and refusals.';
comment on column billing.resources.relation is 'The table whose rows are counted.';

create table billing.plan_limits (
    plan_id text not null,
    resource text not null,
    max bigint,
    constraint plan_limits_pkey primary key (plan_id, resource),
    constraint plan_limits_belong_to_a_plan foreign key (plan_id) references billing.plans (id) on delete cascade,
    constraint plan_limits_name_a_resource foreign key (resource) references billing.resources (resource)
    on delete cascade,
    constraint plan_limits_max_is_not_negative check (max >= 0)
);
alter table billing.plan_limits enable row level security;
create policy plan_limits_nobody on billing.plan_limits using (false);
create index plan_limits_resource on billing.plan_limits (resource);
comment on table billing.plan_limits is 'How many of each resource a plan allows. A missing row allows none.';
comment on column billing.plan_limits.plan_id is 'The plan.';
comment on column billing.plan_limits.resource is 'What is limited.';
comment on column billing.plan_limits.max is 'How many; null is without limit.';

create table billing.features (
    feature text not null,
    description text not null,
    is_archived boolean not null default false,
    constraint features_pkey primary key (feature)
);
alter table billing.features enable row level security;
create policy features_nobody on billing.features using (false);
comment on table billing.features is 'What a plan can include beyond numbers.';
comment on column billing.features.feature is 'Its name for programs.';
comment on column billing.features.description is 'What it gives.';
comment on column billing.features.is_archived is 'Whether it is offered no more.';

create table billing.plan_features (
    plan_id text not null,
    feature text not null,
    constraint plan_features_pkey primary key (plan_id, feature),
    constraint plan_features_belong_to_a_plan foreign key (plan_id) references billing.plans (id) on delete cascade,
    constraint plan_features_name_a_feature foreign key (feature) references billing.features (feature)
    on delete cascade
);
alter table billing.plan_features enable row level security;
create policy plan_features_nobody on billing.plan_features using (false);
create index plan_features_feature on billing.plan_features (feature);
comment on table billing.plan_features is 'Which features each plan includes.';
comment on column billing.plan_features.plan_id is 'The plan.';
comment on column billing.plan_features.feature is 'What it includes.';

-- The table was made by the migration before this one: there is nothing to scan or to block.
-- squawk-ignore adding-foreign-key-constraint, constraint-missing-not-valid
alter table public.permissions add constraint permissions_required_feature_exists
foreign key (required_feature) references billing.features (feature);
-- squawk-ignore require-concurrent-index-creation
create index permissions_required_feature on public.permissions (required_feature)
where required_feature is not null;

-- What a workspace has -----------------------------------------------------------------------

create table billing.workspace_plans (
    workspace_id uuid not null,
    plan_id text not null,
    state text not null default 'free',
    reason text not null default 'default_plan',
    until timestamptz,
    next_plan_id text,
    next_state text,
    next_reason text,
    seats bigint,
    changed_at timestamptz not null default ops.now(),
    constraint workspace_plans_pkey primary key (workspace_id),
    constraint workspace_plans_state_is_known check (
        state in ('trialing', 'active', 'grace', 'restricted', 'free')
        and next_state in ('trialing', 'active', 'grace', 'restricted', 'free')
    ),
    constraint workspace_plans_change_at_a_time check (
        (next_state is null) = (next_plan_id is null) and (next_state is null) = (next_reason is null)
        and (next_state is null or until is not null)
    ),
    constraint workspace_plans_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint workspace_plans_name_a_plan foreign key (plan_id) references billing.plans (id),
    constraint workspace_plans_name_a_next_plan foreign key (next_plan_id) references billing.plans (id)
);
alter table billing.workspace_plans enable row level security;
create policy workspace_plans_nobody on billing.workspace_plans using (false);
create index workspace_plans_plan_id on billing.workspace_plans (plan_id);
create index workspace_plans_next_plan_id on billing.workspace_plans (next_plan_id) where next_plan_id is not null;
create index workspace_plans_until on billing.workspace_plans (until) where next_state is not null;
create index workspace_plans_reminders on billing.workspace_plans (until) where state in ('trialing', 'active');
comment on table billing.workspace_plans is
'What was decided for each workspace: its plan, its state, and what time makes of them.';
comment on column billing.workspace_plans.workspace_id is 'The tenant.';
comment on column billing.workspace_plans.plan_id is 'The plan.';
comment on column billing.workspace_plans.state is 'trialing, active, grace, restricted (to reading) or free.';
comment on column billing.workspace_plans.reason is 'Why: a fact of billing.access_rules.';
comment on column billing.workspace_plans.until is
'When the period, the trial or the grace ends; null where nothing does.';
comment on column billing.workspace_plans.next_plan_id is 'The plan from then on, where time alone changes something.';
comment on column billing.workspace_plans.next_state is 'The state from then on.';
comment on column billing.workspace_plans.next_reason is 'The reason from then on.';
comment on column billing.workspace_plans.seats is 'How many seats are paid for; null where seats are not counted.';
comment on column billing.workspace_plans.changed_at is 'Since when.';

-- The one reading of it: to the second, whether the clock has run meanwhile or not.
create view billing.current_access with (security_invoker = true) as
select
    wp.workspace_id,
    case when now.is_over then wp.next_plan_id else wp.plan_id end as plan_id,
    case when now.is_over then wp.next_state else wp.state end as state,
    case when now.is_over then wp.next_reason else wp.reason end as reason,
    case when not now.is_over then wp.until end as until,
    case when not now.is_over then wp.seats end as seats
from billing.workspace_plans as wp
cross join lateral (select wp.next_state is not null and wp.until <= ops.now() as is_over) as now; -- noqa: ST05
comment on view billing.current_access is
'What each workspace may do now, and why. Limits, features and the door read it.';
comment on column billing.current_access.workspace_id is 'The tenant.';
comment on column billing.current_access.plan_id is 'The plan.';
comment on column billing.current_access.state is 'trialing, active, grace, restricted (to reading) or free.';
comment on column billing.current_access.reason is 'Why: a fact of billing.access_rules.';
comment on column billing.current_access.until is
'When the period, the trial or the grace ends; null where nothing does.';
comment on column billing.current_access.seats is 'How many seats are paid for; null where seats are not counted.';

create table billing.limit_overrides (
    workspace_id uuid not null,
    resource text not null,
    max bigint,
    reason text not null,
    created_at timestamptz not null default ops.now(),
    constraint limit_overrides_pkey primary key (workspace_id, resource),
    constraint limit_overrides_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint limit_overrides_name_a_resource foreign key (resource) references billing.resources (resource)
    on delete cascade,
    constraint limit_overrides_max_is_not_negative check (max >= 0)
);
alter table billing.limit_overrides enable row level security;
create policy limit_overrides_nobody on billing.limit_overrides using (false);
create index limit_overrides_resource on billing.limit_overrides (resource);
comment on table billing.limit_overrides is 'What was agreed with one workspace instead of its plan''s limit.';
comment on column billing.limit_overrides.workspace_id is 'The tenant.';
comment on column billing.limit_overrides.resource is 'What is limited.';
comment on column billing.limit_overrides.max is 'How many; null is without limit.';
comment on column billing.limit_overrides.reason is 'Why, for the operator.';
comment on column billing.limit_overrides.created_at is 'Since when.';

create table billing.feature_overrides (
    workspace_id uuid not null,
    feature text not null,
    is_enabled boolean not null,
    reason text not null,
    created_at timestamptz not null default ops.now(),
    constraint feature_overrides_pkey primary key (workspace_id, feature),
    constraint feature_overrides_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint feature_overrides_name_a_feature foreign key (feature) references billing.features (feature)
    on delete cascade
);
alter table billing.feature_overrides enable row level security;
create policy feature_overrides_nobody on billing.feature_overrides using (false);
create index feature_overrides_feature on billing.feature_overrides (feature);
comment on table billing.feature_overrides is 'Features agreed with one workspace instead of its plan''s.';
comment on column billing.feature_overrides.workspace_id is 'The tenant.';
comment on column billing.feature_overrides.feature is 'The feature.';
comment on column billing.feature_overrides.is_enabled is 'Whether it has it.';
comment on column billing.feature_overrides.reason is 'Why, for the operator.';
comment on column billing.feature_overrides.created_at is 'Since when.';

-- A counter is updated on every insert: the space left on its pages keeps those updates HOT.
create table billing.usage_counters (
    workspace_id uuid not null,
    resource text not null,
    max bigint,
    used bigint,
    constraint usage_counters_pkey primary key (workspace_id, resource),
    constraint usage_counters_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint usage_counters_name_a_resource foreign key (resource) references billing.resources (resource)
    on delete cascade,
    constraint usage_counters_used_is_not_negative check (used >= 0),
    constraint usage_counters_count_only_what_is_limited check ((max is null) = (used is null))
) with (fillfactor = 50);
alter table billing.usage_counters enable row level security;
create policy usage_counters_nobody on billing.usage_counters using (false);
create index usage_counters_resource on billing.usage_counters (resource);
comment on table billing.usage_counters is 'What each workspace uses of what it may: the row that makes a limit exact.';
comment on column billing.usage_counters.workspace_id is 'The tenant.';
comment on column billing.usage_counters.resource is 'What is counted.';
comment on column billing.usage_counters.max is 'The limit in force; null is without limit.';
comment on column billing.usage_counters.used is 'Rows there are; null, uncounted, without a limit.';

-- Reading ------------------------------------------------------------------------------------

create function billing.has_feature(workspace_id uuid, feature text) returns boolean
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(
        (
            select o.is_enabled from billing.feature_overrides o
            where o.workspace_id = has_feature.workspace_id and o.feature = has_feature.feature
        ),
        exists (
            select from billing.current_access ca
            join billing.plan_features pf on pf.plan_id = ca.plan_id
            where ca.workspace_id = has_feature.workspace_id and pf.feature = has_feature.feature
        )
    )
$$;
comment on function billing.has_feature(uuid, text) is 'Whether a workspace has a feature, by override or by plan.';

create function billing.plan_with_feature(feature text) returns text
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select p.id from billing.plans p
    join billing.plan_features pf on pf.plan_id = p.id
    where pf.feature = plan_with_feature.feature and p.version_of is null and not p.is_archived
    order by p.rank
    limit 1
$$;
comment on function billing.plan_with_feature(text) is 'The smallest plan that includes a feature, or null.';

create function billing.plan_that_allows(resource text, amount bigint) returns text
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select p.id from billing.plans p
    join billing.plan_limits pl on pl.plan_id = p.id
    where
        pl.resource = plan_that_allows.resource
        and (pl.max is null or pl.max >= plan_that_allows.amount)
        and p.version_of is null
        and not p.is_archived
    order by p.rank
    limit 1
$$;
comment on function billing.plan_that_allows(text, bigint) is
'The smallest plan that allows so many of a resource, or null.';

create function billing.limit_of(workspace_id uuid, resource text) returns bigint
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    -- A plan without a row for the resource allows none, which a plan without a limit must not
    -- be taken for: both would be null.
    select case
        when o.workspace_id is not null then o.max
        when pl.plan_id is not null then pl.max
        else 0
    end
    from (select) as here
    left join billing.limit_overrides o
        on o.workspace_id = limit_of.workspace_id and o.resource = limit_of.resource
    left join billing.current_access ca on ca.workspace_id = limit_of.workspace_id
    left join billing.plan_limits pl on pl.plan_id = ca.plan_id and pl.resource = limit_of.resource
$$;
comment on function billing.limit_of(uuid, text) is
'How many of a resource a workspace may have, by override or by plan; null is without limit.';

create function billing.live_rows(relation regclass) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select case
        when exists (
            select from pg_attribute a
            where a.attrelid = live_rows.relation and a.attname = 'deleted_at' and not a.attisdropped
        ) then 'deleted_at is null'
        else 'true'
    end
$$;
comment on function billing.live_rows(regclass) is
'The condition for rows of a table that count: what is in the trash does not.';

create function billing.count_rows(workspace_id uuid, resource text) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    counted regclass;
    total bigint;
begin
    select r.relation into strict counted from billing.resources r where r.resource = count_rows.resource;
    execute format(
        'select count(*) from %s where workspace_id = $1 and %s', counted, billing.live_rows(counted)
    ) into total using count_rows.workspace_id;
    return total;
end
$$;
comment on function billing.count_rows(uuid, text) is 'Counts what a workspace has of a resource, row by row.';

-- Counting -----------------------------------------------------------------------------------

create function billing.refuse_limit(workspace_id uuid, resource text, used bigint, max bigint) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    plan billing.plans;
    lifted_by text := billing.plan_that_allows(refuse_limit.resource, refuse_limit.used);
begin
    select p.* into plan from billing.current_access ca
    join billing.plans p on p.id = ca.plan_id
    where ca.workspace_id = refuse_limit.workspace_id;
    plan.id := coalesce(plan.version_of, plan.id);
    perform ops.raise_http(
        402,
        'plan_limit_reached',
        format('The %s plan allows %s %s here.', plan.id, refuse_limit.max, refuse_limit.resource),
        jsonb_build_object(
            'resource', refuse_limit.resource,
            'limit', refuse_limit.max,
            'plan', plan.id,
            'lifted_by', lifted_by
        ),
        case
            when lifted_by is null then 'No plan allows more: ask support.'
            else format('The %s plan lifts this limit.', lifted_by)
        end
    );
end
$$;
comment on function billing.refuse_limit(uuid, text, bigint, bigint) is
'Answers 402 with the resource, the limit, the plan, and the plan that lifts it.';

create function billing.add_usage(workspace_id uuid, resource text, amount bigint) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    counter billing.usage_counters;
begin
    loop
        -- Changing the row, not just locking it, is what makes the limit exact: whoever comes
        -- second waits, and under repeatable read fails with a serialization error.
        update billing.usage_counters c set used = c.used + add_usage.amount
        where c.workspace_id = add_usage.workspace_id and c.resource = add_usage.resource and c.max is not null
        returning c.* into counter;
        if found then
            if add_usage.amount > 0 and counter.used > counter.max then
                perform billing.refuse_limit(
                    add_usage.workspace_id, add_usage.resource, counter.used, counter.max
                );
            end if;
            return;
        end if;

        -- Without a limit nothing is counted. The shared lock holds off a limit that arrives
        -- now until these rows can be counted; it does not make inserters wait for each other.
        select c.* into counter from billing.usage_counters c
        where c.workspace_id = add_usage.workspace_id and c.resource = add_usage.resource
        for share;
        if not found then
            -- The workspace is being purged, or was never given counters: then nothing may grow.
            if add_usage.amount > 0 then
                perform billing.refuse_limit(add_usage.workspace_id, add_usage.resource, add_usage.amount, 0);
            end if;
            return;
        end if;
        exit when counter.max is null;
    end loop;
end
$$;
comment on function billing.add_usage(uuid, text, bigint) is
'Counts an amount, which may be negative, of a resource in a workspace; refuses growth past the limit with 402.';

create function billing.count_inserted() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    counter billing.usage_counters;
begin
    -- Most inserts are of one row: one statement then counts it, or, where there is no limit, holds
    -- off one that arrives now.
    update billing.usage_counters c set used = c.used + 1
    where
        c.workspace_id = (select n.workspace_id from new_rows n limit 1)
        and c.resource = tg_argv[0]
        and c.max is not null
        and not exists (select from new_rows offset 1)
    returning c.* into counter;
    if found then
        if counter.used > counter.max then
            perform billing.refuse_limit(counter.workspace_id, counter.resource, counter.used, counter.max);
        end if;
        return null;
    end if;
    perform from billing.usage_counters c
    where
        c.workspace_id = (select n.workspace_id from new_rows n limit 1)
        and c.resource = tg_argv[0]
        and c.max is null
        and not exists (select from new_rows offset 1)
    for share;
    if found then
        return null;
    end if;
    -- In the order of the tenants, so that two bulk statements cannot deadlock.
    perform billing.add_usage(changed.workspace_id, tg_argv[0], changed.amount)
    from (select n.workspace_id, count(*) as amount from new_rows n group by 1 order by 1) as changed;
    return null;
end
$$;
comment on function billing.count_inserted() is 'Statement trigger: counts inserted rows of the resource named.';

create function billing.count_deleted() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    -- What was in the trash left the count when it came there.
    perform billing.add_usage(changed.workspace_id, tg_argv[0], -changed.amount)
    from (
        select o.workspace_id, count(*) as amount from old_rows o
        where to_jsonb(o) ->> 'deleted_at' is null
        group by 1 order by 1
    ) as changed;
    return null;
end
$$;
comment on function billing.count_deleted() is
'Statement trigger: takes deleted rows of the resource named off the count.';

create function billing.count_trash() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform billing.add_usage(new.workspace_id, tg_argv[0], case when new.deleted_at is null then 1 else -1 end);
    return null;
end
$$;
comment on function billing.count_trash() is
'Trigger: what goes to the trash leaves the count of the resource named, what is restored comes back to it.';

-- Limits in force ----------------------------------------------------------------------------

create function billing.refresh_limit(workspace_id uuid, resource text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    counter billing.usage_counters;
    limit_now bigint;
begin
    -- Called by cascades too, when one of the two is gone already.
    if not exists (select from public.workspaces w where w.id = refresh_limit.workspace_id)
        or not exists (select from billing.resources r where r.resource = refresh_limit.resource)
    then
        return;
    end if;
    insert into billing.usage_counters (workspace_id, resource) values
        (refresh_limit.workspace_id, refresh_limit.resource)
    on conflict do nothing;
    -- Waits for every transaction that inserted while there was no limit.
    select c.* into strict counter from billing.usage_counters c
    where c.workspace_id = refresh_limit.workspace_id and c.resource = refresh_limit.resource
    for update;
    -- Only now, so that of two changes at once the later one sees the earlier.
    limit_now := billing.limit_of(refresh_limit.workspace_id, refresh_limit.resource);

    if counter.max is null and limit_now is not null then
        if current_setting('transaction_isolation') <> 'read committed' then
            raise exception 'a limit can only be put on in a read committed transaction'
                using errcode = 'active_sql_transaction',
                hint = 'The rows are counted after waiting for inserters, which an older snapshot would miss.';
        end if;
        update billing.usage_counters c
        set max = limit_now, used = billing.count_rows(refresh_limit.workspace_id, refresh_limit.resource)
        where c.workspace_id = refresh_limit.workspace_id and c.resource = refresh_limit.resource;
    elsif counter.max is distinct from limit_now then
        update billing.usage_counters c
        set max = limit_now, used = case when limit_now is not null then c.used end
        where c.workspace_id = refresh_limit.workspace_id and c.resource = refresh_limit.resource;
    end if;
end
$$;
comment on function billing.refresh_limit(uuid, text) is
'Brings a counter in line with plan and override; counts afresh when a limit is put on.';

create function billing.refresh_workspace_limits() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    -- After the triggering statement, so that the counter is read as of now.
    perform billing.refresh_limit(new.workspace_id, r.resource) from billing.resources r order by r.resource;
    return null;
end
$$;
comment on function billing.refresh_workspace_limits() is 'Trigger: a workspace changed plan.';

create trigger workspace_plans_refresh_limits
after insert or update of plan_id on billing.workspace_plans
for each row execute function billing.refresh_workspace_limits();

create function billing.refresh_overridden_limit() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op <> 'INSERT' then
        perform billing.refresh_limit(old.workspace_id, old.resource);
    end if;
    if tg_op <> 'DELETE' then
        perform billing.refresh_limit(new.workspace_id, new.resource);
    end if;
    return null;
end
$$;
comment on function billing.refresh_overridden_limit() is
'Trigger: a workspace was given a limit of its own, or lost it.';

create trigger limit_overrides_refresh_limit
after insert or update or delete on billing.limit_overrides
for each row execute function billing.refresh_overridden_limit();

create function billing.refresh_plan_limit() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Whoever moves a workspace onto the plan meanwhile waits here, and then finds the new limit.
    perform from billing.plans p where p.id = coalesce(new.plan_id, old.plan_id) for update;
    perform billing.refresh_limit(wp.workspace_id, coalesce(new.resource, old.resource))
    from billing.workspace_plans wp
    where wp.plan_id = coalesce(new.plan_id, old.plan_id)
    order by wp.workspace_id;
    return null;
end
$$;
comment on function billing.refresh_plan_limit() is 'Trigger: a plan allows more or less than it did.';

create trigger plan_limits_refresh_limits
after insert or update or delete on billing.plan_limits
for each row execute function billing.refresh_plan_limit();

create function billing.start_on_default_plan() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into billing.workspace_plans (workspace_id, plan_id)
    select new.id, p.id from billing.plans p where p.is_default;
    return null;
end
$$;
comment on function billing.start_on_default_plan() is
'Trigger: a new workspace gets a plan, and with it its counters.';

create trigger workspaces_start_on_default_plan
after insert on public.workspaces
for each row execute function billing.start_on_default_plan();

create function billing.limit_rows(relation regclass, resource text, limits jsonb) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    table_name text := (select c.relname::text from pg_class c where c.oid = limit_rows.relation);
    missing text;
begin
    -- A workspace that is being made now would miss its counter.
    lock table billing.workspace_plans in share row exclusive mode;
    select p.id into missing from billing.plans p
    where not limit_rows.limits ? coalesce(p.version_of, p.id) and not p.is_archived
    order by p.rank limit 1;
    if found then
        raise exception 'limits for % do not say what the % plan allows', limit_rows.resource, missing
            using errcode = 'invalid_parameter_value',
            hint = 'Give every plan a number, or null for no limit: {"free": 3, "pro": 100, "enterprise": null}.';
    end if;
    execute format(
        'create trigger %I after insert on %s referencing new table as new_rows '
        'for each statement execute function billing.count_inserted(%L)',
        table_name || '_count_inserted', limit_rows.relation, limit_rows.resource
    );
    execute format(
        'create trigger %I after delete on %s referencing old table as old_rows '
        'for each statement execute function billing.count_deleted(%L)',
        table_name || '_count_deleted', limit_rows.relation, limit_rows.resource
    );
    if billing.live_rows(limit_rows.relation) <> 'true' then
        execute format(
            'create trigger %I after update of deleted_at on %s for each row '
            'when ((old.deleted_at is null) <> (new.deleted_at is null)) execute function billing.count_trash(%L)',
            table_name || '_count_trash', limit_rows.relation, limit_rows.resource
        );
    end if;
    insert into billing.resources (resource, relation) values (limit_rows.resource, limit_rows.relation);
    insert into billing.plan_limits (plan_id, resource, max)
    select p.id, limit_rows.resource, (limit_rows.limits ->> coalesce(p.version_of, p.id))::bigint
    from billing.plans p where limit_rows.limits ? coalesce(p.version_of, p.id);
end
$$;
comment on function billing.limit_rows(regclass, text, jsonb) is
'Puts a table''s rows under plan limits, {"plan": max or null}; existing rows are counted. For migrations.';

create function billing.release_rows(relation regclass) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    table_name text := (select c.relname::text from pg_class c where c.oid = release_rows.relation);
begin
    execute format('drop trigger if exists %I on %s', table_name || '_count_inserted', release_rows.relation);
    execute format('drop trigger if exists %I on %s', table_name || '_count_deleted', release_rows.relation);
    execute format('drop trigger if exists %I on %s', table_name || '_count_trash', release_rows.relation);
    delete from billing.resources r where r.relation = release_rows.relation;
end
$$;
comment on function billing.release_rows(regclass) is 'Takes a table out of plan limits. For rollbacks.';

-- The catalogue to begin with ----------------------------------------------------------------

insert into billing.plans (id, name, rank, is_default, audit_months)
values
('free', 'Free', 1, true, 12),
('pro', 'Pro', 2, false, 24),
('enterprise', 'Enterprise', 3, false, 36);

insert into billing.features (feature, description)
values ('custom_roles', 'Roles composed by the workspace itself.');

insert into billing.plan_features (plan_id, feature)
values ('enterprise', 'custom_roles');

select billing.limit_rows(
    'public.workspace_members', 'members', '{"free": 3, "pro": 25, "enterprise": null}'
);
