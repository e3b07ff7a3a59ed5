"""`rowhouse jobs`."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from .. import operations
from ..database import connect
from ..errors import UsageError
from ..queries import Page
from .listing import After, Limit, Yes, show_page
from .output import Json, confirm, done, show, show_one

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The queue: what waits, runs, failed or was done.")

Ids = Annotated[list[int] | None, typer.Argument(help="The jobs' ids.", metavar="[JOB]...")]
Kind = Annotated[str | None, typer.Option(help="Only of this kind.")]
All = Annotated[bool, typer.Option("--all", help="All that have failed, or all of the --kind.")]


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help=f"Only in this state: {', '.join(operations.STATES)}.")] = None,
    kind: Kind = None,
    workspace: Annotated[str | None, typer.Option(help="Only of this workspace, by its slug.")] = None,
    finished: Annotated[bool, typer.Option("--finished", help="Those of the history.")] = False,
    after: After = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Lists jobs, the newest first.

    \b
    Examples:
      rowhouse jobs list --state failed
      rowhouse jobs list --kind notify.send --workspace acme
      rowhouse jobs list --finished
    """
    with connect() as connection:
        page = operations.list_jobs(
            connection, state=state, kind=kind, workspace=workspace, finished=finished, after=after, limit=limit
        )
    show_page(page if as_json else _for_people(page), as_json=as_json, empty="No jobs.", whole=("kind",))


def _for_people(page: Page) -> Page:
    """What fits a terminal: `jobs show` has the rest."""
    names = ("id", "kind", "workspace", "state", "attempts", "run_at", "finished_at", "last_error")
    return Page([{name: row[name] for name in names if name in row} for row in page.rows], page.next_after)


@app.command("show")
def show_(job: Annotated[int, typer.Argument(help="Its id.", metavar="JOB")], as_json: Json = False) -> None:
    """Shows a job with its payload and its last error.

    \b
    Example:
      rowhouse jobs show 1234
    """
    with connect() as connection:
        row = operations.show_job(connection, job)
    show_one(row, as_json=as_json)


@app.command()
def dead(kind: Kind = None, after: After = None, limit: Limit = 50, as_json: Json = False) -> None:
    """Lists the dead letters: jobs that are out of attempts, with their errors.

    \b
    Example:
      rowhouse jobs dead --kind notify.send
    """
    with connect() as connection:
        page = operations.list_jobs(connection, state="failed", kind=kind, after=after, limit=limit)
    show_page(
        page if as_json else _for_people(page), as_json=as_json, empty="Nothing has failed for good.", whole=("kind",)
    )


def _chosen(connection: Any, ids: list[int] | None, kind: str | None, everything: bool) -> list[int]:
    if bool(ids) == (everything or kind is not None):
        raise UsageError("Which jobs?", "Name their ids, or give --kind or --all.")
    return ids or operations.failed_jobs(connection, kind)


@app.command()
def retry(jobs: Ids = None, kind: Kind = None, everything: All = False, as_json: Json = False) -> None:
    """Runs failed jobs again, with all their attempts.

    \b
    Examples:
      rowhouse jobs retry 1234 1235
      rowhouse jobs retry --kind notify.send
    """
    with connect() as connection:
        count = operations.retry_jobs(connection, _chosen(connection, jobs, kind, everything))
    done(f"{count} jobs wait again.", as_json=as_json, retried=count)


@app.command()
def discard(
    jobs: Ids = None, kind: Kind = None, everything: All = False, yes: Yes = False, as_json: Json = False
) -> None:
    """Drops jobs that failed, or that wait, by id. They stay in the history.

    \b
    Examples:
      rowhouse jobs discard 1234
      rowhouse jobs discard --kind crm.push --yes
    """
    with connect() as connection:
        chosen = _chosen(connection, jobs, kind, everything)
        confirm(f"Discard {len(chosen)} jobs?", yes=yes)
        count = operations.discard_jobs(connection, chosen)
    done(f"{count} jobs discarded.", as_json=as_json, discarded=count)


@app.command()
def stats(as_json: Json = False) -> None:
    """Shows each queue: ready, later, processing, failed, and the age of its oldest ready job; and what is too much.

    \b
    Example:
      rowhouse jobs stats
    """
    with connect() as connection:
        rows, alarms = operations.queue_stats(connection), operations.alarms(connection)
    if as_json:
        show([{"queues": rows, "alarms": alarms}], as_json=True)
        return
    show(_rounded(rows), as_json=False, empty="The queue is empty.")
    if alarms:
        show(alarms, as_json=False, title="Alarms")


def _rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "oldest_seconds": round(row["oldest_seconds"])} for row in rows]


@app.command()
def watch(
    seconds: Annotated[float, typer.Option(help="Between two looks.", min=0.2, max=60)] = 1,
    looks: Annotated[int | None, typer.Option(help="End after so many.", min=1)] = None,
) -> None:
    """Shows the queues live, and how many jobs a second come and go. Ctrl-C ends it.

    \b
    Example:
      rowhouse jobs watch
    """
    from rich.live import Live
    from rich.table import Table

    def draw(rows: list[dict[str, Any]], rates: dict[tuple[str, str], float]) -> Table:
        table = Table(header_style="bold")
        for name in ("queue", "executor", "ready", "later", "processing", "failed", "oldest", "completed/s"):
            table.add_column(name, justify="left" if name in ("queue", "executor") else "right")
        for row in rows:
            names = ("queue", "executor", "ready", "later", "processing", "failed")
            rate = rates.get((row["queue"], row["executor"]), 0.0)
            table.add_row(*(str(row[name]) for name in names), f"{row['oldest_seconds']:.0f} s", f"{rate:,.1f}")
        return table

    with connect(autocommit=True) as connection, Live(refresh_per_second=4) as live:
        before: dict[tuple[str, str], int] = {}
        count = 0
        try:
            while looks is None or count < looks:
                rows = operations.queue_stats(connection)
                now = {(row["queue"], row["executor"]): int(row["completed_in_the_last_hour"]) for row in rows}
                rates = {key: max(0, value - before.get(key, value)) / seconds for key, value in now.items()}
                live.update(draw(rows, rates))
                before, count = now, count + 1
                if looks is None or count < looks:
                    time.sleep(seconds)
        except KeyboardInterrupt:
            pass


@app.command()
def enqueue(
    kind: Annotated[str, typer.Argument(help="Its kind.", metavar="KIND")],
    payload: Annotated[str, typer.Argument(help="Its payload, as JSON.", metavar="JSON")] = "{}",
    queue: Annotated[str | None, typer.Option(help="The queue, if not the kind's own.")] = None,
    priority: Annotated[int | None, typer.Option(help="0 to 1000; lower goes first.")] = None,
    run_at: Annotated[str | None, typer.Option(help="Not before, such as 2027-01-31T09:00Z.")] = None,
    dedupe_key: Annotated[str | None, typer.Option(help="Of one kind and key only one waits.")] = None,
    as_json: Json = False,
) -> None:
    """Enqueues a job.

    \b
    Examples:
      rowhouse jobs enqueue crm.push '{"customer": 7}'
      rowhouse jobs enqueue reports.build --run-at 2027-01-31T09:00Z
    """
    with connect() as connection:
        job = operations.enqueue(
            connection, kind, payload, queue=queue, priority=priority, run_at=run_at, dedupe_key=dedupe_key
        )
    done(f"Job {job} is enqueued.", as_json=as_json, job=job)
