"""`rowhouse usage`."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import payments
from ..database import connect
from .listing import Slug
from .output import Json, done
from .output import show as show_rows

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What is counted as it is used.")


@app.command()
def show(workspace: Slug, as_json: Json = False) -> None:
    """Shows what a workspace used of each meter this period, against what its plan includes.

    \b
    Example:
      rowhouse usage show acme
    """
    with connect() as connection:
        rows = payments.usage(connection, workspace)
    show_rows(rows, as_json=as_json, empty="There are no meters.")


@app.command()
def record(
    workspace: Slug,
    meter: Annotated[str, typer.Argument(help="What was used.", metavar="METER")],
    quantity: Annotated[int, typer.Argument(help="How much of it, from 1.", metavar="QUANTITY", max=2**62)],
    key: Annotated[str, typer.Option(help="The idempotency key: the same again is recorded once.")],
    at: Annotated[str | None, typer.Option(help="When, such as 2026-11-20T12:00:00Z; now by default.")] = None,
    as_json: Json = False,
) -> None:
    """Records usage, once per key.

    \b
    Example:
      rowhouse usage record acme api_calls 250 --key import-2026-11-20
    """
    with connect() as connection:
        is_new = payments.record_usage(
            connection, workspace, meter, quantity, key, None if at is None else payments.parse_time(at)
        )
    done("It is recorded." if is_new else "It was recorded before.", as_json=as_json, is_new=is_new)
