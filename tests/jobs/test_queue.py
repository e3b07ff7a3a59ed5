"""The queue itself: what is enqueued is run, once at a time, by whoever holds its lease."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from ..identities import Row, acting, make_user, make_workspace, one, refused, run
from ..races import Call, Connection
from .queue import claim, complete, declare, enqueue, fail, set_clock, state

Connect = Callable[..., Connection]


def test_a_job_exists_if_and_only_if_its_transaction_committed(connect: Connect) -> None:
    writer, reader = connect(), connect(autocommit=True)
    declare(writer)
    writer.commit()
    enqueue(writer)
    assert claim(reader) == []
    writer.rollback()
    assert claim(reader) == []
    job = enqueue(writer)
    writer.commit()
    assert [row["id"] for row in claim(reader)] == [job]


def test_a_completed_job_is_in_history_and_nowhere_else(db: Connection) -> None:
    declare(db)
    job = enqueue(db, payload={"a": 1}, priority=7)
    claimed = claim(db)
    assert (claimed[0]["attempt"], claimed[0]["payload"], claimed[0]["timeout"]) == (1, {"a": 1}, 60.0)
    assert complete(db, claimed) == 1
    assert one(db, "select count(*) from jobs.jobs") == 0
    assert one(db, "select count(*) from jobs.leases") == 0
    row = run(db, "select * from jobs.history where id = %s", [job])[0]
    assert (row["state"], row["attempts"], row["priority"], row["payload"]) == ("completed", 1, 7, {"a": 1})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "test.unknown"}, "there is no kind of job"),
        ({"payload": {"to": 1}}, "payload.to is of type number, and must be string"),
        ({"payload": {}}, "payload lacks"),
        ({"payload": {"to": "x", "more": 1}}, "which its schema does not know"),
        ({"payload": {"to": "x" * 200}}, "is of length 200"),
        ({"payload": {"to": "x", "count": 1.5}}, "must be integer"),
        ({"payload": {"to": "x", "count": 11}}, "payload.count is 11"),
        ({"payload": {"to": "x", "mode": "c"}}, "must be one of"),
        ({"payload": {"to": "x", "id": "no"}}, "is not of format uuid"),
        ({"payload": {"to": "x", "list": [1, "a"]}}, "payload.list[] is of type string"),
        ({"payload": {"to": "x", "at": "2026-02-30T00:00:00Z"}}, "is not of format date-time"),
        ({"payload": []}, "payload is of type array"),
        ({"payload": {"to": "x"}, "queue": "No queue"}, "cannot be a queue"),
    ],
)
def test_what_cannot_be_a_job_is_refused_when_it_is_enqueued(db: Connection, arguments: Row, words: str) -> None:
    schema = {
        "type": "object", "required": ["to"], "additionalProperties": False,
        "properties": {
            "to": {"type": "string", "maxLength": 100}, "count": {"type": "integer", "maximum": 10},
            "mode": {"enum": ["a", "b"]}, "id": {"type": "string", "format": "uuid"},
            "list": {"type": "array", "items": {"type": "integer"}}, "at": {"type": "string", "format": "date-time"},
        },
    }  # fmt: skip
    declare(db, "test.strict", payload_schema=schema)
    with pytest.raises(Exception, match=words.replace("[", r"\[").replace("]", r"\]")), db.transaction():
        enqueue(db, **{"kind": "test.strict", **arguments})
    good = {"to": "x", "count": 10, "mode": "a", "id": str(uuid.uuid4()), "list": [1], "at": "2026-02-28T00:00:00Z"}
    assert enqueue(db, "test.strict", good)


@pytest.mark.parametrize(
    "arguments", [{"priority": -1}, {"priority": 1001}, {"max_attempts": 0}, {"dedupe_key": ""}, {"run_at": "infinity"}]
)
def test_numbers_out_of_range_are_refused(db: Connection, arguments: Row) -> None:
    declare(db)
    with refused("23514"), db.transaction():
        enqueue(db, **arguments)


def test_a_payload_of_a_megabyte_is_refused_whole(db: Connection) -> None:
    import os

    declare(db)
    big = {"text": os.urandom(500_000).hex()}
    with pytest.raises(Exception, match="may have 65536"), db.transaction():
        enqueue(db, payload=big)
    with pytest.raises(Exception, match="may have 65536"), db.transaction():
        run(db, "select jobs.enqueue_many('test.noop', array['{}', %s]::jsonb[])", [str(big).replace("'", '"')])
    assert one(db, "select count(*) from jobs.jobs") == 0


def test_a_schema_that_means_nothing_is_refused(db: Connection) -> None:
    flawed: tuple[Row, ...] = (
        {"typ": "object"},
        {"type": "objekt"},
        {"properties": {"a": {"maxLength": "3"}}},
        {"items": []},
    )
    for schema in flawed:
        with pytest.raises(Exception, match=r"means nothing|not an object"), db.transaction():
            declare(db, "test.flawed", payload_schema=schema)


def test_many_are_enqueued_at_once_or_none(db: Connection) -> None:
    declare(db, payload_schema={"required": ["n"]})
    with pytest.raises(Exception, match="lacks n"), db.transaction():
        run(db, """select jobs.enqueue_many('test.noop', array['{"n": 1}', '{}']::jsonb[])""")
    assert one(db, "select jobs.enqueue_many('test.noop', array_fill('{\"n\": 1}'::jsonb, array[1000]))") == 1000
    assert len(claim(db, 10_000)) == 1000


def test_a_job_waits_for_its_time(db: Connection) -> None:
    declare(db)
    job = enqueue(db, run_at=one(db, "select ops.now() + interval '1 hour'"))
    assert claim(db) == []
    set_clock(db, "now() + interval '1 hour'")
    assert [row["id"] for row in claim(db)] == [job]


def test_urgent_ones_go_first_and_equals_in_order(db: Connection) -> None:
    declare(db)
    late, first, second = (enqueue(db, priority=200), enqueue(db), enqueue(db))
    urgent = enqueue(db, priority=0)
    assert [claim(db, 1)[0]["id"] for _ in range(4)] == [urgent, first, second, late]


def test_a_claim_takes_only_its_queues(db: Connection) -> None:
    declare(db)
    enqueue(db, queue="other")
    wanted = enqueue(db, queue="mail")
    enqueue(db)
    assert [row["id"] for row in claim(db, queues=["mail", "nothing"])] == [wanted]
    assert len(claim(db)) == 2


def test_a_tenant_with_thousands_does_not_delay_another(db: Connection) -> None:
    declare(db)
    owner = make_user(db)
    noisy, quiet = make_workspace(db, owner), make_workspace(db, owner)
    run(db, "select jobs.enqueue_many('test.noop', array_fill('{}'::jsonb, array[20000]), %s)", [noisy])
    lone = enqueue(db, workspace_id=quiet)
    house = enqueue(db)
    claimed = claim(db, 30)
    assert {lone, house} <= {row["id"] for row in claimed}
    assert len(claimed) == 30
    for workspace in range(40):
        enqueue(db, workspace_id=uuid.UUID(int=workspace + 1))
    counts: dict[uuid.UUID | None, int] = {}
    for row in claim(db, 41):
        counts[row["workspace_id"]] = counts.get(row["workspace_id"], 0) + 1
    assert sum(counts.values()) == 41 and max(counts.values()) == 1


def test_of_more_tenants_than_a_claim_takes_none_starves(db: Connection) -> None:
    declare(db)
    for n in range(12):
        for _ in range(40):
            enqueue(db, workspace_id=uuid.UUID(int=n * 2**124))
    served = [claim(db, 1)[0]["workspace_id"] for _ in range(200)]
    assert len(set(served)) == 12


def test_two_claims_never_get_the_same_job(connect: Connect) -> None:
    first, second = connect(), connect()
    declare(first)
    run(first, "select jobs.enqueue_many('test.noop', array_fill('{}'::jsonb, array[100]))")
    first.commit()
    ours = claim(first, 60)
    theirs = claim(second, 60)
    assert (len(ours), len(theirs)) == (60, 40)
    assert not {row["id"] for row in ours} & {row["id"] for row in theirs}


def test_a_lost_lease_completes_fails_and_releases_nothing(db: Connection) -> None:
    declare(db, max_attempts=3)
    enqueue(db)
    lost = claim(db, seconds=30)
    set_clock(db, "now() + interval '31 seconds'")
    assert one(db, "select count(*) from jobs.heartbeat(array[%s::uuid])", [lost[0]["lease"]]) == 0
    one(db, "select jobs.reap()")
    set_clock(db, "now() + interval '1 hour'")
    taken = claim(db)
    assert taken[0]["attempt"] == 2
    assert complete(db, lost) == 0
    assert fail(db, lost[0], error="late") is None
    assert one(db, "select jobs.release(%s, %s)", [lost[0]["lease"], [lost[0]["id"]]]) == 0
    assert complete(db, taken) == 1


def test_a_heartbeat_keeps_a_lease(db: Connection) -> None:
    declare(db)
    enqueue(db)
    held = claim(db, seconds=30)
    set_clock(db, "now() + interval '20 seconds'")
    assert one(db, "select count(*) from jobs.heartbeat(array[%s::uuid], 30)", [held[0]["lease"]]) == 1
    set_clock(db, "now() + interval '45 seconds'")
    assert one(db, "select jobs.reap()") == 0
    assert complete(db, held) == 1


def test_a_poison_job_fails_after_its_attempts_with_its_error_and_can_be_replayed(db: Connection) -> None:
    declare(db, max_attempts=3, backoff="10 seconds")
    job = enqueue(db)
    waits = []
    for attempt in range(1, 4):
        claimed = claim(db)
        assert claimed[0]["attempt"] == attempt
        ended = fail(db, claimed[0], error=f"boom {attempt}")
        if attempt < 3:
            assert ended == "pending"
            waits.append(one(db, "select extract(epoch from run_at - ops.now()) from jobs.jobs"))
            set_clock(db, f"now() + interval '{attempt} hours'")
        else:
            assert ended == "failed"
    assert 7.5 <= waits[0] <= 12.5 and 15 <= waits[1] <= 25
    row = state(db, job)
    assert (row["state"], row["last_error"], row["attempts"]) == ("failed", "boom 3", 3)
    assert claim(db) == []
    assert one(db, "select jobs.retry(%s)", [[job]]) == 1
    again = claim(db)
    assert (again[0]["id"], again[0]["attempt"]) == (job, 1)


def test_an_attempt_can_say_when_to_try_again_and_that_there_is_no_use(db: Connection) -> None:
    declare(db)
    enqueue(db)
    assert fail(db, claim(db)[0], error="busy", retry_in=90) == "pending"
    assert one(db, "select extract(epoch from run_at - ops.now())::int from jobs.jobs") == 90
    set_clock(db, "now() + interval '91 seconds'")
    assert fail(db, claim(db)[0], error="no such address", is_permanent=True) == "failed"


def test_released_jobs_wait_again_and_no_attempt_is_counted(db: Connection) -> None:
    declare(db)
    job = enqueue(db)
    held = claim(db)
    assert one(db, "select jobs.release(%s, %s)", [held[0]["lease"], [job]]) == 1
    assert claim(db)[0]["attempt"] == 1


def test_a_dedupe_key_makes_a_job_unique_while_it_waits(db: Connection) -> None:
    declare(db)
    owner = make_user(db)
    ours, theirs = make_workspace(db, owner), make_workspace(db, owner)
    first = enqueue(
        db, payload={"n": 1}, workspace_id=ours, dedupe_key="k", run_at=one(db, "select now() + interval '1 day'")
    )
    assert enqueue(db, payload={"n": 2}, workspace_id=ours, dedupe_key="k") == first
    assert enqueue(db, payload={"n": 3}, workspace_id=theirs, dedupe_key="k") != first
    waiting = [row for row in claim(db) if row["id"] == first]
    assert waiting[0]["payload"] == {"n": 2}, "it takes the newer payload, and the earlier time"
    assert enqueue(db, workspace_id=ours, dedupe_key="k") != first, "one that runs is no longer waiting"


def test_a_retry_merges_into_its_waiting_twin(db: Connection) -> None:
    declare(db)
    first = enqueue(db, dedupe_key="k")
    held = claim(db)
    twin = enqueue(db, dedupe_key="k")
    assert fail(db, held[0], error="boom") == "merged"
    assert [row["id"] for row in run(db, "select id from jobs.jobs")] == [twin]
    assert state(db, first)["state"] == "merged"


def test_two_enqueue_the_same_key_at_once(connect: Connect) -> None:
    first, second, reader = connect(), connect(), connect()
    declare(first)
    first.commit()
    enqueue(first, dedupe_key="k")
    call = Call(second, lambda connection: enqueue(connection, dedupe_key="k"))
    first.commit()
    assert call.result() == "ok"
    assert one(reader, "select count(*) from jobs.jobs") == 1


def test_the_dead_are_taken_back_by_the_next_claim(db: Connection) -> None:
    declare(db, backoff="1 second")
    job = enqueue(db)
    claim(db, worker="gone:1", seconds=10)
    set_clock(db, "now() + interval '11 seconds'")
    assert claim(db) == []
    assert "gone:1" in state(db, job)["last_error"]
    set_clock(db, "now() + interval '1 minute'")
    assert claim(db)[0]["attempt"] == 2


def test_a_worker_needs_its_role_and_reads_nothing(db: Connection) -> None:
    declare(db)
    enqueue(db)
    with acting(db, "rowhouse_worker", None):
        assert len(claim(db)) == 1
        for query in ("select * from jobs.jobs", "select * from jobs.kinds", "select * from public.projects"):
            with refused("42501"), db.transaction():
                run(db, query)
        with refused("42501"), db.transaction():
            run(db, "select jobs.enqueue('test.noop')")
    for role in ("anon", "authenticated"):
        with acting(db, role, None), refused("42501"), db.transaction():
            claim(db)


def test_history_is_dropped_by_the_day(db: Connection) -> None:
    declare(db)
    for offset in (0, 3, 30):
        enqueue(db)
        set_clock(db, f"now() + interval '{offset} days'")
        complete(db, claim(db))
    assert one(db, "select count(*) from jobs.history") == 3
    # The thirtieth day had no partition, and lost nothing.
    assert one(db, "select count(*) from jobs.history_other") == 1
    assert one(db, "select jobs.maintain()") == 4
    assert one(db, "select count(*) from jobs.history") == 1


def test_waiting_and_failed_jobs_can_be_discarded(db: Connection) -> None:
    declare(db)
    job = enqueue(db)
    assert one(db, "select jobs.discard(%s)", [[job]]) == 1
    assert state(db, job)["state"] == "discarded"


def test_no_number_of_attempts_and_no_wait_stops_the_queue(db: Connection) -> None:
    declare(db, backoff="1 hour", max_backoff="7 days", max_attempts=100)
    job = enqueue(db)
    run(db, "update jobs.jobs set attempts = 90")
    held = claim(db, seconds=1)
    set_clock(db, "now() + interval '10 seconds'")
    other = enqueue(db)
    assert [row["id"] for row in claim(db)] == [other]
    assert one(db, "select run_at - ops.now() from jobs.jobs where id = %s", [job]).days in range(5, 9)
    for how in ({"retry_in": 1e13}, {"retry_in": -5}):
        set_clock(db, "ops.now() + interval '10 days'")
        held = claim(db)
        assert fail(db, held[0], error="x", **how) == "pending"
    run(db, "select jobs.release(%s, %s, 1e13)", [uuid.uuid4(), [job]])


def test_a_key_that_is_being_enqueued_keeps_nobody_waiting(connect: Connect) -> None:
    worker, open_one = connect(autocommit=True), connect()
    declare(worker)
    enqueue(worker, dedupe_key="k")
    held = claim(worker)
    enqueue(open_one, dedupe_key="k")
    assert fail(worker, held[0], error="x", retry_in=0) == "pending"
    open_one.commit()
    assert one(worker, "select count(*) from jobs.jobs where state = 'pending'") == 2


def test_a_new_request_has_all_its_attempts(db: Connection) -> None:
    declare(db, max_attempts=2)
    enqueue(db, dedupe_key="k")
    fail(db, claim(db)[0], error="x", retry_in=0)
    enqueue(db, dedupe_key="k", payload={"n": 2})
    assert claim(db)[0]["attempt"] == 1


def test_a_reader_of_history_holds_nobody_up(connect: Connect) -> None:
    reader, keeper, worker = connect(), connect(), connect(autocommit=True)
    declare(worker)
    enqueue(worker)
    held = claim(worker)
    run(reader, "select count(*) from jobs.history")
    set_clock(worker, "now() + interval '30 days'")
    call = Call(keeper, lambda connection: one(connection, "select jobs.maintain()"))
    run(worker, "set lock_timeout = '5s'")
    assert complete(worker, held) == 1
    assert call.result() == "ok"


def test_a_worker_cannot_change_what_a_migration_declared(db: Connection) -> None:
    declare(db)
    with acting(db, "rowhouse_worker", None), refused("22023"), db.transaction():
        run(db, """select jobs.register('[{"kind": "test.noop", "payload_schema": {"pattern": "("}}]')""")
    with pytest.raises(Exception, match="pattern in the schema is none"), db.transaction():
        declare(db, "test.flawed", payload_schema={"pattern": "("})


def test_a_release_without_a_time_waits_as_long_as_the_kind_says(db: Connection) -> None:
    declare(db, backoff="30 seconds")
    job = enqueue(db)
    held = claim(db)
    assert one(db, "select jobs.release(%s, %s, null)", [held[0]["lease"], [job]]) == 1
    assert 22 <= one(db, "select extract(epoch from run_at - ops.now()) from jobs.jobs") <= 38
    assert state(db, job)["attempts"] == 0
