"""Kinds for tests, as a project would register them. Effects go into a table that the test makes."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from rowhouse.worker.kinds import GiveUpError, Job, RetryError, job_kind

QUICK = timedelta(milliseconds=100)


def record(job: Job) -> None:
    with job.connect() as connection:
        connection.execute("insert into public.effects (job, attempt) values (%s, %s)", [job.id, job.attempt])


@job_kind("test.noop")
def noop(_: Job) -> None:
    """Does nothing."""


@job_kind("test.record", backoff=QUICK, max_attempts=50)
def record_it(job: Job) -> None:
    """Leaves an effect."""
    assert job.payload is not None
    record(job)


@job_kind("test.slow", backoff=QUICK, max_attempts=50)
def slow(job: Job) -> None:
    """Leaves an effect after a while."""
    time.sleep(job.payload.get("seconds", 1))
    record(job)


@job_kind("test.boom", backoff=QUICK, max_attempts=3)
def boom(job: Job) -> None:
    """Fails."""
    raise ValueError(f"attempt {job.attempt}")


@job_kind("test.hopeless", max_attempts=5)
def hopeless(_: Job) -> None:
    """Fails for good at once."""
    raise GiveUpError("no such thing")


@job_kind("test.busy", max_attempts=2)
def busy(job: Job) -> None:
    """Is asked to wait a few times, which counts as no attempt."""
    record(job)
    with job.connect() as connection:
        row = connection.execute("select count(*) from public.effects where job = %s", [job.id]).fetchone()
    if row and row[0] < 5:
        raise RetryError("busy", 0.05, counts=False)


@job_kind("test.hang", timeout=timedelta(seconds=1), max_attempts=1)
def hang(_: Job) -> None:
    """Takes longer than it may."""
    time.sleep(60)


@job_kind("test.odd", backoff=QUICK, max_attempts=2)
def odd(job: Job) -> None:
    """Ends in ways that no handler should."""
    how = job.payload["how"]
    if how == "nul":
        raise ValueError("a\0b\ud800")
    if how == "exit":
        sys.exit("bye")
    if how == "timedelta":
        raise RetryError("later", timedelta(milliseconds=50))
    if how == "endless":
        raise RetryError("later", float("inf"))
    raise MuteError


class MuteError(Exception):
    """Cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("mute")
