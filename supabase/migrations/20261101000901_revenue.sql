-- Why: what was paid ahead is earned by the second of its service, as a view.
-- Locks: none on existing tables.
-- Workers: need not stop.

create view billing.revenue_lines with (security_invoker = true) as
select
    o.id as invoice_id,
    o.customer_id,
    upper(o.data ->> 'currency') as currency,
    l.line ->> 'id' as line_id,
    (l.line ->> 'amount')::bigint - billing.discount_of(l.line) as amount,
    billing.moment(l.line #> '{period,start}') as starts_at,
    billing.moment(l.line #> '{period,end}') as ends_at
from billing.objects as o
cross join lateral jsonb_array_elements(o.data #> '{lines,data}') as l (line)
where o.object = 'invoice' and o.data ->> 'status' = 'paid' and not o.is_deleted
union all
-- What the lines do not say (credited before payment, or more lines than came with it) is earned when it is paid.
select
    o.id as invoice_id,
    o.customer_id,
    upper(o.data ->> 'currency') as currency,
    'rest' as line_id,
    billing.net_of(o.data) - billing.lines_total(o.data) as amount,
    billing.paid_at_of(o.data) as starts_at,
    billing.paid_at_of(o.data) as ends_at
from billing.objects as o
where o.object = 'invoice' and o.data ->> 'status' = 'paid' and not o.is_deleted;
comment on view billing.revenue_lines is
'What paid invoices are for, and over which time it is earned. Together they are what the sales account says.';
comment on column billing.revenue_lines.invoice_id is 'The invoice.';
comment on column billing.revenue_lines.customer_id is 'Whose it is.';
comment on column billing.revenue_lines.currency is 'ISO 4217.';
comment on column billing.revenue_lines.line_id is 'The line; rest for what the lines do not say.';
comment on column billing.revenue_lines.amount is 'In minor units, less discounts, without tax.';
comment on column billing.revenue_lines.starts_at is 'From when the service is given.';
comment on column billing.revenue_lines.ends_at is 'Until when; equal for what is earned at once.';

create function billing.earned(amount bigint, starts_at timestamptz, ends_at timestamptz, until timestamptz)
returns bigint
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    -- By the second; what is for no time at all is earned at once.
    select round(
        earned.amount * least(1, greatest(0, case
            when earned.ends_at <= earned.starts_at then (earned.until > earned.starts_at)::integer
            else extract(epoch from earned.until - earned.starts_at) / extract(epoch from earned.ends_at - earned.starts_at)
        end))
    )::bigint
$$;
comment on function billing.earned(bigint, timestamptz, timestamptz, timestamptz) is
'What of an amount for a service over some time is earned until a moment.';

create function billing.first_of_month(moment timestamptz) returns timestamptz
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select date_trunc('month', first_of_month.moment at time zone 'UTC') at time zone 'UTC' $$;
comment on function billing.first_of_month(timestamptz) is 'When a moment''s month began, in UTC.';

create function billing.months_between(starts_at timestamptz, ends_at timestamptz) returns setof timestamptz
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select g.local at time zone 'UTC'
    from generate_series(
        date_trunc('month', months_between.starts_at at time zone 'UTC'),
        date_trunc('month', months_between.ends_at at time zone 'UTC'), interval '1 month'
    ) as g (local)
$$;
comment on function billing.months_between(timestamptz, timestamptz) is
'The beginnings of the months that a time touches, in UTC.';

create view billing.revenue_months with (security_invoker = true) as
with
movements as (
    -- What is earned by the end of a month, less what was by its beginning: the parts add up to the whole.
    select
        l.currency,
        m.month,
        0 as billed,
        billing.earned(
            l.amount, l.starts_at, l.ends_at, billing.first_of_month(m.month + interval '32 days')
        ) - billing.earned(l.amount, l.starts_at, l.ends_at, m.month) as recognised
    from billing.revenue_lines as l
    cross join lateral billing.months_between(l.starts_at, l.ends_at) as m (month)
    where l.amount <> 0
    union all
    select
        upper(o.data ->> 'currency') as currency,
        billing.first_of_month(billing.paid_at_of(o.data)) as month,
        billing.net_of(o.data) as billed,
        0 as recognised
    from billing.objects as o
    where o.object = 'invoice' and o.data ->> 'status' = 'paid' and not o.is_deleted
),

months as (
    select
        v.currency,
        v.month,
        sum(v.billed)::bigint as billed,
        sum(v.recognised)::bigint as recognised
    from movements as v
    group by 1, 2
)

select
    months.currency,
    (months.month at time zone 'UTC')::date as month,
    months.billed,
    months.recognised,
    sum(months.billed - months.recognised) over (partition by months.currency order by months.month)::bigint as deferred
from months;
comment on view billing.revenue_months is
'Revenue by the month: what was billed and paid, what of it was earned, what is deferred at the month''s end.';
comment on column billing.revenue_months.currency is 'ISO 4217.';
comment on column billing.revenue_months.month is 'Its first day.';
comment on column billing.revenue_months.billed is 'Paid invoices without tax, in minor units.';
comment on column billing.revenue_months.recognised is 'Earned in the month.';
comment on column billing.revenue_months.deferred is 'Paid and not earned yet, at the end of the month.';
