"""python floor_contender.py install|enqueue_one N|enqueue_batch N|drain N|latency N|size.

The floor: a bare table, `skip locked` in batches of 1,000, by psycopg. No leases, retries, history, kinds or fairness.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

import psycopg

URL = os.environ["DATABASE_URL"]
TAKE = """
delete from floor_jobs where id = any (array(
    select id from floor_jobs where queue = 'noop' and run_at <= now() order by run_at, id limit %s
    for update skip locked
)) returning id, payload
"""


def rate(jobs: int, begun: float) -> None:
    print(json.dumps({"jobs": jobs, "seconds": time.perf_counter() - begun}))


def connect() -> psycopg.Connection[Any]:
    return psycopg.connect(URL, autocommit=True)


def install() -> None:
    with connect() as connection:
        connection.execute(
            "create table floor_jobs (id bigint generated always as identity primary key, queue text not null, "
            "run_at timestamptz not null default now(), payload jsonb not null)"
        )
        connection.execute("create index on floor_jobs (queue, run_at, id)")


def enqueue_one(count: int) -> None:
    with connect() as connection:
        connection.execute("select 1")
        begun = time.perf_counter()
        for n in range(count):
            connection.execute("insert into floor_jobs (queue, payload) values ('noop', %s::jsonb)", [f'{{"n": {n}}}'])
        rate(count, begun)


def enqueue_batch(count: int) -> None:
    with connect() as connection:
        connection.execute("select 1")
        begun = time.perf_counter()
        for start in range(0, count, 1000):
            payloads = [f'{{"n": {n}}}' for n in range(start, min(start + 1000, count))]
            connection.execute(
                "insert into floor_jobs (queue, payload) select 'noop', p from unnest(%s::jsonb[]) p", [payloads]
            )
        rate(count, begun)


def drain(count: int) -> None:
    ran = 0
    with connect() as connection:
        begun = time.perf_counter()
        while rows := connection.execute(TAKE, [1000], binary=True).fetchall():
            for _ in rows:
                ran += 1
        rate(count, begun)
    if ran != count:
        sys.exit(f"ran {ran}")


def latency(count: int) -> None:
    started = threading.Event()
    at = 0.0
    is_over = False

    def work() -> None:
        nonlocal at
        with connect() as connection:
            connection.execute("listen floor")
            while not is_over:
                for _ in connection.notifies(timeout=1, stop_after=1):
                    pass
                if connection.execute(TAKE, [1]).fetchall():
                    at = time.perf_counter()
                    started.set()

    thread = threading.Thread(target=work)
    thread.start()
    times = []
    with connect() as connection:
        time.sleep(0.5)
        for n in range(-20, count):
            started.clear()
            begun = time.perf_counter()
            connection.execute(
                "with made as (insert into floor_jobs (queue, payload) values ('noop', %s::jsonb)) "
                "select pg_notify('floor', '')", [f'{{"n": {n}}}'],
            )  # fmt: skip
            started.wait()
            if n >= 0:
                times.append((at - begun) * 1000)
            time.sleep(0.02)
    is_over = True
    thread.join()
    times.sort()
    print(json.dumps({"p50": times[len(times) // 2], "p95": times[int(len(times) * 0.95)]}))


def size() -> None:
    with connect() as connection:
        row = connection.execute(
            "select pg_table_size('floor_jobs')::float8, pg_indexes_size('floor_jobs')::float8"
        ).fetchone()
    assert row is not None
    print(json.dumps({"table_bytes": row[0], "index_bytes": row[1]}))


if __name__ == "__main__":
    modes = (install, enqueue_one, enqueue_batch, drain, latency, size)
    {mode.__name__: mode for mode in modes}[sys.argv[1]](*(int(w) for w in sys.argv[2:]))  # type: ignore[operator]
