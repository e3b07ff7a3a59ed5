"""Fixtures: a server per run, a clone of the migrated template per test that commits, PostgREST, the platform."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pytest_postgresql.janitor import DatabaseJanitor
from rowhouse.local.cluster import SUPERUSER

from .identities import run
from .rest import Rest
from .server import TEMPLATE, Server, published

ROOT = Path(__file__).parent.parent


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        server = Server()
        server.start()
        server.make_template()
        server.publish()
        config.stash[SERVER] = server


def pytest_unconfigure(config: pytest.Config) -> None:
    server = config.stash.get(SERVER, None)
    if server is not None:
        server.stop()


SERVER = pytest.StashKey[Server]()


@dataclass(frozen=True)
class Database:
    """A database of one's own, with connections as the roles that log in."""

    name: str
    port: int
    password: str

    def url(self, user: str = "postgres") -> str:
        return f"postgresql://{user}:{self.password}@127.0.0.1:{self.port}/{self.name}"

    def connect(self, user: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url(user), **options)


def _clone(template: str | None = TEMPLATE) -> Iterator[Database]:
    port, password = published()
    name = f"test_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    janitor = DatabaseJanitor(
        user=SUPERUSER, host="127.0.0.1", port=port, dbname=name, template_dbname=template, password=password
    )
    with janitor:
        database = Database(name, port, password)
        # What a database grants on itself is not cloned.
        with database.connect(SUPERUSER, autocommit=True) as connection:
            run(connection, f"grant all on database {name} to postgres")
        yield database


@pytest.fixture
def database() -> Iterator[Database]:
    """A migrated database for a test that commits."""
    yield from _clone()


@pytest.fixture(scope="module")
def module_database() -> Iterator[Database]:
    """A migrated database that a module's tests share."""
    yield from _clone()


@pytest.fixture
def empty_database() -> Iterator[Database]:
    """A database without anything, not even what Supabase puts there."""
    yield from _clone(None)


@pytest.fixture(scope="session")
def _session_database() -> Iterator[Database]:
    yield from _clone()


@pytest.fixture
def db(_session_database: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection as postgres to a migrated database; what the test does is rolled back."""
    with _session_database.connect() as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def connect(database: Database) -> Iterator[Callable[..., psycopg.Connection[Any]]]:
    """Makes connections to the test's own database; all are closed at its end."""
    made: list[psycopg.Connection[Any]] = []

    def make(**options: Any) -> psycopg.Connection[Any]:
        made.append(database.connect(**options))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


@pytest.fixture(scope="module")
def rest(module_database: Database) -> Iterator[Rest]:
    """A real PostgREST on the module's database."""
    with Rest(module_database.url("authenticator")) as server:
        yield server
