"""`rowhouse trash`."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import records
from ..database import connect
from .listing import Slug
from .output import Json, done, show

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What was deleted: list, restore, purge.")


@app.command("list")
def list_(workspace: Slug, as_json: Json = False) -> None:
    """Lists what can be restored in a workspace, the latest first.

    \b
    Example:
      rowhouse trash list acme
    """
    with connect() as connection:
        rows = records.list_trash(connection, workspace)
    show(rows, as_json=as_json, empty="The trash is empty.")


@app.command()
def restore(
    workspace: Slug,
    table: Annotated[str, typer.Argument(help="Its table, such as tasks.", metavar="TABLE")],
    row: Annotated[str, typer.Argument(help="Its id.", metavar="ID")],
    as_json: Json = False,
) -> None:
    """Brings back a row, and whatever was deleted along with it.

    \b
    Example:
      rowhouse trash restore acme projects 6f9619ff-8b86-4d01-b42d-00cf4fc964ff
    """
    with connect() as connection:
        restored = records.restore(connection, workspace, table, row)
    done(f"{restored} rows are back.", as_json=as_json, rows=restored)


@app.command()
def purge(
    at_most: Annotated[int, typer.Option(help="Rows at a time.", min=1, max=1_000_000)] = 1_000,
    as_json: Json = False,
) -> None:
    """Removes for good what has been in the trash for longer than its grace period, as pg_cron does.

    \b
    Example:
      rowhouse trash purge
    """
    total = 0
    with connect(autocommit=True) as connection:
        while True:
            row = connection.execute("select ops.purge(%s)", [at_most]).fetchone()
            total += row[0] if row else 0
            if not row or row[0] < at_most:
                break
    done(f"{total} rows were removed.", as_json=as_json, rows=total)
