"""Whether what is known here is what Stripe knows: objects, access, money."""

from __future__ import annotations

import uuid
from typing import Any

from psycopg.types.json import Jsonb

from ..identities import one, run
from ..support.stripe_server.shapes import render
from .world import Billing

# What Stripe sends no events of, and what is only a step on the way.
UNTOLD = ("customer_balance_transaction", "entitlements.feature", "product_feature", "checkout.session")


def differences(billing: Billing, *, besides: tuple[str, ...] = UNTOLD) -> list[str]:
    """Objects that are known otherwise than Stripe has them, or not at all."""
    kinds = [row["object"] for row in run(billing.connection, "select object from billing.object_types")]
    found = []
    for kind in kinds:
        if kind in (*besides, "entitlements.active_entitlement_summary"):
            continue
        for truth in billing.stripe.store.every(kind):
            shown = render(billing.stripe.store, truth, billing.stripe.version)
            rows = run(
                billing.connection,
                "select billing.facts_of(o.data) as here, billing.facts_of(%s) as there, o.is_deleted from billing.objects o where o.id = %s",
                [Jsonb(shown), truth["id"]],
            )
            if not rows:
                found.append(f"{truth['id']} is missing")
            elif rows[0]["here"] != rows[0]["there"] or rows[0]["is_deleted"]:
                found.append(f"{truth['id']}: {rows[0]['here']} is {rows[0]['there']} at Stripe")
    for name in billing.stripe.store.deleted:
        if run(billing.connection, "select 1 from billing.objects where id = %s and not is_deleted", [name]):
            found.append(f"{name} was deleted")
    return found


def cash(billing: Billing) -> tuple[int, int]:
    """What the books say is at Stripe, and what Stripe's balance transactions add up to."""
    there = sum(row["net"] for row in billing.stripe.store.every("balance_transaction"))
    here: int = one(
        billing.connection,
        "select coalesce(sum(balance), 0) from public.trial_balance where workspace_id = ledger.operator_books() and code like 'stripe:%%'",
    )
    return int(here), there


def credit(billing: Billing) -> tuple[int, int]:
    """What the books say customers have to their credit, and what Stripe does."""
    there = -sum(row["balance"] for row in billing.stripe.store.every("customer"))
    here: int = one(
        billing.connection,
        "select coalesce(-sum(balance), 0) from public.trial_balance where workspace_id = ledger.operator_books() and code like 'customer_credit:%%'",
    )
    return int(here), there


def granted(billing: Billing, workspace: uuid.UUID) -> set[tuple[str, str]]:
    """Every plan and state that the workspace ever had."""
    rows = run(
        billing.connection,
        "select to_plan_id, to_state from billing.access_changes where workspace_id = %s union select plan_id, state from billing.workspace_plans where workspace_id = %s",
        [workspace, workspace],
    )
    return {(row["to_plan_id"], row["to_state"]) for row in rows}


def assert_true(billing: Billing) -> None:
    """Nothing differs from Stripe, and the books balance."""
    assert differences(billing) == []
    here, there = cash(billing)
    assert here == there, f"{here} in the books, {there} at Stripe"
    here, there = credit(billing)
    assert here == there, f"{here} of credit in the books, {there} at Stripe"
    assert not run(billing.connection, "select * from billing.books_check where difference <> 0")


def standing(billing: Billing, workspace: uuid.UUID) -> Any:
    """What the workspace may do, for comparing."""
    row = billing.access(workspace)
    return {name: row[name] for name in ("plan", "state", "reason", "until", "can_write", "seats")}
