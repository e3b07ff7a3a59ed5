"""The ledger, as operators see it: each function is one SQL call on the connection it is given."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from .administration import workspace_id
from .errors import RefusedError, UsageError
from .queries import Page, Row, fetch_page, fetch_rows, storable

if TYPE_CHECKING:
    from .database import Connection


OPERATOR = "@operator"


def books_of(connection: Connection, slug: str) -> Any:
    """Whose books are meant: a workspace's by its slug, or the operator's own for @operator."""
    if slug == OPERATOR:
        return fetch_rows(connection, "select ledger.operator_books() as id")[0]["id"]
    return workspace_id(connection, slug)


def list_balances(connection: Connection, slug: str) -> list[Row]:
    """Every account of a workspace with its balance in minor units: debits minus credits."""
    return fetch_rows(
        connection,
        """
        select a.code, a.name, a.kind, a.currency, b.balance, b.entry_count as entries, c.minor_digits
        from ledger.accounts a
        join ledger.balances b on b.workspace_id = a.workspace_id and b.account_id = a.id
        join ledger.currencies c on c.code = a.currency
        where a.workspace_id = %(id)s order by a.code
        """,
        {"id": books_of(connection, slug)},
    )


def trial_balance(connection: Connection, slug: str) -> list[Row]:
    """Debits and credits by kind and currency; both sums are equal in every currency."""
    return fetch_rows(
        connection,
        """
        select a.currency, a.kind, sum(greatest(b.balance, 0))::bigint as debit,
            sum(greatest(-b.balance, 0))::bigint as credit, min(c.minor_digits) as minor_digits
        from ledger.accounts a
        join ledger.balances b on b.workspace_id = a.workspace_id and b.account_id = a.id
        join ledger.currencies c on c.code = a.currency
        where a.workspace_id = %(id)s group by 1, 2 order by 1, 2
        """,
        {"id": books_of(connection, slug)},
    )


def statement(connection: Connection, slug: str, account: str, *, after: str | None, limit: int) -> Page:
    """One page of an account, in order; `after` is the number that the page before ended with."""
    workspace = books_of(connection, slug)
    found = fetch_rows(
        connection,
        "select id from ledger.accounts where workspace_id = %(w)s and code = %(code)s",
        {"w": workspace, "code": storable(account)},
    )
    if not found:
        raise RefusedError(
            f"There is no account {account[:100]!r}.", "`rowhouse ledger balances` lists them.", "account_not_found"
        )
    if after is not None and not after.isdigit():
        raise UsageError(f"{after[:40]!r} is no cursor.", "Use what the page before ended with.")
    return fetch_page(
        connection,
        """
        select e.number, x.occurred_on, x.kind, x.description, case when e.amount > 0 then e.amount end as debit,
            case when e.amount < 0 then -e.amount end as credit, e.balance, e.transaction_id
        from ledger.entries e
        join ledger.transactions x on x.workspace_id = e.workspace_id and x.id = e.transaction_id
        where e.workspace_id = %(w)s and e.account_id = %(account)s and e.number > coalesce(%(after)s::bigint, 0)
        order by e.number limit %(limit)s
        """,
        {"w": workspace, "account": found[0]["id"], "after": after},
        "number",
        limit,
    )


def parse_entry(text: str, side: str) -> dict[str, Any]:
    """Reads `ACCOUNT=AMOUNT`. Raises UsageError."""
    account, separator, amount = text.rpartition("=")
    if not separator or not account or not re.fullmatch(r"[1-9][0-9]{0,14}", amount):
        raise UsageError(f"{text[:100]!r} is no {side}.", "Write ACCOUNT=AMOUNT in minor units, such as cash:EUR=1200.")
    return {"account": account, side: int(amount)}


def open_account(connection: Connection, slug: str, code: str, kind: str, currency: str, name: str) -> str:
    """Opens an account; returns its id. Raises RefusedError (currency_unknown, account_differs)."""
    row = fetch_rows(
        connection,
        "select ledger.open_account(%(w)s, %(code)s, %(kind)s, %(currency)s, %(name)s) as id",
        {"w": books_of(connection, slug), "code": code, "kind": kind, "currency": currency, "name": name},
    )
    return str(row[0]["id"])


def post(
    connection: Connection, slug: str, key: str, entries: list[dict[str, Any]], description: str, day: str | None
) -> str:
    """Posts a transaction; returns its id. Raises RefusedError (entries_unbalanced, period_closed, …)."""
    row = fetch_rows(
        connection,
        "select ledger.post(%(w)s, %(key)s, %(entries)s::jsonb, %(description)s, %(day)s::date) as id",
        {
            "w": books_of(connection, slug), "key": storable(key), "entries": json.dumps(entries),
            "description": storable(description), "day": day,
        },
    )  # fmt: skip
    return str(row[0]["id"])


def reverse(connection: Connection, slug: str, transaction: str, reason: str) -> str:
    """Undoes a transaction; returns the id of the reversal. Raises RefusedError (already_reversed, …)."""
    row = fetch_rows(
        connection,
        "select ledger.reverse(%(w)s, %(transaction)s, %(reason)s) as id",
        {"w": books_of(connection, slug), "transaction": transaction, "reason": storable(reason)},
    )
    return str(row[0]["id"])


def close_period(connection: Connection, slug: str, until: str) -> None:
    """Closes the books until a day, for good. Raises RefusedError (period_closed, period_invalid)."""
    connection.execute("select ledger.close_period(%s, %s::date)", [books_of(connection, slug), until])


def workspaces_with_books(connection: Connection, slug: str | None) -> list[Row]:
    """The workspaces that have accounts, those that are gone too; or one by its slug."""
    if slug is not None:
        return [{"id": books_of(connection, slug), "slug": slug}]
    return fetch_rows(
        connection,
        """
        select a.workspace_id as id, coalesce(
            w.slug, case when a.workspace_id = ledger.operator_books() then '@operator' end, a.workspace_id::text
        ) as slug
        from (select distinct workspace_id from ledger.accounts) a
        left join public.workspaces w on w.id = a.workspace_id order by 2
        """,
    )


def check(connection: Connection, workspace: Any) -> list[Row]:
    """What differs when the books of a workspace are derived anew; an empty list if nothing does."""
    return fetch_rows(connection, "select * from ledger.findings(%(id)s)", {"id": workspace})
