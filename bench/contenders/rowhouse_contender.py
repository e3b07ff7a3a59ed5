"""python rowhouse_contender.py install|enqueue_one N|enqueue_batch N|drain N|drain_in_postgres N|latency N|size.

DATABASE_URL names a database with Rowhouse's schema. Prints a line of JSON, as every contender does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool
from rowhouse.worker.attempts import Settings
from rowhouse.worker.kinds import Job, Registry
from rowhouse.worker.loop import Worker
from rowhouse.worker.report import Report

URL = os.environ["DATABASE_URL"]
NOOP = "create or replace function public.noop(job jobs.jobs) returns void language plpgsql as 'begin end'"


def rate(jobs: int, begun: float) -> None:
    print(json.dumps({"jobs": jobs, "seconds": time.perf_counter() - begun}))


def connect() -> psycopg.Connection[Any]:
    return psycopg.connect(URL, autocommit=True)


def install() -> None:
    with connect() as connection:
        connection.execute(NOOP)
        connection.execute("select jobs.declare_kind('noop', 'worker')")
        connection.execute("select jobs.declare_kind('noop_sql', 'postgres', 'public.noop')")


def enqueue_one(count: int) -> None:
    with connect() as connection:
        connection.execute("select 1")
        begun = time.perf_counter()
        for n in range(count):
            connection.execute("select jobs.enqueue('noop', %s::jsonb)", [f'{{"n": {n}}}'])
        rate(count, begun)


def enqueue_batch(count: int, kind: str = "noop") -> None:
    with connect() as connection:
        connection.execute("select 1")
        begun = time.perf_counter()
        for start in range(0, count, 1000):
            payloads = [f'{{"n": {n}}}' for n in range(start, min(start + 1000, count))]
            connection.execute("select jobs.enqueue_many(%s, %s::jsonb[])", [kind, payloads])
        rate(count, begun)


def worker(handler: Any, **settings: Any) -> tuple[Worker, ConnectionPool[Any]]:
    kinds = Registry()
    kinds.job_kind("noop", is_declared_in_sql=True)(handler)
    pool = ConnectionPool(
        URL, kwargs={"autocommit": True, "prepare_threshold": None}, min_size=4, max_size=10, open=True
    )
    pool.wait()
    return Worker(pool, kinds, Settings(listen_url=URL, in_postgres=False, **settings), Report("nothing")), pool


def drain(count: int) -> None:
    ran = 0

    def noop(_: Job) -> None:
        nonlocal ran
        ran += 1

    made, pool = worker(
        noop,
        concurrency=int(os.environ.get("CONCURRENCY", "2")),
        batch=int(os.environ.get("BATCH", "1000")),
        drain=True,
    )
    begun = time.perf_counter()
    made.run()
    rate(count, begun)
    with connect() as connection:
        left = connection.execute("select count(*) from jobs.jobs where kind = 'noop'").fetchone()
    pool.close()
    if ran != count or left != (0,):
        sys.exit(f"ran {ran}, left {left}")


def drain_in_postgres(count: int) -> None:
    with connect() as connection:
        begun = time.perf_counter()
        connection.execute("call jobs.run(size => 1000)")
        rate(count, begun)
        if connection.execute("select count(*) from jobs.jobs where kind = 'noop_sql'").fetchone() != (0,):
            sys.exit("some are left")


def latency(count: int) -> None:
    started = threading.Event()
    at = 0.0

    def noop(_: Job) -> None:
        nonlocal at
        at = time.perf_counter()
        started.set()

    made, pool = worker(noop, concurrency=2)
    thread = threading.Thread(target=made.run)
    thread.start()
    times = []
    with connect() as connection:
        time.sleep(1)
        for n in range(-20, count):
            started.clear()
            begun = time.perf_counter()
            connection.execute("select jobs.enqueue('noop', %s::jsonb)", [f'{{"n": {n}}}'])
            started.wait()
            if n >= 0:
                times.append((at - begun) * 1000)
            time.sleep(0.02)
    made.stop()
    thread.join()
    pool.close()
    times.sort()
    print(json.dumps({"p50": times[len(times) // 2], "p95": times[int(len(times) * 0.95)]}))


def size() -> None:
    with connect() as connection:
        row = connection.execute(
            "select sum(pg_table_size(c.oid))::float8, sum(pg_indexes_size(c.oid))::float8 from pg_class c "
            "where c.relnamespace = 'jobs'::regnamespace and c.relkind = 'r' and c.relname ~ '^(jobs|leases|history)'"
        ).fetchone()
    assert row is not None
    print(json.dumps({"table_bytes": row[0], "index_bytes": row[1]}))


if __name__ == "__main__":
    modes = (install, enqueue_one, enqueue_batch, drain, drain_in_postgres, latency, size)
    {mode.__name__: mode for mode in modes}[sys.argv[1]](*(int(w) if w.isdecimal() else w for w in sys.argv[2:]))  # type: ignore[operator]
