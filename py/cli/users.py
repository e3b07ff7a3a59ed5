"""`rowhouse users`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import administration, archives
from ..database import connect
from .erasure import show_erasure
from .listing import After, Email, Limit, Search, Yes, show_page
from .output import Json, bar, done, show_one

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="People: list, show, suspend, resume, export, erase."
)


@app.command("list")
def list_(
    search: Search = None,
    suspended: Annotated[
        bool | None, typer.Option("--suspended/--not-suspended", help="Only those who are, or are not.")
    ] = None,
    after: After = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Lists people.

    \b
    Examples:
      rowhouse users list --search @acme.example
      rowhouse users list --suspended
    """
    with connect() as connection:
        page = administration.list_users(connection, search=search, is_suspended=suspended, after=after, limit=limit)
    show_page(page, as_json=as_json, empty="Nobody fits.")


@app.command()
def show(email: Email, as_json: Json = False) -> None:
    """Shows one person: their workspaces and roles, and whether they are suspended.

    \b
    Example:
      rowhouse users show ada@acme.example
    """
    with connect() as connection:
        row = administration.show_user(connection, email)
    show_one(row, as_json=as_json)


@app.command()
def suspend(
    email: Email,
    reason: Annotated[str, typer.Option(help="Why, for other operators.")],
    as_json: Json = False,
) -> None:
    """Shuts a person out of every workspace, from their next request on.

    \b
    Example:
      rowhouse users suspend bob@acme.example --reason "stolen account"
    """
    with connect() as connection:
        administration.suspend_user(connection, email, reason)
    done(f"{email} is suspended.", as_json=as_json)


@app.command()
def resume(email: Email, as_json: Json = False) -> None:
    """Lets a suspended person in again.

    \b
    Example:
      rowhouse users resume bob@acme.example
    """
    with connect() as connection:
        administration.resume_user(connection, email)
    done(f"{email} may sign in again.", as_json=as_json)


@app.command()
def export(
    user: Email,
    output: Annotated[Path | None, typer.Option(help="The archive; EMAIL.zip by default.", metavar="FILE")] = None,
    as_json: Json = False,
) -> None:
    """Writes all that belongs to a person into one archive: what refers to them, and what is about their address.

    \b
    Example:
      rowhouse users export ada@acme.example --output ada.zip
    """
    target = output or Path(f"{user.replace('/', '_')}.zip")
    with connect(autocommit=True) as connection, bar("Exporting", hidden=as_json) as progress:
        person = administration.user_id(connection, user)
        tables = archives.person_tables(connection)
        task = progress.add_task("rows", total=archives.count_rows(connection, tables, person))
        manifest = archives.export(
            connection, tables, archives.Manifest("person", {"id": person, "email": user}), person, target,
            lambda _, rows: progress.advance(task, rows),
        )  # fmt: skip
    rows = sum(table.rows for table in manifest.tables.values())
    done(f"{rows} rows of {len(manifest.tables)} tables are in {target}.", as_json=as_json, rows=rows, file=str(target))


@app.command()
def erase(
    user: Email,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    as_json: Json = False,
) -> None:
    """Erases a person by the plan that every table declares: deletes, anonymises or keeps, column by column.

    \b
    Examples:
      rowhouse users erase ada@acme.example --dry-run
      rowhouse users erase ada@acme.example --yes
    """
    show_erasure(administration.erase_user, user, yes=yes, dry_run=dry_run, as_json=as_json)
