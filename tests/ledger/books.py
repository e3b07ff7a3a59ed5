"""Books to test with: a workspace with accounts, and what must always hold of it."""

from __future__ import annotations

import json
import uuid
from typing import Any

import psycopg

from ..identities import add_member, make_user, make_workspace, one, run

Connection = psycopg.Connection[Any]


def entries(*items: tuple[str, int]) -> str:
    """Entries as JSON: positive amounts are debits."""
    return json.dumps([{"account": a, "debit" if n > 0 else "credit": abs(n)} for a, n in items])


def post(db: Connection, workspace: Any, *items: tuple[str, int], key: str | None = None, **more: Any) -> Any:
    return one(
        db,
        "select ledger.post(%s, %s, %s::jsonb, %s, %s)",
        [workspace, key or str(uuid.uuid4()), entries(*items), more.get("description", ""), more.get("day")],
    )


def make_books(db: Connection, accounts: int = 4) -> Any:
    """A workspace with assets a0, a1, … in EUR, one in USD, and one that refuses to be overdrawn."""
    workspace = make_workspace(db, make_user(db))
    for n in range(accounts):
        run(db, "select ledger.open_account(%s, %s, 'asset', 'EUR')", [workspace, f"a{n}"])
    run(
        db,
        "select ledger.open_account(%s, 'usd', 'asset', 'USD'), ledger.open_account(%s, 'fx', 'equity', 'USD')",
        [workspace] * 2,
    )
    run(db, "select ledger.open_account(%s, 'till', 'asset', 'EUR', '', true)", [workspace])
    run(db, "select ledger.open_account(%s, 'deposits', 'liability', 'EUR', '', true)", [workspace])
    return workspace


def balances(db: Connection, workspace: Any) -> dict[str, int]:
    return {
        row["code"]: row["balance"]
        for row in run(
            db,
            "select a.code, b.balance from ledger.accounts a join ledger.balances b "
            "on b.workspace_id = a.workspace_id and b.account_id = a.id where a.workspace_id = %s",
            [workspace],
        )
    }


def sums(db: Connection, workspace: Any) -> dict[str, int]:
    """The balances as the entries have them."""
    return {
        row["code"]: int(row["total"])
        for row in run(
            db,
            "select a.code, coalesce(sum(e.amount), 0) as total from ledger.accounts a left join ledger.entries e "
            "on e.workspace_id = a.workspace_id and e.account_id = a.id where a.workspace_id = %s group by 1",
            [workspace],
        )
    }


def make_desk(db: Connection) -> dict[str, Any]:
    """A repair shop: an owner, a member, a viewer, a customer and a ticket."""
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    customer = one(db, "insert into customers (workspace_id, name) values (%s, 'Ada') returning id", [workspace])
    ticket = one(
        db,
        "insert into tickets (workspace_id, customer_id, device, estimate) values (%s, %s, 'Phone', 12000) returning id",
        [workspace, customer],
    )
    return {
        "owner": owner, "workspace": workspace, "customer": customer, "ticket": ticket,
        "member": add_member(db, workspace, "member"), "viewer": add_member(db, workspace, "viewer"),
    }  # fmt: skip
