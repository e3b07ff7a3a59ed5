"""`rowhouse digests`."""

from __future__ import annotations

from pathlib import Path
from tempfile import gettempdir
from typing import Annotated

import typer

from .. import operations
from ..database import connect
from .listing import Email, Limit
from .output import Json, done, open_page, print_json, show

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Digests: preview, run, list.")


@app.command()
def preview(
    email: Email,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """Shows the digests that would go to a person if all that waits for them went out now. Sends nothing.

    \b
    Examples:
      rowhouse digests preview ada@example.com
      rowhouse digests preview ada@example.com --open
    """
    with connect() as connection:
        rows = operations.preview_digests(connection, email)
    if as_json:
        print_json(rows)
    elif not rows:
        typer.echo("Nothing waits for them: there would be no digest.")
    for row in [] if as_json else rows:
        if open_:
            open_page(row["html"], Path(gettempdir()) / f"rowhouse-digest-{row['frequency']}.html")
        else:
            typer.secho(f"{row['frequency']}, to {row['email']}", bold=True)
            typer.echo(row["body"] + "\n")


@app.command()
def run(as_json: Json = False) -> None:
    """Builds all digests that are due now, as the clock does.

    \b
    Example:
      rowhouse digests run
    """
    with connect(autocommit=True) as connection:
        before = operations.count_digests(connection)
        operations.run_schedule(connection, "rowhouse-digests")
        count = operations.count_digests(connection) - before
    done(f"{count} digests built.", as_json=as_json, built=count)


@app.command("list")
def list_(
    email: Annotated[str | None, typer.Option(help="Only of this person.")] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Lists the digests there were, the newest first, and what became of their mails.

    \b
    Example:
      rowhouse digests list --email ada@example.com
    """
    with connect() as connection:
        rows = operations.list_digests(connection, email=email, limit=limit)
    show(rows, as_json=as_json, empty="There were none yet.")
