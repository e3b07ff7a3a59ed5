"""Every table by verb by identity, against the oracle of world.py. The tables come from the catalogue."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from ..conftest import Database
from ..identities import acting, run
from .world import CATALOGUES, Identity, World, insertion, make_world, needed, tenant_tables

Connection = psycopg.Connection[Any]
BEHIND_VIEWS = {
    "audit.inbox", "audit.entries", "ledger.accounts", "ledger.balances", "ledger.transactions", "ledger.entries",
}  # fmt: skip
# A person's own, across workspaces: tests/notify asks who sees them.
OWN = ("notifications", "notification_preferences", "notification_hours")
REFUSED = (psycopg.errors.InsufficientPrivilege,)


@pytest.fixture(scope="module")
def connection(module_database: Database) -> Iterator[Connection]:
    with module_database.connect() as connection:
        yield connection
        connection.rollback()


@pytest.fixture(scope="module")
def world(connection: Connection) -> World:
    return make_world(connection)


class OutcomeError(Exception):
    """Carries what a statement did out of the savepoint that undoes it."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows


def attempt(
    connection: Connection, identity: Identity, query: str, parameters: Any = None
) -> list[dict[str, Any]] | None:
    """What a statement returns to somebody, None if it is refused; nothing of it stays."""
    try:
        with connection.transaction(), acting(connection, identity.role, identity.claims):
            raise OutcomeError(run(connection, query, parameters))
    except OutcomeError as outcome:
        return outcome.rows
    except REFUSED:
        return None


def deleted(connection: Connection, identity: Identity, table: str, workspace: uuid.UUID) -> bool:
    """Whether somebody can delete what a workspace has in a table. DELETE answers with no rows: they go to the trash."""
    try:
        with connection.transaction():
            with acting(connection, identity.role, identity.claims):
                run(connection, f"delete from public.{table} where {key_of(table)} = %s", [workspace])
            raise OutcomeError(
                run(
                    connection,
                    f"select 1 from public.{table} where workspace_id = %s and deleted_at is not null",
                    [workspace],
                )
            )
    except OutcomeError as outcome:
        return bool(outcome.rows)
    except psycopg.errors.ForeignKeyViolation:
        return True  # It may, if it were not for what refers to the row.
    except REFUSED:
        return False


def relations(connection: Connection) -> list[str]:
    return [
        row["relname"]
        for row in run(
            connection,
            "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v') order by 1",
        )
    ]


def key_of(table: str) -> str:
    return {"workspaces": "id"}.get(table, "workspace_id")


def test_every_relation_is_covered(connection: Connection) -> None:
    covered = {
        *tenant_tables(connection),
        *CATALOGUES,
        "workspaces",
        "workspace_members",
        "workspace_usage",
        "metered_usage",
        "billing_invoices",
        "audit_log",
        "ticket_balances",
        "customer_balances",
        "account_statement",
        "trial_balance",
        "cash_report",
        "trash",
        "profiles",
        *OWN,
    }
    assert set(relations(connection)) == covered


def test_select_returns_exactly_the_rows_of_workspaces_where_the_role_allows_it(
    connection: Connection, world: World
) -> None:
    # What is in the trash depends on who deleted it: tests/trash asks.
    for table in set(relations(connection)) - {*CATALOGUES, *OWN, "profiles", "trash"}:
        permission = needed(connection, table)["select"]
        key = key_of(table)
        for identity in world.identities:
            expected = {workspace for workspace in world.workspaces if identity.may(workspace, permission)}
            rows = attempt(connection, identity, f"select {key} from public.{table}")
            seen = {row[key] for row in rows or []}
            assert seen == expected, f"{identity.name} selects from {table}"
            for workspace in world.workspaces:
                counted = attempt(
                    connection, identity, f"select count(*) as n from public.{table} where {key} = %s", [workspace]
                )
                assert bool(counted and counted[0]["n"]) == (workspace in expected), f"{identity.name} counts {table}"


def test_insert_is_allowed_where_the_role_allows_it_and_nowhere_else(connection: Connection, world: World) -> None:
    for table in tenant_tables(connection):
        permission = needed(connection, table).get("insert")
        for identity in world.identities:
            for workspace in world.workspaces:
                if table == "project_members":
                    query = "insert into project_members (workspace_id, project_id, user_id) select %s, %s, %s"
                    parameters = [workspace, world.rows[workspace]["projects"], _somebody(connection, workspace)]
                else:
                    query, parameters = insertion(connection, table, workspace, world.rows[workspace])
                for suffix in ("", " on conflict do nothing"):
                    done = attempt(connection, identity, query + suffix, parameters) is not None
                    assert done == identity.may(workspace, permission), f"{identity.name} inserts into {table}{suffix}"


def _somebody(connection: Connection, workspace: uuid.UUID) -> uuid.UUID:
    rows = run(
        connection,
        "select user_id from workspace_members m where workspace_id = %s and not exists "
        "(select from project_members p where p.workspace_id = m.workspace_id and p.user_id = m.user_id)",
        [workspace],
    )
    somebody: uuid.UUID = rows[0]["user_id"] if rows else uuid.uuid4()
    return somebody


def _updatable(connection: Connection, table: str) -> str | None:
    """A column that authenticated may update."""
    rows = run(
        connection,
        "select column_name from information_schema.column_privileges where table_schema = 'public' and table_name = %s "
        "and grantee = 'authenticated' and privilege_type = 'UPDATE' and column_name not like '%%_id' order by 1",
        [table],
    )
    return rows[0]["column_name"] if rows else None


def test_update_and_delete_touch_exactly_what_the_role_allows(connection: Connection, world: World) -> None:
    for table in {*tenant_tables(connection), "workspaces", "workspace_members"}:
        rules, key, column = needed(connection, table), key_of(table), _updatable(connection, table)
        assert (column is not None) == ("update" in rules), f"the oracle and the grants on {table} differ"
        update = f"update public.{table} set {column} = {column} where {key} = %s returning {key}"
        for identity in world.identities:
            for workspace in world.workspaces:
                may_delete = identity.may(workspace, rules.get("delete"))
                assert deleted(connection, identity, table, workspace) == may_delete, f"{identity.name}: delete {table}"
                if column:
                    touched = bool(attempt(connection, identity, update, [workspace]))
                    assert touched == identity.may(workspace, rules["update"]), f"{identity.name}: update {table}"


def test_statements_without_a_filter_touch_no_other_tenant(connection: Connection, world: World) -> None:
    for table in ("projects", "tasks"):
        for identity in world.identities:
            allowed = {w for w in world.workspaces if identity.may(w, f"{table}.update")}
            rows = attempt(
                connection,
                identity,
                f"update public.{table} set {'name' if table == 'projects' else 'title'} = 'x' returning workspace_id",
            )
            assert {row["workspace_id"] for row in rows or []} == allowed, f"{identity.name} updates all {table}"


@pytest.mark.parametrize(
    "claims", ["", "not json", "[]", '"text"', "null", "{}", '{"sub": 5}', '{"sub": "x"}', '{"sub": {"a": 1}}']
)
def test_malformed_claims_show_nothing(connection: Connection, world: World, claims: str) -> None:
    for table in set(relations(connection)):
        try:
            with acting(connection, "authenticated", claims):
                rows = run(connection, f"select * from public.{table}")
        except psycopg.errors.DataError as error:
            assert (error.sqlstate or "")[:2] == "22", "PostgREST answers 400 to class 22"
        else:
            if table in ("roles", "role_permissions"):
                rows = [row for row in rows if row.get("workspace_id")]
                continue
            assert rows == [], f"{claims} sees {table}"


def test_profiles_and_custom_roles_stay_in_the_house(connection: Connection, world: World) -> None:
    with acting(connection, "postgres", None):
        run(connection, "insert into roles (workspace_id, key, name) values (%s, 'secret_role', 'S')", [world.b])
    for identity in world.identities:
        rows = attempt(connection, identity, "select key from roles where key = 'secret_role'")
        assert bool(rows) == identity.may(world.b, "roles.read"), identity.name
        seen = {row["id"] for row in attempt(connection, identity, "select id from profiles") or []}
        fellows = {
            row["user_id"]
            for row in run(connection, "select workspace_id, user_id from workspace_members")
            if identity.may(row["workspace_id"], "members.read")
        }
        himself = {identity.user} if identity.user and not (identity.claims or {}).get("is_anonymous") else set()
        assert seen == fellows | himself, identity.name


def test_no_role_of_the_api_truncates_references_or_triggers(connection: Connection) -> None:
    for role in ("anon", "authenticated", "service_role"):
        for table in relations(connection):
            held = run(
                connection,
                "select p from unnest('{TRUNCATE,REFERENCES,TRIGGER}'::text[]) p where has_table_privilege(%s, %s, p)",
                [role, f"public.{table}"],
            )
            assert held == [], f"{role} on {table}"


def test_private_schemas_show_nothing_to_the_api(connection: Connection) -> None:
    readable = run(
        connection,
        """
        select c.oid::regclass::text as t, r.rolname from pg_class c join pg_namespace n on n.oid = c.relnamespace,
            pg_roles r
        where n.nspname = any (ops.house_schemas()) and n.nspname <> 'public' and c.relkind in ('r', 'v', 'p', 'm')
            and r.rolname in ('anon', 'authenticated', 'service_role')
            and has_any_column_privilege(r.oid, c.oid, 'select, insert, update, references')
        """,
    )
    # What views of public read as their caller, under policies of one line, column by column.
    assert {(row["t"], row["rolname"]) for row in readable} == {(table, "authenticated") for table in BEHIND_VIEWS}
