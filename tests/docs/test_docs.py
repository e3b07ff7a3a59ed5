"""The docs are true: error codes, the README's example, links, and what the docs say of commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest

from ..conftest import ROOT
from ..platform.conftest import Platform, new_environment, new_home

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_code_is_in_the_table_with_its_status_and_no_other() -> None:
    raised = set()
    for path in (ROOT / "supabase" / "migrations").glob("*.sql"):
        raised |= set(re.findall(r"raise_http\(\s*(\d{3}),\s*'([a-z_]+)'", path.read_text()))
    page = (ROOT / "docs" / "errors.md").read_text().split("## Postgres' own")[0]
    written = {(status, code) for code, status in re.findall(r"^\| `([a-z_]+)` \| (\d{3}) \|", page, re.MULTILINE)}
    assert written == raised


def test_the_gateways_codes_are_in_the_table() -> None:
    page = (ROOT / "docs" / "errors.md").read_text().split("## The gateway's")[1]
    answered = set(re.findall(r'"code":"([a-z_]+)"', (ROOT / "py/local/nginx.conf").read_text()))
    answered |= set(re.findall(r'refuse\(\d{3}, "([a-z_]+)"', (ROOT / "py/local/functions.ts").read_text()))
    assert answered - {"not_authenticated"} == set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Any) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_command_in_the_docs_exists() -> None:
    from rowhouse.cli.main import app
    from typer.main import get_command

    root: Any = get_command(app)
    for page in PAGES:
        for line in re.findall(r"^\s*(?:\S*bin/)?rowhouse ((?:[a-z-]+ ?)+)", page.read_text(), re.MULTILINE):
            command = root
            for word in line.split():
                children = getattr(command, "commands", None)
                if children is None:
                    break
                assert word in children, f"{page.name}: rowhouse {line}"
                command = children[word]


def test_no_page_names_a_table_or_function_that_is_not_there(db: Any) -> None:
    for page in [page for page in PAGES if page.parent.name != "reference"]:
        for name in set(
            re.findall(
                r"`((?:public|authz|tenancy|billing|ops|audit|ledger|jobs|notify)\.[a-z_]+)(?:\(|`)", page.read_text()
            )
        ):
            found = db.execute("select to_regclass(%s) is not null or exists (select from pg_proc p where "
                               "p.pronamespace::regnamespace || '.' || p.proname = %s) or exists (select from permissions "
                               "where permission = %s)", [name, name, name]).fetchone()  # fmt: skip
            assert found == (True,), f"{page.name} names {name}"


@pytest.mark.xdist_group("platform")
def test_the_readmes_example_prints_what_the_readme_says(tmp_path: Any) -> None:
    readme = (ROOT / "README.md").read_text()
    program = re.search(r"```python\n(.+?)```", readme, re.DOTALL)
    output = re.search(r"```\n(Harbor Lane.+?)```", readme, re.DOTALL)
    assert program
    assert output
    (tmp_path / "example.py").write_text(program[1])
    home = new_home()
    platform = Platform(home, new_environment(home))
    try:
        started = platform.rowhouse("local", "up")
        assert started.returncode == 0, started.stderr
        result = subprocess.run(
            [sys.executable, tmp_path / "example.py"],
            env={**os.environ, **platform.instance.load().environment()}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.stdout == output[1], result.stderr
    finally:
        platform.end()
