"""The errors that a person can act on; everything else is a defect and shows its traceback."""

from __future__ import annotations

import json
from typing import Any


class RowhouseError(Exception):
    """Something went wrong that one sentence can say.

    `hint` says what to do about it; `exit_code` is what the command line ends with.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(RowhouseError):
    """What was asked for makes no sense as asked."""

    exit_code = 2


class DatabaseUnreachableError(RowhouseError):
    """No database answers at the address given."""

    exit_code = 3


class RefusedError(RowhouseError):
    """The database refused: a rule of the house, with its stable code.

    `code` is one of docs/errors.md, or an SQLSTATE.
    """

    exit_code = 4

    def __init__(self, message: str, hint: str | None = None, code: str = "", details: Any = None) -> None:
        super().__init__(message, hint)
        self.code = code
        self.details = details


class FindingsError(RowhouseError):
    """A check ran to its end and found something."""

    exit_code = 5


class MigrationError(RowhouseError):
    """A migration could not be applied or taken back; the database is as it was."""

    exit_code = 6


def from_postgres(error: Exception) -> RowhouseError:
    """Translates a psycopg error by its SQLSTATE, never by its text.

    SQLSTATE PGRST carries what `ops.raise_http` was given, as JSON in the message.
    """
    import psycopg

    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
        return DatabaseUnreachableError(
            f"The database cannot be reached: {first_line}",
            "Check DATABASE_URL; `rowhouse local up` starts a local one.",
        )
    if not isinstance(error, psycopg.Error):
        raise error
    if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
        # libpq quotes what it could not read, and that may hold the password.
        return DatabaseUnreachableError(
            "The database cannot be reached: its address is not a connection string.",
            "DATABASE_URL is like postgresql://user:password@host:5432/postgres.",
        )
    message = error.diag.message_primary or str(error)
    if error.sqlstate == "PGRST":
        body = json.loads(message)
        details = json.loads(body["details"]) if body.get("details") else None
        return RefusedError(body["message"], body.get("hint"), body["code"], details)
    hint = error.diag.message_hint
    if error.sqlstate in {"3F000", "42P01", "42883"}:
        hint = "The schema is not the one this version expects: `rowhouse db migrate` brings it up to date."
    return RefusedError(message, hint, error.sqlstate or "")
