-- Why: credit is given by the operator, used before anything is charged, and what is left of it expires.
-- Locks: none on existing tables.
-- Workers: need not stop.

create table billing.credit_grants (
    workspace_id uuid not null,
    id uuid not null default gen_random_uuid(),
    amount bigint not null,
    currency text not null,
    reason text not null,
    expires_at timestamptz,
    request_id uuid not null,
    expiry_request_id uuid,
    granted_at timestamptz not null default ops.now(),
    constraint credit_grants_pkey primary key (workspace_id, id),
    constraint credit_grants_once_per_request unique (workspace_id, request_id),
    constraint credit_grants_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint credit_grants_have_a_currency foreign key (currency) references ledger.currencies (code),
    constraint credit_grants_are_of_something check (amount > 0)
);
alter table billing.credit_grants enable row level security;
create policy credit_grants_nobody on billing.credit_grants using (false);
create index credit_grants_currency on billing.credit_grants (currency);
create index credit_grants_expires_at on billing.credit_grants (expires_at) where expiry_request_id is null;
comment on table billing.credit_grants is
'Credits given by the operator: part of the customer''s balance at Stripe, used before anything is charged.';
comment on column billing.credit_grants.workspace_id is 'The tenant.';
comment on column billing.credit_grants.id is 'The grant.';
comment on column billing.credit_grants.amount is 'How much, in minor units.';
comment on column billing.credit_grants.currency is 'ISO 4217.';
comment on column billing.credit_grants.reason is 'Why.';
comment on column billing.credit_grants.expires_at is 'When what is left of it is taken back; null for never.';
comment on column billing.credit_grants.request_id is 'The request that gave it.';
comment on column billing.credit_grants.expiry_request_id is
'The request that took the rest back, or this grant''s own where there was none.';
comment on column billing.credit_grants.granted_at is 'When.';

create function billing.grant_credit(
    workspace_id uuid, amount bigint, currency text, expires_at timestamptz, reason text, idempotency_key text
) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    request uuid;
begin
    if coalesce(grant_credit.amount, 0) <= 0 then
        perform ops.raise_http(400, 'amount_invalid', 'A credit is of something.', null, 'Give minor units (cents) from 1.');
    end if;
    if grant_credit.expires_at <= ops.now() then
        perform ops.raise_http(400, 'expiry_invalid', 'This credit would have expired already.', null, 'Give a day to come, or none.');
    end if;
    request := billing.adjust(grant_credit.workspace_id, grant_credit.amount, grant_credit.currency, grant_credit.reason, grant_credit.idempotency_key);
    insert into billing.credit_grants (workspace_id, amount, currency, reason, expires_at, request_id)
    values (
        grant_credit.workspace_id, grant_credit.amount, upper(grant_credit.currency), grant_credit.reason, grant_credit.expires_at, request
    )
    on conflict on constraint credit_grants_once_per_request do nothing;
    return request;
end
$$;
comment on function billing.grant_credit(uuid, bigint, text, timestamptz, text, text) is
'Gives a workspace credit, once per key: it is used before anything is charged, and what is left expires. For
operators.';

create view billing.credit_balances with (security_invoker = true) as
select
    g.workspace_id,
    g.id,
    g.amount,
    g.currency,
    g.reason,
    g.expires_at,
    g.granted_at,
    -- What was applied to invoices since it was given, less what those that expire before it cover; and never more than
    -- the balance holds.
    case
        when g.expiry_request_id is not null then 0
        else greatest(0, least(
            g.amount - greatest(0, u.amount - e.amount),
            case when o.data is not null then -(o.data ->> 'balance')::bigint else g.amount end
        ))
    end as remaining
from billing.credit_grants as g
left join billing.customers as c on g.workspace_id = c.workspace_id
left join billing.objects as o on c.stripe_id = o.id
cross join
    lateral (
        select coalesce(sum((b.data ->> 'amount')::bigint), 0)::bigint as amount
        from billing.objects as b
        where
            b.customer_id = c.stripe_id
            and b.object = 'customer_balance_transaction'
            and b.data ->> 'type' like '%invoice%'
            and upper(b.data ->> 'currency') = g.currency
            and billing.moment(b.data -> 'created') >= date_trunc('second', g.granted_at)
    ) as u
cross join lateral (
    select coalesce(sum(earlier.amount), 0)::bigint as amount from billing.credit_grants as earlier
    where
        earlier.workspace_id = g.workspace_id
        and earlier.currency = g.currency
        and (coalesce(earlier.expires_at, 'infinity'), earlier.id) < (coalesce(g.expires_at, 'infinity'), g.id)
        and coalesce(earlier.expires_at, 'infinity') > g.granted_at
) as e;
comment on view billing.credit_balances is 'What is left of each credit.';
comment on column billing.credit_balances.workspace_id is 'The tenant.';
comment on column billing.credit_balances.id is 'The grant.';
comment on column billing.credit_balances.amount is 'How much it was, in minor units.';
comment on column billing.credit_balances.currency is 'ISO 4217.';
comment on column billing.credit_balances.reason is 'Why it was given.';
comment on column billing.credit_balances.expires_at is 'When it expires.';
comment on column billing.credit_balances.granted_at is 'When it was given.';
comment on column billing.credit_balances.remaining is 'What is left.';

create function billing.expire_credits(at_most bigint default 1000) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    due record;
    request uuid;
    expired bigint := 0::bigint;
begin
    for due in
        select g.workspace_id, g.id, g.currency, g.request_id, b.remaining
        from billing.credit_grants g
        join billing.credit_balances b on b.workspace_id = g.workspace_id and b.id = g.id
        join billing.requests r on r.id = g.request_id and r.state = 'done'
        where g.expires_at <= ops.now() and g.expiry_request_id is null
        order by g.expires_at, g.id
        limit expire_credits.at_most
    loop
        begin
            request := null;
            if due.remaining > 0 then
                request := billing.adjust(due.workspace_id, -due.remaining, due.currency, 'Credit expired', 'expire:' || due.id);
            end if;
            update billing.credit_grants g set expiry_request_id = coalesce(request, due.request_id)
            where g.workspace_id = due.workspace_id and g.id = due.id;
            expired := expired + 1;
        exception
            when others then raise warning 'credit % did not expire: %', due.id, sqlerrm;
        end;
    end loop;
    return expired;
end
$$;
comment on function billing.expire_credits(bigint) is
'Takes back what is left of credits that have expired. Returns how many. Run hourly.';
