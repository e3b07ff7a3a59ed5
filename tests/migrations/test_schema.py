"""The schema: up, down and up again is the same; and on Postgres 17 and 18, without pg_cron."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rowhouse import migrations, policies
from rowhouse.local.account import as_service, give_to_service
from rowhouse.local.cluster import SUPERUSER, Cluster, new_password, prepare_database
from rowhouse.local.packages import ensure_packages

from ..conftest import ROOT, Database
from ..identities import as_user, make_user, make_workspace, run
from ..server import free_port


def dump(cluster_url: str, binary: Path, environment: dict[str, str], *arguments: str) -> str:
    """A database's schema as text, privileges included, without what differs from dump to dump."""
    result = subprocess.run(
        [binary, "--schema-only", "--no-comments" if "--no-comments" in arguments else "--schema-only", cluster_url],
        env={**os.environ, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return re.sub(r"^\\(un)?restrict .*$", "", result.stdout, flags=re.MULTILINE)


def history(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    return run(
        connection, "select version, name, statements from supabase_migrations.schema_migrations order by version"
    )


def test_up_down_up_gives_the_same_schema_and_privileges(empty_database: Database) -> None:
    packages = ensure_packages()
    pg_dump = packages.postgres_bin / "pg_dump"

    def dumped() -> str:
        return dump(empty_database.url(SUPERUSER), pg_dump, packages.environment)

    with empty_database.connect(SUPERUSER, autocommit=True) as connection:
        prepare_database(connection)
    before = dumped()
    with empty_database.connect(autocommit=True) as connection:
        migrations.migrate(connection)
        up, first_history = dumped(), history(connection)
        data = run(connection, "select * from public.role_permissions order by 1, 2")
        migrations.rollback(connection, target="0")
        run(connection, "drop schema supabase_migrations cascade")
        assert dumped() == before, "the way back leaves something"
        migrations.migrate(connection)
        assert dumped() == up
        assert history(connection) == first_history
        assert run(connection, "select * from public.role_permissions order by 1, 2") == data


def test_every_migration_goes_down_and_up_on_its_own(empty_database: Database) -> None:
    with empty_database.connect(SUPERUSER, autocommit=True) as connection:
        prepare_database(connection)
    with empty_database.connect(autocommit=True) as connection:
        versions = ["0", *(migration.version for migration in migrations.on_disk())]
        migrations.migrate(connection)
        for target in reversed(versions[:-1]):
            migrations.rollback(connection, target=target)
        for target in versions[1:]:
            assert len(migrations.migrate(connection, target=target)) == 1
        assert run(connection, "select * from ops.access_findings()") == []
        assert policies.check(connection) == []


@pytest.fixture(params=["postgres-17", "postgres-18"])
def newer(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A server of a newer version, from npm, which has no pg_cron."""
    native = ROOT / "node_modules" / request.param / "native"
    folder = Path(tempfile.mkdtemp(prefix="rowhouse-newer-"))
    folder.chmod(0o755)
    give_to_service(folder)
    copied = folder / "native"
    shutil.copytree(native, copied)
    # npm packages hold no symbolic links; theirs are listed, and are made here.
    for link in json.loads((copied / "pg-symlinks.json").read_text()):
        target, source = (folder / Path(link[key]).relative_to(".") for key in ("target", "source"))
        target.unlink(missing_ok=True)
        target.symlink_to(os.path.relpath(source, target.parent))
    for program in (copied / "bin").iterdir():
        program.chmod(0o755)
    subprocess.run(as_service(["true"]), check=True)
    cluster = Cluster(
        folder / "data", free_port(), new_password(), copied / "bin", {"LD_LIBRARY_PATH": str(copied / "lib")}
    )
    cluster.create(durable=False, cron_database="postgres")
    cluster.start(folder / "log")
    yield cluster
    cluster.stop()
    shutil.rmtree(folder, ignore_errors=True)


def test_the_migrations_apply_on_newer_versions_without_pg_cron(newer: Cluster) -> None:
    notices: list[str] = []
    with psycopg.connect(newer.url("postgres"), autocommit=True) as connection:
        prepare_database(connection, {"postgres": newer.password})
    with psycopg.connect(newer.url("postgres", "postgres"), autocommit=True) as connection:
        assert run(connection, "select rolsuper from pg_roles where rolname = current_user") == [{"rolsuper": False}]
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        migrations.migrate(connection)
        assert any("is not scheduled" in notice for notice in notices), notices
        assert [row["subject"] for row in run(connection, "select * from ops.doctor()")] == ["pg_cron"]
        assert policies.check(connection) == []
        owner = make_user(connection)
        with connection.transaction():
            workspace = make_workspace(connection, owner, plan="free")
        with connection.transaction(), as_user(connection, owner):
            run(connection, "insert into projects (workspace_id, name) values (%s, 'P')", [workspace])
            assert len(run(connection, "select * from projects")) == 1
        migrations.rollback(connection, target="0")


def test_every_migration_says_why_what_it_locks_and_whether_workers_stop() -> None:
    for migration in migrations.on_disk():
        head = migration.path.read_text().split("\n\n")[0]
        for word in ("-- Why: ", "-- Locks: ", "-- Workers: "):
            assert word in head, f"{migration.path.name} lacks {word}"
