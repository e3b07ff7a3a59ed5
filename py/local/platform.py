"""Starts and stops the local platform."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from .. import migrations
from ..errors import RowhouseError
from ..settings import project_root
from .account import shared_home
from .cluster import prepare_database
from .instance import PORTS, Instance, State
from .packages import Packages, ensure_packages, installed, locked
from .services import Service, config, services, write_configuration

START_SECONDS = 60
Report = Callable[[str], None]


def _silent(_: str) -> None:
    pass


def supervisor(instance: Instance) -> Any | None:
    """supervisord's interface (`supervisor` and `system` namespaces), or None if it does not run."""
    from supervisor.xmlrpc import SupervisorTransport

    transport = SupervisorTransport(None, None, f"unix://{instance.socket_file()}")
    proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
    try:
        proxy.supervisor.getState()
    except (OSError, xmlrpc.client.Error):
        return None
    return proxy.supervisor


def up(instance: Instance, *, durable: bool = True, free_ports: bool = False, report: Report = _silent) -> State:
    """Starts what does not run yet, brings a fresh database to its schema and its seed.

    With `free_ports`, on ports that nobody uses; otherwise on those of the environment. Without
    `durable`, the database does not survive a crash of the machine, and is faster. Raises
    RowhouseError when a port is taken or a service does not start; then nothing is left running.
    """
    if installed() is None:
        report("downloading Postgres and nginx")
    packages = ensure_packages()
    instance.make_folders()
    with locked(instance.home / "lock"):
        running = supervisor(instance)
        if running is not None:
            state = instance.load()
            # What died a moment ago is being restarted: it runs again, or all is started anew.
            if _wait_until(lambda: _all_running(running), 2) and _wait_until(
                lambda: _all_answer(instance, state, packages), 20
            ):
                return state
            _stop(instance)
        _end_orphans(instance)
        state = instance.prepare(free_ports=free_ports)
        _check_ports(state)
        try:
            _start(instance, state, packages, durable=durable, report=report)
        except BaseException:
            _stop(instance)
            raise
        return state


def _start(instance: Instance, state: State, packages: Packages, *, durable: bool, report: Report) -> None:
    cluster = instance.cluster(state)
    if not cluster.exists():
        report("making a database")
        cluster.create(durable=durable, cron_database="postgres")
        state.is_prepared = state.is_seeded = False
    cluster.clear_stale_pid()
    file = write_configuration(instance, state, packages)
    subprocess.run([sys.executable, "-m", "supervisor.supervisord", "-c", file], check=True, cwd="/")
    _wait_for(lambda: supervisor(instance) is not None, "supervisord", instance)
    every = services(instance, state, packages)
    report("starting database")
    _start_service(instance, every[0])
    _wait_for(lambda: _database_answers(state), "database", instance)
    _bring_up_to_date(instance, state, report)
    for service in every[1:]:
        report(f"starting {service.name}")
        _start_service(instance, service)
    for service in every[1:]:
        if service.ready_url:
            _wait_for(lambda url=service.ready_url: _answers(url), service.name, instance)  # type: ignore[misc]


def _start_service(instance: Instance, service: Service) -> None:
    interface = supervisor(instance)
    if interface is None:
        raise RowhouseError("supervisord stopped.", f"See {instance.logs / 'supervisor.log'}.")
    interface.startProcess(service.name)


def _bring_up_to_date(instance: Instance, state: State, report: Report) -> None:
    import psycopg

    if not state.is_prepared:
        with psycopg.connect(state.url_of("supabase_admin")) as connection:
            made_later = ("supabase_admin", "rowhouse_worker")
            others = {role: word for role, word in state.passwords.items() if role not in made_later}
            prepare_database(connection, others)
        state.is_prepared = True
        instance.save(state)
    with psycopg.connect(state.database_url, autocommit=True) as connection:
        report("migrating")
        migrations.migrate(connection)
        _point_at_this_machine(connection, state)
        if not state.is_seeded:
            report("seeding")
            with connection.transaction():
                migrations.run_file(connection, project_root() / "seed.sql")
            state.is_seeded = True
            instance.save(state)


def _point_at_this_machine(connection: Any, state: State) -> None:
    """Has messages lead to this platform, and lets its worker in."""
    import psycopg
    from psycopg import sql

    connection.execute(
        "update notify.settings set site_url = %s, functions_url = %s, auth_url = %s",
        [config()["auth"]["site_url"], f"{state.api_url}/functions/v1", f"{state.api_url}/auth/v1"],
    )
    with psycopg.connect(state.url_of("supabase_admin"), autocommit=True) as superuser:
        password = sql.Literal(state.passwords["rowhouse_worker"])
        superuser.execute(sql.SQL("alter role rowhouse_worker login password {}").format(password))


def down(instance: Instance) -> bool:
    """Stops everything; False if nothing ran."""
    if not instance.home.is_dir():
        return False
    with locked(instance.home / "lock"):
        ran = _stop(instance)
        return _end_orphans(instance) or ran


def _stop(instance: Instance) -> bool:
    running = supervisor(instance)
    if running is None:
        return False
    pid = running.getPID()
    running.shutdown()
    _wait_until(lambda: not psutil.pid_exists(pid) or _is_zombie(pid), 20)
    return True


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _end_orphans(instance: Instance) -> bool:
    """Ends what outlived its supervisor; its files tell which instance a process belongs to."""
    marks = (str(instance.data), str(instance.home / "nginx.conf"), str(instance.home / "supervisord.conf"))
    orphans = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words, variables = process.info["cmdline"] or [], process.info["environ"] or {}
        is_ours = any(mark in words for mark in marks) or variables.get("ROWHOUSE_INSTANCE") == str(instance.home)
        if is_ours and process.pid != os.getpid():
            orphans.append(process)
    for process in orphans:
        try:
            process.send_signal(2)
        except psutil.Error:
            raise RowhouseError(
                f"Process {process.pid} of another user holds {instance.home}.", f"Stop it: kill -INT {process.pid}"
            ) from None
    _, alive = psutil.wait_procs(orphans, timeout=15)
    for process in alive:
        process.kill()
    return bool(orphans)


def _all_running(interface: Any) -> bool:
    return all(row["statename"] == "RUNNING" for row in interface.getAllProcessInfo())


def _all_answer(instance: Instance, state: State, packages: Packages) -> bool:
    urls = [service.ready_url for service in services(instance, state, packages) if service.ready_url]
    return _database_answers(state) and all(map(_answers, urls))


def _check_ports(state: State) -> None:
    for name, port in state.ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise RowhouseError(
                    f"Port {port} ({name}) is taken{_by_whom(port)}.",
                    f"Stop what uses it, or set {PORTS[name][0]} to another port.",
                ) from None


def _by_whom(port: int) -> str:
    try:
        for row in psutil.net_connections("tcp"):
            if row.status == psutil.CONN_LISTEN and row.laddr and row.laddr.port == port and row.pid:
                return f" by process {row.pid} ({psutil.Process(row.pid).name()})"
    except psutil.Error:
        pass
    return ""


def _database_answers(state: State) -> bool:
    import psycopg

    try:
        psycopg.connect(state.url_of("supabase_admin"), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _answers(url: str | None) -> bool:
    try:
        urllib.request.urlopen(str(url), timeout=2).close()  # noqa: S310  loopback, from our own ports
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
    return True


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def _wait_for(condition: Callable[[], bool], name: str, instance: Instance) -> None:
    def gave_up() -> bool:
        interface = supervisor(instance)
        return interface is not None and any(
            row["name"] == name and row["statename"] == "FATAL" for row in interface.getAllProcessInfo()
        )

    if not _wait_until(lambda: condition() or gave_up(), START_SECONDS) or not condition():
        raise RowhouseError(
            f"{name} did not start: {last_line(instance.logs / f'{name}.log')}",
            f"See {instance.logs / f'{name}.log'}.",
        )


def last_line(log: Path) -> str:
    """The last line of a log, for an error message."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:300] if lines else "it said nothing"


def sweep(prefix: str) -> None:
    """Ends and removes the instances beside the default one whose process, named by its id, is gone."""
    for folder in shared_home().glob(f"{prefix}-*"):
        owner = folder.name.rpartition("-")[2]
        if owner.isdecimal() and (not psutil.pid_exists(int(owner)) or _is_zombie(int(owner))):
            instance = Instance(folder)
            down(instance)
            instance.remove()
