"""Erasure: nobody is found afterwards, and the chain and the books hold."""

from __future__ import annotations

import os
import re
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rowhouse import administration, archives, records
from rowhouse.local.cluster import SUPERUSER
from rowhouse.local.packages import ensure_packages

from ..conftest import Database
from ..identities import add_member, as_user, make_project, make_task, make_user, make_workspace, one, run
from .furnished import quiet

Connection = psycopg.Connection[Any]


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
    with pytest.raises(archives.ArchiveError, match="export of a person"), database.connect() as connection:
        archives.load(connection, tmp_path / "p.zip", quiet, quiet)


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
