"""Who is told, and how: those who may see it, as each of them prefers."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from ..conftest import Database
from ..identities import (
    Row,
    add_member,
    as_anon,
    as_user,
    make_project,
    make_task,
    make_user,
    make_workspace,
    one,
    refused,
    run,
)
from ..jobs.queue import set_clock
from ..races import Connection
from ..rest import Rest
from .told import declare, emit, member, messages, names, prefer, told, work_off


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
