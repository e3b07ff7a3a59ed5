"""What workspaces bought, paid and used: each function is one SQL call, or has one carried to Stripe."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .administration import workspace_id
from .errors import RefusedError, UsageError
from .queries import Row, fetch_rows, storable
from .settings import setting
from .stripe_account import carry, refuse_unless_done

if TYPE_CHECKING:
    from .database import Connection


def show(connection: Connection, slug: str) -> Row:
    """What a workspace may do and why, what it bought, owes and has left. Amounts in minor units."""
    query = """
        select a.*, c.stripe_id as customer, -(o.data ->> 'balance')::bigint as credit,
            upper(o.data ->> 'currency') as credit_currency, s.id as subscription, s.data ->> 'status' as status,
            (select t.ends_at from billing.trials t where t.workspace_id = %(id)s) as trial_ends_at,
            (select d.grace_until from billing.dunning_cases d
                where d.workspace_id = %(id)s and d.ended_at is null) as grace_until,
            (select g.reason from billing.assignments g where g.workspace_id = %(id)s) as given_because
        from billing.access(%(id)s) a
        left join billing.customers c on c.workspace_id = %(id)s
        left join billing.objects o on o.id = c.stripe_id
        left join lateral billing.live_subscription(%(id)s) s on true
    """
    return fetch_rows(connection, query, {"id": workspace_id(connection, slug)})[0]


def history(connection: Connection, slug: str, *, limit: int) -> list[Row]:
    """What changed and what Stripe was asked for, the newest first."""
    query = """
        select * from (
            select changed_at as at, 'access' as what,
                format('%%s (%%s) → %%s (%%s)', from_plan_id, from_state, to_plan_id, to_state) as detail, reason
            from billing.access_changes where workspace_id = %(id)s
            union all
            select created_at, kind, state || coalesce(': ' || error, ''), reason
            from billing.requests where workspace_id = %(id)s and kind not in ('usage', 'preview', 'portal')
            union all
            select coalesce(done_at, due_at), kind, coalesce(outcome, 'due'), null
            from billing.steps where workspace_id = %(id)s
        ) as h order by at desc limit %(limit)s
    """
    return fetch_rows(connection, query, {"id": workspace_id(connection, slug), "limit": limit})


INVOICES = """
    select o.data ->> 'number' as number, o.id, o.data ->> 'status' as status, upper(o.data ->> 'currency') as currency,
        (o.data ->> 'total')::bigint as total, (o.data ->> 'amount_paid')::bigint as paid,
        (o.data ->> 'amount_remaining')::bigint as remaining, billing.moment(o.data -> 'created') as created_at,
        m.minor_digits
    from billing.customers c
    join billing.objects o on o.customer_id = c.stripe_id and o.object = 'invoice' and not o.is_deleted
    join ledger.currencies m on m.code = upper(o.data ->> 'currency')
    where c.workspace_id = %(id)s
"""


def invoices(connection: Connection, slug: str) -> list[Row]:
    """The invoices of a workspace, the newest first. Amounts in minor units."""
    return fetch_rows(connection, INVOICES + " order by created_at desc, id", {"id": workspace_id(connection, slug)})


def payments(connection: Connection, slug: str) -> list[Row]:
    """What was charged, with what became of it, the newest first. Amounts in minor units."""
    query = """
        select o.id, o.data ->> 'status' as status, upper(o.data ->> 'currency') as currency,
            (o.data ->> 'amount')::bigint as amount, (o.data ->> 'amount_refunded')::bigint as refunded,
            coalesce((o.data ->> 'disputed')::boolean, false) as is_disputed, o.data ->> 'failure_message' as failure,
            billing.invoice_of(o.data) as invoice, billing.moment(o.data -> 'created') as created_at, m.minor_digits
        from billing.customers c
        join billing.objects o on o.customer_id = c.stripe_id and o.object = 'charge'
        join ledger.currencies m on m.code = upper(o.data ->> 'currency')
        where c.workspace_id = %(id)s order by created_at desc, o.id
    """
    return fetch_rows(connection, query, {"id": workspace_id(connection, slug)})


def dunning(connection: Connection, slug: str) -> list[Row]:
    """What the clock has told a workspace of, and will: the steps of dunning and of reminders, the next ones last."""
    query = """
        select s.kind, s.due_at, s.done_at, s.outcome, d.grace_until, d.is_overridden, d.reason
        from billing.steps s
        left join billing.dunning_cases d on d.workspace_id = s.workspace_id and d.started_at = s.of
        where s.workspace_id = %(id)s order by s.due_at, s.kind
    """
    return fetch_rows(connection, query, {"id": workspace_id(connection, slug)})


def override_dunning(connection: Connection, slug: str, until: str, reason: str) -> None:
    """Says until when a workspace whose payment fails may write. Raises RefusedError (no_dunning, reason_missing)."""
    connection.execute(
        "select billing.override_dunning(%s, %s::timestamptz, %s)",
        [workspace_id(connection, slug), storable(until), storable(reason)],
    )


def extend_trial(connection: Connection, slug: str, until: str, reason: str) -> None:
    """Moves the end of a trial. Raises RefusedError (trial_not_found, trial_end_invalid, reason_missing)."""
    connection.execute(
        "select billing.extend_trial(%s, %s::timestamptz, %s)",
        [workspace_id(connection, slug), storable(until), storable(reason)],
    )


def request(connection: Connection, query: str, slug: str, **parameters: Any) -> Row:
    """Has Stripe asked for something, and carries it at once where there is a key; returns request and result.

    `query` selects the request's id of the workspace %(id)s. Where there is no key a worker carries it.
    """
    given = {name: storable(value) if isinstance(value, str) else value for name, value in parameters.items()}
    made = fetch_rows(connection, query, {"id": workspace_id(connection, slug), **given})[0]["request"]
    connection.commit()
    if setting("STRIPE_SECRET_KEY"):
        for outcome in carry(connection, {"request": str(made)}):
            refuse_unless_done(outcome)
    result = fetch_rows(connection, "select billing.result_of(%(id)s) as result", {"id": made})[0]["result"]
    if "error" in result and result.get("code") != "waiting":
        # It may have been refused before, or by Stripe's answer to a worker.
        raise RefusedError(str(result["error"]), "Stripe has refused this; nothing was changed.", "stripe_refused")
    return {"request_id": made, "result": result}


def key_for(connection: Connection, *words: object) -> str:
    """The key of a command that was given none: the same again is the same deed, unless Stripe refused it."""
    base = hashlib.sha256("|".join(map(str, words)).encode()).hexdigest()[:40]
    query = "select count(*) as n from billing.requests where idempotency_key like %(key)s and state = 'failed'"
    refused = fetch_rows(connection, query, {"key": f"%{base}%"})[0]["n"]
    return f"{base}.{refused}" if refused else base


def parse_amount(text: str, digits: int) -> int:
    """Minor units of an amount such as 12.50. Raises UsageError for anything else."""
    found = re.fullmatch(r"(-?)(\d{1,12})(?:\.(\d+))?", text.strip())
    if not found or len(found[3] or "") > digits:
        raise UsageError(
            f"{text!r} is no amount.", f"Write it like {'12.' + '5'.ljust(digits, '0') if digits else '12'}."
        )
    minor: int = int(found[2]) * 10**digits + int((found[3] or "").ljust(digits, "0") or 0)
    return -minor if found[1] else minor


def parse_time(text: str) -> str:
    """A time such as 2026-12-24 or 2026-12-24T12:00:00Z, UTC unless it says otherwise. Raises UsageError."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"{text!r} is no time.", "Give a day such as 2026-12-24.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def minor_digits(connection: Connection, currency: str) -> int:
    """How many digits of a currency are minor units. Raises RefusedError (currency_unknown)."""
    rows = fetch_rows(
        connection,
        "select minor_digits from ledger.currencies where code = %(code)s",
        {"code": storable(currency.upper())},
    )
    if not rows:
        raise RefusedError(
            f"There is no currency {currency[:10]!r}.", "Use a code of ISO 4217, such as EUR.", "currency_unknown"
        )
    digits: int = rows[0]["minor_digits"]
    return digits


def find_invoice(connection: Connection, slug: str, invoice: str) -> Row:
    """One invoice by its number or id. Raises RefusedError (invoice_not_found)."""
    rows = [row for row in invoices(connection, slug) if invoice in (row["id"], row["number"])]
    if not rows:
        raise RefusedError(
            f"This workspace has no invoice {invoice[:100]!r}.",
            "`rowhouse billing invoices` lists them.",
            "invoice_not_found",
        )
    return rows[0]


# Usage ------------------------------------------------------------------------------------------


def usage(connection: Connection, slug: str) -> list[Row]:
    """What a workspace used of each meter this period, against what its plan includes."""
    query = """
        select m.meter, m.name, coalesce(u.quantity, 0) as used, coalesce(t.included, 0) as included, t.cap,
            coalesce(t.is_hard, false) as is_hard, p.starts_at, p.ends_at
        from billing.current_access ca
        cross join billing.meters m
        cross join lateral billing.usage_period(ca.workspace_id, ops.now()) p
        left join billing.plan_meters t on t.plan_id = ca.plan_id and t.meter = m.meter
        left join billing.usage_periods u
            on u.workspace_id = ca.workspace_id and u.meter = m.meter and u.starts_at = p.starts_at
        where ca.workspace_id = %(id)s and not m.is_archived order by m.meter
    """
    return fetch_rows(connection, query, {"id": workspace_id(connection, slug)})


def record_usage(connection: Connection, slug: str, meter: str, quantity: int, key: str, at: str | None) -> bool:
    """Records usage; False if it was recorded before. Raises RefusedError (usage_invalid, usage_cap_reached)."""
    is_new: bool = fetch_rows(
        connection,
        "select billing.record_usage(%(id)s, %(meter)s, %(quantity)s, %(key)s, %(at)s::timestamptz) as is_new",
        {
            "id": workspace_id(connection, slug),
            "meter": storable(meter),
            "quantity": quantity,
            "key": storable(key),
            "at": at,
        },
    )[0]["is_new"]
    return is_new
