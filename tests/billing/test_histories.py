"""Events in every order, twice, never, in the same second: in the end the database knows what Stripe knows.

Promises 12, 13, 16 and 17.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..identities import make_user, make_workspace, one, run
from ..support.stripe_server.store import Object
from .truth import assert_true, differences, granted, standing
from .world import Billing, price_id

DAY = 86_400
OLD, NEW = "2024-06-20", "2026-10-28.endive"


@pytest.fixture
def history(billing: Billing, workspace: uuid.UUID) -> list[Object]:
    """Six events of one subscription, each in a second of its own: bought, declined, paid, upgraded, ending, ended."""
    stripe, store = billing.stripe, billing.stripe.store
    billing.hear()
    billing.work()
    subscription = billing.buy(workspace)
    stripe.set_card(billing.customer(workspace), "pm_card_chargeDeclined")
    stripe.advance(31 * DAY)
    stripe.advance(60)
    invoice = store.get(subscription["id"])["latest_invoice"]
    stripe.call("POST", f"/v1/invoices/{invoice}/pay", {"payment_method": "pm_card_visa"})
    stripe.advance(60)
    stripe.call("POST", f"/v1/subscriptions/{subscription['id']}", {"cancel_at_period_end": "true"})
    stripe.advance(60)
    stripe.call("DELETE", f"/v1/subscriptions/{subscription['id']}", {})
    billing.tick()
    events = [event for event in store.events if event["data"]["object"]["object"] == "subscription"]
    by_second = {event["created"]: event for event in events}
    chosen = [by_second[second] for second in sorted(by_second)]
    # Bought and paid happen in one second: the first stands for the sixth.
    chosen.insert(0, {**events[0], "created": events[0]["created"] - 1})
    assert len(chosen) == 6, [event["created"] for event in chosen]
    for event in [event for event in store.events[billing.heard :] if event not in events]:
        billing.receive(stripe.shown(event))
    billing.work()
    billing.heard = len(store.events)
    return chosen


def deliver(billing: Billing, events: Sequence[Object]) -> None:
    """Each event is processed before the next arrives; every second one is in the old shape."""
    for place, event in enumerate(events):
        billing.receive(billing.stripe.shown(event, OLD if place % 2 else NEW))
        billing.work()


def each(billing: Billing, orders: Iterator[Sequence[Object]]) -> Iterator[Sequence[Object]]:
    """Orders of events, each in a world of its own."""
    for order in orders:
        with billing.connection.transaction(force_rollback=True):
            yield order


# A subscription that never was active gives nothing; this one was, was past due, and has ended.
EVER = {("pro", "active"), ("pro", "grace"), ("free", "free")}


def test_every_permutation_of_six_events_ends_as_stripe_has_it(
    billing: Billing, workspace: uuid.UUID, history: list[Object]
) -> None:
    count = 0
    for order in each(billing, itertools.permutations(history)):
        deliver(billing, order)
        assert differences(billing) == [], [event["created"] for event in order]
        assert billing.access(workspace)["state"] == "free"
        assert granted(billing, workspace) <= EVER
        count += 1
    assert count == 720


def test_every_position_of_a_duplicate_changes_nothing(
    billing: Billing, workspace: uuid.UUID, history: list[Object]
) -> None:
    orders = (
        [*history[:place], again, *history[place:]] for again in history for place in range(history.index(again) + 1, 7)
    )
    for order in each(billing, orders):
        deliver(billing, order)
        assert differences(billing) == []
        assert granted(billing, workspace) <= EVER
        assert one(billing.connection, "select count(*) from billing.events where object = 'subscription'") == 6


def test_of_every_pair_in_the_same_second_neither_is_believed(
    billing: Billing, workspace: uuid.UUID, history: list[Object]
) -> None:
    for one_, other in itertools.combinations(range(6), 2):
        # All between them happened in that second, too.
        tied = [
            {**event, "created": history[one_]["created"]} if one_ <= place <= other else event
            for place, event in enumerate(history)
        ]
        swapped = [*tied]
        swapped[one_], swapped[other] = swapped[other], swapped[one_]
        for order in each(billing, iter((tied, swapped))):
            before = len(billing.stripe.requests)
            deliver(billing, order)
            assert differences(billing) == []
            assert len(billing.stripe.requests) > before, "Stripe was not asked"
            assert granted(billing, workspace) <= EVER


def test_every_single_drop_is_healed_by_the_next_reconcile_and_reported(
    billing: Billing, workspace: uuid.UUID, history: list[Object]
) -> None:
    for dropped in each(billing, iter([[event] for event in history])):
        deliver(billing, [event for event in history if event not in dropped])
        is_last = dropped[0] is history[-1]
        assert bool(differences(billing)) == is_last
        run(billing.connection, "update billing.settings set events_seen_at = null")
        reconciled = one(billing.connection, "select billing.reconcile('{subscription}')")
        billing.work()
        assert differences(billing) == []
        assert billing.access(workspace)["state"] == "free"
        found = run(billing.connection, "select * from billing.drift where run_id = %s", [reconciled])
        assert sum(row["missing"] + row["different"] for row in found) <= 1


def test_a_lost_event_is_found_in_stripes_lists_even_when_its_events_are_gone(
    billing: Billing, workspace: uuid.UUID, history: list[Object]
) -> None:
    deliver(billing, history[:-1])
    billing.stripe.store.events.clear()
    reconciled = one(billing.connection, "select billing.reconcile('{subscription}')")
    billing.work()
    assert differences(billing) == []
    assert billing.access(workspace)["state"] == "free"
    found = run(billing.connection, "select * from billing.drift where run_id = %s", [reconciled])
    # It is alive no more, so it was not in the list; and that is what was found.
    assert [(row["object"], row["missing"] + row["different"]) for row in found] == [("subscription", 1)]


def test_drift_is_reported_as_counts_and_sums_of_money(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    run(billing.connection, "update billing.objects set data = data || '{\"amount_paid\": 1}' where object = 'invoice'")
    run(billing.connection, "delete from billing.objects where object = 'charge'")
    billing.stripe.advance(60)
    billing.tick()
    reconciled = one(billing.connection, "select billing.reconcile()")
    billing.work()
    found = {
        row["object"]: row
        for row in run(billing.connection, "select * from billing.drift where run_id = %s", [reconciled])
    }
    assert (found["invoice"]["different"], found["invoice"]["amounts_off"]) == (1, {"usd": 2899})
    assert (found["charge"]["missing"], found["charge"]["amounts_off"]) == (1, {"usd": 2900})
    assert found["customer"]["different"] == 0
    assert_true(billing)
    again = one(billing.connection, "select billing.reconcile()")
    billing.work()
    assert one(billing.connection, "select sum(missing + different) from billing.drift where run_id = %s", [again]) == 0


STATES = {
    "trialing": ("pro", "trialing", "trialing", True),
    "active": ("pro", "active", "active", True),
    "canceling": ("pro", "active", "canceling", True),
    "past_due": ("pro", "grace", "past_due", True),
    "unpaid": ("pro", "grace", "unpaid", True),
    "unpaid_for_long": ("pro", "restricted", "grace_over", False),
    "paused": ("pro", "restricted", "paused", False),
    "collection_paused": ("pro", "restricted", "collection_paused", False),
    "refunded": ("pro", "restricted", "refunded", False),
    "partly_refunded": ("pro", "active", "active", True),
    "disputed": ("pro", "grace", "disputed", True),
    "dispute_lost": ("pro", "restricted", "dispute_lost", False),
    "dispute_won": ("pro", "active", "active", True),
    "incomplete": ("free", "free", "default_plan", True),
    "incomplete_expired": ("free", "free", "default_plan", True),
    "canceled": ("free", "free", "default_plan", True),
}


def bring_to(billing: Billing, workspace: uuid.UUID, state: str) -> None:
    """Has Stripe bring a subscription into a state."""
    stripe = billing.stripe
    ways: dict[str, dict[str, Any]] = {
        "trialing": {"trial_period_days": 14}, "incomplete": {"payment_behavior": "default_incomplete"},
        "incomplete_expired": {"payment_behavior": "default_incomplete"},
        "paused": {"trial_period_days": 14, "trial_settings": {"end_behavior": {"missing_payment_method": "pause"}}},
    }  # fmt: skip
    more = ways.get(state, {})
    subscription = billing.buy(workspace, **more)
    path = f"/v1/subscriptions/{subscription['id']}"
    charges = list(stripe.store.every("charge"))
    if state == "canceling":
        stripe.call("POST", path, {"cancel_at_period_end": "true"})
    elif state in ("past_due", "unpaid", "unpaid_for_long"):
        stripe.set_card(billing.customer(workspace), "pm_declined")
        stripe.advance(31 * DAY)
        if state != "past_due":
            stripe.advance(8 * DAY)
        if state == "unpaid_for_long":
            stripe.advance(8 * DAY)
    elif state == "paused":
        stripe.set_card(billing.customer(workspace), "")
        stripe.advance(15 * DAY)
    elif state == "collection_paused":
        stripe.call("POST", path, {"pause_collection": {"behavior": "void"}})
    elif state == "refunded":
        stripe.call("POST", "/v1/refunds", {"charge": charges[0]["id"]})
    elif state == "partly_refunded":
        stripe.call("POST", "/v1/refunds", {"charge": charges[0]["id"], "amount": 2899})
    elif state.startswith("dispute"):
        dispute = stripe.dispute(charges[0]["id"])
        if state != "disputed":
            stripe.close_dispute(dispute["id"], state.removeprefix("dispute_"))
    elif state == "incomplete_expired":
        stripe.advance(DAY)
    elif state == "canceled":
        stripe.call("DELETE", path, {})


@pytest.mark.parametrize("state", STATES)
def test_each_state_gives_the_same_access_in_every_version_and_order(
    billing: Billing, workspace: uuid.UUID, state: str
) -> None:
    bring_to(billing, workspace, state)
    billing.tick()
    events = billing.stripe.store.events[billing.heard :]
    seen = []
    for version, order in itertools.product((OLD, "2025-06-30.basil", NEW), (events, list(reversed(events)))):
        with billing.connection.transaction(force_rollback=True):
            for event in order:
                billing.receive(billing.stripe.shown(event, version))
            billing.work()
            seen.append(standing(billing, workspace))
            assert_true(billing)
    assert all(row == seen[0] for row in seen)
    row = seen[0]
    assert (row["plan"], row["state"], row["reason"], row["can_write"]) == STATES[state]


def test_everything_asked_in_the_old_version_gives_the_same(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    expected = standing(billing, workspace)
    run(billing.connection, "delete from billing.objects where object not in ('customer', 'price', 'product')")
    run(billing.connection, "update billing.settings set api_version = %s", [OLD])
    one(billing.connection, "select billing.start_run('sync')")
    billing.carry({"run": str(one(billing.connection, "select id from billing.runs where finished_at is null"))})
    billing.work()
    assert one(
        billing.connection, "select data ? 'current_period_end' from billing.objects where object = 'subscription'"
    )
    assert standing(billing, workspace) == expected
    assert differences(billing) == []


# Anything at all ----------------------------------------------------------------------------------

DEEDS = (
    "buy",
    "upgrade",
    "cancel",
    "resume",
    "end",
    "decline",
    "repair",
    "refund",
    "dispute",
    "close",
    "month",
    "week",
    "credit",
    "second",
    "note",
)


def act(billing: Billing, workspace: uuid.UUID, deed: str) -> None:
    """Something happens at Stripe, if it can."""
    stripe, store = billing.stripe, billing.stripe.store
    customer = billing.customer(workspace)
    live = [
        row
        for row in store.every("subscription", customer=customer)
        if row["status"] not in ("canceled", "incomplete_expired")
    ]
    charges = [
        row
        for row in store.every("charge", status="succeeded")
        if row["amount_refunded"] < row["amount"] and not row["disputed"]
    ]
    path = f"/v1/subscriptions/{live[-1]['id']}" if live else ""
    if deed == "buy" and not live:
        billing.buy(workspace, "pro_monthly")
    elif deed == "upgrade" and live:
        item = live[-1]["items"]["data"][0]
        other = "pro_yearly" if item["price"]["recurring"]["interval"] == "month" else "pro_monthly"
        stripe.call(
            "POST",
            path,
            {"items": [{"id": item["id"], "price": price_id(billing, other)}], "proration_behavior": "always_invoice"},
        )
    elif deed == "cancel" and live:
        stripe.call("POST", path, {"cancel_at_period_end": "true"})
    elif deed == "resume" and live:
        stripe.call("POST", path, {"cancel_at_period_end": "false"})
    elif deed == "end" and live:
        stripe.call("DELETE", path, {})
    elif deed == "decline":
        stripe.set_card(customer, "pm_declined")
    elif deed == "repair":
        stripe.set_card(customer, "pm_card_visa")
        for invoice in list(store.every("invoice", status="open")):
            stripe.call("POST", f"/v1/invoices/{invoice['id']}/pay", {})
    elif deed == "refund" and charges:
        left = charges[-1]["amount"] - charges[-1]["amount_refunded"]
        stripe.call("POST", "/v1/refunds", {"charge": charges[-1]["id"], "amount": max(1, left // 2)})
    elif deed == "dispute" and charges:
        stripe.dispute(charges[-1]["id"])
    elif deed == "close":
        for dispute in list(store.every("dispute", status="needs_response")):
            stripe.close_dispute(dispute["id"], "won" if len(dispute["id"]) % 2 else "lost")
    elif deed == "credit":
        stripe.call("POST", f"/v1/customers/{customer}/balance_transactions", {"amount": -700, "currency": "usd"})
    elif deed == "note":
        for invoice in [row for row in store.every("invoice", status="paid") if row["amount_paid"] > 500][-1:]:
            stripe.call("POST", "/v1/credit_notes", {"invoice": invoice["id"], "amount": 100, "credit_amount": 100})
    elif deed in ("month", "week", "second"):
        stripe.advance({"month": 31 * DAY, "week": 7 * DAY, "second": 1}[deed])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    deeds=st.lists(st.sampled_from(DEEDS), min_size=1, max_size=14),
    seed=st.integers(0, 2**32),
    loss=st.sampled_from((0.0, 0.2, 1.0)),
)
def test_whatever_happens_and_however_it_is_told_the_truth_is_known_after_a_reconcile(
    billing: Billing, deeds: list[str], seed: int, loss: float
) -> None:
    chance = Random(seed)
    with billing.connection.transaction(force_rollback=True):
        snapshot = billing.stripe.checkpoint()
        try:
            run(billing.connection, "set constraints all deferred")
            workspace = make_workspace(billing.connection, make_user(billing.connection), plan="free")
            billing.heard = len(billing.stripe.store.events)
            billing.work()
            for deed in deeds:
                act(billing, workspace, deed)
                billing.tick()
            events = [event for event in billing.stripe.store.events[billing.heard :] if chance.random() >= loss]
            events += [event for event in events if chance.random() < 0.2]
            chance.shuffle(events)
            for event in events:
                billing.receive(billing.stripe.shown(event, chance.choice((OLD, NEW))))
                if chance.random() < 0.5:
                    billing.work()
            billing.work()
            if loss == 0:
                assert differences(billing) == []
            one(billing.connection, "select billing.reconcile()")
            billing.work()
            assert_true(billing)
            run(billing.connection, "select billing.advance()")
            subscriptions = [
                row
                for row in billing.stripe.store.every("subscription")
                if row["status"] in ("active", "trialing", "past_due")
            ]
            if not subscriptions:
                assert billing.access(workspace)["plan"] == "free" or billing.access(workspace)["state"] == "restricted"
            assert all(plan in ("free", "pro") for plan, _ in granted(billing, workspace))
        finally:
            billing.stripe.restore(snapshot)
