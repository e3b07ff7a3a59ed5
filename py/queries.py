"""What all operator queries share: rows as dictionaries, pages, and text that Postgres can take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import UsageError

if TYPE_CHECKING:
    from .database import Connection

Row = dict[str, Any]


@dataclass(frozen=True)
class Page:
    """One page of a list: its rows, and the cursor of the next page, None on the last."""

    rows: list[Row]
    next_after: str | None


def fetch_rows(connection: Connection, query: str, parameters: Row | None = None) -> list[Row]:
    """Runs a statement; returns its rows."""
    from psycopg.rows import dict_row

    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()


def fetch_page(connection: Connection, query: str, parameters: Row, cursor_column: str, limit: int) -> Page:
    """Runs a query that ends with `limit %(limit)s`; returns a page and the cursor of the next, of `cursor_column`."""
    # One row more than asked for tells whether there is a next page.
    rows = fetch_rows(connection, query, {**parameters, "limit": limit + 1})
    more = len(rows) > limit
    rows = rows[:limit]
    return Page(rows, str(rows[-1][cursor_column]) if more else None)


def escape_like(text: str) -> str:
    """A text as LIKE finds it, whatever is in it."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def containing(search: str | None) -> str | None:
    """A LIKE pattern for what contains a text in lower case; None for none."""
    return None if search is None else f"%{escape_like(search.lower())}%"


def storable(text: str) -> str:
    """The text itself. Raises UsageError for one that Postgres cannot hold."""
    if "\0" in text:
        raise UsageError("Text cannot hold a null character.", "Leave it out.")
    return text
