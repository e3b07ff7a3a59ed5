"""`rowhouse ledger`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from .. import bookkeeping
from ..database import connect
from .listing import After, Limit, Slug, Yes, show_page
from .output import Json, bar, confirm, done, print_json, show

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help=(
        "The books: balances, statements, posting, closing, checking. WORKSPACE is a slug, or @operator for the"
        " operator's own books, which Stripe's payments are posted to."
    ),
)


class Kind(StrEnum):
    """The kinds of accounts."""

    asset = "asset"
    liability = "liability"
    equity = "equity"
    income = "income"
    expense = "expense"


def money(amount: int | None, digits: int, currency: str) -> str:
    """An amount of minor units for people, such as 1,234.50 EUR; nothing for none."""
    if amount is None:
        return ""
    whole, part = divmod(abs(amount), 10**digits)
    fraction = f".{part:0{digits}}" if digits else ""
    return f"{'-' if amount < 0 else ''}{whole:,}{fraction} {currency}"


def _for_people(rows: list[dict[str, Any]], *columns: str) -> list[dict[str, Any]]:
    shown = []
    for row in rows:
        digits = row.pop("minor_digits")
        shown.append({**row, **{name: money(row[name], digits, row["currency"]) for name in columns}})
        shown[-1].pop("currency")
    return shown


@app.command()
def balances(workspace: Slug, as_json: Json = False) -> None:
    """Lists the accounts of a workspace with their balances: debits minus credits.

    \b
    Examples:
      rowhouse ledger balances acme
      rowhouse ledger balances @operator
    """
    with connect() as connection:
        rows = bookkeeping.list_balances(connection, workspace)
    show(rows if as_json else _for_people(rows, "balance"), as_json=as_json, empty="There are no accounts.")


@app.command("trial-balance")
def trial_balance(workspace: Slug, as_json: Json = False) -> None:
    """Sums debits and credits by currency and kind of account.

    \b
    Example:
      rowhouse ledger trial-balance acme
    """
    with connect() as connection:
        rows = bookkeeping.trial_balance(connection, workspace)
    if as_json:
        print_json(rows)
        return
    for currency in sorted({row["currency"] for row in rows}):
        part = [row for row in rows if row["currency"] == currency]
        part.append(
            {
                "currency": currency, "kind": "together", "minor_digits": part[0]["minor_digits"],
                "debit": sum(row["debit"] for row in part), "credit": sum(row["credit"] for row in part),
            }
        )  # fmt: skip
        show(_for_people(part, "debit", "credit"), as_json=False, title=currency)
    if not rows:
        typer.echo("There are no accounts.")


@app.command()
def statement(
    workspace: Slug,
    account: Annotated[str, typer.Argument(help="The account's code.", metavar="ACCOUNT")],
    after: After = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Shows what happened on an account, with its balance after each line, in minor units.

    \b
    Example:
      rowhouse ledger statement acme cash:EUR
    """
    with connect() as connection:
        page = bookkeeping.statement(connection, workspace, account, after=after, limit=limit)
    show_page(page, as_json=as_json, empty="Nothing happened on it.")


@app.command("open")
def open_(
    workspace: Slug,
    account: Annotated[str, typer.Argument(help="Its code, such as bank:EUR.", metavar="ACCOUNT")],
    kind: Annotated[Kind, typer.Option(help="What kind of account.")],
    currency: Annotated[str, typer.Option(help="ISO 4217, such as EUR.")],
    name: Annotated[str, typer.Option(help="Its name for people.")] = "",
    as_json: Json = False,
) -> None:
    """Opens an account. Opening it again changes nothing.

    \b
    Example:
      rowhouse ledger open acme bank:EUR --kind asset --currency EUR
    """
    with connect() as connection:
        account_id = bookkeeping.open_account(connection, workspace, account, kind, currency, name)
    done(f"{account} is open.", as_json=as_json, account_id=account_id)


@app.command()
def post(
    workspace: Slug,
    key: Annotated[str, typer.Argument(help="The idempotency key: the same again posts once.", metavar="KEY")],
    debit: Annotated[list[str], typer.Option(help="ACCOUNT=AMOUNT in minor units.")],
    credit: Annotated[list[str], typer.Option(help="ACCOUNT=AMOUNT in minor units.")],
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    day: Annotated[str | None, typer.Option("--on", help="The day it belongs to; today by default.")] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Posts a transaction. Debits and credits must be equal in every currency.

    \b
    Example:
      rowhouse ledger post acme opening-2026 --debit bank:EUR=500000 --credit equity:EUR=500000
    """
    entries = [bookkeeping.parse_entry(text, "debit") for text in debit]
    entries += [bookkeeping.parse_entry(text, "credit") for text in credit]
    confirm(f"Post {len(entries)} entries to the books of {workspace}? What is posted stays.", yes=yes)
    with connect() as connection:
        transaction = bookkeeping.post(connection, workspace, key, entries, description, day)
    done(f"It is posted as {transaction}.", as_json=as_json, transaction_id=transaction)


@app.command()
def reverse(
    workspace: Slug,
    transaction: Annotated[str, typer.Argument(help="The transaction's id.", metavar="TRANSACTION")],
    reason: Annotated[str, typer.Option(help="Why.")],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Undoes a transaction by posting its opposite, today.

    \b
    Example:
      rowhouse ledger reverse acme 6f9619ff-8b86-4d01-b42d-00cf4fc964ff --reason "posted twice"
    """
    confirm(f"Reverse {transaction}?", yes=yes)
    with connect() as connection:
        reversal = bookkeeping.reverse(connection, workspace, transaction, reason)
    done(f"It is reversed by {reversal}.", as_json=as_json, transaction_id=reversal)


@app.command()
def close(
    workspace: Slug,
    until: Annotated[str, typer.Argument(help="The last day to close, such as 2026-10-31.", metavar="DAY")],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Closes the books until a day: nothing can be posted into it any more.

    \b
    Example:
      rowhouse ledger close acme 2026-10-31
    """
    confirm(f"Close the books of {workspace} until {until}? It cannot be undone.", yes=yes)
    with connect() as connection:
        bookkeeping.close_period(connection, workspace, until)
    done(f"The books of {workspace} are closed until {until}.", as_json=as_json)


@app.command()
def check(
    workspace: Annotated[str | None, typer.Argument(help="Only this workspace's.", metavar="[WORKSPACE]")] = None,
    as_json: Json = False,
) -> None:
    """Derives all balances, sums and hashes anew, and says where the books differ. Exit code 5 if they do.

    \b
    Examples:
      rowhouse ledger check
      rowhouse ledger check acme --json
    """
    findings: list[dict[str, Any]] = []
    with connect(autocommit=True) as connection, bar("Checking", hidden=as_json) as progress:
        places = bookkeeping.workspaces_with_books(connection, workspace)
        for place in progress.track(places, description="workspaces"):
            findings += [{"workspace": place["slug"], **row} for row in bookkeeping.check(connection, place["id"])]
    if as_json:
        print_json({"is_sound": not findings, "findings": findings})
    else:
        show(findings, as_json=False, empty="The books hold.")
    if findings:
        raise typer.Exit(5)
