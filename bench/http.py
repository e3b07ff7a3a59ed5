"""End to end: a page over HTTP through the gateway, against PostgREST on a bare table without RLS."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
import uuid
from pathlib import Path

import jwt
import psycopg
from rowhouse.local import platform
from rowhouse.local.account import shared_home
from rowhouse.local.instance import Instance

from tests.identities import make_user, make_workspace, run

CONNECTIONS, SECONDS, ROUNDS = 16, 4, 5
BARE = """
create table public.bare_projects as select * from public.projects;
create index on public.bare_projects (workspace_id, created_at desc, id);
grant select on public.bare_projects to authenticated;
"""
Rows = list[list[str]]


def _load(url: str, headers: dict[str, str]) -> dict[str, float]:
    script = Path(__file__).with_name("load.mjs")
    command = ["node", str(script), url, str(CONNECTIONS), str(SECONDS), json.dumps(headers)]
    answer: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert answer["failed"] == 0, answer
    return answer


def end_to_end() -> Rows:
    """Requests per second and p95 of a page of 50 projects in a workspace of 1,000."""
    instance = Instance(shared_home() / f"demo-{os.getpid()}")
    try:
        state = platform.up(instance, durable=False, free_ports=True)
        with psycopg.connect(state.database_url, autocommit=True) as connection:
            with connection.transaction():
                owner = make_user(connection)
                workspaces = [make_workspace(connection, owner) for _ in range(10)]
            for workspace in workspaces:
                run(
                    connection,
                    "insert into public.projects (workspace_id, name, description, created_at) "
                    "select %s, 'Project ' || n, repeat('x', 60), timestamptz '2026-01-01' + n * interval '1 second' "
                    "from generate_series(1, 1000) n",
                    [workspace],
                )
            for statement in BARE.strip().split(";\n"):
                run(connection, statement.rstrip(";\n"))
            run(connection, "notify pgrst, 'reload schema'")
            run(connection, "analyze")
        time.sleep(1)  # PostgREST reads its schema cache anew
        return _measure(state.api_url, state.ports["rest"], state.key("anon"), state.jwt_secret, owner, workspaces[0])
    finally:
        platform.down(instance)
        instance.remove()


def _measure(api: str, rest_port: int, key: str, secret: str, owner: uuid.UUID, workspace: uuid.UUID) -> Rows:
    token = jwt.encode(
        {"sub": str(owner), "role": "authenticated", "exp": int(time.time()) + 3600}, secret, algorithm="HS256"
    )
    headers = {"apikey": key, "Authorization": f"Bearer {token}"}
    query = f"select=id,name,created_at&workspace_id=eq.{workspace}&order=created_at.desc&limit=50"
    urls = {
        "the house: gateway, PostgREST, RLS": f"{api}/rest/v1/projects?{query}",
        "gateway, PostgREST, a bare table": f"{api}/rest/v1/bare_projects?{query}",
        "PostgREST alone, a bare table": f"http://127.0.0.1:{rest_port}/bare_projects?{query}",
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in urls}
    for _ in range(ROUNDS):
        for name, url in urls.items():
            runs[name].append(_load(url, headers))
    medians = {
        name: {part: statistics.median(row[part] for row in rows) for part in ("rate", "p50", "p95")}
        for name, rows in runs.items()
    }
    floor = medians["PostgREST alone, a bare table"]
    return [
        [name, f"{m['rate']:,.0f}/s", f"{m['rate'] / floor['rate']:.2f}", f"{m['p50']:.1f} ms", f"{m['p95']:.1f} ms",
         f"{m['p95'] / floor['p95']:.2f} ×"]
        for name, m in medians.items()
    ]  # fmt: skip
