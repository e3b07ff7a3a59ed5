"""A Postgres server of one's own: made, started and stopped; the local platform's and the tests'."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ..errors import RowhouseError
from .account import as_service, give_to_service
from .packages import Packages

SUPERUSER = "supabase_admin"
PLATFORM_SQL = Path(__file__).with_name("platform.sql")


@dataclass(frozen=True)
class Cluster:
    """A data directory, the port it listens on (loopback only), and its superuser's password."""

    data: Path
    port: int
    password: str
    binaries: Path
    environment: dict[str, str]

    @classmethod
    def of_packages(cls, packages: Packages, data: Path, port: int, password: str) -> Cluster:
        return cls(data, port, password, packages.postgres_bin, packages.environment)

    def url(self, database: str, user: str = SUPERUSER, password: str | None = None) -> str:
        return f"postgresql://{user}:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def exists(self) -> bool:
        return (self.data / "PG_VERSION").is_file()

    def has_cron(self) -> bool:
        return any(self.binaries.parent.glob("lib/pg_cron.so"))

    def create(self, *, durable: bool, cron_database: str) -> None:
        """Makes the data directory; pg_cron, where there is one, starts jobs from `cron_database`.

        Without `durable`, a crash of the machine may lose it, and it is faster.
        """
        self.data.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.data.parent))
        give_to_service(building)
        password_file = building / "password"
        password_file.write_text(self.password)
        give_to_service(password_file)
        password_file.chmod(0o600)
        cluster = building / "data"
        self._run(
            [
                str(self.binaries / "initdb"), "--pgdata", str(cluster), "--username", SUPERUSER,
                "--pwfile", str(password_file), "--encoding", "UTF8", "--locale", "C.UTF-8",
                "--auth", "scram-sha-256", "--no-sync", "--no-instructions",
            ],
            "initdb",
        )  # fmt: skip
        chosen = {
            "listen_addresses": "'127.0.0.1'",
            "unix_socket_directories": "''",
            "jit": "off",
            "wal_level": "logical",
            "log_line_prefix": "'%m [%p] %q%u@%d %a '",
            "max_connections": "200",
            "max_worker_processes": "16",
            **({} if durable else {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}),
        }
        if self.has_cron():
            chosen |= {
                "shared_preload_libraries": "'pg_cron'",
                "cron.use_background_workers": "on",
                "cron.database_name": f"'{cron_database}'",
            }
        with (cluster / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in chosen.items())
        # In place only when whole: a kill before this leaves nothing that looks like a cluster.
        cluster.rename(self.data)
        shutil.rmtree(building)

    def command(self) -> list[str]:
        """What runs the server in the foreground."""
        return [str(self.binaries / "postgres"), "-D", str(self.data), "-p", str(self.port)]

    def clear_stale_pid(self) -> None:
        """Removes a postmaster.pid whose process is gone, or is another program by now.

        Raises RowhouseError if the server it names does run.
        """
        file = self.data / "postmaster.pid"
        if not file.is_file():
            return
        try:
            pid = int(file.read_text().splitlines()[0])
            process = psutil.Process(pid)
            running = process.name() == "postgres" and str(self.data) in process.cmdline()
        except (ValueError, IndexError, psutil.NoSuchProcess):
            running = False
        if running:
            raise RowhouseError(
                f"Postgres runs on {self.data} already, as process {pid}.", f"Stop it first: kill -INT {pid}"
            )
        file.unlink(missing_ok=True)

    def start(self, log: Path) -> None:
        """Starts the server in the background and waits until it answers."""
        self.clear_stale_pid()
        log.touch()
        give_to_service(log)
        self._run(
            [str(self.binaries / "pg_ctl"), "start", "-w", "-s", "-D", str(self.data), "-l", str(log),
             "-o", f"-p {self.port}"],
            f"starting Postgres (see {log})",
        )  # fmt: skip

    def stop(self) -> None:
        """Stops the server that `start` started; nothing happens if it does not run."""
        command = [str(self.binaries / "pg_ctl"), "stop", "-w", "-s", "-m", "immediate", "-D", str(self.data)]
        subprocess.run(as_service(command), env=self.environment, capture_output=True, check=False)

    def _run(self, command: list[str], what: str) -> None:
        # Not captured through pipes: the server inherits them and would hold them open.
        with tempfile.TemporaryFile("w+") as output:
            result = subprocess.run(
                as_service(command), env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **self.environment},
                cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
            if result.returncode:
                output.seek(0)
                said = (output.read().strip().splitlines() or ["no message"])[-1]
                raise RowhouseError(f"{what} failed: {said}")


def prepare_database(connection: Any, passwords: dict[str, str] | None = None) -> None:
    """Gives a fresh database what a Supabase project has before its first migration.

    `connection` is the superuser's; `passwords` are set for the login roles named.
    """
    from psycopg import sql

    connection.execute(PLATFORM_SQL.read_text(encoding="utf-8"))
    for role, password in (passwords or {}).items():
        connection.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(role), sql.Literal(password)))


def new_password() -> str:
    """A password for a URL: letters and digits."""
    return secrets.token_hex(16)
