"""Plan limits: N is never exceeded, and N is reachable."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from ..identities import add_member, as_user, make_project, make_user, make_workspace, one, refusal, refused, run
from ..races import Call, wait_until_blocked

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]
LEVELS = [psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.REPEATABLE_READ]
BULK = "insert into projects (workspace_id, name) select %s, 'P' from generate_series(1, %s)"


def counter(db: Connection, workspace: Any, resource: str = "projects") -> tuple[int | None, int | None]:
    row = run(
        db,
        "select used, max from billing.usage_counters where workspace_id = %s and resource = %s",
        [workspace, resource],
    )[0]
    return row["used"], row["max"]


def count(db: Connection, workspace: Any) -> int:
    total: int = one(db, "select count(*) from projects where workspace_id = %s and deleted_at is null", [workspace])
    return total


@pytest.fixture
def owner(db: Connection) -> Any:
    return make_user(db)


def test_the_limit_is_reachable_and_not_one_more(db: Connection, owner: Any) -> None:
    workspace = make_workspace(db, owner, plan="free")
    with as_user(db, owner) as session:
        for _ in range(3):
            run(session, BULK, [workspace, 1])
        with refused("plan_limit_reached"), session.transaction():
            run(session, BULK, [workspace, 1])
    assert counter(db, workspace) == (3, 3)


def test_the_refusal_is_402_with_resource_limit_plan_and_the_plan_that_lifts_it(db: Connection, owner: Any) -> None:
    workspace = make_workspace(db, owner, plan="free")
    with as_user(db, owner), pytest.raises(psycopg.Error) as caught, db.transaction():
        run(db, BULK, [workspace, 4])
    body = json.loads(caught.value.diag.message_primary or "")
    assert json.loads(caught.value.diag.message_detail or "")["status"] == 402
    assert body["code"] == "plan_limit_reached"
    assert json.loads(body["details"]) == {"resource": "projects", "limit": 3, "plan": "free", "lifted_by": "pro"}


def test_a_bulk_insert_is_counted_row_by_row_and_refused_as_a_whole(db: Connection, owner: Any) -> None:
    workspace = make_workspace(db, owner, plan="pro")
    run(db, BULK, [workspace, 60])
    with refused("plan_limit_reached"), db.transaction():
        run(db, BULK, [workspace, 50])
    run(db, BULK, [workspace, 40])
    assert counter(db, workspace) == (100, 100)


def test_rows_of_several_workspaces_in_one_statement_are_counted_each(db: Connection, owner: Any) -> None:
    here, there = (make_workspace(db, owner, plan="free") for _ in range(2))
    run(
        db,
        "insert into projects (workspace_id, name) select w, 'P' from unnest(%s::uuid[]) w, generate_series(1, 2)",
        [[here, there]],
    )
    assert (counter(db, here)[0], counter(db, there)[0]) == (2, 2)
    run(db, "delete from projects where workspace_id = any (%s::uuid[])", [[here, there]])
    assert (counter(db, here)[0], counter(db, there)[0]) == (0, 0)


def test_upserts_count_what_they_insert(db: Connection, owner: Any) -> None:
    workspace = make_workspace(db, owner, plan="free")
    project = make_project(db, workspace)
    upsert = "insert into projects (workspace_id, id, name) values (%s, %s, 'again') on conflict (workspace_id, id) do "
    run(db, upsert + "update set name = excluded.name", [workspace, project])
    run(db, upsert + "nothing", [workspace, project])
    assert counter(db, workspace)[0] == 1
    run(
        db,
        "merge into projects p using (values (%s::uuid)) v (w) on false when not matched then insert (workspace_id, name) values (v.w, 'M')",
        [workspace],
    )
    assert counter(db, workspace)[0] == 2


def test_cascades_and_rollbacks_are_counted(db: Connection, owner: Any) -> None:
    workspace = make_workspace(db, owner, plan="free")
    with db.transaction(force_rollback=True):
        run(db, BULK, [workspace, 2])
    assert counter(db, workspace)[0] == 0
    run(db, "set constraints all immediate")
    run(db, "delete from workspaces where id = %s", [workspace])
    assert run(db, "select from billing.usage_counters where workspace_id = %s", [workspace]) == []


def test_members_are_limited_when_an_invitation_is_accepted_too(db: Connection, owner: Any) -> None:
    workspace = make_workspace(db, owner, plan="free")
    add_member(db, workspace, "member")
    with as_user(db, owner):
        tokens = [
            run(db, "select token from public.invite_member(%s, %s)", [workspace, f"{name}@example.com"])[0]["token"]
            for name in ("bob", "eve")
        ]
    bob, eve = make_user(db, "bob@example.com"), make_user(db, "eve@example.com")
    with as_user(db, bob):
        run(db, "select public.accept_invitation(%s)", [tokens[0]])
    with as_user(db, eve), refused("plan_limit_reached"), db.transaction():
        run(db, "select public.accept_invitation(%s)", [tokens[1]])
    with as_user(db, bob):
        run(db, "select public.leave_workspace(%s)", [workspace])
    with as_user(db, eve):
        run(db, "select public.accept_invitation(%s)", [tokens[1]])
    assert counter(db, workspace, "members") == (3, 3)


def test_a_downgrade_below_what_is_used_blocks_growth_and_nothing_else(db: Connection, owner: Any) -> None:
    workspace = make_workspace(db, owner, plan="pro")
    run(db, BULK, [workspace, 5])
    run(db, "select billing.set_plan(%s, 'free')", [workspace])
    assert counter(db, workspace) == (5, 3)
    with as_user(db, owner) as session:
        with refused("plan_limit_reached"), session.transaction():
            run(session, BULK, [workspace, 1])
        assert (
            len(run(session, "update projects set name = 'changed' where workspace_id = %s returning id", [workspace]))
            == 5
        )
        run(session, "delete from projects where id = (select min(id::text)::uuid from projects)")
        with refused("plan_limit_reached"), session.transaction():
            run(session, BULK, [workspace, 1])
        run(session, "delete from projects where id in (select id from projects limit 2)")
        run(session, BULK, [workspace, 1])
    assert counter(db, workspace) == (3, 3)


def test_without_a_limit_nothing_is_counted_until_there_is_one(db: Connection, owner: Any) -> None:
    workspace = make_workspace(db, owner, plan="enterprise")
    run(db, BULK, [workspace, 150])
    assert counter(db, workspace) == (None, None)
    with as_user(db, owner):
        usage = run(db, "select used, max, remaining, lifted_by from workspace_usage where resource = 'projects'")
    assert usage == [{"used": 150, "max": None, "remaining": None, "lifted_by": None}]
    run(db, "select billing.set_plan(%s, 'pro')", [workspace])
    assert counter(db, workspace) == (150, 100)
    with refused("plan_limit_reached"), db.transaction():
        run(db, BULK, [workspace, 1])


def test_an_override_beats_the_plan_and_its_end_brings_the_plan_back(db: Connection, owner: Any) -> None:
    workspace = make_workspace(db, owner, plan="free")
    override = (
        "insert into billing.limit_overrides (workspace_id, resource, max, reason) values (%s, 'projects', %s, 'deal')"
    )
    run(db, override, [workspace, 5])
    run(db, BULK, [workspace, 5])
    assert counter(db, workspace) == (5, 5)
    run(db, "update billing.limit_overrides set max = null where workspace_id = %s", [workspace])
    assert counter(db, workspace) == (None, None)
    run(db, "delete from billing.limit_overrides where workspace_id = %s", [workspace])
    assert counter(db, workspace) == (5, 3)


def test_a_changed_plan_reaches_every_workspace_on_it(db: Connection, owner: Any) -> None:
    workspaces = [make_workspace(db, owner, plan="free") for _ in range(3)]
    run(db, "update billing.plan_limits set max = 4 where plan_id = 'free' and resource = 'projects'")
    assert [counter(db, workspace) for workspace in workspaces] == [(0, 4)] * 3
    run(db, "delete from billing.plan_limits where plan_id = 'free' and resource = 'projects'")
    assert [counter(db, workspace) for workspace in workspaces] == [(0, 0)] * 3


def test_an_unknown_plan_is_refused_and_names_the_plans(db: Connection, owner: Any) -> None:
    workspace = make_workspace(db, owner, plan="free")
    with refused("plan_not_found"), db.transaction():
        run(db, "select billing.set_plan(%s, 'gold')", [workspace])


def test_usage_is_shown_to_members_and_to_nobody_else(db: Connection, owner: Any) -> None:
    workspace = make_workspace(db, owner, plan="free")
    viewer = add_member(db, workspace, "viewer")
    with as_user(db, viewer):
        rows = run(db, "select plan, resource, used, max, remaining, lifted_by from workspace_usage order by resource")
    assert rows == [
        {"plan": "free", "resource": "members", "used": 2, "max": 3, "remaining": 1, "lifted_by": "pro"},
        {"plan": "free", "resource": "projects", "used": 0, "max": 3, "remaining": 3, "lifted_by": "pro"},
        {"plan": "free", "resource": "tickets", "used": 0, "max": 50, "remaining": 50, "lifted_by": "pro"},
    ]
    with as_user(db, make_user(db)):
        assert run(db, "select * from workspace_usage") == []


@pytest.mark.parametrize("level", LEVELS)
def test_sixty_four_inserts_at_a_limit_admit_exactly_what_is_left(
    connect: Connect, level: psycopg.IsolationLevel
) -> None:
    setup = connect()
    owner = make_user(setup)
    workspace = make_workspace(setup, owner, plan="pro")
    run(setup, BULK, [workspace, 90])
    setup.commit()
    outcomes: list[str] = []
    gate = threading.Barrier(64, timeout=60)

    def insert() -> None:
        connection = connect()
        connection.isolation_level = level
        gate.wait()
        while True:
            try:
                with as_user(connection, owner):
                    run(connection, BULK, [workspace, 1])
                connection.commit()
                outcomes.append("ok")
            except psycopg.errors.SerializationFailure:
                connection.rollback()
                continue
            except psycopg.Error as error:
                connection.rollback()
                outcomes.append(refusal(error))
            return

    threads = [threading.Thread(target=insert) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["ok"] * 10 + ["plan_limit_reached"] * 54
    assert (count(setup, workspace), counter(setup, workspace)) == (100, (100, 100))


def test_deletes_in_between_make_room_and_the_count_stays_exact(connect: Connect) -> None:
    setup = connect()
    owner = make_user(setup)
    workspace = make_workspace(setup, owner, plan="free")
    setup.commit()
    gate = threading.Barrier(8, timeout=60)

    def churn() -> None:
        connection = connect(autocommit=True)
        gate.wait()
        for _ in range(25):
            try:
                run(connection, BULK, [workspace, 1])
            except psycopg.Error as error:
                assert refusal(error) == "plan_limit_reached"
            run(
                connection,
                "delete from projects where (workspace_id, id) in (select workspace_id, id from projects where deleted_at is null limit 1 for update skip locked)",
            )

    threads = [threading.Thread(target=churn) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter(setup, workspace) == (count(setup, workspace), 3)


@pytest.mark.parametrize("level", LEVELS)
def test_a_limit_that_arrives_while_rows_are_being_inserted_counts_them(
    connect: Connect, level: psycopg.IsolationLevel
) -> None:
    setup, inserter, operator, observer = connect(), connect(), connect(), connect(autocommit=True)
    owner = make_user(setup)
    workspace = make_workspace(setup, owner, plan="enterprise")
    setup.commit()
    inserter.isolation_level = level
    run(inserter, BULK, [workspace, 3])
    call = Call(operator, lambda connection: run(connection, "select billing.set_plan(%s, 'free')", [workspace]))
    wait_until_blocked(observer, operator)
    inserter.commit()
    assert call.result() == "ok"
    assert counter(observer, workspace) == (3, 3)
    with refused("plan_limit_reached"):
        run(inserter, BULK, [workspace, 1])


def test_an_insert_that_waits_for_a_limit_is_held_to_it(connect: Connect) -> None:
    setup, inserter, operator, observer = connect(), connect(), connect(), connect(autocommit=True)
    owner = make_user(setup)
    workspace = make_workspace(setup, owner, plan="enterprise")
    run(setup, BULK, [workspace, 3])
    setup.commit()
    run(operator, "select billing.set_plan(%s, 'free')", [workspace])
    call = Call(inserter, lambda connection: run(connection, BULK, [workspace, 1]))
    wait_until_blocked(observer, inserter)
    operator.commit()
    assert call.result() == "plan_limit_reached"
    assert counter(observer, workspace) == (3, 3)


def test_a_limit_cannot_be_put_on_from_an_old_snapshot(connect: Connect) -> None:
    connection = connect()
    workspace = make_workspace(connection, make_user(connection), plan="enterprise")
    connection.commit()
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with refused("25001"):
        run(connection, "select billing.set_plan(%s, 'free')", [workspace])


def test_inserters_without_a_limit_do_not_wait_for_each_other(connect: Connect) -> None:
    setup = connect()
    workspace = make_workspace(setup, make_user(setup), plan="enterprise")
    setup.commit()
    first, second = connect(), connect()
    run(first, BULK, [workspace, 1])
    run(second, "set local lock_timeout = '5s'")
    run(second, BULK, [workspace, 1])
    second.commit()
    first.commit()


def test_a_plan_that_changes_while_a_workspace_moves_onto_it_binds_it(connect: Connect) -> None:
    setup, observer = connect(), connect(autocommit=True)
    workspace = make_workspace(setup, make_user(setup), plan="pro")
    setup.commit()
    for new_max, operator, mover in ((1, connect(), connect()), (2, connect(), connect())):
        run(setup, "select billing.set_plan(%s, 'pro')", [workspace])
        setup.commit()
        change = "update billing.plan_limits set max = %s where plan_id = 'free' and resource = 'projects'"
        run(operator, change, [new_max])
        call = Call(mover, lambda connection: run(connection, "select billing.set_plan(%s, 'free')", [workspace]))
        wait_until_blocked(observer, mover)
        operator.commit()
        assert call.result() == "ok"
        assert counter(observer, workspace) == (0, new_max)


def test_a_table_that_comes_under_limits_while_a_workspace_is_made_counts_there_too(connect: Connect) -> None:
    setup, migrator, observer = connect(), connect(), connect(autocommit=True)
    owner = make_user(setup)
    setup.commit()
    run(migrator, "select billing.limit_rows('public.tasks', 'tasks', '{\"free\": 1, \"pro\": 1, \"enterprise\": 1}')")
    maker = connect()
    call = Call(maker, lambda connection: make_workspace(connection, owner, plan="free"))
    wait_until_blocked(observer, maker)
    migrator.commit()
    assert call.result() == "ok"
    assert run(observer, "select count(*) as n from billing.usage_counters where resource = 'tasks'") == [{"n": 1}]


def test_an_override_that_moves_binds_both_workspaces(db: Connection, owner: Any) -> None:
    here, there = (make_workspace(db, owner, plan="free") for _ in range(2))
    run(
        db,
        "insert into billing.limit_overrides (workspace_id, resource, max, reason) values (%s, 'projects', 50, 'deal')",
        [here],
    )
    run(db, "update billing.limit_overrides set workspace_id = %s", [there])
    assert (counter(db, here), counter(db, there)) == ((0, 3), (0, 50))


def test_a_workspace_that_lost_its_plan_can_be_given_one(db: Connection, owner: Any) -> None:
    workspace = make_workspace(db, owner, plan="free")
    run(db, "delete from billing.workspace_plans where workspace_id = %s", [workspace])
    run(db, "select billing.set_plan(%s, 'pro')", [workspace])
    assert counter(db, workspace) == (0, 100)


def test_a_limited_table_can_be_released_while_workspaces_have_no_limit(db: Connection, owner: Any) -> None:
    make_workspace(db, owner, plan="enterprise")
    run(db, "select tenancy.release_table('public.projects')")
    assert run(db, "select from billing.usage_counters where resource = 'projects'") == []
