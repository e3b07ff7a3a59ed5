"""The inbox: what is no event, what is another world's, what is not known; and what becomes of the rest."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from ..identities import make_user, make_workspace, one, refused, run
from .truth import assert_true, differences
from .world import Billing


def event(billing: Billing, **more: Any) -> dict[str, Any]:
    """An event about a customer that nobody knows."""
    made: dict[str, Any] = {
        "id": f"evt_{uuid.uuid4().hex}", "object": "event", "type": "customer.created", "livemode": False,
        "created": billing.stripe.store.now(), "api_version": billing.stripe.version,
        "data": {"object": {"id": "cus_stranger", "object": "customer", "livemode": False, "metadata": {}, "balance": 0}},
    }  # fmt: skip
    return {**made, **more}


@pytest.mark.parametrize(
    "broken",
    [
        {"id": None}, {"id": "in_1"}, {"id": "evt_" + "x" * 300}, {"type": None}, {"type": "a b"}, {"created": None}, {"created": "soon"},
        {"created": -1}, {"created": 10**15}, {"data": {}}, {"data": {"object": []}}, {"data": None},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_event_is_refused_and_nothing_is_kept(billing: Billing, broken: dict[str, Any]) -> None:
    before = one(billing.connection, "select count(*) from billing.events")
    with refused("event_invalid"), billing.connection.transaction():
        run(billing.connection, "select billing.receive(%s)", [Jsonb(event(billing, **broken))])
    nothing: Any
    for nothing in ([], "evt_1", None, 5):
        with refused("event_invalid"), billing.connection.transaction():
            run(billing.connection, "select billing.receive(%s)", [Jsonb(nothing)])
    assert one(billing.connection, "select count(*) from billing.events") == before


@pytest.mark.parametrize(
    ("more", "detail"),
    [
        ({"livemode": True}, "other mode"),
        ({"account": "acct_somebody_else"}, "other account"),
        ({"type": "payout.paid", "data": {"object": {"id": "po_1", "object": "payout"}}}, "unknown object"),
        ({"type": "quite.new", "data": {"object": {"id": "qn_1", "object": "quite.new"}}}, "unknown object"),
        ({"type": "invoice.upcoming", "data": {"object": {"object": "invoice"}}}, "no id"),
    ],
)
def test_what_means_nothing_here_is_kept_and_ignored(billing: Billing, more: dict[str, Any], detail: str) -> None:
    sent = event(billing, **more)
    assert billing.receive(sent) is True
    assert billing.receive(sent) is False
    row = run(billing.connection, "select outcome, detail, payload from billing.events where id = %s", [sent["id"]])[0]
    assert (row["outcome"], row["detail"], row["payload"]) == ("ignored", detail, sent)
    objects = one(billing.connection, "select count(*) from billing.objects")
    billing.work()
    assert one(billing.connection, "select count(*) from billing.objects") == objects
    with refused("event_not_learnt"), billing.connection.transaction():
        run(billing.connection, "select billing.replay(%s)", [sent["id"]])


def test_one_that_is_none_takes_no_other_along(billing: Billing) -> None:
    good = event(billing)
    outcomes = one(billing.connection, "select billing.receive_many(%s)", [Jsonb([{"no": "event"}, good, good])])
    assert outcomes == [None, True, False]


def test_an_unknown_customer_is_kept_and_is_nobodys(billing: Billing) -> None:
    billing.receive(event(billing))
    billing.work()
    assert one(billing.connection, "select object from billing.objects where id = 'cus_stranger'") == "customer"
    assert not run(billing.connection, "select 1 from billing.customers where stripe_id = 'cus_stranger'")


def test_a_customer_that_names_a_workspace_takes_no_other_ones_place(billing: Billing, workspace: uuid.UUID) -> None:
    own = billing.customer(workspace)
    thief = event(billing)
    thief["data"]["object"]["metadata"] = {"workspace_id": str(workspace)}
    billing.receive(thief)
    billing.work()
    assert billing.customer(workspace) == own
    other = make_workspace(billing.connection, make_user(billing.connection), plan="free")
    hijack = event(billing, type="customer.updated", created=billing.stripe.store.now() + 5)
    hijack["data"]["object"] = {**thief["data"]["object"], "id": own, "metadata": {"workspace_id": str(other)}}
    billing.receive(hijack)
    run(billing.connection, "select jobs.execute(jobs.claim_for_postgres())")
    assert billing.customer(workspace) == own


def test_a_deleted_customer_takes_its_plan_along_and_the_workspace_can_buy_again(
    billing: Billing, workspace: uuid.UUID
) -> None:
    old = billing.customer(workspace)
    billing.buy(workspace)
    billing.settle()
    assert billing.access(workspace)["plan"] == "pro"
    billing.stripe.advance(10)
    billing.stripe.call("DELETE", f"/v1/customers/{old}", {})
    billing.settle()
    assert billing.access(workspace)["plan"] == "free"
    assert one(billing.connection, "select is_deleted from billing.objects where id = %s", [old])
    run(billing.connection, "select billing.make_customer(%s)", [workspace])
    billing.settle()
    assert billing.customer(workspace) != old
    billing.buy(workspace)
    billing.settle()
    assert billing.access(workspace)["plan"] == "pro"


def test_a_tombstone_is_not_brought_back_by_an_older_event(billing: Billing, workspace: uuid.UUID) -> None:
    coupon = billing.stripe.call("POST", "/v1/coupons", {"percent_off": "10"})
    billing.stripe.advance(5)
    billing.stripe.call("DELETE", f"/v1/coupons/{coupon['id']}", {})
    billing.tick()
    made, gone = billing.stripe.store.events[-2:]
    billing.receive(billing.stripe.shown(gone))
    billing.work()
    billing.receive(billing.stripe.shown(made))
    billing.work()
    assert one(billing.connection, "select is_deleted from billing.objects where id = %s", [coupon["id"]])
    assert differences(billing) == []


def test_children_may_arrive_before_their_parents(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    charge = next(billing.stripe.store.every("charge"))
    billing.stripe.advance(5)
    billing.stripe.call("POST", "/v1/refunds", {"charge": charge["id"], "amount": 100})
    billing.tick()
    waiting = billing.stripe.store.events[billing.heard :]
    refunds = [row for row in waiting if row["data"]["object"]["object"] == "refund"]
    for row in refunds:
        billing.receive(billing.stripe.shown(row))
    billing.work()
    assert (
        one(billing.connection, "select count(*) from ledger.transactions where workspace_id = ledger.operator_books()")
        == 0
    )
    for row in waiting:
        if row not in refunds:
            billing.receive(billing.stripe.shown(row))
    billing.work()
    assert_true(billing)


def test_a_replayed_event_is_as_old_as_it_was(billing: Billing, workspace: uuid.UUID) -> None:
    subscription = billing.buy(workspace)
    billing.settle()
    billing.stripe.advance(60)
    billing.stripe.call("DELETE", f"/v1/subscriptions/{subscription['id']}", {})
    billing.settle()
    first = one(
        billing.connection,
        "select id from billing.events where object_id = %s order by created_at, id limit 1", [subscription["id"]],
    )  # fmt: skip
    run(billing.connection, "select billing.replay(%s)", [first])
    billing.work()
    assert billing.access(workspace)["plan"] == "free"
    with refused("event_not_found"):
        run(billing.connection, "select billing.replay('evt_none')")


def test_an_answer_that_is_older_than_what_was_learnt_meanwhile_is_not_believed(
    billing: Billing, workspace: uuid.UUID
) -> None:
    subscription = billing.buy(workspace)
    billing.settle()
    payload = {"object": "subscription", "id": subscription["id"]}
    call = one(billing.connection, "select billing.take_call(%s)", [Jsonb(payload)])
    stale = json.loads(json.dumps(billing.stripe.call("GET", f"/v1/subscriptions/{subscription['id']}", {})))
    billing.stripe.advance(60)
    billing.stripe.call("DELETE", f"/v1/subscriptions/{subscription['id']}", {})
    billing.settle()
    outcome = one(
        billing.connection,
        "select billing.settle_call(%s, %s)",
        [Jsonb(call["token"]), Jsonb({"status": 200, "body": stale})],
    )
    assert outcome == {"again": True}
    assert billing.access(workspace)["plan"] == "free"
    billing.carry(payload)
    assert differences(billing) == []


def test_old_events_are_cleared_and_waiting_ones_stay(billing: Billing) -> None:
    sent = event(billing)
    billing.receive(sent)
    billing.stripe.advance(91 * 86_400)
    billing.tick()
    run(billing.connection, "select billing.clear_events()")
    assert run(billing.connection, "select id from billing.events") == [{"id": sent["id"]}]
