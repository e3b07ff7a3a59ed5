"""Updating with audit records against without: single rows, batches, and sixteen writers in one workspace."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from rowhouse.local.cluster import SUPERUSER

from tests.conftest import Database
from tests.identities import make_user, make_workspace, run
from tests.server import Server

from .houses import as_person, house
from .load import alternating
from .timing import side_by_side

Rows = list[list[str]]


def _prepare(database: Database, *, is_audited: bool) -> tuple[str, str, list[str]]:
    with database.connect() as setup:
        owner = make_user(setup)
        workspace = make_workspace(setup, owner)
        run(setup, "insert into public.customers (workspace_id, name) values (%s, 'C')", [workspace])
        rows = run(
            setup,
            "insert into public.tickets (workspace_id, customer_id, device) "
            "select workspace_id, id, 'Phone' from public.customers, generate_series(1, 1000) where workspace_id = %s "
            "returning id",
            [workspace],
        )
        if not is_audited:
            run(setup, "drop trigger audit_update on public.tickets")
    with database.connect(SUPERUSER, autocommit=True) as connection:
        run(connection, "vacuum analyze public.tickets")
    return str(workspace), str(owner), [str(row["id"]) for row in rows]


def _updater(database: Database, prepared: tuple[str, str, list[str]], size: int) -> Callable[[], object]:
    workspace, owner, ids = prepared
    connection = database.connect(SUPERUSER, autocommit=True)
    as_person(connection, uuid.UUID(owner))
    # A column that nothing else watches: the record is all that is added.
    one = "update public.tickets set estimate = random() * 100000 where workspace_id = %s and id = %s"
    batch = "update public.tickets set estimate = random() * 100000 where workspace_id = %s"

    def update() -> None:
        if size == 1:
            for row in ids[:200]:
                run(connection, one, [workspace, row])
        else:
            for _ in range(3):
                run(connection, batch, [workspace])

    return update


def _writers(prepared: tuple[str, str, list[str]]) -> str:
    workspace, owner, _ = prepared
    claims = f'{{"sub": "{owner}", "role": "authenticated"}}'
    return f"""\\set n random(1, 1000)
begin;
select set_config('role', 'authenticated', true), set_config('request.jwt.claims', '{claims}', true);
update public.tickets set estimate = random() * 100000 where workspace_id = '{workspace}' and number = :n;
commit;
"""


def auditing(server: Server) -> tuple[Rows, Rows]:
    """Rates with and without the trigger that records updates; and how sixteen writers compare with one."""
    updates, writers = [], []
    with house(server, 10, 100) as kept, house(server, 10, 100) as dropped:
        with_audit, without = _prepare(kept, is_audited=True), _prepare(dropped, is_audited=False)
        for what, size, rows in (("single rows", 1, 200), ("batches of 1,000", 1_000, 3_000)):
            results = side_by_side(
                {"audited": _updater(kept, with_audit, size), "without": _updater(dropped, without, size)}, 15
            )
            rate = {name: rows / result.median for name, result in results.items()}
            updates.append(
                [
                    what,
                    f"{rate['without']:,.0f}/s",
                    f"{rate['audited']:,.0f}/s",
                    f"{rate['audited'] / rate['without']:.2f}",
                ]
            )
        growth = {}
        for connections in (1, 16):
            rates = alternating(
                {"audited": (kept, _writers(with_audit)), "without": (dropped, _writers(without))},
                connections=connections,
            )
            growth[connections] = rates
            writers.append(
                [f"{connections} at once", f"{rates['without']:,.0f}/s", f"{rates['audited']:,.0f}/s",
                 f"{rates['audited'] / rates['without']:.2f}"]
            )  # fmt: skip
        writers.append(
            ["16 against 1", *(f"{growth[16][name] / growth[1][name]:.2f} ×" for name in ("without", "audited")), ""]
        )
    return updates, writers
