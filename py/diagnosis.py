"""Whether a database is sound: what it says of itself, and what it has against the files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import migrations, policies

if TYPE_CHECKING:
    from .database import Connection


def diagnose(connection: Connection) -> list[dict[str, Any]]:
    """Every finding, as severity (error or warning), subject, finding and hint.

    `connection` must be in autocommit. Raises RowhouseError where there is no Rowhouse to diagnose.
    """
    from psycopg.rows import dict_row

    pending = [row for row in migrations.status(connection) if row.state != "applied"]
    findings = [
        {
            "severity": "error",
            "subject": f"{row.version}_{row.name}",
            "finding": f"the migration is {row.state}",
            "hint": "rowhouse db status",
        }
        for row in pending
    ]
    with connection.cursor(row_factory=dict_row) as cursor:
        findings += cursor.execute("select * from ops.doctor()").fetchall()
    if not pending:
        findings += [
            {"severity": "error", "subject": "policies/", "finding": line, "hint": "rowhouse policies check"}
            for line in policies.check(connection)
        ]
    return findings
