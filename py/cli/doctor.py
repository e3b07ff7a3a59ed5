"""`rowhouse doctor`."""

from __future__ import annotations

import typer

from .. import diagnosis
from ..database import connect
from .output import Json, print_json, show


def doctor(as_json: Json = False) -> None:
    """Checks whether a database is sound. Exit code 5 if something is wrong.

    Checks the server's version and clock, pg_cron, migrations and policies against the files, row
    level security, grants, definer functions, tenant tables and their indexes, owners, plans and
    usage counters. Changes nothing.

    \b
    Examples:
      rowhouse doctor
      rowhouse doctor --json
    """
    with connect(autocommit=True) as connection:
        findings = diagnosis.diagnose(connection)
    errors = [finding for finding in findings if finding["severity"] == "error"]
    if as_json:
        print_json({"is_sound": not errors, "findings": findings})
    else:
        show(findings, as_json=False, empty="This database is sound.")
    if errors:
        raise typer.Exit(5)
