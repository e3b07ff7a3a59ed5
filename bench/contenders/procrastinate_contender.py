"""python procrastinate_contender.py install|enqueue_one N|enqueue_batch N|drain N|latency N|size."""

import asyncio
import json
import logging
import os
import sys
import time

import psycopg
import psycopg_pool
import uvloop
from procrastinate import App, PsycopgConnector, SyncPsycopgConnector

URL = os.environ["DATABASE_URL"]
CONCURRENCY = int(os.environ.get("CONCURRENCY", "30"))
POOL = int(os.environ.get("POOL", "8"))
WORKERS = int(os.environ.get("WORKERS", "2"))
DELETE = os.environ.get("DELETE", "successful")
logging.disable(logging.WARNING)
app = App(connector=PsycopgConnector(conninfo=URL))


def rate(jobs, start):
    print(json.dumps({"jobs": jobs, "seconds": time.perf_counter() - start}))


ran = 0
wanted = 0
finished = None
started = None


@app.task(name="noop", queue="noop")
async def noop(i):
    global ran
    ran += 1
    if started is not None:
        started.set_result(time.perf_counter())
    elif ran == wanted:
        finished.set()


def pool(size):
    # An own pool (app.open_async(pool)): the connector's own asks "select 1" before every statement.
    # autocommit by configure=, not kwargs=: its listener passes autocommit itself to the pool's connection class.
    async def configure(connection):
        await connection.set_autocommit(os.environ.get("AUTOCOMMIT", "1") == "1")

    return psycopg_pool.AsyncConnectionPool(URL, min_size=size, max_size=size, open=False, configure=configure)


async def opened(size):
    made = pool(size)
    await made.open(wait=True)
    await app.open_async(made)
    return made


async def install():
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


def enqueue_one(n):
    sync = app.with_connector(SyncPsycopgConnector(conninfo=URL))
    with sync.open(), psycopg.connect(URL, autocommit=True) as connection:
        task = sync.tasks["noop"].configure(connection=connection)
        connection.execute("select 1")
        start = time.perf_counter()
        for i in range(n):
            task.defer(i=i)
        rate(n, start)


def enqueue_batch(n):
    sync = app.with_connector(SyncPsycopgConnector(conninfo=URL))
    with sync.open(), psycopg.connect(URL, autocommit=True) as connection:
        task = sync.tasks["noop"].configure(connection=connection)
        connection.execute("select 1")
        start = time.perf_counter()
        for i in range(0, n, 1000):
            task.batch_defer(*({"i": j} for j in range(i, min(i + 1000, n))))
        rate(n, start)


async def drain(n):
    global finished, wanted
    wanted = n
    finished = asyncio.Event()
    made = await opened(POOL)
    start = time.perf_counter()
    tasks = [
        asyncio.create_task(
            app.run_worker_async(
                queues=["noop"], concurrency=CONCURRENCY, install_signal_handlers=False, delete_jobs=DELETE
            )
        )
        for _ in range(WORKERS)
    ]
    await finished.wait()
    async with await psycopg.AsyncConnection.connect(URL, autocommit=True) as connection:
        while await (
            await connection.execute("select 1 from procrastinate_jobs where status in ('todo', 'doing') limit 1")
        ).fetchone():
            await asyncio.sleep(0.002)
        rate(n, start)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await made.close()


async def latency(n):
    global started
    made = await opened(4)
    sender = await psycopg.AsyncConnection.connect(URL, autocommit=True)
    send = noop.configure(connection=sender)
    task = asyncio.create_task(
        app.run_worker_async(queues=["noop"], concurrency=CONCURRENCY, install_signal_handlers=False)
    )
    await asyncio.sleep(1)
    times = []
    for i in range(-20, n):
        started = asyncio.get_running_loop().create_future()
        start = time.perf_counter()
        await send.defer_async(i=i)
        at = await started
        if i >= 0:
            times.append((at - start) * 1000)
        await asyncio.sleep(0.02)
    times.sort()
    print(json.dumps({"p50": times[len(times) // 2], "p95": times[min(len(times) - 1, int(len(times) * 0.95))]}))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await sender.close()
    await made.close()


async def size():
    async with await psycopg.AsyncConnection.connect(URL) as connection:
        row = await (
            await connection.execute(
                """select sum(pg_table_size(oid))::float8, sum(pg_indexes_size(oid))::float8
            from pg_class where relname ~ '^procrastinate_(jobs|events)$' and relkind = 'r'"""
            )
        ).fetchone()
    print(json.dumps({"table_bytes": row[0], "index_bytes": row[1]}))


mode = {f.__name__: f for f in (install, enqueue_one, enqueue_batch, drain, latency, size)}[sys.argv[1]]
arguments = list(map(int, sys.argv[2:]))
if asyncio.iscoroutinefunction(mode):
    uvloop.run(mode(*arguments))
else:
    mode(*arguments)
