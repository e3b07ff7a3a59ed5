"""What belongs to a workspace or a person, as one archive: NDJSON per table and a manifest with counts and checksums.

An export that is interrupted goes on where it was: tables that are done are kept, if the database
says that they have not changed since. The archive itself appears only when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .errors import RowhouseError, UsageError

if TYPE_CHECKING:
    from .database import Connection

FORMAT = "rowhouse-export/1"
PEOPLE = "people"
CHUNK = 1 << 20
LARGEST_MANIFEST = 1 << 20
LONGEST_LINE = 1 << 28
Progress = Callable[[str, int], None]
# What reading a zip file, JSON or UTF-8 from a stranger can raise.
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, TypeError, ValueError, RuntimeError,
    NotImplementedError, RecursionError,
)  # fmt: skip


class ArchiveError(RowhouseError):
    """An archive is not what its manifest says, or is none."""


@dataclass(frozen=True)
class Table:
    """One table of an export: its name, and the query of its rows, with the owner as %(id)s."""

    name: str
    query: str


@dataclass
class Written:
    """What a file holds: rows, bytes, checksum; and the sum of its rows' hashes, as the database adds them up."""

    rows: int = 0
    bytes: int = 0
    sha256: str = ""
    row_hashes: str = "0"


@dataclass
class Manifest:
    """What an archive holds."""

    kind: str
    subject: dict[str, Any]
    tables: dict[str, Written] = field(default_factory=dict)

    def to_json(self) -> str:
        tables = [
            {"name": name, "rows": t.rows, "bytes": t.bytes, "sha256": t.sha256} for name, t in self.tables.items()
        ]
        return json.dumps(
            {"format": FORMAT, "kind": self.kind, "subject": self.subject, "tables": tables}, indent=2, default=str
        )


def workspace_tables(connection: Connection) -> list[Table]:
    """What belongs to a workspace, parents first; its people before all."""
    rows = connection.execute("select ops.name_of(relation), query from ops.workspace_tables()").fetchall()
    people = connection.execute("select ops.workspace_people()").fetchall()
    return [Table(PEOPLE, people[0][0]), *(Table(name, query) for name, query in rows)]


def person_tables(connection: Connection) -> list[Table]:
    """What belongs to a person."""
    return [
        Table(name, query)
        for name, query in connection.execute("select ops.name_of(relation), query from ops.person_tables()").fetchall()
    ]


def count_rows(connection: Connection, tables: list[Table], owner: Any) -> int:
    """How many rows an export will have."""
    total = 0
    for table in tables:
        row = connection.execute(_over(table, "count(*)"), {"id": owner}).fetchone()
        total += row[0] if row else 0
    return total


def export(
    connection: Connection, tables: list[Table], manifest: Manifest, owner: Any, target: Path, progress: Progress
) -> Manifest:
    """Writes an archive; all of it as of one moment.

    `connection` must not be in a transaction. `progress` is told each table and how many more of its
    rows are written. Raises UsageError if the target is there already. Interrupted, it leaves
    `TARGET.partial`, from which the next call goes on.
    """
    import psycopg

    if not target.parent.is_dir():
        raise UsageError(f"There is no folder {target.parent}.", "Make it first.")
    if target.exists():
        raise UsageError(f"{target} is there already.", "Choose another name, or move it away.")
    folder = target.with_name(target.name + ".partial")
    done = _resume(folder, manifest)
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    with connection.transaction():
        # Tables that rows name are then named with their schemas.
        connection.execute("set local search_path = pg_catalog, pg_temp")
        for table in tables:
            before = done.get(table.name)
            if before is not None and _is_unchanged(connection, table, owner, before, folder):
                manifest.tables[table.name] = before
                progress(table.name, before.rows)
                continue
            manifest.tables[table.name] = _write_table(
                connection, table, owner, folder / f"{table.name}.ndjson", progress
            )
            _write_state(folder, manifest)
    connection.read_only = None
    connection.isolation_level = None
    _pack(folder, manifest, target)
    shutil.rmtree(folder)
    return manifest


def _over(table: Table, columns: str) -> bytes:
    """A query over a table's rows, each a `line`; both parts are the database's own and this module's."""
    rows = table.query.replace("%", "%%").replace("$1", "%(id)s::uuid")
    return f"select {columns} from ({rows}) as rows (line)".encode()  # noqa: S608


def _resume(folder: Path, manifest: Manifest) -> dict[str, Written]:
    """The tables that an interrupted export of the same thing has finished."""
    state = folder / "state.json"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = json.loads(state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    if found.get("kind") != manifest.kind or found.get("subject") != json.loads(
        json.dumps(manifest.subject, default=str)
    ):
        raise UsageError(f"{folder} is of another export.", "Choose another name, or move it away.")
    return {name: Written(**facts) for name, facts in found["tables"].items()}


def _write_state(folder: Path, manifest: Manifest) -> None:
    state = {
        "kind": manifest.kind, "subject": manifest.subject,
        "tables": {name: vars(written) for name, written in manifest.tables.items()},
    }  # fmt: skip
    fresh = folder / "state.json.new"
    fresh.write_text(json.dumps(state, default=str), encoding="utf-8")
    fresh.replace(folder / "state.json")


def _is_unchanged(connection: Connection, table: Table, owner: Any, before: Written, folder: Path) -> bool:
    path = folder / f"{table.name}.ndjson"
    if not path.exists() or path.stat().st_size != before.bytes or _sha256(path) != before.sha256:
        return False
    row = connection.execute(
        _over(table, "count(*), coalesce(sum(hashtextextended(line::text, 0)), 0)::text"),
        {"id": owner},
    ).fetchone()
    return row is not None and (row[0], row[1]) == (before.rows, before.row_hashes)


def _write_table(connection: Connection, table: Table, owner: Any, path: Path, progress: Progress) -> Written:
    written, digest, hashes = Written(), hashlib.sha256(), 0
    with path.open("wb") as file, connection.cursor(name="rowhouse_export") as cursor:
        cursor.itersize = 2_000
        cursor.execute(
            _over(table, "line::text, hashtextextended(line::text, 0)"),
            {"id": owner},
        )
        for line, row_hash in cursor:
            data = line.encode() + b"\n"
            file.write(data)
            digest.update(data)
            hashes += row_hash
            written.rows += 1
            written.bytes += len(data)
            if written.rows % 2_000 == 0:
                progress(table.name, 2_000)
    progress(table.name, written.rows % 2_000)
    written.sha256, written.row_hashes = digest.hexdigest(), str(hashes)
    return written


def _pack(folder: Path, manifest: Manifest, target: Path) -> None:
    fresh = folder / "archive.zip"
    with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("manifest.json", manifest.to_json())
        for name in manifest.tables:
            archive.write(folder / f"{name}.ndjson", f"{name}.ndjson")
    fresh.replace(target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Reading ----------------------------------------------------------------------------------------


def read_manifest(archive: zipfile.ZipFile) -> Manifest:
    """What an archive says it holds. Raises ArchiveError."""
    hint = "Use what `rowhouse workspaces export` wrote."
    try:
        if archive.getinfo("manifest.json").file_size > LARGEST_MANIFEST:
            raise ArchiveError("The archive's manifest is too large to be one.", hint)
        found = json.loads(archive.read("manifest.json"))
        if found["format"] != FORMAT:
            raise ArchiveError(
                f"This archive is of the format {str(found['format'])[:40]}.", f"{FORMAT} is understood."
            )
        tables = {str(t["name"]): Written(int(t["rows"]), int(t["bytes"]), str(t["sha256"])) for t in found["tables"]}
        kind, subject = str(found["kind"]), dict(found["subject"])
    except UNREADABLE as error:
        raise ArchiveError("This is no export: it has no manifest that can be read.", hint) from error
    return Manifest(kind, subject, tables)


def check(archive: zipfile.ZipFile, manifest: Manifest, progress: Progress) -> None:
    """Compares every file with the manifest, before anything is believed. Raises ArchiveError."""
    names = [*(f"{name}.ndjson" for name in manifest.tables), "manifest.json"]
    if sorted(archive.namelist()) != sorted(names):
        raise ArchiveError("The archive holds other files than its manifest names.", "Export it again.")
    for name, wanted in manifest.tables.items():
        digest, rows = hashlib.sha256(), 0
        if archive.getinfo(f"{name}.ndjson").file_size != wanted.bytes:
            raise ArchiveError(f"{name} is not what was exported: the archive was changed.", "Export it again.")
        try:
            with archive.open(f"{name}.ndjson") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    rows += chunk.count(b"\n")
        except UNREADABLE as error:
            raise ArchiveError(f"{name} cannot be read: the archive is damaged.", "Export it again.") from error
        if digest.hexdigest() != wanted.sha256 or rows != wanted.rows:
            raise ArchiveError(f"{name} is not what was exported: the archive was changed.", "Export it again.")
        progress(name, wanted.rows)


def load(connection: Connection, path: Path, checking: Progress, loading: Progress) -> Manifest:
    """Brings a workspace into a database, in the connection's transaction: all of it or nothing.

    Raises ArchiveError for an archive that is damaged or was changed, RefusedError (workspace_exists,
    slug_taken, person_differs, archive_invalid) for what cannot be brought in.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise ArchiveError(
            f"{path} cannot be read: {error}.", "Use what `rowhouse workspaces export` wrote."
        ) from error
    with archive:
        manifest = read_manifest(archive)
        if manifest.kind != "workspace":
            raise ArchiveError(f"This is the export of a {manifest.kind}.", "Only workspaces are imported.")
        check(archive, manifest, checking)
        if manifest.tables.get("public.workspaces", Written()).rows != 1:
            raise ArchiveError(
                "The archive does not hold one workspace.", "Use what `rowhouse workspaces export` wrote."
            )
        try:
            _load_tables(connection, archive, manifest, loading)
        except UNREADABLE as error:
            raise ArchiveError("The archive cannot be read: it is damaged.", "Export it again.") from error
    return manifest


def _load_tables(connection: Connection, archive: zipfile.ZipFile, manifest: Manifest, loading: Progress) -> None:
    with archive.open("public.workspaces.ndjson") as file:
        first = file.readline(LONGEST_LINE).decode()
    row = connection.execute("select ops.begin_import(%s::jsonb)", [first]).fetchone()
    workspace = row[0] if row else None
    known = workspace_tables(connection)
    unknown = sorted(set(manifest.tables) - {table.name for table in known})
    if any(manifest.tables[name].rows for name in unknown):
        raise ArchiveError(
            f"This database has no {', '.join(unknown)[:200]}.", "Migrate it to the version of the other one."
        )
    # In the order in which this database can take them.
    for table in known:
        if table.name not in manifest.tables:
            continue
        with archive.open(f"{table.name}.ndjson") as file:
            _copy(connection, file)
        if table.name == PEOPLE:
            connection.execute("select ops.import_people()")
        else:
            connection.execute("select ops.import_rows(%s::regclass, %s)", [table.name, workspace])
        connection.execute("truncate pg_temp.rowhouse_incoming")
        loading(table.name, manifest.tables[table.name].rows)
    connection.execute("select ops.finish_import(%s)", [workspace])


def _copy(connection: Connection, file: IO[bytes]) -> None:
    with connection.cursor() as cursor, cursor.copy("copy pg_temp.rowhouse_incoming (line) from stdin") as copy:
        for line in _lines(file):
            copy.write_row([line])


def _lines(file: IO[bytes]) -> Iterator[str]:
    while line := file.readline(LONGEST_LINE):
        if not line.endswith(b"\n"):
            raise ArchiveError("A line of the archive has no end.", "Export it again.")
        yield line.decode().rstrip("\n")
