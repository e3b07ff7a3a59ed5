-- Why: whether the books hold can be asked of the books: everything is derived anew and held against the audit log.
-- Locks: none on existing tables.
-- Workers: need not stop.

create function ledger.findings(workspace_id uuid) returns table (subject text, finding text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    place constant uuid := findings.workspace_id;
begin
    return query
    select 'transaction ' || t.id, 'its entries do not sum to zero'
    from ledger.transactions t
    left join (
        select e.transaction_id, bool_and(e.total = 0) as is_balanced
        from (
            select e.transaction_id, a.currency, sum(e.amount) as total
            from ledger.entries e
            join ledger.accounts a on a.workspace_id = e.workspace_id and a.id = e.account_id
            where e.workspace_id = place
            group by 1, 2
        ) as e
        group by 1
    ) as sums on sums.transaction_id = t.id
    where t.workspace_id = place and sums.is_balanced is not true;

    return query
    select 'transaction ' || t.id, 'what it says is not what was posted: it was edited'
    from ledger.transactions t
    left join lateral (
        select string_agg(e.account_id || ':' || e.amount || ',', '' order by e.account_id, e.number) as entries
        from ledger.entries e where e.workspace_id = t.workspace_id and e.transaction_id = t.id
    ) as e on true
    where
        t.workspace_id = place
        and (
            ledger.body_hash(t, e.entries) is distinct from t.body_hash
            or (not t.is_dated and t.occurred_on <> (t.posted_at at time zone 'UTC')::date)
        );

    return query
    with told as (
        select a.row_id, a.digest from audit.entries a
        where a.workspace_id = place and a.resource = 'ledger_transactions'
        union all
        select a.row_id, a.digest from audit.inbox a
        where a.workspace_id = place and a.resource = 'ledger_transactions'
    ),
    posted as (
        select t.id::text as row_id, t.posted_at, ledger.digest(t) as digest
        from ledger.transactions t
        where t.workspace_id = place
    )
    select
        'transaction ' || coalesce(p.row_id, t.row_id),
        case
            when p.row_id is null then 'the audit log tells of it, the ledger does not: it was deleted'
            when t.row_id is null then 'the audit log does not tell of it: it was slipped in'
            else 'the audit log tells of another: it was rewritten'
        end
    from posted p
    full join told t on t.row_id = p.row_id
    -- Audit records are kept for a year at least.
    where p.digest is distinct from t.digest and (t.row_id is not null or p.posted_at > now() - interval '12 months');

    return query
    select 'transaction ' || t.id, 'its amount is not the sum of its debits'
    from ledger.transactions t
    where t.workspace_id = place and t.amount is distinct from (
        select sum(e.amount) filter (where e.amount > 0) from ledger.entries e
        where e.workspace_id = t.workspace_id and e.transaction_id = t.id
    );

    return query
    select format('entry %s of account %s', e.number, e.account_id), 'it belongs to no transaction, or to no account'
    from ledger.entries e
    left join ledger.transactions t on t.workspace_id = e.workspace_id and t.id = e.transaction_id
    left join ledger.accounts a on a.workspace_id = e.workspace_id and a.id = e.account_id
    where e.workspace_id = place and (t.id is null or a.id is null);

    return query
    select 'currency ' || a.currency, 'the balances of all accounts do not sum to zero'
    from ledger.accounts a
    join ledger.balances b on b.workspace_id = a.workspace_id and b.account_id = a.id
    where a.workspace_id = place group by a.currency having sum(b.balance) <> 0;

    return query
    select 'account ' || a.code, 'the audit log tells of another: it was rewritten'
    from ledger.accounts a
    join (
        select e.row_id, e.after from audit.entries e
        where e.workspace_id = place and e.action = 'ledger_accounts.create' and e.after is not null
        union all
        select i.row_id, i.after from audit.inbox i
        where i.workspace_id = place and i.action = 'ledger_accounts.create' and i.after is not null
    ) as told on told.row_id = a.id::text
    where
        a.workspace_id = place
        and (told.after ->> 'code', told.after ->> 'kind', told.after ->> 'currency', told.after ->> 'subject_id')
        is distinct from (a.code, a.kind, a.currency, a.subject_id::text);

    return query
    with closes as (
        select e.occurred_at, (e.after ->> 'closed_until')::date as closed_until from audit.entries e
        where e.workspace_id = place and e.action = 'ledger.close_period' and e.after is not null
        union all
        select i.occurred_at, (i.after ->> 'closed_until')::date from audit.inbox i
        where i.workspace_id = place and i.action = 'ledger.close_period' and i.after is not null
    )
    select 'period', 'the books were closed for longer than they say'
    from ledger.periods p
    where p.workspace_id = place and p.closed_until < (select max(c.closed_until) from closes c)
    union all
    select distinct 'transaction ' || t.id, 'it was posted into a period that was closed'
    from ledger.transactions t
    join closes c on t.occurred_on <= c.closed_until and t.posted_at > c.occurred_at
    where t.workspace_id = place;

    return query
    select format('entry %s of account %s', e.number, a.code), 'the entries before it do not lead to its balance'
    from (
        select
            e.account_id, e.number, e.balance,
            sum(e.amount) over (partition by e.account_id order by e.number) as running,
            row_number() over (partition by e.account_id order by e.number) as nth
        from ledger.entries e where e.workspace_id = place
    ) as e
    join ledger.accounts a on a.workspace_id = place and a.id = e.account_id
    where e.balance <> e.running or e.number <> e.nth
    order by a.code, e.number;

    return query
    select 'account ' || a.code, 'its balance is not the sum of its entries'
    from ledger.accounts a
    left join ledger.balances b on b.workspace_id = a.workspace_id and b.account_id = a.id
    left join (
        select e.account_id, sum(e.amount) as total, count(*) as counted
        from ledger.entries e where e.workspace_id = place group by 1
    ) as e on e.account_id = a.id
    where
        a.workspace_id = place
        and (b.balance, b.entry_count) is distinct from (coalesce(e.total, 0)::bigint, coalesce(e.counted, 0))
    order by a.code;

    return query
    select 'account ' || a.code, 'it is overdrawn, which it refuses'
    from ledger.accounts a
    join ledger.balances b on b.workspace_id = a.workspace_id and b.account_id = a.id
    where
        a.workspace_id = place and a.refuses_overdraft
        and case when a.kind in ('asset', 'expense') then b.balance < 0 else b.balance > 0 end;

    return query
    select 'payment ' || t.id, 'whether it was reversed is not what its reversal says'
    from ledger.transactions t
    left join ledger.payment_states p on p.workspace_id = t.workspace_id and p.payment_id = t.id
    where
        t.workspace_id = place and t.kind = 'payment'
        and coalesce(p.is_reversed, false) <> exists (
            select from ledger.transactions r where r.workspace_id = t.workspace_id and r.reverses_id = t.id
        );

    return query
    select 'payment ' || t.id, 'what was refunded of it is not the sum of its refunds, or more than it'
    from ledger.transactions t
    left join ledger.payment_states p on p.workspace_id = t.workspace_id and p.payment_id = t.id
    left join lateral (
        select coalesce(sum(r.amount), 0) as total from ledger.transactions r
        where
            r.workspace_id = t.workspace_id and r.refunds_id = t.id
            and not exists (
                select from ledger.transactions u where u.workspace_id = r.workspace_id and u.reverses_id = r.id
            )
    ) as refunds on true
    where
        t.workspace_id = place and t.kind = 'payment'
        and (refunds.total <> coalesce(p.refunded, 0) or refunds.total > t.amount);
end
$$;
comment on function ledger.findings(uuid) is
'Derives a workspace''s books anew, and says what differs: sums, balances, running balances, hashes, refunds.';
