"""Who is told, and how: those who may see it, as each of them prefers."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

import pytest

from ..conftest import Database
from ..identities import (
    Row,
    add_member,
    as_anon,
    as_user,
    make_customer,
    make_project,
    make_task,
    make_ticket,
    make_user,
    make_workspace,
    one,
    refused,
    run,
)
from ..jobs.queue import set_clock
from ..races import Connection
from ..rest import Rest
from .told import declare, emit, messages, prefer, told, work_off


@pytest.fixture
def owner(db: Connection) -> uuid.UUID:
    return make_user(db, "owner@example.com")


@pytest.fixture
def workspace(db: Connection, owner: uuid.UUID) -> uuid.UUID:
    return make_workspace(db, owner)


def member(db: Connection, workspace: uuid.UUID, name: str, role: str = "member") -> uuid.UUID:
    return add_member(db, workspace, role, make_user(db, f"{name}@example.com"))


def names(rows: list[Row]) -> list[str]:
    return [row["email"].split("@")[0] for row in rows]


def test_every_member_who_may_is_told_but_for_whoever_did_it(db: Connection, workspace: uuid.UUID) -> None:
    declare(db, permission="tickets.update")
    anna, _ = member(db, workspace, "anna"), member(db, workspace, "vic", "viewer")
    suspended = member(db, workspace, "sus")
    run(db, "select tenancy.suspend_user(%s, 'test')", [suspended])
    member(db, make_workspace(db, make_user(db)), "stranger")
    assert emit(db, workspace) == 2
    assert names(told(db)) == ["anna", "owner"]
    with as_user(db, anna):
        run(db, "set local role postgres")
        emit(db, workspace)
    assert names(told(db)) == ["anna", "owner", "owner"]


def test_who_may_not_see_the_row_is_not_told(db: Connection, workspace: uuid.UUID, owner: uuid.UUID) -> None:
    insider = member(db, workspace, "insider")
    member(db, workspace, "outsider")
    project = make_project(db, workspace, lead=owner, is_private=True, name="Secret")
    run(
        db,
        "insert into project_members (workspace_id, project_id, user_id) values (%s, %s, %s)",
        [workspace, project, insider],
    )
    task = make_task(db, workspace, project, "Hidden")
    run(db, "update tasks set status = 'done' where id = %s", [task])
    assert names(told(db, "task.completed")) == ["insider", "owner"]


def test_only_those_named_are_told_and_only_if_they_may(db: Connection, workspace: uuid.UUID) -> None:
    declare(db)
    anna = member(db, workspace, "anna")
    member(db, workspace, "ben")
    assert emit(db, workspace, recipients=[anna, make_user(db)]) == 1
    assert names(told(db)) == ["anna"]


def test_the_most_specific_preference_wins(db: Connection, workspace: uuid.UUID) -> None:
    declare(db)
    anna = member(db, workspace, "anna")
    for frequency, more in (
        ("daily", {}), ("weekly", {"kind": "test.news"}), ("never", {"workspace_id": workspace}),
        ("immediately", {"workspace_id": workspace, "kind": "test.news"}),
    ):  # fmt: skip
        prefer(db, anna, frequency, **more)
        emit(db, workspace, recipients=[anna])
        newest = one(db, "select frequency from notifications order by ctid desc limit 1")
        # A preference for the workspace goes before one for the kind.
        assert newest == frequency
    run(db, "delete from notification_preferences where kind is not null and workspace_id is not null")
    emit(db, workspace, recipients=[anna])
    assert one(db, "select frequency from notifications order by ctid desc limit 1") == "never"


def test_a_muted_kind_is_not_even_shown(db: Connection, workspace: uuid.UUID) -> None:
    declare(db)
    anna = member(db, workspace, "anna")
    prefer(db, anna, None, kind="test.news", is_muted=True)
    assert emit(db, workspace, recipients=[anna]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "test.unknown"}, "there is no kind of notification"),
        ({"payload": {"what": "it"}}, "lacks 'where'"),
        ({"payload": {}}, "lacks"),
    ],
)
def test_what_cannot_be_told_is_refused(db: Connection, workspace: uuid.UUID, arguments: Row, words: str) -> None:
    declare(db)
    with pytest.raises(Exception, match=words), db.transaction():
        emit(db, workspace, **arguments)


def test_a_template_with_broken_braces_is_refused(db: Connection) -> None:
    for template in ("{what", "what}", "{What}", "{{what}}"):
        with refused("22023"), db.transaction():
            declare(db, title=template)


def test_what_is_filled_in_is_never_a_template_and_never_more_than_a_line(db: Connection, workspace: uuid.UUID) -> None:
    declare(db)
    emit(db, workspace, payload={"what": "{where}\r\nBcc: all@example.com", "where": "x" * 1000})
    title = told(db)[0]["title"]
    assert title.startswith("{where} Bcc: all@example.com in xxx")
    assert "\n" not in title and len(title) < 700


# Preferences and hours ------------------------------------------------------------------------


def test_people_set_their_own_preferences_and_nobody_elses(db: Connection, workspace: uuid.UUID) -> None:
    anna, ben = member(db, workspace, "anna"), member(db, workspace, "ben")
    foreign = make_workspace(db, make_user(db))
    with as_user(db, anna):
        run(
            db,
            "insert into notification_preferences (workspace_id, kind, frequency) values (%s, 'task.assigned', 'weekly')",
            [workspace],
        )
        run(db, "insert into notification_hours (digest_hour, quiet_from, quiet_until) values (7, '22:00', '06:00')")
        with refused("42501"), db.transaction():
            run(db, "insert into notification_preferences (user_id, frequency) values (%s, 'never')", [ben])
        with refused("23503"), db.transaction():
            run(db, "insert into notification_preferences (workspace_id, frequency) values (%s, 'never')", [foreign])
        for broken in ("digest_hour = 24", "digest_weekday = 0", "quiet_from = null"):
            with refused("23514"), db.transaction():
                run(db, f"update notification_hours set {broken}")
        with refused("23514"), db.transaction():
            run(db, "update notification_preferences set frequency = 'hourly'")
        with refused("time_zone_unknown"), db.transaction():
            run(db, "update profiles set time_zone = 'Mars/Olympus' where id = %s", [anna])
    with as_user(db, ben):
        assert run(db, "select * from notification_preferences") == []
        assert run(db, "update notification_hours set digest_hour = 1 returning 1") == []


def test_people_see_and_mark_only_their_own_notifications(db: Connection, workspace: uuid.UUID) -> None:
    declare(db)
    anna, ben = member(db, workspace, "anna"), member(db, workspace, "ben")
    run(db, "delete from notifications")
    emit(db, workspace)
    emit(db, workspace)
    bens = [row["id"] for row in told(db) if row["email"].startswith("ben")]
    with as_user(db, anna):
        mine = run(db, "select id from notifications")
        assert len(mine) == 2 and one(db, "select unread_notification_count()") == 2
        assert one(db, "select mark_notifications_read(%s)", [[mine[0]["id"], bens[0]]]) == 1
        assert one(db, "select unread_notification_count(%s)", [workspace]) == 1
        assert one(db, "select mark_all_notifications_read()") == 1
        assert one(db, "select mark_all_notifications_read()") == 0
        for verb in ("update notifications set read_at = null", "delete from notifications",
                     "insert into notifications (workspace_id) values (null)"):  # fmt: skip
            with refused("42501"), db.transaction():
                run(db, verb)
    with as_user(db, ben):
        assert one(db, "select unread_notification_count()") == 2
    with as_anon(db), refused("42501"), db.transaction():
        run(db, "select * from notifications")
    run(db, "select tenancy.drop_member(%s, %s)", [workspace, ben])
    with as_user(db, ben):
        assert run(db, "select * from notifications") == []


def test_a_changed_preference_moves_what_waits(db: Connection, workspace: uuid.UUID) -> None:
    declare(db)
    anna = member(db, workspace, "anna")
    set_clock(db, "'2026-06-01 12:00+00'::timestamptz")
    emit(db, workspace, recipients=[anna])
    with as_user(db, anna):
        run(db, "update profiles set time_zone = 'Asia/Tokyo' where id = %s", [anna])
        run(db, "insert into notification_hours (digest_hour) values (7)")
        run(db, "insert into notification_preferences (frequency) values ('weekly')")
    # Monday the 1st, 21:00 in Tokyo: the next Monday at 7 there is Sunday the 7th, 22:00 UTC.
    assert str(told(db)[0]["due_at"]) == "2026-06-07 22:00:00+00:00"
    with as_user(db, anna):
        run(db, "update notification_preferences set frequency = 'never'")
    assert told(db)[0]["due_at"] is None


@pytest.mark.parametrize(
    ("now", "quiet", "due"),
    [
        ("2026-06-01 12:00+00", ("22:00", "06:00"), "2026-06-01 12:00:00+00:00"),
        ("2026-06-01 21:00+00", ("22:00", "06:00"), "2026-06-02 04:00:00+00:00"),  # 23:00 in Berlin
        ("2026-06-01 01:00+00", ("22:00", "06:00"), "2026-06-01 04:00:00+00:00"),
        ("2026-06-01 04:00+00", ("22:00", "06:00"), "2026-06-01 04:00:00+00:00"),
        ("2026-06-01 11:00+00", ("12:00", "14:00"), "2026-06-01 12:00:00+00:00"),
        ("2026-06-01 12:00+00", ("12:00", "14:00"), "2026-06-01 12:00:00+00:00"),
        # The night in which the clock skips from 2 to 3, and the one in which it goes back.
        ("2026-03-29 00:30+00", ("01:00", "02:30"), "2026-03-29 01:30:00+00:00"),
        ("2026-10-25 00:30+00", ("02:00", "04:00"), "2026-10-25 03:00:00+00:00"),
    ],
)
def test_quiet_hours_hold_a_mail_until_they_end(
    db: Connection, workspace: uuid.UUID, now: str, quiet: tuple[str, str], due: str
) -> None:
    declare(db, default_frequency="immediately")
    anna = member(db, workspace, "anna")
    run(db, "update profiles set time_zone = 'Europe/Berlin' where id = %s", [anna])
    run(db, "insert into notification_hours (user_id, quiet_from, quiet_until) values (%s, %s, %s)", [anna, *quiet])
    set_clock(db, f"'{now}'::timestamptz")
    emit(db, workspace, recipients=[anna])
    assert str(told(db)[0]["due_at"]) == due
    work_off(db)
    is_over = due.startswith(now[:16])
    assert len(messages(db, "test.news")) == is_over
    set_clock(db, f"'{due}'::timestamptz")
    work_off(db)
    assert len(messages(db, "test.news")) == 1


# What the house tells of ------------------------------------------------------------------------


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


def test_odd_people_keep_nobody_from_working(db: Connection, workspace: uuid.UUID, owner: uuid.UUID) -> None:
    declare(db, default_frequency="immediately")
    declare(db, "test.later")
    run(db, "delete from notifications")
    odd = [member(db, workspace, name) for name in ("a", "b", "c")]
    run(db, "delete from notifications")
    for user, address, zone in zip(odd, ("", '"a,b"@example.com', None), ("Mars/Olympus", "UTC", "UTC"), strict=True):
        run(db, "alter table profiles disable trigger user")
        run(db, "update profiles set email = %s, time_zone = %s where id = %s", [address, zone, user])
        run(db, "alter table profiles enable trigger user")
    emit(db, workspace)
    emit(db, workspace, "test.later")
    work_off(db)
    assert [row["recipient"] for row in messages(db, "test.news")] == ["owner@example.com"]
    set_clock(db, "now() + interval '2 days'")
    while one(db, "select notify.build_digests()"):
        pass
    assert [row["recipient"] for row in messages(db, "digest.daily")] == ["owner@example.com"]
    run(db, "update profiles set email = 'a b' where id = %s", [owner])
    run(db, "select tenancy.suspend_workspace(%s, 'x')", [workspace])


@pytest.mark.parametrize(
    "how", ["suspended person", "suspended workspace", "deleted workspace", "never", "muted", "hidden"]
)
def test_what_changes_before_the_mail_goes_stops_it(
    db: Connection, workspace: uuid.UUID, owner: uuid.UUID, how: str
) -> None:
    anna = member(db, workspace, "anna")
    project = make_project(db, workspace, lead=owner)
    task = make_task(db, workspace, project)
    run(db, "update tasks set assignee_id = %s where id = %s", [anna, task])
    assert told(db, "task.assigned")[0]["due_at"] is not None
    if how == "suspended person":
        run(db, "select tenancy.suspend_user(%s, 'x')", [anna])
    elif how == "suspended workspace":
        run(db, "select tenancy.suspend_workspace(%s, 'x')", [workspace])
    elif how == "deleted workspace":
        run(db, "select tenancy.mark_deleted(%s)", [workspace])
    elif how == "hidden":
        run(db, "update projects set is_private = true")
    else:
        prefer(db, anna, "never" if how == "never" else None, is_muted=how == "muted")
    work_off(db)
    assert messages(db, "task.assigned") == []


def test_telling_waits_for_nobody_who_leaves(connect: Callable[..., Connection]) -> None:
    leaver, teller = connect(), connect()
    declare(teller)
    workspace = make_workspace(teller, make_user(teller))
    anna = add_member(teller, workspace, "member")
    teller.commit()
    run(leaver, "select tenancy.drop_member(%s, %s)", [workspace, anna])
    run(teller, "set lock_timeout = '2s'")
    assert emit(teller, workspace) == 2
    leaver.commit()
    teller.commit()
    with as_user(teller, anna):
        assert run(teller, "select * from notifications") == []


def test_an_estimate_of_preferences_tells_of_nobody(rest: Rest, module_database: Database) -> None:
    with module_database.connect(autocommit=True) as connection:
        user = make_user(connection)
    with rest.as_user(user) as client:
        for table in ("notification_preferences", "notification_hours", "notifications"):
            response = client.get(f"/{table}", headers={"Prefer": "count=planned"})
            assert (response.status_code, response.json()["code"]) == (400, "count_not_exact")
            assert client.get(f"/{table}").json() == []
