"""Inserting under a plan limit: with the counter against without it."""

from __future__ import annotations

from collections.abc import Callable

from rowhouse.local.cluster import SUPERUSER

from tests.conftest import Database
from tests.identities import make_user, make_workspace, run
from tests.server import Server

from .houses import as_person, house
from .timing import side_by_side

SINGLE = "insert into public.projects (workspace_id, name) values (%s, 'P')"
BATCH = "insert into public.projects (workspace_id, name) select %s, 'P' from generate_series(1, 1000)"
Rows = list[list[str]]


def _inserter(database: Database, statement: str, times: int, *, limit: str) -> Callable[[], object]:
    """A member who inserts, in a workspace of their own; `limit` is none, counted or unlimited."""
    with database.connect() as setup:
        owner = make_user(setup)
        workspace = make_workspace(setup, owner)
        if limit == "counted":
            run(
                setup,
                "insert into billing.limit_overrides (workspace_id, resource, max, reason) "
                "values (%s, 'projects', 1000000000, 'bench')",
                [workspace],
            )
    connection = database.connect(SUPERUSER, autocommit=True)
    as_person(connection, owner)

    def insert() -> None:
        for _ in range(times):
            run(connection, statement, [workspace])

    return insert


def writing(server: Server) -> Rows:
    """Rows per second with a counted limit, without a limit, and with the triggers dropped."""
    rows = []
    for what, statement, times, size in (("single rows", SINGLE, 200, 1), ("batches of 1,000", BATCH, 3, 1_000)):
        with house(server, 10, 100) as kept, house(server, 10, 100) as dropped:
            with dropped.connect() as connection:
                run(connection, "drop trigger projects_count_inserted on public.projects")
                run(connection, "drop trigger projects_count_deleted on public.projects")
            results = side_by_side(
                {
                    "counted": _inserter(kept, statement, times, limit="counted"),
                    "unlimited": _inserter(kept, statement, times, limit="unlimited"),
                    "without": _inserter(dropped, statement, times, limit="none"),
                },
                15,
            )
        rate = {name: times * size / result.median for name, result in results.items()}
        rows.append(
            [
                what,
                f"{rate['without']:,.0f}/s",
                f"{rate['counted']:,.0f}/s",
                f"{rate['counted'] / rate['without']:.2f}",
                f"{rate['unlimited']:,.0f}/s",
                f"{rate['unlimited'] / rate['without']:.2f}",
            ]
        )
    return rows
