"""What a workspace may do in the corners: several subscriptions, old prices, forgiven invoices, parts of a period."""

from __future__ import annotations

import uuid

from psycopg.types.json import Jsonb

from ..identities import add_member, make_user, make_workspace, one, refused, run
from ..support.stripe_server.store import Object
from .truth import assert_true
from .world import Billing, catalogue, price_id

DAY, HOUR = 86_400, 3_600


def only(billing: Billing) -> Object:
    return next(billing.stripe.store.every("subscription"))


def test_a_trial_that_stripe_knew_long_ago_stops_nothing(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace, trial_period_days=14)
    billing.stripe.advance(60 * DAY)
    billing.tick()
    run(billing.connection, "select billing.begin_trial(%s)", [workspace])
    billing.settle()
    assert (billing.access(workspace)["plan"], billing.access(workspace)["state"]) == ("pro", "active")
    one(billing.connection, "select billing.start_run('sync')")
    assert_true(billing)


def test_an_invoice_that_is_sent_has_its_grace_from_the_day_it_is_due(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace, "pro_yearly", collection_method="send_invoice", days_until_due=30)
    billing.settle()
    assert billing.access(workspace)["state"] == "active"
    billing.stripe.advance(31 * DAY)
    billing.stripe.store.change(only(billing), "customer.subscription.updated", status="past_due")
    billing.settle()
    access = billing.access(workspace)
    assert access["state"] == "grace"
    due = next(billing.stripe.store.every("invoice"))["due_date"]
    assert int(access["until"].timestamp()) == due + 14 * DAY


def test_what_was_forgiven_does_not_count_against_the_next_failure(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    customer = billing.customer(workspace)
    billing.stripe.set_card(customer, "pm_declined")
    billing.stripe.advance(31 * DAY)
    forgiven = next(billing.stripe.store.every("invoice", status="open"))
    billing.stripe.store.change(
        forgiven, "invoice.marked_uncollectible", status="uncollectible", next_payment_attempt=None
    )
    billing.stripe.store.change(only(billing), "customer.subscription.updated", status="active")
    billing.stripe.set_card(customer, "pm_card_visa")
    for _ in range(3):
        billing.stripe.advance(31 * DAY)
        billing.settle()
    assert billing.access(workspace)["state"] == "active"
    billing.stripe.set_card(customer, "pm_declined")
    billing.stripe.advance(31 * DAY)
    billing.settle()
    assert billing.access(workspace)["state"] == "grace"


def upgrade_in_part(billing: Billing, workspace: uuid.UUID) -> tuple[Object, Object]:
    """A seat more in the middle of a period: the charges of the period, and of the part."""
    billing.buy(workspace, "seat_monthly", quantity=5, metadata={"seats": "5"})
    billing.settle()
    billing.stripe.advance(20 * DAY)
    subscription = only(billing)
    item = subscription["items"]["data"][0]["id"]
    billing.stripe.call("POST", f"/v1/subscriptions/{subscription['id']}", {
        "items": [{"id": item, "quantity": 6}], "proration_behavior": "always_invoice", "metadata": {"seats": "6"},
    })  # fmt: skip
    billing.settle()
    whole, part = list(billing.stripe.store.every("charge"))
    return whole, part


def test_a_refund_of_a_part_of_a_period_takes_nothing(billing: Billing, workspace: uuid.UUID) -> None:
    _, part = upgrade_in_part(billing, workspace)
    billing.stripe.call("POST", "/v1/refunds", {"charge": part["id"]})
    billing.stripe.advance(5)
    billing.settle()
    assert billing.access(workspace)["state"] == "active"


def test_a_dispute_over_the_period_counts_whatever_was_paid_after_it(billing: Billing, workspace: uuid.UUID) -> None:
    whole, _ = upgrade_in_part(billing, workspace)
    dispute = billing.stripe.dispute(whole["id"])
    billing.stripe.advance(5)
    billing.settle()
    assert billing.access(workspace)["state"] == "grace"
    billing.stripe.close_dispute(dispute["id"], "lost")
    billing.stripe.advance(5)
    billing.settle()
    assert billing.access(workspace)["reason"] == "dispute_lost"


def test_disputes_that_were_won_do_not_make_half_a_refund_a_whole(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    charge = next(billing.stripe.store.every("charge"))
    billing.stripe.call("POST", "/v1/refunds", {"charge": charge["id"], "amount": 1450})
    for _ in range(2):
        billing.stripe.close_dispute(billing.stripe.dispute(charge["id"])["id"], "won")
    billing.stripe.advance(5)
    billing.settle()
    assert billing.access(workspace)["state"] == "active"


def test_of_two_that_are_paid_the_larger_counts_until_it_ends(billing: Billing, workspace: uuid.UUID) -> None:
    large = billing.buy(workspace, "seat_monthly")
    billing.stripe.call("POST", f"/v1/subscriptions/{large['id']}", {"cancel_at_period_end": "true"})
    billing.buy(workspace, "pro_yearly")
    billing.stripe.advance(5)
    billing.settle()
    assert (billing.access(workspace)["plan"], billing.access(workspace)["reason"]) == ("enterprise", "canceling")
    billing.stripe.advance(32 * DAY)
    billing.settle()
    assert (billing.access(workspace)["plan"], billing.access(workspace)["reason"]) == ("pro", "active")


def test_an_upgrade_that_was_never_paid_is_not_given_on_credit(billing: Billing, workspace: uuid.UUID) -> None:
    subscription = billing.buy(workspace)
    billing.settle()
    billing.stripe.advance(5 * DAY)
    billing.stripe.set_card(billing.customer(workspace), "pm_declined")
    item = only(billing)["items"]["data"][0]["id"]
    billing.stripe.call("POST", f"/v1/subscriptions/{subscription['id']}", {
        "items": [{"id": item, "price": price_id(billing, "seat_monthly"), "quantity": 20}], "proration_behavior": "always_invoice",
    })  # fmt: skip
    billing.settle()
    assert (billing.access(workspace)["plan"], billing.access(workspace)["state"]) == ("pro", "grace")


def test_a_deleted_workspace_is_not_charged_and_a_restored_one_goes_on(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    run(billing.connection, "select tenancy.mark_deleted(%s)", [workspace])
    billing.stripe.advance(5)
    billing.settle()
    assert only(billing)["cancel_at_period_end"] is True
    run(billing.connection, "select tenancy.mark_restored(%s)", [workspace])
    billing.stripe.advance(5)
    billing.settle()
    assert only(billing)["cancel_at_period_end"] is False
    run(billing.connection, "select tenancy.mark_deleted(%s)", [workspace])
    billing.stripe.advance(5)
    billing.settle()
    run(billing.connection, "update public.workspaces set purge_after = ops.now() where id = %s", [workspace])
    run(billing.connection, "select tenancy.purge_workspaces()")
    assert not run(billing.connection, "select 1 from public.workspaces where id = %s", [workspace])
    billing.work()
    assert only(billing)["status"] == "canceled"


# Old prices ---------------------------------------------------------------------------------------


def dearer(billing: Billing) -> None:
    """Every price changes, so that those who bought are on prices without a lookup key."""
    document = catalogue(billing.connection)
    for plan in document["plans"].values():
        for price in plan.get("prices", []):
            price["amount"] += 100
    billing.stripe.advance(60)
    billing.sell(document)
    billing.settle()


def test_usage_and_seats_of_an_old_price_are_still_charged(billing: Billing, workspace: uuid.UUID) -> None:
    subscription = billing.buy(workspace)
    billing.stripe.call(
        "POST", f"/v1/subscriptions/{subscription['id']}", {"items": [{"price": price_id(billing, "pro_calls")}]}
    )
    other = make_workspace(billing.connection, make_user(billing.connection), plan="free")
    billing.settle()
    seats = billing.buy(other, "seat_monthly")
    billing.settle()
    dearer(billing)
    billing.stripe.store.change(billing.stripe.store.get(seats["id"]), "customer.subscription.updated")
    billing.stripe.store.change(billing.stripe.store.get(subscription["id"]), "customer.subscription.updated")
    billing.settle()
    run(billing.connection, "select billing.record_usage(%s, 'api_calls', 40, 'k')", [workspace])
    add_member(billing.connection, other, "member")
    billing.stripe.advance(2 * HOUR)
    billing.tick()
    assert one(billing.connection, "select billing.push_usage()") == 1
    billing.settle()
    assert [row["payload"]["value"] for row in billing.stripe.store.meter_events.values()] == ["40"]
    assert billing.stripe.store.get(seats["id"])["items"]["data"][0]["quantity"] == 2


def test_the_last_hour_of_a_period_is_charged(billing: Billing, workspace: uuid.UUID) -> None:
    subscription = billing.buy(workspace)
    billing.stripe.call(
        "POST", f"/v1/subscriptions/{subscription['id']}", {"items": [{"price": price_id(billing, "pro_calls")}]}
    )
    billing.settle()
    end = int(billing.access(workspace)["until"].timestamp())
    billing.stripe.advance(to=end - HOUR // 2)
    billing.tick()
    run(billing.connection, "select billing.record_usage(%s, 'api_calls', 40, 'k')", [workspace])
    billing.stripe.advance(to=end + HOUR)
    billing.settle()
    assert one(billing.connection, "select billing.push_usage()") == 1


def test_what_stripe_refused_of_usage_is_owed_still(billing: Billing, workspace: uuid.UUID) -> None:
    subscription = billing.buy(workspace)
    billing.stripe.call(
        "POST", f"/v1/subscriptions/{subscription['id']}", {"items": [{"price": price_id(billing, "pro_calls")}]}
    )
    billing.settle()
    run(billing.connection, "select billing.record_usage(%s, 'api_calls', 40, 'k')", [workspace])
    billing.stripe.advance(2 * HOUR)
    billing.tick()
    run(billing.connection, "select billing.push_usage()")
    key, billing.stripe.key = billing.stripe.key, "sk_test_revoked"
    request = one(billing.connection, "select id from billing.requests where kind = 'usage'")
    from rowhouse.worker import stripe_calls

    call = one(billing.connection, "select billing.take_call(%s)", [Jsonb({"request": str(request)})])
    refusal = stripe_calls.ask(call, key)
    assert refusal["status"] == 401
    run(billing.connection, "select billing.settle_call(%s, %s)", [Jsonb(call["token"]), Jsonb(refusal)])
    billing.stripe.key = key
    # A key that was revoked for a day has begun nothing: no day has run.
    billing.stripe.advance(25 * HOUR)
    billing.tick()
    run(
        billing.connection,
        "update jobs.jobs set run_at = now(), is_due = true where kind = 'billing.call' and state = 'pending'",
    )
    billing.carry({"request": str(request)})
    assert [row["payload"]["value"] for row in billing.stripe.store.meter_events.values()] == ["40"]
    run(billing.connection, "select billing.record_usage(%s, 'api_calls', 2, 'k2')", [workspace])
    billing.stripe.advance(2 * HOUR)
    billing.tick()
    run(billing.connection, "select billing.push_usage()")
    failed = one(billing.connection, "select id from billing.requests where kind = 'usage' and state = 'waiting'")
    call = one(billing.connection, "select billing.take_call(%s)", [Jsonb({"request": str(failed)})])
    answer = {"status": 400, "body": {"error": {"message": "no"}}}
    run(billing.connection, "select billing.settle_call(%s, %s)", [Jsonb(call["token"]), Jsonb(answer)])
    assert one(billing.connection, "select billing.push_usage()") == 1


def test_a_renewal_that_was_not_heard_of_begins_no_second_allowance(billing: Billing, workspace: uuid.UUID) -> None:
    document = catalogue(billing.connection)
    document["plans"]["pro"]["meters"]["api_calls"] = {"cap": 100, "hard": True}
    billing.stripe.advance(60)
    billing.sell(document)
    billing.buy(workspace)
    billing.settle()
    end = int(billing.access(workspace)["until"].timestamp())
    billing.stripe.advance(to=end + HOUR)
    billing.tick()
    run(billing.connection, "select billing.record_usage(%s, 'api_calls', 100, 'a')", [workspace])
    billing.settle()
    with refused("usage_cap_reached"), billing.connection.transaction():
        run(billing.connection, "select billing.record_usage(%s, 'api_calls', 1, 'b')", [workspace])


# What cannot be learnt, posted or done --------------------------------------------------------------


def test_an_invoice_that_cannot_be_posted_is_known_all_the_same(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    invoice = next(billing.stripe.store.every("invoice"))
    invoice["currency"] = "zzz"
    for event in billing.stripe.store.events:
        if event["data"]["object"]["object"] == "invoice":
            event["data"]["object"]["currency"] = "zzz"
    billing.settle()
    assert one(billing.connection, "select data ->> 'currency' from billing.objects where object = 'invoice'") == "zzz"
    assert billing.access(workspace)["state"] == "active"
    run(billing.connection, "select billing.post_missing()")


def test_one_that_cannot_be_learnt_keeps_no_run_from_its_end(billing: Billing) -> None:
    for percent in ("5", "6", "7"):
        billing.stripe.call("POST", "/v1/coupons", {"percent_off": percent})
    broken = list(billing.stripe.store.every("coupon"))[1]
    broken["livemode"] = "perhaps"
    billing.stripe.store.events[:] = [{**billing.stripe.store.events[-1], "id": "evt_bad", "type": ""}]
    one(billing.connection, "select billing.reconcile('{coupon}')")
    billing.work()
    rows = run(
        billing.connection, "select kind, failed, finished_at is not null as is_over from billing.runs order by kind"
    )
    assert [(row["kind"], row["failed"], row["is_over"]) for row in rows if row["kind"] != "sync"] == [
        ("events", 1, True), ("reconcile", 1, True),
    ]  # fmt: skip
    assert one(billing.connection, "select count(*) from billing.objects where object = 'coupon'") == 2


def test_a_refund_inside_an_older_charge_is_not_believed(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    charge = next(billing.stripe.store.every("charge"))
    refund = billing.stripe.call("POST", "/v1/refunds", {"charge": charge["id"], "amount": 100})
    billing.stripe.advance(60)
    billing.settle()
    old = {
        **billing.stripe.call("GET", f"/v1/charges/{charge['id']}", {}),
        "refunds": {"data": [{**refund, "status": "pending"}]},
    }
    run(billing.connection, "select billing.apply(%s, 'v', ops.now() - interval '1 minute', 'event')", [Jsonb(old)])
    billing.work()
    assert (
        one(billing.connection, "select data ->> 'status' from billing.objects where id = %s", [refund["id"]])
        == "succeeded"
    )


def test_what_stripe_refused_once_can_be_asked_again(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    first = one(billing.connection, "select billing.cancel(%s, true, 'closing')", [workspace])
    call = one(billing.connection, "select billing.take_call(%s)", [Jsonb({"request": str(first)})])
    answer = {"status": 400, "body": {"error": {"message": "not now"}}}
    run(billing.connection, "select billing.settle_call(%s, %s)", [Jsonb(call["token"]), Jsonb(answer)])
    second = one(billing.connection, "select billing.cancel(%s, true, 'closing')", [workspace])
    assert second != first
    billing.stripe.advance(5)
    billing.settle()
    assert only(billing)["status"] == "canceled"


def test_an_answer_for_a_workspace_that_is_gone_is_no_error(billing: Billing, workspace: uuid.UUID) -> None:
    request = one(billing.connection, "select billing.adjust(%s, 500, 'usd', 'test', 'k')", [workspace])
    call = one(billing.connection, "select billing.take_call(%s)", [Jsonb({"request": str(request)})])
    run(billing.connection, "delete from billing.requests where id = %s", [request])
    answer = {"status": 200, "body": {"id": "cbtxn_1", "object": "customer_balance_transaction"}}
    assert one(billing.connection, "select billing.settle_call(%s, %s)", [Jsonb(call["token"]), Jsonb(answer)]) == {}


def test_a_deleted_customer_is_forgotten_whatever_it_says_of_itself(billing: Billing, workspace: uuid.UUID) -> None:
    name = billing.customer(workspace)
    billing.stripe.store.get(name)["metadata"] = {"workspace_id": "acme"}
    billing.buy(workspace)
    billing.settle()
    billing.stripe.advance(5)
    billing.stripe.call("DELETE", f"/v1/customers/{name}", {})
    billing.settle()
    assert billing.access(workspace)["plan"] == "free"
    run(billing.connection, "select billing.make_customer(%s)", [workspace])
    billing.settle()
    made = billing.stripe.store.get(billing.customer(workspace))
    assert made["email"] == "owner@example.com"


def test_credit_that_expires_leaves_the_customers_own_money(billing: Billing, workspace: uuid.UUID) -> None:
    run(billing.connection, "select billing.adjust(%s, 5000, 'usd', 'overpaid', 'own')", [workspace])
    billing.settle()
    expires = billing.stripe.store.now() + 5 * DAY
    run(
        billing.connection,
        "select billing.grant_credit(%s, 1000, 'usd', to_timestamp(%s), 'gift', 'gift')",
        [workspace, expires],
    )
    billing.stripe.advance(5)
    billing.settle()
    billing.buy(workspace)
    billing.stripe.advance(6 * DAY)
    billing.settle()
    run(billing.connection, "select billing.expire_credits()")
    billing.settle()
    # 60.00, less 29.00: the gift was used first, and nothing of it is left to take.
    assert billing.stripe.store.get(billing.customer(workspace))["balance"] == -3100


# The catalogue ------------------------------------------------------------------------------------


def test_a_catalogue_that_loses_plans_features_and_its_default_stays_clean(
    billing: Billing, workspace: uuid.UUID
) -> None:
    document = catalogue(billing.connection)
    for name in ("one", "two"):
        document["plans"][name] = {**document["plans"]["pro"], "name": name, "rank": 9, "prices": []}
        billing.stripe.advance(60)
        billing.sell(document)
        del document["plans"][name]
        billing.stripe.advance(60)
        billing.sell(document)
    document["plans"]["enterprise"]["features"] = []
    document["features"] = {}
    document["plans"]["basic"] = {**document["plans"]["free"], "name": "Basic", "rank": 0}
    document["plans"]["free"]["default"] = False
    billing.stripe.advance(60)
    billing.sell(document)
    assert billing.access(workspace)["plan"] == "basic"
    assert run(billing.connection, "select * from billing.apply_plans(%s, true)", [Jsonb(document)]) == []
    assert billing.sell(document) == []
    document["plans"]["pro"]["features"] = ["custom_roles", "custom_roles"]
    document["features"] = {"custom_roles": {"description": "x"}}
    with refused("catalogue_invalid"), billing.connection.transaction():
        run(billing.connection, "select * from billing.apply_plans(%s)", [Jsonb(document)])
