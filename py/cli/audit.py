"""`rowhouse audit`."""

from __future__ import annotations

import csv
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from .. import records
from ..database import connect
from ..errors import UsageError
from .output import Json, bar, cell, done, plain, print_json, show

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Who changed what: search, export, verify, anchors."
)

Workspace = Annotated[str | None, typer.Option("--workspace", help="Only of this workspace.", metavar="SLUG")]
Action = Annotated[str | None, typer.Option(help="Only this action; tasks.* is every action on tasks.")]
Actor = Annotated[str | None, typer.Option(help="Only by this person (e-mail), job, schedule or operator.")]
RowId = Annotated[str | None, typer.Option("--row", help="Only about the thing of this id.")]
Since = Annotated[str | None, typer.Option(help="Not before this time, such as 2026-11-01.")]
Until = Annotated[str | None, typer.Option(help="Before this time.")]


class Format(StrEnum):
    """What an export is written as."""

    ndjson = "ndjson"
    csv = "csv"


@app.command()
def search(
    workspace: Workspace = None,
    action: Action = None,
    actor: Actor = None,
    row: RowId = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(help="At most so many, the newest first.", min=1, max=100_000)] = 50,
    as_json: Json = False,
) -> None:
    """Shows who changed what, the newest first.

    \b
    Examples:
      rowhouse audit search --workspace acme --since 2026-11-01
      rowhouse audit search --action "members.*" --actor ada@acme.example --json
    """
    with connect() as connection:
        found = list(
            records.search_records(
                connection,
                workspace=workspace,
                action=action,
                actor=actor,
                row=row,
                since=since,
                until=until,
                limit=limit,
            )
        )
    if as_json:
        print_json(found)
        return
    show(
        [
            {
                "when": record["occurred_at"],
                "action": record["action"],
                "row": record["row_id"],
                "by": f"{record['actor_kind']} {record['actor_name'] or record['actor_id'] or ''}".strip(),
                "before": _short(record["before"]),
                "after": _short(record["after"]),
                "ip": record["ip"],
            }
            for record in found
        ],
        as_json=False,
        empty="No record fits.",
    )


def _short(values: dict[str, Any] | None) -> str:
    text = ", ".join(f"{key}={value}" for key, value in (values or {}).items())
    return text if len(text) <= 80 else text[:79] + "…"


@app.command()
def export(
    output: Annotated[Path | None, typer.Option(help="The file; the terminal by default.", metavar="FILE")] = None,
    form: Annotated[Format, typer.Option("--format", help="One JSON object a line, or a table.")] = Format.ndjson,
    workspace: Workspace = None,
    action: Action = None,
    actor: Actor = None,
    row: RowId = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Writes records, the oldest first, as they come from the database.

    \b
    Examples:
      rowhouse audit export --workspace acme --output acme.ndjson
      rowhouse audit export --since 2026-01-01 --format csv > audit.csv
    """
    with connect() as connection:
        found = records.search_records(
            connection, workspace=workspace, action=action, actor=actor, row=row, since=since, until=until, limit=None,
            newest_first=False,
        )  # fmt: skip
        if output is None:
            _write(sys.stdout, form, found, lambda: None)
            return
        # Under another name until it is whole.
        partial = output.with_name(output.name + ".partial")
        with bar("Exporting") as progress, partial.open("w", encoding="utf-8", newline="") as file:
            task = progress.add_task("records", total=None)
            count = _write(file, form, found, lambda: progress.advance(task))
        partial.replace(output)
    typer.echo(f"{count} records are in {output}.", err=True)


def _write(file: IO[str], form: Format, found: Any, tick: Any) -> int:
    count = 0
    table = csv.writer(file) if form is Format.csv else None
    if table:
        table.writerow(records.COLUMNS)
    for record in found:
        if table:
            table.writerow(
                json.dumps(value, ensure_ascii=False, default=plain) if isinstance(value, dict | list) else _safe(value)
                for value in record.values()
            )
        else:
            file.write(json.dumps(record, ensure_ascii=False, default=plain) + "\n")
        count += 1
        tick()
    return count


def _safe(value: Any) -> Any:
    """A spreadsheet would run a cell that begins like a formula."""
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


@app.command()
def verify(
    anchors: Annotated[
        Path | None, typer.Option(help="Seals that `rowhouse audit anchors` wrote before.", metavar="FILE")
    ] = None,
    as_json: Json = False,
) -> None:
    """Checks that no sealed record was edited, deleted, moved or inserted. Exit code 5 if one was.

    Without anchors, whoever owns the database could have written the whole chain anew; with anchors kept
    elsewhere, they could not.

    \b
    Examples:
      rowhouse audit verify
      rowhouse audit verify --anchors anchors.ndjson
    """
    known = _read_anchors(anchors) if anchors else []
    with connect(autocommit=True) as connection, bar("Verifying", hidden=as_json) as progress:
        task = progress.add_task("seals", total=None)
        findings = records.verify_chain(
            connection, known, lambda so_far, total: progress.update(task, completed=so_far, total=total)
        )
    if as_json:
        print_json({"is_sound": not findings, "findings": findings})
    else:
        show(findings, as_json=False, empty="The chain holds: nothing that was sealed has changed.")
    if findings:
        raise typer.Exit(5)


def _read_anchors(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines if line.strip()]
        if not all(isinstance(a["seal"], int) and isinstance(a["hash"], str) for a in found):
            raise TypeError
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", "Use what `rowhouse audit anchors` wrote.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{cell(str(path))} holds no anchors.", "Use what `rowhouse audit anchors` wrote.") from error
    return found


@app.command("anchors")
def anchors_(
    output: Annotated[Path | None, typer.Option(help="The file; the terminal by default.", metavar="FILE")] = None,
) -> None:
    """Writes the seals, one JSON object a line, to be kept where the database's owner cannot reach them.

    \b
    Example:
      rowhouse audit anchors --output anchors.ndjson
    """
    with connect() as connection:
        seals = records.anchors(connection)
    text = "".join(json.dumps(seal, default=plain) + "\n" for seal in seals)
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
        typer.echo(f"{len(seals)} seals are in {output}.", err=True)


@app.command()
def seal(as_json: Json = False) -> None:
    """Seals the records that wait, as pg_cron does every minute.

    \b
    Example:
      rowhouse audit seal
    """
    with connect() as connection:
        sealed = records.seal(connection)
    done(f"{sealed} records were sealed.", as_json=as_json, sealed=sealed)
