-- Why: money that came in by Stripe, or went back, is posted to the operator's own books once per fact; and what was
--      paid ahead is earned day by day, as a view.
-- Locks: none on existing tables.
-- Workers: need not stop.

create function billing.book(
    key text,
    currency text,
    entries jsonb,
    description text,
    day timestamptz,
    kind text default 'journal',
    refunds_key text default null
) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    books uuid := ledger.operator_books();
    sided jsonb;
    refunds uuid;
    closed_until date;
begin
    if exists (select from ledger.transactions t where t.workspace_id = books and t.idempotency_key = book.key) then
        return false;
    end if;
    if book.refunds_key is not null then
        select t.id into refunds from ledger.transactions t where t.workspace_id = books and t.idempotency_key = book.refunds_key;
        -- What it refunds has not arrived yet: it comes back to this when it does.
        if refunds is null then
            return false;
        end if;
    end if;
    select jsonb_agg(
        jsonb_build_object('account', e.account || ':' || upper(book.currency)) || case when e.amount > 0 then jsonb_build_object('debit', e.amount)
            else jsonb_build_object('credit', -e.amount) end
        order by e.account
    ) into sided
    from (select k.key as account, k.value::bigint as amount from jsonb_each_text(entries) k) as e
    where e.amount <> 0;
    if sided is null then
        return false;
    end if;
    perform ledger.open_account(
        books, a.code || ':' || upper(book.currency), a.kind, upper(book.currency), a.name
    )
    from (values
        ('stripe', 'asset', 'Stripe''s balance, before its fees'), ('elsewhere', 'asset', 'Paid outside of Stripe'),
        ('customer_credit', 'liability', 'Owed to customers: their balances at Stripe'), ('tax', 'liability', 'Taxes collected'),
        ('applied', 'asset', 'Balances applied to invoices that are not paid yet'), ('sales', 'income', 'Invoiced and paid'), ('refunds', 'income', 'Refunded'), ('credit_notes', 'income', 'Credited by credit note'),
        ('credits_granted', 'expense', 'Credits given away'), ('disputes', 'expense', 'Lost or held in disputes'), ('dispute_fees', 'expense', 'Fees of disputes')
    ) as a (code, kind, name)
    where sided @> jsonb_build_array(jsonb_build_object('account', a.code || ':' || upper(book.currency)));
    select p.closed_until into closed_until from ledger.periods p where p.workspace_id = books;
    perform ledger.post(
        books, book.key, sided, left(book.description, 1000),
        -- Books that are closed stay closed: it is of the first day after.
        least(greatest((book.day at time zone 'UTC')::date, closed_until + 1), (ops.now() at time zone 'UTC')::date + 366), book.kind, refunds_id => refunds
    );
    return true;
end
$$;
comment on function billing.book(text, text, jsonb, text, timestamptz, text, text) is
'Posts to the operator''s books once per key: entries are {"account": amount}, debits positive. False if it was posted,
if there is nothing to post, or if what it refunds is not posted yet.';

create function billing.book_invoice(invoice billing.objects) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    data jsonb := invoice.data;
    tax bigint := billing.tax_of(data);
    total bigint := (data ->> 'total')::bigint - coalesce((data ->> 'pre_payment_credit_notes_amount')::bigint, 0);
    paid bigint := (data ->> 'amount_paid')::bigint;
    is_outside boolean := coalesce((data ->> 'paid_out_of_band')::boolean, false) or exists (
        select from billing.objects p
        where p.object = 'invoice_payment' and p.parent_id = invoice.id and p.data #>> '{payment,type}' = 'payment_record' and p.data ->> 'status' = 'paid'
    );
begin
    if data ->> 'status' <> 'paid' then
        return;
    end if;
    perform billing.book(
        format('stripe:%s:paid', invoice.id), data ->> 'currency',
        jsonb_build_object(
            case when is_outside then 'elsewhere' else 'stripe' end, paid, 'applied', total - paid, 'tax', -tax, 'sales', -(total - tax)
        ),
        format('Invoice %s', coalesce(data ->> 'number', invoice.id)),
        coalesce(billing.moment(data #> '{status_transitions,paid_at}'), billing.moment(data -> 'created')), case when paid > 0 then 'payment' else 'journal' end
    );
end
$$;
comment on function billing.book_invoice(billing.objects) is
'Posts an invoice that was paid: what came, what a balance paid, what of it is tax.';

create function billing.book_refund(refund billing.objects) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    charge billing.objects;
    paid_by text;
    posted ledger.transactions;
begin
    select o.* into charge from billing.objects o where o.id = billing.id_of(refund.data -> 'charge');
    paid_by := coalesce(
        billing.invoice_of(charge.data),
        (select s.id from billing.objects s where s.object = 'checkout.session' and s.data ->> 'payment_intent' = billing.id_of(charge.data -> 'payment_intent') limit 1)
    );
    if refund.data ->> 'status' = 'succeeded' and paid_by is not null then
        perform billing.book(
            format('stripe:%s', refund.id), refund.data ->> 'currency',
            jsonb_build_object('stripe', -(refund.data ->> 'amount')::bigint, 'refunds', (refund.data ->> 'amount')::bigint),
            format('Refund of %s', paid_by), billing.moment(refund.data -> 'created'), 'refund', format('stripe:%s:paid', paid_by)
        );
    elsif refund.data ->> 'status' in ('failed', 'canceled') then
        -- The bank would not have it back.
        select t.* into posted from ledger.transactions t
        where t.workspace_id = ledger.operator_books() and t.idempotency_key = format('stripe:%s', refund.id);
        if found then
            perform ledger.reverse(posted.workspace_id, posted.id, 'the refund failed');
        end if;
    end if;
end
$$;
comment on function billing.book_refund(billing.objects) is
'Posts a refund that went through, once what it refunds is posted; undoes one that failed after all.';

create function billing.book_dispute(dispute billing.objects) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    -- Each movement of money is one of Stripe's balance transactions: withdrawn, and given back if it was won.
    select billing.book(
        format('stripe:%s', t.item ->> 'id'), t.item ->> 'currency',
        jsonb_build_object(
            'stripe', (t.item ->> 'net')::bigint, 'disputes', -(t.item ->> 'amount')::bigint, 'dispute_fees', (t.item ->> 'fee')::bigint
        ),
        format('Dispute %s', dispute.id), billing.moment(t.item -> 'created')
    )
    from jsonb_array_elements(
        case jsonb_typeof(dispute.data -> 'balance_transactions') when 'array' then dispute.data -> 'balance_transactions' else '[]' end
    ) as t (item)
$$;
comment on function billing.book_dispute(billing.objects) is 'Posts what a dispute moved.';

create function billing.book_balance(movement billing.objects) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    -- An invoice takes from the balance when it is finalised, and may be paid much later.
    select billing.book(
        format('stripe:%s', movement.id), movement.data ->> 'currency',
        jsonb_build_object(
            'customer_credit', (movement.data ->> 'amount')::bigint,
            case
                when movement.data ->> 'type' = 'credit_note' then 'credit_notes'
                when movement.data ->> 'type' like '%invoice%' then 'applied'
                else 'credits_granted'
            end, -(movement.data ->> 'amount')::bigint
        ),
        coalesce(movement.data ->> 'description', movement.data ->> 'type'), billing.moment(movement.data -> 'created')
    )
$$;
comment on function billing.book_balance(billing.objects) is 'Posts what a customer''s balance was given, lost, or paid of an invoice.';

create function billing.book_credit_note(note billing.objects) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    outside bigint := coalesce((note.data ->> 'out_of_band_amount')::bigint, 0);
    posted ledger.transactions;
begin
    -- Its other parts are a refund and a customer's balance, which are posted as such.
    if note.data ->> 'status' = 'issued' then
        perform billing.book(
            format('stripe:%s', note.id), note.data ->> 'currency', jsonb_build_object('elsewhere', -outside, 'credit_notes', outside),
            format('Credit note %s', coalesce(note.data ->> 'number', note.id)), billing.moment(note.data -> 'created')
        );
    else
        select t.* into posted from ledger.transactions t
        where t.workspace_id = ledger.operator_books() and t.idempotency_key = format('stripe:%s', note.id);
        if found then
            perform ledger.reverse(posted.workspace_id, posted.id, 'the credit note was voided');
        end if;
    end if;
end
$$;
comment on function billing.book_credit_note(billing.objects) is
'Posts what a credit note gave back outside of Stripe; undoes it when it is voided.';

create function billing.book_session(session billing.objects) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    -- A sale without an invoice.
    select billing.book(
        format('stripe:%s:paid', session.id), session.data ->> 'currency',
        jsonb_build_object(
            'stripe', (session.data ->> 'amount_total')::bigint, 'tax', -coalesce((session.data #>> '{total_details,amount_tax}')::bigint, 0),
            'sales', coalesce((session.data #>> '{total_details,amount_tax}')::bigint, 0) - (session.data ->> 'amount_total')::bigint
        ),
        'Checkout ' || session.id, billing.moment(session.data -> 'created'), 'payment'
    )
    where session.data ->> 'mode' = 'payment' and session.data ->> 'payment_status' = 'paid' and session.data ->> 'invoice' is null
$$;
comment on function billing.book_session(billing.objects) is 'Posts a checkout that was paid and has no invoice.';

create function billing.post_facts(learned billing.objects) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    invoice billing.objects;
begin
    if learned.is_deleted then
        return;
    end if;
    case learned.object
        when 'refund' then perform billing.book_refund(learned);
        when 'dispute' then perform billing.book_dispute(learned);
        when 'credit_note' then perform billing.book_credit_note(learned);
        when 'customer_balance_transaction' then perform billing.book_balance(learned);
        when 'checkout.session' then perform billing.book_session(learned);
        else
            if learned.object = 'invoice' then
                invoice := learned;
            else
                select o.* into invoice from billing.objects o
                where o.id = case learned.object when 'invoice_payment' then learned.parent_id else billing.invoice_of(learned.data) end;
            end if;
            if invoice.id is not null then
                perform billing.book_invoice(invoice);
                -- Refunds that came before what they refund.
                perform billing.book_refund(r)
                from billing.charges_of(invoice) c join billing.objects r on r.parent_id = c.id and r.object = 'refund';
            end if;
    end case;
end
$$;
comment on function billing.post_facts(billing.objects) is
'Posts what an object says of money, once, and what waited for it.';

create function billing.post_missing(at_most bigint default 10000) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    missed billing.objects;
    posted bigint := 0::bigint;
begin
    perform billing.lock_learning();
    for missed in
        select o.* from billing.objects o
        where
            not o.is_deleted
            and (
                (o.object = 'invoice' and o.data ->> 'status' = 'paid' and o.data ->> 'total' <> '0')
                or (o.object = 'refund' and o.data ->> 'status' = 'succeeded')
                or (o.object = 'customer_balance_transaction' and o.data ->> 'amount' <> '0')
            )
            and not exists (
                select from ledger.transactions t
                where t.workspace_id = ledger.operator_books()
                and t.idempotency_key = 'stripe:' || o.id || case o.object when 'invoice' then ':paid' else '' end
            )
        order by o.object, o.id
        limit post_missing.at_most
    loop
        begin
            perform billing.post_facts(missed);
            posted := posted + 1;
        exception
            when others then raise warning '% was not posted: %', missed.id, sqlerrm;
        end;
    end loop;
    return posted;
end
$$;
comment on function billing.post_missing(bigint) is
'Posts what should be in the books and is not. Returns how many were looked at again. Run daily.';

create view billing.books_check with (security_invoker = true) as
select
    s.currency,
    s.fact,
    s.stripe_amount,
    coalesce(b.amount, 0)::bigint as books_amount,
    (s.stripe_amount - coalesce(b.amount, 0))::bigint as difference
from (
    select
        upper(o.data ->> 'currency') as currency,
        'paid'::text as fact,
        sum((o.data ->> 'amount_paid')::bigint) as stripe_amount
    from billing.objects as o
    where o.object = 'invoice' and o.data ->> 'status' = 'paid' and not o.is_deleted
    group by 1
    union all
    select upper(o.data ->> 'currency'), 'refunded', sum((o.data ->> 'amount')::bigint)
    from billing.objects as o
    where o.object = 'refund' and o.data ->> 'status' = 'succeeded'
    group by 1
    union all
    select upper(t.item ->> 'currency'), 'disputed', -sum((t.item ->> 'amount')::bigint)
    from billing.objects as o
    cross join lateral jsonb_array_elements(o.data -> 'balance_transactions') as t (item)
    where o.object = 'dispute'
    group by 1
) as s
left join lateral (
    select sum(case s.fact when 'paid' then greatest(e.amount, 0) else e.amount end) as amount
    from ledger.accounts as a
    inner join ledger.entries as e on a.workspace_id = e.workspace_id and a.id = e.account_id
    inner join ledger.transactions as x on e.workspace_id = x.workspace_id and e.transaction_id = x.id
    where
        a.workspace_id = ledger.operator_books()
        and case s.fact
            when
                'paid'
                then
                    a.code in ('stripe:' || s.currency, 'elsewhere:' || s.currency)
                    and x.idempotency_key like 'stripe:in%:paid'
            when 'refunded' then a.code = 'refunds:' || s.currency
            else a.code = 'disputes:' || s.currency
        end
) as b on true;
comment on view billing.books_check is 'What Stripe''s objects add up to, beside what the operator''s books say.';
comment on column billing.books_check.currency is 'ISO 4217.';
comment on column billing.books_check.fact is 'paid, refunded or disputed.';
comment on column billing.books_check.stripe_amount is 'What Stripe''s objects say, in minor units.';
comment on column billing.books_check.books_amount is 'What the books say.';
comment on column billing.books_check.difference is 'What is missing in the books.';

-- Revenue ------------------------------------------------------------------------------------

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

-- Credits ------------------------------------------------------------------------------------

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
cross join lateral (
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
