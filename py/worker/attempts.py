"""What a worker keeps track of: its settings, leases, and how attempts end."""

from __future__ import annotations

import time
from dataclasses import dataclass

from .kinds import GiveUpError, Job, Registry, RetryError

UNKNOWN_KIND_SECONDS = 30.0


@dataclass
class Settings:
    """How a worker works. Times in seconds; `batch` is the most jobs that one claim takes."""

    queues: list[str] | None = None
    concurrency: int = 10
    batch: int = 500
    lease: float = 60.0
    poll: float = 1.0
    grace: float = 30.0
    in_postgres: bool = True
    once: bool = False
    drain: bool = False
    listen_url: str = ""


@dataclass(slots=True)
class Lease:
    """A claim of ours: until when it holds by our own clock, and how many of its jobs are not settled."""

    token: str
    deadline: float
    open: int


@dataclass(slots=True)
class Result:
    """How an attempt ended: without an error, with one, or not at all (`released`)."""

    job: Job
    seconds: float
    error: str | None = None
    retry_in: float | None = None
    is_permanent: bool = False
    released: bool = False
    is_told: bool = False


def words(error: BaseException) -> str:
    """What an error says, as far as Postgres can keep it."""
    try:
        text = str(error)
    except Exception:
        text = "it cannot say what went wrong"
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:10_000]


@dataclass
class Running:
    """What a runner is at; `abandoned` once its job has taken too long and was reported as failed."""

    job: Job | None = None
    begun: float = 0.0
    abandoned: bool = False


def attempt(kinds: Registry, job: Job, begun: float) -> Result:
    """Runs a job; whatever its handler does, this returns how it ended."""
    kind = kinds.get(job.kind)
    if kind is None:
        # A newer project enqueued it, and a newer worker will know it.
        return Result(job, 0.0, released=True, retry_in=UNKNOWN_KIND_SECONDS, error="unknown kind")
    try:
        kind.handler(job)
    except RetryError as error:
        return Result(job, time.monotonic() - begun, words(error), error.seconds, released=not error.counts)
    except GiveUpError as error:
        return Result(job, time.monotonic() - begun, words(error), is_permanent=True)
    except BaseException as error:
        # SystemExit too: a job does not end its worker.
        return Result(job, time.monotonic() - begun, f"{type(error).__name__}: {words(error)}")
    return Result(job, time.monotonic() - begun)
