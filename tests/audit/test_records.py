"""Audit records: one per change, in its own transaction, of whoever it was, without what is secret."""

from __future__ import annotations

import json
import threading
import uuid
from typing import Any

import psycopg
import pytest
from rowhouse.local.cluster import SUPERUSER

from ..conftest import Database
from ..identities import (
    acting,
    add_member,
    as_service,
    as_user,
    claims_of,
    make_project,
    make_task,
    make_user,
    make_workspace,
    one,
    refused,
    run,
)
from ..rest import Rest

Connection = psycopg.Connection[Any]


def records(db: Connection, action: str, row: Any) -> list[dict[str, Any]]:
    return run(db, "select * from audit.inbox where action = %s and row_id = %s order by number", [action, str(row)])


def test_each_change_leaves_one_record_with_what_changed(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    with as_user(db, owner):
        project = one(db, "insert into projects (workspace_id, name) values (%s, 'Apollo') returning id", [workspace])
        run(db, "update projects set name = 'Gemini', description = 'x' where id = %s", [project])
        run(db, "update projects set name = name where id = %s", [project])
        run(db, "delete from projects where id = %s", [project])
        run(db, "select restore(%s, 'projects', %s)", [workspace, project])
    made = records(db, "projects.create", project)
    assert len(made) == 1
    assert made[0]["after"] == {"name": "Apollo", "description": "", "is_private": False, "lead_id": str(owner)}
    (changed,) = records(db, "projects.update", project)
    assert (changed["changed"], changed["before"], changed["after"]) == (
        ["name", "description"], {"name": "Apollo", "description": ""}, {"name": "Gemini", "description": "x"},
    )  # fmt: skip
    assert (changed["workspace_id"], changed["actor_kind"], changed["actor_id"]) == (workspace, "user", owner)
    assert changed["transaction_id"] == one(db, "select pg_current_xact_id()::text")
    assert [len(records(db, f"projects.{verb}", project)) for verb in ("delete", "restore")] == [1, 1]


def test_a_bulk_statement_leaves_a_record_for_each_row(db: Connection) -> None:
    workspace = make_workspace(db, make_user(db))
    run(db, "insert into projects (workspace_id, name) select %s, 'P' || n from generate_series(1, 50) n", [workspace])
    run(db, "update projects set name = name || '!' where workspace_id = %s and name < 'P3'", [workspace])
    counted = run(
        db,
        "select action, count(*) as n from audit.inbox where workspace_id = %s and resource = 'projects' group by 1",
        [workspace],
    )
    assert {row["action"]: row["n"] for row in counted} == {"projects.create": 50, "projects.update": 22}


WATCHED = {
    "a role": ("insert into roles (workspace_id, key, name) values (%(w)s, 'auditor', 'A')", "roles.create"),
    "a permission of a role": (
        "with made as (insert into roles (workspace_id, key, name) values (%(w)s, 'r2', 'A') returning id) select 1 from made; "
        "insert into role_permissions select id, 'tasks.read' from roles where key = 'r2'",
        "role_permissions.create",
    ),
    "a membership": ("select tenancy.change_role(%(w)s, %(m)s, authz.role_named(%(w)s, 'admin'))", "members.update"),
    "a removal": ("select tenancy.drop_member(%(w)s, %(m)s)", "members.delete"),
    "a plan": ("select billing.set_plan(%(w)s, 'pro')", "workspace_plans.update"),
    "a limit": (
        "insert into billing.limit_overrides (workspace_id, resource, max, reason) values (%(w)s, 'projects', 9, 'agreed')",
        "limit_overrides.create",
    ),
    "a setting": ("update workspaces set require_mfa = true where id = %(w)s", "workspaces.update"),
    "a suspension": ("select tenancy.suspend_workspace(%(w)s, 'abuse')", "suspended_workspaces.create"),
    "a ledger account": ("select ledger.open_account(%(w)s, 'cash', 'asset', 'EUR')", "ledger_accounts.create"),
    "a catalogue's plan": ("update billing.plans set name = 'Gratis' where id = 'free'", "plans.update"),
    "an invitation": (
        "insert into invitations (workspace_id, email, role_id, expires_at) "
        "select %(w)s, 'x@example.com', id, now() from roles where key = 'member'",
        "invitations.create",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WATCHED)
def test_what_decides_access_and_money_is_recorded_too(db: Connection, what: str) -> None:
    workspace = make_workspace(db, make_user(db))
    member = add_member(db, workspace, "member")
    before = one(db, "select count(*) from audit.inbox")
    statement, action = WATCHED[what]
    for part in statement.split("; "):
        run(db, part, {"w": workspace, "m": member} if "%(" in part else None)
    written = run(db, "select action from audit.inbox order by number offset %s", [before])
    assert [row["action"] for row in written].count(action) == 1, written


def test_a_change_that_is_rolled_back_leaves_no_record(db: Connection) -> None:
    workspace = make_workspace(db, make_user(db))
    before = one(db, "select count(*) from audit.inbox")
    with pytest.raises(ZeroDivisionError), db.transaction():
        make_project(db, workspace)
        raise ZeroDivisionError
    assert one(db, "select count(*) from audit.inbox") == before


def test_every_adopted_table_is_watched_column_by_column(db: Connection) -> None:
    assert run(db, "select * from tenancy.tenant_tables t, audit.watch_findings(t.relation)") == []


def test_a_new_column_is_missed_and_the_doctor_says_so_until_the_table_is_refreshed(db: Connection) -> None:
    workspace = make_workspace(db, make_user(db))
    project = make_project(db, workspace)
    run(db, "alter table projects add column budget bigint")
    assert any("a column is not recorded" in row["finding"] for row in run(db, "select * from ops.access_findings()"))
    run(db, "select tenancy.refresh_table('public.projects')")
    assert run(db, "select * from ops.access_findings()") == []
    run(db, "update projects set budget = 7 where id = %s", [project])
    assert records(db, "projects.update", project)[0]["after"] == {"budget": 7}


# Who ------------------------------------------------------------------------------------------


def test_the_actor_is_the_person_the_service_the_job_the_command_or_the_role(db: Connection) -> None:
    owner, support = make_user(db), make_user(db)
    workspace = make_workspace(db, owner)
    project = make_project(db, workspace, lead=owner)

    def last() -> tuple[Any, ...]:
        row = run(db, "select * from audit.inbox where row_id = %s order by number desc limit 1", [str(project)])[0]
        return row["actor_kind"], row["actor_id"], row["actor_name"], row["on_behalf_of"]

    with as_user(db, owner):
        run(db, "update projects set name = 'a' where id = %s", [project])
    assert last() == ("user", owner, None, None)
    with acting(db, "authenticated", claims_of(owner, act={"sub": str(support)})):
        run(db, "update projects set name = 'b' where id = %s", [project])
    assert last() == ("user", support, None, owner)
    with as_service(db):
        run(db, "update projects set name = 'c' where id = %s", [project])
    assert last() == ("service", None, None, None)
    for kind in ("job", "cron", "cli"):
        with db.transaction():
            run(db, "select audit.act_as(%s, 'send_mail/7', %s)", [kind, owner])
            run(db, "update projects set name = %s where id = %s", [kind, project])
        assert last() == (kind, None, "send_mail/7", owner)
        run(db, "select set_config('rowhouse.actor', '', true), set_config('rowhouse.on_behalf_of', '', true)")
    run(db, "update projects set name = 'd' where id = %s", [project])
    assert last() == ("database", None, "postgres", None)
    with refused("22023"), db.transaction():
        run(db, "select audit.act_as('ghost', 'x')")


def test_work_of_pg_cron_names_cron(database: Database) -> None:
    with database.connect(autocommit=True) as setup:
        workspace = make_workspace(setup, make_user(setup))
        project = make_project(setup, workspace)
    server = database.url(SUPERUSER).rpartition("/")[0] + "/postgres"
    with psycopg.connect(server, autocommit=True) as connection:
        job = one(
            connection,
            "select cron.schedule_in_database(%s, '* * * * *', %s, %s)",
            [
                f"audit-{uuid.uuid4()}",
                f"update public.projects set name = 'by cron' where id = '{project}'",
                database.name,
            ],
        )
        try:
            with database.connect(autocommit=True) as watching:
                seen: list[dict[str, Any]] = []
                pause = threading.Event()
                for _ in range(150):
                    seen = run(
                        watching,
                        "select * from audit.inbox where row_id = %s and action = 'projects.update'",
                        [str(project)],
                    )
                    if seen:
                        break
                    pause.wait(0.5)
        finally:
            run(connection, "select cron.unschedule(%s::bigint)", [job])
    assert [row["actor_kind"] for row in seen] == ["cron"]


ADDRESSES = {
    "one hop": ("203.0.113.7", 1, "203.0.113.7"),
    "what the client claims is before it": ("10.0.0.1, 203.0.113.7", 1, "203.0.113.7"),
    "two proxies of ours": ("10.0.0.1, 203.0.113.7, 172.16.0.1", 2, "203.0.113.7"),
    "IPv6": ("2001:db8::1", 1, "2001:db8::1"),
    "fewer hops than proxies": ("203.0.113.7", 2, None),
    "no proxy is trusted": ("203.0.113.7", 0, None),
    "no address": ("203.0.113.7, <script>", 1, None),
    "nearly one": ("999.1.1.1", 1, None),
    "nothing": ("", 1, None),
}


@pytest.mark.parametrize("case", ADDRESSES)
def test_the_address_is_the_hop_that_our_proxy_wrote(db: Connection, case: str) -> None:
    header, proxies, expected = ADDRESSES[case]
    found = one(db, "select audit.client_ip(%s, %s)", [header, proxies])
    assert (None if found is None else str(found)) == expected


@pytest.fixture(scope="module")
def world(module_database: Database) -> dict[str, Any]:
    with module_database.connect(autocommit=True) as connection:
        owner = make_user(connection)
        workspace = make_workspace(connection, owner)
        stranger = make_user(connection)
        theirs = make_workspace(connection, stranger)
        make_project(connection, theirs, name="Secret plans")
        return {"owner": owner, "workspace": workspace, "viewer": add_member(connection, workspace, "viewer")}


def test_a_request_is_recorded_with_address_user_agent_and_request_id(
    rest: Rest, module_database: Database, world: dict[str, Any]
) -> None:
    forged = {"X-Forwarded-For": "1.2.3.4, 198.51.100.9", "User-Agent": "probe/1", "X-Request-Id": "req-7"}
    with rest.as_user(world["owner"]) as http:
        answer = http.post(
            "/projects", json={"workspace_id": str(world["workspace"]), "name": "Apollo"},
            headers={**forged, "Prefer": "return=representation"},
        )  # fmt: skip
        project = answer.json()[0]["id"]
        (seen,) = http.get("/audit_log", params={"row_id": f"eq.{project}"}).json()
    assert (seen["ip"], seen["user_agent"], seen["request_id"]) == ("198.51.100.9", "probe/1", "req-7")
    assert (seen["action"], seen["actor_id"], seen["is_sealed"]) == ("projects.create", str(world["owner"]), False)


def test_the_log_shows_a_workspace_its_own_records_to_those_who_may_read_it(
    rest: Rest, module_database: Database, world: dict[str, Any]
) -> None:
    with module_database.connect(autocommit=True) as connection:
        run(connection, "select audit.seal()")
        make_project(connection, world["workspace"])
    with rest.as_user(world["owner"]) as http:
        rows = http.get("/audit_log", params={"select": "workspace_id,is_sealed"}).json()
        assert {row["workspace_id"] for row in rows} == {str(world["workspace"])}
        assert {row["is_sealed"] for row in rows} == {True, False}
        assert http.get("/audit_log", params={"select": "number"}).status_code == 400, "it counts everybody's changes"
    with rest.as_user(world["viewer"]) as http:
        assert http.get("/audit_log").json() == []


def test_nobody_of_the_api_writes_or_changes_records(db: Connection) -> None:
    owner = make_user(db)
    make_workspace(db, owner)
    for statement in (
        "insert into audit.inbox (action, resource, actor_kind) values ('x.y', 'x', 'user')",
        "update audit.inbox set action = 'x.y'",
        "delete from audit.inbox",
        "truncate audit.inbox",
        "update audit_log set action = 'x'",
        "select audit.write('x.y', null, 'x', 'x')",
        "select audit.seal()",
        "select ops.allow('seal')",
        "select audit.act_as('cli', 'root')",
    ):
        for identity in (as_user(db, owner), as_service(db)):
            with refused("42501"), db.transaction(), identity:
                run(db, statement)
    for table in ("audit.inbox", "audit.entries", "audit.seals"):
        with refused("42501"), db.transaction():
            run(db, f"truncate {table}")
    with refused("42501"), db.transaction():
        run(db, "update audit.inbox set action = 'x.y'")


def test_secrets_and_declared_columns_are_recorded_without_their_values(db: Connection) -> None:
    run(
        db,
        """
        create table public.integrations (
            workspace_id uuid not null, id uuid not null default gen_random_uuid(), name text, api_key text, webhook text,
            deleted_at timestamptz, created_at timestamptz not null default now(), updated_at timestamptz not null default now(),
            created_by uuid references public.profiles (id) on delete set null,
            constraint integrations_pkey primary key (workspace_id, id),
            constraint integrations_w foreign key (workspace_id) references public.workspaces (id) on delete cascade
        );
        """,
    )
    run(db, "alter table public.integrations enable row level security")
    run(db, "create index on public.integrations (created_by) where created_by is not null")
    run(
        db,
        "select tenancy.adopt_table('public.integrations', 'tasks', redacted => '{webhook}', "
        """erasure => '{"name": "keep", "api_key": "delete", "webhook": "keep"}')""",
    )
    workspace = make_workspace(db, make_user(db))
    row = one(
        db,
        "insert into integrations (workspace_id, name, api_key, webhook) values (%s, 'A', 'canary-1', 'canary-2') returning id",
        [workspace],
    )
    run(db, "update integrations set name = 'B', api_key = 'canary-3', webhook = null where id = %s", [row])
    (changed,) = records(db, "integrations.update", row)
    assert changed["changed"] == ["name", "api_key", "webhook"]
    assert changed["after"] == {"name": "B", "api_key": "[redacted]", "webhook": "[redacted]"}
    assert "canary" not in json.dumps(run(db, "select * from audit.inbox where resource = 'integrations'"), default=str)


def test_a_purged_workspace_leaves_one_record_and_not_one_for_each_row(db: Connection) -> None:
    workspace = make_workspace(db, make_user(db))
    project = make_project(db, workspace)
    for _ in range(5):
        make_task(db, workspace, project)
    before = one(db, "select count(*) from audit.inbox")
    run(db, "delete from workspaces where id = %s", [workspace])
    written = run(db, "select action from audit.inbox order by number offset %s", [before])
    assert [row["action"] for row in written] == ["workspaces.delete"]
