"""Usage: once per key, late, in bulk, capped, rolled up, pushed once; and seats."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from ..identities import add_member, as_service, as_user, make_user, make_workspace, one, refused, run
from ..races import Call, Connection
from .world import Billing

HOUR = 3_600


def now(billing: Billing) -> datetime:
    return datetime.fromtimestamp(billing.stripe.store.now(), UTC)


def record(
    connection: Connection,
    workspace: uuid.UUID,
    quantity: int = 1,
    key: str | None = None,
    at: Any = None,
    meter: str = "api_calls",
) -> bool:
    fresh: bool = one(
        connection,
        "select billing.record_usage(%s, %s, %s, %s, %s)",
        [workspace, meter, quantity, key or uuid.uuid4().hex, at],
    )
    return fresh


def hours(connection: Connection, workspace: uuid.UUID) -> list[tuple[int, int, int]]:
    rows = run(
        connection,
        "select quantity, event_count, pushed from billing.usage_hours where workspace_id = %s order by hour",
        [workspace],
    )
    return [(row["quantity"], row["event_count"], row["pushed"]) for row in rows]


def used(connection: Connection, workspace: uuid.UUID) -> int:
    return int(
        one(
            connection,
            "select coalesce(sum(quantity), 0) from billing.usage_periods where workspace_id = %s",
            [workspace],
        )
    )


def test_a_key_counts_once_and_not_for_something_else(billing: Billing, workspace: uuid.UUID) -> None:
    assert record(billing.connection, workspace, 5, "k") is True
    assert record(billing.connection, workspace, 5, "k") is False
    with refused("idempotency_key_reused"), billing.connection.transaction():
        record(billing.connection, workspace, 6, "k")
    assert hours(billing.connection, workspace) == [(5, 1, 0)]
    assert used(billing.connection, workspace) == 5
    other = make_workspace(billing.connection, make_user(billing.connection), plan="free")
    assert record(billing.connection, other, 6, "k") is True


@pytest.mark.parametrize(
    ("quantity", "key", "days", "meter"),
    [(0, "k", 0, "api_calls"), (-5, "k", 0, "api_calls"), (10**13, "k", 0, "api_calls"), (1, "", 0, "api_calls"), (1, "x" * 201, 0, "api_calls"),
     (1, "k", 1, "api_calls"), (1, "k", -31, "api_calls"), (1, "k", 0, "steps")],
)  # fmt: skip
def test_wrong_usage_is_refused_and_nothing_is_counted(
    billing: Billing, workspace: uuid.UUID, quantity: int, key: str, days: int, meter: str
) -> None:
    at = now(billing) + timedelta(days=days)
    for bulk in (False, True):
        with refused("usage_invalid"), billing.connection.transaction():
            if bulk:
                events = [
                    {"meter": "api_calls", "quantity": 1, "idempotency_key": "good"},
                    {"meter": meter, "quantity": quantity, "idempotency_key": key, "at": at.isoformat()},
                ]
                run(billing.connection, "select billing.record_usage_many(%s, %s)", [workspace, Jsonb(events)])
            else:
                run(
                    billing.connection,
                    "select billing.record_usage(%s, %s, %s, %s, %s)",
                    [workspace, meter, quantity, key, at],
                )
    assert hours(billing.connection, workspace) == []
    assert used(billing.connection, workspace) == 0


def test_bulk_is_all_or_none_and_knows_its_duplicates(billing: Billing, workspace: uuid.UUID) -> None:
    at = now(billing).replace(minute=30) - timedelta(hours=1)
    events = [
        {
            "meter": "api_calls",
            "quantity": place % 3 + 1,
            "idempotency_key": f"k{place}",
            "at": (at - timedelta(hours=place % 4)).isoformat(),
        }
        for place in range(12)
    ]
    many = "select billing.record_usage_many(%s, %s)"
    assert one(billing.connection, many, [workspace, Jsonb([*events, events[0]])]) == 12
    assert one(billing.connection, many, [workspace, Jsonb(events)]) == 0
    assert sum(row[0] for row in hours(billing.connection, workspace)) == 24 == used(billing.connection, workspace)
    assert len(hours(billing.connection, workspace)) == 4
    assert one(billing.connection, "select billing.rebuild_usage(%s)", [workspace]) == 0
    with refused("idempotency_key_reused"), billing.connection.transaction():
        run(
            billing.connection,
            many,
            [
                workspace,
                Jsonb(
                    [
                        {"meter": "api_calls", "quantity": 9, "idempotency_key": "k0"},
                        {"meter": "api_calls", "quantity": 1, "idempotency_key": "new"},
                    ]
                ),
            ],
        )
    assert not run(billing.connection, "select 1 from billing.usage_events where idempotency_key = 'new'")
    for wrong in (Jsonb({}), Jsonb("x"), Jsonb([{"n": 1}] * 10_001)):
        with refused("usage_too_many"), billing.connection.transaction():
            run(billing.connection, many, [workspace, wrong])
    for wrong in (
        Jsonb([5]),
        Jsonb([None]),
        Jsonb([{"meter": "api_calls", "quantity": "1e3", "idempotency_key": "q"}]),
        Jsonb([{"meter": "api_calls", "quantity": 1, "idempotency_key": "q", "at": "soon"}]),
    ):
        with refused("usage_invalid"), billing.connection.transaction():
            run(billing.connection, many, [workspace, wrong])
    with refused("workspace_not_found"), billing.connection.transaction():
        run(billing.connection, many, [uuid.uuid4(), Jsonb(events)])


def test_a_hard_cap_is_never_exceeded_and_is_reached(billing: Billing, workspace: uuid.UUID) -> None:
    # The free plan's cap is 100, hard.
    assert record(billing.connection, workspace, 99)
    with refused("usage_cap_reached"), billing.connection.transaction():
        record(billing.connection, workspace, 2)
    assert record(billing.connection, workspace, 1)
    with refused("usage_cap_reached"), billing.connection.transaction():
        record(billing.connection, workspace, 1)
    assert used(billing.connection, workspace) == 100
    kinds = [
        row["kind"]
        for row in run(billing.connection, "select kind from public.notifications where kind = 'billing.usage_cap'")
    ]
    assert kinds == ["billing.usage_cap"]
    # The next period begins anew.
    billing.stripe.advance(40 * 24 * HOUR)
    billing.tick()
    assert record(billing.connection, workspace, 100)


def test_a_soft_cap_is_told_of_once(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    for _ in range(4):
        record(billing.connection, workspace, 2000)
    assert used(billing.connection, workspace) == 8000
    assert one(billing.connection, "select count(*) from public.notifications where kind = 'billing.usage_cap'") == 1


def test_a_hard_cap_holds_against_sixteen_at_once(database: Any) -> None:
    with database.connect(autocommit=True) as setup:
        run(setup, "insert into billing.meters (meter, name) values ('calls', 'Calls')")
        run(setup, "insert into billing.plan_meters (plan_id, meter, cap, is_hard) values ('free', 'calls', 10, true)")
        workspace = make_workspace(setup, make_user(setup), plan="free")
        connections = [database.connect(autocommit=True) for _ in range(16)]
        calls = [Call(connection, lambda c: record(c, workspace, 1, meter="calls")) for connection in connections]
        outcomes = [call.result() for call in calls]
        for connection in connections:
            connection.close()
        assert sorted(outcomes) == ["ok"] * 10 + ["usage_cap_reached"] * 6
        assert used(setup, workspace) == 10


def subscribe(billing: Billing, workspace: uuid.UUID) -> Any:
    """A subscription with the metered price of the plan."""
    made = billing.buy(workspace)
    prices = billing.stripe.call("GET", "/v1/prices", {"lookup_keys": ["pro_calls"]})["data"]
    billing.stripe.call("POST", f"/v1/subscriptions/{made['id']}", {"items": [{"price": prices[0]["id"]}]})
    billing.stripe.advance(5)
    billing.settle()
    return made


def test_stripe_is_told_of_each_hour_once_and_of_what_comes_late(billing: Billing, workspace: uuid.UUID) -> None:
    subscribe(billing, workspace)
    at = now(billing)
    for _ in range(3):
        record(billing.connection, workspace, 400, at=at)
    push = "select billing.push_usage()"
    assert one(billing.connection, push) == 0, "the hour is not over"
    billing.stripe.advance(2 * HOUR + 600)
    billing.tick()
    assert one(billing.connection, push) == 1
    assert one(billing.connection, push) == 0
    billing.stripe.faults = ["lost", "500"]
    billing.work()
    assert [row["payload"]["value"] for row in billing.stripe.store.meter_events.values()] == ["1200"]
    record(billing.connection, workspace, 50, at=at)
    assert one(billing.connection, push) == 1
    billing.work()
    sent = list(billing.stripe.store.meter_events.values())
    assert [row["payload"]["value"] for row in sent] == ["1200", "50"]
    assert len({row["identifier"] for row in sent}) == 2
    assert one(billing.connection, "select count(*) from billing.usage_pushes where pushed_at is null") == 0
    billing.stripe.advance(31 * 24 * HOUR)
    billing.settle()
    invoice = list(billing.stripe.store.every("invoice"))[-1]
    # 1,250 used, 1,000 included, 2 cents each.
    assert [line["amount"] for line in invoice["lines"]["data"] if line["quantity"] == 1250] == [500]


def test_who_pays_for_no_meter_is_not_told_of(billing: Billing, workspace: uuid.UUID) -> None:
    record(billing.connection, workspace, 10)
    billing.stripe.advance(3 * HOUR)
    billing.tick()
    assert one(billing.connection, "select billing.push_usage()") == 0


def test_members_see_what_is_used_against_what_is_included(billing: Billing, workspace: uuid.UUID) -> None:
    subscribe(billing, workspace)
    record(billing.connection, workspace, 30)
    viewer = add_member(billing.connection, workspace, "viewer")
    with as_user(billing.connection, viewer):
        rows = run(billing.connection, "select * from public.metered_usage where workspace_id = %s", [workspace])
    assert [(row["meter"], row["used"], row["included"], row["cap"], row["is_hard"]) for row in rows] == [
        ("api_calls", 30, 1000, 5000, False)
    ]
    assert (rows[0]["ends_at"] - rows[0]["starts_at"]).days in (30, 31)


def test_usage_is_recorded_by_servers_alone(billing: Billing, workspace: uuid.UUID, owner: uuid.UUID) -> None:
    with as_user(billing.connection, owner), refused("42501"), billing.connection.transaction():
        run(billing.connection, "select public.record_usage(%s, 'api_calls', 1, 'k')", [workspace])
    with as_service(billing.connection):
        assert one(billing.connection, "select public.record_usage(%s, 'api_calls', 1, 'k')", [workspace]) is True
        assert (
            one(
                billing.connection,
                "select public.record_usage_many(%s, %s)",
                [workspace, Jsonb([{"meter": "api_calls", "quantity": 1, "idempotency_key": "k2"}])],
            )
            == 1
        )


# Seats --------------------------------------------------------------------------------------------


def test_seats_follow_the_members_and_are_audited(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace, "seat_monthly")
    billing.settle()
    assert (billing.access(workspace)["seats"], billing.access(workspace)["seats_used"]) == (1, 1)
    people = [add_member(billing.connection, workspace, "member") for _ in range(3)]
    add_member(billing.connection, workspace, "viewer")
    billing.stripe.advance(60)
    billing.settle()

    def quantity() -> int:
        return int(next(billing.stripe.store.every("subscription"))["items"]["data"][0]["quantity"])

    assert quantity() == 4
    billing.stripe.advance(60)
    billing.settle()
    assert (billing.access(workspace)["seats"], billing.access(workspace)["seats_used"]) == (4, 4)
    for user in people[:2]:
        run(billing.connection, "select tenancy.drop_member(%s, %s)", [workspace, user])
    billing.stripe.advance(60)
    billing.settle()
    assert quantity() == 2
    records = run(
        billing.connection,
        "select before, after from audit.inbox where action = 'billing.seats' and workspace_id = %s",
        [workspace],
    )
    assert [(row["before"]["seats"], row["after"]["seats"]) for row in records] == [(1, 4), (4, 2)]


def test_nobody_counts_seats_where_they_are_not_paid_for(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    add_member(billing.connection, workspace, "member")
    assert one(billing.connection, "select count(*) from jobs.jobs where kind = 'billing.seats'") == 0
