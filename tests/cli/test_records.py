"""The commands over the audit log, the trash, the books, exports and erasures, as an operator types them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from ..conftest import Database
from ..identities import add_member, as_user, make_project, make_task, make_user, make_workspace, one, run
from .test_commands import answer, rowhouse


@pytest.fixture(scope="module")
def shop(module_database: Database) -> dict[str, Any]:
    with module_database.connect() as connection:
        owner = make_user(connection, "ada@acme.example")
        workspace = make_workspace(connection, owner, slug="acme")
        add_member(connection, workspace, "member", make_user(connection, "bob@acme.example"))
        project = make_project(connection, workspace, name="Apollo")
        task = make_task(connection, workspace, project)
        with as_user(connection, owner):
            run(connection, "update projects set name = '=cmd()' where id = %s", [project])
            run(connection, "delete from tasks where id = %s", [task])
        for code, kind in (("cash:EUR", "asset"), ("sales:EUR", "income")):
            run(connection, "select ledger.open_account(%s, %s, %s, 'EUR')", [workspace, code, kind])
    return {"database": module_database, "workspace": workspace, "project": project, "task": task}


def test_the_audit_log_is_searched_exported_sealed_and_verified(shop: dict[str, Any], tmp_path: Path) -> None:
    database = shop["database"]
    rows = answer(
        database, "audit", "search", "--workspace", "acme", "--action", "projects.*", "--actor", "ada@acme.example"
    )
    assert [row["action"] for row in rows] == ["projects.update"]
    assert rows[0]["after"] == {"name": "=cmd()"}
    assert answer(database, "audit", "search", "--row", str(shop["task"]), "--until", "2020-01-01") == []
    bad = rowhouse(database, "audit", "search", "--since", "yesterday-ish")
    assert (bad.returncode, "Write times like" in bad.stderr) == (2, True)
    table = rowhouse(database, "audit", "search", "--workspace", "acme", "--limit", "3").stdout
    assert "projects" in table or "tasks" in table
    lines = rowhouse(database, "audit", "export", "--workspace", "acme").stdout.splitlines()
    assert all(json.loads(line)["workspace_id"] == str(shop["workspace"]) for line in lines)
    sheet = list(
        csv.DictReader(
            io.StringIO(rowhouse(database, "audit", "export", "--format", "csv", "--workspace", "acme").stdout)
        )
    )
    assert len(sheet) == len(lines)
    target = tmp_path / "audit.ndjson"
    assert rowhouse(database, "audit", "export", "--workspace", "acme", "--output", str(target)).returncode == 0
    assert target.read_text().splitlines() == lines
    sealed = 0
    while sealed < len(lines):
        sealed += answer(database, "audit", "seal")["sealed"]
    assert answer(database, "audit", "verify")["is_sound"]
    anchors = tmp_path / "anchors.ndjson"
    assert rowhouse(database, "audit", "anchors", "--output", str(anchors)).returncode == 0
    assert answer(database, "audit", "verify", "--anchors", str(anchors))["is_sound"]
    first = json.loads(anchors.read_text().splitlines()[0])
    anchors.write_text(json.dumps({**first, "hash": "00"}) + "\n")
    broken = rowhouse(database, "audit", "verify", "--anchors", str(anchors), "--json")
    assert (broken.returncode, json.loads(broken.stdout)["findings"][0]["finding"]) == (
        5,
        "the seal is another: the chain was rewritten",
    )
    for text in ("no json", '{"seal": "x"}', "[]"):
        anchors.write_text(text)
        assert rowhouse(database, "audit", "verify", "--anchors", str(anchors)).returncode == 2


def test_what_an_operator_does_names_them(shop: dict[str, Any]) -> None:
    answer(shop["database"], "members", "set-role", "acme", "bob@acme.example", "admin")
    (record,) = answer(shop["database"], "audit", "search", "--action", "members.update")
    assert record["actor_kind"] == "cli"
    assert record["actor_name"]


def test_the_trash_is_listed_restored_and_purged(shop: dict[str, Any]) -> None:
    database = shop["database"]
    (entry,) = answer(database, "trash", "list", "acme")
    assert (entry["table"], entry["id"], entry["deleted_by"]) == ("public.tasks", str(shop["task"]), "ada@acme.example")
    assert answer(database, "trash", "restore", "acme", "tasks", str(shop["task"]))["rows"] == 1
    assert answer(database, "trash", "list", "acme") == []
    for arguments, code in ((["tasks", str(shop["task"])], 4), (["ghosts", str(shop["task"])], 4), (["tasks", "x"], 4)):
        assert rowhouse(database, "trash", "restore", "acme", *arguments).returncode == code
    assert answer(database, "trash", "purge")["rows"] == 0


def test_the_books_are_posted_read_reversed_closed_and_checked(shop: dict[str, Any]) -> None:
    database = shop["database"]
    post = [
        "ledger",
        "post",
        "acme",
        "k1",
        "--debit",
        "cash:EUR=1200",
        "--credit",
        "sales:EUR=1200",
        "--on",
        "2026-02-01",
    ]
    assert rowhouse(database, *post).returncode == 1, "it asks, and nobody answers"
    made = answer(database, *post, "--yes")["transaction_id"]
    assert answer(database, *post, "--yes")["transaction_id"] == made
    assert {row["code"]: row["balance"] for row in answer(database, "ledger", "balances", "acme")} == {
        "cash:EUR": 1200,
        "sales:EUR": -1200,
    }
    assert "12.00 EUR" in rowhouse(database, "ledger", "balances", "acme").stdout
    assert "12.00 EUR" in rowhouse(database, "ledger", "trial-balance", "acme").stdout
    (line,) = answer(database, "ledger", "statement", "acme", "cash:EUR")["rows"]
    assert (line["debit"], line["balance"]) == (1200, 1200)
    assert answer(database, "ledger", "open", "acme", "bank:JPY", "--kind", "asset", "--currency", "JPY")["account_id"]
    for arguments, code in (
        (["post", "acme", "k2", "--debit", "cash:EUR=5", "--credit", "sales:EUR=6", "--yes"], 4),
        (["post", "acme", "k2", "--debit", "cash:EUR=NaN", "--credit", "sales:EUR=6", "--yes"], 2),
        (["post", "acme", "k2", "--debit", "cash:EUR=-5", "--credit", "sales:EUR=5", "--yes"], 2),
        (["statement", "acme", "nothing"], 4),
        (["statement", "acme", "cash:EUR", "--after", "x"], 2),
        (["open", "acme", "x", "--kind", "asset", "--currency", "QQQ"], 4),
        (["reverse", "acme", "not-an-id", "--reason", "x", "--yes"], 4),
        (["close", "acme", "2999-01-01", "--yes"], 4),
    ):
        assert rowhouse(database, "ledger", *arguments).returncode == code, arguments
    assert answer(database, "ledger", "reverse", "acme", made, "--reason", "typo", "--yes")["transaction_id"]
    answer(database, "ledger", "close", "acme", "2026-01-31", "--yes")
    assert answer(database, "ledger", "check")["is_sound"]
    with database.connect("supabase_admin") as connection:
        run(connection, "set session_replication_role = replica")
        run(
            connection,
            "update ledger.balances set balance = balance + 1 where account_id = (select id from ledger.accounts where code = 'cash:EUR')",
        )
    checked = rowhouse(database, "ledger", "check", "acme", "--json")
    assert (checked.returncode, json.loads(checked.stdout)["is_sound"]) == (5, False)
    with database.connect("supabase_admin") as connection:
        run(connection, "set session_replication_role = replica")
        run(
            connection,
            "update ledger.balances set balance = 0 where account_id = (select id from ledger.accounts where code = 'cash:EUR')",
        )


def test_workspaces_and_people_are_exported_and_erased(shop: dict[str, Any], tmp_path: Path) -> None:
    database = shop["database"]
    target = tmp_path / "acme.zip"
    assert answer(database, "workspaces", "export", "acme", "--output", str(target))["rows"] > 10
    assert rowhouse(database, "workspaces", "export", "acme", "--output", str(target)).returncode == 2, "it is there"
    assert (
        rowhouse(database, "workspaces", "export", "acme", "--output", str(tmp_path / "no" / "x.zip")).returncode == 2
    )
    assert rowhouse(database, "workspaces", "import", str(target)).returncode == 4, "it is here"
    assert rowhouse(database, "workspaces", "import", str(tmp_path / "nothing.zip")).returncode == 1
    assert answer(database, "users", "export", "bob@acme.example", "--output", str(tmp_path / "bob.zip"))["rows"] > 1
    plan = answer(database, "users", "erase", "bob@acme.example", "--dry-run")
    assert {"table", "column", "action", "rows"} == set(plan[0])
    assert answer(database, "users", "show", "bob@acme.example")
    assert rowhouse(database, "users", "erase", "bob@acme.example").returncode == 1, "it asks, and nobody answers"
    assert answer(database, "users", "erase", "bob@acme.example", "--yes")["plan"]
    assert rowhouse(database, "users", "show", "bob@acme.example").returncode == 4
    assert rowhouse(database, "users", "erase", "ada@acme.example", "--yes").returncode == 4, "the last owner"
    assert answer(database, "workspaces", "erase", "acme", "--yes")["plan"]
    assert rowhouse(database, "workspaces", "show", "acme").returncode == 4
    with database.connect() as connection:
        assert one(connection, "select count(*) from ledger.accounts where workspace_id = %s", [shop["workspace"]]) > 1
