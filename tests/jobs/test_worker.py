"""The worker as a process: it works, it stops as promised, and loses nothing when it dies."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from rowhouse.local.cluster import SUPERUSER

from ..conftest import Database
from ..identities import make_user, make_workspace, one, run
from ..races import Connection
from ..server import free_port, published
from .queue import enqueue, state
from .worker import COMMAND, Worker, left, prepare, until


@pytest.fixture
def jobs(database: Database) -> Iterator[Connection]:
    with prepare(database) as connection:
        yield connection


def effects(connection: Connection) -> list[int]:
    return [row["job"] for row in run(connection, "select job from public.effects order by job")]


def test_drain_runs_everything_that_is_ready_and_ends(database: Database, jobs: Connection, tmp_path: Path) -> None:
    workspace = make_workspace(jobs, make_user(jobs), plan="free")
    made = [enqueue(jobs, "test.record", workspace_id=workspace) for _ in range(50)]
    poison, hopeless = enqueue(jobs, "test.boom"), enqueue(jobs, "test.hopeless")
    with Worker(database.url(), "--drain", "--concurrency", "4", log=tmp_path / "log") as worker:
        assert worker.wait() == 0
        assert effects(jobs) == made
        assert state(jobs, poison)["last_error"] == "ValueError: attempt 1"
        assert state(jobs, hopeless)["state"] == "failed"
        done = next(line for line in worker.lines if line.get("job") == made[0])
        assert (done["event"], done["kind"], done["workspace"], done["attempt"]) == (
            "completed", "test.record", str(workspace), 1,
        )  # fmt: skip
        assert done["seconds"] >= 0


def test_once_claims_once(database: Database, jobs: Connection) -> None:
    for _ in range(5):
        enqueue(jobs, "test.record")
    with Worker(database.url(), "--once", "--concurrency", "2", "--batch", "2") as worker:
        assert worker.wait() == 0
    assert len(effects(jobs)) == 2
    assert left(jobs) == 3


def test_a_poison_job_blocks_nobody_and_fails_with_its_error(database: Database, jobs: Connection) -> None:
    poison = enqueue(jobs, "test.boom", priority=0)
    good = [enqueue(jobs, "test.record") for _ in range(5)]
    with Worker(database.url()):
        until(lambda: state(jobs, poison)["state"] == "failed", "the failure")
        until(lambda: effects(jobs) == good, "the others")
    row = state(jobs, poison)
    assert (row["attempts"], row["last_error"]) == (3, "ValueError: attempt 3")


def test_a_new_job_wakes_an_idle_worker_without_waiting_for_the_poll(database: Database, jobs: Connection) -> None:
    with Worker(database.url(), "--poll", "60"):
        until(
            lambda: one(jobs, "select count(*) from pg_stat_activity where application_name = 'rowhouse listen'"), "it"
        )
        until(lambda: _has_claimed(jobs), "its first look")
        job = enqueue(jobs, "test.record")
        until(lambda: effects(jobs) == [job], "its effect", 20)


def _has_claimed(connection: Connection) -> bool:
    enqueued = one(connection, "select count(*) from jobs.history where kind = 'test.noop'")
    if not enqueued and not one(connection, "select count(*) from jobs.jobs where kind = 'test.noop'"):
        enqueue(connection, "test.noop")
    return bool(enqueued)


def test_what_only_asks_to_wait_counts_as_no_attempt(database: Database, jobs: Connection) -> None:
    job = enqueue(jobs, "test.busy")
    with Worker(database.url(), "--poll", "0.1"):
        until(lambda: left(jobs) == 0, "its end")
    row = state(jobs, job)
    assert (row["state"], row["attempts"]) == ("completed", 1)
    assert len(effects(jobs)) == 5


def test_a_job_that_takes_too_long_has_failed_and_its_thread_is_replaced(database: Database, jobs: Connection) -> None:
    hanging = enqueue(jobs, "test.hang")
    with Worker(database.url(), "--concurrency", "1", "--poll", "0.2"):
        until(lambda: state(jobs, hanging)["state"] == "failed", "the failure")
        good = enqueue(jobs, "test.record")
        until(lambda: effects(jobs) == [good], "another job")
    assert "longer than 1 seconds" in state(jobs, hanging)["last_error"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_term_finishes_what_runs_gives_back_the_rest_and_duplicates_nothing(
    database: Database, jobs: Connection, number: int
) -> None:
    made = [enqueue(jobs, "test.slow", {"seconds": 0.5}) for _ in range(40)]
    with Worker(database.url(), "--concurrency", "3", "--batch", "40") as worker:
        until(lambda: effects(jobs), "the first effect")
        worker.signal(number)
        assert worker.wait() == 0
        seen = effects(jobs)
    assert len(seen) == len(set(seen))
    assert left(jobs) == len(made) - len(seen)
    assert one(jobs, "select count(*) from jobs.jobs where state = 'processing'") == 0
    assert one(jobs, "select count(*) from jobs.jobs where attempts > 0") == 0
    assert one(jobs, "select count(*) from jobs.leases") == 0
    with Worker(database.url(), "--drain", "--concurrency", "20"):
        until(lambda: left(jobs) == 0, "the rest")
    assert effects(jobs) == made


def test_a_killed_worker_loses_nothing(database: Database, jobs: Connection) -> None:
    made = [enqueue(jobs, "test.slow", {"seconds": 0.05}) for _ in range(60)]
    with Worker(database.url(), "--concurrency", "3", "--batch", "20", "--lease", "2") as worker:
        until(lambda: len(effects(jobs)) > 5, "some effects")
        worker.signal(signal.SIGKILL)
        worker.wait()
    with Worker(database.url(), "--poll", "0.2", "--lease", "2"):
        until(lambda: left(jobs) == 0, "the rest")
    assert set(effects(jobs)) == set(made)
    assert one(jobs, "select count(*) from jobs.history where state = 'completed'") == 60


def test_a_worker_that_slept_past_its_lease_completes_nothing(
    database: Database, jobs: Connection, tmp_path: Path
) -> None:
    job = enqueue(jobs, "test.slow", {"seconds": 4})
    with Worker(database.url(), "--lease", "2", "--concurrency", "1", log=tmp_path / "log") as sleeper:
        until(lambda: one(jobs, "select count(*) from jobs.jobs where state = 'processing'"), "the claim")
        sleeper.signal(signal.SIGSTOP)
        with Worker(database.url(), "--poll", "0.2"):
            until(lambda: left(jobs) == 0, "the other worker")
        by_whom = one(jobs, "select worker from jobs.history where id = %s", [job])
        sleeper.signal(signal.SIGCONT)
        until(lambda: any(line["event"] == "lease lost" for line in sleeper.lines), "the refusal")
        assert str(sleeper.process.pid) not in by_whom
    assert one(jobs, "select count(*) from jobs.history where id = %s", [job]) == 1
    assert one(jobs, "select attempts from jobs.history where id = %s", [job]) == 2


def test_cut_connections_lose_nothing(database: Database, jobs: Connection, tmp_path: Path) -> None:
    made = [enqueue(jobs, "test.slow", {"seconds": 0.1}) for _ in range(150)]
    with (
        Worker(
            database.url(), "--concurrency", "4", "--batch", "20", "--lease", "3", "--poll", "0.2", log=tmp_path / "log"
        ),
        database.connect(SUPERUSER, autocommit=True) as superuser,
    ):
        for _ in range(25):
            run(
                superuser,
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
                "and application_name like 'rowhouse %%' and random() < 0.3",
            )
            run(superuser, "select pg_sleep(0.2)")
        until(lambda: left(jobs) == 0, "the end")
    assert set(effects(jobs)) == set(made)


def test_it_needs_no_more_than_its_role(database: Database, jobs: Connection) -> None:
    _, password = published()
    with database.connect(SUPERUSER, autocommit=True) as superuser:
        run(superuser, f"alter role rowhouse_worker login password '{password}'")
    made = [enqueue(jobs, "test.record") for _ in range(10)]
    with Worker(database.url("rowhouse_worker"), "--drain") as worker:
        assert worker.wait() == 0
    assert effects(jobs) == made


def test_it_works_through_a_pooler_in_transaction_mode(database: Database, jobs: Connection, tmp_path: Path) -> None:
    from rowhouse.local.account import as_service, give_to_service
    from rowhouse.local.packages import ensure_packages

    port, packages = free_port(), ensure_packages()
    server, password = published()
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if "pytest" in str(folder):
            folder.chmod(0o755)
    (tmp_path / "users").write_text(f'"postgres" "{password}"\n')
    (tmp_path / "ini").write_text(
        f"[databases]\n{database.name} = host=127.0.0.1 port={server} user=postgres password={password}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\npool_mode = transaction\nauth_type = plain\n"
        f"auth_file = {tmp_path}/users\nunix_socket_dir =\ndefault_pool_size = 3\nserver_tls_sslmode = disable\n"
        "ignore_startup_parameters = extra_float_digits\nlogfile =\npidfile =\n"
    )
    for name in ("users", "ini"):
        give_to_service(tmp_path / name)
    pooler = subprocess.Popen(
        as_service([str(packages.pgbouncer), "-q", str(tmp_path / "ini")]), env=packages.environment,
        stdout=subprocess.DEVNULL, stderr=(tmp_path / "pooler").open("w"),
    )  # fmt: skip
    url = f"postgresql://postgres:{password}@127.0.0.1:{port}/{database.name}"
    try:
        until(lambda: _answers(url), f"the pooler ({(tmp_path / 'pooler').read_text()})", 20)
        with Worker(url, "--concurrency", "8", "--poll", "0.2", log=tmp_path / "log") as worker:
            made = [enqueue(jobs, "test.record") for _ in range(100)]
            until(lambda: left(jobs) == 0, "the end")
            later = enqueue(jobs, "test.record")
            until(lambda: left(jobs) == 0, "what polling finds")
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0
            assert [line for line in worker.lines if line["event"] == "trouble"] == []
        assert effects(jobs) == [*made, later]
    finally:
        pooler.kill()
        pooler.wait()


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def test_it_shows_metrics_and_its_health(database: Database, jobs: Connection) -> None:
    port = free_port()
    enqueue(jobs, "test.record")
    poison = enqueue(jobs, "test.hopeless")
    with Worker(database.url(), "--port", str(port)):
        until(lambda: state(jobs, poison)["state"] == "failed" and effects(jobs), "the jobs")
        text = until(lambda: _metrics(port), "the metrics")
        assert 'rowhouse_attempts_total{kind="test.hopeless",outcome="failed"} 1.0' in text
        assert 'rowhouse_attempt_seconds_count{kind="test.record"} 1.0' in text
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").json() == {"status": "ok"}
        assert httpx.get(f"http://127.0.0.1:{port}/else").status_code == 404


def _metrics(port: int) -> str | None:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    return text if 'kind="test.record"' in text and 'kind="test.hopeless"' in text else None


def test_it_starts_jobs_in_postgres_too(database: Database, jobs: Connection) -> None:
    run(jobs, "create function public.count_it(job jobs.jobs) returns void language sql as "
              "'insert into public.effects (job, attempt) values (($1).id, ($1).attempts)'")  # fmt: skip
    run(jobs, "select jobs.declare_kind('test.sql', 'postgres', 'public.count_it')")
    with Worker(database.url(), "--poll", "60"):
        made = [enqueue(jobs, "test.sql") for _ in range(3)]
        until(lambda: effects(jobs) == made, "its effects", 20)


def test_a_kind_nobody_knows_waits_for_a_newer_worker(database: Database, jobs: Connection) -> None:
    run(jobs, "select jobs.declare_kind('test.tomorrow', 'worker')")
    job = enqueue(jobs, "test.tomorrow")
    with Worker(database.url(), "--once") as worker:
        assert worker.wait() == 0
    row = state(jobs, job)
    assert (row["state"], row["attempts"]) == ("pending", 0)
    assert one(jobs, "select extract(epoch from run_at - now()) from jobs.jobs") > 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--load", "no.such.module"], "Name a module that Python finds"),
        (["--log", "loud"], "There is no log level"),
        (["--concurrency", "0"], "greater than or equal to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], words: str, database: Database) -> None:
    import os

    result = subprocess.run(
        [*COMMAND, *arguments], env={**os.environ, "WORKER_DATABASE_URL": database.url()}, capture_output=True,
        text=True, check=False, timeout=60,
    )  # fmt: skip
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_whatever_a_handler_ends_with_the_others_run_once(database: Database, jobs: Connection) -> None:
    odd = {how: enqueue(jobs, "test.odd", {"how": how}) for how in ("nul", "exit", "timedelta", "endless", "mute")}
    unreadable = one(jobs, "select jobs.enqueue('test.record', ('{\"n\": ' || repeat('1', 5000) || '}')::jsonb)")
    good = [enqueue(jobs, "test.record") for _ in range(20)]
    with Worker(database.url(), "--lease", "3", "--poll", "0.1"):
        until(lambda: left(jobs) == 0, "the end")
    assert effects(jobs) == good
    errors = {how: state(jobs, job)["last_error"] for how, job in odd.items()}
    assert errors["nul"] == "ValueError: ab?" and errors["exit"] == "SystemExit: bye"
    assert errors["timedelta"] == "later" and "is no time to wait" in errors["endless"]
    assert errors["mute"] == "MuteError: it cannot say what went wrong"
    assert "cannot be read" in one(jobs, "select last_error from jobs.jobs where id = %s", [unreadable])


def test_drain_waits_for_postgres_too(database: Database, jobs: Connection) -> None:
    run(
        jobs,
        "create function public.nap(job jobs.jobs) returns void language plpgsql as 'begin perform pg_sleep(0.003); end'",
    )
    run(jobs, "select jobs.declare_kind('test.nap', 'postgres', 'public.nap')")
    run(jobs, "select jobs.enqueue_many('test.nap', array_fill('{}'::jsonb, array[600]))")
    with Worker(database.url(), "--drain") as worker:
        assert worker.wait() == 0
    assert left(jobs) == 0


def test_a_lost_reader_of_the_log_does_not_stop_the_work(database: Database, jobs: Connection) -> None:
    import os

    reading, writing = os.pipe()
    made = [enqueue(jobs, "test.record") for _ in range(20)]
    process = subprocess.Popen(
        [*COMMAND, "--drain"],
        stderr=writing,
        cwd=Path.cwd(),
        env={**os.environ, "WORKER_DATABASE_URL": database.url()},
    )
    os.close(reading)
    os.close(writing)
    assert process.wait(60) == 0
    assert effects(jobs) == made
    assert left(jobs) == 0


def test_what_was_claimed_for_a_fast_worker_goes_back_when_it_turns_slow(database: Database, jobs: Connection) -> None:
    workspaces = [make_workspace(jobs, make_user(jobs)) for _ in range(2)]
    run(jobs, "select jobs.enqueue_many('test.noop', array_fill('{}'::jsonb, array[5000]), %s)", [workspaces[0]])
    run(
        jobs,
        "select jobs.enqueue_many('test.slow', array_fill('{\"seconds\": 0.5}'::jsonb, array[500]), %s)",
        [workspaces[0]],
    )
    with Worker(database.url(), "--concurrency", "4", "--poll", "0.2"):
        until(lambda: one(jobs, "select count(*) from jobs.jobs where kind = 'test.noop'") == 0, "the fast ones")
        lone = enqueue(jobs, "test.record", workspace_id=workspaces[1])
        until(lambda: lone in effects(jobs), "the other tenant's", 15)
