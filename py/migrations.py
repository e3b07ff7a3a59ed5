"""Migrations: files in `supabase/migrations`, recorded where the Supabase CLI records them.

Both runners share `supabase_migrations.schema_migrations`, so they can be mixed. This one takes an
advisory lock, runs each file in one transaction with its history row, and tells when a file that
was applied has changed since.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import MigrationError, UsageError
from .settings import project_root

if TYPE_CHECKING:
    from .database import Connection

ADVISORY_LOCK = 7_263_104_118  # any number, the same for every migrator
LOCK_TIMEOUT = "10s"
CLOSED = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"[^\"]*\"|(\$\w*\$).*?\1", re.DOTALL)
OPEN_QUOTE = re.compile(r"\$\w*\$")
BLANK = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)+", re.DOTALL)
TRANSACTION_CONTROL = re.compile(
    r"(begin|start\s+transaction|commit|end|abort|prepare\s+transaction|rollback(?!\s+(work\s+|transaction\s+)?to))\b",
    re.IGNORECASE,
)
COPY_FROM_STDIN = re.compile(r"copy\b[^;]*\bfrom\s+stdin\b", re.IGNORECASE)
FILE_NAME = re.compile(r"(\d{14})_([a-z0-9_]+)\.sql")


@dataclass(frozen=True)
class Migration:
    """A file: its version (14 digits, UTC), its name, and where it is."""

    version: str
    name: str
    path: Path

    @property
    def rollback_path(self) -> Path:
        return self.path.parent.parent / "rollbacks" / self.path.name

    def statements(self) -> list[Statement]:
        return split(read(self.path))


@dataclass(frozen=True)
class Statement:
    """One statement of a file, without its semicolon, and the line it begins on, from 1."""

    text: str
    line: int


@dataclass(frozen=True)
class Status:
    """A migration and what the database knows of it.

    `state` is applied, pending, changed (applied, and its file differs since), or missing (applied,
    and there is no file).
    """

    version: str
    name: str
    state: str


def read(path: Path) -> str:
    """A file's text, without a byte order mark. Raises UsageError if Postgres could not read it."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path.name} is not UTF-8, from byte {error.start} on.", "Save it as UTF-8.") from None
    if "\0" in text:
        raise UsageError(f"{path.name} holds a null character.", "Remove it.")
    return text


def split(source: str) -> list[Statement]:
    """Splits a file into its statements; comments stay with the statement they precede."""
    import sqlparse

    statements: list[Statement] = []
    begun: int | None = None
    end, line, counted = 0, 1, 0
    for piece in sqlparse.split(source):
        start = source.index(piece, end)
        end = start + len(piece)
        begun = start if begun is None else begun
        text = source[begun:end].rstrip().rstrip(";").rstrip()
        # sqlparse does not see a dollar quote that follows a word at once, as in `as$$`.
        if OPEN_QUOTE.search(CLOSED.sub("", text)):
            continue
        if _first_code(text, 0) < len(text):
            code = _first_code(source, begun)
            line += source.count("\n", counted, code)
            counted = code
            statements.append(Statement(text, line))
        begun = None
    if begun is not None:
        statements.append(Statement(source[begun:].strip(), line + source.count("\n", counted, begun)))
    return statements


def _first_code(source: str, position: int) -> int:
    """The offset of the first character at or after `position` that is neither space nor comment."""
    found = BLANK.match(source, position)
    return found.end() if found else position


def _has_changed(migration: Migration, recorded: list[str] | None) -> bool:
    """Whether a file's code, whatever its spacing and comments, differs from what was recorded of it."""
    # Nothing recorded, as after `supabase migration repair`: nothing to compare.
    return recorded is not None and _code("\n;\n".join(recorded)) != _code(read(migration.path))


def _code(source: str) -> list[str]:
    """The words of a file, without spaces, comments and semicolons; a quoted text is one word."""
    from sqlparse import lexer, tokens

    return [
        value
        for kind, value in lexer.tokenize(source)
        if kind not in tokens.Comment and kind not in tokens.Whitespace and value != ";"
    ]


def on_disk(folder: Path | None = None) -> list[Migration]:
    """The project's migrations in order. Raises UsageError for a badly named or doubled file."""
    found: dict[str, Migration] = {}
    for path in sorted((folder or project_root() / "supabase" / "migrations").glob("*.sql")):
        match = FILE_NAME.fullmatch(path.name)
        if match is None:
            raise UsageError(
                f"{path.name} is not a migration's name.",
                "Names are like 20261101120000_add_invoices.sql; `rowhouse db new NAME` makes one.",
            )
        if match[1] in found:
            raise UsageError(f"{path.name} and {found[match[1]].path.name} have the same version.", "Rename one.")
        found[match[1]] = Migration(match[1], match[2], path)
    return list(found.values())


def create(name: str, folder: Path | None = None) -> Path:
    """Makes an empty migration, with the header to fill in, and its rollback. Returns its path."""
    folder = folder or project_root() / "supabase" / "migrations"
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if not slug:
        raise UsageError("A migration needs a name of letters or digits.", "rowhouse db new add_invoices")
    path = folder / f"{next_version(folder)}_{slug}.sql"
    path.write_text("-- Why: \n-- Locks: none on existing tables.\n-- Workers: need not stop.\n", encoding="utf-8")
    rollback = folder.parent / "rollbacks" / path.name
    rollback.parent.mkdir(exist_ok=True)
    rollback.write_text("-- The way back, or delete this file if there is none.\n", encoding="utf-8")
    return path


def next_version(folder: Path) -> str:
    """A version later than every one on disk: the time now, in UTC, or one more than the last."""
    now = datetime.now(UTC).strftime("%Y%m%d%H%M%S")
    versions = [migration.version for migration in on_disk(folder)]
    return max(now, str(int(versions[-1]) + 1)) if versions else now


def _ensure_history(connection: Connection) -> None:
    # The table as the Supabase CLI makes it, so that either runner may come first.
    if connection.execute("select to_regclass('supabase_migrations.schema_migrations')").fetchone() != (None,):
        return
    connection.execute(
        """
        create schema if not exists supabase_migrations;
        create table if not exists supabase_migrations.schema_migrations (version text not null primary key);
        alter table supabase_migrations.schema_migrations add column if not exists statements text[];
        alter table supabase_migrations.schema_migrations add column if not exists name text;
        """
    )


def _history(connection: Connection) -> dict[str, tuple[str, list[str] | None]]:
    if connection.execute("select to_regclass('supabase_migrations.schema_migrations')").fetchone() == (None,):
        return {}
    rows = connection.execute(
        "select version, coalesce(name, ''), statements from supabase_migrations.schema_migrations"
    ).fetchall()
    return {version: (name, statements) for version, name, statements in rows}


def status(connection: Connection, folder: Path | None = None) -> list[Status]:
    """Every migration on disk or in the database, in order, with its state."""
    applied = _history(connection)
    result = []
    for migration in on_disk(folder):
        if migration.version not in applied:
            state = "pending"
        else:
            recorded = applied.pop(migration.version)[1]
            state = "changed" if _has_changed(migration, recorded) else "applied"
        result.append(Status(migration.version, migration.name, state))
    result += [Status(version, name, "missing") for version, (name, _) in applied.items()]
    return sorted(result, key=lambda row: row.version)


@contextmanager
def _alone(connection: Connection, on_wait: Callable[[], None] | None) -> Iterator[None]:
    """Holds the migrators' lock; a second migrator waits for the first to end."""
    taken = connection.execute("select pg_try_advisory_lock(%s)", [ADVISORY_LOCK]).fetchone()
    if taken == (False,):
        if on_wait:
            on_wait()
        connection.execute("select pg_advisory_lock(%s)", [ADVISORY_LOCK])
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("select pg_advisory_unlock(%s)", [ADVISORY_LOCK])


def run_file(connection: Connection, path: Path) -> None:
    """Runs a file that is no migration, such as seed.sql, in the caller's transaction.

    Raises MigrationError, naming file, line and statement, or UsageError if it cannot be read.
    """
    if not path.is_file():
        raise UsageError(f"There is no {path.name}.", "An empty file will do.")
    _run_file(connection, path, split(read(path)))


def _run_file(connection: Connection, path: Path, statements: list[Statement]) -> None:
    """Runs a file's statements; raises MigrationError that names file, line and statement."""
    import psycopg

    for statement in statements:
        code = statement.text[_first_code(statement.text, 0) :]
        if TRANSACTION_CONTROL.match(code):
            raise MigrationError(
                f"{path.name}, line {statement.line}: a file is one transaction, and cannot begin or end one.\n{code}",
                "Remove the statement, or use two files.",
            )
        if COPY_FROM_STDIN.match(code):
            raise MigrationError(
                f"{path.name}, line {statement.line}: there is nothing to copy from.\n{code.splitlines()[0]}",
                "Write the rows as an INSERT.",
            )
        try:
            # Binary, because that goes by the protocol which takes one command at a time.
            connection.execute(statement.text.encode(), binary=True)
        except psycopg.Error as error:
            raise _failure(path, statement, error) from error
    # What a file sets for its session ends with it: the history row is written as who migrates.
    connection.execute("reset session authorization")
    connection.execute("reset role")
    connection.execute("reset all")


def _failure(path: Path, statement: Statement, error: Any) -> MigrationError:
    line = statement.line
    if error.diag.statement_position:
        before = statement.text[: int(error.diag.statement_position) - 1]
        leading = statement.text[: _first_code(statement.text, 0)]
        line += before.count("\n") - leading.count("\n")
    code = statement.text[_first_code(statement.text, 0) :]
    first_lines = "\n".join(code.splitlines()[:3])
    message = error.diag.message_primary or str(error)
    return MigrationError(
        f"{path.name}, line {line}: {message}\n{first_lines}",
        error.diag.message_hint or "The database is as it was before this file; mend it and migrate again.",
    )


def migrate(
    connection: Connection,
    *,
    target: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    folder: Path | None = None,
    on_wait: Callable[[], None] | None = None,
    on_applied: Callable[[Migration], None] | None = None,
) -> list[Migration]:
    """Applies what is pending, up to and including `target`, each file in a transaction of its own.

    `connection` must be in autocommit. With `dry_run` each file is run and rolled back, all in one
    transaction. Refuses, unless `force`, if an applied file has changed. Returns what was applied.
    Raises MigrationError; the files before the failing one stay applied, and it leaves no trace.
    """
    with _alone(connection, on_wait):
        _refuse_changed(connection, folder, force=force)
        pending = _pending(connection, folder, target)
        if dry_run:
            with connection.transaction(force_rollback=True):
                for migration in pending:
                    _apply(connection, migration)
            return pending
        for migration in pending:
            with connection.transaction():
                _apply(connection, migration)
            if on_applied:
                on_applied(migration)
        if pending:
            connection.execute("notify pgrst, 'reload schema'")
        return pending


def _pending(connection: Connection, folder: Path | None, target: str | None) -> list[Migration]:
    applied = _history(connection)
    every = on_disk(folder)
    if target is not None and target not in {migration.version for migration in every}:
        raise UsageError(f"There is no migration {target}.", "`rowhouse db status` lists the versions.")
    return [
        migration
        for migration in every
        if migration.version not in applied and (target is None or migration.version <= target)
    ]


def _refuse_changed(connection: Connection, folder: Path | None, *, force: bool) -> None:
    changed = [row for row in status(connection, folder) if row.state == "changed"]
    if changed and not force:
        names = ", ".join(f"{row.version}_{row.name}" for row in changed)
        raise MigrationError(
            f"Applied already, and changed since: {names}.",
            "Put the change into a new migration; --force goes on all the same.",
        )


def _apply(connection: Connection, migration: Migration) -> None:
    _ensure_history(connection)
    connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'".encode())
    statements = migration.statements()
    _run_file(connection, migration.path, statements)
    connection.execute(
        "insert into supabase_migrations.schema_migrations (version, name, statements) values (%s, %s, %s)",
        [migration.version, migration.name, [statement.text for statement in statements]],
    )


def rollback(
    connection: Connection, *, target: str, dry_run: bool = False, folder: Path | None = None
) -> list[Migration]:
    """Takes back every applied migration after `target`, the latest first, in one transaction.

    `target` is a version that stays, or "0" to take back all. Raises MigrationError if one of them
    has no rollback, or its rollback fails: the database is then as it was.
    """
    with _alone(connection, None):
        every = {migration.version: migration for migration in on_disk(folder)}
        if target != "0" and target not in every:
            raise UsageError(f"There is no migration {target}.", "`rowhouse db status` lists the versions.")
        versions = sorted((version for version in _history(connection) if version > target), reverse=True)
        back = []
        for version in versions:
            migration = every.get(version)
            if migration is None or not migration.rollback_path.is_file():
                name = migration.path.name if migration else version
                raise MigrationError(
                    f"There is no way back from {name}.", "Write supabase/rollbacks/ with the same file name."
                )
            back.append(migration)
        with connection.transaction(force_rollback=dry_run):
            connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'".encode())
            for migration in back:
                _run_file(connection, migration.rollback_path, split(read(migration.rollback_path)))
                connection.execute(
                    "delete from supabase_migrations.schema_migrations where version = %s", [migration.version]
                )
        if back and not dry_run:
            connection.execute("notify pgrst, 'reload schema'")
        return back
