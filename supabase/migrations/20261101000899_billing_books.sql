-- Why: money that came in by Stripe, or went back, is posted to the operator's own books once per fact.
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
comment on function billing.book_balance(billing.objects) is
'Posts what a customer''s balance was given, lost, or paid of an invoice.';

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
