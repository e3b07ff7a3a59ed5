"""How policies are executed: the door once per statement, tenant tables by index, no function per row."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from ..conftest import Database
from ..identities import as_user, make_user, make_workspace, run

Connection = psycopg.Connection[Any]
QUERIES = {
    "a page": "select * from public.{table} where workspace_id = %(w)s order by created_at desc limit 50",
    "a page of all": "select * from public.{table} order by created_at desc limit 50",
    "a count": "select count(*) from public.{table}",
    "one row": "select * from public.{table} where workspace_id = %(w)s and id = %(w)s",
    "an update": "update public.{table} set {column} = 'x' where workspace_id = %(w)s and id = %(w)s",
    "a delete": "delete from public.{table} where workspace_id = %(w)s and id = %(w)s",
}


@pytest.fixture(scope="module")
def crowded(module_database: Database) -> Iterator[tuple[Connection, uuid.UUID, uuid.UUID]]:
    """100 workspaces of 200 projects with a task each; somebody is in two of them."""
    with module_database.connect() as connection:
        owner, user = make_user(connection), make_user(connection)
        places = [make_workspace(connection, owner) for _ in range(100)]
        for place in places[:2]:
            run(connection, "select tenancy.add_member(%s, %s, authz.role_named(%s, 'member'))", [place, user, place])
        run(
            connection,
            "insert into projects (workspace_id, name) select w, 'P' from unnest(%s::uuid[]) w, generate_series(1, 200)",
            [places],
        )
        run(
            connection, "insert into tasks (workspace_id, project_id, title) select workspace_id, id, 'T' from projects"
        )
        run(connection, "analyze")
        yield connection, user, places[0]
        connection.rollback()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


@pytest.mark.parametrize("table", ["projects", "tasks"])
@pytest.mark.parametrize("query", QUERIES)
def test_the_door_is_asked_once_and_the_table_is_read_by_index(
    crowded: tuple[Connection, uuid.UUID, uuid.UUID], query: str, table: str
) -> None:
    connection, user, workspace = crowded
    text = QUERIES[query].format(table=table, column="name" if table == "projects" else "title")
    with as_user(connection, user):
        rows = run(connection, "explain (analyze, verbose, format json) " + text, {"w": workspace})
    plan = rows[0]["QUERY PLAN"][0]["Plan"]
    assert not [node for node in nodes(plan) if node["Node Type"] == "Seq Scan" and node["Relation Name"] == table]
    for node in nodes(plan):
        asks = "workspaces_with" in str(node.get("Output", "")) and node["Node Type"] in ("ProjectSet", "Function Scan")
        if asks:
            assert node["Actual Loops"] <= 1, node
        filters = str(node.get("Filter", "")) + str(node.get("Index Cond", ""))
        assert "workspaces_with(" not in filters, "the door is asked for every row"
        assert "authz." not in filters, "a function is called for every row"
