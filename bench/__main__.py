"""`make bench`: measures side by side in one run, and writes docs/performance.md."""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from tests.server import Server

from .http import CONNECTIONS, end_to_end
from .reading import growing, reading
from .timing import milliseconds, side_by_side
from .writing import writing

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


def table(headings: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|---" + "|--:" * (len(headings) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def machine() -> str:
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    gigabytes = int(memory[1]) // 1_048_576 if memory else 0
    return f"{os.cpu_count()} cores ({model[1] if model else platform.machine()}), {gigabytes} GB, data in memory"


def start_up() -> list[list[str]]:
    """How long the command line takes to say its help, against Python doing nothing."""
    script = Path(sys.executable).with_name("rowhouse")
    results = side_by_side(
        {
            "rowhouse --help": lambda: subprocess.run([script, "--help"], capture_output=True, check=True),
            "python -c pass": lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
        },
        15,
    )
    return [
        [name, milliseconds(result.median), milliseconds(result.percentile(95))] for name, result in results.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="projects over 1,000 workspaces (1,000,000)")
    parser.add_argument("--print", action="store_true", help="print the page instead of writing it")
    arguments = parser.parse_args()
    server = Server()
    sections = []
    try:
        server.start()
        server.make_template()
        say("reading under RLS")
        headings = [
            "query",
            "one-line policy",
            "by hand",
            "cost",
            "projects",
            "by hand",
            "cost",
            "tutorials' policy",
            "slower by",
        ]
        sections.append(
            ("Reading", READING.format(rows=arguments.rows), table(headings, reading(server, arguments.rows)))
        )
        say("many workspaces")
        sections.append(
            (
                "Many workspaces",
                GROWING,
                table(["query", "100 workspaces", "10,000 workspaces", "growth"], growing(server)),
            )
        )
        say("writing under a plan limit")
        headings = ["inserts", "without counter", "counted", "of the rate", "plan without limit", "of the rate"]
        sections.append(("Writing under a plan limit", WRITING, table(headings, writing(server))))
    finally:
        server.stop()
    say("end to end")
    headings = ["what answers", "requests", "of the rate", "p50", "p95", "p95 against it"]
    sections.append(("End to end", END_TO_END, table(headings, end_to_end())))
    say("the command line")
    sections.append(("The command line", COMMAND, table(["command", "median", "p95"], start_up())))
    text = HEAD.format(machine=machine()) + "".join(
        f"\n## {title}\n\n{about}\n\n{rows}" for title, about, rows in sections
    )
    if arguments.print:
        print(text)
    else:
        PAGE.write_text(text)
        print(f"wrote {PAGE.relative_to(PAGE.parent.parent)}")
    return 0


def say(what: str) -> None:
    print(f"… {what}", file=sys.stderr, flush=True)


HEAD = """# Performance

Written by `make bench` on a machine of {machine}, Postgres 15.
Contenders take turns within one run, and the medians are compared: the ratios mean something elsewhere, the
milliseconds do not.
"""
READING = """\
{rows:,} rows over 1,000 workspaces. "By hand" is the same query without RLS, as the database's owner, with the
workspaces named in it; for projects with the rule on private ones too. "One-line policy" is a table as
`rowhouse new table` writes it; `projects` has a rule on the row besides. The tutorials' policy is
`exists (select 1 from members where workspace_id = … and user_id = auth.uid())` per row; "slower by" compares it with
the one-line policy. Asked for: at most 1.5 × the query by hand. The door costs the same for every statement, so it
weighs most where a query takes a tenth of a millisecond."""
GROWING = """\
The same page with 100 and with 10,000 workspaces of 100 projects each, for a user in 10 of them. Asked for: at most
1.2 ×."""
WRITING = """\
One connection, each statement its own transaction, under RLS. "Counted" is a workspace with a limit; a plan without a
limit takes a shared lock and counts nothing. Asked for: at least 0.8 of the rate without the counter."""
END_TO_END = f"""\
A page of 50 projects over HTTP with {CONNECTIONS} connections; client, gateway, PostgREST and Postgres share the
cores."""
COMMAND = """Asked for: under 300 ms."""

if __name__ == "__main__":
    sys.exit(main())
