"""Posting: balanced, idempotent, append-only, in one mind about every balance, whoever posts at the same time."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rowhouse.local.cluster import SUPERUSER

from ..conftest import Database
from ..identities import as_service, as_user, make_user, make_workspace, one, refusal, refused, run
from ..races import Call, wait_until_blocked
from .books import balances, entries, make_books, post, sums

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


def findings(db: Connection, workspace: Any) -> list[str]:
    return [f"{row['subject']}: {row['finding']}" for row in run(db, "select * from ledger.findings(%s)", [workspace])]


def test_a_transaction_moves_balances_and_keeps_each_step(db: Connection) -> None:
    workspace = make_books(db)
    post(db, workspace, ("a0", 1000), ("a1", -400), ("a2", -600))
    post(db, workspace, ("a0", 5), ("a0", 7), ("a1", -12))
    assert balances(db, workspace) | {"a3": 0} == balances(db, workspace)
    assert {k: v for k, v in balances(db, workspace).items() if v} == {"a0": 1012, "a1": -412, "a2": -600}
    lines = run(
        db,
        "select e.number, e.amount, e.balance from ledger.entries e join ledger.accounts a on a.id = e.account_id "
        "where a.workspace_id = %s and a.code = 'a0' order by 1",
        [workspace],
    )
    assert [(r["number"], r["amount"], r["balance"]) for r in lines] == [(1, 1000, 1000), (2, 5, 1005), (3, 7, 1012)]
    assert findings(db, workspace) == []


def test_several_currencies_balance_each(db: Connection) -> None:
    workspace = make_books(db)
    post(db, workspace, ("a0", 100), ("a1", -100), ("usd", 120), ("fx", -120))
    with refused("entries_unbalanced"), db.transaction():
        post(db, workspace, ("a0", 100), ("usd", -100))
    with refused("entries_unbalanced"), db.transaction():
        post(db, workspace, ("a0", 100), ("a1", -50), ("usd", 30), ("fx", -80))
    assert findings(db, workspace) == []


HOSTILE = {
    "unbalanced": (entries(("a0", 1), ("a1", -2)), "entries_unbalanced"),
    "zero": ('[{"account": "a0", "debit": 0}, {"account": "a1", "credit": 0}]', "amount_invalid"),
    "negative": ('[{"account": "a0", "debit": -5}, {"account": "a1", "credit": -5}]', "amount_invalid"),
    "a fraction": ('[{"account": "a0", "debit": 1.5}, {"account": "a1", "credit": 1.5}]', "amount_invalid"),
    "NaN": ('[{"account": "a0", "debit": "NaN"}, {"account": "a1", "credit": "NaN"}]', "amount_invalid"),
    "infinity": ('[{"account": "a0", "debit": "Infinity"}, {"account": "a1", "credit": "Infinity"}]', "amount_invalid"),
    "a string": ('[{"account": "a0", "debit": "5"}, {"account": "a1", "credit": "5"}]', "amount_invalid"),
    "too large": ('[{"account": "a0", "debit": 1e15}, {"account": "a1", "credit": 1e15}]', "amount_invalid"),
    "beyond bigint": ('[{"account": "a0", "debit": 1e300}, {"account": "a1", "credit": 1e300}]', "amount_invalid"),
    "null": ('[{"account": "a0", "debit": null}, {"account": "a1", "credit": 1}]', "amount_invalid"),
    "an object": ('[{"account": "a0", "debit": {}}, {"account": "a1", "credit": 1}]', "amount_invalid"),
    "both sides": ('[{"account": "a0", "debit": 1, "credit": 1}, {"account": "a1", "credit": 1}]', "entry_invalid"),
    "no side": ('[{"account": "a0"}, {"account": "a1", "credit": 1}]', "entry_invalid"),
    "no account": ('[{"debit": 1}, {"account": "a1", "credit": 1}]', "account_not_found"),
    "an unknown account": (entries(("nowhere", 1), ("a1", -1)), "account_not_found"),
    "entries that are none": ('[1, "x"]', "entry_invalid"),
    "one entry": ('[{"account": "a0", "debit": 1}]', "entry_invalid"),
    "no entries": ("[]", "entry_invalid"),
    "no list": ('{"a0": 1}', "entry_invalid"),
    "nothing": (None, "entry_invalid"),
    "ten thousand": (entries(*[("a0", 1)] * 5000, *[("a1", -1)] * 5000), "entry_invalid"),
    "an overdraft": (entries(("a0", 1), ("till", -1)), "overdraft_refused"),
    "a deposit paid out twice": (entries(("deposits", 1), ("a0", -1)), "overdraft_refused"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_cannot_be_posted_is_refused_with_a_sentence_and_leaves_nothing(db: Connection, what: str) -> None:
    workspace = make_books(db)
    body, code = HOSTILE[what]
    with refused(code), db.transaction():
        run(db, "select ledger.post(%s, 'key', %s::jsonb)", [workspace, body])
    assert one(db, "select count(*) from ledger.transactions where workspace_id = %s", [workspace]) == 0
    assert set(balances(db, workspace).values()) == {0}


def test_a_thousand_entries_are_posted(db: Connection) -> None:
    workspace = make_books(db)
    post(db, workspace, *[("a0", 1)] * 999, ("a1", -999))
    assert (balances(db, workspace)["a0"], findings(db, workspace)) == (999, [])


def test_accounts_of_another_workspace_are_not_there(db: Connection) -> None:
    mine, theirs = make_books(db), make_workspace(db, make_user(db))
    with refused("account_not_found"), db.transaction():
        post(db, theirs, ("a0", 1), ("a1", -1))
    assert set(balances(db, mine).values()) == {0}


@pytest.mark.parametrize("currency", ["EURO", "eur", "QQQ", "", None, "E\0R"[:1], "💶"])
def test_an_unknown_currency_is_refused(db: Connection, currency: Any) -> None:
    workspace = make_books(db)
    with refused("currency_unknown"), db.transaction():
        run(db, "select ledger.open_account(%s, 'new', 'asset', %s)", [workspace, currency])


def test_an_account_is_what_it_is_for_good(db: Connection) -> None:
    workspace = make_books(db)
    first = one(db, "select ledger.open_account(%s, 'bank', 'asset', 'EUR', 'Bank')", [workspace])
    assert one(db, "select ledger.open_account(%s, 'bank', 'asset', 'EUR')", [workspace]) == first
    with refused("account_differs"), db.transaction():
        run(db, "select ledger.open_account(%s, 'bank', 'income', 'EUR')", [workspace])
    run(db, "update ledger.accounts set name = 'Bank of Ada' where id = %s", [first])
    for change in ("kind = 'income'", "currency = 'USD'", "code = 'x'"):
        with refused("42501"), db.transaction():
            run(db, f"update ledger.accounts set {change} where id = %s", [first])


# Idempotency -----------------------------------------------------------------------------------


def test_the_same_key_and_body_is_one_effect_and_another_body_is_refused(db: Connection) -> None:
    workspace = make_books(db)
    first = post(db, workspace, ("a0", 5), ("a1", -5), key="k")
    assert post(db, workspace, ("a0", 5), ("a1", -5), key="k") == first
    assert post(db, workspace, ("a1", -5), ("a0", 5), key="k") == first, "the order of accounts is none of its body"
    for body in ((("a0", 6), ("a1", -6)), (("a0", 5), ("a2", -5))):
        with refused("idempotency_key_reused"), db.transaction():
            post(db, workspace, *body, key="k")
    with refused("idempotency_key_reused"), db.transaction():
        post(db, workspace, ("a0", 5), ("a1", -5), key="k", description="other")
    for key in ("", "x" * 201, None):
        with refused("idempotency_key_invalid"), db.transaction():
            run(db, "select ledger.post(%s, %s, %s::jsonb)", [workspace, key, entries(("a0", 5), ("a1", -5))])
    assert balances(db, workspace)["a0"] == 5
    run(db, "insert into ops.clock (set_to) values (now() + interval '3 days')")
    assert post(db, workspace, ("a0", 5), ("a1", -5), key="k") == first, "a day later it is still the same"


def test_64_replays_at_once_have_one_effect(connect: Connect) -> None:
    setup = connect(autocommit=True)
    workspace = make_books(setup)
    gate, made = threading.Barrier(16, timeout=60), []

    def replay() -> None:
        connection = connect(autocommit=True)
        gate.wait()
        for _ in range(4):
            made.append(post(connection, workspace, ("a0", 5), ("a1", -5), key="once"))

    threads = [threading.Thread(target=replay) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(set(made)), balances(setup, workspace)["a0"]) == (64, 1, 5)


# Append-only -----------------------------------------------------------------------------------


def test_nobody_changes_what_was_posted(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_books(db)
    post(db, workspace, ("a0", 5), ("a1", -5))
    run(db, "set constraints all immediate")
    for table in ("entries", "transactions", "balances", "accounts"):
        for statement in (f"delete from ledger.{table}", f"truncate ledger.{table} cascade"):
            with refused("42501"), db.transaction():
                run(db, statement)
            for identity in (as_user(db, owner), as_service(db)):
                with refused("42501"), db.transaction(), identity:
                    run(db, statement)
    for statement in ("update ledger.entries set amount = 6", "update ledger.transactions set amount = 6"):
        with refused("42501"), db.transaction():
            run(db, statement)
    for call in (
        "ledger.post(%s, 'k', '[]')",
        "ledger.open_account(%s, 'x', 'asset', 'EUR')",
        "ledger.close_period(%s, '2020-01-01')",
    ):
        for identity in (as_user(db, owner), as_service(db)):
            with refused("42501"), db.transaction(), identity:
                run(db, f"select {call}", [workspace])


def test_what_the_owner_writes_by_hand_must_balance_at_commit(connect: Connect) -> None:
    connection = connect()
    workspace = make_books(connection)
    connection.commit()
    for lines in ([], [5], [5, -4]):
        made = one(
            connection,
            "insert into ledger.transactions (workspace_id, idempotency_key, body_hash, kind, occurred_on, is_dated, amount) "
            "values (%s, 'hand', '', 'journal', now(), false, 5) returning id",
            [workspace],
        )
        for number, amount in enumerate(lines):
            run(
                connection,
                "insert into ledger.entries select %s, id, 1, %s, %s, 0 from ledger.accounts where workspace_id = %s and code = %s",
                [workspace, made, amount, workspace, f"a{number}"],
            )
        with pytest.raises(psycopg.errors.CheckViolation, match="does not balance"):
            connection.commit()


TAMPERING = {
    "an amount": ("update ledger.entries set amount = amount * 2", "sum"),
    "both amounts of a transaction": (
        "update ledger.entries set amount = amount * 2 where transaction_id = (select id from ledger.transactions where amount = 500)",
        "was edited",
    ),
    "everything that follows from it, too": (
        "update ledger.entries set amount = amount * 2, balance = balance * 2; update ledger.balances set balance = balance * 2",
        "was edited",
    ),
    "a hash made to fit": (
        "update ledger.entries set amount = amount * 2, balance = balance * 2; update ledger.balances set balance = balance * 2; "
        "update ledger.transactions t set body_hash = ledger.body_hash(t, (select string_agg(e.account_id || ':' || e.amount || ',', '' "
        "order by e.account_id, e.number) from ledger.entries e where e.transaction_id = t.id))",
        "the audit log tells of another",
    ),
    "a deletion": (
        "delete from ledger.entries; delete from ledger.transactions; update ledger.balances set balance = 0, entry_count = 0",
        "the audit log tells of it",
    ),
    "a balance": ("update ledger.balances set balance = balance + 1", "not the sum of its entries"),
    "a running balance": (
        "update ledger.entries set balance = balance + 1 where number = 2",
        "do not lead to its balance",
    ),
    "a day": ("update ledger.transactions set occurred_on = occurred_on - 40", "was edited"),
    "a description": ("update ledger.transactions set description = 'gift'", "was edited"),
}


@pytest.mark.parametrize("deed", TAMPERING)
def test_the_check_finds_what_the_owner_does(database: Database, deed: str) -> None:
    with database.connect(autocommit=True) as connection:
        workspace = make_books(connection)
        post(connection, workspace, ("a0", 500), ("a1", -500))
        post(connection, workspace, ("a0", 30), ("a1", -30))
        while one(connection, "select count(*) from audit.inbox"):
            run(connection, "select audit.seal()")
    statement, words = TAMPERING[deed]
    with database.connect(SUPERUSER, autocommit=True) as connection:
        assert findings(connection, workspace) == []
        run(connection, "set session_replication_role = replica")
        for part in statement.split("; "):
            run(connection, part)
        assert any(words in finding for finding in findings(connection, workspace)), findings(connection, workspace)


# Periods and reversals --------------------------------------------------------------------------


def test_nothing_is_posted_into_a_closed_period(db: Connection) -> None:
    workspace = make_books(db)
    post(db, workspace, ("a0", 5), ("a1", -5), day="2026-01-15")
    run(db, "select ledger.close_period(%s, '2026-01-31')", [workspace])
    with refused("period_closed"), db.transaction():
        post(db, workspace, ("a0", 5), ("a1", -5), day="2026-01-31")
    post(db, workspace, ("a0", 5), ("a1", -5), day="2026-02-01")
    with refused("period_closed"), db.transaction():
        run(db, "select ledger.close_period(%s, '2026-01-30')", [workspace])
    for day in ("2999-01-01", "infinity", None):
        with refused("period_invalid"), db.transaction():
            run(db, "select ledger.close_period(%s, %s)", [workspace, day])
    closed = run(db, "select after from audit.inbox where action = 'ledger.close_period'")
    assert closed == [{"after": {"closed_until": "2026-01-31"}}]


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.REPEATABLE_READ])
def test_a_close_and_a_post_wait_for_each_other(connect: Connect, level: psycopg.IsolationLevel) -> None:
    setup, watch = connect(autocommit=True), connect(autocommit=True)
    workspace = make_books(setup)
    first, second = connect(), connect()
    second.isolation_level = level
    run(second, "select 1 from workspaces")
    run(first, "select ledger.close_period(%s, '2026-01-31')", [workspace])
    call = Call(second, lambda db: post(db, workspace, ("a0", 5), ("a1", -5), day="2026-01-15"))
    wait_until_blocked(watch, second)
    first.commit()
    assert call.result() in ("period_closed", "40001")
    poster, closer = connect(), connect()
    post(poster, workspace, ("a0", 5), ("a1", -5), day="2026-02-15")
    waiting = Call(closer, lambda db: run(db, "select ledger.close_period(%s, '2026-02-28')", [workspace]))
    wait_until_blocked(watch, closer)
    poster.commit()
    assert waiting.result() == "ok"


def test_a_reversal_undoes_once_and_is_final(db: Connection) -> None:
    workspace = make_books(db)
    made = post(db, workspace, ("a0", 5), ("a1", -5))
    reversal = one(db, "select ledger.reverse(%s, %s, 'typo')", [workspace, made])
    assert one(db, "select ledger.reverse(%s, %s, 'typo')", [workspace, made]) == reversal, "a replay"
    assert set(balances(db, workspace).values()) == {0}
    for transaction, reason, code in (
        (made, "again", "already_reversed"),
        (reversal, "undo", "not_reversible"),
        ("99999999-9999-4999-8999-999999999999", "x", "transaction_not_found"),
    ):
        with refused(code), db.transaction():
            run(db, "select ledger.reverse(%s, %s, %s)", [workspace, transaction, reason])
    assert findings(db, workspace) == []


# At the same time -------------------------------------------------------------------------------


def test_rings_of_transfers_do_not_deadlock_and_every_commit_balances(connect: Connect) -> None:
    setup = connect(autocommit=True)
    workspace = make_books(setup, accounts=5)
    outcomes: list[str] = []
    gate = threading.Barrier(8, timeout=60)

    def trade(seed: int) -> None:
        connection = connect(autocommit=True)
        chance = random.Random(seed)
        gate.wait()
        for _ in range(40):
            ring = chance.sample(range(5), 3)
            amounts = (chance.randint(1, 99), chance.randint(1, 99))
            try:
                post(
                    connection,
                    workspace,
                    (f"a{ring[0]}", sum(amounts)),
                    (f"a{ring[1]}", -amounts[0]),
                    (f"a{ring[2]}", -amounts[1]),
                )
                outcomes.append("ok")
            except psycopg.Error as error:
                outcomes.append(refusal(error))

    threads = [threading.Thread(target=trade, args=[n]) for n in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with setup.transaction():
            run(setup, "set transaction isolation level repeatable read")
            assert balances(setup, workspace) == sums(setup, workspace)
            assert sum(balances(setup, workspace).values()) == 0
    assert set(outcomes) == {"ok"} and len(outcomes) == 320
    assert findings(setup, workspace) == []


# A model ----------------------------------------------------------------------------------------

AMOUNTS = st.one_of(
    st.integers(1, 1000), st.sampled_from([0, -1, 999_999_999_999_999, 10**15, 2**63 - 1, 2**63, 10**40]),
    st.sampled_from(["NaN", "1", 1.5, None, True]),
)  # fmt: skip
CODES = st.sampled_from(["a0", "a1", "a2", "till", "usd", "fx", "nowhere"])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("post"), st.integers(0, 3), CODES, CODES, AMOUNTS),
            st.tuples(st.just("reverse"), st.integers(0, 9), CODES, CODES, st.just(1)),
        ),
        max_size=20,
    )
)
def test_balances_are_what_a_model_says_with_hostile_numbers(_session_database: Database, steps: list[Any]) -> None:
    currency = {"usd": "USD", "fx": "USD"}
    with _session_database.connect() as db:
        workspace = make_books(db)
        model = dict.fromkeys(balances(db, workspace), 0)
        keys: dict[str, Any] = {}
        done: list[dict[str, Any]] = []
        for deed, number, debit, credit, amount in steps:
            if deed == "reverse" and done:
                target = done[number % len(done)]
                changed = dict(model)
                changed[target["debit"]] -= target["amount"]
                changed[target["credit"]] += target["amount"]
                if target["reversed"] or changed["till"] < 0:
                    # The replay of a reversal answers as the first did.
                    code = None if target["reversed"] else "overdraft_refused"
                else:
                    code, model, target["reversed"] = None, changed, True
                try:
                    with db.transaction():
                        run(db, "select ledger.reverse(%s, %s, 'r')", [workspace, target["id"]])
                    assert code is None
                except psycopg.Error as error:
                    assert refusal(error) == code
            elif deed == "post":
                body = [{"account": debit, "debit": amount}, {"account": credit, "credit": amount}]
                sound = type(amount) is int and 1 <= amount <= 999_999_999_999_999
                changed = dict(model)
                if sound and "nowhere" not in (debit, credit):
                    changed[debit] += amount
                    changed[credit] -= amount
                expected = (
                    "amount_invalid" if not sound
                    else "account_not_found" if "nowhere" in (debit, credit)
                    else "entries_unbalanced" if currency.get(debit) != currency.get(credit)
                    else "idempotency_key_reused" if keys.get(f"k{number}", body) != body
                    else None if f"k{number}" in keys
                    else "overdraft_refused" if changed["till"] < 0 else None
                )  # fmt: skip
                try:
                    with db.transaction():
                        made = one(
                            db,
                            "select ledger.post(%s, %s, %s::jsonb)",
                            [workspace, f"k{number}", json.dumps(body)],
                        )
                    assert expected is None, expected
                    if f"k{number}" not in keys:
                        keys[f"k{number}"], model = body, changed
                        done.append({"id": made, "debit": debit, "credit": credit, "amount": amount, "reversed": False})
                except psycopg.Error as error:
                    code = refusal(error)
                    assert code == expected or {code, expected} == {"amount_invalid", "account_not_found"}, body
            assert balances(db, workspace) == sums(db, workspace) == model
        assert findings(db, workspace) == []
        db.rollback()
