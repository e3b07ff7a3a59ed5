"""Databases of a given size: so many workspaces with so many projects each, and people in some of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from pytest_postgresql.janitor import DatabaseJanitor
from rowhouse.local.cluster import SUPERUSER

from tests.conftest import Database
from tests.identities import run
from tests.server import TEMPLATE, Server

Connection = psycopg.Connection[Any]

FILL = """
insert into public.workspaces (id, slug, name)
select ('10000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'w-' || n, 'Workspace ' || n
from generate_series(1, %(workspaces)s::int) n;

insert into public.projects (workspace_id, id, name, description, created_at, updated_at)
select
    ('10000000-0000-4000-8000-' || lpad((1 + n %% %(workspaces)s::int)::text, 12, '0'))::uuid,
    gen_random_uuid(), 'Project ' || n, repeat('x', 60),
    timestamptz '2026-01-01' + n * interval '1 second', timestamptz '2026-01-01' + n * interval '1 second'
from generate_series(1, %(workspaces)s::int * %(projects)s::int) n;
"""


def workspace(number: int) -> str:
    return f"10000000-0000-4000-8000-{number:012d}"


@contextmanager
def house(server: Server, workspaces: int, projects: int) -> Iterator[Database]:
    """A migrated database with `workspaces` × `projects` rows, without their plans and counters."""
    name = f"bench_{workspaces}_{uuid.uuid4().hex[:6]}"
    janitor = DatabaseJanitor(
        user=SUPERUSER,
        host="127.0.0.1",
        port=server.cluster.port,
        dbname=name,
        template_dbname=TEMPLATE,
        password=server.password,
    )
    with janitor:
        database = Database(name, server.cluster.port, server.password)
        with database.connect(SUPERUSER, autocommit=True) as connection:
            run(connection, f"grant all on database {name} to postgres")
            run(connection, "set session_replication_role = replica")
            for statement in FILL.strip().split(";\n"):
                run(connection, statement.rstrip(";\n"), {"workspaces": workspaces, "projects": projects})
            run(connection, "reset session_replication_role")
            run(connection, "vacuum analyze")
        yield database


def person_in(database: Database, count: int) -> uuid.UUID:
    """Somebody who is a member of the first `count` workspaces."""
    user = uuid.uuid4()
    with database.connect(SUPERUSER) as connection:
        run(connection, "insert into auth.users (id, email) values (%s, %s)", [user, f"{user.hex}@example.com"])
        run(connection, "set session_replication_role = replica")
        run(
            connection,
            "insert into public.workspace_members (workspace_id, user_id, role_id) "
            "select w.id, %s, r.id from public.workspaces w, public.roles r "
            "where r.key = 'member' and w.id = any (%s::uuid[])",
            [user, [workspace(number) for number in range(1, count + 1)]],
        )
    with database.connect(SUPERUSER, autocommit=True) as connection:
        run(connection, "analyze public.workspace_members")
    return user


def as_person(connection: Connection, user: uuid.UUID) -> None:
    """Acts as somebody for the rest of the session."""
    run(
        connection,
        "select set_config('role', 'authenticated', false), set_config('request.jwt.claims', %s, false)",
        [f'{{"sub": "{user}", "role": "authenticated"}}'],
    )
