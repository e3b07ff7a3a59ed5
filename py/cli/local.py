"""`rowhouse local`: the local platform."""

from __future__ import annotations

import html
import json
import subprocess
import time
from typing import Annotated, Any

import typer

from ..errors import RowhouseError, UsageError
from .output import Json, confirm, done, open_page, show

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The local platform: Postgres, PostgREST, auth and edge functions on this machine, without Docker.",
)

SERVICES = ("database", "rest", "auth", "functions", "providers", "stripe", "worker", "gateway")


@app.command()
def up(as_json: Json = False) -> None:
    """Starts the platform, migrates it, and seeds it if it is new. Does nothing if it runs.

    Ports come from ROWHOUSE_API_PORT (54321), ROWHOUSE_DB_PORT (54322) and the like; its files are
    in .rowhouse, or where ROWHOUSE_HOME says.

    \b
    Examples:
      rowhouse local up
      ROWHOUSE_API_PORT=8000 rowhouse local up
    """
    from ..local import platform
    from ..local.instance import Instance

    begun = time.monotonic()
    state = platform.up(Instance.default(), report=lambda step: None if as_json else typer.echo(f"… {step}"))
    done(
        f"Rowhouse runs at {state.api_url} ({time.monotonic() - begun:.1f} s). `rowhouse local env` prints its keys.",
        as_json=as_json,
        url=state.api_url,
    )


@app.command()
def down(as_json: Json = False) -> None:
    """Stops the platform; its data stay.

    \b
    Example:
      rowhouse local down
    """
    from ..local import platform
    from ..local.instance import Instance

    ran = platform.down(Instance.default())
    done("Stopped." if ran else "Nothing was running.", as_json=as_json)


@app.command()
def status(as_json: Json = False) -> None:
    """Shows each service and where it is. Exit code 5 unless all run.

    \b
    Example:
      rowhouse local status
    """
    from ..local import platform
    from ..local.instance import Instance

    instance = Instance.default()
    ports = instance.load().ports if instance.exists() else {}
    by_service = {"database": "db", "gateway": "api"}
    interface = platform.supervisor(instance) if ports else None
    states: dict[str, dict[str, Any]] = {row["name"]: row for row in interface.getAllProcessInfo()} if interface else {}
    rows = []
    for name in SERVICES:
        process = states.get(name, {})
        port = ports.get(by_service.get(name, name))
        address = f"127.0.0.1:{port}" if port else ""
        rows.append(
            {
                "service": name,
                "state": str(process.get("statename", "stopped")).lower(),
                "pid": process.get("pid") or None,
                "address": address,
            }
        )
    show(rows, as_json=as_json)
    if any(row["state"] != "running" for row in rows):
        raise typer.Exit(5)


@app.command()
def env(as_json: Json = False) -> None:
    """Prints what a client needs, as KEY=value lines.

    \b
    Examples:
      rowhouse local env > .env
      eval "$(rowhouse local env | sed 's/^/export /')"
    """
    from ..local.instance import Instance

    values = Instance.default().load().environment()
    if as_json:
        typer.echo(json.dumps(values, indent=2))
    else:
        typer.echo("\n".join(f"{name}={value}" for name, value in values.items()))


@app.command()
def reset(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, as_json: Json = False) -> None:
    """Stops the platform, deletes its database and its keys, and starts it afresh.

    \b
    Example:
      rowhouse local reset --yes
    """
    from ..local import platform
    from ..local.instance import Instance

    instance = Instance.default()
    confirm(f"Delete the database in {instance.home}?", yes=yes)
    platform.down(instance)
    instance.remove()
    up(as_json=as_json)


@app.command()
def logs(
    service: Annotated[str | None, typer.Argument(help=f"One of {', '.join(SERVICES)}; all without it.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 50,
) -> None:
    """Shows what the services wrote.

    \b
    Examples:
      rowhouse local logs auth
      rowhouse local logs -f
    """
    from ..local.instance import Instance

    if service is not None and service not in SERVICES:
        raise UsageError(f"There is no service {service!r}.", f"Use one of {', '.join(SERVICES)}.")
    folder = Instance.default().logs
    files = [folder / f"{name}.log" for name in SERVICES if service in (None, name)]
    there = [str(file) for file in files if file.is_file()]
    if not there:
        raise RowhouseError("There are no logs yet.", "Start the platform with `rowhouse local up`.")
    command = ["tail", "-n", str(lines), *(["-F"] if follow else []), *there]
    try:
        subprocess.run(command, check=False)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command()
def mail(
    to: Annotated[str | None, typer.Option(help="Only messages to this address or number.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show the newest in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """Shows the mails and SMS that were sent, the newest last. None left this machine.

    \b
    Examples:
      rowhouse local mail
      rowhouse local mail --to ada@example.com --json
      rowhouse local mail --open
    """
    from ..local.instance import Instance

    instance = Instance.default()
    rows = [row for row in instance.messages() if to is None or row["to"].lower() == to.lower()]
    if open_:
        if not rows:
            raise RowhouseError("No mail yet.", "Sign somebody up, or invite somebody.")
        open_page(rows[-1]["html"] or f"<pre>{html.escape(rows[-1]['text'])}</pre>", instance.home / "mail.html")
        return
    if not as_json:
        rows = [
            {key: row.get(key) for key in ("at", "to", "subject", "link")}
            | ({"subject": row["text"]} if row["channel"] == "sms" else {})
            for row in rows
        ]
    show(rows, as_json=as_json, empty="No mail yet.")


@app.command()
def demo() -> None:
    """Starts a platform of its own on free ports, walks through it over HTTP, and leaves nothing behind.

    \b
    Example:
      make demo
    """
    from ..local import tour

    raise typer.Exit(tour.run())
