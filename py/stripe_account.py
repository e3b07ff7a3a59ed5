"""Stripe as operators see it: connecting, reading, comparing, events. What an answer means the database says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .errors import RefusedError, RowhouseError
from .queries import Page, Row, fetch_page, fetch_rows, storable
from .settings import setting

if TYPE_CHECKING:
    from uuid import UUID

    from .database import Connection


def carry(connection: Connection, payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Makes the calls of a payload over this connection, each step committed; yields what came of each."""
    from .worker import stripe_calls

    @contextmanager
    def connect() -> Iterator[Connection]:
        # Nothing is held while Stripe is asked.
        yield connection
        connection.commit()

    yield from stripe_calls.carry(connect, payload)


def refuse_unless_done(outcome: dict[str, Any]) -> None:
    """Raises RowhouseError for a call that Stripe refused, or did not answer."""
    if outcome.get("failed"):
        raise RefusedError(str(outcome["error"]), "Stripe has refused this; nothing was changed.", "stripe_refused")
    if outcome.get("retry"):
        raise RowhouseError(f"Stripe could not be asked: {outcome['error']}", "Try again; what was done stays done.")


def connect_account(connection: Connection) -> Row:
    """Asks Stripe whose key this is, and connects the database to that account and mode.

    Returns account_id, mode and customers: how many are being made. Raises RefusedError (account_differs).
    """
    from .worker import stripe_calls

    key = stripe_calls.secret_key()
    answer = stripe_calls.ask({"method": "get", "path": "/v1/account", "params": {}})
    if answer.get("status") != 200:
        raise RowhouseError(f"Stripe did not say whose key this is: {_words(answer)}", "Check STRIPE_SECRET_KEY.")
    mode = stripe_calls.mode_of(key)
    made = fetch_rows(
        connection,
        "select billing.connect_account(%(account)s, %(live)s) as customers",
        {"account": answer["body"]["id"], "live": mode == "live"},
    )[0]["customers"]
    return {"account_id": answer["body"]["id"], "mode": mode, "customers": made}


def _words(answer: dict[str, Any]) -> str:
    error = (answer.get("body") or {}).get("error") or {}
    return str(error.get("message") or answer.get("error") or answer.get("status"))


def start_run(
    connection: Connection, kind: str, objects: list[str] | None = None, since: str | None = None
) -> UUID:  # fmt: skip
    """Begins a sync or a reconcile, or goes on with one that was stopped; returns its id."""
    run: UUID = fetch_rows(
        connection,
        "select billing.start_run(%(kind)s, %(objects)s::text[], %(since)s::timestamptz) as id",
        {"kind": kind, "objects": objects, "since": since},
    )[0]["id"]
    return run


def run_state(connection: Connection, run: UUID) -> Row:
    """Where a run is: what it lists now, and how many it has listed."""
    query = """
        select r.kind, r.listed, r.finished_at, t.object
        from billing.runs r left join billing.object_types t on t.place = r.place where r.id = %(id)s
    """
    return fetch_rows(connection, query, {"id": run})[0]


def drift(connection: Connection, run: UUID | None = None) -> list[Row]:
    """What a reconcile found, by object; the last one that came to its end without `run`."""
    query = """
        select d.object, d.listed, d.missing, d.different, d.amounts, d.amounts_off, r.finished_at
        from billing.drift d
        join billing.runs r on r.id = d.run_id
        join billing.object_types t on t.object = d.object
        where r.id = coalesce(%(id)s::uuid, (
            select l.id from billing.runs l where l.kind = 'reconcile' and l.finished_at is not null
            order by l.finished_at desc limit 1
        ))
        order by t.place
    """
    return fetch_rows(connection, query, {"id": run})


def list_events(
    connection: Connection, *, outcome: str | None, type_: str | None, after: str | None, limit: int
) -> Page:
    """Events, the newest first."""
    query = """
        select e.id, e.type, e.created_at, e.object_id, e.outcome, e.detail, e.source, e.received_at
        from billing.events e
        where (%(outcome)s::text is null or e.outcome = %(outcome)s)
            and (%(type)s::text is null or e.type = %(type)s)
            and (%(after)s::text is null or (e.received_at, e.id) < (
                select a.received_at, a.id from billing.events a where a.id = %(after)s
            ))
        order by e.received_at desc, e.id desc limit %(limit)s
    """
    return fetch_page(connection, query, {"outcome": outcome, "type": type_, "after": after}, "id", limit)


def show_event(connection: Connection, event: str) -> Row:
    """One event with its payload. Raises RefusedError (event_not_found)."""
    rows = fetch_rows(connection, "select * from billing.events where id = %(id)s", {"id": storable(event)})
    if not rows:
        raise RefusedError(
            f"There is no event {event[:100]!r}.", "`rowhouse stripe events list` shows them.", "event_not_found"
        )
    return rows[0]


def replay_event(connection: Connection, event: str) -> None:
    """Has an event processed again. Raises RefusedError (event_not_found, event_not_learnt)."""
    connection.execute("select billing.replay(%s)", [storable(event)])


def doctor(connection: Connection) -> list[Row]:
    """What is amiss between this database, the key, the SDK and Stripe's webhook endpoint: subject, finding, hint."""
    from stripe._api_version import _ApiVersion  # the SDK names it nowhere else

    from .worker import stripe_calls

    settings = fetch_rows(connection, "select * from billing.settings", {})[0]
    findings: list[Row] = []

    def add(subject: str, finding: str, hint: str) -> None:
        findings.append({"subject": subject, "finding": finding, "hint": hint})

    if settings["api_version"] != _ApiVersion.CURRENT:
        add(
            "version", f"the SDK speaks {_ApiVersion.CURRENT}, the database asks in {settings['api_version']}",
            "Bring both to the same: billing.settings.api_version and requirements.lock.",
        )  # fmt: skip
    if not setting("STRIPE_WEBHOOK_SECRET"):
        add(
            "secret",
            "STRIPE_WEBHOOK_SECRET is not set here",
            "Set it where the edge function stripe-webhook runs; nothing is taken from Stripe without it.",
        )
    if not settings["account_id"]:
        add("account", "no Stripe account is connected", "Run `rowhouse stripe connect`.")
        return findings
    try:
        key = stripe_calls.secret_key()
    except RowhouseError as error:
        add("key", str(error), error.hint or "")
        return findings
    mode = "live" if settings["is_live"] else "test"
    if stripe_calls.mode_of(key) != mode:
        add("key", f"it is a {stripe_calls.mode_of(key)} key for a {mode} database", f"Use a {mode} key.")
        return findings
    answer = stripe_calls.ask({"method": "get", "path": "/v1/account", "params": {}})
    if answer.get("status") != 200:
        add("key", f"Stripe does not take it: {_words(answer)}", "Check STRIPE_SECRET_KEY.")
        return findings
    if answer["body"]["id"] != settings["account_id"]:
        add(
            "account",
            f"the key is {answer['body']['id']}'s, the database {settings['account_id']}'s",
            "Use that one's key.",
        )
    findings += _endpoint_findings(connection, settings)
    findings += fetch_rows(
        connection,
        """
        select 'events' as subject, format('%%s events wait since %%s', count(*), min(received_at)) as finding,
            'Is a worker running? `rowhouse work`' as hint
        from billing.events
        where outcome = 'waiting' and received_at < now() - interval '10 minutes' having count(*) > 0
        union all
        select 'requests', format('%%s requests failed since yesterday, the last: %%s', count(*), max(error)),
            '`rowhouse billing history` shows them.'
        from billing.requests where state = 'failed' and settled_at > now() - interval '1 day' having count(*) > 0
        union all
        select 'books', format('%%s %%s: Stripe says %%s, the books %%s', currency, fact, stripe_amount, books_amount),
            'select billing.post_missing() posts what is missing.'
        from billing.books_check where difference <> 0
        union all
        select 'customers', format('%%s workspaces have no customer', count(*)), 'Run `rowhouse stripe connect` again.'
        from public.workspaces w where w.deleted_at is null and w.created_at < now() - interval '1 hour'
            and not exists (select from billing.customers c where c.workspace_id = w.id and c.stripe_id is not null)
        having count(*) > 0
        """,
        {},
    )
    return findings


def _endpoint_findings(connection: Connection, settings: Row) -> list[Row]:
    from .worker import stripe_calls

    answer = stripe_calls.ask({"method": "get", "path": "/v1/webhook_endpoints", "params": {"limit": 100}})
    if answer.get("status") != 200:
        hint = "Let the key read webhook endpoints, or look in Stripe's dashboard."
        return [{"subject": "endpoint", "finding": f"Stripe does not show them: {_words(answer)}", "hint": hint}]
    # Other environments may share the account.
    site = setting("SUPABASE_URL") or ""
    ours = [
        row
        for row in (answer.get("body") or {}).get("data", [])
        if row["url"].endswith("/functions/v1/stripe-webhook") and row["url"].startswith(site)
    ]
    if not ours:
        return [
            {
                "subject": "endpoint",
                "finding": "Stripe has no webhook endpoint …/functions/v1/stripe-webhook",
                "hint": "Add one in Stripe's dashboard, for the events of `select billing.event_types()`.",
            }
        ]
    needed = set(fetch_rows(connection, "select billing.event_types() as types", {})[0]["types"])
    findings = []
    for row in ours:
        missing = sorted(needed - set(row["enabled_events"])) if "*" not in row["enabled_events"] else []
        if row["status"] != "enabled":
            findings.append(
                (
                    f"{row['url']} is {row['status']}",
                    "Enable it in Stripe's dashboard; reconcile brings what was missed.",
                )
            )
        if missing:
            findings.append((f"{row['url']} is not sent {', '.join(missing)}", "Add them to the endpoint's events."))
        if row["api_version"] not in (None, settings["api_version"]):
            findings.append(
                (
                    f"{row['url']} is sent version {row['api_version']}",
                    f"Make one of version {settings['api_version']}; both shapes are understood.",
                )
            )
    return [{"subject": "endpoint", "finding": finding, "hint": hint} for finding, hint in findings]
