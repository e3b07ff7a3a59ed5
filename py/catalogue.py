"""The catalogue: plans.toml, brought to the database and from there to Stripe. The rules are the database's."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from .errors import RefusedError, UsageError, from_postgres
from .queries import Row, fetch_rows
from .settings import project_root
from .stripe_account import carry, refuse_unless_done, start_run

if TYPE_CHECKING:
    from .database import Connection

CATALOGUE_OBJECTS = ["product", "price", "billing.meter", "entitlements.feature", "product_feature"]


def read_catalogue(file: Path | None = None) -> tuple[dict[str, Any], str, Path]:
    """plans.toml, its text, and where it is. Raises UsageError with the line where it is no TOML."""
    path = file or project_root() / "supabase" / "plans.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", "Give the file's path.") from None
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path.name}: {error}", "Mend the file; nothing was changed.") from None
    for place, value in _leaves(document, ""):
        if not isinstance(value, str | bool | int | float) or (isinstance(value, float) and not math.isfinite(value)):
            raise UsageError(
                f"{path.name}: {_at(text, place)}{place} is neither text, number, nor true or false.", MEND
            )
        if isinstance(value, str) and "\0" in value:
            raise UsageError(f"{path.name}: {_at(text, place)}{place} holds a null character.", MEND)
    return document, text, path


MEND = "Mend the file; nothing was changed."


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield f"{place}.{name}".strip("."), name
            yield from _leaves(item, f"{place}.{name}".strip("."))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{place}[{number}]")
    else:
        yield place, value


def _at(text: str, place: str) -> str:
    line = line_of(text, place)
    return f"line {line}: " if line else ""


def line_of(text: str, path: str) -> int | None:
    """The line of a TOML document that a path such as plans.pro.prices[1].amount leads to; None if none does."""
    wanted = re.sub(r"\[(\d+)\]", r".\1", path).split(".")
    best: tuple[int, int] | None = None
    place: list[str] = []
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        found: list[str] | None = None
        if array := re.match(r"\s*\[\[\s*([\w.\"-]+)\s*\]\]", line):
            name = array[1].replace('"', "")
            counts[name] = counts.get(name, -1) + 1
            found = place = [*name.split("."), str(counts[name])]
        elif table := re.match(r"\s*\[\s*([\w.\"-]+)\s*\]", line):
            found = place = table[1].replace('"', "").split(".")
        elif key := re.match(r"\s*([\w\"-]+)\s*=\s*(.*)", line):
            found = [*place, key[1].strip('"')]
            # An inline table holds the rest of the path.
            rest = wanted[len(found) :]
            if found == wanted[: len(found)] and rest and re.search(rf"\b{re.escape(rest[0])}\b\s*=", key[2]):
                found = wanted[: len(found) + 1]
        if found and found == wanted[: len(found)] and (best is None or len(found) > best[0]):
            best = (len(found), number)
    return best[1] if best else None


def apply_plans(connection: Connection, document: dict[str, Any], text: str, *, is_dry_run: bool) -> list[Row]:
    """Brings the database to the catalogue; returns the differences there were. Raises UsageError with the lines."""
    try:
        return fetch_rows(
            connection,
            "select path, before, after from billing.apply_plans(%(catalogue)s, %(dry)s)",
            {"catalogue": Jsonb(document), "dry": is_dry_run},
        )
    except Exception as error:
        refused = from_postgres(error)
        if not isinstance(refused, RefusedError) or refused.code != "catalogue_invalid":
            raise
        flaws = refused.details["flaws"] if isinstance(refused.details, dict) else []
        lines = []
        for flaw in flaws:
            line = line_of(text, flaw["path"])
            lines.append(f"{f'line {line}: ' if line else ''}{flaw['path'] or 'the file'} {flaw['flaw']}")
        raise UsageError("plans.toml:\n" + "\n".join(lines), "Mend the file; nothing was changed.") from None


def is_connected(connection: Connection) -> bool:
    """Whether the database belongs to a Stripe account."""
    return bool(fetch_rows(connection, "select account_id from billing.settings", {})[0]["account_id"])


def stripe_changes(connection: Connection) -> list[Row]:
    """What Stripe is still to be asked for so that it has the catalogue."""
    return fetch_rows(connection, "select what, path, params from billing.catalogue_calls()", {})


def push_catalogue(connection: Connection) -> Iterator[str]:
    """Brings Stripe to the catalogue, call after call; yields what was done. Raises RowhouseError."""
    run = start_run(
        connection, "sync", ["product", "price", "billing.meter", "entitlements.feature", "product_feature"]
    )
    connection.commit()
    for outcome in carry(connection, {"run": str(run)}):
        refuse_unless_done(outcome)
    while rows := fetch_rows(connection, "select request_id, what from billing.next_catalogue_request()", {}):
        connection.commit()
        for outcome in carry(connection, {"request": str(rows[0]["request_id"])}):
            refuse_unless_done(outcome)
        yield str(rows[0]["what"])
