"""What tests of notifications share."""

from __future__ import annotations

import uuid
from typing import Any

from psycopg.types.json import Jsonb

from ..identities import Row, add_member, make_user, one, run
from ..races import Connection


def emit(connection: Connection, workspace: uuid.UUID, kind: str = "test.news", **more: Any) -> int:
    """Tells of something; `more` are arguments of notify.emit()."""
    more = {"payload": {"what": "it", "where": "Apollo"}, **more}
    values = {name: Jsonb(value) if isinstance(value, dict) else value for name, value in more.items()}
    named = "".join(f", {name} => %({name})s" for name in more)
    told: int = one(
        connection,
        f"select notify.emit(%(workspace)s, %(kind)s{named})",
        {"workspace": workspace, "kind": kind, **values},
    )
    return told


def declare(connection: Connection, kind: str = "test.news", **more: Any) -> None:
    """Declares a kind of notification."""
    more = {"title": "{what} in {where}", "summary": "{count} news in {where}", "description": "News", **more}
    named = ", ".join(f"{name} => %({name})s" for name in more)
    run(connection, f"select notify.declare_kind(kind => %(kind)s, {named})", {"kind": kind, **more})


def told(connection: Connection, kind: str = "test.news") -> list[Row]:
    """Who was told, in the order of their addresses."""
    return run(
        connection,
        "select p.email, n.* from public.notifications n join public.profiles p on p.id = n.recipient_id "
        "where n.kind = %s order by p.email, n.created_at",
        [kind],
    )


def prefer(connection: Connection, user: uuid.UUID, frequency: str | None, **more: Any) -> None:
    """Says how somebody wants to be told."""
    values = {"user_id": user, "frequency": frequency, **more}
    run(
        connection,
        f"insert into public.notification_preferences ({', '.join(values)}) values ({', '.join(['%s'] * len(values))})",
        list(values.values()),
    )


def messages(connection: Connection, kind: str | None = None) -> list[Row]:
    """The outbox."""
    return run(
        connection,
        "select * from notify.messages where %(kind)s::text is null or kind = %(kind)s order by recipient, created_at",
        {"kind": kind},
    )


def work_off(connection: Connection) -> None:
    """Runs all jobs of Postgres that are ready."""
    while token := one(connection, "select jobs.claim_for_postgres()"):
        one(connection, "select jobs.execute(%s)", [token])
    failed = run(connection, "select kind, last_error from jobs.jobs where last_error is not null")
    assert failed == [], failed


def member(db: Connection, workspace: uuid.UUID, name: str, role: str = "member") -> uuid.UUID:
    return add_member(db, workspace, role, make_user(db, f"{name}@example.com"))


def names(rows: list[Row]) -> list[str]:
    return [row["email"].split("@")[0] for row in rows]
