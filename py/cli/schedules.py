"""`rowhouse schedules`."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import operations
from ..database import connect
from .output import Json, done, show

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What the clock starts: list, run, pause, resume.")
Name = Annotated[str, typer.Argument(help="Its name.", metavar="NAME")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Lists schedules: when each last ran, for how long, how it went, and how many runs it has missed since.

    \b
    Example:
      rowhouse schedules list
    """
    with connect() as connection:
        rows = operations.list_schedules(connection)
    show(rows, as_json=as_json, whole=("name", "outcome"))


@app.command()
def run(name: Name, as_json: Json = False) -> None:
    """Runs a schedule now.

    \b
    Example:
      rowhouse schedules run rowhouse-digests
    """
    with connect(autocommit=True) as connection:
        ran = operations.run_schedule(connection, name)
    done(f"{name} ran." if ran else f"{name} is paused, or runs already.", as_json=as_json, ran=ran)


@app.command()
def pause(name: Name, as_json: Json = False) -> None:
    """Stops a schedule until it is resumed.

    \b
    Example:
      rowhouse schedules pause rowhouse-digests
    """
    with connect() as connection:
        operations.pause_schedule(connection, name, paused=True)
    done(f"{name} is paused.", as_json=as_json)


@app.command()
def resume(name: Name, as_json: Json = False) -> None:
    """Has a paused schedule run again.

    \b
    Example:
      rowhouse schedules resume rowhouse-digests
    """
    with connect() as connection:
        operations.pause_schedule(connection, name, paused=False)
    done(f"{name} runs again.", as_json=as_json)
