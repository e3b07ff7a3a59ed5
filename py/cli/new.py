"""`rowhouse new`: scaffolds."""

from __future__ import annotations

from typing import Annotated

import typer

from ..scaffold import new_table
from ..settings import project_root
from .output import Json, print_json

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Scaffolds: a new tenant table with everything it needs."
)


@app.callback()
def callback() -> None:
    """Keeps `table` a subcommand, though it is the only one."""


@app.command()
def table(
    name: Annotated[str, typer.Argument(help="The table's name, a plural: invoices.")],
    columns: Annotated[
        str, typer.Option(help='Such as "title:text, due_on:date?, project_id:projects"; ? makes one optional.')
    ],
    permission: Annotated[
        str | None,
        typer.Option(help="What its permissions begin with; its name by default. One that exists is shared."),
    ] = None,
    limit: Annotated[
        str | None, typer.Option(help="Plan limits, such as free=10,pro=1000,enterprise=unlimited.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Writes a tenant table: migration, way back, policies, and a test that passes as it is.

    \b
    Examples:
      rowhouse new table invoices --columns "number:text, due_on:date?, project_id:projects"
      rowhouse new table notes --columns "body:text" --permission tasks --limit free=10,pro=1000,enterprise=unlimited
    """
    root = project_root()
    paths = [str(path.relative_to(root)) for path in new_table(name, columns, permission, limit)]
    if as_json:
        print_json(paths)
        return
    typer.echo("\n".join(f"wrote {path}" for path in paths))
    typer.echo(f"Read them, then: rowhouse db migrate && .venv/bin/pytest tests/{name} tests/isolation")
