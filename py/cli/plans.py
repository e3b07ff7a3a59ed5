"""`rowhouse plans`."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import administration
from ..database import connect
from .output import Json, show_one
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
