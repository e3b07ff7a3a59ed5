"""The service desk: tickets move along their transitions, and their money is right to the cent."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..conftest import Database
from ..identities import as_user, make_user, make_workspace, one, refusal, refused, run
from ..rest import Rest
from .books import make_desk

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


@pytest.fixture
def desk(db: Connection) -> dict[str, Any]:
    return make_desk(db)


def balance(db: Connection, ticket: Any) -> dict[str, int]:
    row = run(
        db, "select charged, paid, refunded, written_off, pending from ticket_balances where ticket_id = %s", [ticket]
    )[0]
    return dict(row)


# Tickets ---------------------------------------------------------------------------------------


def test_tickets_are_numbered_by_workspace_without_a_gap(connect: Connect) -> None:
    setup = connect(autocommit=True)
    desks = [make_desk(setup) for _ in range(2)]
    gate = threading.Barrier(8, timeout=60)

    def take_in(number: int) -> None:
        connection = connect(autocommit=True)
        desk = desks[number % 2]
        gate.wait()
        for n in range(10):
            with connection.transaction(force_rollback=n % 3 == 0):
                run(
                    connection,
                    "insert into tickets (workspace_id, customer_id, device) values (%s, %s, 'Phone')",
                    [desk["workspace"], desk["customer"]],
                )

    threads = [threading.Thread(target=take_in, args=[n]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for desk in desks:
        numbers = [
            r["number"]
            for r in run(setup, "select number from tickets where workspace_id = %s order by 1", [desk["workspace"]])
        ]
        assert numbers == list(range(1, 26))


def test_status_moves_along_transitions_that_are_data_and_each_move_is_kept(
    db: Connection, desk: dict[str, Any]
) -> None:
    allowed = {(r["from_status"], r["to_status"]) for r in run(db, "select * from ticket_transitions")}
    statuses = sorted({status for pair in allowed for status in pair})
    assert len(statuses) == 7
    for origin in statuses:
        for target in statuses:
            if origin == target:
                continue
            with db.transaction(force_rollback=True):
                run(db, "alter table tickets disable trigger tickets_guard")
                run(db, "update tickets set status = %s where id = %s", [origin, desk["ticket"]])
                run(db, "alter table tickets enable trigger tickets_guard")
                with as_user(db, desk["member"]):
                    change = "update tickets set status = %s where id = %s"
                    if (origin, target) in allowed:
                        run(db, change, [target, desk["ticket"]])
                    else:
                        with refused("transition_not_allowed"), db.transaction():
                            run(db, change, [target, desk["ticket"]])


def test_a_completed_ticket_leaves_a_record_of_who_and_when(db: Connection, desk: dict[str, Any]) -> None:
    with as_user(db, desk["member"]):
        for status in ("diagnosing", "ready", "completed"):
            run(db, "update tickets set status = %s where id = %s", [status, desk["ticket"]])
        history = run(
            db,
            "select from_status, to_status, created_by from ticket_status_changes where ticket_id = %s "
            "order by created_at, from_status nulls first",
            [desk["ticket"]],
        )
        assert one(db, "select completed_at is not null from tickets where id = %s", [desk["ticket"]])
    moves = {(r["from_status"], r["to_status"]) for r in history}
    assert moves == {(None, "received"), ("received", "diagnosing"), ("diagnosing", "ready"), ("ready", "completed")}
    assert [r["created_by"] for r in history if r["to_status"] == "completed"] == [desk["member"]]
    with as_user(db, desk["owner"]), refused("42501"), db.transaction():
        run(
            db,
            "insert into ticket_status_changes (workspace_id, ticket_id, to_status) values (%s, %s, 'x')",
            [desk["workspace"], desk["ticket"]],
        )


def test_number_completion_and_a_first_status_are_not_the_clients(db: Connection, desk: dict[str, Any]) -> None:
    with as_user(db, desk["owner"]):
        for column, value in (
            ("number", "7"),
            ("status", "'collected'"),
            ("completed_at", "now()"),
            ("deleted_at", "now()"),
        ):
            with refused("42501"), db.transaction():
                run(
                    db,
                    f"insert into tickets (workspace_id, customer_id, device, {column}) values (%s, %s, 'x', {value})",
                    [desk["workspace"], desk["customer"]],
                )
        with refused("42501"), db.transaction():
            run(db, "update tickets set number = 9")


# Money -----------------------------------------------------------------------------------------


def test_a_repair_is_charged_paid_in_two_parts_refunded_and_written_off(db: Connection, desk: dict[str, Any]) -> None:
    w, t = desk["workspace"], desk["ticket"]
    with as_user(db, desk["member"]):
        run(db, "select record_charge(%s, %s, 10000, 'c1', 'Screen')", [w, t])
        first = one(db, "select record_payment(%s, %s, 6000, 'card', 'p1')", [w, t])
        run(db, "select record_payment(%s, %s, 3000, 'cash', 'p2')", [w, t])
        assert balance(db, t) == {"charged": 10000, "paid": 9000, "refunded": 0, "written_off": 0, "pending": 1000}
        for call in ("record_refund(%(w)s, %(p)s, 1, 'x', 'r0')", "write_off(%(w)s, %(t)s, 1, 'x', 'w0')"):
            with refused("permission_denied"), db.transaction():
                run(db, f"select {call}", {"w": w, "t": t, "p": first})
    with as_user(db, desk["owner"]):
        run(db, "select record_refund(%s, %s, 500, 'late', 'r1')", [w, first])
        run(db, "select write_off(%s, %s, 1500, 'goodwill', 'w1')", [w, t])
        assert balance(db, t) == {"charged": 10000, "paid": 9000, "refunded": 500, "written_off": 1500, "pending": 0}
        report = run(db, "select method, received, refunded, net from cash_report order by 1")
        assert [tuple(r.values()) for r in report] == [("card", 6000, 500, 5500), ("cash", 3000, 0, 3000)]
        (customer,) = run(db, "select * from customer_balances")
        assert (customer["tickets"], customer["charged"], customer["pending"]) == (1, 10000, 0)
        trial = run(db, "select sum(debit) as debit, sum(credit) as credit from trial_balance")
        assert trial == [{"debit": 10000, "credit": 10000}]
    with as_user(db, desk["viewer"]):
        for view in ("ticket_balances", "customer_balances", "account_statement", "trial_balance", "cash_report"):
            assert run(db, f"select * from {view}") == []


def test_a_refund_never_exceeds_its_payment(db: Connection, desk: dict[str, Any]) -> None:
    w, t = desk["workspace"], desk["ticket"]
    refund = "select record_refund(%s, %s, %s, 'x', %s)"
    with as_user(db, desk["owner"]):
        payment = one(db, "select record_payment(%s, %s, 1000, 'card', 'p')", [w, t])
        part = one(db, refund, [w, payment, 400, "r1"])
        assert one(db, refund, [w, payment, 400, "r1"]) == part, "a replay"
        with refused("refund_exceeds_payment"), db.transaction():
            run(db, refund, [w, payment, 601, "r2"])
        run(db, refund, [w, payment, 600, "r3"])
        assert one(db, refund, [w, payment, 600, "r3"])
        for target, code in ((payment, "refund_exceeds_payment"), (part, "not_a_payment"), (t, "payment_not_found")):
            with refused(code), db.transaction():
                run(db, refund, [w, target, 1, "r4"])
    with refused("payment_refunded"), db.transaction():
        run(db, "select ledger.reverse(%s, %s, 'x')", [w, payment])
    run(db, "select ledger.reverse(%s, %s, 'x')", [w, part])
    with as_user(db, desk["owner"]):
        assert balance(db, t)["refunded"] == 600
        run(db, refund, [w, payment, 400, "r5"])
    assert run(db, "select * from ledger.findings(%s)", [w]) == []


def test_a_reversed_payment_is_not_refunded(db: Connection, desk: dict[str, Any]) -> None:
    w, t = desk["workspace"], desk["ticket"]
    with as_user(db, desk["owner"]):
        payment = one(db, "select record_payment(%s, %s, 1000, 'card', 'p')", [w, t])
    run(db, "select ledger.reverse(%s, %s, 'bounced')", [w, payment])
    with as_user(db, desk["owner"]):
        with refused("already_reversed"), db.transaction():
            run(db, "select record_refund(%s, %s, 1, 'x', 'r')", [w, payment])
        assert balance(db, t) == {"charged": 0, "paid": 0, "refunded": 0, "written_off": 0, "pending": 0}
        assert [tuple(r.values()) for r in run(db, "select received, refunded, net from cash_report")] == [(0, 0, 0)]


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.REPEATABLE_READ])
def test_refunds_at_once_stay_within_the_payment(connect: Connect, level: psycopg.IsolationLevel) -> None:
    setup = connect(autocommit=True)
    desk = make_desk(setup)
    with as_user(setup, desk["owner"]):
        payment = one(setup, "select record_payment(%s, %s, 1000, 'card', 'p')", [desk["workspace"], desk["ticket"]])
    gate, outcomes = threading.Barrier(8, timeout=60), []

    def refund(number: int) -> None:
        connection = connect()
        connection.isolation_level = level
        gate.wait()
        for n in range(8):
            try:
                with as_user(connection, desk["owner"]):
                    run(
                        connection,
                        "select record_refund(%s, %s, 90, 'x', %s)",
                        [desk["workspace"], payment, f"r{number}-{n}"],
                    )
                connection.commit()
                outcomes.append("ok")
            except psycopg.Error as error:
                connection.rollback()
                outcomes.append(refusal(error))

    threads = [threading.Thread(target=refund, args=[n]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) <= {"ok", "refund_exceeds_payment", "40001"}
    assert outcomes.count("ok") <= 11
    if level is psycopg.IsolationLevel.READ_COMMITTED:
        assert outcomes.count("ok") == 11
    assert one(setup, "select sum(amount) from ledger.transactions where kind = 'refund'") == 90 * outcomes.count("ok")
    assert run(setup, "select * from ledger.findings(%s)", [desk["workspace"]]) == []


def test_no_more_is_written_off_than_is_owed(db: Connection, desk: dict[str, Any]) -> None:
    w, t = desk["workspace"], desk["ticket"]
    with as_user(db, desk["owner"]):
        run(db, "select record_charge(%s, %s, 1000, 'c')", [w, t])
        with refused("write_off_exceeds_pending"), db.transaction():
            run(db, "select write_off(%s, %s, 1001, 'x', 'w')", [w, t])
        made = one(db, "select write_off(%s, %s, 1000, 'x', 'w')", [w, t])
        assert one(db, "select write_off(%s, %s, 1000, 'x', 'w')", [w, t]) == made, "a replay"


@pytest.mark.parametrize("amount", [0, -1, "NaN", 1.5, 10**15, 2**63, "Infinity", None])
def test_amounts_that_are_none_are_refused(db: Connection, desk: dict[str, Any], amount: Any) -> None:
    with as_user(db, desk["owner"]), refused("amount_invalid"), db.transaction():
        run(db, "select record_charge(%s, %s, %s::numeric, 'c')", [desk["workspace"], desk["ticket"], amount])


def test_unknown_methods_tickets_and_strangers_are_refused(db: Connection, desk: dict[str, Any]) -> None:
    w, t = desk["workspace"], desk["ticket"]
    pay = "select record_payment(%s, %s, 1, %s, 'p')"
    with as_user(db, desk["owner"]):
        for arguments, code in (
            ([w, t, "gold"], "method_unknown"),
            ([w, t, None], "method_unknown"),
            ([w, w, "cash"], "ticket_not_found"),
        ):
            with refused(code), db.transaction():
                run(db, pay, arguments)
    for who, code in ((make_user(db), "workspace_not_found"), (desk["viewer"], "permission_denied")):
        with as_user(db, who), refused(code), db.transaction():
            run(db, pay, [w, t, "cash"])
    run(db, "delete from tickets where id = %s", [t])
    with as_user(db, desk["owner"]), refused("ticket_not_found"), db.transaction():
        run(db, pay, [w, t, "cash"])


def test_money_of_another_workspace_is_not_there(db: Connection, desk: dict[str, Any]) -> None:
    other = make_desk(db)
    with as_user(db, desk["owner"]):
        payment = one(db, "select record_payment(%s, %s, 1000, 'card', 'p')", [desk["workspace"], desk["ticket"]])
    with as_user(db, other["owner"]):
        with refused("payment_not_found"), db.transaction():
            run(db, "select record_refund(%s, %s, 1, 'x', 'r')", [other["workspace"], payment])
        with refused("ticket_not_found"), db.transaction():
            run(db, "select record_charge(%s, %s, 1, 'c')", [other["workspace"], desk["ticket"]])


def test_a_ticket_keeps_its_currency_once_there_is_money_on_it(db: Connection, desk: dict[str, Any]) -> None:
    with as_user(db, desk["owner"]):
        run(db, "update tickets set currency = 'JPY' where id = %s", [desk["ticket"]])
        run(db, "select record_charge(%s, %s, 1000, 'c')", [desk["workspace"], desk["ticket"]])
        with refused("currency_in_use"), db.transaction():
            run(db, "update tickets set currency = 'EUR' where id = %s", [desk["ticket"]])
        with refused("currency_unknown"), db.transaction():
            run(
                db,
                "insert into tickets (workspace_id, customer_id, device, currency) values (%s, %s, 'x', 'QQQ')",
                [desk["workspace"], desk["customer"]],
            )
    assert one(db, "select currency from ledger.accounts where subject_id = %s", [desk["ticket"]]) == "JPY"


def test_over_http_an_amount_is_a_number_and_errors_have_their_status(rest: Rest, module_database: Database) -> None:
    with module_database.connect(autocommit=True) as connection:
        desk = make_desk(connection)
    body = {"workspace_id": str(desk["workspace"]), "ticket_id": str(desk["ticket"]), "key": "k", "amount": 1000}
    with rest.as_user(desk["owner"]) as http:
        assert http.post("/rpc/record_charge", json=body).status_code == 200
        assert http.post("/rpc/record_charge", json={**body, "amount": 2000}).status_code == 409
        assert http.post("/rpc/record_charge", json={**body, "key": "l", "amount": "NaN"}).status_code == 400
        assert (
            http.post("/rpc/record_charge", json={**body, "key": "l", "amount": 1e400 if False else 10**30}).status_code
            == 400
        )
        page = http.get(
            "/account_statement", params={"code": f"eq.receivable:{desk['ticket']}", "order": "number"}
        ).json()
        assert [(line["number"], line["debit"], line["balance"]) for line in page] == [(1, 1000, 1000)]


# A model ----------------------------------------------------------------------------------------

DEED = st.tuples(
    st.sampled_from(["charge", "payment", "refund", "write_off", "reverse"]), st.integers(1, 50), st.integers(0, 20)
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(deeds=st.lists(DEED, max_size=25))
def test_every_view_equals_the_sum_over_entries_at_every_step(_session_database: Database, deeds: list[Any]) -> None:
    chance = random.Random(1)
    with _session_database.connect() as db:
        desk = make_desk(db)
        w, t = desk["workspace"], desk["ticket"]
        payments: list[Any] = []
        posted: list[Any] = []
        for number, (deed, amount, index) in enumerate(deeds):
            key = f"k{number}"
            try:
                with db.transaction():
                    if deed == "reverse":
                        if posted:
                            run(db, "select ledger.reverse(%s, %s, %s)", [w, posted[index % len(posted)], key])
                        continue
                    with as_user(db, desk["owner"]):
                        if deed == "charge":
                            made = one(db, "select record_charge(%s, %s, %s, %s)", [w, t, amount, key])
                        elif deed == "payment":
                            method = chance.choice(["cash", "card"])
                            made = one(db, "select record_payment(%s, %s, %s, %s, %s)", [w, t, amount, method, key])
                            payments.append(made)
                        elif deed == "write_off":
                            made = one(db, "select write_off(%s, %s, %s, 'x', %s)", [w, t, amount, key])
                        elif payments:
                            made = one(
                                db,
                                "select record_refund(%s, %s, %s, 'x', %s)",
                                [w, payments[index % len(payments)], amount, key],
                            )
                        else:
                            continue
                    posted.append(made)
            except psycopg.Error as error:
                assert refusal(error) in {
                    "refund_exceeds_payment", "write_off_exceeds_pending", "already_reversed", "payment_refunded", "not_reversible",
                }  # fmt: skip
            with as_user(db, desk["owner"]):
                seen = balance(db, t)
                assert seen["pending"] == seen["charged"] - seen["paid"] + seen["refunded"] - seen["written_off"]
                assert min(seen[k] for k in ("charged", "paid", "refunded", "written_off")) >= 0
                trial = run(
                    db, "select coalesce(sum(debit), 0) as d, coalesce(sum(credit), 0) as c from trial_balance"
                )[0]
                assert trial["d"] == trial["c"]
                (cash,) = run(
                    db,
                    "select coalesce(sum(net), 0) as net, coalesce(sum(received - refunded), 0) as same from cash_report",
                )
                assert cash["net"] == cash["same"] == seen["paid"] - seen["refunded"]
                owed = run(db, "select pending from customer_balances")
                assert owed == [{"pending": seen["pending"]}]
            receivable = "select coalesce(sum(e.amount), 0) from ledger.entries e join ledger.accounts a on a.id = e.account_id where a.subject_id = %s"
            assert seen["pending"] == one(db, receivable, [t])
        assert run(db, "select * from ledger.findings(%s)", [w]) == []
        db.rollback()


def test_the_statement_pages_by_number_and_shows_each_balance(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    for code in ("x", "y"):
        run(db, "select ledger.open_account(%s, %s, 'asset', 'EUR')", [workspace, code])
    for n in range(1, 31):
        run(
            db, "select ledger.post(%s, %s, jsonb_build_array(jsonb_build_object('account', 'x', 'debit', %s::int), "
            "jsonb_build_object('account', 'y', 'credit', %s::int)))", [workspace, f"k{n}", n, n],
        )  # fmt: skip
    with as_user(db, owner):
        page = run(
            db,
            "select number, debit, balance from account_statement where code = 'x' and number > 10 order by number limit 5",
        )
    assert [tuple(r.values()) for r in page] == [(n, n, n * (n + 1) // 2) for n in range(11, 16)]
