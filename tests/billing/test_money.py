"""Money that arrives is posted once per fact, refunded within what was paid, credited before it is charged, earned by the day."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from ..identities import make_user, make_workspace, one, refused, run
from .truth import assert_true, cash
from .world import Billing

DAY = 86_400


def balances(billing: Billing) -> dict[str, int]:
    rows = run(
        billing.connection,
        "select code, balance from public.trial_balance where workspace_id = ledger.operator_books() and balance <> 0",
    )
    return {row["code"]: row["balance"] for row in rows}


def test_each_fact_is_posted_once(billing: Billing, workspace: uuid.UUID) -> None:
    billing.stripe.store.tax_percent = 10.0
    billing.buy(workspace)
    billing.settle()
    assert balances(billing) == {"stripe:USD": 3190, "sales:USD": -2900, "tax:USD": -290}
    charge = next(billing.stripe.store.every("charge"))
    billing.stripe.call("POST", "/v1/refunds", {"charge": charge["id"], "amount": 190})
    dispute = billing.stripe.dispute(charge["id"])
    billing.stripe.advance(5)
    billing.settle()
    assert balances(billing) == {
        "stripe:USD": -1500, "sales:USD": -2900, "tax:USD": -290, "refunds:USD": 190, "disputes:USD": 3000, "dispute_fees:USD": 1500,
    }  # fmt: skip
    billing.stripe.close_dispute(dispute["id"], "won")
    billing.stripe.advance(5)
    billing.settle()
    assert balances(billing) == {
        "stripe:USD": 1500,
        "sales:USD": -2900,
        "tax:USD": -290,
        "refunds:USD": 190,
        "dispute_fees:USD": 1500,
    }
    before = one(billing.connection, "select count(*) from ledger.transactions")
    for event in billing.stripe.store.events:
        run(billing.connection, "update billing.events set outcome = 'waiting' where id = %s", [event["id"]])
        run(
            billing.connection,
            "select billing.replay(id) from billing.events where id = %s and object <> 'x'",
            [event["id"]],
        )
    billing.work()
    run(billing.connection, "select billing.post_missing()")
    assert one(billing.connection, "select count(*) from ledger.transactions") == before
    assert_true(billing)


def test_a_credit_note_gives_back_as_it_says(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    invoice = next(billing.stripe.store.every("invoice"))
    for parts in (
        {"amount": 500, "credit_amount": 500},
        {"amount": 300, "refund_amount": 300},
        {"amount": 200, "out_of_band_amount": 200},
    ):
        note = billing.stripe.call("POST", "/v1/credit_notes", {"invoice": invoice["id"], **parts})
    billing.stripe.advance(5)
    billing.settle()
    assert balances(billing) == {
        "stripe:USD": 2600, "sales:USD": -2900, "customer_credit:USD": -500, "credit_notes:USD": 700, "refunds:USD": 300, "elsewhere:USD": -200,
    }  # fmt: skip
    billing.stripe.advance(5)
    billing.stripe.call("POST", f"/v1/credit_notes/{note['id']}/void", {})
    billing.settle()
    assert "elsewhere:USD" not in balances(billing)
    assert_true(billing)


def test_a_refund_that_fails_after_all_is_undone(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    charge = next(billing.stripe.store.every("charge"))
    refund = billing.stripe.call("POST", "/v1/refunds", {"charge": charge["id"], "amount": 900})
    billing.stripe.advance(5)
    billing.settle()
    assert balances(billing)["stripe:USD"] == 2000
    kept = billing.stripe.store.get(refund["id"])
    billing.stripe.advance(5)
    billing.stripe.store.change(kept, "refund.failed", status="failed")
    billing.stripe.store.events[-1]["created"] = billing.stripe.store.now()
    billing.settle()
    assert balances(billing) == {"stripe:USD": 2900, "sales:USD": -2900}


def test_what_is_of_a_closed_day_is_posted_to_the_first_that_is_open(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    charge = next(billing.stripe.store.every("charge"))
    billing.stripe.advance(3 * DAY)
    billing.tick()
    today = datetime.fromtimestamp(billing.stripe.store.now(), UTC).date()
    run(billing.connection, "select ledger.close_period(ledger.operator_books(), %s)", [today - timedelta(days=1)])
    late = billing.stripe.call("POST", "/v1/refunds", {"charge": charge["id"], "amount": 100})
    billing.stripe.store.get(late["id"])["created"] -= 2 * DAY
    billing.settle()
    assert one(billing.connection, "select occurred_on from ledger.transactions where kind = 'refund'") == today


# The operator -------------------------------------------------------------------------------------


def refund(
    billing: Billing, workspace: uuid.UUID, amount: int | None, key: str, reason: str = "asked for"
) -> uuid.UUID:
    invoice = next(billing.stripe.store.every("invoice"))["id"]
    request: uuid.UUID = one(
        billing.connection, "select billing.refund(%s, %s, %s, %s, %s)", [workspace, invoice, amount, reason, key]
    )
    return request


def test_a_refund_is_once_per_key_and_within_what_was_paid(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    first = refund(billing, workspace, 900, "a")
    assert refund(billing, workspace, 900, "a") == first
    # Asked for, and not done yet: it counts.
    with refused("refund_exceeds_payment"), billing.connection.transaction():
        refund(billing, workspace, 2001, "b")
    billing.stripe.faults = ["lost", "500"]
    billing.stripe.advance(5)
    billing.settle()
    assert [row["amount"] for row in billing.stripe.store.every("refund")] == [900]
    with refused("refund_exceeds_payment"), billing.connection.transaction():
        refund(billing, workspace, 2001, "b")
    refund(billing, workspace, None, "rest")
    refund(billing, workspace, None, "rest")
    billing.stripe.advance(5)
    billing.settle()
    assert [row["amount"] for row in billing.stripe.store.every("refund")] == [900, 2000]
    assert cash(billing) == (0, 0)
    for amount, code in ((1, "refund_exceeds_payment"), (None, "refund_exceeds_payment")):
        with refused(code), billing.connection.transaction():
            refund(billing, workspace, amount, uuid.uuid4().hex)
    with refused("reason_missing"), billing.connection.transaction():
        refund(billing, workspace, 1, "c", " ")
    other = make_workspace(billing.connection, make_user(billing.connection), plan="free")
    with refused("invoice_not_found"), billing.connection.transaction():
        refund(billing, other, 1, "d")
    actions = run(billing.connection, "select action from audit.inbox where action = 'billing.refund'")
    assert len(actions) >= 2


def test_a_negative_refund_is_none(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    for amount in (0, -5):
        with refused("amount_invalid"), billing.connection.transaction():
            refund(billing, workspace, amount, "x")


def grant(billing: Billing, workspace: uuid.UUID, amount: int, key: str, days: int | None = None) -> None:
    expires = None if days is None else datetime.fromtimestamp(billing.stripe.store.now() + days * DAY, UTC)
    run(
        billing.connection,
        "select billing.grant_credit(%s, %s, 'usd', %s, 'goodwill', %s)",
        [workspace, amount, expires, key],
    )
    billing.stripe.advance(5)
    billing.settle()


def remaining(billing: Billing) -> list[int]:
    rows = run(billing.connection, "select remaining from billing.credit_balances order by granted_at, amount")
    return [row["remaining"] for row in rows]


def test_credit_is_used_before_anything_is_charged_and_the_rest_expires(billing: Billing, workspace: uuid.UUID) -> None:
    grant(billing, workspace, 1000, "a", days=60)
    grant(billing, workspace, 500, "b", days=10)
    grant(billing, workspace, 500, "b", days=10)
    assert remaining(billing) == [1000, 500]
    assert balances(billing) == {"customer_credit:USD": -1500, "credits_granted:USD": 1500}
    billing.stripe.advance(11 * DAY)
    billing.tick()
    run(billing.connection, "select billing.expire_credits()")
    run(billing.connection, "select billing.expire_credits()")
    billing.settle()
    assert remaining(billing) == [1000, 0]
    assert billing.stripe.store.get(billing.customer(workspace))["balance"] == -1000
    billing.buy(workspace)
    billing.stripe.advance(5)
    billing.settle()
    assert [row["amount_paid"] for row in billing.stripe.store.every("invoice")] == [1900]
    assert remaining(billing) == [0, 0]
    assert_true(billing)
    billing.stripe.advance(60 * DAY)
    billing.tick()
    run(billing.connection, "select billing.expire_credits()")
    assert (
        one(billing.connection, "select count(*) from billing.requests where kind = 'adjust' and state = 'waiting'")
        == 0
    )


@pytest.mark.parametrize(
    ("amount", "currency", "days", "code"),
    [
        (0, "usd", None, "amount_invalid"),
        (-5, "usd", None, "amount_invalid"),
        (5, "zzz", None, "currency_unknown"),
        (5, "usd", -1, "expiry_invalid"),
    ],
)
def test_wrong_credit_is_refused(
    billing: Billing, workspace: uuid.UUID, amount: int, currency: str, days: int | None, code: str
) -> None:
    expires = None if days is None else datetime.fromtimestamp(billing.stripe.store.now() + days * DAY, UTC)
    with refused(code), billing.connection.transaction():
        run(
            billing.connection,
            "select billing.grant_credit(%s, %s, %s, %s, 'why', 'k')",
            [workspace, amount, currency, expires],
        )


# Revenue ------------------------------------------------------------------------------------------


def test_revenue_is_earned_by_the_day_and_adds_up_to_what_was_sold(billing: Billing, workspace: uuid.UUID) -> None:
    billing.stripe.store.tax_percent = 19.0
    coupon = billing.stripe.call("POST", "/v1/coupons", {"percent_off": "10"})
    billing.buy(workspace, "pro_yearly", discounts=[{"coupon": coupon["id"]}])
    billing.settle()
    months = run(billing.connection, "select * from billing.revenue_months order by month")
    assert sum(row["billed"] for row in months) == sum(row["recognised"] for row in months) == 26100
    assert months[0]["billed"] == 26100 and months[-1]["deferred"] == 0
    assert len(months) == 13
    whole = [row["recognised"] for row in months[1:-1]]
    assert max(whole) - min(whole) < 26100 * 4 / 365
    assert all(row["deferred"] >= 0 for row in months)
    assert balances(billing)["sales:USD"] == -26100
    # An upgrade in the middle: what was not used is taken back.
    billing.stripe.advance(100 * DAY)
    subscription = next(billing.stripe.store.every("subscription"))
    item = subscription["items"]["data"][0]["id"]
    price = billing.stripe.call("GET", "/v1/prices", {"lookup_keys": ["seat_monthly"]})["data"][0]["id"]
    billing.stripe.call(
        "POST",
        f"/v1/subscriptions/{subscription['id']}",
        {"items": [{"id": item, "price": price, "quantity": 3}], "proration_behavior": "always_invoice"},
    )
    billing.settle()
    months = run(billing.connection, "select * from billing.revenue_months order by month")
    assert (
        sum(row["billed"] for row in months)
        == sum(row["recognised"] for row in months)
        == -balances(billing)["sales:USD"]
    )
    assert_true(billing)
