"""`rowhouse users`."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import administration
from ..database import connect
from .listing import After, Email, Limit, Search, show_page
from .output import Json, done, show_one

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="People: list, show, suspend, resume.")


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
