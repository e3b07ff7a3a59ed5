"""The trash: DELETE stamps, RESTRICT refuses, CASCADE takes along, restore() brings back exactly that set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..conftest import Database
from ..identities import (
    add_member,
    as_service,
    as_user,
    make_project,
    make_task,
    make_user,
    make_workspace,
    one,
    refused,
    run,
)
from ..races import Call, wait_until_blocked

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


def live(db: Connection, table: str, workspace: Any) -> set[Any]:
    return {
        r["id"] for r in run(db, f"select id from {table} where workspace_id = %s and deleted_at is null", [workspace])
    }


def delete(db: Connection, table: str, row: Any) -> None:
    run(db, f"delete from {table} where id = %s", [row])


def restore(db: Connection, workspace: Any, kind: str, row: Any) -> int:
    restored: int = one(db, "select tenancy.restore_row(%s, tenancy.table_named(%s), %s)", [workspace, kind, row])
    return restored


def test_a_cascade_takes_children_along_and_restore_brings_exactly_that_set_back(db: Connection) -> None:
    workspace = make_workspace(db, make_user(db))
    project, other = make_project(db, workspace), make_project(db, workspace)
    tasks = {make_task(db, workspace, project) for _ in range(3)}
    kept = make_task(db, workspace, other)
    earlier = make_task(db, workspace, project)
    delete(db, "tasks", earlier)
    delete(db, "projects", project)
    assert (live(db, "projects", workspace), live(db, "tasks", workspace)) == ({other}, {kept})
    stamps = run(db, "select distinct deleted_at from tasks where id = any (%s)", [list(tasks)])
    assert [row["deleted_at"] for row in stamps] == [
        one(db, "select deleted_at from projects where id = %s", [project])
    ]
    assert restore(db, workspace, "projects", project) == 4
    assert live(db, "tasks", workspace) == tasks | {kept}, "what was deleted before stays deleted"
    assert restore(db, workspace, "tasks", earlier) == 1
    with refused("not_in_trash"), db.transaction():
        restore(db, workspace, "tasks", earlier)


def test_two_deletions_in_one_transaction_are_two(db: Connection) -> None:
    workspace = make_workspace(db, make_user(db))
    project = make_project(db, workspace)
    tasks = [make_task(db, workspace, project) for _ in range(20)]
    run(db, "delete from tasks where id = any (%s)", [tasks])
    assert restore(db, workspace, "tasks", tasks[7]) == 1
    assert live(db, "tasks", workspace) == {tasks[7]}


def test_a_part_of_what_was_deleted_comes_back_with_the_whole_only(db: Connection) -> None:
    workspace = make_workspace(db, make_user(db))
    project = make_project(db, workspace)
    task = make_task(db, workspace, project)
    delete(db, "projects", project)
    with refused("deleted_with_parent"), db.transaction():
        restore(db, workspace, "tasks", task)


def test_restrict_refuses_while_children_live_and_lets_go_when_they_do_not(db: Connection) -> None:
    workspace = make_workspace(db, make_user(db))
    customer = one(db, "insert into customers (workspace_id, name) values (%s, 'Ada') returning id", [workspace])
    ticket = one(
        db,
        "insert into tickets (workspace_id, customer_id, device) values (%s, %s, 'Phone') returning id",
        [workspace, customer],
    )
    with refused("23503"), db.transaction():
        delete(db, "customers", customer)
    delete(db, "tickets", ticket)
    delete(db, "customers", customer)
    with refused("restore_conflict"), db.transaction():
        restore(db, workspace, "tickets", ticket)
    assert live(db, "tickets", workspace) == set(), "nothing is half restored"
    restore(db, workspace, "customers", customer)
    assert restore(db, workspace, "tickets", ticket) == 2


def test_nothing_new_hangs_on_what_is_in_the_trash(db: Connection) -> None:
    workspace = make_workspace(db, make_user(db))
    gone, here = make_project(db, workspace), make_project(db, workspace)
    task = make_task(db, workspace, here)
    delete(db, "projects", gone)
    with refused("23503"), db.transaction():
        make_task(db, workspace, gone)
    with refused("23503"), db.transaction():
        run(db, "update tasks set project_id = %s where id = %s", [gone, task])
    customer = one(db, "insert into customers (workspace_id, name) values (%s, 'Ada') returning id", [workspace])
    delete(db, "customers", customer)
    with refused("23503"), db.transaction():
        run(
            db,
            "insert into tickets (workspace_id, customer_id, device) values (%s, %s, 'Phone')",
            [workspace, customer],
        )


def test_a_plan_limit_that_is_full_refuses_the_restore_whole(db: Connection) -> None:
    workspace = make_workspace(db, make_user(db), plan="free")
    projects = [make_project(db, workspace) for _ in range(3)]
    task = make_task(db, workspace, projects[0])
    delete(db, "projects", projects[0])
    used = "select used from billing.usage_counters where workspace_id = %s and resource = 'projects'"
    assert one(db, used, [workspace]) == 2
    fourth = make_project(db, workspace)
    with refused("plan_limit_reached"), db.transaction():
        restore(db, workspace, "projects", projects[0])
    assert task not in live(db, "tasks", workspace)
    delete(db, "projects", fourth)
    restore(db, workspace, "projects", projects[0])
    assert (one(db, used, [workspace]), task in live(db, "tasks", workspace)) == (3, True)
    assert run(db, "select * from ops.data_findings()") == []


def test_a_unique_place_that_was_taken_refuses_the_restore_whole(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    project = make_project(db, workspace)
    insert = "insert into project_members (workspace_id, project_id, user_id) values (%s, %s, %s) returning id"
    first = one(db, insert, [workspace, project, owner])
    delete(db, "project_members", first)
    second = one(db, insert, [workspace, project, owner])
    with refused("restore_conflict"), db.transaction():
        restore(db, workspace, "project_members", first)
    assert live(db, "project_members", workspace) == {second}


def test_one_restores_what_one_deleted_and_with_trash_manage_everything(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    member, other, viewer = (add_member(db, workspace, role) for role in ("member", "member", "viewer"))
    project = make_project(db, workspace)
    task = make_task(db, workspace, project, "Order shelves")
    with as_user(db, member):
        delete(db, "tasks", task)
        assert [(r["kind"], r["title"], r["deleted_by"]) for r in run(db, "select * from trash")] == [
            ("tasks", "Order shelves", member)
        ]
    for who, code in ((other, "not_in_trash"), (viewer, "permission_denied"), (make_user(db), "workspace_not_found")):
        with as_user(db, who):
            assert run(db, "select * from trash") == []
            with refused(code), db.transaction():
                run(db, "select restore(%s, 'tasks', %s)", [workspace, task])
    with as_user(db, owner):
        assert len(run(db, "select * from trash")) == 1
        assert one(db, "select restore(%s, 'tasks', %s)", [workspace, task]) == 1
        with refused("kind_unknown"), db.transaction():
            run(db, "select restore(%s, 'pg_class', %s)", [workspace, task])


def test_a_delete_through_the_api_never_really_deletes_and_nobody_sets_the_stamp(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    project = make_project(db, workspace)
    with as_service(db):
        with refused("42501"), db.transaction():
            run(db, "update projects set deleted_at = now() where id = %s", [project])
        delete(db, "projects", project)
    with as_user(db, owner):
        with refused("42501"), db.transaction():
            run(db, "update projects set deleted_at = null where id = %s", [project])
        assert run(db, "select * from projects") == []
        run(db, "update projects set name = 'x'")
    assert run(db, "select name, deleted_at is null as live from projects where id = %s", [project]) == [
        {"name": "P", "live": False}
    ]


def test_workspaces_members_and_accounts_still_take_their_rows_along_for_good(db: Connection) -> None:
    owner, leaver = make_user(db), make_user(db)
    workspace = make_workspace(db, owner)
    add_member(db, workspace, "member", leaver)
    project = make_project(db, workspace, lead=leaver)
    make_task(db, workspace, project)
    run(
        db,
        "insert into project_members (workspace_id, project_id, user_id) values (%s, %s, %s)",
        [workspace, project, leaver],
    )
    delete(db, "tasks", one(db, "select id from tasks where project_id = %s", [project]))
    run(db, "delete from auth.users where id = %s", [leaver])
    assert one(db, "select count(*) from project_members where workspace_id = %s", [workspace]) == 0
    run(db, "delete from workspaces where id = %s", [workspace])
    for table in ("projects", "tasks", "tenancy.deletions", "tenancy.search_documents", "tenancy.search_spellings"):
        assert one(db, f"select count(*) from {table} where workspace_id = %s", [workspace]) == 0


def test_purge_removes_what_is_past_its_time_in_batches_children_first(db: Connection) -> None:
    workspace = make_workspace(db, make_user(db))
    project, late = make_project(db, workspace), make_project(db, workspace)
    for _ in range(5):
        make_task(db, workspace, project)
    customer = one(db, "insert into customers (workspace_id, name) values (%s, 'Ada') returning id", [workspace])
    ticket = one(
        db,
        "insert into tickets (workspace_id, customer_id, device) values (%s, %s, 'Phone') returning id",
        [workspace, customer],
    )
    run(
        db,
        "select ledger.post_for_ticket(t, 'charge', 100, 'receivable', 'sales', 'k', '') from tickets t where id = %s",
        [ticket],
    )
    for table, row in (("projects", project), ("tickets", ticket), ("customers", customer)):
        delete(db, table, row)
    run(db, "insert into ops.clock (set_to) values (now() + interval '29 days')")
    assert one(db, "select ops.purge()") == 0
    delete(db, "projects", late)
    run(db, "update ops.clock set set_to = now() + interval '31 days'")
    assert one(db, "select ops.purge(3)") == 3
    assert one(db, "select count(*) from projects where id = %s", [project]) == 1, "its tasks go first"
    assert one(db, "select ops.purge(100)") == 6
    assert one(db, "select ops.purge()") == 0
    assert {r["id"] for r in run(db, "select id from projects where workspace_id = %s", [workspace])} == {late}
    assert one(db, "select count(*) from tenancy.deletions where workspace_id = %s", [workspace]) == 1
    assert one(db, "select count(*) from ledger.entries where workspace_id = %s", [workspace]) == 2, "never the ledger"
    purged = run(db, "select before from audit.inbox where action = 'projects.purge' and row_id = %s", [str(project)])
    assert purged == [{"before": None}], "what is purged is not kept in the log"


# Races -----------------------------------------------------------------------------------------

LEVELS = [psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.REPEATABLE_READ]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("child_first", [True, False])
def test_no_child_lives_behind_a_parent_that_is_deleted_meanwhile(
    connect: Connect, level: psycopg.IsolationLevel, child_first: bool
) -> None:
    setup, watch = connect(), connect(autocommit=True)
    workspace = make_workspace(setup, make_user(setup))
    customer = one(setup, "insert into customers (workspace_id, name) values (%s, 'Ada') returning id", [workspace])
    setup.commit()
    first, second = connect(), connect()
    second.isolation_level = level
    run(second, "select 1 from workspaces")  # its snapshot is taken before the other commits
    insert: Callable[[Connection], Any] = lambda db: run(
        db, "insert into tickets (workspace_id, customer_id, device) values (%s, %s, 'Phone')", [workspace, customer]
    )
    remove: Callable[[Connection], Any] = lambda db: delete(db, "customers", customer)
    one_, other = (insert, remove) if child_first else (remove, insert)
    one_(first)
    call = Call(second, other)
    wait_until_blocked(watch, second)
    first.commit()
    assert call.result() in ("23503", "40001", "25001")
    second.rollback()
    behind = one(
        watch,
        "select count(*) from tickets t join customers c on c.workspace_id = t.workspace_id and c.id = t.customer_id "
        "where t.deleted_at is null and c.deleted_at is not null",
    )
    assert behind == 0


def test_a_child_is_not_restored_to_a_parent_that_is_being_deleted(connect: Connect) -> None:
    setup, watch = connect(), connect(autocommit=True)
    workspace = make_workspace(setup, make_user(setup))
    project = make_project(setup, workspace)
    task = make_task(setup, workspace, project)
    delete(setup, "tasks", task)
    setup.commit()
    for first_deed, second_deed in (("restore", "delete"), ("delete", "restore")):
        first, second = connect(), connect()
        deeds: dict[str, Callable[[Connection], Any]] = {
            "restore": lambda db: restore(db, workspace, "tasks", task),
            "delete": lambda db: delete(db, "projects", project),
        }
        deeds[first_deed](first)
        call = Call(second, deeds[second_deed])
        wait_until_blocked(watch, second)
        first.commit()
        assert call.result() == ("ok" if first_deed == "restore" else "restore_conflict")
        behind = "select count(*) from tasks t join projects p on p.id = t.project_id where t.deleted_at is null and p.deleted_at is not null"
        assert one(watch, behind) == 0
        if first_deed == "restore":
            restore(watch, workspace, "projects", project)
            delete(watch, "tasks", task)


def test_of_two_who_delete_the_same_row_one_does(connect: Connect) -> None:
    setup, watch = connect(), connect(autocommit=True)
    workspace = make_workspace(setup, make_user(setup))
    project = make_project(setup, workspace)
    setup.commit()
    first, second = connect(), connect()
    delete(first, "projects", project)
    call = Call(second, lambda db: delete(db, "projects", project))
    wait_until_blocked(watch, second)
    first.commit()
    assert call.result() == "ok"
    assert one(watch, "select count(*) from tenancy.deletions where workspace_id = %s", [workspace]) == 1
    assert restore(watch, workspace, "projects", project) == 1


# A model ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "delete", "restore"]), st.sampled_from("pt"), st.integers(0, 7)), max_size=30
    )
)
def test_the_trash_is_what_a_model_says_and_counters_follow(
    _session_database: Database, steps: list[tuple[str, str, int]]
) -> None:
    with _session_database.connect() as db:
        workspace = make_workspace(db, make_user(db), plan="pro")
        projects: list[Any] = []
        tasks: list[tuple[Any, Any]] = []
        stamps: dict[Any, int] = {}  # row: the number of the deletion that took it
        roots: dict[Any, int] = {}
        for number, (deed, kind, index) in enumerate(steps):
            if deed == "add" and kind == "p":
                projects.append(make_project(db, workspace))
            elif deed == "add" and projects:
                parent = projects[index % len(projects)]
                if parent in stamps:
                    with refused("23503"), db.transaction():
                        make_task(db, workspace, parent)
                else:
                    tasks.append((make_task(db, workspace, parent), parent))
            elif rows := projects if kind == "p" else [task for task, _ in tasks]:
                row, table = rows[index % len(rows)], "projects" if kind == "p" else "tasks"
                if deed == "delete":
                    delete(db, table, row)
                    if row not in stamps:
                        roots[row] = stamps[row] = number
                        stamps |= {task: number for task, parent in tasks if parent == row and task not in stamps}
                else:
                    parent_is_gone = any(task == row and parent in stamps for task, parent in tasks)
                    code = (
                        "not_in_trash" if row not in stamps
                        else "deleted_with_parent" if row not in roots
                        else "restore_conflict" if parent_is_gone else None
                    )  # fmt: skip
                    if code:
                        with refused(code), db.transaction():
                            restore(db, workspace, table, row)
                    else:
                        restore(db, workspace, table, row)
                        stamp = roots.pop(row)
                        stamps = {r: s for r, s in stamps.items() if s != stamp}
            assert live(db, "projects", workspace) == {p for p in projects if p not in stamps}
            assert live(db, "tasks", workspace) == {t for t, _ in tasks if t not in stamps}
        counted = one(
            db, "select used from billing.usage_counters where workspace_id = %s and resource = 'projects'", [workspace]
        )
        assert counted == len(live(db, "projects", workspace))
        db.rollback()
