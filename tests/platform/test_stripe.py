"""The edge functions for Stripe under Deno, behind the gateway: webhooks, checkout, portal, changes, and carrying calls.

Promises 14 and 15.
"""

from __future__ import annotations

import json
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from rowhouse.local.platform import supervisor

from ..identities import add_member, make_user, make_workspace, one, run
from ..jobs.worker import until
from ..support.stripe_server import Stripe
from .conftest import Platform

pytestmark = pytest.mark.xdist_group("platform")
Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def database(platform: Platform) -> Iterator[Connection]:
    """Connected to the platform's Stripe, with a catalogue there."""
    state = platform.instance.load()
    given = {**state.providers, "DATABASE_URL": state.database_url}
    with psycopg.connect(state.database_url, autocommit=True) as connection:
        connected = platform.rowhouse("stripe", "connect", **given)
        assert connected.returncode == 0, connected.stderr
        applied = platform.rowhouse("plans", "apply", "--json", **given)
        assert applied.returncode == 0, applied.stderr
        yield connection


@pytest.fixture
def functions(platform: Platform, database: Connection) -> str:
    return f"{platform.instance.load().api_url}/functions/v1"


@pytest.fixture(scope="module")
def signer() -> Stripe:
    """Signs as Stripe does; nothing is asked of it."""
    return Stripe()


def event(**more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": f"evt_{uuid.uuid4().hex}", "object": "event", "type": "customer.updated", "livemode": False, "created": int(time.time()),
        "api_version": "2026-10-28.endive",
        "data": {"object": {"id": f"cus_{uuid.uuid4().hex}", "object": "customer", "livemode": False, "metadata": {}, "balance": 0}},
    }  # fmt: skip
    return {**made, **more}


def post(functions: str, body: bytes, signature: str | None) -> httpx.Response:
    headers = {"content-type": "application/json", **({"stripe-signature": signature} if signature is not None else {})}
    return httpx.post(f"{functions}/stripe-webhook", content=body, headers=headers, timeout=30)


def secret(platform: Platform) -> str:
    return platform.instance.load().providers["STRIPE_WEBHOOK_SECRET"]


def kept(database: Connection, name: str) -> int:
    count: int = one(database, "select count(*) from billing.events where id = %s", [name])
    return count


def test_a_genuine_event_is_kept_once_and_answered(
    platform: Platform, functions: str, database: Connection, signer: Stripe
) -> None:
    sent = event()
    body = json.dumps(sent, indent=2).encode()
    first = post(functions, body, signer.signature(body, [secret(platform)]))
    again = post(functions, body, signer.signature(body, [secret(platform)]))
    assert (first.status_code, first.json()) == (200, {"is_new": True})
    assert (again.status_code, again.json()) == (200, {"is_new": False})
    until(
        lambda: one(database, "select outcome from billing.events where id = %s", [sent["id"]]) == "applied",
        "its processing",
    )
    assert one(database, "select payload from billing.events where id = %s", [sent["id"]]) == sent


def test_what_is_forged_changed_stale_or_truncated_is_refused_before_it_is_read(
    platform: Platform, functions: str, database: Connection, signer: Stripe
) -> None:
    sent = event()
    body = json.dumps(sent, indent=2).encode()
    good = signer.signature(body, [secret(platform)])
    now = time.time()
    refusals = {
        "no signature": (body, None), "an empty one": (body, ""), "another secret": (body, signer.signature(body, ["whsec_other"])),
        "re-serialised": (json.dumps(sent).encode(), good), "truncated": (body[:-20], good), "one byte more": (body + b" ", good),
        "stale": (body, signer.signature(body, [secret(platform)], now - 301)), "of an earlier scheme": (body, good.replace("v1=", "v0=")),
        "no time": (body, good.partition(",")[2]), "empty": (b"", good), "not JSON": (b"{", good), "binary": (b"\xff\x00\xfe", good),
    }  # fmt: skip
    for name, (content, signature) in refusals.items():
        answer = post(functions, content, signature)
        assert (answer.status_code, answer.json()["code"]) == (401, "signature_invalid"), name
    assert kept(database, sent["id"]) == 0
    # Signed, and no event: that is Stripe's own mistake, or not Stripe's.
    for content in (
        b"[]",
        b"{}",
        b"5",
        b"null",
        b"{",
        b'{"id": "evt_1", "type": "x", "created": 1, "data": {"object": {"a": "\\u0000"}}}',
    ):
        answer = post(functions, content, signer.signature(content, [secret(platform)]))
        assert (400 <= answer.status_code < 500) and answer.status_code != 401, content
    assert httpx.get(f"{functions}/stripe-webhook").status_code == 405


def test_five_megabytes_are_refused(platform: Platform, functions: str, signer: Stripe) -> None:
    body = json.dumps(event(padding="x" * 5_000_000)).encode()
    answer = post(functions, body, signer.signature(body, [secret(platform)]))
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")


def test_299_seconds_are_taken_and_both_secrets_sign_during_a_rotation(
    platform: Platform, functions: str, signer: Stripe
) -> None:
    body = json.dumps(event()).encode()
    assert post(functions, body, signer.signature(body, [secret(platform)], time.time() - 290)).status_code == 200
    body = json.dumps(event()).encode()
    assert post(functions, body, signer.signature(body, ["whsec_new", secret(platform)])).status_code == 200


def test_what_means_nothing_here_is_answered_all_the_same(
    platform: Platform, functions: str, database: Connection, signer: Stripe
) -> None:
    for more in (
        {"livemode": True},
        {"account": "acct_other"},
        {"type": "some.thing", "data": {"object": {"object": "some.thing", "id": "st_1"}}},
    ):
        sent = event(**more)
        body = json.dumps(sent).encode()
        assert post(functions, body, signer.signature(body, [secret(platform)])).status_code == 200
        assert one(database, "select outcome from billing.events where id = %s", [sent["id"]]) == "ignored"


def test_a_hundred_at_once_are_each_kept_once(
    platform: Platform, functions: str, database: Connection, signer: Stripe
) -> None:
    bodies = [json.dumps(event()).encode() for _ in range(100)]
    bad = b'{"id": "evt_bad", "type": "x", "created": 1, "data": {"object": {"a": "\\u0000"}}}'
    with httpx.Client(timeout=30) as client:
        answers: list[int] = []

        def send(body: bytes) -> None:
            headers = {"stripe-signature": signer.signature(body, [secret(platform)])}
            answers.append(client.post(f"{functions}/stripe-webhook", content=body, headers=headers).status_code)

        threads = [threading.Thread(target=send, args=[body]) for body in [*bodies[:50], bad, *bodies[50:]]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answers) == [200] * 100 + [400]
    names = [json.loads(body)["id"] for body in bodies]
    assert one(database, "select count(*) from billing.events where id = any(%s)", [names]) == 100


def test_killed_between_the_inbox_and_the_answer_nothing_is_lost_or_doubled(
    platform: Platform, functions: str, database: Connection, signer: Stripe
) -> None:
    sent = event()
    body = json.dumps(sent).encode()
    interface = supervisor(platform.instance)
    assert interface is not None
    with psycopg.connect(platform.instance.load().database_url) as holder:
        run(holder, "lock table billing.events in share mode")
        answers: list[int] = []

        def send() -> None:
            try:
                answers.append(post(functions, body, signer.signature(body, [secret(platform)])).status_code)
            except httpx.HTTPError:
                answers.append(0)

        thread = threading.Thread(target=send)
        thread.start()
        until(
            lambda: run(database, "select 1 from pg_locks where not granted and relation = 'billing.events'::regclass"),
            "the insert's wait",
        )
        interface.signalProcess("functions", str(signal.SIGKILL.value))
        thread.join(30)
        assert answers and not 200 <= answers[0] < 300
    until(lambda: httpx.get(f"{functions}/health").status_code == 200, "the functions' return")
    # Stripe sends it again: whether it was kept by then or not, it is there once.
    retried = post(functions, body, signer.signature(body, [secret(platform)]))
    assert retried.status_code == 200
    assert kept(database, sent["id"]) == 1
    until(
        lambda: one(database, "select outcome from billing.events where id = %s", [sent["id"]]) == "applied",
        "its processing",
    )


# What members ask for -----------------------------------------------------------------------------


@pytest.fixture
def owner(platform: Platform, database: Connection) -> tuple[uuid.UUID, uuid.UUID, str]:
    """A workspace, its owner, and the owner's token."""
    user = make_user(database, f"{uuid.uuid4().hex}@example.com")
    workspace = make_workspace(database, user, plan="free")
    return workspace, user, token(platform, user)


def token(platform: Platform, user: uuid.UUID) -> str:
    import jwt

    claims = {
        "sub": str(user),
        "role": "authenticated",
        "aal": "aal1",
        "is_anonymous": False,
        "exp": int(time.time()) + 600,
    }
    return jwt.encode(claims, platform.instance.load().jwt_secret, algorithm="HS256")


def ask(functions: str, name: str, bearer: str | None, body: Any, **headers: str) -> httpx.Response:
    given = {**headers, **({"authorization": f"Bearer {bearer}"} if bearer else {})}
    return httpx.post(f"{functions}/{name}", json=body, headers=given, timeout=60)


def control(platform: Platform, deed: str, **given: Any) -> Any:
    url = platform.instance.load().providers["STRIPE_API_URL"]
    return httpx.post(f"{url}/_control/{deed}", json=given, timeout=30).raise_for_status().json()


def test_a_checkout_is_opened_paid_and_heard_of(
    platform: Platform, functions: str, database: Connection, owner: tuple[uuid.UUID, uuid.UUID, str]
) -> None:
    workspace, _, bearer = owner
    wish = {"workspace_id": str(workspace), "price": "pro_monthly"}
    first = ask(functions, "checkout", bearer, wish, **{"idempotency-key": "once"})
    again = ask(functions, "checkout", bearer, wish, **{"idempotency-key": "once"})
    assert first.status_code == 200, first.text
    assert first.json() == again.json()
    control(platform, "pay", session=first.json()["url"].rsplit("/", 1)[1])
    until(lambda: one(database, "select plan from billing.access(%s)", [workspace]) == "pro", "the plan")
    assert ask(functions, "checkout", bearer, wish).json()["code"] == "already_subscribed"
    portal = ask(functions, "portal", bearer, {"workspace_id": str(workspace)})
    assert portal.json()["url"].startswith("https://billing.stripe.example/")
    shown = ask(
        functions,
        "change-plan",
        bearer,
        {"workspace_id": str(workspace), "price": "enterprise_seat", "seats": 3, "preview": True},
    )
    assert shown.status_code == 200 and shown.json()["currency"] == "usd"
    changed = ask(
        functions, "change-plan", bearer, {"workspace_id": str(workspace), "price": "enterprise_seat", "seats": 3}
    )
    assert changed.status_code == 200, changed.text
    until(lambda: one(database, "select plan from billing.access(%s)", [workspace]) == "enterprise", "the change")


@pytest.mark.parametrize("name", ["checkout", "portal", "change-plan"])
def test_who_may_not_is_told_so_and_nothing_is_asked(
    platform: Platform, functions: str, database: Connection, owner: tuple[uuid.UUID, uuid.UUID, str], name: str
) -> None:
    workspace, _, bearer = owner
    wish = {"workspace_id": str(workspace), "price": "pro_monthly"}
    member = token(platform, add_member(database, workspace, "member"))
    stranger = token(platform, make_user(database))
    requests = one(database, "select count(*) from billing.requests where kind <> 'customer.create'")
    assert ask(functions, name, None, wish).status_code == 401
    assert ask(functions, name, platform.instance.load().key("anon"), wish).status_code in (401, 403)
    assert (ask(functions, name, member, wish).status_code, ask(functions, name, member, wish).json()["code"]) == (
        403,
        "permission_denied",
    )
    assert (ask(functions, name, stranger, wish).status_code, ask(functions, name, stranger, wish).json()["code"]) == (
        404,
        "workspace_not_found",
    )
    nonsense: Any
    for nonsense in ([], "x", {}, {"workspace_id": 5}, {"workspace_id": "x" * 20_000}):
        assert ask(functions, name, bearer, nonsense).status_code == 400
    assert 400 <= ask(functions, name, bearer, {"workspace_id": "not-a-uuid", "price": "pro_monthly"}).status_code < 500
    elsewhere = ask(functions, "checkout", bearer, {**wish, "return_path": "//evil.example"})
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (400, "return_path_invalid")
    assert one(database, "select count(*) from billing.requests where kind <> 'customer.create'") == requests


@pytest.fixture
def alone(platform: Platform) -> Iterator[None]:
    """No worker runs: whatever is asked of Stripe, a function asks."""
    interface = supervisor(platform.instance)
    assert interface is not None
    interface.stopProcess("worker")
    yield
    interface.startProcess("worker")


def test_when_stripe_does_not_answer_the_same_key_opens_the_same_checkout_later(
    platform: Platform, functions: str, database: Connection, owner: tuple[uuid.UUID, uuid.UUID, str], alone: None
) -> None:
    workspace, _, bearer = owner
    # Its customer, too, is still to be made.
    wish = {"workspace_id": str(workspace), "price": "pro_monthly"}
    control(platform, "faults", faults=["500"] * 4)
    failed = ask(functions, "checkout", bearer, wish, **{"idempotency-key": "k"})
    assert (failed.status_code, failed.json()["code"]) == (503, "stripe_not_reached")
    opened = ask(functions, "checkout", bearer, wish, **{"idempotency-key": "k"})
    while opened.status_code == 503:
        opened = ask(functions, "checkout", bearer, wish, **{"idempotency-key": "k"})
    assert opened.status_code == 200
    assert one(database, "select count(*) from billing.requests where workspace_id = %s", [workspace]) == 2


def test_deliver_carries_calls_where_no_worker_runs(
    platform: Platform, functions: str, database: Connection, alone: None
) -> None:
    workspace = make_workspace(database, make_user(database), plan="free")
    key = platform.instance.load().key("service_role")
    control(platform, "faults", faults=["lost"])
    run(database, "update jobs.kinds set backoff = '0.1 seconds' where kind = 'billing.call'")

    def carried() -> bool:
        answer = httpx.post(f"{functions}/deliver", headers={"Authorization": f"Bearer {key}"}, timeout=90)
        assert answer.status_code == 200, answer.text
        return bool(
            one(database, "select stripe_id is not null from billing.customers where workspace_id = %s", [workspace])
        )

    until(carried, "the customer")
    run(database, "update jobs.kinds set backoff = '2 seconds' where kind = 'billing.call'")


def test_whatever_becomes_of_webhooks_a_reconcile_ends_in_agreement(
    platform: Platform, functions: str, database: Connection
) -> None:
    """Dropped, doubled, delayed, held and shuffled, the endpoint disabled, 429 and 500 in between."""
    from stripe import StripeClient

    state = platform.instance.load()
    client: Any = StripeClient(
        state.providers["STRIPE_SECRET_KEY"], base_addresses={"api": state.providers["STRIPE_API_URL"]}
    )
    places = [make_workspace(database, make_user(database), plan="free") for _ in range(4)]
    customers = until(
        lambda: (rows := run(database, "select stripe_id from billing.customers where workspace_id = any(%s)", [places]))
        and all(row["stripe_id"] for row in rows) and [row["stripe_id"] for row in rows],
        "the customers",
    )  # fmt: skip
    price = client.v1.prices.list({"lookup_keys": ["pro_monthly"]}).data[0].id
    endpoint = client.v1.webhook_endpoints.list().data[0].id
    control(platform, "adversary", drop=0.3, duplicate=0.3, delay=0.5)
    bought = []
    for customer in customers:
        control(platform, "set_card", customer=customer, method="pm_card_visa")
        bought.append(client.v1.subscriptions.create({"customer": customer, "items": [{"price": price}]}).id)
    control(platform, "adversary", hold=True)
    client.v1.subscriptions.update(bought[0], {"cancel_at_period_end": True})
    client.v1.subscriptions.cancel(bought[1])
    control(platform, "release")
    control(platform, "adversary")
    client.v1.webhook_endpoints.update(endpoint, {"disabled": True})
    client.v1.subscriptions.cancel(bought[2])
    client.v1.webhook_endpoints.update(endpoint, {"disabled": False})
    control(platform, "faults", faults=["429", "500", "429"])
    time.sleep(2.5)
    given = {**state.providers, "DATABASE_URL": state.database_url}
    reconciled = platform.rowhouse("stripe", "reconcile", "--json", **given)
    assert reconciled.returncode in (0, 5), reconciled.stderr

    def agrees() -> bool:
        rows = run(database, "select id, data from billing.objects where id = any(%s) order by id", [bought])
        there = [client.v1.subscriptions.retrieve(name) for name in sorted(bought)]
        return [(row["data"]["status"], row["data"]["cancel_at_period_end"]) for row in rows] == [
            (subscription.status, subscription.cancel_at_period_end) for subscription in there
        ]

    until(agrees, "agreement")
    access = {
        customer: one(database, "select a.plan from billing.customers c cross join lateral billing.access(c.workspace_id) a where c.stripe_id = %s", [customer])
        for customer in customers
    }  # fmt: skip
    assert [access[customer] for customer in customers] == ["pro", "free", "free", "pro"]
