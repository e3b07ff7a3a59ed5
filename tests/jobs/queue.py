"""What tests of the queue share."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from ..identities import Row, one, run
from ..races import Connection


def declare(connection: Connection, kind: str = "test.noop", **more: Any) -> str:
    """Declares a kind for the worker; `more` are arguments of jobs.declare_kind()."""
    more = {"executor": "worker", **more}
    named = ", ".join(f"{name} => %({name})s" for name in more)
    values = {name: Jsonb(value) if isinstance(value, dict) else value for name, value in more.items()}
    run(connection, f"select jobs.declare_kind(%(kind)s, {named})", {"kind": kind, **values})
    return kind


def enqueue(connection: Connection, kind: str = "test.noop", payload: Any = None, **more: Any) -> int:
    """Enqueues a job; `more` are arguments of jobs.enqueue()."""
    named = "".join(f", {name} => %({name})s" for name in more)
    job: int = one(
        connection,
        f"select jobs.enqueue(%(kind)s, %(payload)s{named})",
        {"kind": kind, "payload": Jsonb(payload if payload is not None else {}), **more},
    )
    return job


def claim(connection: Connection, size: int = 10, **more: Any) -> list[Row]:
    """Claims jobs; `more` are arguments of jobs.claim()."""
    named = "".join(f", {name} => %({name})s" for name in more)
    return run(connection, f"select * from jobs.claim(size => %(size)s{named}) order by id", {"size": size, **more})


def complete(connection: Connection, jobs: list[Row]) -> int:
    """Completes jobs of one claim; returns how many were."""
    if not jobs:
        return 0
    count: int = one(connection, "select jobs.complete(%s, %s)", [jobs[0]["lease"], [job["id"] for job in jobs]])
    return count


def fail(connection: Connection, job: Row, **how: Any) -> str | None:
    """Fails a job; returns the state it is in, None if it was not ours any more."""
    rows = run(connection, "select * from jobs.fail(%s, %s)", [job["lease"], Jsonb([{"id": job["id"], **how}])])
    return rows[0]["state"] if rows else None


def state(connection: Connection, job: int) -> Row:
    """A job wherever it is now."""
    rows = run(connection, "select * from jobs.jobs where id = %s", [job])
    return (rows or run(connection, "select * from jobs.history where id = %s", [job]))[0]


def set_clock(connection: Connection, moment: str) -> None:
    """Sets ops.now(), to an SQL expression over it."""
    run(
        connection,
        f"insert into ops.clock (set_to) select {moment} on conflict (singleton) do update set set_to = excluded.set_to",
    )
