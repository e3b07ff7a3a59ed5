"""The Postgres server of a test run: one, on a free port, with a migrated template to clone."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

import psycopg
from rowhouse import migrations
from rowhouse.local.account import give_to_service
from rowhouse.local.cluster import Cluster, new_password, prepare_database
from rowhouse.local.packages import ensure_packages

# pg_cron's extension can be made in its own database and in one of this name; clones keep it.
TEMPLATE = "contrib_regression"
ADDRESS = "ROWHOUSE_TEST_SERVER"
ROLES = ("postgres", "authenticator", "supabase_auth_admin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A cluster in memory where there is room, with every login role on the same password."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")  # noqa: S108  a folder of our own is made in it
        self.folder = Path(tempfile.mkdtemp(prefix="rowhouse-test-", dir=memory if memory.is_dir() else None))
        self.folder.chmod(0o755)
        give_to_service(self.folder)
        self.password = new_password()
        self.cluster = Cluster.of_packages(ensure_packages(), self.folder / "data", free_port(), self.password)

    def start(self) -> None:
        self.cluster.create(durable=False, cron_database="postgres")
        self.cluster.start(self.folder / "log")

    def make_template(self) -> None:
        with psycopg.connect(self.cluster.url("postgres"), autocommit=True) as connection:
            connection.execute(f"create database {TEMPLATE}")
        for database in ("postgres", TEMPLATE):
            with psycopg.connect(self.cluster.url(database), autocommit=True) as connection:
                prepare_database(connection, dict.fromkeys(ROLES, self.password))
        with psycopg.connect(self.cluster.url(TEMPLATE, "postgres"), autocommit=True) as connection:
            migrations.migrate(connection)

    def publish(self) -> None:
        """Tells xdist's workers, which inherit the environment, where it is."""
        os.environ[ADDRESS] = f"{self.cluster.port} {self.password}"

    def stop(self) -> None:
        self.cluster.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def published() -> tuple[int, str]:
    port, password = os.environ[ADDRESS].split()
    return int(port), password
