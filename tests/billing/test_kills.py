"""Killed at every boundary, two at once, a backfill while webhooks arrive: nothing is lost and nothing is done twice.

Promises 12, 14 and 19.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..conftest import Database
from ..identities import make_user, make_workspace, one, run
from ..jobs.worker import Worker, until
from ..races import Connection
from ..support.stripe_server import Stripe
from .truth import assert_true, differences
from .world import Billing


@pytest.fixture
def live(database: Database, stripe: Stripe) -> Iterator[Billing]:
    """A database that commits, connected, with a catalogue."""
    with database.connect(autocommit=True) as connection:
        stripe.store.frozen = None
        made = Billing(connection, stripe)
        made.connect()
        made.sell()
        made.hear()
        made.work()
        yield made


@pytest.fixture
def place(live: Billing) -> uuid.UUID:
    workspace = make_workspace(live.connection, make_user(live.connection), plan="free")
    live.work()
    live.hear()
    live.work()
    return workspace


def worker(database: Database, stripe: Stripe, **more: Any) -> Worker:
    return Worker(
        database.url(), "--poll", "0.1", "--lease", "5", STRIPE_SECRET_KEY=stripe.key, STRIPE_API_URL=stripe.url,
        ROWHOUSE_PROVIDER_TIMEOUT="20", RESEND_API_KEY="", **more,
    )  # fmt: skip


def tied(billing: Billing, subscription: str) -> None:
    """Two events of one second arrive, so that Stripe must be asked."""
    store = billing.stripe.store
    now = store.now()
    for comment in ("one", "two"):
        store.get(subscription)["metadata"]["said"] = comment
        store.emit("customer.subscription.updated", store.get(subscription), now)
    billing.hear()


def is_quiet(connection: Connection) -> bool:
    # Mails wait for a provider that nobody runs here.
    jobs = one(connection, "select count(*) from jobs.jobs where queue = 'billing' and state <> 'failed'")
    return not jobs and not one(connection, "select count(*) from billing.events where outcome = 'waiting'")


def expire(connection: Connection) -> None:
    """Leases that the dead held are over."""
    run(connection, "update jobs.leases set expires_at = now() - interval '1 second'")
    run(connection, "select jobs.reap()")


def blocked(connection: Connection, query: str) -> int | None:
    """The backend that waits for a lock in a query like this, if one does."""
    rows = run(
        connection,
        "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like %s",
        [query],
    )
    return rows[0]["pid"] if rows else None


def test_killed_between_answer_and_job_the_event_is_processed_later(
    live: Billing, place: uuid.UUID, database: Database
) -> None:
    live.buy(place)
    live.hear()
    assert one(live.connection, "select count(*) from billing.events where outcome = 'waiting'") > 0
    with database.connect() as holder:
        run(holder, "select billing.lock_learning()")
        with worker(database, live.stripe) as dying:
            until(lambda: blocked(live.connection, "%jobs.execute%"), "the worker's wait")
            dying.process.kill()
            dying.wait()
        run(live.connection, "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'")
    assert live.access(place)["plan"] == "free"
    expire(live.connection)
    with worker(database, live.stripe):
        until(lambda: is_quiet(live.connection), "the end", 30)
    assert live.access(place)["plan"] == "pro"
    assert_true(live)


def test_killed_between_fetch_and_apply_it_is_fetched_again(
    live: Billing, place: uuid.UUID, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = live.buy(place)
    live.hear()
    live.work()
    live.stripe.delay = 0
    tied(live, subscription["id"])
    monkeypatch.setenv("ROWHOUSE_LATE_SECONDS", "3")
    live.stripe.faults = ["late"]
    asked = len(live.stripe.requests)
    with worker(database, live.stripe) as dying:
        until(lambda: len(live.stripe.requests) > asked, "the question")
        dying.process.kill()
        dying.wait()
    expire(live.connection)
    with worker(database, live.stripe):
        until(lambda: is_quiet(live.connection), "the end", 30)
    assert len(live.stripe.requests) >= asked + 2
    assert_true(live)


def test_killed_between_apply_and_commit_it_is_applied_once(
    live: Billing, place: uuid.UUID, database: Database
) -> None:
    subscription = live.buy(place)
    live.hear()
    live.work()
    live.stripe.call("DELETE", f"/v1/subscriptions/{subscription['id']}", {})
    tied(live, subscription["id"])
    with database.connect() as holder:
        run(holder, "select 1 from billing.workspace_plans where workspace_id = %s for update", [place])
        with worker(database, live.stripe) as dying:
            until(lambda: blocked(live.connection, "%billing.settle_call%"), "the wait of what is applied")
            dying.process.kill()
            dying.wait()
    # Whoever held the row let go; the dead worker's transaction has nobody to commit it.
    until(lambda: not blocked(live.connection, "%billing.settle_call%"), "the end of its transaction")
    assert live.access(place)["plan"] == "pro"
    expire(live.connection)
    with worker(database, live.stripe):
        until(lambda: is_quiet(live.connection), "the end", 30)
    assert live.access(place)["plan"] == "free"
    changes = run(
        live.connection,
        "select to_plan_id from billing.access_changes where workspace_id = %s order by changed_at",
        [place],
    )
    assert [row["to_plan_id"] for row in changes] == ["pro", "free"]
    assert_true(live)


def test_killed_after_stripe_has_acted_it_acts_once(
    live: Billing, place: uuid.UUID, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.buy(place)
    live.hear()
    live.work()
    invoice = next(live.stripe.store.every("invoice"))["id"]
    monkeypatch.setenv("ROWHOUSE_LATE_SECONDS", "3")
    live.stripe.faults = ["late"]
    run(live.connection, "select billing.refund(%s, %s, 900, 'test', 'k')", [place, invoice])
    with worker(database, live.stripe) as dying:
        until(lambda: list(live.stripe.store.every("refund")), "the refund at Stripe")
        dying.process.kill()
        dying.wait()
    expire(live.connection)
    with worker(database, live.stripe):
        until(lambda: is_quiet(live.connection), "the end", 30)
    assert [row["amount"] for row in live.stripe.store.every("refund")] == [900]
    live.hear()
    live.work()
    assert_true(live)


def test_two_workers_and_a_backfill_while_webhooks_arrive(
    live: Billing, place: uuid.UUID, database: Database, tmp_path: Path
) -> None:
    """Events come twice and in any order, some never; two workers and a backfill read the same objects meanwhile."""
    stripe, chance = live.stripe, random.Random(5)
    waiting: list[Any] = []
    stop = threading.Event()

    def post() -> None:
        with database.connect(autocommit=True) as connection:
            poster = Billing(connection, stripe)
            while not stop.is_set() or waiting:
                batch = [waiting.pop() for _ in range(len(waiting))]
                chance.shuffle(batch)
                for event in [*batch, *batch[:2]]:
                    poster.receive(stripe.shown(event, chance.choice(("2024-06-20", stripe.version))))
                time.sleep(0.02)

    stripe.store.listeners.append(lambda event: waiting.append(event) if chance.random() > 0.1 else None)
    poster = threading.Thread(target=post)
    poster.start()
    others = [make_workspace(live.connection, make_user(live.connection), plan="free") for _ in range(5)]
    with worker(database, stripe, log=tmp_path / "one"), worker(database, stripe):
        until(lambda: all(live.customer(workspace) for workspace in others), "their customers")
        backfill = one(live.connection, "select billing.start_run('sync')")
        walk = threading.Thread(target=lambda: _carry(database, stripe, str(backfill)))
        walk.start()
        for step in range(60):
            _act(live, chance.choice([place, *others]), chance, step)
        walk.join(60)
        stop.set()
        poster.join(60)
        until(lambda: is_quiet(live.connection), "the queue's end", 30)
        # What was dropped, the reconcile brings.
        live.stripe.store.listeners.pop()
        time.sleep(2.1)
        run(live.connection, "select billing.reconcile()")
        until(
            lambda: (
                is_quiet(live.connection)
                and not run(live.connection, "select 1 from billing.runs where finished_at is null")
            ),
            "the reconcile",
            30,
        )
        until(lambda: differences(live) == [], "agreement", 30)
    assert_true(live)
    assert one(live.connection, "select count(*) from jobs.jobs where state = 'failed'") == 0
    alone = run(live.connection, "select subject from ledger.findings(ledger.operator_books())")
    assert alone == []


def _carry(database: Database, stripe: Stripe, name: str) -> None:
    with database.connect(autocommit=True) as connection:
        Billing(connection, stripe).carry({"run": name})


def _act(live: Billing, workspace: uuid.UUID, chance: random.Random, step: int) -> None:
    stripe, customer = live.stripe, live.customer(workspace)
    alive = [row for row in stripe.store.every("subscription", customer=customer) if row["status"] != "canceled"]
    if not alive:
        live.buy(workspace)
    elif step % 3 == 0:
        stripe.call("DELETE", f"/v1/subscriptions/{alive[0]['id']}", {})
    elif step % 3 == 1:
        stripe.call(
            "POST",
            f"/v1/subscriptions/{alive[0]['id']}",
            {"cancel_at_period_end": chance.choice(("true", "false"))},
        )
    else:
        stripe.call("POST", f"/v1/customers/{customer}/balance_transactions", {"amount": -100, "currency": "usd"})
    time.sleep(chance.random() * 0.05)
