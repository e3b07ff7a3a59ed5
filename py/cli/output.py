"""What commands print: tables for people, JSON for programs, errors in one sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import typer

from ..errors import RowhouseError

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def plain(value: Any) -> Any:
    """How JSON writes what it has no form for: ids, times, addresses, exact numbers."""
    if isinstance(value, UUID | datetime | date | IPv4Address | IPv6Address | Decimal):
        return str(value)
    raise TypeError(f"{type(value)} has no JSON form")


def print_json(value: Any) -> None:
    """Prints a value as JSON; UUIDs and times as text."""
    typer.echo(json.dumps(value, default=plain, indent=2, ensure_ascii=False))


def cell(value: Any) -> str:
    """How a table shows a value; control characters are made visible, so that data cannot drive a terminal."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def show(
    rows: Sequence[dict[str, Any]],
    *,
    as_json: bool,
    title: str = "",
    empty: str = "Nothing here.",
    whole: Sequence[str] = (),
) -> None:
    """Prints rows as a table, or as a JSON array; the columns named in `whole` are never folded."""
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        typer.echo(empty)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title or None, header_style="bold", title_justify="left")
    for name in rows[0]:
        numeric = all(isinstance(row[name], int) and not isinstance(row[name], bool) for row in rows)
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(name.replace("_", " "), justify=justify, overflow="fold", no_wrap=name in whole)
    for row in rows:
        table.add_row(*(escape(cell(value)) for value in row.values()))
    Console().print(table)


def show_one(row: dict[str, Any], *, as_json: bool) -> None:
    """Prints one thing as its fields, or as a JSON object."""
    if as_json:
        print_json(row)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for name, value in row.items():
        table.add_row(f"[bold]{name.replace('_', ' ')}[/bold]", escape(cell(value)))
    Console().print(table)


def done(message: str, *, as_json: bool, **facts: Any) -> None:
    """Says that something was done: a sentence, or its facts as JSON."""
    if as_json:
        print_json({"done": message, **facts})
    else:
        typer.echo(cell(message))


def confirm(question: str, *, yes: bool) -> None:
    """Asks before something is lost, unless `--yes` was given. Ends the command on no.

    Without a terminal to ask at, refuses.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise RowhouseError(f"{question} Nobody is here to answer.", "Give --yes.")
    if not typer.confirm(question):
        raise typer.Exit(1)


def print_error(error: RowhouseError, *, as_json: bool) -> None:
    """Prints an error to standard error: what happened and what to do."""
    if as_json:
        body = {
            "error": str(error),
            "hint": error.hint,
            "code": getattr(error, "code", None),
            "details": getattr(error, "details", None),
        }
        typer.echo(json.dumps(body, default=str, ensure_ascii=False), err=True)
        return
    lines: Iterable[str] = str(error).splitlines()
    typer.secho("error: " + "\n".join(cell(line) for line in lines), fg="red", err=True)
    if error.hint:
        typer.echo(f"  {cell(error.hint)}", err=True)


@contextmanager
def bar(title: str, *, hidden: bool = False) -> Iterator[Any]:
    """A progress bar on standard error, of rich; nothing where there is no terminal, or with `hidden`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(f"{title} {{task.description}}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=hidden or not console.is_terminal) as progress:
        yield progress


def open_page(page: str, file: Path) -> None:
    """Writes an HTML page to a file, shows it in the browser, and says where it is."""
    import webbrowser

    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")
    shown = webbrowser.open(file.resolve().as_uri())
    typer.echo(f"{'Opened' if shown else 'Written to'} {file}")
