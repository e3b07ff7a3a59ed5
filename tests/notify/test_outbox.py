"""The outbox as the database keeps it: batches that never change, suppressions, signed links, provider events."""

from __future__ import annotations

import json
import uuid

import pytest

from ..identities import Row, add_member, make_user, make_workspace, one, refused, run
from ..jobs.queue import set_clock
from ..races import Connection
from .told import declare, emit, messages, prefer, work_off


def write(
    connection: Connection, to: str = "a@example.com", subject: str = "S", channel: str = "email", **more: object
) -> uuid.UUID:
    """Writes a message; returns its batch."""
    named = "".join(f", {name} => %({name})s" for name in more)
    message = one(
        connection,
        f"select notify.write_message(%(channel)s, 'test', %(to)s, row(%(subject)s, '<p>H</p>', 'T')::notify.rendered{named})",
        {"channel": channel, "to": to, "subject": subject, **more},
    )
    batch: uuid.UUID = one(connection, "select batch_id from notify.messages where id = %s", [message])
    return batch


def take(connection: Connection, batch: uuid.UUID) -> Row:
    delivery: Row = one(connection, "select notify.take(%s)", [batch])
    return delivery


def accept(connection: Connection, delivery: Row) -> None:
    results = [{"id": m["id"], "provider_id": f"re-{m['id']}"} for m in delivery["messages"]]
    one(connection, "select notify.accepted(%s, %s)", [delivery["batch_id"], json.dumps(results)])


@pytest.mark.parametrize(
    ("to", "subject"),
    [
        ("a@b.c\r\nBcc: x@y.z", "S"), ("a b@c.de", "S"), ('"<a>"@b.de', "S"), ("nobody", "S"), ("a@b.de", "S\r\nBcc: x@y.z"),
        ("a@b.de", "S\x00".replace("\x00", "\x07")), ("a@b.de", "S" * 301), ("x" * 320 + "@b.de", "S"),
    ],
)  # fmt: skip
def test_what_would_break_a_header_is_refused_when_it_is_written(db: Connection, to: str, subject: str) -> None:
    with refused("23514"), db.transaction():
        write(db, to, subject)
    with refused("23514"), db.transaction():
        write(db, headers=json.dumps({"X": "a\r\nBcc: x@y.z"}))
    assert messages(db) == []


def test_a_message_and_its_job_exist_or_neither(db: Connection) -> None:
    batch = write(db)
    job = run(db, "select payload, priority from jobs.jobs where kind = 'notify.send'")[0]
    assert job == {"payload": {"batch_id": str(batch)}, "priority": 10}


def test_a_batch_goes_out_the_same_every_time(db: Connection) -> None:
    batch = write(db)
    first = take(db, batch)
    assert first["is_first"] and first["messages"][0]["body"] == {
        "from": '"Rowhouse" <no-reply@example.com>', "to": ["a@example.com"], "subject": "S", "html": "<p>H</p>",
        "text": "T", "headers": {},
    }  # fmt: skip
    run(db, "insert into notify.suppressions (address, reason) values ('a@example.com', 'bounced')")
    again = take(db, batch)
    assert again["messages"] == first["messages"] and not again["is_first"]
    accept(db, again)
    assert take(db, batch)["messages"] == []
    row = messages(db)[0]
    assert (row["state"], row["attempts"], row["provider_id"]) == ("sent", 2, f"re-{row['id']}")


def test_a_suppressed_address_is_left_out_and_the_operator_sees_why(db: Connection) -> None:
    run(
        db,
        "insert into notify.suppressions (address, reason, detail) values ('a@example.com', 'bounced', 'no such user')",
    )
    assert take(db, write(db, "A@Example.com"))["messages"] == []
    row = messages(db)[0]
    assert (row["state"], row["last_error"]) == ("suppressed", "bounced: no such user")


def test_after_a_day_of_trying_it_is_given_up_rather_than_sent_twice(db: Connection) -> None:
    batch = write(db)
    take(db, batch)
    set_clock(db, "now() + interval '24 hours'")
    assert take(db, batch)["messages"] == []
    assert messages(db)[0]["state"] == "failed"
    assert one(db, "select notify.resend(id) from notify.messages")
    fresh = messages(db)[0]
    assert fresh["batch_id"] != batch
    assert len(take(db, fresh["batch_id"])["messages"]) == 1


def test_one_bad_message_does_not_hold_up_the_batch(db: Connection) -> None:
    declare(db, default_frequency="immediately")
    workspace = make_workspace(db, make_user(db, "owner@example.com"))
    for n in range(3):
        add_member(db, workspace, "member", make_user(db, f"{n}@example.com"))
    run(db, "delete from notifications")
    emit(db, workspace)
    work_off(db)
    batch = one(db, "select distinct batch_id from notify.messages where kind = 'test.news'")
    assert len(take(db, batch)["messages"]) == 4
    assert one(db, "select notify.refused(%s, 'one is bad', true)", [batch]) == "split"
    split = messages(db, "test.news")
    assert len({row["batch_id"] for row in split} | {batch}) == 5
    assert {row["state"] for row in split} == {"pending"}
    delivery = take(db, split[0]["batch_id"])
    assert delivery["is_first"]
    assert one(db, "select notify.refused(%s, 'bad indeed', true)", [split[0]["batch_id"]]) == "failed"
    assert one(db, "select notify.refused(%s, 'later', false)", [split[1]["batch_id"]]) == "waiting"


def test_what_holds_a_token_is_emptied_once_it_was_sent(db: Connection) -> None:
    batch = write(db, has_secret=True)
    accept(db, take(db, batch))
    row = messages(db)[0]
    assert (row["html"], row["body"]) == ("", "[not kept]")


@pytest.mark.parametrize(
    ("events", "state", "suppressed"),
    [
        (["email.delivered"], "delivered", None),
        (["email.bounced"], "bounced", "bounced"),
        (["email.complained"], "complained", "complained"),
        (["email.delivered", "email.complained"], "complained", "complained"),
        (["email.complained", "email.delivered"], "complained", "complained"),
        (["email.bounced", "email.delivered"], "bounced", "bounced"),
        (["email.delivered", "email.bounced"], "bounced", "bounced"),
        (["email.opened", "contact.created"], "sent", None),
    ],
)
@pytest.mark.parametrize("is_early", [False, True])
def test_events_in_any_order_lead_to_the_same(
    db: Connection, events: list[str], state: str, suppressed: str | None, is_early: bool
) -> None:
    batch = write(db, "A@example.com")
    delivery = take(db, batch)
    name = f"re-{delivery['messages'][0]['id']}"

    def tell() -> None:
        for n, kind in enumerate(events):
            body: Row = {"type": kind, "data": {"email_id": name, "bounce": {"type": "Permanent", "message": "gone"}}}
            if kind != "email.bounced":
                del body["data"]["bounce"]
            for _ in range(2):
                one(db, "select notify.receive(%s, %s)", [f"msg-{n}", json.dumps(body)])

    if is_early:
        tell()
        accept(db, delivery)
    else:
        accept(db, delivery)
        tell()
    assert messages(db)[0]["state"] == state
    assert [row["reason"] for row in run(db, "select * from notify.suppressions where address = 'a@example.com'")] == (
        [suppressed] if suppressed else []
    )


def test_a_full_mailbox_is_no_reason_to_stop(db: Connection) -> None:
    delivery = take(db, write(db))
    accept(db, delivery)
    event = {"type": "email.bounced", "data": {
        "email_id": f"re-{delivery['messages'][0]['id']}", "bounce": {"type": "Transient", "message": "full"},
    }}  # fmt: skip
    one(db, "select notify.receive('msg', %s)", [json.dumps(event)])
    assert messages(db)[0]["state"] == "bounced"
    assert run(db, "select * from notify.suppressions") == []


@pytest.mark.parametrize("event", ["null", "[]", '"x"', "{}", '{"type": ""}'])
def test_what_is_no_event_is_refused(db: Connection, event: str) -> None:
    with refused("event_invalid"), db.transaction():
        one(db, "select notify.receive('msg', %s)", [event])


def test_a_signed_link_ends_what_it_names_and_a_forged_one_nothing(db: Connection) -> None:
    declare(db)
    anna = make_user(db)
    workspace = make_workspace(db, make_user(db))
    add_member(db, workspace, "member", anna)
    prefer(db, anna, "daily", workspace_id=workspace)

    def token(place: uuid.UUID | None, kind: str | None) -> str:
        url: str = one(db, "select notify.unsubscribe_url(%s, %s, %s)", [anna, place, kind])
        return url.partition("token=")[2]

    narrow = token(workspace, "test.news")
    assert one(db, "select notify.unsubscribe(%s, false) ->> 'is_done'", [narrow]) == "false"
    assert one(db, "select count(*) from notification_preferences where frequency = 'never'") == 0
    for _ in range(2):
        one(db, "select notify.unsubscribe(%s, true)", [narrow])
    assert run(db, "select workspace_id, kind from notification_preferences where frequency = 'never'") == [
        {"workspace_id": workspace, "kind": "test.news"}
    ]
    one(db, "select notify.unsubscribe(%s, true)", [token(None, None)])
    assert one(db, "select count(*) from notification_preferences where frequency <> 'never'") == 0
    for forged in (
        narrow[:-1] + ("0" if narrow[-1] != "0" else "1"), narrow.replace("test.news", "task.assigned"), "", "~~~", "x" * 500,
        f"{make_user(db)}~-~-~{narrow.rpartition('~')[2]}", narrow + "~",
    ):  # fmt: skip
        with refused("link_invalid"), db.transaction():
            one(db, "select notify.unsubscribe(%s, true)", [forged])


def test_signatures_are_hmac_sha_256(db: Connection) -> None:
    import hashlib
    import hmac

    key = b"k" * 32
    run(
        db,
        "update notify.settings set inner_key = notify.padded(%s, 54), outer_key = notify.padded(%s, 92)",
        [key, key],
    )
    assert one(db, "select notify.sign('wörd')") == hmac.new(key, "wörd".encode(), hashlib.sha256).hexdigest()


def test_what_is_old_is_cleared(db: Connection) -> None:
    declare(db)
    workspace = make_workspace(db, make_user(db))
    accept(db, take(db, write(db)))
    write(db, "waiting@example.com")
    emit(db, workspace)
    set_clock(db, "now() + interval '91 days'")
    assert one(db, "select notify.maintain()") == 1
    assert [row["recipient"] for row in messages(db)] == ["waiting@example.com"]
    assert one(db, "select count(*) from notifications") == 0


def test_a_brand_that_changes_between_two_attempts_changes_nothing(db: Connection) -> None:
    workspace = make_workspace(db, make_user(db))
    batch = write(db, workspace_id=workspace)
    first = take(db, batch)["messages"]
    run(db, "insert into notify.brands (workspace_id, name) values (%s, 'New')", [workspace])
    run(db, "update notify.settings set sender_email = 'other@example.com'")
    assert take(db, batch)["messages"] == first


def test_a_batch_the_provider_knows_in_another_form_was_taken_and_is_not_split(db: Connection) -> None:
    batch = write(db)
    take(db, batch)
    assert one(db, "select notify.taken_before(%s, '409')", [batch]) == 1
    assert messages(db)[0]["state"] == "sent"
    assert take(db, batch)["messages"] == []


def test_what_was_never_tried_does_not_grow_old(db: Connection) -> None:
    batch = write(db)
    take(db, batch)
    assert one(db, "select notify.refused(%s, 'no key', false, false)", [batch]) == "waiting"
    set_clock(db, "now() + interval '3 days'")
    assert take(db, batch)["is_first"]


def test_a_secret_goes_with_every_end_of_its_message(db: Connection) -> None:
    run(db, "insert into notify.suppressions (address, reason) values ('a@example.com', 'bounced')")
    take(db, write(db, has_secret=True))
    given_up = write(db, "b@example.com", has_secret=True)
    take(db, given_up)
    run(db, "update jobs.jobs set state = 'failed'")
    set_clock(db, "now() + interval '2 days'")
    one(db, "select notify.maintain()")
    assert [(row["state"], row["body"]) for row in messages(db)] == [
        ("suppressed", "[not kept]"),
        ("failed", "[not kept]"),
    ]
    assert one(db, "select bool_or(notify.resend(id)) from notify.messages") is False


def test_a_nudge_calls_the_function_only_where_something_waits_and_the_vault_has_the_key(db: Connection) -> None:
    assert one(db, "select notify.nudge()") is False
    # As pg_net and the vault have them on Supabase; neither is on a plain server.
    run(db, "create schema net")
    run(db, "create table public.called (url text, headers jsonb)")
    run(
        db,
        "create function net.http_post(url text, body jsonb default '{}', params jsonb default '{}', headers jsonb default '{}', "
        "timeout_milliseconds integer default 1000) returns bigint language sql as "
        "'insert into public.called values (url, headers); select 1::bigint'",
    )
    run(db, "create schema vault")
    run(db, "create table vault.decrypted_secrets (name text, decrypted_secret text)")
    write(db)
    assert one(db, "select notify.nudge()") is False
    run(db, "insert into vault.decrypted_secrets values ('service_role_key', 'key')")
    assert one(db, "select notify.nudge()") is True
    row = run(db, "select * from public.called")[0]
    assert (
        row["url"] == "http://127.0.0.1:54321/functions/v1/deliver" and row["headers"]["Authorization"] == "Bearer key"
    )
    run(db, "select * from jobs.claim()")
    assert one(db, "select notify.nudge()") is False
