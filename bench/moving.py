"""Taking a workspace out and bringing it into another database: rows a second, and the memory it takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rowhouse.local.cluster import SUPERUSER

from tests.identities import make_project, make_user, make_workspace, run
from tests.server import Server

from .houses import house

Rows = list[list[str]]
ROOT = Path(__file__).parent.parent
MEASURE = """
import resource, sys
from rowhouse.cli.main import main
sys.argv = ["rowhouse", *sys.argv[1:]]
try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def moving(server: Server, most: int) -> Rows:
    """An export and an import of two sizes each."""
    rows = []
    for size in (most // 10, most):
        with house(server, 10, 10) as source, house(server, 10, 10) as target, tempfile.TemporaryDirectory() as folder:
            with source.connect(SUPERUSER, autocommit=True) as connection:
                owner = make_user(connection)
                workspace = make_workspace(connection, owner, slug="moving")
                project = make_project(connection, workspace, lead=owner)
                run(connection, "set session_replication_role = replica")
                run(
                    connection,
                    "insert into tasks (workspace_id, project_id, project_is_private, title, notes) "
                    "select %s, %s, false, 'Task number ' || n, repeat('x', 100) from generate_series(1, %s::int) n",
                    [workspace, project, size],
                )
            file = str(Path(folder) / "moving.zip")
            measured = []
            for url, command in (
                (source.url(), ["export", "moving", "--output", file]),
                (target.url(), ["import", file]),
            ):
                begun = time.perf_counter()
                result = subprocess.run(
                    [sys.executable, "-c", MEASURE, "workspaces", *command, "--json"],
                    cwd=ROOT, env={**os.environ, "DATABASE_URL": url}, capture_output=True, text=True, check=True,
                )  # fmt: skip
                peak = re.search(r"peak (\d+)", result.stderr)
                measured += [
                    f"{size / (time.perf_counter() - begun):,.0f}/s", f"{int(peak[1]) // 1024 if peak else 0} MB",
                ]  # fmt: skip
            rows.append([f"{size:,} rows", *measured])
    return rows
