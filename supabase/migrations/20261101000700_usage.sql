-- Why: a workspace's members see what they use of what their plan allows.
-- Locks: none on existing tables.
-- Workers: need not stop.

create function billing.usage() returns table (
    workspace_id uuid, plan text, resource text, used bigint, max bigint, remaining bigint, lifted_by text
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select
        c.workspace_id,
        coalesce(p.version_of, p.id),
        c.resource,
        counted.used,
        c.max,
        case when c.max is not null then greatest(c.max - counted.used, 0) end,
        case when c.max is not null then billing.plan_that_allows(c.resource, c.max + 1) end
    from billing.usage_counters c
    join billing.current_access ca on ca.workspace_id = c.workspace_id
    join billing.plans p on p.id = ca.plan_id
    cross join lateral (
        select coalesce(c.used, billing.count_rows(c.workspace_id, c.resource)) as used
    ) as counted
    where c.workspace_id = any (array(select authz.workspaces_with('billing.read')))
$$;
comment on function billing.usage() is 'Behind public.workspace_usage.';

create view public.workspace_usage with (security_invoker = true) as
select
    usage.workspace_id,
    usage.plan,
    usage.resource,
    usage.used,
    usage.max,
    usage.remaining,
    usage.lifted_by
from billing.usage() as usage;
comment on view public.workspace_usage is 'What each of the caller''s workspaces uses of what it may.';
comment on column public.workspace_usage.workspace_id is 'The tenant.';
comment on column public.workspace_usage.plan is 'The plan it is on.';
comment on column public.workspace_usage.resource is 'What is limited.';
comment on column public.workspace_usage.used is 'How many there are.';
comment on column public.workspace_usage.max is 'How many there may be; null is without limit.';
comment on column public.workspace_usage.remaining is 'How many more there may be; null is without limit.';
comment on column public.workspace_usage.lifted_by is 'The smallest plan that allows more than max; null if none does.';

create trigger workspace_usage_is_read_only instead of insert or update or delete on public.workspace_usage
for each row execute function ops.refuse_change();
