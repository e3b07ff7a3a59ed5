"""Digests: the database's time to build them, for ten times as many people."""

from __future__ import annotations

import time

from rowhouse.local.cluster import SUPERUSER

from tests.identities import make_user, make_workspace, one, run
from tests.server import Server

from .houses import house

Rows = list[list[str]]
PEOPLE = """
insert into auth.users (id, email)
select md5('p' || n)::uuid, 'p' || n || '@example.com' from generate_series(1, %(n)s) n;
insert into public.profiles (id, email)
select md5('p' || n)::uuid, 'p' || n || '@example.com' from generate_series(1, %(n)s) n;
insert into public.workspace_members (workspace_id, user_id, role_id)
select (%(w)s::uuid[])[1 + n %% 100], md5('p' || n)::uuid, '00000000-0000-4000-8000-000000000004'
from generate_series(1, %(n)s) n;
insert into public.notifications (
    workspace_id, recipient_id, kind, title, summary, link, frequency, due_at, created_at
)
select
    (%(w)s::uuid[])[1 + n %% 100], md5('p' || n)::uuid, 'bench.done',
    'Somebody completed task ' || i || ' in Apollo ' || i %% 3, E'\\x01 tasks completed in Apollo ' || i %% 3,
    '/tasks/' || i, 'daily', now() - interval '1 hour', now() - interval '2 hours'
from generate_series(1, %(n)s) n, generate_series(1, 10) i
"""


def digesting(server: Server, most: int = 100_000) -> Rows:
    """People with ten notifications each, in a hundred workspaces: seconds, digests a second, and growth."""
    rows, per_person = [], []
    for count in (most // 10, most):
        with house(server, 10, 10) as database, database.connect(SUPERUSER, autocommit=True) as connection:
            owner = make_user(connection)
            workspaces = [str(make_workspace(connection, owner)) for _ in range(100)]
            run(connection, "select notify.declare_kind('bench.done', 'x', 'x', 'Bench', default_frequency => 'daily')")
            run(connection, "set session_replication_role = replica")
            for statement in PEOPLE.strip().split(";\n"):
                run(connection, statement, {"n": count, "w": workspaces})
            run(connection, "reset session_replication_role")
            run(connection, "vacuum analyze")
            begun = time.perf_counter()
            run(connection, "call notify.run_digests()")
            seconds = time.perf_counter() - begun
            assert one(connection, "select count(*) from notify.messages where kind = 'digest.daily'") == count
            per_person.append(seconds / count)
            rows.append(
                [f"{count:,} people, {count * 10:,} notifications", f"{seconds:.1f} s", f"{count / seconds:,.0f}/s"]
            )
    rows[0].append("")
    rows[1].append(f"{per_person[1] / per_person[0]:.2f} ×")
    return rows
