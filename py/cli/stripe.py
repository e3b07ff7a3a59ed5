"""`rowhouse stripe`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from .. import payments, stripe_account
from ..database import connect
from ..errors import UsageError
from .listing import After, Limit, show_page
from .output import Json, bar, done, print_json, show, show_one

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Stripe: connecting, reading, comparing, events.")
events = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What Stripe has told, and what became of it.")
app.add_typer(events, name="events")

Objects = Annotated[
    str | None, typer.Option(help="Only these, such as invoice,charge; all by default.", metavar="OBJECT,…")
]


@app.command("connect")
def connect_(as_json: Json = False) -> None:
    """Connects the database to the Stripe account and mode of STRIPE_SECRET_KEY, and makes missing customers.

    A test key makes it a test database, a live key a live one; a key of the other mode is refused from then on.

    \b
    Example:
      rowhouse stripe connect
    """
    with connect() as connection:
        row = stripe_account.connect_account(connection)
    sentence = f"Connected to {row['account_id']} ({row['mode']}); {row['customers']} customers are being made."
    done(sentence, as_json=as_json, **row)


@app.command()
def sync(
    since: Annotated[
        str | None, typer.Option(help="Only what was made since: a day, or a time before now such as 30d.")
    ] = None,
    objects: Objects = None,
    as_json: Json = False,
) -> None:
    """Reads what Stripe has into the database, from nothing. Stopped, it goes on where it was.

    \b
    Examples:
      rowhouse stripe sync
      rowhouse stripe sync --since 30d --objects invoice,charge
    """
    with connect() as connection:
        run = stripe_account.start_run(connection, "sync", _names(objects), _moment(since))
        connection.commit()
        state = _walk(connection, run, "Reading", as_json=as_json)
    done(f"{state['listed']} objects were read.", as_json=as_json, run_id=str(run), listed=state["listed"])


@app.command()
def reconcile(objects: Objects = None, as_json: Json = False) -> None:
    """Reads Stripe's events since the last time, compares its lists with what is known here, and mends the difference.

    The clock does the same: subscriptions every 15 minutes, everything every night. Exit code 5 if anything differed.

    \b
    Examples:
      rowhouse stripe reconcile
      rowhouse stripe reconcile --objects subscription --json
    """
    with connect() as connection:
        seen = datetime.now(UTC) - timedelta(days=1)
        events_run = stripe_account.start_run(connection, "events", None, seen.isoformat())
        connection.commit()
        _walk(connection, events_run, "Events", as_json=as_json)
        run = stripe_account.start_run(connection, "reconcile", _names(objects))
        connection.commit()
        _walk(connection, run, "Comparing", as_json=as_json)
        rows = stripe_account.drift(connection, run)
    _show_drift(rows, as_json=as_json)
    if any(row["missing"] or row["different"] for row in rows):
        raise typer.Exit(5)


@app.command()
def drift(as_json: Json = False) -> None:
    """Shows what the last reconcile found: counts, and sums of money, by object.

    \b
    Example:
      rowhouse stripe drift
    """
    with connect() as connection:
        rows = stripe_account.drift(connection)
    _show_drift(rows, as_json=as_json)


def _show_drift(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    shown = [
        {
            "object": row["object"],
            "listed": row["listed"],
            "missing": row["missing"],
            "different": row["different"],
            "at_stripe": _amounts(row["amounts"]),
            "off_by": _amounts(row["amounts_off"]),
        }
        for row in rows
    ]
    show(shown, as_json=False, empty="Nothing was compared yet.")


def _amounts(by_currency: dict[str, int]) -> str:
    return ", ".join(f"{amount:,} {currency.upper()} (minor units)" for currency, amount in sorted(by_currency.items()))


def _walk(connection: Any, run: Any, title: str, *, as_json: bool) -> dict[str, Any]:
    with bar(title, hidden=as_json) as progress:
        task = progress.add_task("", total=None)
        import time

        pause = 1.0
        while True:
            for outcome in stripe_account.carry(connection, {"run": str(run)}):
                if outcome.get("retry"):
                    # Too many at once, or Stripe's own trouble: the bookmark stays where it is.
                    if pause > 60 or outcome.get("status") in (401, 403):
                        stripe_account.refuse_unless_done(outcome)
                    time.sleep(min(outcome.get("retry_in") or pause, 60))
                    pause *= 2
                    break
                stripe_account.refuse_unless_done(outcome)
                pause = 1.0
                state = stripe_account.run_state(connection, run)
                connection.commit()
                progress.update(task, completed=state["listed"], description=state["object"] or "")
            else:
                return stripe_account.run_state(connection, run)


def _names(objects: str | None) -> list[str] | None:
    if objects is None:
        return None
    names = [name.strip() for name in objects.split(",") if name.strip()]
    if not names:
        raise UsageError("No objects are named.", "Leave --objects out for all of them.")
    return names


def _moment(since: str | None) -> str | None:
    if since is None:
        return None
    if span := re.fullmatch(r"([0-9]{1,5})([dh])", since):
        hours = int(span[1]) * (24 if span[2] == "d" else 1)
        return (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
    return payments.parse_time(since)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Checks key, mode, version, webhook endpoint, events, customers and books. Exit code 5 if anything is amiss.

    \b
    Example:
      rowhouse stripe doctor
    """
    with connect() as connection:
        findings = stripe_account.doctor(connection)
    if as_json:
        print_json({"is_sound": not findings, "findings": findings})
    else:
        show(findings, as_json=False, empty="All is well.")
    if findings:
        raise typer.Exit(5)


@events.command("list")
def list_(
    outcome: Annotated[
        str | None, typer.Option(help="Only waiting, applied, superseded, asked or ignored ones.")
    ] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only this type, such as invoice.paid.")] = None,
    after: After = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Lists events, the newest first, with what became of each.

    \b
    Examples:
      rowhouse stripe events list
      rowhouse stripe events list --outcome waiting
    """
    with connect() as connection:
        page = stripe_account.list_events(connection, outcome=outcome, type_=type_, after=after, limit=limit)
    show_page(page, as_json=as_json, empty="There are no events.", whole=["id"])


Event = Annotated[str, typer.Argument(help="The event's id.", metavar="EVENT")]


@events.command("show")
def show_(event: Event, as_json: Json = False) -> None:
    """Shows an event with its payload.

    \b
    Example:
      rowhouse stripe events show evt_1Pgc76B7WZ01zgkWwyRHS12y
    """
    with connect() as connection:
        row = stripe_account.show_event(connection, event)
    show_one(row, as_json=as_json)


@events.command()
def replay(event: Event, as_json: Json = False) -> None:
    """Has an event processed again. It is as old as it was: what is newer stays.

    \b
    Example:
      rowhouse stripe events replay evt_1Pgc76B7WZ01zgkWwyRHS12y
    """
    with connect() as connection:
        stripe_account.replay_event(connection, event)
    done(f"{event} is processed again.", as_json=as_json)
