"""What the house tells of by itself: members, tasks, tickets, money, limits, suspensions, and auth's own mails."""

from __future__ import annotations

import json
import uuid

import pytest

from ..identities import (
    as_user,
    make_customer,
    make_project,
    make_ticket,
    make_workspace,
    one,
    refused,
    run,
)
from ..races import Connection
from .told import member, messages, names, told, work_off


def test_an_invitation_is_told_and_mailed_with_its_link(db: Connection, workspace: uuid.UUID, owner: uuid.UUID) -> None:
    member(db, workspace, "admin", "admin")
    run(db, "update profiles set display_name = 'Ada <L>' where id = %s", [owner])
    with as_user(db, owner):
        token = one(db, "select token from invite_member(%s, 'new@example.com')", [workspace])
    assert names(told(db, "member.invited")) == ["admin"]
    mail = messages(db, "invitation")[0]
    assert mail["recipient"] == "new@example.com" and mail["is_transactional"] and mail["headers"] == {}
    assert mail["subject"] == "Ada <L> invites you to Test"
    assert f"/invitations/accept#{token}" in mail["body"] and "Ada &lt;L&gt;" in mail["html"]
    with as_user(db, owner):
        for broken in ("a@b.c\r\nBcc: x@y.z", "a b@c.de", '"<a>"@b.de', "a,b@c.de", "a@b"):
            with refused("email_invalid"), db.transaction():
                run(db, "select * from invite_member(%s, %s)", [workspace, broken])


def test_joining_assigning_and_completing_are_told(db: Connection, workspace: uuid.UUID, owner: uuid.UUID) -> None:
    anna = member(db, workspace, "anna")
    assert names(told(db, "member.joined")) == ["owner"]
    project = make_project(db, workspace, lead=owner, name="Apollo")
    with as_user(db, owner):
        run(
            db,
            "insert into tasks (workspace_id, project_id, title, assignee_id) values (%s, %s, 'Fly', %s)",
            [workspace, project, anna],
        )
    assert [row["title"] for row in told(db, "task.assigned")] == ["Somebody gave you Fly"]
    with as_user(db, anna):
        run(db, "update tasks set status = 'done'")
    assert names(told(db, "task.completed")) == ["owner"]
    work_off(db)
    mail = messages(db, "task.assigned")[0]
    assert mail["recipient"] == "anna@example.com"
    assert set(mail["headers"]) == {"List-Unsubscribe", "List-Unsubscribe-Post"}


def test_tickets_payments_and_limits_are_told_and_the_customer_hears(
    db: Connection, workspace: uuid.UUID, owner: uuid.UUID
) -> None:
    member(db, workspace, "anna")
    customer = make_customer(db, workspace, email="c@example.com", phone="+49 (170) 123-4567")
    ticket = make_ticket(db, workspace, customer)
    with as_user(db, owner):
        run(db, "select set_brand(%s, 'Fix & Co', '#0f766e', null, true)", [workspace])
        for status in ("diagnosing", "ready", "completed"):
            run(db, "update tickets set status = %s", [status])
        run(db, "select record_charge(%s, %s, 1050, 'c')", [workspace, ticket])
        run(db, "select record_payment(%s, %s, 1050, 'card', 'p')", [workspace, ticket])
        run(db, "select record_payment(%s, %s, 1050, 'card', 'p')", [workspace, ticket])
    assert len(told(db, "ticket.status_changed")) == 3
    assert [row["title"] for row in told(db, "payment.received")] == ["10.50 EUR received for ticket 1"]
    text = messages(db, "ticket.completed")[0]
    assert (text["channel"], text["recipient"]) == ("sms", "+491701234567")
    assert text["body"] == "Fix & Co: your Phone is repaired (ticket 1). You can collect it."
    receipt = messages(db, "receipt")[0]
    assert receipt["recipient"] == "c@example.com" and "10.50 EUR" in receipt["body"]
    assert "Fix &amp; Co" in receipt["html"] and "#0f766e" in receipt["html"]

    small = make_workspace(db, owner, plan="free")
    for n in range(3):
        make_project(db, small, name=f"P{n}")
    assert [row["title"] for row in told(db, "limit.reached")] == ["All 3 projects of the plan are used"]
    with as_user(db, owner):
        run(db, "delete from projects where workspace_id = %s and name = 'P2'", [small])
    make_project(db, small, name="P3")
    assert len(told(db, "limit.reached")) == 1, "once a day is enough"


def test_a_suspension_is_told_to_its_owners_by_mail(db: Connection, workspace: uuid.UUID) -> None:
    run(db, "select tenancy.suspend_workspace(%s, 'unpaid')", [workspace])
    run(db, "select tenancy.suspend_workspace(%s, 'still unpaid')", [workspace])
    assert [row["recipient"] for row in messages(db, "suspension")] == ["owner@example.com"]
    assert names(told(db, "workspace.suspended")) == ["owner"]
    assert "unpaid" not in messages(db, "suspension")[0]["body"], "the reason is the operator's"


def test_a_brand_must_be_one(db: Connection, workspace: uuid.UUID, owner: uuid.UUID) -> None:
    viewer = member(db, workspace, "vic", "viewer")
    with as_user(db, owner):
        for name, colour, logo in (
            ("A\r\nBcc: x", None, None), ('A" <b@c.de>', None, None), ("A", "red", None), ("A", None, "javascript:alert(1)"),
            ("A", None, 'https://x"onerror="y'), ("", None, None),
        ):  # fmt: skip
            with refused("brand_invalid"), db.transaction():
                run(db, "select set_brand(%s, %s, %s, %s)", [workspace, name, colour, logo])
    with as_user(db, viewer), refused("permission_denied"), db.transaction():
        run(db, "select set_brand(%s, 'Mine')", [workspace])


@pytest.mark.parametrize("action", ["signup", "recovery", "magiclink", "invite", "reauthentication"])
def test_auths_own_mails_are_queued_and_branded(db: Connection, owner: uuid.UUID, action: str) -> None:
    event = {
        "user": {"id": str(owner), "email": "owner@example.com"},
        "email_data": {
            "email_action_type": action, "token": "123456", "token_hash": "abc", "redirect_to": "http://x.example/a?b=c",
        },
    }  # fmt: skip
    assert one(db, "select has_function_privilege('supabase_auth_admin', 'notify.send_auth_email(jsonb)', 'execute')")
    assert one(db, "select notify.send_auth_email(%s)", [json.dumps(event)]) == {}
    mail = messages(db, f"auth.{action}")[0]
    assert mail["recipient"] == "owner@example.com" and "123456" in mail["body"] and mail["has_secret"]
    assert ("verify?token=abc" in mail["body"]) == (action != "reauthentication")


def test_a_change_of_address_is_confirmed_at_both(db: Connection, owner: uuid.UUID) -> None:
    data = {
        "email_action_type": "email_change",
        "token": "1",
        "token_hash": "for-new",
        "token_new": "2",
        "token_hash_new": "for-old",
    }
    event = {"user": {"id": str(owner), "email": "old@example.com", "new_email": "new@example.com"}, "email_data": data}
    one(db, "select notify.send_auth_email(%s)", [json.dumps(event)])
    mails = {mail["recipient"]: mail["body"] for mail in messages(db)}
    assert "token=for-old" in mails["old@example.com"] and "Your code is 1." in mails["old@example.com"]
    assert "token=for-new" in mails["new@example.com"] and "Your code is 2." in mails["new@example.com"]


@pytest.mark.parametrize(
    ("phone", "number"),
    [
        ("+49 (0)171 123-45.67", "+491711234567"), ("+1/202/555-0147", "+12025550147"),
        ("+49 171 1234567 ext 89", None), ("+49 171 1234567 (Anna, 12)", None), ("0171 1234567", None), ("ask", None),
    ],
)  # fmt: skip
def test_only_a_number_as_it_stands_is_texted(
    db: Connection, workspace: uuid.UUID, owner: uuid.UUID, phone: str, number: str | None
) -> None:
    make_ticket(db, workspace, make_customer(db, workspace, phone=phone))
    run(db, "insert into notify.brands (workspace_id, name, texts_customers) values (%s, 'B', true)", [workspace])
    for status in ("diagnosing", "ready", "completed"):
        run(db, "update tickets set status = %s", [status])
    assert [row["recipient"] for row in messages(db, "ticket.completed")] == ([number] if number else [])
