"""The runner: order, dry runs, failures, changed files, two at once, and the way back."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rowhouse import migrations
from rowhouse.errors import MigrationError, UsageError

from ..conftest import Database
from ..identities import one, run

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's migrations folder with two migrations and their way back."""
    folder = tmp_path / "supabase" / "migrations"
    folder.mkdir(parents=True)
    (tmp_path / "supabase" / "rollbacks").mkdir()
    write(
        folder,
        "20300101000000_first.sql",
        "-- Why: first.\ncreate table public.first (id int);\n",
        "drop table public.first;",
    )
    write(
        folder,
        "20300101000001_second.sql",
        "create table public.second (id int);\ninsert into public.second values (1);\n",
        "drop table public.second;",
    )
    return folder


def write(folder: Path, name: str, up: str, down: str | None = None) -> None:
    (folder / name).write_text(up)
    if down is not None:
        (folder.parent / "rollbacks" / name).write_text(down)


@pytest.fixture
def connection(database: Database) -> Any:
    with database.connect(autocommit=True) as connection:
        yield connection


def states(connection: Connection, folder: Path) -> list[str]:
    return [row.state for row in migrations.status(connection, folder) if row.version >= "2030"]


def tables(connection: Connection) -> list[str | None]:
    return [one(connection, f"select to_regclass('public.{name}')::text") for name in ("first", "second")]


def test_it_applies_in_order_once_and_up_to_a_target(connection: Connection, folder: Path) -> None:
    assert [m.name for m in migrations.migrate(connection, folder=folder, target="20300101000000")] == ["first"]
    assert states(connection, folder) == ["applied", "pending"]
    assert [m.name for m in migrations.migrate(connection, folder=folder)] == ["second"]
    assert migrations.migrate(connection, folder=folder) == []
    assert states(connection, folder) == ["applied", "applied"]


def test_a_dry_run_changes_nothing_and_sees_errors(connection: Connection, folder: Path) -> None:
    assert len(migrations.migrate(connection, folder=folder, dry_run=True)) == 2
    assert tables(connection) == [None, None]
    write(folder, "20300101000002_bad.sql", "select 1/0;")
    with pytest.raises(MigrationError, match=r"20300101000002_bad\.sql, line 1"):
        migrations.migrate(connection, folder=folder, dry_run=True)
    assert states(connection, folder) == ["pending"] * 3


@pytest.mark.parametrize(
    ("source", "line", "shown"),
    [
        ("create table a (id int);\n\n-- then\ncreate tabel b (id int);\n", 4, "create tabel b"),
        ("create table a (id int);\n\n\nselect *\nfrom a\nwhere nonsense = 1;\n", 6, "select *"),
        ("create function f() returns int language plpgsql as $$\nbegin\n    raise 'a; b';\nend\n$$;\n/* c */ select f();\n", 6, "select f()"),
        ("create table a (id int);\ninsert into a values ('x;y'), (1/0);\n", 2, "insert into a"),
        ("-- Why: a comment; with a semicolon\nselect 1;\nselect 'é', 1/0;", 3, "select 'é'"),
    ],
)  # fmt: skip
def test_a_failing_statement_names_file_line_and_statement_and_leaves_nothing(
    connection: Connection, folder: Path, source: str, line: int, shown: str
) -> None:
    write(folder, "20300101000002_bad.sql", source)
    with pytest.raises(MigrationError) as caught:
        migrations.migrate(connection, folder=folder)
    assert f"20300101000002_bad.sql, line {line}: " in str(caught.value)
    assert shown in str(caught.value)
    assert states(connection, folder) == ["applied", "applied", "pending"]
    assert one(connection, "select to_regclass('public.a')::text") is None


def test_an_applied_file_that_changed_is_reported_and_refused_unless_forced(
    connection: Connection, folder: Path
) -> None:
    migrations.migrate(connection, folder=folder)
    first = folder / "20300101000000_first.sql"
    first.write_text("-- Another comment.\ncreate   table public.first\n  (id int);\n")
    assert states(connection, folder) == ["applied", "applied"], "spacing and comments are no change"
    first.write_text("create table public.first (id bigint);\n")
    assert states(connection, folder) == ["changed", "applied"]
    write(folder, "20300101000002_third.sql", "create table public.third (id int);")
    with pytest.raises(MigrationError, match="20300101000000_first"):
        migrations.migrate(connection, folder=folder)
    assert [m.name for m in migrations.migrate(connection, folder=folder, force=True)] == ["third"]
    first.unlink()
    assert states(connection, folder) == ["missing", "applied", "applied"]


def test_the_way_back_is_one_transaction(connection: Connection, folder: Path) -> None:
    migrations.migrate(connection, folder=folder)
    write(folder, "20300101000002_third.sql", "create table public.third (id int);", "drop table public.nonsense;")
    migrations.migrate(connection, folder=folder)
    with pytest.raises(MigrationError, match=r"20300101000002_third\.sql, line 1"):
        migrations.rollback(connection, target="20300101000000", folder=folder)
    assert states(connection, folder) == ["applied"] * 3
    (folder.parent / "rollbacks" / "20300101000002_third.sql").write_text("drop table public.third;")
    assert len(migrations.rollback(connection, target="20300101000000", folder=folder, dry_run=True)) == 2
    assert states(connection, folder) == ["applied"] * 3
    migrations.rollback(connection, target="20300101000000", folder=folder)
    assert states(connection, folder) == ["applied", "pending", "pending"]
    assert tables(connection) == ["first", None]
    (folder.parent / "rollbacks" / "20300101000000_first.sql").unlink()
    with pytest.raises(MigrationError, match="no way back from"):
        migrations.rollback(connection, target="0", folder=folder)


@pytest.mark.parametrize(
    ("name", "words"), [("first.sql", "not a migration's name"), ("20300101000000_twin.sql", "same version")]
)
def test_badly_named_files_are_refused(connection: Connection, folder: Path, name: str, words: str) -> None:
    write(folder, name, "select 1;")
    with pytest.raises(UsageError, match=words):
        migrations.migrate(connection, folder=folder)


def test_an_unknown_target_is_refused(connection: Connection, folder: Path) -> None:
    for target in ("nonsense", "20300101000009"):
        with pytest.raises(UsageError, match="no migration"):
            migrations.migrate(connection, folder=folder, target=target)
        with pytest.raises(UsageError, match="no migration"):
            migrations.rollback(connection, folder=folder, target=target)


@pytest.mark.parametrize("control", ["commit", "BEGIN", "rollback", "start transaction", "end", "rollback work"])
def test_a_file_cannot_end_its_own_transaction(connection: Connection, folder: Path, control: str) -> None:
    write(folder, "20300101000002_bad.sql", f"create table public.third (id int);\n-- now\n{control};\nselect 1;")
    with pytest.raises(MigrationError, match="line 3: a file is one transaction"):
        migrations.migrate(connection, folder=folder)
    assert one(connection, "select to_regclass('public.third')::text") is None
    write(
        folder, "20300101000002_bad.sql", "savepoint s; create table public.third (id int); rollback to s; release s;"
    )
    assert len(migrations.migrate(connection, folder=folder)) == 1


@pytest.mark.parametrize(
    "glued",
    ["create table public.t1 (x$y$ int);\ncommit;\nselect 1;", "select E'\\'', '$$';\ncommit;\nselect 1;", "/* a /* b */ $$ */ select 1;\ncommit;"],
)  # fmt: skip
def test_what_the_splitter_takes_for_one_statement_is_refused_by_the_server(
    connection: Connection, folder: Path, glued: str
) -> None:
    write(folder, "20300101000002_bad.sql", "create table public.third (id int);\n" + glued)
    for dry_run in (True, False):
        with pytest.raises(MigrationError):
            migrations.migrate(connection, folder=folder, dry_run=dry_run)
        assert one(connection, "select to_regclass('public.third')::text") is None


def test_a_file_applied_while_empty_and_filled_later_is_changed(connection: Connection, folder: Path) -> None:
    write(folder, "20300101000002_later.sql", "-- Why: later.\n")
    migrations.migrate(connection, folder=folder)
    assert states(connection, folder)[-1] == "applied"
    write(folder, "20300101000002_later.sql", "create table public.third (id int);")
    assert states(connection, folder)[-1] == "changed"


def test_what_a_file_sets_for_its_session_ends_with_it(connection: Connection, folder: Path) -> None:
    settings = "set role anon; set statement_timeout = 1; set default_transaction_read_only = on; set search_path = '';"
    write(folder, "20300101000002_sets.sql", settings)
    write(folder, "20300101000003_next.sql", "select pg_sleep(0.1); create table public.third (id int);")
    assert len(migrations.migrate(connection, folder=folder)) == 4
    assert one(connection, "select current_user") == "postgres"


@pytest.mark.parametrize(
    ("content", "words"), [("é".encode("latin-1"), "not UTF-8"), (b"select 1;\0", "null character")]
)
def test_a_file_that_postgres_could_not_read_is_refused(
    connection: Connection, folder: Path, content: bytes, words: str
) -> None:
    (folder / "20300101000002_bad.sql").write_bytes(content)
    with pytest.raises(UsageError, match=words):
        migrations.migrate(connection, folder=folder)


def test_a_byte_order_mark_is_no_obstacle_and_copy_says_what_is_wrong(connection: Connection, folder: Path) -> None:
    (folder / "20300101000002_bom.sql").write_bytes(b"\xef\xbb\xbfcreate table public.third (id int);\r\n")
    assert len(migrations.migrate(connection, folder=folder)) == 3
    write(folder, "20300101000003_copy.sql", "copy public.third from stdin;\n1\n\\.\n")
    with pytest.raises(MigrationError, match=r"20300101000003_copy\.sql, line 1"):
        migrations.migrate(connection, folder=folder)
    assert states(connection, folder)[-1] == "pending"


def test_of_two_migrators_one_waits_and_nothing_runs_twice(database: Database, folder: Path) -> None:
    write(folder, "20300101000002_slow.sql", "create table public.slow (id int); select pg_sleep(0.3);")
    waited, applied = threading.Event(), []

    def work() -> None:
        with database.connect(autocommit=True) as connection:
            applied.append(len(migrations.migrate(connection, folder=folder, on_wait=waited.set)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == [0, 0, 3]
    assert waited.is_set()


def test_a_new_migration_comes_after_every_other_one(folder: Path) -> None:
    path = migrations.create("Add Invoices & more!", folder)
    assert path.name == "20300101000002_add_invoices_more.sql"
    assert path.name == migrations.on_disk(folder)[-1].path.name
    with pytest.raises(UsageError, match="needs a name"):
        migrations.create("!!!", folder)


def test_our_own_files_split_into_what_postgres_sees() -> None:
    for migration in migrations.on_disk():
        statements = migration.statements()
        joined = "".join(statement.text for statement in statements)
        assert joined.count("$$") % 2 == 0
        assert all(statement.text.count("$$") % 2 == 0 for statement in statements), migration.path.name


SUPABASE = Path(__file__).parents[2] / "node_modules/@supabase/cli-linux-x64/bin/supabase"


def supabase(database: Database, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SUPABASE, *arguments, f"--remote={database.url()}?sslmode=disable", "--yes"],
        cwd=root, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip


@pytest.fixture
def history_of_both(database: Database, folder: Path) -> Path:
    """The template's own migrations besides, so that the Supabase CLI finds what is applied on disk."""
    root = Path(__file__).parents[2]
    for path in (root / "supabase" / "migrations").glob("*.sql"):
        (folder / path.name).write_text(path.read_text())
    (folder.parent / "config.toml").write_text('project_id = "test"\n')
    return folder


def test_the_supabase_cli_goes_on_where_rowhouse_stopped(database: Database, history_of_both: Path) -> None:
    folder = history_of_both
    with database.connect(autocommit=True) as connection:
        migrations.migrate(connection, folder=folder, target="20300101000000")
    pushed = supabase(database, folder.parent.parent, "db", "push")
    assert pushed.returncode == 0, pushed.stderr
    with database.connect(autocommit=True) as connection:
        assert tables(connection) == ["first", "second"]
        assert {row.state for row in migrations.status(connection, folder)} == {"applied"}
        assert run(connection, "select id from public.second") == [{"id": 1}]


def test_rowhouse_goes_on_where_the_supabase_cli_stopped(empty_database: Database, history_of_both: Path) -> None:
    from rowhouse.local.cluster import SUPERUSER, prepare_database

    folder = history_of_both
    with empty_database.connect(SUPERUSER, autocommit=True) as connection:
        prepare_database(connection)
    pushed = supabase(empty_database, folder.parent.parent, "db", "push")
    assert pushed.returncode == 0, pushed.stderr
    write(folder, "20300101000002_third.sql", "create table public.third (id int);")
    with empty_database.connect(autocommit=True) as connection:
        assert {row.state for row in migrations.status(connection, folder)} == {"applied", "pending"}
        assert [m.name for m in migrations.migrate(connection, folder=folder)] == ["third"]
        assert run(connection, "select * from ops.doctor() where severity = 'error' and subject not in ('public.first', 'public.second', 'public.third')"
                   " and subject not like 'rowhouse-%%'") == []  # fmt: skip
    again = supabase(empty_database, folder.parent.parent, "db", "push")
    assert "up to date" in again.stdout + again.stderr
