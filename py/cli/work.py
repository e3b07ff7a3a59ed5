"""`rowhouse work`: the worker."""

from __future__ import annotations

import faulthandler
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import RowhouseError, UsageError

Level = Annotated[str, typer.Option(help="What to log: job (every attempt), trouble or nothing.", metavar="LEVEL")]


def work(
    queues: Annotated[str | None, typer.Option(help="Only these queues, separated by commas; all without it.")] = None,
    concurrency: Annotated[int, typer.Option(help="Jobs at the same time.", min=1, max=500)] = 10,
    batch: Annotated[int, typer.Option(help="Most jobs that one claim takes.", min=1, max=10_000)] = 500,
    lease: Annotated[float, typer.Option(help="Seconds until silence counts as death.", min=2, max=3600)] = 60,
    poll: Annotated[float, typer.Option(help="Seconds between looks where nothing is heard.", min=0.05, max=60)] = 1,
    grace: Annotated[float, typer.Option(help="Seconds that TERM leaves to running jobs.", min=0, max=3600)] = 30,
    load: Annotated[
        list[str] | None,
        typer.Option(help="A Python module that registers kinds; can be given again.", metavar="MODULE"),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Claim once, do that, end.")] = False,
    drain: Annotated[bool, typer.Option("--drain", help="End when nothing is ready any more.")] = False,
    in_postgres: Annotated[
        bool, typer.Option("--postgres/--no-postgres", help="Also start jobs that run in Postgres.")
    ] = True,
    port: Annotated[
        int | None, typer.Option(help="Serve /metrics (Prometheus) and /healthz on this port.", min=1, max=65535)
    ] = None,
    host: Annotated[str, typer.Option(help="The address to serve them on.")] = "127.0.0.1",
    log: Level = "job",
) -> None:
    """Runs jobs until TERM or INT: those that cross the network, and those of Postgres without waiting for the clock.

    Start as many as you like, on any number of machines. It connects to WORKER_DATABASE_URL, or else to
    DATABASE_URL; the role rowhouse_worker is all it needs. Behind a pooler in transaction mode, DIRECT_URL may name
    the database itself to hear of new jobs at once. ROWHOUSE_JOBS names modules to load, as --load does. TERM ends it:
    what runs is finished, what was not begun is given back. A second TERM ends it at once.

    \b
    Examples:
      rowhouse work
      rowhouse work --queues mail,default --concurrency 20 --port 9100
      rowhouse work --load my_app.jobs --drain
    """
    import importlib

    from psycopg_pool import ConnectionPool

    from ..settings import database_url, setting
    from ..worker import delivery, stripe_calls  # noqa: F401  register the house's own kinds
    from ..worker.attempts import Settings
    from ..worker.kinds import registry
    from ..worker.loop import Worker
    from ..worker.report import Report

    if log not in ("job", "trouble", "nothing"):
        raise UsageError(f"There is no log level {log!r}.", "Use job, trouble or nothing.")
    sys.path.insert(0, str(Path.cwd()))
    for name in [*(load or []), *filter(None, (setting("ROWHOUSE_JOBS") or "").split(","))]:
        try:
            importlib.import_module(name.strip())
        except ModuleNotFoundError as error:
            raise UsageError(
                f"{name}: {error}.", "Name a module that Python finds from here, such as my_app.jobs."
            ) from None
    url = setting("WORKER_DATABASE_URL") or database_url()
    settings = Settings(
        queues=[name.strip() for name in queues.split(",") if name.strip()] if queues else None,
        concurrency=concurrency, batch=max(batch, concurrency), lease=lease, poll=poll, grace=grace,
        in_postgres=in_postgres, once=once, drain=drain, listen_url=setting("DIRECT_URL") or url,
    )  # fmt: skip
    report = Report(log)
    # Behind a pooler a session is not ours to prepare statements in.
    options = {"autocommit": True, "prepare_threshold": None, "application_name": "rowhouse work"}
    pool, handlers_pool = (
        ConnectionPool(url, kwargs=options, min_size=least, max_size=most, timeout=10, open=False, num_workers=2)
        for least, most in ((3, 5), (1, concurrency + 2))
    )
    server: Any = None
    try:
        if port is not None:
            try:
                server = report.serve(port, host)
            except OSError as error:
                raise UsageError(f"Port {port} of {host}: {error.strerror}.", "Choose another --port.") from None
        is_clean = _run((pool, handlers_pool), Worker(pool, registry, settings, report, handlers_pool))
    finally:
        if server is not None:
            server.shutdown()
    if not is_clean:
        # Threads that still run would keep the process; their leases run out by themselves.
        sys.stderr.flush()
        import os

        os._exit(1)


def _run(pools: tuple[Any, Any], worker: Any) -> bool:
    import psycopg
    from psycopg_pool import PoolTimeout

    from ..errors import from_postgres

    def on_signal(number: int, _: object) -> None:
        if worker.stopping.is_set():
            import os

            os._exit(128 + number)
        worker.stop()

    # For whoever wonders what it is doing: kill -USR1 prints where each thread is.
    faulthandler.register(signal.SIGUSR1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    try:
        for pool in pools:
            pool.open(wait=True, timeout=30)
    except PoolTimeout:
        raise RowhouseError("The database cannot be reached.", "Check WORKER_DATABASE_URL or DATABASE_URL.") from None
    try:
        return bool(worker.run())
    except psycopg.Error as error:
        raise from_postgres(error) from error
    finally:
        for pool in pools:
            pool.close(timeout=5)
