"""The edge functions under Deno, behind the gateway: delivering, hearing of bounces, unsubscribing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from rowhouse.local.platform import supervisor

from ..identities import one, run
from ..notify.test_outbox import write
from .conftest import Platform

pytestmark = pytest.mark.xdist_group("platform")
Connection = psycopg.Connection[Any]


@pytest.fixture
def database(platform: Platform) -> Iterator[Connection]:
    with psycopg.connect(platform.instance.load().database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def functions(platform: Platform) -> str:
    return f"{platform.instance.load().api_url}/functions/v1"


@pytest.fixture
def alone(platform: Platform) -> Iterator[None]:
    """No worker runs: what is delivered, the function delivers."""
    interface = supervisor(platform.instance)
    assert interface is not None
    interface.stopProcess("worker")
    yield
    interface.startProcess("worker")


def deliver(platform: Platform, functions: str) -> httpx.Response:
    key = platform.instance.load().key("service_role")
    return httpx.post(f"{functions}/deliver", headers={"Authorization": f"Bearer {key}"}, timeout=90)


def fail(platform: Platform, **faults: Any) -> None:
    httpx.post(f"http://127.0.0.1:{platform.instance.load().ports['providers']}/faults", json=faults).raise_for_status()


def sent(platform: Platform, to: str) -> list[dict[str, Any]]:
    return [mail for mail in platform.instance.messages() if mail["to"] == to]


def address() -> str:
    return f"{uuid.uuid4().hex}@example.com"


def test_deliver_sends_what_waits_once_whatever_happens_to_the_answers(
    platform: Platform, functions: str, database: Connection, alone: None
) -> None:
    to, number = address(), "+1202555" + str(time.time_ns())[-4:]
    write(database, to, "By Deno")
    write(database, number, channel="sms")
    fail(platform, email=["lost", "500"], sms=["lost", "down"])
    run(
        database,
        "update jobs.kinds set backoff = '0.1 seconds', max_backoff = '0.2 seconds' where kind = 'notify.send'",
    )
    outcomes: dict[str, int] = {}
    deadline = time.monotonic() + 30
    while one(database, "select count(*) from notify.messages where state in ('pending', 'sending')"):
        response = deliver(platform, functions)
        assert response.status_code == 200, response.text
        for name, count in response.json().items():
            outcomes[name] = outcomes.get(name, 0) + count
        assert time.monotonic() < deadline
    fail(platform, email=None, sms=None)
    assert outcomes["waiting"] >= 3
    assert [mail["subject"] for mail in sent(platform, to)] == ["By Deno"]
    assert len(sent(platform, number)) == 1


def test_deliver_is_for_the_service_role_alone(platform: Platform, functions: str) -> None:
    assert httpx.post(f"{functions}/deliver").status_code == 401
    key = platform.instance.load().key("anon")
    response = httpx.post(f"{functions}/deliver", headers={"Authorization": f"Bearer {key}"})
    assert (response.status_code, response.json()["code"]) == (403, "permission_denied")


# Webhooks ---------------------------------------------------------------------------------------


def signed(platform: Platform, body: bytes, name: str, at: float | None = None) -> dict[str, str]:
    """The headers by which Resend signs: Standard Webhooks, under svix' names."""
    secret = platform.instance.load().providers["RESEND_WEBHOOK_SECRET"].removeprefix("whsec_")
    stamp = str(int(at or time.time()))
    mac = hmac.new(base64.b64decode(secret), f"{name}.{stamp}.".encode() + body, hashlib.sha256)
    signature = f"v1,{base64.b64encode(mac.digest()).decode()}"
    return {"svix-id": name, "svix-timestamp": stamp, "svix-signature": signature, "content-type": "application/json"}


def test_a_bounce_is_heard_once_and_the_address_is_not_written_to_again(
    platform: Platform, functions: str, database: Connection
) -> None:
    to = address()
    write(database, to)
    deadline = time.monotonic() + 30
    while not (mails := sent(platform, to)):
        assert time.monotonic() < deadline
    name = f"msg_{uuid.uuid4().hex}"
    event = {"type": "email.bounced", "created_at": "2026-11-20T10:00:00.000Z", "data": {
        "email_id": mails[0]["id"], "to": [to], "bounce": {"type": "Permanent", "subType": "General", "message": "no such user"},
    }}  # fmt: skip
    body = json.dumps(event).encode()
    for is_new in (True, False):
        response = httpx.post(f"{functions}/resend-webhook", content=body, headers=signed(platform, body, name))
        assert (response.status_code, response.json()) == (200, {"is_new": is_new})
    while one(database, "select state from notify.messages where recipient = %s", [to]) != "bounced":
        assert time.monotonic() < deadline
    listed = json.loads(platform.rowhouse("mail", "suppressed", "--json").stdout)
    assert next(row for row in listed if row["address"] == to)["detail"] == "no such user"
    write(database, to, "Again")
    while (
        one(database, "select count(*) from notify.messages where recipient = %s and state = 'suppressed'", [to]) != 1
    ):
        assert time.monotonic() < deadline
    assert len(sent(platform, to)) == 1


@pytest.mark.parametrize("what", ["forged", "altered", "stale", "unsigned", "huge", "no json", "no event"])
def test_what_resend_did_not_sign_is_refused_and_kept_nowhere(
    platform: Platform, functions: str, database: Connection, what: str
) -> None:
    name = f"msg_{uuid.uuid4().hex}"
    body = json.dumps({"type": "email.bounced", "data": {"email_id": "x"}}).encode()
    if what == "huge":
        body = json.dumps({"type": "email.bounced", "text": "x" * 300_000}).encode()
    elif what == "no json":
        body = b"not json"
    elif what == "no event":
        body = b"[]"
    headers = signed(platform, body, name, time.time() - 400 if what == "stale" else None)
    if what == "forged":
        headers["svix-signature"] = "v1," + base64.b64encode(b"0" * 32).decode()
    elif what == "altered":
        body = body.replace(b"bounced", b"complained")
    elif what == "unsigned":
        headers = {}
    response = httpx.post(f"{functions}/resend-webhook", content=body, headers=headers)
    assert response.status_code == {"huge": 413, "no event": 400}.get(what, 401), response.text
    assert one(database, "select count(*) from notify.provider_events where id = %s", [name]) == 0
    assert httpx.get(f"{functions}/resend-webhook").status_code == 405


# Unsubscribing ----------------------------------------------------------------------------------


def link_of(database: Connection) -> tuple[str, str]:
    user = one(database, "insert into auth.users (id, email) values (gen_random_uuid(), %s) returning id", [address()])
    return str(user), one(database, "select notify.unsubscribe_url(%s, null, null)", [user])


def test_a_person_confirms_and_a_mail_program_needs_one_click(database: Connection, functions: str) -> None:
    user, url = link_of(database)
    assert url.startswith(functions)
    page = httpx.get(url)
    assert page.status_code == 200 and '<form method="post">' in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    asked = "select count(*) from notification_preferences where user_id = %s and frequency = 'never'"
    assert one(database, asked, [user]) == 0, "whoever only opens links ends nothing"
    done = httpx.post(
        url, content="List-Unsubscribe=One-Click", headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert done.status_code == 200 and "Unsubscribed" in done.text
    assert one(database, asked, [user]) == 1


def test_a_forged_link_says_so_and_ends_nothing(database: Connection, functions: str) -> None:
    user, url = link_of(database)
    other = str(uuid.uuid4())
    for forged in (
        url.replace(user, other),
        url[:-4] + "0000",
        f"{functions}/unsubscribe",
        f"{functions}/unsubscribe?token=<b>",
    ):
        for method in ("GET", "POST"):
            response = httpx.request(method, forged)
            assert response.status_code == 400
            assert "This link does not work" in response.text and "<b>" not in re.sub(r"(?s)^.*<h1", "", response.text)
    assert one(database, "select count(*) from notification_preferences where user_id = %s", [other]) == 0
