"""What every list command shares: paging options, and how a page is printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from ..queries import Page
from .output import print_json, show

Search = Annotated[str | None, typer.Option(help="Only those with this text in their names.", metavar="TEXT")]
After = Annotated[
    str | None, typer.Option(help="Go on after the cursor that the page before ended with.", metavar="CURSOR")
]
Limit = Annotated[int, typer.Option(help="Rows to a page.", min=1, max=10_000)]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Slug = Annotated[str, typer.Argument(help="The workspace's slug.", metavar="WORKSPACE")]
Email = Annotated[str, typer.Argument(help="The address they sign in with.", metavar="EMAIL")]


def show_page(page: Page, *, as_json: bool, empty: str, whole: Sequence[str] = ()) -> None:
    """Prints a page and how to get the next one; as JSON, an object with `rows` and `next_after`."""
    if as_json:
        print_json({"rows": page.rows, "next_after": page.next_after})
        return
    show(page.rows, as_json=False, empty=empty, whole=whole)
    if page.next_after:
        typer.echo(f"There are more: --after {page.next_after}")
