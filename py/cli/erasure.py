"""What `users erase` and `workspaces erase` share: the plan is shown before it is carried out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from ..database import connect
from .output import confirm, done, print_json, show

if TYPE_CHECKING:
    from ..database import Connection


def show_erasure(
    erase: Callable[[Connection, str], list[dict[str, Any]]], whom: str, *, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Rehearses an erasure, shows what it does, asks, and does it."""
    with connect() as connection:
        plan = erase(connection, whom)
        connection.rollback()
    if as_json and dry_run:
        print_json(plan)
        return
    if not as_json:
        show([row for row in plan if row["rows"]], as_json=False, title=f"Erasing {whom}")
    if dry_run:
        typer.echo("Nothing was done.")
        return
    confirm(f"Erase {whom}? It cannot be undone.", yes=yes)
    with connect() as connection:
        plan = erase(connection, whom)
    done(f"{whom} is erased.", as_json=as_json, plan=plan)
