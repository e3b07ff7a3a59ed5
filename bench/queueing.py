"""Job queues side by side, each in a fresh database of one server, in one run, with fsync."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from rowhouse.local.account import give_to_service, shared_home
from rowhouse.local.cluster import Cluster
from rowhouse.local.packages import ensure_packages

from tests.server import TEMPLATE, Server, free_port

Rows = list[list[str]]
HERE = Path(__file__).parent / "contenders"
HOME = Path(__file__).parent.parent / ".rowhouse" / "bench"
CONTENDERS = ("floor", "rowhouse", "graphile-worker", "pg-boss", "pgqueuer", "procrastinate")
JOBS = 50_000
# It does a thousand a second, and would take the rest of the hour.
FEWER = {"procrastinate": 5_000}


def install() -> None:
    """Installs the contenders beside the project, from their lock files."""
    marker = HOME / "installed"
    locks = [HERE / "requirements.lock", HERE / "package-lock.json"]
    if marker.is_file() and all(lock.stat().st_mtime <= marker.stat().st_mtime for lock in locks):
        return
    HOME.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", HOME / "venv"], check=True)
    pip: list[str | Path] = [
        HOME / "venv/bin/pip",
        "install",
        "--quiet",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
    ]
    subprocess.run([*pip, "-r", HERE / "requirements.lock"], check=True)
    for name in ("package.json", "package-lock.json", *(path.name for path in HERE.glob("*.mjs"))):
        shutil.copy(HERE / name, HOME / name)
    subprocess.run(["npm", "ci", "--silent"], cwd=HOME, check=True)
    marker.touch()


@contextmanager
def durable() -> Iterator[Server]:
    """A server that waits for the disk."""
    server = Server()
    shutil.rmtree(server.folder)
    server.folder = Path(tempfile.mkdtemp(prefix="bench-", dir=shared_home()))
    server.folder.chmod(0o755)
    give_to_service(server.folder)
    server.cluster = Cluster.of_packages(ensure_packages(), server.folder / "data", free_port(), server.password)
    server.cluster.create(durable=True, cron_database="postgres")
    try:
        server.cluster.start(server.folder / "log")
        server.make_template()
        yield server
    finally:
        server.stop()


def command(name: str) -> list[str]:
    if name in ("graphile-worker", "pg-boss"):
        return [str(HOME / "node_modules/node/bin/node"), str(HOME / f"{name}.mjs")]
    python = sys.executable if name in ("floor", "rowhouse") else str(HOME / "venv/bin/python")
    return [python, str(HERE / f"{name}_contender.py")]


def ask(name: str, url: str, *words: str) -> dict[str, Any]:
    """Runs a mode of a contender; what it printed."""
    result = subprocess.run(
        [*command(name), *words], env={**os.environ, "DATABASE_URL": url}, cwd=Path(__file__).parent.parent,
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    if result.returncode:
        raise RuntimeError(f"{name} {' '.join(words)}: {result.stdout[-500:]} {result.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1]) if result.stdout.strip() else {}
    return answer


def fresh(server: Server, name: str) -> str:
    """A database of the contender's own; returns its URL."""
    database = f"queue_{name.replace('-', '_')}"
    with psycopg.connect(server.cluster.url("postgres"), autocommit=True) as connection:
        template = f"template {TEMPLATE}" if name == "rowhouse" else ""
        connection.execute(f"drop database if exists {database} with (force)".encode())
        connection.execute(f"create database {database} {template}".encode())
    url = server.cluster.url(database)
    ask(name, url, "install")
    return url


def vacuum(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("vacuum analyze")


def round_of(server: Server, measured: dict[str, dict[str, list[float]]]) -> None:
    """One round: every contender does everything once, in turn, step by step."""
    urls = {name: fresh(server, name) for name in CONTENDERS}
    steps: tuple[tuple[str, int], ...] = (
        ("enqueue_one", 2_000),
        ("drain", 2_000),
        ("enqueue_batch", JOBS),
        ("drain", JOBS),
    )
    for place, (mode, count) in enumerate(steps):
        for name, url in urls.items():
            jobs = min(count, FEWER.get(name, count))
            if mode == "drain":
                vacuum(url)
            answer = ask(name, url, mode, str(jobs))
            if place != 1:
                measured[name].setdefault(mode, []).append(answer["jobs"] / answer["seconds"])
    for name, url in urls.items():
        answer = ask(name, url, "size")
        jobs = min(JOBS, FEWER.get(name, JOBS)) + 2_000
        measured[name].setdefault("bytes", []).append((answer["table_bytes"] + answer["index_bytes"]) / jobs)
    for name, url in urls.items():
        answer = ask(name, url, "latency", "200")
        measured[name].setdefault("p50", []).append(answer["p50"])
        measured[name].setdefault("p95", []).append(answer["p95"])
    ask("rowhouse", urls["rowhouse"], "enqueue_batch", str(JOBS), "noop_sql")
    vacuum(urls["rowhouse"])
    answer = ask("rowhouse", urls["rowhouse"], "drain_in_postgres", str(JOBS))
    measured["rowhouse"].setdefault("in_postgres", []).append(answer["jobs"] / answer["seconds"])


def queueing(rounds: int = 3) -> tuple[Rows, Rows]:
    """Rates by contender, medians of the rounds; and claims among 50,000 dead rows."""
    install()
    measured: dict[str, dict[str, list[float]]] = {name: {} for name in CONTENDERS}
    with durable() as server:
        for _ in range(rounds):
            round_of(server, measured)
        dead = dead_rows(server)
    middle = {
        name: {key: statistics.median(values) for key, values in figures.items()} for name, figures in measured.items()
    }
    floor = middle["floor"]

    def rates(name: str) -> list[str]:
        row = [name]
        for mode in ("enqueue_one", "enqueue_batch", "drain"):
            row.append(f"{middle[name][mode]:,.0f}/s ({middle[name][mode] / floor[mode]:.2f})")
        row.append(f"{middle[name]['p50']:.1f} / {middle[name]['p95']:.1f} ms")
        row.append(f"{middle[name]['bytes']:,.0f}")
        return row

    rows = [rates(name) for name in CONTENDERS]
    inside = middle["rowhouse"]["in_postgres"]
    rows.append(["rowhouse, inside Postgres", "", "", f"{inside:,.0f}/s ({inside / floor['drain']:.2f})", "", ""])
    return rows, dead


def dead_rows(server: Server) -> Rows:
    """How long a claim of one job takes: in a clean table, and behind 50,000 dead rows that a snapshot pins."""
    rows = []
    for name, take in (
        ("floor", (HERE / "floor_contender.py").read_text().split('"""')[3] % 1),
        ("rowhouse", "select * from jobs.claim(size => 1)"),
    ):
        figures = []
        for is_pinned in (False, True):
            url = fresh(server, name)
            with (
                psycopg.connect(url, autocommit=True) as connection,
                psycopg.connect(url) as holder,
            ):
                if is_pinned:
                    holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                    holder.execute("select 1")
                    ask(name, url, "enqueue_batch", str(JOBS))
                    ask(name, url, "drain", str(JOBS))
                one = "select jobs.enqueue('noop')" if name == "rowhouse" else (
                    "insert into floor_jobs (queue, payload) values ('noop', '{}')"
                )  # fmt: skip
                times = []
                for _ in range(320):
                    connection.execute(one.encode())
                    begun = time.perf_counter()
                    connection.execute(take.encode()).fetchall()
                    times.append((time.perf_counter() - begun) * 1000)
                times = sorted(times[20:])
                figures += [f"{times[len(times) // 2]:.2f} ms", f"{times[int(len(times) * 0.99)]:.2f} ms"]
        rows.append([name, *figures])
    return rows
