"""`rowhouse new table`: what it writes passes as it is, in a copy of the project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import ROOT

ROWHOUSE = [sys.executable, "-m", "rowhouse.cli"]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the project's own files that shares what is installed."""
    copied = tmp_path / "project"
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in tracked:
        if (ROOT / name).is_file():
            (copied / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copied / name)
    (copied / "node_modules").symlink_to(ROOT / "node_modules")
    tmp_path.chmod(0o755)
    return copied


def rowhouse(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ROWHOUSE, *arguments], cwd=copy, capture_output=True, text=True, check=False)


def test_a_new_table_passes_its_test_and_the_isolation_matrix(copy: Path) -> None:
    first = rowhouse(
        copy, "new", "table", "invoices2", "--columns", "number:text, due_on:date?, paid:bool, project_id:projects",
        "--limit", "free=10,pro=1000,enterprise=unlimited",
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    second = rowhouse(
        copy, "new", "table", "notes", "--columns", "body:text, invoice_id:invoices2?", "--permission", "tasks"
    )
    assert second.returncode == 0, second.stderr
    home = copy / ".rowhouse"
    home.mkdir()
    packages = Path(os.path.realpath(ROOT / ".rowhouse"))
    if (packages / "packages").is_dir():
        (home / "packages").symlink_to(packages / "packages")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "ROWHOUSE_TEST"))}
    tests = [
        "tests/invoices2",
        "tests/notes",
        "tests/isolation/test_matrix.py",
        "tests/isolation/test_flaws.py",
        "-k",
        "not flaws or without",
    ]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=copy, env={**environment, "PYTHONPATH": str(copy)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-3000:]
    assert "4 passed" not in result.stdout.splitlines()[-1]
    up_to_date = rowhouse(copy, "policies", "build")
    assert "shipped already" in up_to_date.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Bad Name", "--columns", "a:text"], "cannot be a table's name"),
        (["order", "--columns", "ab:text"], "cannot be a table's name"),
        (["docs", "--columns", "ab:text"], "is there already"),
        (["things", "--columns", "limit:int"], "is a word of SQL"),
        (["projects", "--columns", "a:text"], "already"),
        (["things", "--columns", "a"], "is not a column"),
        (["things", "--columns", "ab:nonsense"], "neither a type nor a tenant table"),
        (["things", "--columns", "role_id:roles"], "neither a type nor a tenant table"),
        (["things", "--columns", "id:uuid"], "is there already"),
        (["things", "--columns", "ab:text, ab:text"], "is there already"),
        (["things", "--columns", "ab:text; drop table x"], "is not a column"),
        (["things", "--columns", "ab:text", "--limit", "free"], "are no limits"),
        (["things", "--columns", "ab:text", "--permission", "a.b"], "cannot begin a permission"),
    ],
)
def test_what_makes_no_sense_is_refused_and_writes_nothing(copy: Path, arguments: list[str], words: str) -> None:
    before = sorted(path for path in copy.rglob("*") if "node_modules" not in str(path))
    result = rowhouse(copy, "new", "table", *arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(path for path in copy.rglob("*") if "node_modules" not in str(path)) == before
