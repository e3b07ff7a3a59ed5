"""`rowhouse plans`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import administration, catalogue
from ..database import connect
from .output import Json, bar, print_json, show_one
from .output import show as show_rows

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Plans: what they allow and who is on them.")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Lists the plans with their limits and features.

    \b
    Example:
      rowhouse plans list
    """
    with connect() as connection:
        rows = administration.list_plans(connection)
    show_rows(rows, as_json=as_json)


@app.command()
def show(
    plan: Annotated[str, typer.Argument(help="The plan, such as pro.", metavar="PLAN")], as_json: Json = False
) -> None:
    """Shows one plan.

    \b
    Example:
      rowhouse plans show pro
    """
    with connect() as connection:
        row = administration.show_plan(connection, plan)
    show_one(row, as_json=as_json)


@app.command()
def apply(
    file: Annotated[Path | None, typer.Option(help="Another file than supabase/plans.toml.", metavar="FILE")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    as_json: Json = False,
) -> None:
    """Brings the database and Stripe to what supabase/plans.toml declares. Twice is once.

    Nothing is deleted: what is gone from the file is archived. A changed amount is a new price, to which the lookup key
    moves. Customers stay on what they bought until they are moved: `rowhouse billing change-plan`.

    \b
    Examples:
      rowhouse plans apply --dry-run
      rowhouse plans apply
    """
    document, text, _path = catalogue.read_catalogue(file)
    with connect() as connection:
        differences = catalogue.apply_plans(connection, document, text, is_dry_run=False)
        connected = catalogue.is_connected(connection)
        calls = [row["what"] for row in catalogue.stripe_changes(connection)] if connected else []
        if dry_run:
            # What it would ask of Stripe follows from the change, which is taken back.
            connection.rollback()
        else:
            connection.commit()
            if connected:
                with bar("Stripe", hidden=as_json) as progress:
                    task = progress.add_task("prices", total=None)
                    calls = []
                    for done in catalogue.push_catalogue(connection):
                        calls.append(done)
                        progress.update(task, advance=1, description=done)
    _show_changes(differences, calls, connected=connected, is_dry_run=dry_run, as_json=as_json)


def _show_changes(
    differences: list[dict[str, Any]], calls: list[str], *, connected: bool, is_dry_run: bool, as_json: bool
) -> None:
    if as_json:
        print_json({"is_dry_run": is_dry_run, "is_connected": connected, "changes": differences, "stripe": calls})
        return
    words = "would change" if is_dry_run else "changed"
    show_rows(differences, as_json=False, title=f"What {words} here", empty=f"Nothing {words} here.")
    if not connected:
        typer.echo("No Stripe account is connected: `rowhouse stripe connect` connects one.")
    else:
        rows = [{"stripe": what} for what in calls]
        show_rows(rows, as_json=False, title=f"What {words} at Stripe", empty=f"Nothing {words} at Stripe.")
