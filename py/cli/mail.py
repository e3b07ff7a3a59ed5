"""`rowhouse mail`."""

from __future__ import annotations

from pathlib import Path
from tempfile import gettempdir
from typing import Annotated

import typer

from .. import operations
from ..database import connect
from ..errors import UsageError
from ..queries import Page
from .listing import After, Limit, Yes, show_page
from .output import Json, confirm, done, open_page, show, show_one

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="The outbox: messages, what became of them, suppressed addresses."
)
Message = Annotated[str, typer.Argument(help="Its id.", metavar="MESSAGE")]
Address = Annotated[str, typer.Argument(help="The address or number.", metavar="ADDRESS")]


@app.command("list")
def list_(
    state: Annotated[
        str | None,
        typer.Option(help="Only: pending, sending, sent, delivered, bounced, complained, suppressed or failed."),
    ] = None,
    to: Annotated[str | None, typer.Option(help="Only to addresses with this in them.")] = None,
    after: After = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Lists messages, the newest first.

    \b
    Examples:
      rowhouse mail list --state bounced
      rowhouse mail list --to ada@example.com
    """
    with connect() as connection:
        page = operations.list_messages(connection, state=state, to=to, after=after, limit=limit)
    names = ("created_at", "id", "recipient", "subject", "state", "last_error")
    rows = page.rows if as_json else [{name: row[name] for name in names} for row in page.rows]
    show_page(Page(rows, page.next_after), as_json=as_json, empty="No messages.", whole=("state",))


@app.command("show")
def show_(
    message: Message,
    open_: Annotated[bool, typer.Option("--open", help="Show its HTML in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """Shows a message: its text, its state, and what the provider told of it.

    \b
    Example:
      rowhouse mail show 7c9e6679-7425-40de-944b-e07fc1f90ae7 --open
    """
    with connect() as connection:
        row = operations.show_message(connection, message)
    if open_:
        open_page(row["html"], Path(gettempdir()) / "rowhouse-mail.html")
        return
    show_one(row if as_json else {k: v for k, v in row.items() if k != "html"}, as_json=as_json)


@app.command()
def resend(message: Message, yes: Yes = False, as_json: Json = False) -> None:
    """Sends a message that failed once more. If the provider did take it then, its recipient gets it twice.

    \b
    Example:
      rowhouse mail resend 7c9e6679-7425-40de-944b-e07fc1f90ae7
    """
    confirm("Send it again?", yes=yes)
    with connect() as connection:
        operations.resend_message(connection, message)
    done("It is on its way again.", as_json=as_json)


@app.command()
def suppressed(as_json: Json = False) -> None:
    """Lists the addresses that are not written to any more, and why.

    \b
    Example:
      rowhouse mail suppressed
    """
    with connect() as connection:
        rows = operations.list_suppressions(connection)
    show(rows, as_json=as_json, empty="All addresses are written to.")


@app.command()
def suppress(
    address: Address,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    as_json: Json = False,
) -> None:
    """Writes no more to an address.

    \b
    Example:
      rowhouse mail suppress ada@example.com --reason "asked by phone"
    """
    with connect() as connection:
        operations.suppress(connection, address, reason)
    done(f"{address} is not written to any more.", as_json=as_json)


@app.command()
def unsuppress(address: Address, as_json: Json = False) -> None:
    """Writes to an address again that bounced or complained.

    \b
    Example:
      rowhouse mail unsuppress ada@example.com
    """
    with connect() as connection:
        was = operations.unsuppress(connection, address)
    done(f"{address} is written to again." if was else f"{address} was not suppressed.", as_json=as_json, was=was)


@app.command()
def settings(
    change: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE; can be given again.")] = None,
    as_json: Json = False,
) -> None:
    """Shows who messages come from and where they lead, or changes it.

    \b
    Examples:
      rowhouse mail settings
      rowhouse mail settings --set sender_email=hello@acme.example --set site_url=https://app.acme.example
    """
    changes = {}
    for word in change or []:
        name, separator, value = word.partition("=")
        if not separator:
            raise UsageError(f"{word!r} is not of the form NAME=VALUE.")
        changes[name.strip()] = value.strip()
    with connect() as connection:
        operations.set_mail_settings(connection, **changes)
        row = operations.mail_settings(connection)
    show_one(row, as_json=as_json)
