"""`rowhouse work` as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..conftest import ROOT, Database
from ..identities import one, run
from ..races import Connection

COMMAND = [sys.executable, "-m", "rowhouse.cli", "work", "--load", "tests.jobs.handlers"]


class Worker:
    """Starts a worker; `lines` is what it logged. Killed at the end, if it has not ended by itself."""

    def __init__(self, url: str, *arguments: str, log: Path | None = None, **environment: str) -> None:
        self.log = log
        self.output = log.open("w") if log else subprocess.DEVNULL
        self.process = subprocess.Popen(
            [*COMMAND, *arguments], cwd=ROOT, stderr=self.output, stdout=self.output,
            env={**os.environ, "WORKER_DATABASE_URL": url, **environment},
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 60) -> int:
        return self.process.wait(seconds)

    @property
    def lines(self) -> list[dict[str, Any]]:
        assert self.log is not None
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


def until(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Waits for a condition and returns what it gave."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} never came")


def prepare(database: Database) -> Connection:
    """A connection to the test's database, with the table of effects and the kinds of handlers.py."""
    from rowhouse.worker.kinds import registry

    from . import handlers  # noqa: F401  registers

    connection = database.connect(autocommit=True)
    run(
        connection, "create table public.effects (job bigint, attempt bigint, at timestamptz default clock_timestamp())"
    )
    run(connection, "grant select, insert on public.effects to rowhouse_worker")
    kinds = [kind.declaration for kind in registry.values() if kind.declaration]
    run(connection, "select jobs.register(%s::jsonb)", [json.dumps(kinds)])
    return connection


def left(connection: Connection) -> int:
    """How many jobs wait or run."""
    count: int = one(connection, "select count(*) from jobs.jobs where state <> 'failed'")
    return count
