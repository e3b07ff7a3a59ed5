"""Up, down, twice, after a kill, with a port taken, with a stale pid: it works, or one sentence says what to do."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from typing import Any

import psutil
import pytest
from rowhouse.local import platform as control
from rowhouse.local.account import shared_home
from rowhouse.local.packages import ensure_packages
from rowhouse.local.services import services

from .conftest import Platform

pytestmark = pytest.mark.xdist_group("platform")


def processes_of(platform: Platform) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = " ".join(process.info["cmdline"] or [])
        environment = process.info["environ"] or {}
        if str(platform.home) in words or str(platform.home) in environment.get("OUTBOX", ""):
            found.append(process)
    return [process for process in found if "rowhouse.cli" not in " ".join(process.info["cmdline"] or [])]


def test_up_twice_status_down_twice_and_nothing_is_left(fresh: Platform) -> None:
    assert fresh.rowhouse("local", "status").returncode == 5
    first = fresh.rowhouse("local", "up")
    assert first.returncode == 0, first.stderr
    assert fresh.rowhouse("local", "up").returncode == 0
    status = fresh.rowhouse("local", "status", "--json")
    assert status.returncode == 0
    assert {row["state"] for row in json.loads(status.stdout)} == {"running"}
    assert fresh.rowhouse("local", "down").stdout == "Stopped.\n"
    assert fresh.rowhouse("local", "down").stdout == "Nothing was running.\n"
    assert processes_of(fresh) == []


def test_everything_listens_on_loopback_only(platform: Platform) -> None:
    ports = set(platform.instance.load().ports.values())
    listening = [row.laddr for row in psutil.net_connections("tcp") if row.laddr and row.status == psutil.CONN_LISTEN]
    assert {address.port for address in listening if address.port in ports} == ports
    assert {address.ip for address in listening if address.port in ports} == {"127.0.0.1"}


def test_secrets_are_readable_by_their_owner_only(platform: Platform) -> None:
    secrets = [platform.instance.load().jwt_secret, *platform.instance.load().passwords.values()]
    for path in platform.home.rglob("*"):
        if path.is_file() and platform.instance.data not in path.parents:
            text = path.read_text(errors="replace")
            if any(secret in text for secret in secrets):
                assert path.stat().st_mode & 0o077 == 0, path
                assert path.parent.name != "logs", path


@pytest.mark.parametrize("victim", ["supervisor", "database", "all"])
def test_after_a_kill_the_next_up_works_and_keeps_the_data(fresh: Platform, victim: str) -> None:
    assert fresh.rowhouse("local", "up").returncode == 0
    interface: Any = control.supervisor(fresh.instance)
    pids = {row["name"]: row["pid"] for row in interface.getAllProcessInfo()} | {"supervisor": interface.getPID()}
    made = fresh.rowhouse("workspaces", "create", "kept", "--name", "Kept", "--owner", "olive@example.com")
    assert made.returncode == 0, made.stderr
    for name, pid in pids.items():
        if victim in (name, "all"):
            os.kill(pid, signal.SIGKILL)
    again = fresh.rowhouse("local", "up")
    assert again.returncode == 0, again.stderr
    assert json.loads(fresh.rowhouse("workspaces", "show", "kept", "--json").stdout)["owners"] == ["olive@example.com"]
    assert fresh.rowhouse("local", "down").returncode == 0
    assert processes_of(fresh) == []


def test_a_stale_pid_file_is_no_obstacle(fresh: Platform) -> None:
    assert fresh.rowhouse("local", "up").returncode == 0
    assert fresh.rowhouse("local", "down").returncode == 0
    # A process that lives, and is no Postgres.
    (fresh.instance.data / "postmaster.pid").write_text(f"{os.getpid()}\n{fresh.instance.data}\n")
    (fresh.home / "supervisor.pid").write_text("1\n")
    again = fresh.rowhouse("local", "up")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("port", ["ROWHOUSE_API_PORT", "ROWHOUSE_DB_PORT", "ROWHOUSE_AUTH_PORT"])
def test_a_taken_port_is_named_and_nothing_is_left_running(fresh: Platform, port: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        result = fresh.rowhouse("local", "up", **{port: str(taken)})
    assert result.returncode == 1
    assert f"Port {taken}" in result.stderr
    assert f"set {port}" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 2
    assert processes_of(fresh) == []


@pytest.mark.parametrize(("value", "words"), [("80", "no port"), ("x", "no port"), ("99999", "no port")])
def test_a_bad_port_is_refused(fresh: Platform, value: str, words: str) -> None:
    result = fresh.rowhouse("local", "up", ROWHOUSE_API_PORT=value)
    assert result.returncode == 2
    assert words in result.stderr


def test_two_ups_at_once_start_one_platform(fresh: Platform) -> None:
    results = []
    threads = [threading.Thread(target=lambda: results.append(fresh.rowhouse("local", "up"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.returncode for result in results] == [0, 0], [result.stderr for result in results]


def test_a_damaged_state_is_said_and_reset_heals_it(fresh: Platform) -> None:
    assert fresh.rowhouse("local", "up").returncode == 0
    assert fresh.rowhouse("local", "down").returncode == 0
    fresh.instance.state_file.write_text("{")
    broken = fresh.rowhouse("local", "up")
    assert broken.returncode == 1
    assert "is damaged" in broken.stderr
    assert fresh.rowhouse("local", "reset").returncode == 1, "it asks first, and nobody is there to answer"
    assert fresh.rowhouse("local", "reset", "--yes").returncode == 0


def test_commands_before_the_first_up_say_what_to_do(fresh: Platform) -> None:
    for command in (["env"], ["logs"]):
        result = fresh.rowhouse("local", *command)
        assert result.returncode == 1
        assert "rowhouse local up" in result.stderr
    assert fresh.rowhouse("local", "logs", "nonsense").returncode == 2
    assert fresh.rowhouse("workspaces", "list").returncode == 2


def test_env_is_key_value_lines_and_logs_in_as_postgres_who_is_no_superuser(platform: Platform) -> None:
    import psycopg

    lines = platform.rowhouse("local", "env").stdout.splitlines()
    values = dict(line.split("=", 1) for line in lines)
    assert list(values) == [
        "SUPABASE_URL", "SUPABASE_ANON_KEY", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_JWT_SECRET", "DATABASE_URL",
    ]  # fmt: skip
    with psycopg.connect(values["DATABASE_URL"]) as connection:
        row = connection.execute("select current_user, rolsuper from pg_roles where rolname = current_user").fetchone()
    assert row == ("postgres", False)


def test_pg_cron_runs_a_schedule_for_real(platform: Platform) -> None:
    import psycopg

    with psycopg.connect(platform.instance.load().database_url, autocommit=True) as connection:
        row = connection.execute("select jobname, active from cron.job").fetchall()
        assert ("rowhouse-purge-workspaces", True) in row
        found = connection.execute(
            "select count(*) from pg_stat_activity where backend_type = 'pg_cron launcher'"
        ).fetchone()
        assert found == (1,)


def test_no_service_has_a_secret_in_its_command_line(platform: Platform) -> None:
    state = platform.instance.load()
    for service in services(platform.instance, state, ensure_packages()):
        words = " ".join(service.command)
        assert state.jwt_secret not in words
        assert not any(password in words for password in state.passwords.values())


def test_the_tour_ends_well_and_leaves_nothing(platform: Platform) -> None:
    result = platform.rowhouse("local", "demo")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Nothing is left running" in result.stdout
    mine = f"{shared_home()}/demo-"
    left = [process for process in psutil.process_iter(["cmdline"]) if mine in " ".join(process.info["cmdline"] or [])]
    assert left == []


def test_a_step_of_the_tour_that_goes_wrong_ends_it_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rowhouse.local import tour

    monkeypatch.setattr(tour.Tour, "status_of_insert", lambda *_: 201)
    assert tour.run() == 1
    assert "402" in capsys.readouterr().err
