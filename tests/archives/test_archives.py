"""Export and import: everything, exactly, or nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rowhouse import archives
from rowhouse.errors import RowhouseError

from ..conftest import ROOT, Database, _clone
from ..identities import as_user, make_user, make_workspace, one, run
from ..isolation.test_matrix import relations
from .furnished import furnish, quiet

Connection = psycopg.Connection[Any]


def export(database: Database, workspace: Any, target: Path) -> archives.Manifest:
    with database.connect(autocommit=True) as connection:
        manifest = archives.Manifest("workspace", {"id": str(workspace), "slug": "acme"})
        return archives.export(connection, archives.workspace_tables(connection), manifest, workspace, target, quiet)


def load(database: Database, path: Path) -> None:
    with database.connect() as connection:
        archives.load(connection, path, quiet, quiet)


def contents(path: Path) -> dict[str, list[str]]:
    with zipfile.ZipFile(path) as archive:
        return {
            name: archive.read(name).decode().splitlines()
            for name in archive.namelist()
            if name not in ("manifest.json", "audit.inbox.ndjson")
        }


def test_a_workspace_comes_into_another_database_with_the_same_content(
    database: Database, elsewhere: Database, acme: dict[str, Any], tmp_path: Path
) -> None:
    export(database, acme["workspace"], tmp_path / "a.zip")
    load(elsewhere, tmp_path / "a.zip")
    export(elsewhere, acme["workspace"], tmp_path / "b.zip")
    assert contents(tmp_path / "a.zip") == contents(tmp_path / "b.zip")
    with elsewhere.connect() as connection:
        assert run(connection, "select * from ops.data_findings()") == []
        assert run(connection, "select * from ledger.findings(%s)", [acme["workspace"]]) == []
        with as_user(connection, acme["owner"]):
            assert one(connection, "select count(*) from tasks") == 1
            assert len(run(connection, "select * from search(%s, 'lovelace')", [acme["workspace"]])) == 1
            assert one(connection, "select restore(%s, 'tasks', %s)", [acme["workspace"], acme["gone"]]) == 1
            assert one(connection, "select pending from ticket_balances") == 400
            made = "insert into tickets (workspace_id, customer_id, device) select %s, id, 'Next' from customers returning number"
            assert one(connection, made, [acme["workspace"]]) == 2
            assert one(connection, "select count(*) from audit_log where action = 'ledger.post'") == 3


def test_the_archive_holds_every_row_and_no_secret(database: Database, acme: dict[str, Any], tmp_path: Path) -> None:
    with database.connect() as connection:
        furnish(connection, "globex")
        run(connection, "update auth.users set encrypted_password = 'canary-password'")
        hashes = [
            row["h"] for row in run(connection, "select encode(token_hash, 'hex') as h from tenancy.invitation_tokens")
        ]
    manifest = export(database, acme["workspace"], tmp_path / "a.zip")
    with database.connect() as connection:
        for table in relations(connection):
            columns = run(
                connection, "select relkind::text as k from pg_class where oid = %s::regclass", [f"public.{table}"]
            )
            has = one(
                connection,
                "select exists (select from pg_attribute where attrelid = %s::regclass and attname = 'workspace_id')",
                [f"public.{table}"],
            )
            left_out = one(
                connection,
                "select exists (select from ops.not_exported where relation = %s::regclass)",
                [f"public.{table}"],
            )
            if columns[0]["k"] == "v" or not has or left_out:
                continue
            there = one(connection, f"select count(*) from {table} where workspace_id = %s", [acme["workspace"]])
            assert manifest.tables[f"public.{table}"].rows == there, table
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        text = "".join(archive.read(name).decode() for name in archive.namelist())
    assert "canary-password" not in text
    assert "globex" not in text
    assert hashes and not any(h in text for h in hashes)


TAMPERING: dict[str, Callable[[dict[str, bytes]], None]] = {
    "a changed line": lambda files: files.update(
        {"public.tasks.ndjson": files["public.tasks.ndjson"].replace(b"Left behind", b"Left beh1nd")}
    ),
    "a missing line": lambda files: files.update(
        {"public.tasks.ndjson": files["public.tasks.ndjson"].split(b"\n", 1)[1]}
    ),
    "a missing file": lambda files: files.__delitem__("public.tasks.ndjson"),
    "another file": lambda files: files.update({"public.evil.ndjson": b"{}\n"}),
    "no manifest": lambda files: files.__delitem__("manifest.json"),
    "a manifest that is none": lambda files: files.update({"manifest.json": b"[]"}),
    "a manifest of the wrong shape": lambda files: files.update({"manifest.json": b'{"format": "rowhouse-export/1"}'}),
    "a manifest that nests": lambda files: files.update({"manifest.json": b"[" * 100_000}),
    "another format": lambda files: files.update(
        {"manifest.json": files["manifest.json"].replace(b"export/1", b"export/9")}
    ),
}


def repack(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    with zipfile.ZipFile(source) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def consistently(table: str, edit: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes]], None]:
    """Edits a table and makes the manifest fit."""
    import hashlib

    def change(files: dict[str, bytes]) -> None:
        files[f"{table}.ndjson"] = data = edit(files[f"{table}.ndjson"])
        manifest = json.loads(files["manifest.json"])
        for entry in manifest["tables"]:
            if entry["name"] == table:
                entry.update(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), rows=data.count(b"\n"))
        files["manifest.json"] = json.dumps(manifest).encode()

    return change


def elsewhere_id(data: bytes) -> bytes:
    return re.sub(rb'"workspace_id": "[^"]+"', b'"workspace_id": "99999999-9999-4999-8999-999999999999"', data)


TAMPERING |= {
    "rows of another workspace": consistently("public.tasks", elsewhere_id),
    "a role of the system": consistently(
        "public.role_permissions",
        lambda data: data + b'{"role_id": "00000000-0000-4000-8000-000000000004", "permission": "workspace.delete"}\n',
    ),
    "a record that never was": consistently(
        "audit.inbox", lambda data: re.sub(rb'"occurred_at": "[^"]+"', b'"occurred_at": "infinity"', data)
    ),
    "a record of the future": consistently(
        "audit.inbox", lambda data: re.sub(rb'"occurred_at": "[^"]+"', b'"occurred_at": "2999-01-01"', data)
    ),
    "a workspace made at no time": consistently(
        "public.workspaces", lambda data: re.sub(rb'"created_at": "[^"]+"', b'"created_at": "infinity"', data)
    ),
    "trash of another table": consistently(
        "tenancy.deletions", lambda data: data.replace(b"public.tasks", b"auth.users")
    ),
    "books that do not hold": consistently(
        "ledger.balances", lambda data: re.sub(rb'"balance": -?\d+', b'"balance": 7', data)
    ),
    "money that was not posted": consistently(
        "ledger.entries", lambda data: data.replace(b'"amount": 1000', b'"amount": 9000')
    ),
    "lines that are no JSON": consistently("public.tasks", lambda _: b"not json\n"),
    "lines that are no text": consistently("public.tasks", lambda _: b"\xff\xfe\n"),
    "two workspaces": consistently("public.workspaces", lambda data: data * 2),
    "no workspace": consistently("public.workspaces", lambda _: b""),
}


@pytest.mark.parametrize("deed", TAMPERING)
def test_an_archive_that_was_tampered_with_is_refused_whole(
    database: Database, acme: dict[str, Any], tmp_path: Path, deed: str
) -> None:
    export(database, acme["workspace"], tmp_path / "a.zip")
    repack(tmp_path / "a.zip", tmp_path / "b.zip", TAMPERING[deed])
    for target in _clone():
        with pytest.raises((RowhouseError, psycopg.Error)):
            load(target, tmp_path / "b.zip")
        with target.connect() as connection:
            assert one(connection, "select count(*) from workspaces") == 0
            assert one(connection, "select count(*) from ledger.accounts") == 0
            assert one(connection, "select count(*) from auth.users") == 0


@pytest.mark.parametrize("length", [0, 100, -1000, -10])
def test_an_archive_that_was_cut_is_refused(
    database: Database, elsewhere: Database, acme: dict[str, Any], tmp_path: Path, length: int
) -> None:
    export(database, acme["workspace"], tmp_path / "a.zip")
    whole = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(whole[:length])
    with pytest.raises(archives.ArchiveError):
        load(elsewhere, tmp_path / "b.zip")


def test_what_is_here_already_is_refused(
    database: Database, elsewhere: Database, acme: dict[str, Any], tmp_path: Path
) -> None:
    export(database, acme["workspace"], tmp_path / "a.zip")

    def code(target: Database) -> Any:
        with pytest.raises(psycopg.Error) as refused:
            load(target, tmp_path / "a.zip")
        return json.loads(refused.value.diag.message_primary or "{}")["code"]

    assert code(database) == "workspace_exists"
    with elsewhere.connect() as connection:
        make_workspace(connection, make_user(connection), slug="acme")
    assert code(elsewhere) == "slug_taken"
    with elsewhere.connect() as connection:
        run(connection, "update workspaces set slug = 'other'")
        make_user(connection, "OWNER@acme.example")
    assert code(elsewhere) == "person_differs"


# Interrupted -------------------------------------------------------------------------------------


def test_an_export_that_is_killed_goes_on_where_it_was_and_is_consistent(
    database: Database, elsewhere: Database, acme: dict[str, Any], tmp_path: Path
) -> None:
    with database.connect() as connection:
        run(
            connection,
            "insert into tasks (workspace_id, project_id, title, notes) select %s, %s, 'T' || n, repeat('x', 2000) "
            "from generate_series(1, 8000) n",
            [acme["workspace"], acme["project"]],
        )
    target = tmp_path / "acme.zip"
    command = [sys.executable, "-m", "rowhouse.cli", "workspaces", "export", "acme", "--output", str(target), "--json"]
    environment = {**os.environ, "DATABASE_URL": database.url()}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    partial = tmp_path / "acme.zip.partial"
    while process.poll() is None and not (partial / "public.tasks.ndjson").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists(), "there is no archive before it is whole"
    done = json.loads((partial / "state.json").read_text())["tables"]
    assert done and "public.tasks" not in done
    kept = (partial / "public.workspaces.ndjson").stat().st_mtime_ns
    with database.connect() as connection:
        run(connection, "update customers set name = 'Changed meanwhile'")
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(finished.stdout)["rows"] > 8000
    assert kept and not partial.exists()
    load(elsewhere, target)
    with elsewhere.connect() as connection:
        assert one(connection, "select count(*) from tasks") == 8002
        assert one(connection, "select name from customers") == "Changed meanwhile"


def test_a_finished_table_that_changed_is_written_again(
    database: Database, acme: dict[str, Any], tmp_path: Path
) -> None:
    target = tmp_path / "a.zip"
    with database.connect(autocommit=True) as connection:
        tables = archives.workspace_tables(connection)
        manifest = archives.Manifest("workspace", {"id": str(acme["workspace"])})

        def stop(name: str, _: int) -> None:
            if name == "public.tickets":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            archives.export(connection, tables, manifest, acme["workspace"], target, stop)
    with database.connect(autocommit=True) as connection:
        run(connection, "update customers set name = 'Somebody else'")
        again = archives.Manifest("workspace", {"id": str(acme["workspace"])})
        archives.export(connection, tables, again, acme["workspace"], target, quiet)
    assert any("Somebody else" in line for line in contents(target)["public.customers.ndjson"])


def test_an_export_of_something_else_is_not_gone_on_with(
    database: Database, acme: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "a.zip.partial").mkdir()
    (tmp_path / "a.zip.partial" / "state.json").write_text('{"kind": "person", "subject": {}, "tables": {}}')
    with pytest.raises(RowhouseError, match="another export"):
        export(database, acme["workspace"], tmp_path / "a.zip")
    (tmp_path / "b.zip").write_text("mine")
    with pytest.raises(RowhouseError, match="there already"):
        export(database, acme["workspace"], tmp_path / "b.zip")
