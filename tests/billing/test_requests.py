"""What Stripe is asked to do is done once, whatever becomes of the answers; a key of the other mode does nothing."""

from __future__ import annotations

import uuid

import pytest
from psycopg.types.json import Jsonb

from ..identities import as_user, make_user, make_workspace, one, refused, run
from ..support.stripe_server import Stripe
from .world import Billing

HOUR = 3_600


def customers(billing: Billing, workspace: uuid.UUID) -> int:
    return sum(row["metadata"].get("workspace_id") == str(workspace) for row in billing.stripe.store.every("customer"))


@pytest.mark.parametrize(
    "faults", [["lost"], ["lost", "lost", "lost"], ["500", "lost"], ["429", "lost", "429"], ["down", "down"]], ids=str
)
def test_a_workspace_has_one_customer_whatever_becomes_of_the_answers(billing: Billing, faults: list[str]) -> None:
    workspace = make_workspace(billing.connection, make_user(billing.connection), plan="free")
    billing.stripe.faults = list(faults)
    billing.work()
    assert customers(billing, workspace) == 1
    assert billing.customer(workspace)
    billing.hear()
    billing.work()
    run(billing.connection, "select billing.make_customer(%s)", [workspace])
    billing.work()
    assert customers(billing, workspace) == 1


def test_after_a_day_stripe_is_searched_before_it_is_asked_again(billing: Billing) -> None:
    workspace = make_workspace(billing.connection, make_user(billing.connection), plan="free")
    request = one(billing.connection, "select id from billing.requests where workspace_id = %s", [workspace])
    billing.stripe.faults = ["lost", "lost"]
    billing.carry({"request": str(request)})
    billing.stripe.answers.clear()
    billing.stripe.advance(25 * HOUR)
    billing.tick()
    billing.carry({"request": str(request)})
    assert customers(billing, workspace) == 1
    assert billing.customer(workspace)


def test_a_day_without_an_answer_fails_what_could_act_twice(billing: Billing, workspace: uuid.UUID) -> None:
    request = one(billing.connection, "select billing.adjust(%s, 500, 'usd', 'test', 'k')", [workspace])
    billing.stripe.faults = ["lost", "lost"]
    billing.carry({"request": str(request)})
    billing.stripe.answers.clear()
    billing.stripe.advance(25 * HOUR)
    billing.tick()
    billing.work()
    row = run(billing.connection, "select state, error from billing.requests where id = %s", [request])[0]
    assert row["state"] == "failed" and "see at Stripe" in row["error"]
    assert billing.stripe.store.get(billing.customer(workspace))["balance"] == -500


def test_what_stripe_refuses_of_a_customer_is_left_out_the_second_time(billing: Billing) -> None:
    owner = make_user(billing.connection, "not@valid")
    workspace = make_workspace(billing.connection, owner, plan="free")
    billing.settle()
    assert customers(billing, workspace) == 1
    states = run(
        billing.connection,
        "select state from billing.requests where workspace_id = %s order by created_at, state",
        [workspace],
    )
    assert {row["state"] for row in states} == {"failed", "done"}


def test_a_live_key_is_refused_by_a_test_database_and_nothing_is_sent(billing: Billing, workspace: uuid.UUID) -> None:
    request = one(billing.connection, "select billing.adjust(%s, 500, 'usd', 'test', 'k')", [workspace])
    with refused("stripe_mode_differs"), billing.connection.transaction():
        run(billing.connection, "select billing.take_call(%s, 'live')", [Jsonb({"request": str(request)})])
    assert one(billing.connection, "select attempts from billing.requests where id = %s", [request]) == 0


def test_another_account_is_refused_once_something_is_known(billing: Billing) -> None:
    with refused("account_differs"), billing.connection.transaction():
        run(billing.connection, "select billing.connect_account('acct_other', false)")
    with refused("account_differs"), billing.connection.transaction():
        run(billing.connection, "select billing.connect_account(%s, true)", [billing.stripe.store.account])
    with refused("account_invalid"):
        run(billing.connection, "select billing.connect_account('cus_1', false)")


def test_without_an_account_nothing_is_enqueued(db: object, stripe: Stripe) -> None:
    from typing import cast

    from ..races import Connection

    connection = cast("Connection", db)
    make_workspace(connection, make_user(connection), plan="free")
    assert one(connection, "select count(*) from jobs.jobs where kind = 'billing.call'") == 0
    with refused("stripe_not_connected"):
        run(connection, 'select billing.take_call(\'{"request": "00000000-0000-0000-0000-000000000000"}\')')


def test_details_are_pushed_and_the_last_word_stays(billing: Billing, workspace: uuid.UUID, owner: uuid.UUID) -> None:
    details = {
        "name": "Acme GmbH", "email": "bills@acme.example", "purchase_order": "PO-7", "invoice_footer": "Thank you",
        "address": {"line1": "Weg 1", "city": "Bonn", "postal_code": "53111", "country": "DE"},
        "tax_ids": [{"type": "eu_vat", "value": "DE123456789"}],
    }  # fmt: skip
    with as_user(billing.connection, owner):
        run(billing.connection, "select public.set_billing_details(%s, %s)", [workspace, Jsonb(details)])
    billing.settle()
    customer = billing.stripe.store.get(billing.customer(workspace))
    assert (customer["name"], customer["email"], customer["address"]["country"]) == (
        "Acme GmbH",
        "bills@acme.example",
        "DE",
    )
    assert customer["invoice_settings"]["footer"] == "Thank you"
    assert customer["invoice_settings"]["custom_fields"] == [{"name": "Purchase order", "value": "PO-7"}]
    assert [row["value"] for row in billing.stripe.store.every("tax_id")] == ["DE123456789"]
    billing.stripe.advance(5)
    with as_user(billing.connection, owner):
        for name in ("One", "Two"):
            run(billing.connection, "select public.set_billing_details(%s, %s)", [workspace, Jsonb({"name": name})])
        run(billing.connection, "select public.set_billing_details(%s, '{\"tax_ids\": []}')", [workspace])
    billing.settle()
    assert customer["name"] == "Two"
    assert list(billing.stripe.store.every("tax_id")) == []
    with as_user(billing.connection, owner):
        shown = one(billing.connection, "select public.billing_details(%s)", [workspace])
    assert (shown["name"], shown["purchase_order"], shown["tax_ids"]) == ("Two", "PO-7", [])


@pytest.mark.parametrize(
    "wrong",
    [
        [], {"colour": "red"}, {"name": 5}, {"name": "x" * 151}, {"email": "nobody"}, {"address": "Bonn"}, {"address": {"town": "Bonn"}},
        {"address": {"country": "Germany"}}, {"tax_ids": {}}, {"tax_ids": [{"type": "eu_vat"}]}, {"tax_ids": ["DE1"]},
        {"tax_ids": [{"type": "eu_vat", "value": "DE1"}] * 6}, {"invoice_footer": "x" * 5001}, {"name": "a\x01b"}, {"name": "a\rb"},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_details_are_refused_and_lose_nothing(
    billing: Billing, workspace: uuid.UUID, owner: uuid.UUID, wrong: object
) -> None:
    with as_user(billing.connection, owner), refused("details_invalid"), billing.connection.transaction():
        run(billing.connection, "select public.set_billing_details(%s, %s)", [workspace, Jsonb(wrong)])
    assert one(billing.connection, "select revision from billing.customers where workspace_id = %s", [workspace]) == 0


def test_details_are_for_those_who_manage_billing(billing: Billing, workspace: uuid.UUID) -> None:
    from ..identities import add_member

    for role in ("member", "viewer"):
        user = add_member(billing.connection, workspace, role)
        with as_user(billing.connection, user), refused("permission_denied"), billing.connection.transaction():
            run(billing.connection, "select public.billing_details(%s)", [workspace])
    with (
        as_user(billing.connection, make_user(billing.connection)),
        refused("workspace_not_found"),
        billing.connection.transaction(),
    ):
        run(billing.connection, "select public.set_billing_details(%s, '{}')", [workspace])


def test_a_name_that_looks_like_a_template_is_a_name(billing: Billing) -> None:
    owner = make_user(billing.connection)
    workspace = one(
        billing.connection, "select id from tenancy.make_workspace('{customer} Ltd', 'template-ltd', %s)", [owner]
    )
    billing.settle()
    assert billing.stripe.store.get(billing.customer(workspace))["name"] == "{customer} Ltd"
    with as_user(billing.connection, owner):
        run(
            billing.connection,
            "select public.set_billing_details(%s, %s)",
            [workspace, Jsonb({"invoice_footer": "for {customer}"})],
        )
    billing.settle()
    assert billing.stripe.store.get(billing.customer(workspace))["invoice_settings"]["footer"] == "for {customer}"


def test_currencies_that_stripe_counts_otherwise_are_refused(billing: Billing, workspace: uuid.UUID) -> None:
    for currency in ("isk", "UGX", "mga"):
        with refused("currency_unknown"), billing.connection.transaction():
            run(billing.connection, "select billing.adjust(%s, 500, %s, 'why', 'k')", [workspace, currency])


# Runs ---------------------------------------------------------------------------------------------


def test_a_run_whose_bookmark_is_gone_reads_that_list_anew(billing: Billing) -> None:
    for _ in range(120):
        billing.stripe.call("POST", "/v1/coupons", {"percent_off": "5"})
    name = one(billing.connection, "select billing.start_run('sync', '{coupon}')")
    payload = Jsonb({"run": str(name)})
    call = one(billing.connection, "select billing.take_call(%s)", [payload])
    from rowhouse.worker import stripe_calls

    run(billing.connection, "select billing.settle_call(%s, %s)", [Jsonb(call["token"]), Jsonb(stripe_calls.ask(call))])
    cursor = one(billing.connection, "select cursor from billing.runs where id = %s", [name])
    billing.stripe.call("DELETE", f"/v1/coupons/{cursor}", {})
    billing.carry({"run": str(name)})
    row = run(billing.connection, "select finished_at, error from billing.runs where id = %s", [name])[0]
    assert row["finished_at"] and row["error"] is None
    assert (
        one(billing.connection, "select count(*) from billing.objects where object = 'coupon' and not is_deleted")
        >= 119
    )


def test_a_run_that_would_read_less_is_not_gone_on_with(billing: Billing) -> None:
    part = one(billing.connection, "select billing.start_run('sync', null, now() - interval '1 day')")
    assert one(billing.connection, "select billing.start_run('sync', null, now())") == part
    whole = one(billing.connection, "select billing.start_run('sync')")
    assert whole != part
    assert one(billing.connection, "select billing.start_run('sync', null, now() - interval '1 day')") == whole


def test_a_run_that_stripe_refuses_ends_and_says_why(billing: Billing) -> None:
    name = one(billing.connection, "select billing.start_run('sync', '{coupon}')")
    call = one(billing.connection, "select billing.take_call(%s)", [Jsonb({"run": str(name)})])
    answer = {"status": 400, "body": {"error": {"message": "no"}}}
    outcome = one(billing.connection, "select billing.settle_call(%s, %s)", [Jsonb(call["token"]), Jsonb(answer)])
    assert outcome["failed"]
    assert one(billing.connection, "select billing.start_run('sync', '{coupon}')") != name
