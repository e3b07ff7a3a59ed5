"""Checkout, portal, preview and change: for those who may, once per key, nowhere else, and paid or not made."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from ..identities import add_member, as_user, make_user, make_workspace, one, refused, run
from .truth import assert_true
from .world import Billing

DAY = 86_400


def ask(billing: Billing, user: uuid.UUID, query: str, parameters: list[Any]) -> Any:
    """A wish of somebody, carried to Stripe; its result."""
    with as_user(billing.connection, user):
        request = one(billing.connection, f"select public.{query}", parameters)
    billing.carry({"request": str(request)})
    return one(billing.connection, "select billing.result_of(%s)", [request])


def checkout(billing: Billing, user: uuid.UUID, workspace: uuid.UUID, price: str = "pro_monthly", **more: Any) -> Any:
    given = {"seats": None, "return_path": None, "idempotency_key": None, **more}
    return ask(billing, user, "start_checkout(%s, %s, %s, %s, %s)", [workspace, price, *given.values()])


def session(result: Any) -> str:
    return str(result["url"]).rsplit("/", 1)[1]


def test_a_checkout_makes_the_customer_first_and_the_trial_is_given_once(billing: Billing) -> None:
    owner = make_user(billing.connection)
    workspace = make_workspace(billing.connection, owner, plan="free")
    # Its customer is still to be made: the checkout does not wait for the job.
    opened = checkout(billing, owner, workspace)
    billing.stripe.pay(session(opened))
    billing.settle()
    assert billing.access(workspace)["state"] == "trialing"
    subscription = next(billing.stripe.store.every("subscription"))
    assert subscription["metadata"]["workspace_id"] == str(workspace)
    billing.stripe.call("DELETE", f"/v1/subscriptions/{subscription['id']}", {})
    billing.stripe.advance(60)
    billing.settle()
    assert billing.access(workspace)["state"] == "free"
    billing.stripe.pay(session(checkout(billing, owner, workspace)))
    billing.settle()
    assert billing.access(workspace)["state"] == "active"
    with refused("trial_used"), billing.connection.transaction():
        run(billing.connection, "select billing.begin_trial(%s)", [workspace])


def test_the_same_wish_is_one_checkout_and_a_key_holds_for_one_wish(
    billing: Billing, workspace: uuid.UUID, owner: uuid.UUID
) -> None:
    first = checkout(billing, owner, workspace)
    assert checkout(billing, owner, workspace) == first
    keyed = checkout(billing, owner, workspace, idempotency_key="a")
    assert checkout(billing, owner, workspace, idempotency_key="a") == keyed != first
    assert len(list(billing.stripe.store.every("checkout.session"))) == 2


def test_who_has_a_subscription_changes_it(billing: Billing, workspace: uuid.UUID, owner: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    with as_user(billing.connection, owner), refused("already_subscribed"), billing.connection.transaction():
        run(billing.connection, "select public.start_checkout(%s, 'pro_monthly')", [workspace])


@pytest.mark.parametrize(
    "path",
    ["https://evil.example", "//evil.example", "/\\evil.example", "evil", "", "/a//../\\b", "/%0d%0aSet-Cookie: x", "/a b", "javascript:alert(1)", "/\t/evil.example", "/@evil\n", "/b#x"],
    ids=repr,
)  # fmt: skip
def test_nobody_is_led_elsewhere(billing: Billing, workspace: uuid.UUID, owner: uuid.UUID, path: str) -> None:
    with as_user(billing.connection, owner), refused("return_path_invalid"), billing.connection.transaction():
        run(billing.connection, "select public.start_checkout(%s, 'pro_monthly', null, %s)", [workspace, path])
    with as_user(billing.connection, owner), refused("return_path_invalid"), billing.connection.transaction():
        run(billing.connection, "select public.start_portal(%s, %s)", [workspace, path])


def test_they_come_back_to_the_site(billing: Billing, workspace: uuid.UUID, owner: uuid.UUID) -> None:
    run(billing.connection, "update notify.settings set site_url = 'https://app.example'")
    checkout(billing, owner, workspace, return_path="/billing?tab=plans")
    made = next(billing.stripe.store.every("checkout.session"))
    assert (made["success_url"], made["cancel_url"]) == (
        "https://app.example/billing?tab=plans&checkout=done",
        "https://app.example/billing?tab=plans",
    )
    assert ask(billing, owner, "start_portal(%s, %s)", [workspace, "/billing"])["url"].startswith(
        "https://billing.stripe.example/"
    )


def test_buying_is_for_those_who_manage_billing(billing: Billing, workspace: uuid.UUID) -> None:
    member = add_member(billing.connection, workspace, "member")
    wishes = (
        "start_checkout(%s, 'pro_monthly')",
        "start_portal(%s)",
        "preview_change(%s, 'pro_yearly')",
        "change_plan(%s, 'pro_yearly')",
    )
    for wish in wishes:
        for user, code in ((member, "permission_denied"), (make_user(billing.connection), "workspace_not_found")):
            with as_user(billing.connection, user), refused(code), billing.connection.transaction():
                run(billing.connection, f"select public.{wish}", [workspace])
    assert not run(
        billing.connection,
        "select 1 from billing.requests where kind <> 'customer.create' and workspace_id = %s",
        [workspace],
    )


def test_an_unknown_price_says_which_there_are(billing: Billing, workspace: uuid.UUID, owner: uuid.UUID) -> None:
    for price in ("gold", "pro_calls", "", None):
        with as_user(billing.connection, owner), refused("price_not_found"), billing.connection.transaction():
            run(billing.connection, "select public.start_checkout(%s, %s)", [workspace, price])


def test_a_preview_says_what_a_change_costs_and_changes_nothing(
    billing: Billing, workspace: uuid.UUID, owner: uuid.UUID
) -> None:
    subscription = billing.buy(workspace)
    billing.settle()
    billing.stripe.advance(15 * DAY)
    billing.settle()
    objects = one(billing.connection, "select count(*) from billing.objects")
    shown = ask(billing, owner, "preview_change(%s, %s)", [workspace, "pro_yearly"])
    assert shown["currency"] == "usd" and 27000 < shown["amount_due"] < 29000
    assert [line["is_proration"] for line in shown["lines"]] == [True, False]
    billing.settle()
    assert one(billing.connection, "select count(*) from billing.objects") == objects
    assert billing.stripe.store.get(subscription["id"])["items"]["data"][0]["price"]["lookup_key"] == "pro_monthly"
    changed = ask(billing, owner, "change_plan(%s, %s)", [workspace, "pro_yearly"])
    assert changed["status"] == "active"
    billing.settle()
    paid = [row["amount_paid"] for row in billing.stripe.store.every("invoice")]
    assert paid[-1] == shown["amount_due"]
    assert_true(billing)


def test_an_upgrade_that_is_not_paid_is_not_made(billing: Billing, workspace: uuid.UUID, owner: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    billing.stripe.set_card(billing.customer(workspace), "pm_declined")
    billing.settle()
    result = ask(billing, owner, "change_plan(%s, %s, %s)", [workspace, "seat_monthly", 9])
    assert result["code"] == "card_declined"
    billing.settle()
    assert billing.access(workspace)["plan"] == "pro" and billing.access(workspace)["state"] == "active"


def test_a_change_that_is_asked_for_again_under_its_key_is_the_same_change(
    billing: Billing, workspace: uuid.UUID, owner: uuid.UUID
) -> None:
    billing.stripe.pay(session(checkout(billing, owner, workspace)))
    billing.stripe.advance(15 * DAY)
    billing.settle()
    for price, key in (("pro_yearly", "a"), ("seat_monthly", "b"), ("pro_monthly", "c"), ("seat_monthly", "d")):
        first = ask(billing, owner, "change_plan(%s, %s, null, %s)", [workspace, price, key])
        billing.stripe.advance(60)
        billing.settle()
        assert ask(billing, owner, "change_plan(%s, %s, null, %s)", [workspace, price, key]) == first
        expected = "enterprise" if price == "seat_monthly" else "pro"
        assert billing.access(workspace)["plan"] == expected
    with as_user(billing.connection, owner), refused("idempotency_key_reused"), billing.connection.transaction():
        run(billing.connection, "select public.change_plan(%s, 'pro_yearly', null, 'd')", [workspace])


def test_a_checkout_that_came_to_something_is_not_handed_out_again(
    billing: Billing, workspace: uuid.UUID, owner: uuid.UUID
) -> None:
    first = checkout(billing, owner, workspace)
    billing.stripe.pay(session(first))
    billing.settle()
    subscription = next(billing.stripe.store.every("subscription"))
    billing.stripe.call("DELETE", f"/v1/subscriptions/{subscription['id']}", {})
    billing.stripe.advance(5)
    billing.settle()
    assert checkout(billing, owner, workspace) != first


@pytest.mark.parametrize("key", ["", " ", "a b", "☃", "x" * 101, "a\n"])
def test_a_key_that_cannot_be_sent_is_refused(
    billing: Billing, workspace: uuid.UUID, owner: uuid.UUID, key: str
) -> None:
    billing.buy(workspace)
    billing.settle()
    with as_user(billing.connection, owner), refused("idempotency_key_invalid"), billing.connection.transaction():
        run(billing.connection, "select public.change_plan(%s, 'pro_yearly', null, %s)", [workspace, key])
    with refused("idempotency_key_invalid"), billing.connection.transaction():
        run(billing.connection, "select billing.adjust(%s, 5, 'usd', 'why', %s)", [workspace, key])


def test_metered_prices_come_and_go_with_the_plan(billing: Billing, workspace: uuid.UUID, owner: uuid.UUID) -> None:
    billing.stripe.pay(session(checkout(billing, owner, workspace)))
    billing.settle()

    def keys() -> list[str]:
        row = next(billing.stripe.store.every("subscription"))
        return [item["price"]["lookup_key"] for item in row["items"]["data"]]

    assert keys() == ["pro_monthly", "pro_calls"]
    ask(billing, owner, "change_plan(%s, %s, %s)", [workspace, "seat_monthly", 4])
    billing.settle()
    assert keys() == ["seat_monthly"]
    assert (billing.access(workspace)["plan"], billing.access(workspace)["seats"]) == ("enterprise", 4)


def test_the_operator_cancels_and_resumes_with_a_reason(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    with refused("reason_missing"), billing.connection.transaction():
        run(billing.connection, "select billing.cancel(%s, false, ' ')", [workspace])
    with refused("nothing_to_resume"), billing.connection.transaction():
        run(billing.connection, "select billing.resume(%s, 'why')", [workspace])
    run(billing.connection, "select billing.cancel(%s, false, 'closing')", [workspace])
    billing.settle()
    access = billing.access(workspace)
    assert (access["state"], access["reason"]) == ("active", "canceling")
    run(billing.connection, "select billing.resume(%s, 'stays')", [workspace])
    billing.settle()
    assert billing.access(workspace)["reason"] == "active"
    run(billing.connection, "select billing.cancel(%s, false, 'closing after all')", [workspace])
    billing.settle()
    until = billing.access(workspace)["until"]
    billing.stripe.store.frozen = int(until.timestamp()) - 1
    billing.tick()
    assert billing.access(workspace)["plan"] == "pro"
    # The second that the paid period ends, whether Stripe has said so or not.
    billing.stripe.store.frozen = int(until.timestamp())
    billing.tick()
    assert billing.access(workspace)["plan"] == "free"
    with refused("no_subscription"), billing.connection.transaction():
        run(
            billing.connection,
            "select billing.cancel(%s, true, 'x')",
            [make_workspace(billing.connection, make_user(billing.connection), plan="free")],
        )


def test_promotion_codes_take_off_what_they_say(billing: Billing, workspace: uuid.UUID, owner: uuid.UUID) -> None:
    run(billing.connection, "select billing.begin_trial(%s)", [workspace])
    coupon = billing.stripe.call("POST", "/v1/coupons", {"percent_off": "50"})
    code = billing.stripe.call(
        "POST", "/v1/promotion_codes", {"promotion": {"type": "coupon", "coupon": coupon["id"]}, "code": "HALF"}
    )
    billing.stripe.pay(session(checkout(billing, owner, workspace)), promotion_code=code["id"])
    billing.settle()
    assert [row["amount_paid"] for row in billing.stripe.store.every("invoice")] == [1450]
    assert billing.access(workspace)["state"] == "active"
    assert_true(billing)
