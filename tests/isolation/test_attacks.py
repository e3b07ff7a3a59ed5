"""What an attacker tries inside the rules: foreign parents, chosen keys, tenant hops, shadows, private projects."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from ..identities import (
    add_member,
    as_anon,
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
from .world import tenant_tables

Connection = psycopg.Connection[Any]


@pytest.fixture
def two(db: Connection) -> dict[str, Any]:
    """Mallory owns `hers` and is a member of `other`; the victim's workspace is `theirs`."""
    victim, mallory = make_user(db), make_user(db)
    theirs, hers, other = make_workspace(db, victim), make_workspace(db, mallory), make_workspace(db, victim)
    add_member(db, other, "admin", mallory)
    return {"victim": victim, "mallory": mallory, "theirs": theirs, "hers": hers, "other": other}


def test_a_child_cannot_be_planted_under_a_foreign_parent(db: Connection, two: dict[str, Any]) -> None:
    foreign = make_project(db, two["theirs"])
    member = add_member(db, two["hers"], "member")
    nothing = "99999999-9999-4999-8999-999999999999"
    # In the same words, whether the project exists or not; row by row for who may see private ones.
    for user, code in ((two["mallory"], "23503"), (member, "42501")):
        for project in (foreign, nothing):
            with as_user(db, user), refused(code), db.transaction():
                run(
                    db,
                    "insert into tasks (workspace_id, project_id, title) values (%s, %s, 'T')",
                    [two["hers"], project],
                )
    with refused("23503"), db.transaction():
        run(db, "insert into tasks (workspace_id, project_id, title) values (%s, %s, 'T')", [two["hers"], foreign])
    mine = make_project(db, two["hers"])
    task = make_task(db, two["hers"], mine)
    with as_user(db, two["mallory"]):
        for project in (foreign, nothing):
            with refused("23503"), db.transaction():
                run(db, "update tasks set project_id = %s where id = %s", [project, task])
    run(db, "delete from workspaces where id = %s", [two["theirs"]])
    assert one(db, "select count(*) from tasks where id = %s", [task]) == 1


def test_people_of_another_workspace_cannot_be_assigned_lead_or_join(db: Connection, two: dict[str, Any]) -> None:
    project = make_project(db, two["hers"])
    task = make_task(db, two["hers"], project)
    with as_user(db, two["mallory"]):
        for statement in (
            "update tasks set assignee_id = %(v)s where id = %(t)s",
            "update projects set lead_id = %(v)s where id = %(p)s",
            "insert into project_members (workspace_id, project_id, user_id) values (%(w)s, %(p)s, %(v)s)",
        ):
            with refused("23503"), db.transaction():
                run(db, statement, {"v": two["victim"], "t": task, "p": project, "w": two["hers"]})


def test_a_chosen_id_does_not_tell_whether_another_tenant_has_it(db: Connection, two: dict[str, Any]) -> None:
    insert = "insert into projects (workspace_id, id, name) values (%s, %s, 'N') "
    for suffix in ("", "on conflict do nothing", "on conflict (workspace_id, id) do update set name = 'X'"):
        taken = make_project(db, two["theirs"])
        with as_user(db, two["mallory"]):
            assert run(db, insert + suffix + " returning name", [two["hers"], taken]) == [{"name": "N"}]
        assert one(db, "select name from projects where id = %s and workspace_id = %s", [taken, two["theirs"]]) == "P"


def test_an_upsert_on_a_hidden_row_is_refused_like_an_insert(db: Connection, two: dict[str, Any]) -> None:
    taken = make_project(db, two["theirs"])
    insert = "insert into projects (workspace_id, id, name) values (%s, %s, 'N') "
    with as_user(db, two["mallory"]):
        for suffix in ("", "on conflict do nothing", "on conflict (workspace_id, id) do update set name = 'X'"):
            for project in (taken, "99999999-9999-4999-8999-999999999999"):
                with refused("42501"), db.transaction():
                    run(db, insert + suffix, [two["theirs"], project])


def test_a_row_never_changes_tenant_on_any_table(db: Connection, two: dict[str, Any]) -> None:
    project = make_project(db, two["hers"])
    make_task(db, two["hers"], project)
    for table in [*tenant_tables(db), "workspace_members"]:
        with as_user(db, two["mallory"]), refused("42501"), db.transaction():
            run(db, f"update {table} set workspace_id = %s where workspace_id = %s", [two["other"], two["hers"]])
    for table in ("projects", "tasks", "workspace_members"):
        with refused("42501"), db.transaction():
            run(db, f"update {table} set workspace_id = %s where workspace_id = %s", [two["other"], two["hers"]])
    with as_service(db), refused("42501"), db.transaction():
        run(db, "update projects set workspace_id = %s where id = %s", [two["other"], project])


def test_columns_that_are_not_granted_cannot_be_written(db: Connection, two: dict[str, Any]) -> None:
    project = make_project(db, two["hers"])
    with as_user(db, two["mallory"]):
        for column, value in (("created_by", two["victim"]), ("created_at", "2020-01-01"), ("id", two["victim"])):
            with refused("42501"), db.transaction():
                run(db, f"update projects set {column} = %s where id = %s", [value, project])
        with refused("42501"), db.transaction():
            run(
                db,
                "insert into projects (workspace_id, name, created_by) values (%s, 'N', %s)",
                [two["hers"], two["victim"]],
            )
        with refused("42501"), db.transaction():
            run(db, "update workspaces set membership_version = 0 where id = %s", [two["hers"]])


def test_a_private_project_is_seen_by_its_lead_its_members_and_admins_only(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    lead, joined, outsider, viewer = (
        add_member(db, workspace, role) for role in ("member", "member", "member", "viewer")
    )
    with as_user(db, lead):
        project = one(
            db,
            "insert into projects (workspace_id, name, is_private) values (%s, 'Secret', true) returning id",
            [workspace],
        )
        run(db, "insert into tasks (workspace_id, project_id, title) values (%s, %s, 'Hush')", [workspace, project])
        run(
            db,
            "insert into project_members (workspace_id, project_id, user_id) values (%s, %s, %s)",
            [workspace, project, joined],
        )
    for user, sees in ((owner, 1), (lead, 1), (joined, 1), (outsider, 0), (viewer, 0)):
        with as_user(db, user):
            for table in ("projects", "tasks", "project_members"):
                assert one(db, f"select count(*) from {table}") == sees, table
    with as_user(db, outsider) as session:
        for project_id in (project, "99999999-9999-4999-8999-999999999999"):
            with refused("42501"), session.transaction():
                run(
                    db,
                    "insert into tasks (workspace_id, project_id, title) values (%s, %s, 'X')",
                    [workspace, project_id],
                )
            with refused("42501"), session.transaction():
                run(
                    db,
                    "insert into project_members (workspace_id, project_id, user_id) values (%s, %s, %s)",
                    [workspace, project_id, outsider],
                )
        assert run(db, "update projects set name = 'X' returning id") == []
        assert run(db, "delete from tasks returning id") == []
        with refused("42501"), session.transaction():
            run(
                db,
                "insert into projects (workspace_id, name, is_private, lead_id) values (%s, 'X', true, %s)",
                [workspace, lead],
            )
    with as_user(db, lead):
        run(db, "update projects set is_private = false where id = %s", [project])
    with as_user(db, outsider):
        assert one(db, "select count(*) from tasks") == 1
    with as_user(db, lead):
        run(db, "delete from project_members where user_id = %s", [joined])
        run(db, "update projects set is_private = true where id = %s", [project])
    with as_user(db, joined):
        assert run(db, "select * from tasks") == []


def test_a_task_moved_into_a_private_project_becomes_private(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    outsider = add_member(db, workspace, "member")
    open_project, private = make_project(db, workspace), make_project(db, workspace, is_private=True)
    task = make_task(db, workspace, open_project)
    with as_user(db, outsider):
        assert len(run(db, "select * from tasks")) == 1
        with refused("42501"), db.transaction():
            run(db, "update tasks set project_id = %s where id = %s", [private, task])
    with as_user(db, owner):
        run(db, "update tasks set project_id = %s where id = %s", [private, task])
    with as_user(db, outsider):
        assert run(db, "select * from tasks") == []


def test_a_function_of_tomorrows_migration_is_refused_to_everybody(db: Connection) -> None:
    run(db, "create function public.tomorrow() returns int language sql as 'select 1'")
    run(db, "create function tenancy.tomorrow() returns int language sql security definer as 'select 1'")
    run(db, "create table public.tomorrow_table (id int)")
    for who in (as_anon(db), as_user(db, make_user(db)), as_service(db)):
        with who as session:
            for query in (
                "select public.tomorrow()",
                "select tenancy.tomorrow()",
                "select * from public.tomorrow_table",
            ):
                with refused("42501"), session.transaction():
                    run(db, query)


def test_a_temporary_table_or_function_shadows_nothing(db: Connection, two: dict[str, Any]) -> None:
    make_project(db, two["theirs"])
    with as_user(db, two["mallory"]):
        run(db, "create temporary table workspace_members (workspace_id uuid, user_id uuid, role_id uuid)")
        run(
            db,
            "insert into pg_temp.workspace_members values (%s, %s, '00000000-0000-4000-8000-000000000001')",
            [two["theirs"], two["mallory"]],
        )
        run(
            db,
            "create function pg_temp.user_id() returns uuid language sql as $$ select '00000000-0000-4000-8000-000000000001'::uuid $$",
        )
        run(db, "set local search_path = pg_temp, public")
        assert one(db, "select count(*) from public.projects") == 0
        with refused("workspace_not_found"), db.transaction():
            run(db, "select public.delete_workspace(%s)", [two["theirs"]])


def test_definer_functions_are_listed_and_path_pinned(db: Connection) -> None:
    definers = run(
        db,
        """
        select p.oid::regprocedure::text as name, p.proconfig,
            array(select a.grantee::regrole::text from aclexplode(p.proacl) a where a.grantee <> p.proowner order by 1) as callers
        from pg_proc p where p.prosecdef and p.pronamespace::regnamespace::text = any (ops.house_schemas()) order by 1
        """,
    )
    assert all("search_path=pg_catalog, pg_temp" in row["proconfig"] for row in definers)
    in_public = [row["name"] for row in definers if "." not in row["name"] or row["name"].startswith("public.")]
    assert in_public == [], "what clients call runs with their own rights"
    # Workers, Supabase Auth's hook, and the owner of the house for the one function that belongs to authenticated.
    ours = {"rowhouse_worker", "supabase_auth_admin", "postgres"}
    assert all(set(row["callers"]) <= {"authenticated", "service_role"} | ours for row in definers)
    assert {row["name"] for row in definers if "supabase_auth_admin" in row["callers"]} == {
        "notify.send_auth_email(jsonb)"
    }
    assert {row["name"] for row in definers if "postgres" in row["callers"]} == {
        "notify.may_see(uuid,regclass,uuid,uuid)"
    }
    for row in definers:
        if "rowhouse_worker" in row["callers"]:
            assert row["name"].split(".")[0] in ("jobs", "notify", "billing")
            # Calls to Stripe are carried by edge functions, too.
            shared = row["name"] in ("billing.take_call(jsonb,text)", "billing.settle_call(jsonb,jsonb)")
            assert row["callers"] == ["rowhouse_worker", *(["service_role"] if shared else [])]


def test_a_project_of_the_same_id_elsewhere_opens_no_private_project(db: Connection, two: dict[str, Any]) -> None:
    member = add_member(db, two["theirs"], "member")
    secret = make_project(db, two["theirs"], lead=two["victim"], is_private=True)
    make_task(db, two["theirs"], secret)
    own = make_workspace(db, member)
    with as_user(db, member):
        run(
            db, "insert into projects (workspace_id, id, name, is_private) values (%s, %s, 'mine', true)", [own, secret]
        )
        run(
            db,
            "insert into project_members (workspace_id, project_id, user_id) values (%s, %s, %s)",
            [own, secret, member],
        )
        assert run(db, "select name from projects") == [{"name": "mine"}]
        assert run(db, "select * from tasks") == []
        assert run(db, "update projects set name = 'pwned' where workspace_id = %s returning id", [two["theirs"]]) == []
        with refused("42501"), db.transaction():
            run(
                db,
                "insert into project_members (workspace_id, project_id, user_id) values (%s, %s, %s)",
                [two["theirs"], secret, member],
            )
