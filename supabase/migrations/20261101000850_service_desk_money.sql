-- Why: the service desk's money: charges, payments, refunds and write-offs on tickets, all through ledger.post(), and
--      the views that read what was posted.
-- Locks: adds a trigger to tickets (briefly).
-- Workers: need not stop.

create function ledger.ticket_for(workspace_id uuid, ticket_id uuid) returns public.tickets
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    ticket public.tickets;
begin
    select t.* into ticket from public.tickets t
    where
        t.workspace_id = ticket_for.workspace_id and t.id = ticket_for.ticket_id and t.deleted_at is null
        and t.workspace_id in (select authz.workspaces_with('tickets.read'))
    -- Held, so that neither its currency changes meanwhile nor the ticket goes.
    for share;
    if not found then
        perform ops.raise_http(404, 'ticket_not_found', 'There is no such ticket.');
    end if;
    return ticket;
end
$$;
comment on function ledger.ticket_for(uuid, uuid) is 'A ticket that the caller may see; answers 404 for any other.';

create function ledger.require_amount(amount numeric) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if require_amount.amount is null or not (
        require_amount.amount between 1 and 999999999999999 and require_amount.amount = trunc(require_amount.amount)
    ) then
        perform ops.raise_http(
            400, 'amount_invalid', 'This is no amount.', null,
            'Amounts are whole minor units (cents), from 1 to 999999999999999.'
        );
    end if;
end
$$;
comment on function ledger.require_amount(numeric) is
'Answers 400 for what is no whole, positive number of minor units.';

create function ledger.post_for_ticket(
    ticket public.tickets, kind text, amount numeric, debit text, credit text, idempotency_key text, description text,
    method text default null, refunds_id uuid default null
) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    code text;
begin
    perform ledger.require_amount(post_for_ticket.amount);
    perform ledger.require_key(post_for_ticket.idempotency_key);
    if length(post_for_ticket.description) > 1000 then
        perform ops.raise_http(400, 'description_too_long', 'This is too long.', null, 'Use at most 1,000 characters.');
    end if;
    -- In one order, receivables first, so that two first payments cannot wait for each other.
    foreach code in array array['receivable', 'sales', 'write_offs', 'cash', 'card', 'transfer', 'other'] loop
        continue when code not in (post_for_ticket.debit, post_for_ticket.credit);
        perform ledger.open_account(
            ticket.workspace_id,
            ledger.desk_account(code, ticket),
            case code when 'sales' then 'income' when 'write_offs' then 'expense' else 'asset' end,
            ticket.currency,
            case code when 'receivable' then format('Ticket %s', ticket.number) else '' end,
            false,
            case code when 'receivable' then 'tickets' end,
            case code when 'receivable' then ticket.id end
        );
    end loop;
    return ledger.post(
        ticket.workspace_id,
        post_for_ticket.idempotency_key,
        jsonb_build_array(
            jsonb_build_object('account', ledger.desk_account(post_for_ticket.debit, ticket), 'debit', post_for_ticket.amount::bigint),
            jsonb_build_object('account', ledger.desk_account(post_for_ticket.credit, ticket), 'credit', post_for_ticket.amount::bigint)
        ),
        coalesce(post_for_ticket.description, ''),
        null,
        post_for_ticket.kind,
        'tickets',
        ticket.id,
        post_for_ticket.method,
        post_for_ticket.refunds_id
    );
end
$$;
comment on function ledger.post_for_ticket(public.tickets, text, numeric, text, text, text, text, text, uuid) is
'Posts between two accounts of the service desk (receivable, sales, write_offs, or a method of payment).';

create function ledger.desk_account(name text, ticket public.tickets) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select case desk_account.name
        when 'receivable' then 'receivable:' || ticket.id
        else desk_account.name || ':' || ticket.currency
    end
$$;
comment on function ledger.desk_account(text, public.tickets) is 'The code of an account of the service desk.';

create function ledger.record_charge(workspace_id uuid, ticket_id uuid, amount numeric, key text, description text)
returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform authz.require(record_charge.workspace_id, 'ledger.post');
    return ledger.post_for_ticket(
        ledger.ticket_for(record_charge.workspace_id, record_charge.ticket_id), 'charge', record_charge.amount,
        'receivable', 'sales', record_charge.key, record_charge.description
    );
end
$$;
comment on function ledger.record_charge(uuid, uuid, numeric, text, text) is 'Behind public.record_charge().';

create function ledger.record_payment(workspace_id uuid, ticket_id uuid, amount numeric, method text, key text)
returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform authz.require(record_payment.workspace_id, 'ledger.post');
    if record_payment.method is null or record_payment.method not in ('cash', 'card', 'transfer', 'other') then
        perform ops.raise_http(
            400, 'method_unknown', 'There is no such method of payment.', null, 'Use cash, card, transfer or other.'
        );
    end if;
    return ledger.post_for_ticket(
        ledger.ticket_for(record_payment.workspace_id, record_payment.ticket_id), 'payment', record_payment.amount,
        record_payment.method, 'receivable', record_payment.key, '', record_payment.method
    );
end
$$;
comment on function ledger.record_payment(uuid, uuid, numeric, text, text) is 'Behind public.record_payment().';

create function ledger.record_refund(workspace_id uuid, payment_id uuid, amount numeric, reason text, key text)
returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    payment ledger.transactions;
begin
    perform authz.require(record_refund.workspace_id, 'ledger.refund');
    select t.* into payment from ledger.transactions t
    where t.workspace_id = record_refund.workspace_id and t.id = record_refund.payment_id;
    if not found or payment.subject_id is null then
        perform ops.raise_http(404, 'payment_not_found', 'There is no such payment.');
    end if;
    if payment.kind <> 'payment' then
        perform ops.raise_http(
            409, 'not_a_payment', format('This is a %s.', payment.kind), null, 'Only payments are refunded.'
        );
    end if;
    return ledger.post_for_ticket(
        ledger.ticket_for(payment.workspace_id, payment.subject_id), 'refund', record_refund.amount,
        'receivable', payment.method, record_refund.key, record_refund.reason, payment.method, payment.id
    );
end
$$;
comment on function ledger.record_refund(uuid, uuid, numeric, text, text) is 'Behind public.record_refund().';

create function ledger.write_off(workspace_id uuid, ticket_id uuid, amount numeric, reason text, key text) returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    ticket public.tickets;
    posted uuid;
    pending bigint;
    is_replay boolean;
begin
    perform authz.require(write_off.workspace_id, 'ledger.refund');
    ticket := ledger.ticket_for(write_off.workspace_id, write_off.ticket_id);
    -- Held first, so that a replay that waited for the original knows that it is one.
    perform from ledger.balances b
    join ledger.accounts a on a.workspace_id = b.workspace_id and a.id = b.account_id
    where a.workspace_id = ticket.workspace_id and a.code = ledger.desk_account('receivable', ticket)
    for no key update of b;
    is_replay := exists (
        select from ledger.transactions t
        where t.workspace_id = ticket.workspace_id and t.idempotency_key = write_off.key
    );
    posted := ledger.post_for_ticket(
        ticket, 'write_off', write_off.amount, 'write_offs', 'receivable', write_off.key, write_off.reason
    );
    -- Its balance is held since it was posted to. A replay changes nothing, so it may find less than it left.
    select b.balance into strict pending
    from ledger.accounts a
    join ledger.balances b on b.workspace_id = a.workspace_id and b.account_id = a.id
    where a.workspace_id = ticket.workspace_id and a.code = ledger.desk_account('receivable', ticket);
    if pending < 0 and not is_replay then
        perform ops.raise_http(
            409, 'write_off_exceeds_pending', 'More would be written off than is owed.',
            jsonb_build_object('pending', pending + write_off.amount),
            format('At most %s can be written off.', greatest(pending + write_off.amount, 0))
        );
    end if;
    return posted;
end
$$;
comment on function ledger.write_off(uuid, uuid, numeric, text, text) is 'Behind public.write_off().';

create function tenancy.keep_currency() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from ledger.currencies c where c.code = new.currency) then
        perform ops.raise_http(
            400, 'currency_unknown', format('There is no currency %L.', left(new.currency, 10)), null,
            'Use a code of ISO 4217, such as EUR.'
        );
    end if;
    if tg_op = 'UPDATE' and new.currency is distinct from old.currency and exists (
        select from ledger.accounts a where a.workspace_id = new.workspace_id and a.code = ledger.desk_account('receivable', old)
    ) then
        perform ops.raise_http(
            409, 'currency_in_use', 'There is money on this ticket already.', null, 'Make a new ticket for the other currency.'
        );
    end if;
    return new;
end
$$;
comment on function tenancy.keep_currency() is
'Trigger: a ticket has a known currency, and keeps it once there is money on it.';

create trigger tickets_keep_currency before insert or update of currency on public.tickets
for each row execute function tenancy.keep_currency();

-- What clients call --------------------------------------------------------------------------

create function public.record_charge(
    workspace_id uuid, ticket_id uuid, amount numeric, key text, description text default ''
) returns uuid
language sql
set search_path = pg_catalog, pg_temp
as $$ select ledger.record_charge($1, $2, $3, $4, $5) $$;
comment on function public.record_charge(uuid, uuid, numeric, text, text) is
'Charges a ticket: an amount in minor units of its currency. The key makes trying again safe. Returns the transaction.';

create function public.record_payment(workspace_id uuid, ticket_id uuid, amount numeric, method text, key text)
returns uuid
language sql
set search_path = pg_catalog, pg_temp
as $$ select ledger.record_payment($1, $2, $3, $4, $5) $$;
comment on function public.record_payment(uuid, uuid, numeric, text, text) is
'Records a payment for a ticket, by cash, card, transfer or other. The key makes trying again safe.';

create function public.record_refund(workspace_id uuid, payment_id uuid, amount numeric, reason text, key text)
returns uuid
language sql
set search_path = pg_catalog, pg_temp
as $$ select ledger.record_refund($1, $2, $3, $4, $5) $$;
comment on function public.record_refund(uuid, uuid, numeric, text, text) is
'Refunds a payment, in part or whole, the way it was paid; never beyond what was paid.';

create function public.write_off(workspace_id uuid, ticket_id uuid, amount numeric, reason text, key text) returns uuid
language sql
set search_path = pg_catalog, pg_temp
as $$ select ledger.write_off($1, $2, $3, $4, $5) $$;
comment on function public.write_off(uuid, uuid, numeric, text, text) is
'Writes off what is still owed on a ticket, or a part of it.';

-- What clients read --------------------------------------------------------------------------

create view public.ticket_balances with (security_invoker = true, security_barrier = true) as
select
    t.workspace_id,
    t.id as ticket_id,
    t.number,
    t.customer_id,
    t.currency,
    t.estimate,
    coalesce(m.charged, 0)::bigint as charged,
    coalesce(m.paid, 0)::bigint as paid,
    coalesce(m.refunded, 0)::bigint as refunded,
    coalesce(m.written_off, 0)::bigint as written_off,
    coalesce(m.pending, 0)::bigint as pending
from public.tickets as t
left join lateral (
    select
        sum(e.amount) filter (where coalesce(o.kind, x.kind) = 'charge') as charged,
        -sum(e.amount) filter (where coalesce(o.kind, x.kind) = 'payment') as paid,
        sum(e.amount) filter (where coalesce(o.kind, x.kind) = 'refund') as refunded,
        -sum(e.amount) filter (where coalesce(o.kind, x.kind) = 'write_off') as written_off,
        sum(e.amount) as pending
    from ledger.accounts as a
    inner join ledger.entries as e on a.workspace_id = e.workspace_id and a.id = e.account_id
    inner join ledger.transactions as x on e.workspace_id = x.workspace_id and e.transaction_id = x.id
    left join ledger.transactions as o on x.workspace_id = o.workspace_id and x.reverses_id = o.id
    where a.workspace_id = t.workspace_id and a.subject_id = t.id
) as m on true
where t.workspace_id = any (array(select authz.workspaces_with('ledger.read')));
comment on view public.ticket_balances is
'What each ticket was charged, what was paid and refunded, and what is still owed.';
comment on column public.ticket_balances.workspace_id is 'The tenant.';
comment on column public.ticket_balances.ticket_id is 'The ticket.';
comment on column public.ticket_balances.number is 'Its number.';
comment on column public.ticket_balances.customer_id is 'Whose it is.';
comment on column public.ticket_balances.currency is 'In what all amounts are, in minor units.';
comment on column public.ticket_balances.estimate is 'What it may cost.';
comment on column public.ticket_balances.charged is 'What was charged.';
comment on column public.ticket_balances.paid is 'What was paid.';
comment on column public.ticket_balances.refunded is 'What was paid back.';
comment on column public.ticket_balances.written_off is 'What was given up.';
comment on column public.ticket_balances.pending is
'What is owed: charged and refunded, less paid and written off; negative is a credit.';

create view public.customer_balances with (security_invoker = true, security_barrier = true) as
select
    b.workspace_id,
    b.customer_id,
    b.currency,
    count(*) as tickets,
    sum(b.charged) as charged,
    sum(b.paid) as paid,
    sum(b.refunded) as refunded,
    sum(b.written_off) as written_off,
    sum(b.pending) as pending
from public.ticket_balances as b
group by b.workspace_id, b.customer_id, b.currency;
comment on view public.customer_balances is 'The same for each customer, by currency.';
comment on column public.customer_balances.workspace_id is 'The tenant.';
comment on column public.customer_balances.customer_id is 'The customer.';
comment on column public.customer_balances.currency is 'In what all amounts are, in minor units.';
comment on column public.customer_balances.tickets is 'How many tickets they have.';
comment on column public.customer_balances.charged is 'What was charged.';
comment on column public.customer_balances.paid is 'What was paid.';
comment on column public.customer_balances.refunded is 'What was paid back.';
comment on column public.customer_balances.written_off is 'What was given up.';
comment on column public.customer_balances.pending is 'What they owe; negative is a credit.';

create view public.account_statement with (security_invoker = true) as
select
    e.workspace_id,
    e.account_id,
    a.code,
    a.currency,
    e.number,
    e.transaction_id,
    x.occurred_on,
    x.posted_at,
    x.kind,
    x.description,
    case when e.amount > 0 then e.amount end as debit,
    case when e.amount < 0 then -e.amount end as credit,
    e.balance
from ledger.entries as e
inner join ledger.accounts as a on e.workspace_id = a.workspace_id and e.account_id = a.id
inner join ledger.transactions as x on e.workspace_id = x.workspace_id and e.transaction_id = x.id;
comment on view public.account_statement is
'What happened on each account. Name workspace_id and account_id, order by number: any page is as fast as the first.';
comment on column public.account_statement.workspace_id is 'The tenant.';
comment on column public.account_statement.account_id is 'The account.';
comment on column public.account_statement.code is 'Its code.';
comment on column public.account_statement.currency is 'In what all amounts are, in minor units.';
comment on column public.account_statement.number is 'The line, from 1.';
comment on column public.account_statement.transaction_id is 'The transaction.';
comment on column public.account_statement.occurred_on is 'The day it belongs to.';
comment on column public.account_statement.posted_at is 'When it was posted.';
comment on column public.account_statement.kind is 'What kind of transaction.';
comment on column public.account_statement.description is 'What it was for.';
comment on column public.account_statement.debit is 'The amount, if it is a debit.';
comment on column public.account_statement.credit is 'The amount, if it is a credit.';
comment on column public.account_statement.balance is 'The balance after it: debits minus credits.';

create view public.trial_balance with (security_invoker = true) as
select
    a.workspace_id,
    a.id as account_id,
    a.code,
    a.name,
    a.kind,
    a.currency,
    greatest(b.balance, 0) as debit,
    greatest(-b.balance, 0) as credit,
    b.balance
from ledger.accounts as a
inner join ledger.balances as b on a.workspace_id = b.workspace_id and a.id = b.account_id;
comment on view public.trial_balance is 'The balance of every account; debits and credits are equal in every currency.';
comment on column public.trial_balance.workspace_id is 'The tenant.';
comment on column public.trial_balance.account_id is 'The account.';
comment on column public.trial_balance.code is 'Its code.';
comment on column public.trial_balance.name is 'Its name.';
comment on column public.trial_balance.kind is 'asset, liability, equity, income or expense.';
comment on column public.trial_balance.currency is 'In what all amounts are, in minor units.';
comment on column public.trial_balance.debit is 'The balance, if it is on the debit side.';
comment on column public.trial_balance.credit is 'The balance, if it is on the credit side.';
comment on column public.trial_balance.balance is 'Debits minus credits.';

create view public.cash_report with (security_invoker = true) as
select
    x.workspace_id,
    x.occurred_on,
    x.method,
    a.currency,
    coalesce(sum(e.amount) filter (where coalesce(o.kind, x.kind) = 'payment'), 0) as received,
    coalesce(-sum(e.amount) filter (where coalesce(o.kind, x.kind) = 'refund'), 0) as refunded,
    sum(e.amount) as net,
    count(*) as transactions
from ledger.transactions as x
left join ledger.transactions as o on x.workspace_id = o.workspace_id and x.reverses_id = o.id
inner join ledger.entries as e on x.workspace_id = e.workspace_id and x.id = e.transaction_id
inner join ledger.accounts as a on e.workspace_id = a.workspace_id and e.account_id = a.id
where x.method is not null and a.subject_id is null
group by x.workspace_id, x.occurred_on, x.method, a.currency;
comment on view public.cash_report is 'What came in and went out, by day and method of payment.';
comment on column public.cash_report.workspace_id is 'The tenant.';
comment on column public.cash_report.occurred_on is 'The day.';
comment on column public.cash_report.method is 'cash, card, transfer or other.';
comment on column public.cash_report.currency is 'In what all amounts are, in minor units.';
comment on column public.cash_report.received is 'Payments, less those reversed.';
comment on column public.cash_report.refunded is 'Refunds, less those reversed.';
comment on column public.cash_report.net is 'What is left of it.';
comment on column public.cash_report.transactions is 'How many.';

create trigger ticket_balances_is_read_only instead of insert or update or delete on public.ticket_balances
for each row execute function ops.refuse_change();

create trigger customer_balances_is_read_only instead of insert or update or delete on public.customer_balances
for each row execute function ops.refuse_change();

create trigger account_statement_is_read_only instead of insert or update or delete on public.account_statement
for each row execute function ops.refuse_change();

create trigger trial_balance_is_read_only instead of insert or update or delete on public.trial_balance
for each row execute function ops.refuse_change();

create trigger cash_report_is_read_only instead of insert or update or delete on public.cash_report
for each row execute function ops.refuse_change();
