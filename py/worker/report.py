"""What a worker says of itself: a line of JSON for each job, Prometheus metrics, and whether it is healthy."""

from __future__ import annotations

import json
import sys
import threading
import time
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, make_wsgi_app
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from .attempts import Result, Settings

UNHEALTHY_AFTER_SECONDS = 30.0
BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0)


class Durations(Collector):
    """A histogram by kind. The library's own locks at each observation, of which a worker makes 100,000 a second."""

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = {}
        self.sums: dict[str, float] = {}

    def observe(self, kind: str, seconds: float) -> None:
        """Counts an attempt. For one thread alone."""
        if kind not in self.counts:
            self.counts[kind] = [0] * (len(BUCKETS) + 1)
            self.sums[kind] = 0.0
        self.counts[kind][bisect_left(BUCKETS, seconds)] += 1
        self.sums[kind] += seconds

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily("rowhouse_attempt_seconds", "How long attempts took", labels=["kind"])
        bounds = [*map(str, BUCKETS), "+Inf"]
        for kind, counts in list(self.counts.items()):
            buckets = list(zip(bounds, map(float, accumulate(counts)), strict=True))
            family.add_metric([kind], buckets, self.sums[kind])
        yield family


class Report:
    """Collects and prints. `level` is what is printed: job (every attempt), trouble (what went wrong) or nothing."""

    def __init__(self, level: str = "job", stream: Any = None) -> None:
        self.level = level
        self.stream = stream or sys.stderr
        self.registry = CollectorRegistry()
        self.attempts = Counter(
            "rowhouse_attempts", "Attempts of jobs that ended", ["kind", "outcome"], registry=self.registry
        )
        self.seconds = Durations()
        self.registry.register(self.seconds)
        self.in_postgres = Counter("rowhouse_jobs_in_postgres", "Jobs run in Postgres", registry=self.registry)
        self.troubles = Counter("rowhouse_troubles", "Failed calls of the database", ["call"], registry=self.registry)
        self.lost_jobs = Counter("rowhouse_lost", "Jobs completed after their lease was lost", registry=self.registry)
        self.last_contact = Gauge(
            "rowhouse_last_contact_seconds", "When the database last answered", registry=self.registry
        )
        self.contact_at = time.monotonic()
        self.lock = threading.Lock()

    # What happens ----------------------------------------------------------------------------

    def started(self, worker: str, settings: Settings) -> None:
        self._say(
            "started", worker=worker, queues=settings.queues or "all", concurrency=settings.concurrency,
            batch=settings.batch,
        )  # fmt: skip

    def stopped(self, is_clean: bool) -> None:
        self._say("stopped", is_clean=is_clean)

    def contact(self) -> None:
        self.contact_at = time.monotonic()
        self.last_contact.set_to_current_time()

    def trouble(self, call: str, error: BaseException) -> None:
        self.troubles.labels(call).inc()
        lines = str(error).strip().splitlines()
        self._say("trouble", call=call, error=lines[0][:500] if lines else type(error).__name__)

    def lost(self, count: int) -> None:
        self.lost_jobs.inc(count)
        self._say("lease lost", jobs=count, hint="Another worker has these jobs: raise --lease, or lower --batch.")

    def executed(self, count: int, seconds: float) -> None:
        self.in_postgres.inc(count)
        if self.level == "job":
            self._say("executed in postgres", jobs=count, seconds=round(seconds, 4))

    def ended(self, results: Iterable[Result]) -> None:
        """Attempts that the database was told of."""
        tally: Tally[tuple[str, str]] = Tally()
        lines = []
        for result in results:
            outcome = "released" if result.released else "completed" if result.error is None else "failed"
            kind = result.job.kind
            tally[kind, outcome] += 1
            if outcome != "released":
                self.seconds.observe(kind, result.seconds)
            if self.level == "job" or (self.level == "trouble" and outcome == "failed"):
                lines.append(line_of(result, outcome))
        for (kind, outcome), count in tally.items():
            self.attempts.labels(kind, outcome).inc(count)
        self._write("".join(lines))

    # How it is said ----------------------------------------------------------------------------

    def _say(self, event: str, **facts: Any) -> None:
        if self.level != "nothing":
            self._write(json.dumps({"at": now(), "event": event, **facts}, default=str) + "\n")

    def _write(self, text: str) -> None:
        if text:
            # Whoever read the log may be gone; the work goes on.
            with self.lock, suppress(OSError, ValueError):
                self.stream.write(text)
                self.stream.flush()

    # Over HTTP ---------------------------------------------------------------------------------

    def is_healthy(self) -> bool:
        return time.monotonic() - self.contact_at < UNHEALTHY_AFTER_SECONDS

    def serve(self, port: int, host: str) -> Any:
        """Serves /metrics and /healthz from a thread; returns the server, whose `shutdown()` ends it."""
        from wsgiref.simple_server import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

        metrics = make_wsgi_app(self.registry)

        def application(environ: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
            path = environ.get("PATH_INFO")
            if path == "/metrics":
                return metrics(environ, respond)  # type: ignore[no-any-return]
            if path == "/healthz":
                status = "200 OK" if self.is_healthy() else "503 Service Unavailable"
                respond(status, [("Content-Type", "application/json")])
                return [json.dumps({"status": "ok" if self.is_healthy() else "no answer from the database"}).encode()]
            respond("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics and /healthz are here.\n"]

        server = make_server(host, port, application, handler_class=Quiet)
        threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
        return server


def now() -> str:
    """The time, as logs write it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{int(time.time() * 1000) % 1000:03d}Z"


def line_of(result: Result, outcome: str) -> str:
    """The log line of an attempt."""
    job = result.job
    facts: dict[str, Any] = {
        "at": now(), "event": outcome, "job": job.id, "kind": job.kind,
        "workspace": str(job.workspace_id) if job.workspace_id else None, "attempt": job.attempt,
        "seconds": round(result.seconds, 4),
    }  # fmt: skip
    if result.error is not None:
        facts["error"] = result.error[:2000]
    return json.dumps(facts) + "\n"
