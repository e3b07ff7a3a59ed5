"""Messages reach their provider once, whatever it does: through the real SDKs, against a stand-in that fails as they do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import Database
from ..identities import add_member, as_user, make_customer, make_ticket, make_user, make_workspace, one, run
from ..jobs.queue import set_clock
from ..jobs.worker import until
from ..races import Connection
from .provider import Provider
from .test_outbox import write
from .told import declare, emit, messages


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setenv("ROWHOUSE_LATE_SECONDS", "2")
    with Provider() as provider:
        yield provider


@pytest.fixture
def outbox(database: Database) -> Iterator[Connection]:
    with database.connect(autocommit=True) as connection:
        run(
            connection,
            "update jobs.kinds set backoff = '0.1 seconds', max_backoff = '1 second' where kind = 'notify.send'",
        )
        yield connection


def settled(connection: Connection) -> bool:
    return not one(connection, "select count(*) from notify.messages where state in ('pending', 'sending')")


@pytest.mark.parametrize(
    "faults",
    [[], ["down"], ["500", "503"], ["429"], ["lost"], ["half"], ["late"], ["lost", "500", "half", "down", "lost"]],
    ids=lambda faults: "+".join(faults) or "none",
)
def test_a_mail_is_taken_once_whatever_happens_to_the_answers(
    database: Database, outbox: Connection, provider: Provider, faults: list[str]
) -> None:
    provider.fail("email", faults)
    write(outbox, "anna@example.com", "Hello")
    with provider.worker(database.url(), "--lease", "5"):
        until(lambda: settled(outbox), "its end")
    assert [(mail["to"], mail["subject"]) for mail in provider.taken("email")] == [("anna@example.com", "Hello")]
    row = messages(outbox)[0]
    assert row["state"] == "sent" and row["provider_id"] == provider.taken("email")[0]["id"]
    assert provider.memory.requests == len(faults) + 1
    # Being asked to wait is no attempt.
    ended = "select attempts from jobs.history where kind = 'notify.send'"
    with provider.worker(database.url()):
        until(lambda: run(outbox, ended), "its job's end")
    assert one(outbox, ended) == 1 + len([fault for fault in faults if fault != "429"])


def test_a_batch_of_a_hundred_is_one_request_and_each_is_taken_once(
    database: Database, outbox: Connection, provider: Provider
) -> None:
    declare(outbox)
    workspace = make_workspace(outbox, make_user(outbox, "owner@example.com"))
    for _ in range(119):
        add_member(outbox, workspace, "viewer")
    run(outbox, "delete from notifications")
    emit(outbox, workspace)
    set_clock(outbox, "now() + interval '2 days'")
    assert one(outbox, "select notify.build_digests()") == 120
    run(outbox, "delete from ops.clock")
    provider.fail("email", ["lost", "half"])
    with provider.worker(database.url()):
        until(lambda: settled(outbox), "the end")
    mails = provider.taken("email")
    assert len(mails) == 120 and len({mail["to"] for mail in mails}) == 120
    assert provider.memory.requests == 4
    assert mails[0]["headers"]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


def test_what_the_provider_will_never_take_fails_and_the_rest_of_its_batch_arrives(
    database: Database, outbox: Connection, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rowhouse.local import providers

    is_fine = providers.flaw_of
    monkeypatch.setattr(
        providers, "flaw_of", lambda mail: "Invalid `to` field." if mail["to"] == ["bad@example.com"] else is_fine(mail)
    )
    declare(outbox, default_frequency="immediately")
    workspace = make_workspace(outbox, make_user(outbox, "bad@example.com"))
    for name in ("a", "b"):
        add_member(outbox, workspace, "viewer", make_user(outbox, f"{name}@example.com"))
    run(outbox, "delete from notifications")
    emit(outbox, workspace)
    with provider.worker(database.url()):
        until(lambda: messages(outbox) and settled(outbox), "the end")
    assert sorted(mail["to"] for mail in provider.taken("email")) == ["a@example.com", "b@example.com"]
    failed = next(row for row in messages(outbox) if row["state"] == "failed")
    assert failed["recipient"] == "bad@example.com" and "422 validation_error" in failed["last_error"]


def test_without_a_key_mails_wait_and_say_why(database: Database, outbox: Connection, provider: Provider) -> None:
    write(outbox)
    with provider.worker(database.url(), "--once", RESEND_API_KEY="") as worker:
        assert worker.wait() == 0
    assert messages(outbox)[0]["last_error"] == "RESEND_API_KEY is not set: mails wait"
    assert one(outbox, "select state from jobs.jobs where kind = 'notify.send'") == "pending"


def test_a_repair_is_completed_while_the_sms_provider_is_down(
    database: Database, outbox: Connection, provider: Provider
) -> None:
    owner = make_user(outbox)
    workspace = make_workspace(outbox, owner)
    ticket = make_ticket(outbox, workspace, make_customer(outbox, workspace, phone="+1 202 555 0147"))
    with as_user(outbox, owner):
        run(outbox, "select set_brand(%s, 'Repairs', null, null, true)", [workspace])
    provider.fail("sms", "down")
    with provider.worker(database.url()):
        begun = time.monotonic()
        for status in ("diagnosing", "ready", "completed"):
            with as_user(outbox, owner):
                run(outbox, "update tickets set status = %s where id = %s", [status, ticket])
        assert time.monotonic() - begun < 5, "the transaction waits for nobody"
        until(lambda: one(outbox, "select max(attempts) from notify.messages") >= 4, "four attempts")
        longer = "select id from jobs.jobs where kind = 'notify.send' and run_at > started_at + interval '0.5 seconds'"
        until(lambda: run(outbox, longer), "a longer delay")
        assert provider.taken("sms") == []
        provider.fail("sms", ["lost"])
        until(lambda: settled(outbox), "its arrival")
    assert [(text["to"], text["text"]) for text in provider.taken("sms")] == [
        ("+12025550147", "Repairs: your Phone is repaired (ticket 1). You can collect it.")
    ]
    assert messages(outbox)[0]["state"] == "sent"


def test_a_number_that_does_not_exist_fails_at_once(database: Database, outbox: Connection, provider: Provider) -> None:
    write(outbox, "+12025550147", channel="sms")
    provider.fail("sms", ["400"])
    with provider.worker(database.url()):
        until(lambda: settled(outbox), "its end")
    row = messages(outbox)[0]
    assert row["state"] == "failed" and "400" in row["last_error"]
    assert one(outbox, "select state from jobs.jobs where kind = 'notify.send'") == "failed"


def test_secrets_are_in_no_log_and_gone_once_sent(
    database: Database, outbox: Connection, provider: Provider, tmp_path: Path
) -> None:
    owner = make_user(outbox)
    workspace = make_workspace(outbox, owner, plan="free")
    with as_user(outbox, owner):
        token = one(outbox, "select token from invite_member(%s, 'new@example.com')", [workspace])
    with provider.worker(database.url(), log=tmp_path / "log"):
        until(lambda: settled(outbox), "its end")
    assert token in provider.taken("email")[0]["text"]
    assert token not in (tmp_path / "log").read_text()
    for table in ("notify.messages", "jobs.history", "jobs.jobs", "audit.inbox", "public.notifications"):
        assert one(outbox, f"select count(*) from {table} t where t::text like %s", [f"%{token}%"]) == 0
