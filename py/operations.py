"""What operators ask of the queue, the schedules and the outbox."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .errors import RowhouseError, UsageError
from .queries import Page, Row, containing, fetch_page, fetch_rows, storable

if TYPE_CHECKING:
    from .database import Connection

STATES = ("pending", "processing", "failed", "completed", "discarded", "merged")

JOBS = """
select j.id, j.kind, j.queue, w.slug as workspace, j.state, j.attempts, j.max_attempts, j.run_at, j.last_error
from jobs.jobs j left join public.workspaces w on w.id = j.workspace_id
where (%(state)s::text is null or j.state = %(state)s)
"""
HISTORY = """
select j.id, j.kind, j.queue, w.slug as workspace, j.state, j.attempts, j.finished_at, j.last_error
from jobs.history j left join public.workspaces w on w.id = j.workspace_id
where (%(state)s::text is null or j.state = %(state)s)
"""


def list_jobs(
    connection: Connection,
    *,
    state: str | None = None,
    kind: str | None = None,
    workspace: str | None = None,
    finished: bool = False,
    after: str | None = None,
    limit: int = 50,
) -> Page:
    """Jobs, the newest first: those that wait, run or have failed; with `finished` those of the history."""
    if state is not None and state not in STATES:
        raise UsageError(f"There is no state {state!r}.", f"Use one of {', '.join(STATES)}.")
    if after is not None and not after.isdecimal():
        raise UsageError(f"{after!r} is no cursor.", "Use the one that the page before ended with.")
    is_history = finished or state in STATES[3:]
    query = f"""{HISTORY if is_history else JOBS}
        and (%(kind)s::text is null or j.kind = %(kind)s) and (%(workspace)s::text is null or w.slug = %(workspace)s)
        and (%(after)s::bigint is null or j.id < %(after)s::bigint)
        order by j.id desc limit %(limit)s"""
    wanted = {"state": state, "kind": kind, "workspace": workspace, "after": after}
    return fetch_page(connection, query, wanted, "id", limit)


def show_job(connection: Connection, job: int) -> Row:
    """A job, wherever it is. Raises RowhouseError for one that is nowhere."""
    rows = fetch_rows(connection, "select * from jobs.jobs where id = %(id)s", {"id": job}) or fetch_rows(
        connection, "select * from jobs.history where id = %(id)s", {"id": job}
    )
    if not rows:
        raise RowhouseError(f"There is no job {job}.", "History is kept for jobs.settings.history_days.")
    return rows[0]


def failed_jobs(connection: Connection, kind: str | None) -> list[int]:
    """The ids of the jobs that have failed for good, of a kind or of all."""
    query = (
        "select id from jobs.jobs where state = 'failed' and (%(kind)s::text is null or kind = %(kind)s) order by id"
    )
    return [row["id"] for row in fetch_rows(connection, query, {"kind": kind})]


def retry_jobs(connection: Connection, ids: list[int]) -> int:
    """Has failed jobs wait again; returns how many there were."""
    return int(fetch_rows(connection, "select jobs.retry(%(ids)s) as n", {"ids": ids})[0]["n"])


def discard_jobs(connection: Connection, ids: list[int]) -> int:
    """Drops jobs that wait or have failed; returns how many there were."""
    return int(fetch_rows(connection, "select jobs.discard(%(ids)s) as n", {"ids": ids})[0]["n"])


def queue_stats(connection: Connection) -> list[Row]:
    """Each queue: how full it is, and how old its oldest ready job."""
    return fetch_rows(connection, "select * from jobs.stats()")


def alarms(connection: Connection) -> list[Row]:
    """What is too much right now."""
    return fetch_rows(connection, "select * from jobs.current_alarms()")


def enqueue(connection: Connection, kind: str, payload: str, **options: Any) -> int:
    """Enqueues a job; `options` are arguments of jobs.enqueue(). Raises UsageError for a payload that is not JSON."""
    try:
        json.loads(payload)
    except ValueError as error:
        raise UsageError(f"The payload is not JSON: {error}.", "Quote it as one word, such as '{\"id\": 1}'.") from None
    named = "".join(f", {name} => %({name})s" for name, value in options.items() if value is not None)
    query = f"select jobs.enqueue(%(kind)s, %(payload)s::jsonb{named}) as id"
    return int(fetch_rows(connection, query, {"kind": kind, "payload": storable(payload), **options})[0]["id"])


# Schedules ------------------------------------------------------------------------------------


def list_schedules(connection: Connection) -> list[Row]:
    """What the clock starts, when it last did, for how long, how it went, and what it missed."""
    return fetch_rows(
        connection,
        "select name, timing, case when is_paused then 'paused' else outcome end as outcome, started_at, "
        "round(extract(epoch from duration)::numeric, 3)::float8 as seconds, missed, last_error "
        "from ops.schedule_status()",
    )


def run_schedule(connection: Connection, name: str) -> bool:
    """Runs a schedule now; False if it is paused or running. `connection` must be in autocommit.

    Raises RowhouseError if the run failed.
    """
    known = fetch_rows(connection, "select command from ops.schedule_named(%(name)s)", {"name": name})[0]
    if str(known["command"]).lower().startswith("call "):
        connection.execute(str(known["command"]).encode())
        return True
    ran = bool(fetch_rows(connection, "select ops.run_schedule(%(name)s) as ran", {"name": name})[0]["ran"])
    status = next(row for row in list_schedules(connection) if row["name"] == name)
    if not ran and status["outcome"] == "failed":
        raise RowhouseError(f"{name} failed: {status['last_error']}", "It is tried again at its time.")
    return ran


def pause_schedule(connection: Connection, name: str, *, paused: bool) -> None:
    """Stops a schedule until it is resumed, or resumes it."""
    connection.execute("select ops.pause_schedule(%s, %s)", [name, paused])


# Messages -------------------------------------------------------------------------------------


def list_messages(
    connection: Connection,
    *,
    state: str | None = None,
    to: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Page:
    """Messages of the outbox, the newest first."""
    query = """
    select m.created_at, m.id, m.channel, m.kind, m.recipient, m.subject, m.state, m.attempts, m.last_error
    from notify.messages m
    where
        (%(state)s::text is null or m.state = %(state)s)
        and (%(to)s::text is null or lower(m.recipient) like %(to)s)
        and (%(after)s::text is null or (m.created_at, m.id) < (
            split_part(%(after)s, '/', 1)::timestamptz, split_part(%(after)s, '/', 2)::uuid
        ))
    order by m.created_at desc, m.id desc limit %(limit)s
    """
    page = fetch_page(connection, query, {"state": state, "to": containing(to), "after": after}, "id", limit)
    if page.next_after is None:
        return page
    return Page(page.rows, f"{page.rows[-1]['created_at'].isoformat()}/{page.next_after}")


def show_message(connection: Connection, message: str) -> Row:
    """A message and what the provider told of it. Raises RowhouseError for one that is not there."""
    rows = fetch_rows(
        connection,
        "select m.*, (select array_agg(e.type || ' ' || e.received_at order by e.received_at) "
        "from notify.provider_events e where e.message_id = m.id) as events "
        "from notify.messages m where m.id::text = %(id)s",
        {"id": message},
    )
    if not rows:
        raise RowhouseError(f"There is no message {message}.", "rowhouse mail list shows them.")
    return rows[0]


def resend_message(connection: Connection, message: str) -> None:
    """Sends a message that failed once more, as a new one to the provider. Raises RowhouseError for any other."""
    rows = fetch_rows(
        connection, "select notify.resend(%(id)s::uuid) as done", {"id": show_message(connection, message)["id"]}
    )
    if not rows[0]["done"]:
        raise RowhouseError("Only a message that failed, or was suppressed, can be sent again.", "rowhouse mail show.")


def list_suppressions(connection: Connection) -> list[Row]:
    """Addresses that are not written to, and why."""
    return fetch_rows(
        connection, "select address, reason, detail, suppressed_at from notify.suppressions order by suppressed_at desc"
    )


def suppress(connection: Connection, address: str, reason: str) -> None:
    """Writes no more to an address."""
    connection.execute(
        "insert into notify.suppressions (address, reason, detail) values (lower(%s), 'by hand', %s) "
        "on conflict (address) do update set reason = excluded.reason, detail = excluded.detail",
        [storable(address.strip()), storable(reason)],
    )


def unsuppress(connection: Connection, address: str) -> bool:
    """Writes to an address again; False if it was written to anyway."""
    cursor = connection.execute(
        "delete from notify.suppressions where address = lower(%s)", [storable(address.strip())]
    )
    return cursor.rowcount > 0


SETTINGS = (
    "product_name",
    "sender_email",
    "sms_sender",
    "site_url",
    "functions_url",
    "auth_url",
    "colour",
    "postal_address",
)


def mail_settings(connection: Connection) -> Row:
    """Who writes, and where messages lead."""
    row = fetch_rows(connection, "select * from notify.settings")[0]
    return {name: row[name] for name in SETTINGS}


def set_mail_settings(connection: Connection, **changes: str) -> None:
    """Changes some of SETTINGS."""
    from psycopg import sql

    for name, value in changes.items():
        if name not in SETTINGS:
            raise UsageError(f"There is no setting {name!r}.", f"There are {', '.join(SETTINGS)}.")
        query = sql.SQL("update notify.settings set {} = %s").format(sql.Identifier(name))
        connection.execute(query, [storable(value)])


# Digests --------------------------------------------------------------------------------------


def preview_digests(connection: Connection, email: str) -> list[Row]:
    """The digests that would go to a person if all that waits for them went out now; none if nothing does."""
    return fetch_rows(
        connection,
        "select frequency, email, subject, item_count, html, body "
        "from notify.render_digests(array[tenancy.person(%(email)s)], 'infinity') order by frequency",
        {"email": email},
    )


def list_digests(connection: Connection, *, email: str | None = None, limit: int = 50) -> list[Row]:
    """The digests there were, the newest first, and what became of their mails."""
    return fetch_rows(
        connection,
        "select d.built_at, p.email, d.frequency, d.period, d.item_count as items, "
        "coalesce(m.state, 'cleared') as mail "
        "from notify.digests d join public.profiles p on p.id = d.user_id "
        "left join notify.messages m on m.id = d.message_id "
        "where (%(email)s::text is null or lower(p.email) = lower(%(email)s)) "
        "order by d.built_at desc, p.email limit %(limit)s",
        {"email": email, "limit": limit},
    )


def count_digests(connection: Connection) -> int:
    """How many digests there were."""
    return int(fetch_rows(connection, "select count(*) as n from notify.digests")[0]["n"])
