-- Why: the one way to move money: post, reverse, close a period.
-- Locks: none on existing tables.
-- Workers: need not stop.

create function ledger.body_hash(transaction ledger.transactions, entries text) returns bytea
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return sha256(convert_to(
        jsonb_build_array(
            transaction.kind, transaction.description,
            case when transaction.is_dated then transaction.occurred_on - date '2000-01-01' end,
            transaction.subject, transaction.subject_id, transaction.method, transaction.refunds_id,
            transaction.reverses_id, body_hash.entries
        )::text, 'UTF8'
    ));
end
$$;
comment on function ledger.body_hash(ledger.transactions, text) is
'The hash of what a transaction says; `entries` is account:amount of each, by account.';

create function ledger.digest(transaction ledger.transactions) returns bytea
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    -- What it says is in body_hash. The rest is of a fixed form, but for the key, which comes last.
    return sha256(
        transaction.body_hash
        || convert_to(
            concat_ws(
                '|', transaction.workspace_id, transaction.id, transaction.occurred_on - date '2000-01-01',
                extract(epoch from transaction.posted_at), coalesce(transaction.posted_by::text, '-'),
                transaction.amount, transaction.idempotency_key
            ),
            'UTF8'
        )
    );
end
$$;
comment on function ledger.digest(ledger.transactions) is
'A hash over all of a transaction, as its audit record keeps it.';

create function ledger.refuse_entries(workspace_id uuid, entries jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    item jsonb;
    place bigint;
    amount jsonb;
    uneven record;
begin
    for item, place in
        select e.item, e.place from jsonb_array_elements(refuse_entries.entries) with ordinality as e (item, place)
    loop
        amount := coalesce(item -> 'debit', item -> 'credit');
        if jsonb_typeof(item) <> 'object' or (item ? 'debit') = (item ? 'credit') then
            perform ops.raise_http(
                400, 'entry_invalid', format('Entry %s has neither a debit nor a credit, or both.', place), null,
                'An entry is {"account": "cash:EUR", "debit": 1200} or {"account": …, "credit": …}.'
            );
        end if;
        if amount::text !~ '^[1-9][0-9]{0,14}$' then
            perform ops.raise_http(
                400, 'amount_invalid', format('The amount of entry %s is none.', place), null,
                'Amounts are whole minor units (cents), from 1 to 999999999999999.'
            );
        end if;
        if not exists (
            select from ledger.accounts a
            where a.workspace_id = refuse_entries.workspace_id and a.code = item ->> 'account'
        ) then
            perform ops.raise_http(
                404, 'account_not_found', format('There is no account %L.', left(item ->> 'account', 100)), null,
                'Open it first.'
            );
        end if;
    end loop;
    select a.currency, sum(coalesce((e.item ->> 'debit')::numeric, 0) - coalesce((e.item ->> 'credit')::numeric, 0)) as rest
    into uneven
    from jsonb_array_elements(refuse_entries.entries) as e (item)
    join ledger.accounts a on a.workspace_id = refuse_entries.workspace_id and a.code = e.item ->> 'account'
    group by a.currency
    having sum(coalesce((e.item ->> 'debit')::numeric, 0) - coalesce((e.item ->> 'credit')::numeric, 0)) <> 0
    order by 1
    limit 1;
    perform ops.raise_http(
        400, 'entries_unbalanced', format('The entries do not balance: %s %s.', uneven.rest, uneven.currency),
        jsonb_build_object('currency', uneven.currency, 'difference', uneven.rest),
        'Debits and credits must be equal in every currency.'
    );
end
$$;
comment on function ledger.refuse_entries(uuid, jsonb) is 'Says what is wrong with entries that cannot be posted.';

create function ledger.lock_period(workspace_id uuid, occurred_on date) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    closed_until date;
begin
    -- Shared by all who post: only a close waits for them, and they for it. An older snapshot would not see what it
    -- closed; locking the row makes that fail instead.
    perform pg_advisory_xact_lock_shared(hashtextextended(lock_period.workspace_id::text, 8415));
    if current_setting('transaction_isolation') = 'read committed' then
        select p.closed_until into closed_until from ledger.periods p where p.workspace_id = lock_period.workspace_id;
    else
        select p.closed_until into closed_until from ledger.periods p where p.workspace_id = lock_period.workspace_id
        for share;
    end if;
    if lock_period.occurred_on <= closed_until then
        perform ops.raise_http(
            409, 'period_closed', format('The books are closed until %s.', closed_until),
            jsonb_build_object('closed_until', closed_until), 'Post it with a later day.'
        );
    end if;
end
$$;
comment on function ledger.lock_period(uuid, date) is
'Holds off a close until commit; answers 409 for a day that is closed already.';

create function ledger.count_refund(refund ledger.transactions) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    payment ledger.transactions;
    state ledger.payment_states;
begin
    select t.* into payment from ledger.transactions t
    where t.workspace_id = refund.workspace_id and t.id = refund.refunds_id;
    if not found then
        perform ops.raise_http(404, 'payment_not_found', 'There is no such payment.');
    end if;
    if payment.kind <> 'payment' then
        perform ops.raise_http(
            409, 'not_a_payment', format('This is a %s.', payment.kind), null, 'Only payments are refunded.'
        );
    end if;
    -- Changing the row makes refunds and reversals of one payment meet; also under an older snapshot.
    insert into ledger.payment_states as p (workspace_id, payment_id, refunded)
    values (payment.workspace_id, payment.id, refund.amount)
    on conflict on constraint payment_states_pkey do update set refunded = p.refunded + excluded.refunded
    returning p.* into state;
    if state.is_reversed then
        perform ops.raise_http(409, 'already_reversed', 'This payment was reversed: there is nothing to refund.');
    end if;
    if state.refunded > payment.amount then
        perform ops.raise_http(
            409, 'refund_exceeds_payment', 'More would be refunded than was paid.',
            jsonb_build_object('paid', payment.amount, 'refunded', state.refunded - refund.amount),
            format('At most %s can be refunded.', payment.amount - state.refunded + refund.amount)
        );
    end if;
end
$$;
comment on function ledger.count_refund(ledger.transactions) is
'Counts a refund against its payment; answers 404 or 409 for none, for a reversed one, and beyond what was paid.';

-- One plan for everybody, by the keys: a plan from when the tables were small would read all of them.
-- The amounts come sorted by account: balances are then changed in one order by everybody, so that rings of
-- transfers cannot deadlock.
create function ledger.write_transaction(
    transaction ledger.transactions, account_ids uuid[], amounts bigint[], refuse_overdraft boolean
) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    known ledger.transactions;
    said text := '';
    numbers bigint[];
    balances bigint[];
    changed ledger.balances;
    overdrawn text;
begin
    for i in 1 .. cardinality(account_ids) loop
        said := said || account_ids[i] || ':' || amounts[i] || ',';
    end loop;
    transaction.body_hash := ledger.body_hash(transaction, said);
    transaction.posted_at := ops.now();
    transaction.posted_by := authz.user_id();
    insert into ledger.transactions values (transaction.*)
    on conflict on constraint transactions_once_per_key do nothing;
    if not found then
        select t.* into strict known from ledger.transactions t
        where t.workspace_id = transaction.workspace_id and t.idempotency_key = transaction.idempotency_key;
        if known.body_hash <> transaction.body_hash then
            perform ops.raise_http(
                409, 'idempotency_key_reused', 'This key was used for something else.',
                jsonb_build_object('transaction_id', known.id), 'Use a new key for what is new.'
            );
        end if;
        return known.id;
    end if;
    perform ledger.lock_period(transaction.workspace_id, transaction.occurred_on);
    if transaction.kind = 'refund' then
        perform ledger.count_refund(transaction);
    end if;

    for i in 1 .. cardinality(account_ids) loop
        update ledger.balances b
        set balance = b.balance + amounts[i], entry_count = b.entry_count + 1
        where b.workspace_id = transaction.workspace_id and b.account_id = account_ids[i]
        returning b.* into strict changed;
        numbers[i] := changed.entry_count;
        balances[i] := changed.balance;
    end loop;
    insert into ledger.entries (workspace_id, account_id, number, transaction_id, amount, balance)
    select transaction.workspace_id, e.account_id, e.number, transaction.id, e.amount, e.balance
    from unnest(account_ids, numbers, amounts, balances) as e (account_id, number, amount, balance);

    if refuse_overdraft then
        select a.code into overdrawn
        from ledger.accounts a
        join ledger.balances b on b.workspace_id = a.workspace_id and b.account_id = a.id
        where
            a.workspace_id = transaction.workspace_id
            and a.id = any (account_ids)
            and a.refuses_overdraft
            and case when a.kind in ('asset', 'expense') then b.balance < 0 else b.balance > 0 end
        order by a.code
        limit 1;
        if found then
            perform ops.raise_http(
                409, 'overdraft_refused', format('The account %s does not hold so much.', overdrawn),
                jsonb_build_object('account', overdrawn)
            );
        end if;
    end if;
    perform audit.write(
        'ledger.' || case when transaction.kind = 'reversal' then 'reverse' else 'post' end,
        transaction.workspace_id, 'ledger_transactions', transaction.id::text, null,
        jsonb_build_object('kind', transaction.kind, 'amount', transaction.amount), ledger.digest(transaction)
    );
    return transaction.id;
end
$$;
comment on function ledger.write_transaction(ledger.transactions, uuid[], bigint[], boolean) is
'Writes a balanced transaction and its entries, once per key. Behind post() and reverse().';

create function ledger.post(
    workspace_id uuid,
    idempotency_key text,
    entries jsonb,
    description text default '',
    occurred_on date default null,
    kind text default 'journal',
    subject text default null,
    subject_id uuid default null,
    method text default null,
    refunds_id uuid default null
) returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    transaction ledger.transactions;
    account_ids uuid[];
    amounts bigint[];
    is_one_currency boolean;
    rest numeric;
    is_sound boolean;
    refuse_overdraft boolean;
begin
    perform ledger.require_key(post.idempotency_key);
    if post.entries is null or jsonb_typeof(post.entries) <> 'array'
        or jsonb_array_length(post.entries) not between 2 and 1000
    then
        perform ops.raise_http(
            400, 'entry_invalid', 'A transaction has from 2 to 1,000 entries.', null,
            'entries is [{"account": "cash:EUR", "debit": 1200}, {"account": "sales:EUR", "credit": 1200}].'
        );
    end if;
    if coalesce(post.kind, '') not in ('journal', 'charge', 'payment', 'refund', 'write_off')
        or (post.kind = 'refund') <> (post.refunds_id is not null) or length(post.description) > 1000
    then
        perform ops.raise_http(
            400, 'entry_invalid', 'There is no such kind of transaction.', null,
            'Use journal, charge, payment, write_off, or refund with the payment that it refunds; a description has at '
            'most 1,000 characters.'
        );
    end if;
    if post.occurred_on not between date '1900-01-01' and (ops.now() at time zone 'UTC')::date + 366 then
        perform ops.raise_http(
            400, 'period_invalid', 'This is no day to post to.', null, 'Use a day from 1900 to a year from now.'
        );
    end if;
    select
        array_agg(e.id), array_agg(e.amount), bool_and(e.amount is not null and e.id is not null),
        (sum(e.amount) filter (where e.amount > 0))::bigint, sum(e.amount), min(e.currency) = max(e.currency),
        bool_or(e.refuses_overdraft)
    into account_ids, amounts, is_sound, transaction.amount, rest, is_one_currency, refuse_overdraft
    from (
        select
            a.id, a.currency, a.refuses_overdraft,
            -- Whole and positive; a string, a fraction or a sign is none.
            case
                when i.item ? 'debit' and not i.item ? 'credit' and (i.item -> 'debit')::text ~ '^[1-9][0-9]{0,14}$'
                    then (i.item ->> 'debit')::bigint
                when i.item ? 'credit' and not i.item ? 'debit' and (i.item -> 'credit')::text ~ '^[1-9][0-9]{0,14}$'
                    then -(i.item ->> 'credit')::bigint
            end as amount
        from jsonb_array_elements(post.entries) with ordinality as i (item, place)
        left join ledger.accounts a on a.workspace_id = post.workspace_id and a.code = i.item ->> 'account'
        order by a.id, i.place
    ) as e;
    if is_sound and not is_one_currency then
        -- Not the sum over all, but each: the largest that is left of any.
        select max(abs(t.total)) into rest
        from (
            select sum(e.amount) as total
            from unnest(account_ids, amounts) as e (account_id, amount)
            join ledger.accounts a on a.workspace_id = post.workspace_id and a.id = e.account_id
            group by a.currency
        ) as t;
    end if;
    if not is_sound or rest <> 0 then
        perform ledger.refuse_entries(post.workspace_id, post.entries);
    end if;
    transaction.workspace_id := post.workspace_id;
    transaction.id := gen_random_uuid();
    transaction.idempotency_key := post.idempotency_key;
    transaction.kind := post.kind;
    transaction.description := coalesce(post.description, '');
    transaction.is_dated := post.occurred_on is not null;
    transaction.occurred_on := coalesce(post.occurred_on, (ops.now() at time zone 'UTC')::date);
    transaction.subject := post.subject;
    transaction.subject_id := post.subject_id;
    transaction.method := post.method;
    transaction.refunds_id := post.refunds_id;
    return ledger.write_transaction(transaction, account_ids, amounts, refuse_overdraft);
end
$$;
comment on function ledger.post(uuid, text, jsonb, text, date, text, text, uuid, text, uuid) is
'Posts a transaction: entries are [{"account": code, "debit" or "credit": minor units}], equal in every currency.
Returns its id; the same key with the same body returns the same one, with another body answers 409.';

create function ledger.require_key(idempotency_key text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(length(require_key.idempotency_key) not between 1 and 200, true) then
        perform ops.raise_http(
            400, 'idempotency_key_invalid', 'There is no idempotency key, or it is too long.', null,
            'Make one for what happened, such as a UUID, and send it again when you try again: 1 to 200 characters.'
        );
    end if;
    if require_key.idempotency_key like 'reverse:%' then
        perform ops.raise_http(
            400, 'idempotency_key_invalid', 'Keys that begin with reverse: are for reversals.', null, 'Use another.'
        );
    end if;
end
$$;
comment on function ledger.require_key(text) is 'Answers 400 for no idempotency key.';

create function ledger.reverse(workspace_id uuid, transaction_id uuid, reason text, idempotency_key text default null)
returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    original ledger.transactions;
    transaction ledger.transactions;
    state ledger.payment_states;
    account_ids uuid[];
    amounts bigint[];
    earlier ledger.transactions;
begin
    select t.* into original from ledger.transactions t
    where t.workspace_id = reverse.workspace_id and t.id = reverse.transaction_id;
    if not found then
        perform ops.raise_http(404, 'transaction_not_found', 'There is no such transaction.');
    end if;
    if original.kind = 'reversal' then
        perform ops.raise_http(
            409, 'not_reversible', 'A reversal cannot be reversed.', null, 'Post the transaction anew.'
        );
    end if;
    if original.kind in ('payment', 'refund') then
        -- Changing the row makes refunds and reversals of one payment meet.
        insert into ledger.payment_states as p (workspace_id, payment_id)
        values (original.workspace_id, coalesce(original.refunds_id, original.id))
        on conflict on constraint payment_states_pkey do update set refunded = p.refunded
        returning p.* into state;
    end if;
    select t.* into earlier from ledger.transactions t
    where t.workspace_id = original.workspace_id and t.reverses_id = original.id;
    if found then
        if earlier.description = coalesce(reverse.reason, '')
            and earlier.idempotency_key = coalesce(reverse.idempotency_key, 'reverse:' || original.id)
        then
            return earlier.id;
        end if;
        perform ops.raise_http(
            409, 'already_reversed', 'This was reversed already.', jsonb_build_object('transaction_id', earlier.id)
        );
    end if;
    if original.kind = 'payment' then
        if state.refunded > 0 then
            perform ops.raise_http(
                409, 'payment_refunded', 'Some of this payment was refunded.', null, 'Reverse its refunds first.'
            );
        end if;
        update ledger.payment_states p set is_reversed = true
        where p.workspace_id = state.workspace_id and p.payment_id = state.payment_id;
    elsif original.kind = 'refund' then
        update ledger.payment_states p set refunded = p.refunded - original.amount
        where p.workspace_id = state.workspace_id and p.payment_id = state.payment_id;
    end if;
    select array_agg(e.account_id order by e.account_id, e.number), array_agg(-e.amount order by e.account_id, e.number)
    into account_ids, amounts
    from ledger.entries e
    where e.workspace_id = original.workspace_id and e.transaction_id = original.id;
    transaction.workspace_id := original.workspace_id;
    transaction.id := gen_random_uuid();
    transaction.idempotency_key := coalesce(reverse.idempotency_key, 'reverse:' || original.id);
    transaction.kind := 'reversal';
    transaction.description := coalesce(reverse.reason, '');
    transaction.is_dated := false;
    transaction.occurred_on := (ops.now() at time zone 'UTC')::date;
    transaction.amount := original.amount;
    transaction.subject := original.subject;
    transaction.subject_id := original.subject_id;
    transaction.method := original.method;
    transaction.reverses_id := original.id;
    return ledger.write_transaction(transaction, account_ids, amounts, true);
end
$$;
comment on function ledger.reverse(uuid, uuid, text, text) is
'Undoes a transaction by its opposite, today. Returns the id of the reversal; once per transaction.';

create function ledger.close_period(workspace_id uuid, until date) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    before date;
begin
    if close_period.until is null or not isfinite(close_period.until)
        or close_period.until >= (ops.now() at time zone 'UTC')::date
    then
        perform ops.raise_http(
            400, 'period_invalid', 'Books are closed until a day that is past.', null, 'Use a day like 2026-10-31.'
        );
    end if;
    if close_period.workspace_id <> ledger.operator_books()
        and not exists (select from public.workspaces w where w.id = close_period.workspace_id)
    then
        perform ops.raise_http(404, 'workspace_not_found', 'There is no such workspace.');
    end if;
    perform pg_advisory_xact_lock(hashtextextended(close_period.workspace_id::text, 8415));
    insert into ledger.periods (workspace_id) values (close_period.workspace_id) on conflict do nothing;
    select p.closed_until into strict before from ledger.periods p
    where p.workspace_id = close_period.workspace_id for update;
    if before > close_period.until then
        perform ops.raise_http(
            409, 'period_closed', format('The books are closed until %s already.', before),
            jsonb_build_object('closed_until', before), 'What is closed stays closed.'
        );
    end if;
    update ledger.periods p set closed_until = close_period.until where p.workspace_id = close_period.workspace_id;
    perform audit.write(
        'ledger.close_period', close_period.workspace_id, 'ledger_periods', close_period.workspace_id::text,
        jsonb_build_object('closed_until', before), jsonb_build_object('closed_until', close_period.until)
    );
end
$$;
comment on function ledger.close_period(uuid, date) is
'Closes the books until a day, for good. Waits for what is being posted. For operators.';

select audit.watch('ledger.accounts', 'ledger_accounts', 'r.workspace_id');
select authz.register_permission('ledger.read', 'See charges, payments and balances', '{admin,member}');
select authz.register_permission('ledger.post', 'Record charges and payments', '{admin,member}');
select authz.register_permission('ledger.refund', 'Refund payments and write off what is owed', '{admin}');
