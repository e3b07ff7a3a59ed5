"""The command line: what it does, prints and answers to bad input; fast to start, and paging holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..conftest import ROOT, Database
from ..identities import add_member, make_project, make_user, make_workspace, one, run

ROWHOUSE = [sys.executable, "-m", "rowhouse.cli"]
UNSET = "unset"


def rowhouse(
    database: Database | None, *arguments: str, cwd: Path = ROOT, **more: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"DATABASE_URL": database.url()} if database else {}), **more}
    if environment.get("DATABASE_URL") == UNSET:
        del environment["DATABASE_URL"]
    return subprocess.run(
        [*ROWHOUSE, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def answer(database: Database, *arguments: str) -> Any:
    result = rowhouse(database, *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def house(module_database: Database) -> Database:
    """Two workspaces and some people."""
    with module_database.connect() as connection:
        owner = make_user(connection, "ada@acme.example")
        acme = make_workspace(connection, owner, plan="free", slug="acme")
        add_member(connection, acme, "viewer", make_user(connection, "vic@acme.example"))
        make_project(connection, acme)
        make_workspace(connection, make_user(connection, "gus@globex.example"), slug="globex", plan="pro")
    return module_database


def test_workspaces_are_listed_searched_filtered_and_paged(house: Database) -> None:
    rows = answer(house, "workspaces", "list")["rows"]
    assert [row["slug"] for row in rows] == ["acme", "globex"]
    assert [row["slug"] for row in answer(house, "workspaces", "list", "--search", "GLOB")["rows"]] == ["globex"]
    assert [row["slug"] for row in answer(house, "workspaces", "list", "--plan", "pro")["rows"]] == ["globex"]
    assert answer(house, "workspaces", "list", "--search", "%")["rows"] == []
    first = answer(house, "workspaces", "list", "--limit", "1")
    assert first["next_after"] == "acme"
    second = answer(house, "workspaces", "list", "--limit", "1", "--after", "acme")
    assert ([row["slug"] for row in second["rows"]], second["next_after"]) == (["globex"], None)
    shown = answer(house, "workspaces", "show", "ACME")
    assert shown["owners"] == ["ada@acme.example"]
    assert shown["usage"] == ["members 2 of 3", "projects 1 of 3", "tickets 0 of 50"]


def test_a_workspace_lives_and_dies(house: Database) -> None:
    made = answer(
        house, "workspaces", "create", "initech", "--name", "Initech", "--owner", "gus@globex.example", "--plan", "pro"
    )
    assert made["slug"] == "initech"
    assert answer(house, "workspaces", "set-plan", "initech", "free")["over_limit"] == []
    answer(house, "workspaces", "suspend", "initech", "--reason", "test")
    assert [row["slug"] for row in answer(house, "workspaces", "list", "--state", "suspended")["rows"]] == ["initech"]
    answer(house, "workspaces", "resume", "initech")
    assert rowhouse(house, "workspaces", "delete", "initech").returncode == 1, "it asks, and nobody answers"
    assert answer(house, "workspaces", "delete", "initech", "--dry-run")["state"] == "active"
    assert answer(house, "workspaces", "delete", "initech", "--yes")["until"]
    assert [row["slug"] for row in answer(house, "workspaces", "list", "--state", "deleted")["rows"]] == ["initech"]
    answer(house, "workspaces", "restore", "initech")
    assert answer(house, "workspaces", "show", "initech")["state"] == "active"


def test_members_and_users(house: Database) -> None:
    members = answer(house, "members", "list", "acme")["rows"]
    assert {(row["email"], row["role"]) for row in members} == {
        ("ada@acme.example", "owner"),
        ("vic@acme.example", "viewer"),
    }
    answer(house, "members", "set-role", "acme", "vic@acme.example", "admin")
    assert [row["email"] for row in answer(house, "members", "list", "acme", "--role", "admin")["rows"]] == [
        "vic@acme.example"
    ]
    answer(house, "members", "remove", "acme", "VIC@acme.example", "--yes")
    answer(house, "members", "add", "acme", "vic@acme.example")
    answer(house, "users", "suspend", "vic@acme.example", "--reason", "test")
    assert [row["email"] for row in answer(house, "users", "list", "--suspended")["rows"]] == ["vic@acme.example"]
    shown = answer(house, "users", "show", "vic@acme.example")
    assert (shown["workspaces"], shown["suspension_reason"]) == (["acme (member)"], "test")
    answer(house, "users", "resume", "vic@acme.example")
    assert answer(house, "users", "list", "--suspended")["rows"] == []


def test_plans_and_doctor(house: Database) -> None:
    assert [row["plan"] for row in answer(house, "plans", "list")] == ["free", "pro", "enterprise"]
    assert answer(house, "plans", "show", "free")["limits"] == ["members 3", "projects 3", "tickets 50"]
    report = answer(house, "doctor")
    assert report["is_sound"], report
    tables = rowhouse(house, "workspaces", "list").stdout
    assert "│ acme" in tables


def test_the_doctor_and_verify_end_with_5_when_something_is_wrong(database: Database) -> None:
    assert rowhouse(database, "db", "verify").returncode == 0
    assert rowhouse(database, "policies", "check").returncode == 0
    with database.connect() as connection:
        run(connection, "grant select on public.projects to anon")
        run(
            connection,
            "update supabase_migrations.schema_migrations set statements = '{select 1}' where version like '%%0700'",
        )
    assert rowhouse(database, "doctor").returncode == 5
    assert rowhouse(database, "db", "verify").returncode == 5
    checked = rowhouse(database, "policies", "check")
    assert (checked.returncode, "grant SELECT on public.projects to anon" in checked.stderr) == (5, True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["workspaces", "show", "nobody-s"], 4, "There is no workspace"),
        (["workspaces", "create", "a b", "--name", "N", "--owner", "ada@acme.example"], 4, "cannot be a slug"),
        (["workspaces", "create", "acme", "--name", "N", "--owner", "ada@acme.example"], 4, "taken"),
        (["workspaces", "create", "new-one", "--name", "N", "--owner", "x@y.example"], 4, "Nobody signs in as"),
        (
            ["workspaces", "create", "new-one", "--name", "N", "--owner", "ada@acme.example", "--plan", "gold"],
            4,
            "free, pro",
        ),
        (["workspaces", "set-plan", "acme", "gold"], 4, "There is no plan"),
        (["workspaces", "list", "--limit", "0"], 2, "limit"),
        (["workspaces", "list", "--state", "asleep"], 2, "asleep"),
        (["members", "add", "acme", "gus@globex.example", "king"], 4, "no such role"),
        (["members", "remove", "acme", "ada@acme.example", "--yes"], 4, "must have an owner"),
        (["members", "list", "acme", "--after", "nonsense"], 4, "uuid"),
        (["users", "show", "\x1b[31mred"], 4, "Nobody signs in"),
        (["plans", "show", "gold"], 4, "There is no plan"),
        (["db", "migrate", "--target", "1"], 2, "There is no migration"),
        (["db", "rollback", "--target", "0"], 1, "Nobody is here to answer"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_bad_input_is_one_sentence_and_an_exit_code(
    house: Database, arguments: list[str], code: int, words: str
) -> None:
    before = rowhouse(house, "workspaces", "list", "--json").stdout
    result = rowhouse(house, *arguments)
    assert result.returncode == code, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert "\x1b[31mred" not in result.stderr
    assert rowhouse(house, "workspaces", "list", "--json").stdout == before


def test_errors_are_json_for_programs(house: Database) -> None:
    result = rowhouse(house, "workspaces", "create", "admin", "--name", "N", "--owner", "ada@acme.example", "--json")
    assert json.loads(result.stderr)["code"] == "slug_reserved"


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("postgresql://127.0.0.1:1/x", 3, "cannot be reached"),
        ("postgresql://nowhere.invalid/x", 3, "cannot be reached"),
        ("nonsense", 3, "cannot be reached"),
    ],
)
def test_an_unreachable_database_is_said(url: str, code: int, words: str) -> None:
    for command in (["workspaces", "list"], ["doctor"], ["db", "migrate"]):
        result = rowhouse(None, *command, DATABASE_URL=url)
        assert (result.returncode, words in result.stderr) == (code, True), result.stderr
        assert "Traceback" not in result.stderr


def test_a_secret_in_the_url_is_never_printed(house: Database) -> None:
    canary = "canary-secret-4711"
    broken = house.url().replace(house.password, canary)
    for command in (["workspaces", "list"], ["doctor"], ["db", "status", "--json"], ["policies", "check"]):
        result = rowhouse(None, *command, DATABASE_URL=broken)
        assert result.returncode == 3
        assert canary not in result.stdout + result.stderr
    ambiguous = rowhouse(None, "plans", "list", DATABASE_URL=f"postgresql://postgres:a@{canary}@127.0.0.1/x")
    assert (ambiguous.returncode, "%40" in ambiguous.stderr, canary in ambiguous.stderr) == (2, True, False)


def test_a_database_without_rowhouse_is_said(empty_database: Database) -> None:
    with empty_database.connect(autocommit=True) as connection:
        assert one(connection, "select 1") == 1
    for command in (["workspaces", "list"], ["doctor"]):
        result = rowhouse(empty_database, *command)
        assert result.returncode in (4, 5)
        assert "Traceback" not in result.stderr
        assert "migrat" in result.stderr + result.stdout
    states = answer(empty_database, "db", "status")
    assert {row["state"] for row in states} == {"pending"}


def test_outside_of_a_project_it_says_so(tmp_path: Path) -> None:
    result = rowhouse(None, "db", "status", cwd=tmp_path, DATABASE_URL="")
    assert (result.returncode, "not inside a Rowhouse project" in result.stderr) == (2, True)


def test_every_command_has_an_example_in_its_help() -> None:
    from rowhouse.cli.main import app
    from typer.main import get_command

    def walk(command: Any, path: list[str]) -> None:
        children = getattr(command, "commands", {})
        for name, child in children.items():
            walk(child, [*path, name])
        if not children:
            assert "Example" in (command.help or ""), " ".join(path)

    walk(get_command(app), ["rowhouse"])


def test_a_dotenv_file_names_the_database(house: Database, tmp_path: Path) -> None:
    (tmp_path / "supabase" / "migrations").mkdir(parents=True)
    (tmp_path / ".env").write_text(f'# local\nexport DATABASE_URL="{house.url()}"\n')
    result = rowhouse(None, "plans", "list", cwd=tmp_path, DATABASE_URL=UNSET)
    assert result.returncode == 0, result.stderr
    (tmp_path / ".env").write_text("nonsense\n")
    result = rowhouse(None, "plans", "list", cwd=tmp_path, DATABASE_URL=UNSET)
    assert (result.returncode, ".env, line 1" in result.stderr) == (2, True)


def test_paging_holds_at_a_hundred_thousand_rows(database: Database) -> None:
    with database.connect() as connection:
        owner = make_user(connection, "many@example.com")
        run(
            connection,
            "alter table workspaces disable trigger user; alter table workspace_members disable trigger user",
        )
        run(
            connection,
            "insert into workspaces (slug, name) select 'w-' || lpad(n::text, 6, '0'), 'W' from generate_series(1, 100000) n",
        )
        run(
            connection,
            "insert into workspace_members (workspace_id, user_id, role_id) select id, %s, authz.owner_role() from workspaces",
            [owner],
        )
        run(connection, "alter table workspaces enable trigger user; alter table workspace_members enable trigger user")
        run(connection, "analyze workspaces")
    last = answer(database, "workspaces", "list", "--after", "w-099990", "--limit", "5")
    assert [row["slug"] for row in last["rows"]] == [f"w-{n:06d}" for n in range(99991, 99996)]
    assert last["next_after"] == "w-099995"
    with database.connect() as connection:
        plan = run(
            connection,
            "explain select slug from workspaces w where lower(w.slug) > lower('w-099990') order by lower(w.slug) limit 6",
        )
    assert "Index Scan" in str(plan), plan


def test_an_argument_that_is_not_utf_8_is_refused(house: Database) -> None:
    result = rowhouse(house, "workspaces", "list", "--search", "\udcff")
    assert (result.returncode, "not UTF-8" in result.stderr) == (2, True), result.stderr


def test_whoever_reads_only_the_first_lines_causes_no_traceback(house: Database) -> None:
    command = f"{sys.executable} -m rowhouse.cli workspaces list --json | head -n 1"
    result = subprocess.run(
        command,
        shell=True,
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": house.url()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "{\n"
    assert "Traceback" not in result.stderr
