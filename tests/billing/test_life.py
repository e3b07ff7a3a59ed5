"""The life of a subscription, from Stripe to what a workspace may do: bought, renewed, declined, paid, ended."""

from __future__ import annotations

import uuid

from ..identities import one, run
from ..races import Connection
from .world import Billing

DAY = 86_400


def test_a_workspace_gets_one_customer_and_a_purchase_lifts_its_limits(billing: Billing, workspace: uuid.UUID) -> None:
    assert [row["metadata"] for row in billing.stripe.store.every("customer")] == [{"workspace_id": str(workspace)}]
    assert billing.access(workspace)["plan"] == "free"
    billing.buy(workspace)
    billing.settle()
    access = billing.access(workspace)
    assert (access["plan"], access["state"], access["reason"], access["can_write"]) == ("pro", "active", "active", True)
    assert access["limits"]["projects"] == 100


def test_a_declined_renewal_goes_through_grace_and_restriction_and_back(billing: Billing, workspace: uuid.UUID) -> None:
    subscription = billing.buy(workspace)
    billing.settle()
    billing.stripe.set_card(billing.customer(workspace), "pm_card_chargeDeclined")
    billing.stripe.advance(31 * DAY)
    billing.settle()
    assert billing.access(workspace)["state"] == "grace"
    until = billing.access(workspace)["until"]
    billing.stripe.advance(to=int(until.timestamp()) - 1)
    billing.tick()
    assert billing.access(workspace)["can_write"]
    billing.stripe.advance(1)
    billing.tick()
    assert not billing.access(workspace)["can_write"]
    run(billing.connection, "select billing.advance()")
    assert billing.access(workspace)["reason"] == "grace_over"
    billing.settle()
    assert not billing.access(workspace)["can_write"]
    invoice = billing.stripe.store.get(subscription["id"])["latest_invoice"]
    billing.stripe.call("POST", f"/v1/invoices/{invoice}/pay", {"payment_method": "pm_card_visa"})
    billing.settle()
    assert billing.access(workspace)["state"] == "active"


def test_the_books_say_what_stripe_says(billing: Billing, workspace: uuid.UUID, db: Connection) -> None:
    billing.buy(workspace)
    billing.settle()
    charge = next(billing.stripe.store.every("charge"))
    billing.stripe.call("POST", "/v1/refunds", {"charge": charge["id"], "amount": 900})
    billing.settle()
    assert one(db, "select balance from public.trial_balance where code = 'stripe:USD'") == 2000
    assert not run(db, "select * from billing.books_check where difference <> 0")
    assert (
        sum(
            row["balance"]
            for row in run(db, "select balance from public.trial_balance where workspace_id = ledger.operator_books()")
        )
        == 0
    )
