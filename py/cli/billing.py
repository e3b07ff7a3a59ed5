"""`rowhouse billing`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .. import payments
from ..database import connect
from .ledger import money
from .listing import Limit, Slug, Yes
from .output import Json, confirm, done, print_json, show_one
from .output import show as show_rows

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What workspaces bought, paid and may do. What moves money asks first, and is done once per key.",
)

Reason = Annotated[str, typer.Option(help="Why: it is kept.")]
Key = Annotated[
    str | None,
    typer.Option(help="The idempotency key. Without one the same command again is the same deed.", metavar="KEY"),
]
Price = Annotated[str, typer.Argument(help="The price's lookup key.", metavar="PRICE")]


@app.command()
def show(workspace: Slug, as_json: Json = False) -> None:
    """Shows what a workspace may do and why, what it bought, and what is left of its credit.

    \b
    Example:
      rowhouse billing show acme
    """
    with connect() as connection:
        row = payments.show(connection, workspace)
    if not as_json:
        row["limits"] = ", ".join(f"{k} {'unlimited' if v is None else v}" for k, v in sorted(row["limits"].items()))
    show_one(row, as_json=as_json)


@app.command()
def history(workspace: Slug, limit: Limit = 50, as_json: Json = False) -> None:
    """Shows what changed, what Stripe was asked for, and what the clock told, the newest first.

    \b
    Example:
      rowhouse billing history acme
    """
    with connect() as connection:
        rows = payments.history(connection, workspace, limit=limit)
    show_rows(rows, as_json=as_json, empty="Nothing has happened.")


def _money_rows(rows: list[dict[str, Any]], *columns: str) -> list[dict[str, Any]]:
    shown = []
    for row in rows:
        given = dict(row)
        digits, currency = given.pop("minor_digits"), given.pop("currency")
        shown.append({**given, **{name: money(given[name], digits, currency) for name in columns}})
    return shown


@app.command()
def invoices(workspace: Slug, as_json: Json = False) -> None:
    """Lists the invoices of a workspace, the newest first.

    \b
    Example:
      rowhouse billing invoices acme
    """
    with connect() as connection:
        rows = payments.invoices(connection, workspace)
    if not as_json:
        rows = _money_rows([{k: v for k, v in row.items() if k != "id"} for row in rows], "total", "paid", "remaining")
    show_rows(rows, as_json=as_json, empty="There are no invoices.", whole=["number", "total", "paid", "remaining"])


@app.command("payments")
def payments_(workspace: Slug, as_json: Json = False) -> None:
    """Lists what was charged, with what became of it, the newest first.

    \b
    Example:
      rowhouse billing payments acme
    """
    with connect() as connection:
        rows = payments.payments(connection, workspace)
    show_rows(
        rows if as_json else _money_rows(rows, "amount", "refunded"),
        as_json=as_json,
        empty="Nothing was charged.",
        whole=["amount", "refunded"],
    )


def _tell(made: dict[str, Any], sentence: str, *, as_json: bool) -> None:
    waiting = made["result"].get("code") == "waiting"
    words = "It is queued: a worker will ask Stripe." if waiting else sentence
    done(words, as_json=as_json, request_id=str(made["request_id"]), result=made["result"])


@app.command("change-plan")
def change_plan(
    workspace: Slug,
    price: Price,
    reason: Reason,
    seats: Annotated[
        int | None, typer.Option(help="How many seats, for a price per seat.", min=1, max=1_000_000)
    ] = None,
    key: Key = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Moves a workspace's subscription to another price, prorated and paid at once, or not at all.

    \b
    Example:
      rowhouse billing change-plan acme pro_yearly --reason "asked for by mail"
    """
    confirm(f"Move {workspace} to {price}? What it costs more is charged now.", yes=yes)
    with connect() as connection:
        made = payments.request(
            connection,
            "select billing.request_change(%(id)s, %(price)s, %(seats)s, %(key)s, %(reason)s, true) as request",
            workspace,
            price=price,
            seats=seats,
            key=key,
            reason=reason,
        )
    _tell(made, f"{workspace} is on {price}.", as_json=as_json)


@app.command()
def cancel(
    workspace: Slug,
    reason: Reason,
    now: Annotated[bool, typer.Option("--now", help="At once, instead of with the period that is paid.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Ends a workspace's subscription with its period, or at once.

    \b
    Example:
      rowhouse billing cancel acme --reason "closing down"
    """
    confirm(f"Cancel the subscription of {workspace}{' now' if now else ' with its period'}?", yes=yes)
    with connect() as connection:
        made = payments.request(
            connection,
            "select billing.cancel(%(id)s, %(now)s, %(reason)s) as request",
            workspace,
            now=now,
            reason=reason,
        )
    _tell(made, "It is cancelled.", as_json=as_json)


@app.command()
def resume(workspace: Slug, reason: Reason, as_json: Json = False) -> None:
    """Lets a subscription go on that was to end, or was paused.

    \b
    Example:
      rowhouse billing resume acme --reason "stays after all"
    """
    with connect() as connection:
        made = payments.request(
            connection, "select billing.resume(%(id)s, %(reason)s) as request", workspace, reason=reason
        )
    _tell(made, "It goes on.", as_json=as_json)


@app.command("extend-trial")
def extend_trial(
    workspace: Slug,
    until: Annotated[str, typer.Argument(help="Its new end, such as 2026-12-24.", metavar="DAY")],
    reason: Reason,
    as_json: Json = False,
) -> None:
    """Moves the end of a workspace's trial, also of one that is over.

    \b
    Example:
      rowhouse billing extend-trial acme 2026-12-24 --reason "was ill"
    """
    with connect() as connection:
        payments.extend_trial(connection, workspace, payments.parse_time(until), reason)
    done(f"The trial of {workspace} goes until {until}.", as_json=as_json)


@app.command()
def credit(
    workspace: Slug,
    amount: Annotated[str, typer.Argument(help="Such as 25.00.", metavar="AMOUNT")],
    reason: Reason,
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
    expires: Annotated[str | None, typer.Option(help="When what is left of it expires, such as 2027-01-31.")] = None,
    key: Key = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Gives a workspace credit, which is used before anything is charged.

    \b
    Example:
      rowhouse billing credit acme 25.00 --currency EUR --expires 2027-01-31 --reason "the outage of Tuesday"
    """
    confirm(f"Give {workspace} {amount} {currency.upper()} of credit?", yes=yes)
    with connect() as connection:
        minor = payments.parse_amount(amount, payments.minor_digits(connection, currency))
        made = payments.request(
            connection,
            "select billing.grant_credit("
            "%(id)s, %(amount)s, %(currency)s, %(expires)s::timestamptz, %(reason)s, %(key)s) as request",
            workspace,
            amount=minor,
            currency=currency,
            expires=None if expires is None else payments.parse_time(expires),
            reason=reason,
            key=key or payments.key_for(connection, "credit", workspace, minor, currency, expires, reason),
        )
    _tell(made, f"{workspace} has {amount} {currency.upper()} of credit.", as_json=as_json)


@app.command()
def adjust(
    workspace: Slug,
    amount: Annotated[str, typer.Argument(help="Such as 25.00 in the customer's favour, or -25.00.", metavar="AMOUNT")],
    reason: Reason,
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
    key: Key = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Changes a workspace's balance: what is positive is used before anything is charged, what is negative is owed.

    \b
    Example:
      rowhouse billing adjust acme --currency EUR --reason "invoiced by hand" -- -12.00
    """
    confirm(f"Change the balance of {workspace} by {amount} {currency.upper()}?", yes=yes)
    with connect() as connection:
        minor = payments.parse_amount(amount, payments.minor_digits(connection, currency))
        made = payments.request(
            connection,
            "select billing.adjust(%(id)s, %(amount)s, %(currency)s, %(reason)s, %(key)s) as request",
            workspace,
            amount=minor,
            currency=currency,
            reason=reason,
            key=key or payments.key_for(connection, "adjust", workspace, minor, currency, reason),
        )
    _tell(made, f"The balance of {workspace} is changed.", as_json=as_json)


@app.command()
def refund(
    workspace: Slug,
    invoice: Annotated[str, typer.Argument(help="Its number or id.", metavar="INVOICE")],
    reason: Reason,
    amount: Annotated[str | None, typer.Option(help="Such as 9.00; all that is left by default.")] = None,
    key: Key = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Refunds an invoice through Stripe, whole or in part.

    \b
    Example:
      rowhouse billing refund acme RW-000012 --amount 9.00 --reason "charged twice"
    """
    with connect() as connection:
        found = payments.find_invoice(connection, workspace, invoice)
        minor = None if amount is None else payments.parse_amount(amount, found["minor_digits"])
        paid = money(found["paid"], found["minor_digits"], found["currency"])
        words = "all that is left" if minor is None else money(minor, found["minor_digits"], found["currency"])
        confirm(f"Refund {words} of {invoice} ({paid} paid) to {workspace}?", yes=yes)
        made = payments.request(
            connection,
            "select billing.refund(%(id)s, %(invoice)s, %(amount)s, %(reason)s, %(key)s) as request",
            workspace,
            invoice=found["id"],
            amount=minor,
            reason=reason,
            key=key or payments.key_for(connection, "refund", workspace, found["id"], minor, reason),
        )
    _tell(made, f"Refunded {words} of {invoice}.", as_json=as_json)


@app.command()
def dunning(
    workspace: Slug,
    until: Annotated[
        str | None,
        typer.Option(help="Let it write until then, although a payment fails; a past time restricts it now."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, with --until.")] = "",
    as_json: Json = False,
) -> None:
    """Shows what the clock has told a workspace of and will, step by step; with --until it overrides the grace period.

    \b
    Examples:
      rowhouse billing dunning acme
      rowhouse billing dunning acme --until 2026-12-24 --reason "promised by phone"
    """
    with connect() as connection:
        if until is not None:
            payments.override_dunning(connection, workspace, payments.parse_time(until), reason)
        rows = payments.dunning(connection, workspace)
    if as_json:
        print_json(rows)
    else:
        show_rows(rows, as_json=False, empty="Nothing is due.")
