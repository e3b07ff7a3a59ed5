"""Kinds of jobs that run in a worker: a function with a decorator is all that a project adds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ..errors import RowhouseError, UsageError

if TYPE_CHECKING:
    from ..database import Connection


class RetryError(RowhouseError):
    """The attempt failed, and the job is to be tried again.

    `seconds` says when, such as a provider's Retry-After; None for the kind's own backoff. Without `counts` it was
    no attempt at all: nothing was tried, or the provider only asked to wait.
    """

    def __init__(self, message: str, seconds: float | timedelta | None = None, *, counts: bool = True) -> None:
        super().__init__(message)
        given = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if given is not None and not 0 <= given < math.inf:
            raise ValueError(f"{seconds!r} is no time to wait")
        self.seconds = given
        self.counts = counts


class GiveUpError(RowhouseError):
    """The job can never succeed: it fails for good, whatever attempts are left."""


@dataclass(slots=True)
class Job:
    """What a handler gets. `timeout` is in seconds; `attempt` counts from 1; `text` is the payload as JSON."""

    id: int
    kind: str
    queue: str
    workspace_id: UUID | None
    text: str
    attempt: int
    max_attempts: int
    timeout: float
    lease: str
    connect: Callable[[], AbstractContextManager[Connection]] = field(repr=False, default=lambda: _no_connection())

    @property
    def payload(self) -> dict[str, Any]:
        """What the job was enqueued with. Raises GiveUpError where Python cannot read it."""
        try:
            payload: dict[str, Any] = json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise GiveUpError(f"the payload cannot be read: {error}") from None
        return payload

    @property
    def idempotency_key(self) -> str:
        """The same on every attempt, for providers that recognise what they were asked before."""
        return f"rowhouse-job-{self.id}"


def _no_connection() -> AbstractContextManager[Connection]:
    raise UsageError("This job was made without a database.", "Run it by `rowhouse work`.")


Handler = Callable[[Job], Any]


@dataclass(frozen=True)
class Kind:
    """A kind and its handler; `declaration` is what the worker tells jobs.register(), None for one declared in SQL."""

    name: str
    handler: Handler
    declaration: dict[str, Any] | None


class Registry(dict[str, Kind]):
    """The kinds that a process knows, by name."""

    def job_kind(
        self,
        name: str,
        *,
        queue: str = "default",
        priority: int = 100,
        payload_schema: dict[str, Any] | None = None,
        timeout: timedelta = timedelta(minutes=1),
        max_attempts: int = 5,
        backoff: timedelta = timedelta(seconds=5),
        max_backoff: timedelta = timedelta(hours=1),
        is_declared_in_sql: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Registers a function as the handler of a kind, and declares the kind to the database when a worker starts.

        The handler returns when the work is done; it raises RetryError to be tried again at a time of its choice,
        GiveUpError if there is no use in trying, and anything else to be tried again after the backoff. It may run
        more than once: `job.idempotency_key` is for those who must not act twice. With `is_declared_in_sql` a
        migration has declared the kind, and the other arguments say nothing.
        """

        def register(handler: Handler) -> Handler:
            declaration = {
                "kind": name,
                "queue": queue,
                "priority": priority,
                "payload_schema": payload_schema or {},
                "timeout": f"{timeout.total_seconds()} seconds",
                "max_attempts": max_attempts,
                "backoff": f"{backoff.total_seconds()} seconds",
                "max_backoff": f"{max_backoff.total_seconds()} seconds",
                "description": (handler.__doc__ or "").strip().partition("\n")[0],
            }
            if name in self and self[name].handler is not handler:
                raise UsageError(f"Two functions handle jobs {name}.", "Give one of them another name.")
            self[name] = Kind(name, handler, None if is_declared_in_sql else declaration)
            return handler

        return register


registry = Registry()
job_kind = registry.job_kind
