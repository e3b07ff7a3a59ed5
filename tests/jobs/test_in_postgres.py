"""Kinds that run in Postgres, events of tables, alarms, and the clock that starts it all."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import psycopg
import pytest
from rowhouse.local.cluster import SUPERUSER

from ..conftest import Database
from ..identities import as_user, make_customer, make_ticket, make_user, make_workspace, one, refused, run
from ..races import Call, Connection
from ..server import published
from .queue import claim, declare, enqueue, set_clock, state

Connect = Callable[..., Connection]


@pytest.fixture
def sql_kind(db: Connection) -> Connection:
    """A kind that keeps its payload's number, fails on 13, and divides by it on 0."""
    _make_sql_kind(db)
    return db


def _make_sql_kind(connection: Connection) -> None:
    run(connection, "create table public.done (job bigint, n bigint, actor text)")
    run(connection, "create table public.parents (id int primary key)")
    run(connection, "create table public.children (id int references public.parents deferrable initially deferred)")
    run(
        connection,
        """
        create function public.keep_number(job jobs.jobs) returns void language plpgsql as $$
        begin
            insert into public.done values (job.id, (job.payload ->> 'n')::bigint, (audit.origin()).actor_name);
            perform 1 / (job.payload ->> 'n')::bigint;
            if job.payload ->> 'n' = '99' then
                perform pg_sleep(30);
            elsif job.payload ->> 'n' = '98' then
                assert false;
            elsif job.payload ->> 'n' = '97' then
                insert into public.children values (1);
            elsif job.payload ->> 'n' = '96' then
                perform pg_terminate_backend(pg_backend_pid());
            end if;
        end
        $$
        """,
    )
    declare(
        connection, "test.sql", executor="postgres", handler="public.keep_number", max_attempts=2, timeout="1 second"
    )


def execute(connection: Connection) -> int:
    done = 0
    while token := one(connection, "select jobs.claim_for_postgres()"):
        done += one(connection, "select jobs.execute(%s)", [token])
    return done


def test_each_job_has_a_subtransaction_of_its_own_and_is_the_actor(sql_kind: Connection) -> None:
    good, bad = enqueue(sql_kind, "test.sql", {"n": 1}), enqueue(sql_kind, "test.sql", {"n": 0})
    assert execute(sql_kind) == 2
    assert run(sql_kind, "select job, n, actor from public.done") == [
        {"job": good, "n": 1, "actor": f"test.sql:{good}"}
    ]
    assert "22012: division by zero" in state(sql_kind, bad)["last_error"]
    assert state(sql_kind, good)["state"] == "completed"


@pytest.mark.parametrize(("n", "error"), [(98, "P0004"), (97, "23503")])
def test_what_fails_late_or_oddly_fails_alone(sql_kind: Connection, n: int, error: str) -> None:
    good = [enqueue(sql_kind, "test.sql", {"n": 1}) for _ in range(3)]
    bad = enqueue(sql_kind, "test.sql", {"n": n})
    good.append(enqueue(sql_kind, "test.sql", {"n": 1}))
    execute(sql_kind)
    assert [row["job"] for row in run(sql_kind, "select job from public.done order by job")] == good
    assert state(sql_kind, bad)["last_error"].startswith(error)


def test_one_that_kills_its_backend_takes_nobody_along_twice(connect: Connect) -> None:
    setup = connect(autocommit=True)
    _make_sql_kind(setup)
    killer = enqueue(setup, "test.sql", {"n": 96})
    good = [enqueue(setup, "test.sql", {"n": 1}) for _ in range(5)]
    for hours in range(1, 12):
        runner = connect(autocommit=True)
        with contextlib.suppress(psycopg.OperationalError):
            execute(runner)
        set_clock(setup, f"now() + interval '{hours} hours'")
        one(setup, "select jobs.reap()")
    assert [row["job"] for row in run(setup, "select job from public.done order by job")] == good
    assert state(setup, killer)["state"] == "failed"


def test_names_that_look_alike_are_kept_apart(db: Connection) -> None:
    for name in ("fa", "fb"):
        run(db, f"create function public.{name}(job jobs.jobs) returns void language plpgsql as "
                f"$$ begin raise exception '{name}'; end $$")  # fmt: skip
    long = "k" * 58
    for kind, handler in (("a.b", "fa"), ("a_b", "fb"), ("a__b", "fb"), (long + ".a", "fa"), (long + ".b", "fb")):
        declare(db, kind, executor="postgres", handler=f"public.{handler}", max_attempts=1)
        job = enqueue(db, kind)
        run(db, "select jobs.drop_kind('a__b')") if kind == long + ".b" else None
        execute(db)
        assert handler in state(db, job)["last_error"]


def test_run_commits_batch_by_batch_and_ends_when_nothing_is_left(database: Database) -> None:
    with database.connect(autocommit=True) as connection:
        _make_sql_kind(connection)
        run(connection, "select jobs.enqueue_many('test.sql', array_fill('{\"n\": 1}'::jsonb, array[500]))")
        poison = enqueue(connection, "test.sql", {"n": 0})
        run(connection, "call jobs.run(size => 100)")
        assert one(connection, "select count(*) from public.done") == 500
        assert one(connection, "select count(distinct xmin::text) from public.done") > 5
        assert state(connection, poison)["state"] == "pending"
        status = run(connection, "select * from ops.schedule_status() where name = 'rowhouse-jobs'")[0]
        assert status["outcome"] == "succeeded"


def test_two_runs_at_once_do_everything_once(connect: Connect) -> None:
    setup, first, second = connect(autocommit=True), connect(autocommit=True), connect(autocommit=True)
    _make_sql_kind(setup)
    run(setup, "select jobs.enqueue_many('test.sql', array_fill('{\"n\": 1}'::jsonb, array[1000]))")
    calls = [Call(connection, lambda c: run(c, "call jobs.run(size => 50)")) for connection in (first, second)]
    assert [call.result() for call in calls] == ["ok", "ok"]
    assert one(setup, "select count(*) from public.done") == 1000
    assert one(setup, "select count(distinct job) from public.done") == 1000


def test_a_job_in_postgres_past_its_timeout_is_cancelled_and_counts_as_failed(connect: Connect) -> None:
    setup, runner = connect(autocommit=True), connect(autocommit=True)
    _make_sql_kind(setup)
    slow, other = enqueue(setup, "test.sql", {"n": 99}), enqueue(setup, "test.sql", {"n": 5})
    call = Call(runner, execute)
    deadline = time.monotonic() + 20
    while not one(setup, "select jobs.cancel_overdue()"):
        assert time.monotonic() < deadline
    assert call.result() == "ok"
    assert "it was cancelled: it may take 1 seconds" in state(setup, slow)["last_error"]
    # What the same batch had not begun waits again, and runs.
    execute(setup)
    assert state(setup, other)["state"] == "completed"


def test_a_batch_stops_in_time_and_gives_back_what_it_had_not_begun(sql_kind: Connection) -> None:
    for n in range(1, 4):
        enqueue(sql_kind, "test.sql", {"n": n})
    token = one(sql_kind, "select jobs.claim_for_postgres()")
    one(sql_kind, "select jobs.execute(%s, 0)", [token])
    assert one(sql_kind, "select count(*) from public.done") == 0
    assert one(sql_kind, "select count(*) from jobs.jobs where state = 'pending' and attempts = 0") == 3
    assert one(sql_kind, "select count(*) from jobs.leases") == 0


def test_pg_cron_runs_it_for_real(connect: Connect, database: Database) -> None:
    connection = connect(autocommit=True)
    _make_sql_kind(connection)
    job = enqueue(connection, "test.sql", {"n": 7})
    port, _ = published()
    with Database("postgres", port, published()[1]).connect(SUPERUSER, autocommit=True) as clock:
        # The launcher lives in another database; this is how it reaches ours.
        name = f"run-{database.name}"
        run(clock, "select cron.schedule_in_database(%s, '* * * * *', 'call jobs.run()', %s)", [name, database.name])
        try:
            deadline = time.monotonic() + 90
            while state(connection, job)["state"] != "completed":
                assert time.monotonic() < deadline, "pg_cron did not run it"
                time.sleep(0.5)
        finally:
            run(clock, "select cron.unschedule(%s)", [name])


def test_a_handler_must_be_there_and_take_a_job(db: Connection) -> None:
    with pytest.raises(Exception, match="there is no function"), db.transaction():
        declare(db, "test.none", executor="postgres", handler="public.nowhere")
    with pytest.raises(Exception, match="there is no function"), db.transaction():
        declare(db, "test.none", executor="postgres", handler="x; drop table public.tasks")
    with pytest.raises(Exception, match="kinds_executor_is_known"), db.transaction():
        declare(db, "test.none", executor="cloud")


def test_a_worker_cannot_take_over_what_a_migration_declared(sql_kind: Connection) -> None:
    with pytest.raises(Exception, match="was declared by a migration"), sql_kind.transaction():
        run(sql_kind, """select jobs.register('[{"kind": "test.sql"}]')""")
    assert one(sql_kind, """select jobs.register('[{"kind": "test.new", "timeout": "5 seconds"}]')""") == 1
    assert one(sql_kind, """select jobs.register('[{"kind": "test.new", "timeout": "5 seconds"}]')""") == 0


# Events ---------------------------------------------------------------------------------------


def test_a_declared_event_of_a_table_enqueues_a_job(db: Connection) -> None:
    declare(db, "test.event")
    run(db, "select jobs.on_event('public.tickets', 'insert', 'test.event')")
    run(
        db,
        "select jobs.on_event('public.tickets', 'update', 'test.event', array['status'], 'new.status = ''completed''')",
    )
    run(db, "select jobs.on_event('public.tickets', 'delete', 'test.event')")
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    ticket = make_ticket(db, workspace, make_customer(db, workspace))
    claimed = claim(db)
    assert claimed[0]["workspace_id"] == workspace
    assert claimed[0]["payload"] == {
        "event": "insert", "table": "tickets", "id": str(ticket), "workspace_id": str(workspace),
    }  # fmt: skip
    for status in ("diagnosing", "ready"):
        run(db, "update tickets set status = %s", [status])
    assert claim(db) == []
    run(db, "update tickets set status = 'completed'")
    assert claim(db)[0]["payload"]["event"] == "update"
    run(db, "update tickets set estimate = 5, status = status")
    assert claim(db) == []
    with as_user(db, owner):
        run(db, "delete from tickets")
    assert claim(db)[0]["payload"]["event"] == "delete"
    run(db, "select jobs.drop_event('public.tickets', 'insert', 'test.event')")
    make_ticket(db, workspace, make_customer(db, workspace))
    assert claim(db) == []


def test_an_event_that_makes_no_sense_is_refused(db: Connection) -> None:
    declare(db, "test.event")
    for call in (
        "'public.tickets', 'upsert', 'test.event'", "'public.tickets', 'insert', 'test.none'",
        "'public.tickets', 'insert', 'test.event', array['status']",
    ):  # fmt: skip
        with refused("22023"), db.transaction():
            run(db, f"select jobs.on_event({call})")


# Schedules and alarms -------------------------------------------------------------------------


def test_a_schedule_keeps_its_own_heartbeat_and_misses_are_counted(db: Connection) -> None:
    assert one(db, "select ops.run_schedule('rowhouse-purge')")
    row = run(db, "select * from ops.schedule_status() where name = 'rowhouse-purge'")[0]
    assert (row["outcome"], row["missed"]) == ("succeeded", 0)
    # Nothing runs them in this database: the shortest are overdue by themselves after some minutes.
    overdue = (
        "select count(*) from jobs.current_alarms() where alarm = 'schedule_overdue' and subject = 'rowhouse-purge'"
    )
    assert one(db, overdue) == 0
    run(
        db,
        "update ops.schedules set finished_at = now() - interval '65 minutes', scheduled_at = now() - interval '1 day' "
        "where name = 'rowhouse-purge'",
    )
    assert one(db, "select missed from ops.schedule_status() where name = 'rowhouse-purge'") == 6
    assert one(db, overdue) == 1


def test_a_schedule_that_fails_says_so_and_loses_nothing_else(db: Connection) -> None:
    run(db, "select ops.schedule('test-bad', '0 0 * * *', 'select 1 / 0', '1 day')")
    assert one(db, "select ops.run_schedule('test-bad')") is False
    row = run(db, "select * from ops.schedule_status() where name = 'test-bad'")[0]
    assert (row["outcome"], row["last_error"]) == ("failed", "22012: division by zero")
    assert one(db, "select count(*) from ops.job_findings() where subject = 'test-bad'") == 1


def test_a_paused_schedule_does_not_run_and_is_not_overdue(db: Connection) -> None:
    run(db, "select ops.pause_schedule('rowhouse-purge', true)")
    run(db, "update ops.schedules set scheduled_at = now() - interval '1 day'")
    assert one(db, "select ops.run_schedule('rowhouse-purge')") is False
    assert one(db, "select count(*) from jobs.current_alarms() where subject = 'rowhouse-purge'") == 0
    assert one(db, "select count(*) from cron.job where jobname = 'rowhouse-purge'") == 0
    run(db, "select ops.pause_schedule('rowhouse-purge', false)")
    assert one(db, "select command from cron.job where jobname = 'rowhouse-purge'") == (
        "select ops.run_schedule('rowhouse-purge')"
    )


def test_alarms_are_raised_and_cleared_as_rows(db: Connection) -> None:
    declare(db)
    run(db, "update jobs.alarm_rules set threshold = 5 where alarm = 'queue_depth'")
    run(db, "select jobs.enqueue_many('test.noop', array_fill('{}'::jsonb, array[6]))")
    set_clock(db, "now() + interval '20 minutes'")
    assert one(db, "select jobs.watch()") >= 2
    raised = {row["alarm"]: row for row in run(db, "select * from jobs.alarms where subject = 'default'")}
    assert (raised["queue_depth"]["value"], raised["queue_depth"]["threshold"]) == (6, 5)
    assert 1199 < raised["queue_age"]["value"] < 1201
    claimed = claim(db)
    run(db, "select jobs.complete(%s, %s)", [claimed[0]["lease"], [row["id"] for row in claimed]])
    set_clock(db, "now() + interval '21 minutes'")
    one(db, "select jobs.watch()")
    assert one(db, "select count(*) from jobs.alarms where subject = 'default' and cleared_at is null") == 0


def test_dead_letters_and_failure_rates_raise_alarms(db: Connection) -> None:
    declare(db, max_attempts=1)
    run(db, "select jobs.enqueue_many('test.noop', array_fill('{}'::jsonb, array[20]))")
    for row in claim(db, 20):
        run(
            db,
            "select jobs.fail(%s, jsonb_build_array(jsonb_build_object('id', %s::bigint, 'error', 'x')))",
            [row["lease"], row["id"]],
        )
    alarms = {
        row["alarm"]: row["value"] for row in run(db, "select * from jobs.current_alarms() where subject = 'test.noop'")
    }
    assert alarms == {"dead_letters": 20, "failure_rate": 1}


def test_a_transaction_that_pins_vacuum_raises_an_alarm(connect: Connect) -> None:
    holder, watcher = connect(), connect(autocommit=True)
    run(watcher, "update jobs.alarm_rules set threshold = 0 where alarm = 'vacuum_pinned'")
    run(holder, "set transaction isolation level repeatable read")
    run(holder, "select 1")
    subjects = [
        row["subject"]
        for row in run(watcher, "select subject from jobs.current_alarms() where alarm = 'vacuum_pinned'")
    ]
    assert f"process {holder.info.backend_pid} of postgres" in subjects
