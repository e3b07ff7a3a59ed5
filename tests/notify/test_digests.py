"""Digests: one for each person and period, whatever the clock does."""

from __future__ import annotations

import datetime as dt
import uuid
import zoneinfo
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ..conftest import Database
from ..identities import add_member, as_user, make_user, make_workspace, one, run
from ..jobs.queue import set_clock
from ..races import Call, Connection
from .told import declare, emit, messages, prefer, told

Connect = Callable[..., Connection]
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Auckland", "America/St_Johns",
         "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Tehran", "America/Santiago"]  # fmt: skip


@pytest.fixture
def anna(db: Connection) -> uuid.UUID:
    return make_user(db, "anna@example.com")


@pytest.fixture
def workspace(db: Connection, anna: uuid.UUID) -> uuid.UUID:
    declare(db)
    workspace = make_workspace(db, make_user(db, "owner@example.com"))
    add_member(db, workspace, "member", anna)
    run(db, "delete from notifications")
    return workspace


def build(connection: Connection) -> None:
    while one(connection, "select notify.build_digests()"):
        pass


def digests(connection: Connection) -> list[tuple[str, int]]:
    return [
        (str(row["period"]), row["item_count"])
        for row in run(connection, "select period, item_count from notify.digests order by period, frequency")
    ]


def test_a_digest_groups_and_summarises_and_leaves_out_what_was_read(
    db: Connection, workspace: uuid.UUID, anna: uuid.UUID
) -> None:
    set_clock(db, "'2026-06-01 10:00+00'::timestamptz")
    run(db, "update workspaces set name = 'Fix & <Co>' where id = %s", [workspace])
    other = make_workspace(db, make_user(db))
    run(db, "update workspaces set name = 'Beta' where id = %s", [other])
    add_member(db, other, "member", anna)
    run(db, "delete from notifications")
    for _ in range(12):
        emit(db, workspace, recipients=[anna])
    emit(db, workspace, recipients=[anna], payload={"what": "One <b>", "where": "Gemini"})
    emit(db, other, recipients=[anna])
    emit(db, workspace, recipients=[anna], payload={"what": "Read", "where": "Voyager"})
    with as_user(db, anna):
        read = one(db, "select id from notifications where title like 'Read%%'")
        run(db, "select mark_notifications_read(%s)", [[read]])
    build(db)
    assert digests(db) == [], "it is not due yet"
    set_clock(db, "'2026-06-02 08:00+00'::timestamptz")
    build(db)
    assert digests(db) == [("2026-06-02", 14)]
    mail = messages(db, "digest.daily")[0]
    assert mail["subject"] == "Rowhouse: 14 updates in 2 workspaces"
    assert "Fix & <Co>\n" in mail["body"] and "- 12 news in Apollo\n" in mail["body"]
    assert "- One <b> in Gemini" in mail["body"] and "Voyager" not in mail["body"]
    assert "Fix &amp; &lt;Co&gt;" in mail["html"] and "One &lt;b&gt;" in mail["html"]
    assert mail["body"].index("Beta") < mail["body"].index("Fix & <Co>")
    assert set(mail["headers"]) == {"List-Unsubscribe", "List-Unsubscribe-Post"}
    build(db)
    assert len(messages(db, "digest.daily")) == 1


def test_there_is_no_empty_digest(db: Connection, workspace: uuid.UUID, anna: uuid.UUID) -> None:
    emit(db, workspace, recipients=[anna])
    with as_user(db, anna):
        run(db, "select mark_all_notifications_read()")
    set_clock(db, "now() + interval '3 days'")
    build(db)
    assert digests(db) == [] and messages(db) == []
    assert told(db)[0]["due_at"] is None


def test_missed_runs_make_one_digest_of_all(db: Connection, workspace: uuid.UUID, anna: uuid.UUID) -> None:
    for day in range(1, 5):
        set_clock(db, f"'2026-06-0{day} 10:00+00'::timestamptz")
        emit(db, workspace, recipients=[anna])
    set_clock(db, "'2026-06-20 09:30+00'::timestamptz")
    build(db)
    assert digests(db) == [("2026-06-05", 4)]


def test_a_second_digest_of_a_period_waits_for_the_next(db: Connection, workspace: uuid.UUID, anna: uuid.UUID) -> None:
    set_clock(db, "'2026-06-01 07:00+00'::timestamptz")
    emit(db, workspace, recipients=[anna])
    set_clock(db, "'2026-06-01 08:00+00'::timestamptz")
    build(db)
    with as_user(db, anna):
        run(db, "insert into notification_hours (digest_hour) values (18)")
    emit(db, workspace, recipients=[anna])
    set_clock(db, "'2026-06-01 18:00+00'::timestamptz")
    build(db)
    assert digests(db) == [("2026-06-01", 1)]
    assert str(told(db)[-1]["due_at"]) == "2026-06-02 18:00:00+00:00"
    set_clock(db, "'2026-06-02 18:00+00'::timestamptz")
    build(db)
    assert digests(db) == [("2026-06-01", 1), ("2026-06-02", 1)]


def test_who_left_was_suspended_or_erased_gets_none(db: Connection, workspace: uuid.UUID, anna: uuid.UUID) -> None:
    ben, eve = (add_member(db, workspace, "member", make_user(db, f"{name}@example.com")) for name in ("ben", "eve"))
    run(db, "delete from notifications")
    emit(db, workspace, recipients=[anna, ben, eve])
    run(db, "select tenancy.drop_member(%s, %s)", [workspace, anna])
    run(db, "select tenancy.suspend_user(%s, 'x')", [ben])
    set_clock(db, "now() + interval '2 days'")
    build(db)
    assert [row["recipient"] for row in messages(db, "digest.daily")] == ["eve@example.com"]


def test_a_long_digest_ends_with_how_many_more(db: Connection, workspace: uuid.UUID, anna: uuid.UUID) -> None:
    for n in range(25):
        emit(db, workspace, recipients=[anna], payload={"what": "it", "where": f"Project {n:02}"})
    set_clock(db, "now() + interval '2 days'")
    build(db)
    mail = messages(db, "digest.daily")[0]
    assert mail["body"].count("\n- ") == 20 and "… and 5 more" in mail["body"] and "… and 5 more" in mail["html"]


def test_two_builders_at_once_make_each_digest_once(connect: Connect) -> None:
    setup, first, second = connect(autocommit=True), connect(), connect()
    declare(setup)
    workspace = make_workspace(setup, make_user(setup))
    people = [add_member(setup, workspace, "member") for _ in range(30)]
    run(setup, "delete from notifications")
    emit(setup, workspace, recipients=people)
    set_clock(setup, "now() + interval '2 days'")
    calls = [Call(connection, lambda c: one(c, "select notify.build_digests(10)")) for connection in (first, second)]
    assert [call.result() for call in calls] == ["ok", "ok"]
    while one(setup, "select notify.build_digests()"):
        pass
    assert one(setup, "select count(*) from notify.digests") == 30
    assert one(setup, "select count(*) from notify.messages where kind = 'digest.daily'") == 30
    assert one(setup, "select count(*) from jobs.jobs where kind = 'notify.send'") >= 1


def test_a_weekly_digest_comes_on_its_weekday(db: Connection, workspace: uuid.UUID, anna: uuid.UUID) -> None:
    prefer(db, anna, "weekly")
    run(db, "insert into notification_hours (user_id, digest_weekday, digest_hour) values (%s, 5, 17)", [anna])
    set_clock(db, "'2026-06-01 10:00+00'::timestamptz")
    emit(db, workspace, recipients=[anna])
    assert str(told(db)[0]["due_at"]) == "2026-06-05 17:00:00+00:00"
    set_clock(db, "'2026-06-05 17:00+00'::timestamptz")
    build(db)
    assert messages(db, "digest.weekly")[0]["recipient"] == "anna@example.com"


def test_preview_shows_what_waits_and_changes_nothing(db: Connection, workspace: uuid.UUID, anna: uuid.UUID) -> None:
    emit(db, workspace, recipients=[anna])
    query = "select body from notify.render_digests(array[%s::uuid], 'infinity')"
    assert "it in Apollo" in one(db, query, [anna])
    assert "it in Apollo" in one(db, query, [anna])
    assert messages(db) == []


@pytest.fixture(scope="module")
def shared(module_database: Database) -> Iterator[Connection]:
    with module_database.connect() as connection:
        yield connection


@settings(max_examples=40, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    hour=st.integers(0, 23),
    start=st.datetimes(dt.datetime(2026, 1, 1), dt.datetime(2027, 12, 1)),
    steps=st.lists(st.integers(1, 60 * 30), min_size=1, max_size=40),
    runs=st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_across_zones_summer_time_double_and_missed_runs_nobody_gets_two_in_a_day(
    shared: Connection, zone: str, hour: int, start: dt.datetime, steps: list[int], runs: list[bool]
) -> None:
    connection = shared
    with connection.transaction(force_rollback=True):
        declare(connection)
        anna = make_user(connection)
        workspace = make_workspace(connection, make_user(connection))
        add_member(connection, workspace, "member", anna)
        run(connection, "delete from notifications")
        run(connection, "update profiles set time_zone = %s where id = %s", [zone, anna])
        run(connection, "insert into notification_hours (user_id, digest_hour) values (%s, %s)", [anna, hour])
        now = start.replace(tzinfo=dt.UTC)
        emitted, last = 0, now
        for minutes, is_run in zip(steps, runs, strict=False):
            now += dt.timedelta(minutes=minutes)
            set_clock(connection, f"'{now.isoformat()}'::timestamptz")
            emit(connection, workspace, recipients=[anna])
            emitted, last = emitted + 1, now
            due = one(connection, "select max(due_at) from notifications")
            local = due.astimezone(zoneinfo.ZoneInfo(zone))
            # The hour itself, or, where the clock skips it, the moment after.
            assert dt.timedelta(0) < due - now <= dt.timedelta(hours=25, minutes=30)
            assert local.hour == hour or local.hour == (hour + 1) % 24
            for _ in range(2 if is_run else 0):
                build(connection)
        set_clock(connection, f"'{(last + dt.timedelta(days=3)).isoformat()}'::timestamptz")
        for _ in range(3):
            build(connection)
            set_clock(connection, "ops.now() + interval '25 hours'")
        periods = [period for period, _ in digests(connection)]
        assert len(periods) == len(set(periods))
        assert sum(count for _, count in digests(connection)) == emitted
        assert one(connection, "select count(*) from notifications where due_at is not null") == 0


def test_a_preference_for_at_once_does_not_keep_the_builder_busy_for_ever(
    db: Connection, workspace: uuid.UUID, anna: uuid.UUID
) -> None:
    set_clock(db, "'2026-06-01 07:00+00'::timestamptz")
    emit(db, workspace, recipients=[anna])
    run(db, "insert into notify.digests values (%s, 'daily', '2026-06-01', 1, null, now())", [anna])
    prefer(db, anna, "immediately")
    run(db, "update notifications set due_at = '2026-06-01 08:00+00', frequency = 'daily'")
    set_clock(db, "'2026-06-01 08:00+00'::timestamptz")
    assert one(db, "select notify.build_digests()") == 1
    assert one(db, "select notify.build_digests()") == 0
    assert str(told(db)[0]["due_at"]) == "2026-06-02 08:00:00+00:00"


def test_what_is_told_while_a_digest_is_built_is_in_the_next(connect: Connect) -> None:
    setup, builder, teller = connect(autocommit=True), connect(), connect()
    declare(setup)
    workspace = make_workspace(setup, make_user(setup))
    anna = add_member(setup, workspace, "member")
    run(setup, "delete from notifications")
    emit(setup, workspace, recipients=[anna])
    emit(teller, workspace, recipients=[anna])
    set_clock(setup, "now() + interval '2 days'")
    one(builder, "select notify.build_digests()")
    teller.commit()
    builder.commit()
    assert one(setup, "select count(*) from notifications where due_at is not null") == 1
    assert one(setup, "select item_count from notify.digests") == 1


def test_a_weekday_that_moves_every_day_brings_one_a_week(
    db: Connection, workspace: uuid.UUID, anna: uuid.UUID
) -> None:
    prefer(db, anna, "weekly")
    run(db, "insert into notification_hours (user_id) values (%s)", [anna])
    for day in range(1, 8):
        set_clock(db, f"'2026-06-0{day} 07:00+00'::timestamptz")
        emit(db, workspace, recipients=[anna])
        run(db, "update notification_hours set digest_weekday = %s", [day])
        set_clock(db, f"'2026-06-0{day} 09:00+00'::timestamptz")
        build(db)
    assert len(messages(db, "digest.weekly")) == 1
