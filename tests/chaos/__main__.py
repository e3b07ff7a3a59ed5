"""`make chaos`: everything that can go wrong goes wrong while 10,000 jobs and 2,000 messages are under way.

Workers are killed and stopped past their leases, Postgres is stopped and started, connections are cut, providers fail
in every way, the clock jumps over a change to summer time, and what pg_cron would run runs twice at once or not at
all. In the end every job is completed or failed, no effect is lost, and each message was taken once.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from typing import Any

import psycopg
from psycopg.types.json import Jsonb
from rich.console import Console
from rich.table import Table
from rowhouse.local import providers
from rowhouse.local.cluster import SUPERUSER, Cluster
from rowhouse.local.packages import ensure_packages
from rowhouse.worker.kinds import registry

from ..conftest import Database
from ..identities import one, run
from ..jobs.worker import Worker
from ..server import TEMPLATE, Server, free_port
from . import handlers

FAULTS = ["down", "500", "503", "429", "lost", "half", "late"]
SQL_KIND = """
create table public.effects (job bigint, attempt bigint);
create table public.sql_effects (job bigint);
grant insert on public.effects to rowhouse_worker;
create function public.leave_effect(job jobs.jobs) returns void language plpgsql as $$
begin
    insert into public.sql_effects values (job.id);
    if random() < 0.03 then
        raise exception 'not this time';
    end if;
end
$$
"""


class Unreliable(providers.Memory):
    """Fails every third time, one way or another, until all is over."""

    def __init__(self, chaos: Chaos) -> None:
        super().__init__()
        self.chaos = chaos

    def next_fault(self, channel: str) -> str | None:
        if self.chaos.is_over or self.chaos.random.random() > 0.35:
            return None
        fault = self.chaos.random.choice(FAULTS)
        self.chaos.happened[f"provider of {channel}: {fault}"] += 1
        return fault


class Chaos:
    """The house, what happens to it, and the count of what happened."""

    def __init__(self, jobs: int, messages: int, workers: int, seed: int) -> None:
        self.jobs, self.messages, self.random = jobs, messages, random.Random(seed)
        self.console = Console(stderr=True)
        self.happened: Counter[str] = Counter()
        self.server = Server()
        self.server.cluster = Cluster.of_packages(
            ensure_packages(), self.server.folder / "data", free_port(), self.server.password
        )
        self.server.cluster.create(durable=True, cron_database="postgres")
        self.server.cluster.start(self.server.folder / "log")
        self.server.make_template()
        self.database = Database(TEMPLATE, self.server.cluster.port, self.server.password)
        self.memory = Unreliable(self)
        self.provider = providers.Server(free_port(), self.memory)
        self.is_over = False
        self.offset = 0.0
        self.workers: list[Worker] = []
        self.is_closed = False
        self.count = workers

    # The house ------------------------------------------------------------------------------------

    def prepare(self) -> None:
        with self.database.connect(SUPERUSER, autocommit=True) as superuser:
            run(superuser, f"alter role rowhouse_worker login password '{self.server.password}'")
        with self.database.connect(autocommit=True) as connection:
            for statement in SQL_KIND.strip().split(";\n", 3):
                run(connection, statement)
            kinds = [
                kind.declaration for kind in registry.values() if kind.declaration and kind.name.startswith("chaos")
            ]
            run(connection, "select jobs.register(%s::jsonb)", [Jsonb(kinds)])
            run(
                connection,
                "select jobs.declare_kind('chaos.sql', 'postgres', 'public.leave_effect', backoff => '0.2 seconds', "
                "max_backoff => '2 seconds', max_attempts => 100)",
            )
            run(
                connection,
                "update jobs.kinds set backoff = '0.2 seconds', max_backoff = '2 seconds', max_attempts = 100 where kind = 'notify.send'",
            )
            poison, in_sql = self.jobs // 20, self.jobs // 4
            for kind, count in (
                ("chaos.poison", poison), ("chaos.sql", in_sql), ("chaos.effect", self.jobs - poison - in_sql),
            ):  # fmt: skip
                run(connection, "select jobs.enqueue_many(%s, array_fill('{}'::jsonb, array[%s::int]))", [kind, count])
            # Half by themselves, half in batches of fifty.
            run(
                connection,
                """
                with batches as materialized (select notify.random_ids(%(n)s / 100) as ids),
                written as (
                    insert into notify.messages (channel, kind, recipient, subject, html, body, batch_id)
                    select
                        'email', 'chaos', 'm' || n || '@example.com', 'S', '<p>H</p>', 'T',
                        case when n <= %(n)s / 2 then gen_random_uuid() else b.ids[1 + (n - %(n)s / 2 - 1) / 50] end
                    from generate_series(1, %(n)s) n, batches b
                    returning batch_id
                )
                select notify.enqueue_batches(array_agg(distinct batch_id)) from written
                """,
                {"n": self.messages},
            )
        self.workers = [self._worker() for _ in range(self.count)]
        threading.Thread(target=self.provider.serve_forever, daemon=True).start()

    def _worker(self) -> Worker:
        url = f"http://127.0.0.1:{self.provider.server_address[1]}"
        return Worker(
            self.database.url("rowhouse_worker"), "--load", "tests.chaos.handlers", "--lease", "3", "--poll", "0.3",
            "--concurrency", "6", "--batch", "100", "--no-postgres", RESEND_API_KEY="re_chaos", RESEND_API_URL=url,
            ROWHOUSE_PROVIDER_TIMEOUT="1",
        )  # fmt: skip

    def ask(self, query: str, parameters: Any = None) -> Any:
        """The first column of the first row, as soon as the server answers."""
        while True:
            try:
                with self.database.connect(autocommit=True, connect_timeout=5) as connection:
                    return one(connection, query, parameters)
            except psycopg.OperationalError:
                time.sleep(0.2)

    def left(self) -> tuple[int, int]:
        jobs = self.ask("select count(*) from jobs.jobs where state <> 'failed'")
        messages = self.ask("select count(*) from notify.messages where state in ('pending', 'sending')")
        return jobs, messages

    # What happens to it ---------------------------------------------------------------------------

    def kill(self) -> None:
        place = self.random.randrange(len(self.workers))
        self.workers[place].signal(signal.SIGKILL)
        self.workers[place].wait()
        self.workers[place] = self._worker()
        self.happened["worker killed"] += 1

    def stop_past_lease(self) -> None:
        worker = self.random.choice(self.workers)
        worker.signal(signal.SIGSTOP)
        time.sleep(4)
        worker.signal(signal.SIGCONT)
        self.happened["worker stopped past its lease"] += 1

    def restart_postgres(self) -> None:
        self.server.cluster.stop()
        time.sleep(self.random.random())
        self.server.cluster.start(self.server.folder / "log")
        self.happened["Postgres stopped, immediate"] += 1

    def cut(self) -> None:
        self.ask(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() "
            "and pid <> pg_backend_pid() and random() < 0.5 and usename in ('postgres', 'rowhouse_worker')"
        )
        self.happened["connections cut"] += 1

    def jump(self) -> None:
        """An hour ahead, as if summer time had been mistaken for time, and back."""
        self.offset = 3600.0
        time.sleep(1.5)
        self.offset = 0.0
        self.happened["clock jumped an hour and back"] += 1

    def cron_twice(self) -> None:
        def call() -> None:
            try:
                with self.database.connect(autocommit=True, connect_timeout=5) as connection:
                    run(connection, "call jobs.run('3 seconds', 50)")
            except psycopg.Error:
                pass

        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.happened["pg_cron twice at once"] += 1

    def _keep_clock(self) -> None:
        before = 0.0
        while not self.is_closed:
            if self.offset or before:
                query = (
                    "with gone as (delete from ops.clock) select 1" if not self.offset else
                    "insert into ops.clock (set_to) select clock_timestamp() + make_interval(secs => %s) "
                    "on conflict (singleton) do update set set_to = excluded.set_to returning 1"
                )  # fmt: skip
                self.ask(query, [self.offset] if self.offset else None)
            before = self.offset
            time.sleep(0.3)

    # The course of it -----------------------------------------------------------------------------

    def run(self, seconds: float) -> bool:
        begun = time.monotonic()
        threading.Thread(target=self._keep_clock, daemon=True).start()
        deeds = [self.kill, self.stop_past_lease, self.cut, self.cron_twice, self.cron_twice, self.jump]
        while time.monotonic() - begun < seconds:
            deed = self.restart_postgres if self.random.random() < 0.12 else self.random.choice(deeds)
            deed()
            jobs, messages = self.left()
            self.console.print(f"{time.monotonic() - begun:5.0f} s  {jobs:6} jobs and {messages:5} messages left")
            if jobs == 0 and messages == 0:
                break
            time.sleep(self.random.random())
        # What was put off during a jump is due an hour later: time goes on from there.
        self.is_over, self.offset = True, 2 * 3600.0
        while any(self.left()):
            self.cron_twice()
            if time.monotonic() - begun > seconds + 240:
                break
        return self.report(time.monotonic() - begun)

    def report(self, seconds: float) -> bool:
        """The ledger of effects; whether it balances."""
        ask = self.ask
        jobs, _ = self.left()
        poison = self.jobs // 20
        in_sql = self.jobs // 4
        by_worker = self.jobs - poison - in_sql
        accepted = Counter(row["to"] for row in self.memory.taken)
        lines = [
            ("jobs enqueued", self.jobs, self.jobs),
            ("… completed", ask("select count(distinct id) from jobs.history where state = 'completed' and kind like 'chaos.%'"),
             by_worker + in_sql),
            ("… failed for good: the poison", ask("select count(*) from jobs.jobs where state = 'failed'"), poison),
            ("… that wait or run", jobs, 0),
            ("… completed twice", ask("select count(*) - count(distinct id) from jobs.history where state = 'completed'"), 0),
            ("leases left", ask("select count(*) from jobs.leases"), 0),
            ("jobs of workers with an effect", ask("select count(distinct job) from public.effects"), by_worker),
            ("jobs in Postgres with an effect", ask("select count(distinct job) from public.sql_effects"), in_sql),
            ("… with more than one", ask("select count(*) - count(distinct job) from public.sql_effects"), 0),
            ("messages written", self.messages, self.messages),
            ("… sent", ask("select count(*) from notify.messages where state = 'sent'"), self.messages),
            ("… that the provider took", len(accepted), self.messages),
            ("… that it took twice", sum(count > 1 for count in accepted.values()), 0),
        ]  # fmt: skip
        table = Table("effect", "is", "should be", title="The ledger of effects", title_justify="left")
        for name, is_, should in lines:
            table.add_row(name, f"{is_:,}", f"{should:,}", style=None if is_ == should else "bold red")
        again = ask("select count(*) - count(distinct job) from public.effects")
        table.add_row("effects of workers that came again", f"{again:,}", "few: a job may run twice")
        happened = Table("what happened", "times", title_justify="left")
        for name, count in sorted(self.happened.items()):
            happened.add_row(name, str(count))
        out = Console()
        out.print(happened)
        out.print(table)
        balances = all(is_ == should for _, is_, should in lines)
        out.print(f"{'All of it balances' if balances else 'It does not balance'}, after {seconds:.0f} s.")
        return balances

    def close(self) -> None:
        self.is_closed = True
        for worker in self.workers:
            worker.__exit__()
        self.provider.shutdown()
        self.server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="how many jobs (10,000)")
    parser.add_argument("--messages", type=int, default=2_000, help="how many messages (2,000)")
    parser.add_argument("--seconds", type=float, default=150, help="how long things go wrong, at most (150)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (2)")
    parser.add_argument("--seed", type=int, default=0, help="of the chances (0)")
    arguments = parser.parse_args()
    os.environ["ROWHOUSE_LATE_SECONDS"] = "1.5"
    assert handlers
    chaos = Chaos(arguments.jobs, arguments.messages, arguments.workers, arguments.seed)
    try:
        chaos.prepare()
        return 0 if chaos.run(arguments.seconds) else 1
    finally:
        chaos.close()


if __name__ == "__main__":
    sys.exit(main())
