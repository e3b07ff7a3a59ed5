"""python pgqueuer_contender.py install|enqueue_one N|enqueue_batch N|drain N|latency N|size."""

import asyncio
import json
import logging
import os
import sys
import time
from datetime import timedelta

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.queries import Queries

URL = os.environ["DATABASE_URL"]
BATCH = int(os.environ.get("BATCH", "1000"))
POOL = int(os.environ.get("POOL", "4"))
logging.disable(logging.INFO)


def rate(jobs, start):
    print(json.dumps({"jobs": jobs, "seconds": time.perf_counter() - start}))


async def driver():
    if POOL:
        return AsyncpgPoolDriver(await asyncpg.create_pool(URL, min_size=POOL, max_size=POOL))
    return AsyncpgDriver(await asyncpg.connect(URL))


async def install():
    queries = Queries(await driver())
    await queries.install()
    if os.environ.get("AUTOVAC", "1") == "1":
        await queries.optimize_autovacuum()  # `pgq autovac`, docs/guides/performance-tuning.md


async def enqueue_one(n):
    queries = Queries(AsyncpgDriver(await asyncpg.connect(URL)))
    await queries.has_table("pgqueuer")
    start = time.perf_counter()
    for i in range(n):
        await queries.enqueue("noop", b"%d" % i)
    rate(n, start)


async def enqueue_batch(n):
    queries = Queries(AsyncpgDriver(await asyncpg.connect(URL)))
    await queries.has_table("pgqueuer")
    start = time.perf_counter()
    for i in range(0, n, 1000):
        some = range(i, min(i + 1000, n))
        await queries.enqueue(["noop"] * len(some), [b"%d" % j for j in some], [0] * len(some))
    rate(n, start)


async def drain(n):
    workers = int(os.environ.get("WORKERS", "1"))
    queuers = [PgQueuer(await driver()) for _ in range(workers)]
    ran = 0

    async def noop(job):
        nonlocal ran
        ran += 1
        if ran == n:
            for queuer in queuers:
                queuer.shutdown.set()

    for queuer in queuers:
        queuer.entrypoint("noop")(noop)
    start = time.perf_counter()
    # run() returns once what was buffered is written: the job rows are moved to pgqueuer_log
    await asyncio.gather(*(q.run(batch_size=BATCH, dequeue_timeout=timedelta(seconds=1)) for q in queuers))
    rate(n, start)
    connection = await asyncpg.connect(URL)
    left = await connection.fetchval("select count(*) from pgqueuer")
    done = await connection.fetchval("select count(*) from pgqueuer_log where status = 'successful'")
    if left or ran != n:
        sys.exit(f"left {left}, ran {ran}, logged {done}")


async def latency(n):
    queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(URL)))
    sender = Queries(AsyncpgDriver(await asyncpg.connect(URL)))
    started = None

    @queuer.entrypoint("noop")
    async def noop(job):
        started.set_result(time.perf_counter())

    task = asyncio.create_task(queuer.run(batch_size=10, dequeue_timeout=timedelta(seconds=30)))
    await asyncio.sleep(1)
    times = []
    for i in range(-20, n):
        started = asyncio.get_running_loop().create_future()
        start = time.perf_counter()
        await sender.enqueue("noop", b"%d" % i)
        at = await started
        if i >= 0:
            times.append((at - start) * 1000)
        await asyncio.sleep(0.02)
    times.sort()
    print(json.dumps({"p50": times[len(times) // 2], "p95": times[min(len(times) - 1, int(len(times) * 0.95))]}))
    queuer.shutdown.set()
    await task


async def size():
    connection = await asyncpg.connect(URL)
    row = await connection.fetchrow(
        """select sum(pg_table_size(oid))::float8 as table_bytes, sum(pg_indexes_size(oid))::float8 as index_bytes
        from pg_class where relname ~ '^pgqueuer' and relkind = 'r'"""
    )
    print(json.dumps(dict(row)))


uvloop.run(
    {f.__name__: f for f in (install, enqueue_one, enqueue_batch, drain, latency, size)}[sys.argv[1]](
        *map(int, sys.argv[2:])
    )
)
