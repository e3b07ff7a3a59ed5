-- Why: money is kept in double entry: append-only, balanced, idempotent, and never in two minds about a balance.
-- Locks: none on existing tables.
-- Workers: need not stop.

create schema ledger;
comment on schema ledger is 'Accounts, transactions, entries: append-only double entry.';

create table ledger.currencies (
    code text not null,
    minor_digits bigint not null,
    constraint currencies_pkey primary key (code),
    constraint currencies_code_is_iso_4217 check (code ~ '^[A-Z]{3}$')
);
alter table ledger.currencies enable row level security;
create policy currencies_nobody on ledger.currencies using (false);
comment on table ledger.currencies is 'The currencies of ISO 4217 that are in use.';
comment on column ledger.currencies.code is 'Its code.';
comment on column ledger.currencies.minor_digits is 'How many digits of an amount are minor units: 2 for cents.';

insert into ledger.currencies (code, minor_digits)
select
    code,
    case
        when
            code = any (
                '{BIF,CLP,DJF,GNF,ISK,JPY,KMF,KRW,PYG,RWF,UGX,UYI,VND,VUV,XAF,XOF,XPF}'::text[]
            ) then 0
        when code = any ('{BHD,IQD,JOD,KWD,LYD,OMR,TND}'::text[]) then 3
        else 2
    end
from unnest(
    '{AED,AFN,ALL,AMD,ANG,AOA,ARS,AUD,AWG,AZN,BAM,BBD,BDT,BGN,BHD,BIF,BMD,BND,BOB,BRL,BSD,BTN,BWP,BYN,BZD,CAD,CDF,
    CHF,CLP,CNY,COP,CRC,CUP,CVE,CZK,DJF,DKK,DOP,DZD,EGP,ERN,ETB,EUR,FJD,FKP,GBP,GEL,GHS,GIP,GMD,GNF,GTQ,GYD,HKD,HNL,
    HTG,HUF,IDR,ILS,INR,IQD,IRR,ISK,JMD,JOD,JPY,KES,KGS,KHR,KMF,KPW,KRW,KWD,KYD,KZT,LAK,LBP,LKR,LRD,LSL,LYD,MAD,MDL,
    MGA,MKD,MMK,MNT,MOP,MRU,MUR,MVR,MWK,MXN,MYR,MZN,NAD,NGN,NIO,NOK,NPR,NZD,OMR,PAB,PEN,PGK,PHP,PKR,PLN,PYG,QAR,RON,
    RSD,RUB,RWF,SAR,SBD,SCR,SDG,SEK,SGD,SHP,SLE,SOS,SRD,SSP,STN,SVC,SYP,SZL,THB,TJS,TMT,TND,TOP,TRY,TTD,TWD,TZS,UAH,
    UGX,USD,UYI,UYU,UZS,VED,VES,VND,VUV,WST,XAF,XCD,XCG,XOF,XPF,YER,ZAR,ZMW,ZWG}'::text[]
) as code;

-- Nothing here refers to a workspace or a person by foreign key: what was posted stays when they go.
create table ledger.accounts (
    workspace_id uuid not null,
    id uuid not null default gen_random_uuid(),
    code text not null,
    name text not null default '',
    kind text not null,
    currency text not null,
    refuses_overdraft boolean not null default false,
    subject text,
    subject_id uuid,
    created_at timestamptz not null default ops.now(),
    created_by uuid default authz.user_id(),
    constraint accounts_pkey primary key (workspace_id, id),
    constraint accounts_code_is_unique unique (workspace_id, code),
    constraint accounts_have_a_currency foreign key (currency) references ledger.currencies (code),
    constraint accounts_code_is_short check (length(code) between 1 and 100 and code !~ '[[:cntrl:]]'),
    constraint accounts_name_is_short check (length(name) <= 200),
    constraint accounts_kind_is_known check (kind in ('asset', 'liability', 'equity', 'income', 'expense'))
);
alter table ledger.accounts enable row level security;
create index accounts_currency on ledger.accounts (currency);
create index accounts_subject_id on ledger.accounts (workspace_id, subject_id) where subject_id is not null;
comment on table ledger.accounts is 'What money is, or is owed by: an account has one kind and one currency for good.';
comment on column ledger.accounts.workspace_id is 'The tenant.';
comment on column ledger.accounts.id is 'The account.';
comment on column ledger.accounts.code is 'Its name for programs, such as cash:EUR.';
comment on column ledger.accounts.name is 'Its name for people.';
comment on column ledger.accounts.kind is
'asset, liability, equity, income or expense: assets and expenses grow by debits, the others by credits.';
comment on column ledger.accounts.currency is 'ISO 4217.';
comment on column ledger.accounts.refuses_overdraft is 'Whether its balance may never be on the other side.';
comment on column ledger.accounts.subject is 'What kind of thing it is about, if about one.';
comment on column ledger.accounts.subject_id is 'Which one.';
comment on column ledger.accounts.created_at is 'When it was opened.';
comment on column ledger.accounts.created_by is 'By whom.';

-- Changed by every transaction: kept apart from the accounts, small, with room to change in place.
create table ledger.balances (
    workspace_id uuid not null,
    account_id uuid not null,
    balance bigint not null default 0,
    entry_count bigint not null default 0,
    constraint balances_pkey primary key (workspace_id, account_id),
    constraint balances_belong_to_an_account foreign key (workspace_id, account_id)
    references ledger.accounts (workspace_id, id)
) with (fillfactor = 40);
alter table ledger.balances enable row level security;
comment on table ledger.balances is 'The balance of each account: the sum of its entries, at every commit.';
comment on column ledger.balances.workspace_id is 'The tenant.';
comment on column ledger.balances.account_id is 'The account.';
comment on column ledger.balances.balance is 'Debits minus credits, in minor units.';
comment on column ledger.balances.entry_count is 'How many entries it has.';

create table ledger.transactions (
    workspace_id uuid not null,
    id uuid not null default gen_random_uuid(),
    idempotency_key text not null,
    body_hash bytea not null,
    kind text not null,
    description text not null default '',
    occurred_on date not null,
    is_dated boolean not null,
    posted_at timestamptz not null default ops.now(),
    posted_by uuid default authz.user_id(),
    amount bigint not null,
    subject text,
    subject_id uuid,
    method text,
    refunds_id uuid,
    reverses_id uuid,
    constraint transactions_pkey primary key (workspace_id, id),
    constraint transactions_once_per_key unique (idempotency_key, workspace_id),
    constraint transactions_refund_a_payment foreign key (workspace_id, refunds_id)
    references ledger.transactions (workspace_id, id),
    constraint transactions_reverse_another foreign key (workspace_id, reverses_id)
    references ledger.transactions (workspace_id, id),
    constraint transactions_kind_is_known check (
        kind in ('journal', 'charge', 'payment', 'refund', 'write_off', 'reversal')
    ),
    constraint transactions_refunds_name_a_payment check ((kind = 'refund') = (refunds_id is not null)),
    constraint transactions_reversals_name_what_they_reverse check ((kind = 'reversal') = (reverses_id is not null)),
    constraint transactions_description_is_short check (length(description) <= 1000)
);
alter table ledger.transactions enable row level security;
create index transactions_subject_id on ledger.transactions (workspace_id, subject_id) where subject_id is not null;
create index transactions_refunds_id on ledger.transactions (workspace_id, refunds_id) where refunds_id is not null;
create unique index transactions_are_reversed_once on ledger.transactions (workspace_id, reverses_id)
where reverses_id is not null;
create index transactions_occurred_on on ledger.transactions (workspace_id, occurred_on, method)
where method is not null;
comment on table ledger.transactions is 'What happened: each balanced, none ever changed.';
comment on column ledger.transactions.workspace_id is 'The tenant.';
comment on column ledger.transactions.id is 'The transaction.';
comment on column ledger.transactions.idempotency_key is 'The caller''s key: once per workspace.';
comment on column ledger.transactions.body_hash is 'SHA-256 of all that was asked for, the entries included.';
comment on column ledger.transactions.kind is 'journal, charge, payment, refund, write_off or reversal.';
comment on column ledger.transactions.description is 'What it was for.';
comment on column ledger.transactions.occurred_on is 'The day it belongs to.';
comment on column ledger.transactions.is_dated is
'Whether the caller named that day; otherwise it is that of posted_at, in UTC.';
comment on column ledger.transactions.posted_at is 'When it was posted.';
comment on column ledger.transactions.posted_by is 'By whom.';
comment on column ledger.transactions.amount is
'The sum of its debits, in minor units; of several currencies together if there are.';
comment on column ledger.transactions.subject is 'What kind of thing it is about.';
comment on column ledger.transactions.subject_id is 'Which one.';
comment on column ledger.transactions.method is 'How it was paid.';
comment on column ledger.transactions.refunds_id is 'The payment that it refunds.';
comment on column ledger.transactions.reverses_id is 'The transaction that it undoes.';

-- The key is the statement: a page of an account is one stretch of it, in order, balances included.
create table ledger.entries (
    workspace_id uuid not null,
    account_id uuid not null,
    number bigint not null,
    transaction_id uuid not null,
    amount bigint not null,
    balance bigint not null,
    constraint entries_pkey primary key (workspace_id, account_id, number),
    -- Not of its account: changing the balance has found it, and held it.
    constraint entries_belong_to_a_transaction foreign key (workspace_id, transaction_id)
    references ledger.transactions (workspace_id, id),
    constraint entries_move_something check (amount <> 0)
);
alter table ledger.entries enable row level security;
create index entries_transaction_id on ledger.entries (workspace_id, transaction_id);
comment on table ledger.entries is 'What each transaction did to which account.';
comment on column ledger.entries.workspace_id is 'The tenant.';
comment on column ledger.entries.account_id is 'The account.';
comment on column ledger.entries.number is 'Its place in the account, from 1 without a gap.';
comment on column ledger.entries.transaction_id is 'The transaction.';
comment on column ledger.entries.amount is 'Positive for a debit, negative for a credit, in minor units.';
comment on column ledger.entries.balance is 'The balance of the account after it.';

create table ledger.periods (
    workspace_id uuid not null,
    closed_until date not null default '-infinity',
    constraint periods_pkey primary key (workspace_id)
);
alter table ledger.periods enable row level security;
create policy periods_nobody on ledger.periods using (false);
comment on table ledger.periods is 'Until when the books of each workspace are closed.';
comment on column ledger.periods.workspace_id is 'The tenant.';
comment on column ledger.periods.closed_until is 'The last day into which nothing may be posted any more.';

create table ledger.payment_states (
    workspace_id uuid not null,
    payment_id uuid not null,
    refunded bigint not null default 0,
    is_reversed boolean not null default false,
    constraint payment_states_pkey primary key (workspace_id, payment_id),
    constraint payment_states_belong_to_a_payment foreign key (workspace_id, payment_id)
    references ledger.transactions (workspace_id, id),
    constraint payment_states_refunded_is_not_negative check (refunded >= 0)
);
alter table ledger.payment_states enable row level security;
create policy payment_states_nobody on ledger.payment_states using (false);
comment on table ledger.payment_states is 'What of each payment was refunded: the row that keeps refunds within it.';
comment on column ledger.payment_states.workspace_id is 'The tenant.';
comment on column ledger.payment_states.payment_id is 'The payment.';
comment on column ledger.payment_states.refunded is 'How much, in minor units.';
comment on column ledger.payment_states.is_reversed is 'Whether it was undone as a whole.';

-- Append-only --------------------------------------------------------------------------------

create trigger transactions_are_append_only before update or delete on ledger.transactions
for each row execute function ops.refuse_change();
create trigger transactions_are_never_truncated before truncate on ledger.transactions
for each statement execute function ops.refuse_change();
create trigger entries_are_append_only before update or delete on ledger.entries
for each row execute function ops.refuse_change();
create trigger entries_are_never_truncated before truncate on ledger.entries
for each statement execute function ops.refuse_change();
create trigger balances_are_not_deleted before delete on ledger.balances
for each row execute function ops.refuse_change();
create trigger balances_are_never_truncated before truncate on ledger.balances
for each statement execute function ops.refuse_change();
create trigger accounts_are_not_deleted before delete on ledger.accounts
for each row execute function ops.refuse_change();
create trigger accounts_are_never_truncated before truncate on ledger.accounts
for each statement execute function ops.refuse_change();
create trigger accounts_keep_what_they_are before update on ledger.accounts
for each row when (
    (old.workspace_id, old.id, old.code, old.kind, old.currency, old.subject_id)
    is distinct from (new.workspace_id, new.id, new.code, new.kind, new.currency, new.subject_id)
) execute function ops.refuse_change();

create trigger periods_never_open_again before update on ledger.periods
for each row when (new.closed_until < old.closed_until or new.workspace_id <> old.workspace_id)
execute function ops.refuse_change();
create trigger periods_are_not_deleted before delete on ledger.periods
for each row execute function ops.refuse_change();
create trigger payment_states_stay_reversed before update on ledger.payment_states
for each row when (old.is_reversed and not new.is_reversed) execute function ops.refuse_change();
create trigger payment_states_are_not_deleted before delete on ledger.payment_states
for each row execute function ops.refuse_change();

create function ledger.require_balanced() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    is_balanced boolean;
begin
    select coalesce(bool_and(by_currency.total = 0), false) into is_balanced
    from (
        select sum(e.amount) as total
        from ledger.entries e
        join ledger.accounts a on a.workspace_id = e.workspace_id and a.id = e.account_id
        where e.workspace_id = new.workspace_id and e.transaction_id = new.id
        group by a.currency
    ) as by_currency;
    if not is_balanced then
        raise exception 'transaction % does not balance', new.id
            using errcode = 'check_violation', hint = 'ledger.post() writes balanced transactions.';
    end if;
    return null;
end
$$;
comment on function ledger.require_balanced() is
'Trigger: at commit, the entries of a transaction sum to zero in every currency.';

create constraint trigger transactions_balance after insert on ledger.transactions
deferrable initially deferred
for each row execute function ledger.require_balanced();

-- Accounts -----------------------------------------------------------------------------------

create function ledger.operator_books() returns uuid
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select '00000000-0000-0000-0000-000000000000'::uuid $$;
comment on function ledger.operator_books() is 'The books of the operator: they belong to no workspace.';

create function ledger.open_account(
    workspace_id uuid, code text, kind text, currency text, name text default '',
    refuses_overdraft boolean default false, subject text default null, subject_id uuid default null
) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    account ledger.accounts;
begin
    select a.* into account from ledger.accounts a
    where a.workspace_id = open_account.workspace_id and a.code = open_account.code;
    if not found then
        if not exists (select from ledger.currencies c where c.code = open_account.currency) then
            perform ops.raise_http(
                400, 'currency_unknown', format('There is no currency %L.', left(open_account.currency, 10)), null,
                'Use a code of ISO 4217, such as EUR.'
            );
        end if;
        if open_account.workspace_id <> ledger.operator_books()
            and not exists (select from public.workspaces w where w.id = open_account.workspace_id)
        then
            perform ops.raise_http(404, 'workspace_not_found', 'There is no such workspace.');
        end if;
        insert into ledger.accounts (workspace_id, code, kind, currency, name, refuses_overdraft, subject, subject_id)
        values (
            open_account.workspace_id, open_account.code, open_account.kind, open_account.currency,
            open_account.name, open_account.refuses_overdraft, open_account.subject, open_account.subject_id
        )
        on conflict on constraint accounts_code_is_unique do nothing;
        select a.* into strict account from ledger.accounts a
        where a.workspace_id = open_account.workspace_id and a.code = open_account.code;
        insert into ledger.balances (workspace_id, account_id) values (account.workspace_id, account.id)
        on conflict do nothing;
        insert into ledger.periods (workspace_id) values (account.workspace_id)
        on conflict do nothing;
    end if;
    if (account.kind, account.currency) <> (open_account.kind, open_account.currency) then
        perform ops.raise_http(
            409, 'account_differs', format('The account %s is another one.', left(open_account.code, 100)),
            jsonb_build_object('kind', account.kind, 'currency', account.currency),
            'An account has one kind and one currency for good: choose another code.'
        );
    end if;
    return account.id;
end
$$;
comment on function ledger.open_account(uuid, text, text, text, text, boolean, text, uuid) is
'Opens an account, if it is not there; returns its id. Answers 400 for an unknown currency, 409 for another account
of that code.';
