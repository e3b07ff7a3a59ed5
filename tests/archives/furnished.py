"""A workspace with something in every corner, to take out and to erase."""

from __future__ import annotations

from typing import Any

import psycopg

from ..identities import add_member, as_user, make_project, make_task, make_user, make_workspace, one, run

Connection = psycopg.Connection[Any]


def quiet(_: str, __: int) -> None:
    """No progress."""


def furnish(db: Connection, slug: str = "acme") -> dict[str, Any]:
    """A workspace with something in every corner: trash, roles, limits, money, somebody who has left."""
    owner, leaver = make_user(db, f"owner@{slug}.example"), make_user(db, f"left@{slug}.example")
    workspace = make_workspace(db, owner, slug=slug)
    add_member(db, workspace, "member", leaver)
    project = make_project(db, workspace, lead=owner, name="Apollo")
    with as_user(db, leaver):
        run(
            db,
            "insert into tasks (workspace_id, project_id, title) values (%s, %s, 'Left behind')",
            [workspace, project],
        )
    run(db, "select tenancy.drop_member(%s, %s)", [workspace, leaver])
    gone = make_task(db, workspace, project, "In the trash")
    run(db, "delete from tasks where id = %s", [gone])
    run(db, "insert into roles (workspace_id, key, name) values (%s, 'auditor', 'Auditor')", [workspace])
    run(db, "insert into role_permissions select id, 'tasks.read' from roles where workspace_id = %s", [workspace])
    run(
        db,
        "insert into billing.limit_overrides (workspace_id, resource, max, reason) values (%s, 'projects', 1, 'agreed')",
        [workspace],
    )
    with as_user(db, owner):
        run(db, "select * from invite_member(%s, 'guest@example.com', 'member')", [workspace])
        customer = one(
            db, "insert into customers (workspace_id, name) values (%s, 'Ada Lovelace') returning id", [workspace]
        )
        ticket = one(
            db,
            "insert into tickets (workspace_id, customer_id, device) values (%s, %s, 'Engine') returning id",
            [workspace, customer],
        )
        run(db, "update tickets set status = 'diagnosing'")
        run(db, "select record_charge(%s, %s, 1000, 'c')", [workspace, ticket])
        payment = one(db, "select record_payment(%s, %s, 600, 'card', 'p')", [workspace, ticket])
        refund = one(db, "select record_refund(%s, %s, 100, 'late', 'r')", [workspace, payment])
    run(db, "select ledger.reverse(%s, %s, 'typo')", [workspace, refund])
    run(db, "select ledger.close_period(%s, '2026-01-31')", [workspace])
    return {"owner": owner, "workspace": workspace, "gone": gone, "project": project, "ticket": ticket}
