"""The ledger: posts a second against bare SQL, and balances and statements as they grow."""

from __future__ import annotations

from functools import partial
from typing import Any

from rowhouse.local.cluster import SUPERUSER

from tests.identities import make_user, make_workspace, one, run
from tests.server import Server

from .houses import as_person, house
from .load import alternating
from .timing import milliseconds, side_by_side

Rows = list[list[str]]

# The same rows, the same indexes and the same locks; no checks, no idempotency, no immutability.
FLOOR = """
create schema floor;
create table floor.balances (
    workspace_id uuid, account_id bigint, balance bigint not null, entry_count bigint not null default 0,
    primary key (workspace_id, account_id)
) with (fillfactor = 40);
create table floor.transactions (
    workspace_id uuid, id uuid default gen_random_uuid(), idempotency_key text, description text,
    posted_at timestamptz default now(),
    primary key (workspace_id, id), unique (idempotency_key, workspace_id)
);
create table floor.entries (
    workspace_id uuid, account_id bigint, number bigint, transaction_id uuid, amount bigint, balance bigint,
    primary key (workspace_id, account_id, number)
);
create index on floor.entries (workspace_id, transaction_id);
"""
PAIR = """\\set a random(0, {last})
\\set b (:a + random(1, {last})) % {accounts}
"""
BARE = """\\set low least(:a, :b)
\\set high greatest(:a, :b)
begin;
insert into floor.transactions (workspace_id, idempotency_key, description)
values ('{workspace}', gen_random_uuid()::text, '') returning id \\gset
update floor.balances set balance = balance + 100, entry_count = entry_count + 1
where workspace_id = '{workspace}' and account_id = :low returning balance as b1, entry_count as n1 \\gset
update floor.balances set balance = balance - 100, entry_count = entry_count + 1
where workspace_id = '{workspace}' and account_id = :high returning balance as b2, entry_count as n2 \\gset
insert into floor.entries values
('{workspace}', :low, :n1, (:id)::uuid, 100, :b1), ('{workspace}', :high, :n2, (:id)::uuid, -100, :b2);
commit;
"""
POST = """select ledger.post('{workspace}', gen_random_uuid()::text, jsonb_build_array(
    jsonb_build_object('account', 'a' || :a, 'debit', 100), jsonb_build_object('account', 'a' || :b, 'credit', 100)));
"""
GROW = """
insert into ledger.transactions (workspace_id, id, idempotency_key, body_hash, kind, occurred_on, is_dated, amount)
select %(w)s, md5(n::text || %(a)s)::uuid, n::text || %(a)s, '', 'journal', '2026-01-01', true, 1
from generate_series(1, %(n)s::int) n;
insert into ledger.entries
select %(w)s, %(a)s::uuid, n, md5(n::text || %(a)s)::uuid, 1, n from generate_series(1, %(n)s::int) n;
update ledger.balances set balance = %(n)s::int, entry_count = %(n)s::int where account_id = %(a)s::uuid
"""


def _read(connection: Any, query: str, parameters: list[Any]) -> None:
    for _ in range(20):
        run(connection, query, parameters)


def posting(server: Server) -> Rows:
    """Eight connections over 50 and over 10 accounts: bare SQL, and ledger.post()."""
    rows = []
    with house(server, 10, 10) as database:
        with database.connect(autocommit=True) as setup:
            workspace = str(make_workspace(setup, make_user(setup)))
            for n in range(50):
                run(setup, "select ledger.open_account(%s, %s, 'asset', 'EUR')", [workspace, f"a{n}"])
            for statement in FLOOR.strip().split(";\n"):
                run(setup, statement)
            run(setup, "insert into floor.balances select %s, n, 0 from generate_series(0, 49) n", [workspace])
            run(setup, "analyze")
        for accounts in (50, 10):
            pair = PAIR.format(last=accounts - 1, accounts=accounts)
            rate = alternating(
                {
                    "bare": (database, pair + BARE.format(workspace=workspace)),
                    "post": (database, pair + POST.format(workspace=workspace)),
                },
                connections=8,
            )
            rows.append(
                [
                    f"{accounts} accounts",
                    f"{rate['bare']:,.0f}/s",
                    f"{rate['post']:,.0f}/s",
                    f"{rate['post'] / rate['bare']:.2f}",
                ]
            )
        with database.connect() as check:
            assert run(check, "select * from ledger.findings(%s)", [workspace]) == []
    return rows


def statements(server: Server, most: int) -> Rows:
    """A balance and a page of 50 lines from the middle, of accounts of three sizes; and the same by summing."""
    sizes = (1_000, 100_000, most)
    with house(server, 10, 10) as database, database.connect(SUPERUSER, autocommit=True) as connection:
        owner = make_user(connection)
        workspace = make_workspace(connection, owner)
        accounts: list[Any] = []
        for size in sizes:
            accounts.append(
                one(connection, "select ledger.open_account(%s, %s, 'asset', 'EUR')", [workspace, f"s{size}"])
            )
            run(connection, "set session_replication_role = replica")
            for statement in GROW.strip().split(";\n"):
                run(connection, statement, {"w": workspace, "a": str(accounts[-1]), "n": size})
            run(connection, "reset session_replication_role")
        run(connection, "vacuum analyze ledger.entries")
        run(connection, "vacuum analyze ledger.transactions")
        run(connection, "analyze ledger.balances")
        as_person(connection, owner)
        queries = {
            "a balance": "select balance from public.trial_balance where workspace_id = %s and account_id = %s",
            "a page of a statement": (
                "select * from public.account_statement where workspace_id = %s and account_id = %s "
                "and number > {middle} order by number limit 50"
            ),
        }
        rows, largest = [], {}
        for name, query in queries.items():
            results = side_by_side(
                {
                    str(size): partial(_read, connection, query.format(middle=size // 2), [workspace, account])
                    for size, account in zip(sizes, accounts, strict=True)
                },
                15,
            )
            medians = [results[str(size)].median / 20 for size in sizes]
            rows.append([name, *(milliseconds(m) for m in medians), f"{max(medians) / medians[0]:.2f} ×"])
            largest[name] = medians[-1]
        run(connection, "reset role")
        summed = side_by_side(
            {
                "sum": lambda: run(
                    connection,
                    "select sum(amount) from ledger.entries where workspace_id = %s and account_id = %s",
                    [workspace, accounts[-1]],
                )
            },
            3,
            1,
        )["sum"].median
        rows.append(
            ["the balance by summing", "", "", milliseconds(summed), f"{summed / largest['a balance']:,.0f} × slower"]
        )
        return rows
