"""Reading under RLS: against the same query without RLS, against the tutorials' policy, and as workspaces become many.

Two tables: projects, whose policies hold a rule on the row besides (private projects), and a twin with the one-line
policy alone, as a table has that `rowhouse new table` writes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import psycopg
from rowhouse.local.cluster import SUPERUSER

from tests.conftest import Database
from tests.identities import run
from tests.server import Server

from .houses import as_person, house, person_in, workspace
from .timing import Result, milliseconds, side_by_side

PAGE = "select id, name, created_at from {table} {where} order by created_at desc limit 50"
COUNT = "select count(*) from {table} {where}"
PROJECTS, PLAIN, TUTORIAL_TABLE = "public.projects", "public.plain_projects", "public.tutorial_projects"
PLAIN_TABLE = """
create table public.plain_projects (like public.projects including all);
insert into public.plain_projects select * from public.projects;
alter table public.plain_projects enable row level security;
create policy plain on public.plain_projects for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('projects.read') limit authz.refuse_estimates())));
grant select on public.plain_projects to authenticated;
"""
# What most tutorials print: a subquery per row, auth.uid() not wrapped.
TUTORIAL = """
create table public.tutorial_members as select workspace_id, user_id from public.workspace_members;
create unique index on public.tutorial_members (workspace_id, user_id);
create table public.tutorial_projects (like public.projects including all);
insert into public.tutorial_projects select * from public.projects;
alter table public.tutorial_projects enable row level security;
create policy tutorial on public.tutorial_projects for select to authenticated using (
    exists (
        select 1 from public.tutorial_members m
        where m.workspace_id = tutorial_projects.workspace_id and m.user_id = auth.uid()
    )
);
grant select on public.tutorial_projects, public.tutorial_members to authenticated;
"""
Rows = list[list[str]]


def _query(database: Database, user: uuid.UUID | None, query: str, table: str, where: str) -> Callable[[], object]:
    connection: psycopg.Connection[Any] = database.connect(SUPERUSER, autocommit=True)
    if user:
        as_person(connection, user)
    text = query.format(table=table, where=where)
    return lambda: run(connection, text)


def _compare(database: Database, user: uuid.UUID, count: int, rounds: int) -> Rows:
    mine = ", ".join(f"'{workspace(number)}'" for number in range(1, count + 1))
    rule = f" and (not is_private or lead_id = '{user}' or id = any (array[]::uuid[]))"
    rows = []
    for what, query in (("page of 50", PAGE), ("count", COUNT)):
        for scope, named, by_hand in (
            ("one workspace", f"where workspace_id = '{workspace(1)}'", f"where workspace_id = '{workspace(1)}'"),
            ("all of one's own", "", f"where workspace_id = any (array[{mine}]::uuid[])"),
        ):
            results = side_by_side(
                {
                    "plain": _query(database, user, query, PLAIN, named),
                    "plain by hand": _query(database, None, query, PLAIN, by_hand),
                    "projects": _query(database, user, query, PROJECTS, named),
                    "projects by hand": _query(database, None, query, PROJECTS, by_hand + rule),
                    "tutorial": _query(database, user, query, TUTORIAL_TABLE, named),
                },
                rounds,
            )
            rows.append(_row(f"{what}, {scope}, a user in {count}", results))
    return rows


def _row(what: str, results: dict[str, Result]) -> list[str]:
    median = {name: result.median for name, result in results.items()}
    row = [what]
    for table in ("plain", "projects"):
        by_hand = median[f"{table} by hand"]
        row += [milliseconds(median[table]), milliseconds(by_hand), f"{median[table] / by_hand:.2f} ×"]
    return [*row, milliseconds(median["tutorial"]), f"{median['tutorial'] / median['plain']:.1f} ×"]


def reading(server: Server, scale: int) -> Rows:
    """1,000 workspaces with `scale` projects in all; a user in 10 and in 100 of them."""
    with house(server, 1_000, scale // 1_000) as database:
        ten, hundred = person_in(database, 10), person_in(database, 100)
        with database.connect(SUPERUSER, autocommit=True) as connection:
            for statement in (PLAIN_TABLE + TUTORIAL).strip().split(";\n"):
                run(connection, statement.rstrip(";\n"))
            run(connection, "vacuum analyze")
        return [*_compare(database, ten, 10, 25), *_compare(database, hundred, 100, 25)]


def growing(server: Server) -> Rows:
    """The same page at 100 and at 10,000 workspaces of 100 projects each; the user is in 10."""
    with house(server, 100, 100) as few, house(server, 10_000, 100) as many:
        contenders = {}
        for name, database in (("few", few), ("many", many)):
            user = person_in(database, 10)
            contenders[name] = _query(database, user, PAGE, PROJECTS, f"where workspace_id = '{workspace(1)}'")
            contenders[name + " all"] = _query(database, user, PAGE, PROJECTS, "")
        results = side_by_side(contenders, 300, warm_up=20)
    rows = []
    for what, suffix in (("page of 50, one workspace", ""), ("page of 50, all of one's own", " all")):
        few_time, many_time = results["few" + suffix].median, results["many" + suffix].median
        rows.append([what, milliseconds(few_time), milliseconds(many_time), f"{many_time / few_time:.2f} ×"])
    return rows
