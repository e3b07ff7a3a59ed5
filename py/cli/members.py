"""`rowhouse members`."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import administration
from ..database import connect
from .listing import After, Email, Limit, Search, Slug, Yes, show_page
from .output import Json, confirm, done

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Members of a workspace: list, add, remove, change roles."
)

Role = Annotated[str, typer.Argument(help="owner, admin, member, viewer or the key of a custom role.", metavar="ROLE")]


@app.command("list")
def list_(
    workspace: Slug,
    search: Search = None,
    role: Annotated[str | None, typer.Option(help="Only those with this role.")] = None,
    after: After = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Lists the members of a workspace.

    \b
    Example:
      rowhouse members list acme --role admin
    """
    with connect() as connection:
        page = administration.list_members(connection, workspace, search=search, role=role, after=after, limit=limit)
    show_page(page, as_json=as_json, empty="No member fits.")


@app.command()
def add(workspace: Slug, email: Email, role: Role = "member", as_json: Json = False) -> None:
    """Adds somebody who has signed up, without an invitation.

    \b
    Example:
      rowhouse members add acme bob@acme.example viewer
    """
    with connect() as connection:
        administration.add_member(connection, workspace, email, role)
    done(f"{email} is {role} of {workspace}.", as_json=as_json)


@app.command()
def remove(workspace: Slug, email: Email, yes: Yes = False, as_json: Json = False) -> None:
    """Removes a member; it binds at their next request.

    \b
    Example:
      rowhouse members remove acme bob@acme.example
    """
    confirm(f"Remove {email} from {workspace}?", yes=yes)
    with connect() as connection:
        administration.remove_member(connection, workspace, email)
    done(f"{email} is no longer in {workspace}.", as_json=as_json)


@app.command("set-role")
def set_role(workspace: Slug, email: Email, role: Role, as_json: Json = False) -> None:
    """Gives a member another role.

    \b
    Example:
      rowhouse members set-role acme bob@acme.example admin
    """
    with connect() as connection:
        administration.set_role(connection, workspace, email, role)
    done(f"{email} is {role} of {workspace}.", as_json=as_json)
