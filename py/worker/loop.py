"""The worker: claims jobs in batches, runs them in threads, and tells the database in batches how they ended.

Threads, because what they do is wait for the network. Four kinds of them besides the runners: the one that claims
(the caller's own), one that settles results, one that keeps leases, and one that listens.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool, PoolTimeout

from .attempts import Lease, Result, Running, Settings, attempt
from .kinds import Job, Registry
from .report import Report

# From so many jobs a claim on it pays to have two under way.
MUCH = 200
# The payload as text: what cannot be read is the fault of one job, and found when that one is run.
CLAIM = """
select c.id, c.kind, c.queue, c.workspace_id, c.payload::text, c.attempt, c.max_attempts, c.timeout, c.lease::text
from jobs.claim(%s, %s, %s, %s) c
"""


SMALL_BATCH, GATHER_SECONDS = 50, 0.02


class Worker:
    """Runs until `stop()` is called; see Settings for what else ends it.

    `handlers_pool` is for the handlers, so that those that hang there leave the worker its own connections.
    """

    def __init__(
        self, pool: ConnectionPool[Any], kinds: Registry, settings: Settings, report: Report,
        handlers_pool: ConnectionPool[Any] | None = None,
    ) -> None:  # fmt: skip
        self.pool, self.kinds, self.settings, self.report = pool, kinds, settings, report
        self.handlers_pool = handlers_pool or pool
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.queue: deque[Job] = deque()
        self.results: deque[Result] = deque()
        self.leases: dict[str, Lease] = {}
        self.running: list[Running] = []
        self.stopping, self.stopped = threading.Event(), threading.Event()
        self.work, self.settled, self.awake = threading.Event(), threading.Event(), threading.Event()
        self.postgres_awake = threading.Event()
        self.is_broken = False
        self.second_claim = ThreadPoolExecutor(1, "claim")
        self.finished_lately: deque[tuple[float, int]] = deque(maxlen=50)

    # The outside -----------------------------------------------------------------------------

    def stop(self) -> None:
        """No new claims from now on; what runs is finished, what was not begun is given back. For any thread."""
        self.stopping.set()
        self.awake.set()
        self.postgres_awake.set()

    def run(self) -> bool:
        """Works until there is a reason to end; False if something was still running when the grace was over."""
        self._register()
        settle = self._thread(self._settle, "settle", daemon=False)
        in_postgres = self._thread(self._run_in_postgres, "postgres", daemon=False)
        threads = [settle, self._thread(self._keep_leases, "leases"), self._thread(self._listen, "listen")]
        if self.settings.in_postgres:
            threads.append(in_postgres)
        for thread in threads:
            thread.start()
        for _ in range(self.settings.concurrency):
            self._start_runner()
        self.report.started(self.name, self.settings)
        try:
            self._claim()
            if self.settings.drain and self.settings.in_postgres:
                in_postgres.join()
        finally:
            self.stop()
            is_clean = self._wind_down(threads)
            self.report.stopped(is_clean)
        return is_clean and not self.is_broken

    def _thread(self, work: Callable[[], None], name: str, *, daemon: bool = True) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                # A worker with a part missing would go on and lose track: better that it ends, and is started again.
                self.report.trouble(name, error)
                self.is_broken = True
                self.stop()

        return threading.Thread(target=guarded, name=name, daemon=daemon)

    def _start_runner(self) -> None:
        place = Running()
        self.running.append(place)
        threading.Thread(target=self._run_jobs, args=[place], name="runner", daemon=True).start()

    def _wind_down(self, threads: Iterable[threading.Thread]) -> bool:
        deadline = time.monotonic() + self.settings.grace
        while True:
            self._release_unbegun(0)
            busy = any(place.job and not place.abandoned for place in self.running)
            if (not busy and not self.leases and not self.results) or time.monotonic() >= deadline or self.is_broken:
                break
            time.sleep(0.01)
        is_clean = not self.leases and not self.results
        self.stopped.set()
        self.work.set()
        self.settled.set()
        self.second_claim.shutdown(wait=False)
        for thread in threads:
            if not thread.daemon:
                thread.join(max(1.0, deadline - time.monotonic()))
        return is_clean

    def _release_unbegun(self, keep: int) -> None:
        """Gives back what was not begun, the last first, but for so many."""
        while len(self.queue) > keep:
            try:
                self._hand_in(Result(self.queue.pop(), 0.0, retry_in=0.0, released=True))
            except IndexError:
                break

    # Asking the database -------------------------------------------------------------------------

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection of the pool; each statement its own transaction unless the caller opens one."""
        with self.handlers_pool.connection(timeout=10) as connection:
            yield connection

    def _ask(self, query: str, parameters: list[Any], *, factory: Any = None) -> list[Any]:
        with self.pool.connection(timeout=10) as connection:
            cursor = connection.cursor(binary=True, row_factory=factory or psycopg.rows.tuple_row)
            rows: list[Any] = cursor.execute(query.encode(), parameters).fetchall()
        self.report.contact()
        return rows

    def _recover(self, failures: int) -> None:
        """Replaces the connections that broke, all at once, and waits the longer the more often this was called."""
        self.stopping.wait(min(5.0, 0.1 * 2.0**failures))
        try:
            self.pool.check()
        except (psycopg.Error, PoolTimeout) as error:
            self.report.trouble("reconnect", error)

    def _register(self) -> None:
        declarations = [kind.declaration for kind in self.kinds.values() if kind.declaration]
        self._ask("select jobs.register(%s)", [Jsonb(declarations)])

    # Claiming ------------------------------------------------------------------------------------

    def _size(self) -> int:
        """As many as are likely to be done within a quarter of a second, so that no job waits in a busy worker."""
        now = time.monotonic()
        lately = [(at, count) for at, count in list(self.finished_lately) if at > now - 1.0]
        done = sum(count for _, count in lately)
        since = min((at for at, _ in lately), default=now)
        rate = done / max(now - since, 0.05)
        wanted = max(self.settings.concurrency, int(rate / 4))
        return max(1, min(self.settings.batch, wanted))

    def _claim(self) -> None:
        failures = 0
        while not self.stopping.is_set():
            size = self._size()
            if len(self.queue) > size // 2 or (self.queue and self.settings.once):
                # Slower than it looked: what waits here would wait less elsewhere.
                self._release_unbegun(max(3 * size, 4 * self.settings.concurrency))
                self.awake.wait(0.002)
                self.awake.clear()
                continue
            self.awake.clear()
            try:
                jobs = self._claim_some(size)
                failures = 0
            except (psycopg.Error, PoolTimeout) as error:
                failures += 1
                self.report.trouble("claim", error)
                self._recover(failures)
                continue
            if self.settings.once or (self.settings.drain and not jobs and self._is_idle()):
                self._wait_until_idle()
                if self.settings.once or not self._has_more():
                    return
                continue
            if jobs < size:
                self.awake.wait(self.settings.poll)

    def _claim_some(self, size: int) -> int:
        """Claims, and where much is to be done claims twice at once; returns how many jobs there were."""
        second = self.second_claim.submit(self._claim_once, size) if size >= MUCH and not self.settings.once else None
        try:
            count = self._claim_once(size)
        finally:
            count_of_second = second.result() if second else 0
        return count + count_of_second

    def _claim_once(self, size: int) -> int:
        begun = time.monotonic()
        jobs = self._ask(
            CLAIM, [self.settings.queues, size, self.name, self.settings.lease], factory=psycopg.rows.args_row(Job)
        )
        if jobs:
            self._take(jobs, begun)
        return len(jobs)

    def _take(self, jobs: list[Job], begun: float) -> None:
        lease = Lease(jobs[0].lease, begun + self.settings.lease, len(jobs))
        self.leases[lease.token] = lease
        for job in jobs:
            job.connect = self.connect
        self.queue.extend(jobs)
        self.work.set()

    def _is_idle(self) -> bool:
        return not self.queue and not self.results and not any(place.job for place in self.running) and not self.leases

    def _wait_until_idle(self) -> None:
        while not self._is_idle() and not self.stopping.is_set():
            time.sleep(0.005)

    def _has_more(self) -> bool:
        return self._claim_once(1) > 0

    # Running -------------------------------------------------------------------------------------

    def _run_jobs(self, place: Running) -> None:
        while not place.abandoned and not self.stopped.is_set():
            try:
                job = self.queue.popleft()
            except IndexError:
                if self.work.is_set():
                    self.work.clear()
                    self.awake.set()
                if not self.queue:
                    self.work.wait(1.0)
                continue
            begun = time.monotonic()
            lease = self.leases.get(job.lease)
            if lease is None or begun >= lease.deadline:
                # Stopped, or cut off, for longer than the lease: it is somebody else's by now.
                self._hand_in(Result(job, 0.0, retry_in=0.0, released=True))
                continue
            place.job, place.begun = job, begun
            result = attempt(self.kinds, job, begun)
            if not place.abandoned:
                place.job = None
                self._hand_in(result)

    def _hand_in(self, result: Result) -> None:
        self.results.append(result)
        if not self.settled.is_set():
            self.settled.set()

    def _run_in_postgres(self) -> None:
        """Kinds whose handler is an SQL function run in the database; this only says when."""
        while not self.stopping.is_set():
            try:
                token = self._ask("select jobs.claim_for_postgres(%s)", [self.settings.queues])[0][0]
                if token is not None:
                    begun = time.monotonic()
                    count = self._ask("select jobs.execute(%s)", [token])[0][0]
                    self.report.executed(count, time.monotonic() - begun)
                    if count < SMALL_BATCH and not (self.settings.once or self.settings.drain):
                        # A claim costs as much as some jobs: those that come one by one are let gather.
                        self.stopping.wait(GATHER_SECONDS)
                    continue
            except (psycopg.Error, PoolTimeout) as error:
                self.report.trouble("execute", error)
                self._recover(1)
                continue
            if self.settings.once or self.settings.drain:
                return
            self.postgres_awake.wait(self.settings.poll)
            self.postgres_awake.clear()

    # Settling ------------------------------------------------------------------------------------

    def _settle(self) -> None:
        while not (self.stopped.is_set() and not self.results):
            self.settled.wait(0.5)
            self.settled.clear()
            batch = [self.results.popleft() for _ in range(len(self.results))]
            untold = self._tell(batch) if batch else []
            if untold:
                self.results.extendleft(reversed(untold))
                if self.stopped.is_set():
                    return
                self._recover(1)
                self.settled.set()

    def _tell(self, batch: list[Result]) -> list[Result]:
        """Tells the database how attempts ended, lease by lease; returns those it could not be told of yet."""
        by_lease: dict[str, list[Result]] = {}
        for result in batch:
            by_lease.setdefault(result.job.lease, []).append(result)
        untold: list[Result] = []
        for token, results in by_lease.items():
            lease = self.leases.get(token)
            try:
                self._tell_of(token, results)
            except (psycopg.Error, PoolTimeout) as error:
                # A server that restarts, or only reads for a while: the lease says for how long to try.
                self.report.trouble("settle", error)
                if lease is not None and time.monotonic() < lease.deadline:
                    untold += results
                    continue
            if lease is not None:
                lease.open -= len(results)
                if lease.open <= 0:
                    self.leases.pop(token, None)
            self.finished_lately.append((time.monotonic(), len(results)))
            self.report.ended(results)
        if not self.queue:
            self.awake.set()
        return untold

    def _tell_of(self, token: str, results: list[Result]) -> None:
        """Completed ones first: nothing that is wrong with the others may have them run again."""
        done = [r.job.id for r in results if r.error is None and not r.released and not r.is_told]
        failed = [r for r in results if r.error is not None and not r.released]
        if done:
            # Put together here: psycopg takes its time over lists.
            ids = "{" + ",".join(map(str, done)) + "}"
            count = self._ask("select jobs.complete(%s::uuid, %s::bigint[])", [token, ids])[0][0]
            if count < len(done):
                self.report.lost(len(done) - count)
            # Told once: what follows may fail and be told again.
            for result in results:
                if result.error is None and not result.released:
                    result.is_told = True
        for delay in {r.retry_in for r in results if r.released}:
            given = [r.job.id for r in results if r.released and r.retry_in == delay]
            self._ask("select jobs.release(%s::uuid, %s, %s)", [token, given, delay])
        if failed:
            failures = [
                {"id": r.job.id, "error": r.error, "retry_in": r.retry_in, "is_permanent": r.is_permanent}
                for r in failed
            ]
            self._ask("select * from jobs.fail(%s::uuid, %s)", [token, Jsonb(failures)])

    # Leases --------------------------------------------------------------------------------------

    def _keep_leases(self) -> None:
        while not self.stopped.wait(0.25):
            self._end_overdue()
            now = time.monotonic()
            due = [lease for lease in list(self.leases.values()) if lease.deadline - now < self.settings.lease * 2 / 3]
            if not due:
                continue
            try:
                held = {
                    row[0]
                    for row in self._ask(
                        "select h::text from jobs.heartbeat(%s::uuid[], %s) h",
                        [[lease.token for lease in due], self.settings.lease],
                    )
                }
            except (psycopg.Error, PoolTimeout) as error:
                self.report.trouble("heartbeat", error)
                continue
            for lease in due:
                if lease.token in held:
                    lease.deadline = now + self.settings.lease
                else:
                    lease.deadline = 0.0
                    self.leases.pop(lease.token, None)

    def _end_overdue(self) -> None:
        """A job past its timeout has failed, whatever its thread still does; another thread takes its place."""
        now = time.monotonic()
        for place in list(self.running):
            job = place.job
            if job is None or place.abandoned or now - place.begun <= job.timeout:
                continue
            place.abandoned = True
            self.running.remove(place)
            self._start_runner()
            self._hand_in(Result(job, now - place.begun, f"it took longer than {job.timeout:g} seconds"))

    # Listening -----------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Wakes the claimer when jobs are enqueued. Where that cannot be heard, as behind a pooler, polling remains."""
        while not self.stopping.is_set():
            try:
                with psycopg.connect(
                    self.settings.listen_url, autocommit=True, connect_timeout=10,
                    application_name="rowhouse listen",
                ) as connection:  # fmt: skip
                    connection.execute("listen rowhouse_jobs")
                    self.awake.set()
                    self.postgres_awake.set()
                    while not self.stopping.is_set():
                        for notice in connection.notifies(timeout=5.0):
                            (self.postgres_awake if notice.payload.startswith("postgres ") else self.awake).set()
                        if not self.stopping.is_set():
                            # Is it still there? And what came between two looks is found by looking.
                            connection.execute("select 1")
                            self.awake.set()
            except psycopg.Error as error:
                self.report.trouble("listen", error)
                self.stopping.wait(2.0)
