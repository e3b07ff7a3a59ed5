"""Connections. Functions elsewhere take one as their first argument, so that callers own the transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .errors import UsageError, from_postgres

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[Any]


def operator() -> str:
    """The name of whoever runs this process, as far as the system knows it."""
    import getpass

    try:
        return getpass.getuser()[:200]
    except (KeyError, OSError):
        return "unknown"


@contextmanager
def connect(url: str | None = None, *, autocommit: bool = False) -> Iterator[Connection]:
    """Opens a connection; commits at the end, rolls back on an exception.

    `url` is a libpq connection string; by default the one `settings.database_url` finds. Raises
    RowhouseError, by SQLSTATE, for whatever the database answers.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    from .settings import database_url

    address = url or database_url()
    try:
        if "@" in str(conninfo_to_dict(address).get("host", "")):
            # What libpq takes for the host holds a part of the password, and an error would print it.
            raise UsageError("DATABASE_URL has an @ too many.", "Write %40 for an @ in the password.")
        with psycopg.connect(
            address, autocommit=autocommit, connect_timeout=10, application_name="rowhouse"
        ) as connection:
            # Whoever reads the audit log sees who sat at the terminal.
            connection.execute("select set_config('rowhouse.actor', %s, false)", [f"cli:{operator()}"])
            yield connection
    except psycopg.Error as error:
        raise from_postgres(error) from error
