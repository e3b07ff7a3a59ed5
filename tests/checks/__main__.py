"""`make check`: the static half. Every check runs; a table says how each ended; the exit code is 1 if any failed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table
from rowhouse import policies

from ..reference import differences
from ..server import TEMPLATE, Server
from . import plpgsql

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SUPABASE = ROOT / "node_modules/@supabase/cli-linux-x64/bin/supabase"
EXPECTED_ADVICE = (
    # On a fresh database no index has been used yet.
    ("unused_index", ""),
    # Two transactions that bring the same new word would wait for each other at its key.
    ("no_primary_key", "`tenancy.search_spellings`"),
    # Written once, never changed, and found by BRIN: a key would cost every job more than the rest of its record.
    ("no_primary_key", "`jobs.history_"),
    # A procedure that sets its search_path cannot commit as it goes; every name in them says its schema.
    ("function_search_path_mutable", "`jobs.run`"),
    ("function_search_path_mutable", "`notify.run_digests`"),
)


def command(*words: str | Path) -> str:
    """Runs a program; returns what it printed if it failed, nothing if it passed."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "NO_COLOR": "1", "SQLFLUFF_LOG": "0"}
    result = subprocess.run(
        [str(word) for word in words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    return "" if result.returncode == 0 else (result.stdout + result.stderr).strip() or f"exit code {result.returncode}"


def supabase_lint(url: str) -> str:
    return command(SUPABASE, "db", "lint", f"--remote={url}", "--level", "warning", "--fail-on", "warning", "--schema",
                   "public,authz,tenancy,billing,ops,audit,ledger,jobs,notify")  # fmt: skip


def supabase_advisors(url: str) -> str:
    import json

    result = subprocess.run(
        [SUPABASE, "db", "advisors", f"--remote={url}", "--level", "info", "--output", "json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        found = json.loads(result.stdout)
    except ValueError:
        return f"its answer is not JSON: {result.stdout[-500:]} {result.stderr[-500:]}"
    rows = found if isinstance(found, list) else found.get("results", found.get("advisors", []))
    return "\n".join(
        f"{row['name']}: {row.get('detail', '')}"
        for row in rows
        if not any(row["name"] == name and about in row.get("detail", "") for name, about in EXPECTED_ADVICE)
    )


def policies_check(url: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        return "\n".join(
            [*(f"policies/{name} is not shipped" for name in policies.unshipped()), *policies.check(connection)]
        )


def workflows() -> str:
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    return command(BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)


def leftovers() -> str:
    """Debris that no linter looks for."""
    tracked = subprocess.run(["git", "grep", "-nE", "TODO|FIXME|XXX", "--", ":!tests/checks", ":!package-lock.json"],
                             cwd=ROOT, capture_output=True, text=True, check=False)  # fmt: skip
    return tracked.stdout


def main() -> int:
    server = Server()
    try:
        server.start()
        server.make_template()
        plpgsql.install(server.cluster.url(TEMPLATE))
        url = server.cluster.url(TEMPLATE, "postgres")
        plain_url = f"{url}?sslmode=disable"
        migrations = sorted((ROOT / "supabase" / "migrations").glob("*.sql"))
        deno_files = [*sorted((ROOT / "supabase" / "functions").rglob("*.ts")), ROOT / "py/local/functions.ts"]
        deno_config: list[str | Path] = ["--config", ROOT / "supabase/functions/deno.json", "--frozen"]
        os.environ["DENO_DIR"] = str(ROOT / ".rowhouse/deno")
        checks: dict[str, Callable[[], str]] = {
            "ruff": lambda: command(BIN / "ruff", "check", "."),
            "ruff format": lambda: command(BIN / "ruff", "format", "--check", "."),
            "mypy, strict": lambda: command(BIN / "mypy"),
            "sqlfluff": lambda: command(BIN / "sqlfluff", "lint", "--disable-progress-bar", "--processes", "2",
                                        "supabase", "policies", "seed.sql", "py/local/platform.sql"),
            "squawk": lambda: command(BIN / "squawk", "--config", ROOT / ".squawk.toml", *migrations),
            "supabase db lint": lambda: supabase_lint(plain_url),
            "supabase db advisors": lambda: supabase_advisors(plain_url),
            "plpgsql_check": lambda: plpgsql.findings(server.cluster.url(TEMPLATE)),
            "pgrls": lambda: command(BIN / "pgrls", "lint", "--database-url", url, "--config", ROOT / "pgrls.toml"),
            "deno check": lambda: command(BIN / "deno", "check", *deno_config, *deno_files),
            "deno lint": lambda: command(BIN / "deno", "lint", *deno_files),
            "policies check": lambda: policies_check(url),
            "reference up to date": lambda: differences(url),
            "GitHub workflows": workflows,
            "nothing left to do": leftovers,
        }  # fmt: skip
        return run(checks)
    finally:
        server.stop()


def run(checks: dict[str, Callable[[], str]]) -> int:
    table = Table("check", "result", "seconds", title="make check", title_justify="left")
    failures: dict[str, str] = {}
    for name, check in checks.items():
        begun = time.monotonic()
        said = check()
        if said:
            failures[name] = said
        table.add_row(name, "[red]failed[/red]" if said else "[green]passed[/green]", f"{time.monotonic() - begun:.1f}")
    for name, said in failures.items():
        print(f"\n--- {name}\n{said[:6000]}")
    Console().print(table)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
