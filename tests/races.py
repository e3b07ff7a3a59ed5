"""Two at once: runs calls in threads and waits on what Postgres says, never on a clock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg

from .identities import one, refusal

Connection = psycopg.Connection[Any]


class Call:
    """A call in a thread of its own; `result()` waits for it and returns "ok" or the refusal's code."""

    def __init__(self, connection: Connection, function: Callable[[Connection], Any]) -> None:
        self.connection = connection
        self.outcome = ""
        self.thread = threading.Thread(target=self._run, args=[function])
        self.thread.start()

    def _run(self, function: Callable[[Connection], Any]) -> None:
        try:
            function(self.connection)
            self.connection.commit()
            self.outcome = "ok"
        except psycopg.Error as error:
            self.connection.rollback()
            self.outcome = refusal(error)

    def result(self) -> str:
        self.thread.join(timeout=60)
        assert not self.thread.is_alive(), "it waits for ever"
        return self.outcome


def wait_until_blocked(observer: Connection, waiting: Connection) -> None:
    """Returns once a connection's backend waits for a lock."""
    pid = waiting.info.backend_pid
    for _ in range(100_000):
        if one(
            observer, "select coalesce(wait_event_type = 'Lock', false) from pg_stat_activity where pid = %s", [pid]
        ):
            return
        observer.rollback()
    raise AssertionError("it never waited")
