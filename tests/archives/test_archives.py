"""Export, import and erasure: everything, exactly, or nothing; and nobody is found afterwards."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rowhouse import administration, archives, records
from rowhouse.errors import RowhouseError
from rowhouse.local.cluster import SUPERUSER
from rowhouse.local.packages import ensure_packages

from ..conftest import ROOT, Database, _clone
from ..identities import add_member, as_user, make_project, make_task, make_user, make_workspace, one, run
from ..isolation.test_matrix import relations

Connection = psycopg.Connection[Any]


def quiet(_: str, __: int) -> None:
    """No progress."""


@pytest.fixture
def elsewhere() -> Iterator[Database]:
    """Another migrated database, without anybody in it."""
    yield from _clone()


def furnish(db: Connection, slug: str = "acme") -> dict[str, Any]:
    """A workspace with something in every corner: trash, roles, limits, money, somebody who has left."""
    owner, leaver = make_user(db, f"owner@{slug}.example"), make_user(db, f"left@{slug}.example")
    workspace = make_workspace(db, owner, slug=slug)
    add_member(db, workspace, "member", leaver)
    project = make_project(db, workspace, lead=owner, name="Apollo")
    with as_user(db, leaver):
        run(
            db,
            "insert into tasks (workspace_id, project_id, title) values (%s, %s, 'Left behind')",
            [workspace, project],
        )
    run(db, "select tenancy.drop_member(%s, %s)", [workspace, leaver])
    gone = make_task(db, workspace, project, "In the trash")
    run(db, "delete from tasks where id = %s", [gone])
    run(db, "insert into roles (workspace_id, key, name) values (%s, 'auditor', 'Auditor')", [workspace])
    run(db, "insert into role_permissions select id, 'tasks.read' from roles where workspace_id = %s", [workspace])
    run(
        db,
        "insert into billing.limit_overrides (workspace_id, resource, max, reason) values (%s, 'projects', 1, 'agreed')",
        [workspace],
    )
    with as_user(db, owner):
        run(db, "select * from invite_member(%s, 'guest@example.com', 'member')", [workspace])
        customer = one(
            db, "insert into customers (workspace_id, name) values (%s, 'Ada Lovelace') returning id", [workspace]
        )
        ticket = one(
            db,
            "insert into tickets (workspace_id, customer_id, device) values (%s, %s, 'Engine') returning id",
            [workspace, customer],
        )
        run(db, "update tickets set status = 'diagnosing'")
        run(db, "select record_charge(%s, %s, 1000, 'c')", [workspace, ticket])
        payment = one(db, "select record_payment(%s, %s, 600, 'card', 'p')", [workspace, ticket])
        refund = one(db, "select record_refund(%s, %s, 100, 'late', 'r')", [workspace, payment])
    run(db, "select ledger.reverse(%s, %s, 'typo')", [workspace, refund])
    run(db, "select ledger.close_period(%s, '2026-01-31')", [workspace])
    return {"owner": owner, "workspace": workspace, "gone": gone, "project": project, "ticket": ticket}


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


@pytest.fixture
def acme(database: Database) -> dict[str, Any]:
    with database.connect() as connection:
        return furnish(connection)


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
            if columns[0]["k"] == "v" or not has:
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


# Erasure -----------------------------------------------------------------------------------------


def dumped(database: Database) -> str:
    packages = ensure_packages()
    result = subprocess.run(
        [packages.postgres_bin / "pg_dump", "--data-only", "--exclude-schema=supabase_migrations", database.url(SUPERUSER)],
        env={**os.environ, **packages.environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return re.sub(r"^\\(un)?restrict .*$", "", result.stdout.lower(), flags=re.MULTILINE)


def sound(connection: Connection) -> bool:
    while one(connection, "select count(*) from audit.inbox"):
        run(connection, "select audit.seal()")
    return (
        records.verify_chain(connection, [], lambda *_: None) == []
        and run(connection, "select f.* from (select distinct workspace_id from ledger.accounts) a, ledger.findings(a.workspace_id) f") == []
    )  # fmt: skip


NAMES = [
    ("Zelda Quuxington", "Zelda.Q@Canary.example", "+49 1701 234567"),
    ('Bob "Bobby" Oddname', "o'odd%name_\\@canary.example", "+1 (555) 0100"),
    ("  Ünïcode Nämé ", "ünïcode@canary.example", "0049-170-9"),
]


@pytest.mark.parametrize(("name", "email", "phone"), NAMES)
def test_nothing_of_an_erased_person_is_found_in_a_full_dump(
    database: Database, name: str, email: str, phone: str
) -> None:
    with database.connect(autocommit=True) as connection:
        boss = make_user(connection)
        workspace = make_workspace(connection, boss)
        person = make_user(connection, email)
        run(connection, "update profiles set display_name = %s where id = %s", [name, person])
        add_member(connection, workspace, "member", person)
        project = make_project(connection, workspace, lead=person)
        run(
            connection,
            "update tasks set assignee_id = %s where id = %s",
            [person, make_task(connection, workspace, project)],
        )
        made = "insert into customers (workspace_id, name, email, phone, notes) values (%s, %s, %s, %s, 'calls often') returning id"
        customer = one(connection, made, [workspace, "Former " + name, email.upper(), phone])
        run(connection, "select audit.seal()")
        run(connection, "update customers set name = %s where id = %s", [name, customer])
        other = one(connection, made, [workspace, "Somebody Else", "else@example.com", "1234567"])
        ticket = one(
            connection,
            "insert into tickets (workspace_id, customer_id, device) values (%s, %s, 'Phone') returning id",
            [workspace, customer],
        )
        with as_user(connection, person):
            run(connection, "select record_charge(%s, %s, 1000, 'c')", [workspace, ticket])
        second = make_workspace(connection, boss)
        with as_user(connection, boss):
            run(connection, "select * from invite_member(%s, %s, 'member')", [second, email])
        assert sound(connection)
        words = [email.lower(), name.strip().lower(), phone, *(part.lower() for part in re.findall(r"\w{5,}", name))]
        text = dumped(database)
        assert any(word in text for word in words)
        with database.connect() as rehearsal:
            plan = administration.erase_user(rehearsal, email)
            rehearsal.rollback()
        assert {row["action"] for row in plan} == {"delete", "anonymise"}
        assert one(connection, "select count(*) from auth.users where id = %s", [person]) == 1, (
            "a rehearsal does nothing"
        )
        with database.connect() as erasing:
            administration.erase_user(erasing, email)
        text = dumped(database)
        assert [word for word in words if word in text or word.replace("\\", "\\\\") in text] == []
        assert "somebody else" in text and "else@example.com" in text, "others stay"
        assert one(
            connection, "select before is null and after is not null from audit.entries where row_id = %s", [str(other)]
        )
        assert one(connection, "select count(*) from tickets") == 1
        assert sound(connection), "the chain and the books hold"


def test_a_name_finds_nobody_elses_records(database: Database) -> None:
    with database.connect(autocommit=True) as connection:
        person = make_user(connection, "me@canary.example")
        run(connection, "update profiles set display_name = 'name' where id = %s", [person])
        workspace = make_workspace(connection, make_user(connection))
        make_project(connection, workspace, name="Annual planning by name")
        assert sound(connection)
        with database.connect() as erasing:
            administration.erase_user(erasing, "me@canary.example")
        assert (
            one(
                connection,
                "select count(*) from audit.entries where workspace_id = %s and erased_by is not null",
                [workspace],
            )
            == 0
        )


def test_the_last_owner_is_not_erased_and_nothing_is_half_done(database: Database, acme: dict[str, Any]) -> None:
    before = dumped(database)
    with pytest.raises(psycopg.Error, match="must have an owner"), database.connect() as connection:
        administration.erase_user(connection, "owner@acme.example")
    assert re.sub(r"setval.*", "", dumped(database)) == re.sub(r"setval.*", "", before)


def test_an_erased_workspace_leaves_figures_and_what_was_done_when(database: Database, acme: dict[str, Any]) -> None:
    with database.connect(autocommit=True) as connection:
        assert sound(connection)
        entries = one(connection, "select count(*) from ledger.entries")
        with database.connect() as erasing:
            administration.erase_workspace(erasing, "acme")
        assert one(connection, "select count(*) from ledger.entries") == entries
        assert sound(connection)
    text = dumped(database)
    for word in ("lovelace", "apollo", "left behind", "agreed", "guest@example.com"):
        assert [line for line in text.splitlines() if word in line] == []


def test_what_a_person_has_is_exported(database: Database, acme: dict[str, Any], tmp_path: Path) -> None:
    with database.connect(autocommit=True) as connection:
        tables = archives.person_tables(connection)
        manifest = archives.Manifest("person", {"id": str(acme["owner"])})
        archives.export(connection, tables, manifest, acme["owner"], tmp_path / "p.zip", quiet)
    held = {name: table.rows for name, table in manifest.tables.items() if table.rows}
    assert held["public.profiles"] == held["public.workspace_members"] == held["auth.users"] == 1
    assert held["public.customers"] == 1 and held["ledger.transactions"] == 3 and held["audit.inbox"] > 5
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        assert "encrypted_password" not in archive.read("auth.users.ndjson").decode()
    with pytest.raises(archives.ArchiveError, match="export of a person"):
        load(database, tmp_path / "p.zip")


def test_every_column_that_may_be_personal_has_a_plan(db: Connection) -> None:
    assert (
        run(db, "select t.relation::text, e.* from tenancy.tenant_tables t, tenancy.erasure_findings(t.relation) e")
        == []
    )
    run(db, "alter table customers add column nickname text")
    assert any(
        "does not say what erasing a person does to nickname" in row["finding"]
        for row in run(db, "select * from ops.doctor()")
    )
