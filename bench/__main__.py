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

from .auditing import auditing
from .billing import backfilling, deciding, using, webhooks
from .digesting import digesting
from .http import CONNECTIONS, end_to_end
from .moving import moving
from .posting import posting, statements
from .queueing import queueing
from .reading import growing, reading
from .searching import searching
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
    parser.add_argument("--entries", type=int, default=5_000_000, help="entries of the largest account (5,000,000)")
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
        say("audit")
        updates, writers = auditing(server)
        sections.append(("Audit", AUDIT, table(["updates", "without", "recorded", "of the rate"], updates)))
        sections.append(
            (
                "Many writers",
                WRITERS,
                table(["writers in one workspace", "without", "recorded", "of the rate"], writers),
            )
        )
        say("the ledger")
        sections.append(
            (
                "Posting",
                POSTING,
                table(["8 connections over", "bare SQL", "ledger.post", "of the rate"], posting(server)),
            )
        )
        headings = ["reading", "1,000 entries", "100,000 entries", f"{arguments.entries:,} entries", "growth"]
        sections.append(("Balances and statements", STATEMENTS, table(headings, statements(server, arguments.entries))))
        say("search")
        headings = ["search for", "10,000 rows, p50", "p95", f"{arguments.rows:,} rows, p50", "p95", "growth of p95"]
        sections.append(("Search", SEARCH, table(headings, searching(server, arguments.rows))))
        say("export and import")
        headings = ["a workspace of", "export", "memory", "import", "memory"]
        sections.append(("Export and import", MOVING, table(headings, moving(server, arguments.rows // 5))))
        say("billing")
        headings = ["in SQL alone", "", ""]
        sections.append(("Billing", BILLING, table(headings, deciding(server))))
        headings = ["usage", "inserted alone", "recorded and rolled up", "of the rate"]
        sections.append(("Usage", USAGE, table(headings, using(server, arguments.rows))))
        headings = ["a backfill of", "read", "memory"]
        sections.append(("Backfill", BACKFILL, table(headings, backfilling(server, arguments.rows // 10))))
        say("digests")
        headings = ["digests of", "database time", "a second", "time a person"]
        sections.append(("Digests", DIGESTS, table(headings, digesting(server, arguments.rows // 10))))
    finally:
        server.stop()
    say("queues")
    queues, claims = queueing()
    headings = ["queue", "enqueue one", "enqueue 1,000", "drain", "latency, p50 / p95", "bytes a job"]
    sections.append(("Queues", QUEUES, table(headings, queues)))
    headings = ["a claim of one job", "p50", "p99", "behind 50,000 dead rows, p50", "p99"]
    sections.append(("Claims among dead rows", DEAD_ROWS, table(headings, claims)))
    say("webhooks")
    headings = ["webhooks", "stripe-sync-engine", "answered", "applied", "applied against it"]
    sections.append(("Webhooks", WEBHOOKS, table(headings, webhooks())))
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


BILLING = """Events of 500 subscriptions, `customer.subscription.updated`, on one connection; jobs of
`billing.learn` keep each object as of its newest event and decide for its workspace. `billing.access` is one row of
a workspace with a subscription."""
USAGE = """`billing.record_usage_many` and `billing.record_usage` keep each event once per key, and count it by the
hour and by the period, in one transaction; beside an insert of the same rows into a table of the same shape, with
the same key."""
BACKFILL = """`rowhouse stripe sync` from nothing, in pages of a hundred, from a stand-in for Stripe in Python,
whose own time is in it."""
WEBHOOKS = """`customer.subscription.updated` of 500 subscriptions, posted to the edge function `stripe-webhook`
under Deno: signature checked, stored through PostgREST, answered; and applied by `rowhouse work`, access decided
and transitions recorded. Beside it npm `@supabase/stripe-sync-engine` in a plain Node server: signature checked,
one row upserted. One Postgres, with fsync; medians of three rounds. Stripe waits for the answer; the applied rate
is until the last event is applied."""

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
AUDIT = """\
One connection, under RLS, each statement its own transaction; `tickets.estimate`, which nothing but the audit log
watches. "Without" is the same table without the trigger that records updates. Asked for: at least 0.6 of the rate for
single rows, 0.5 for batches."""
WRITERS = """\
The same from several connections, all in one workspace, driven by pgbench on the same cores. Writers of records wait
for nobody; what they cost is processor time, of which there is the less to spare the more of them there are. Asked
for: that they scale as without."""
POSTING = """\
Two entries to a transaction, between random accounts. "Bare SQL" writes the same rows into tables with the same keys
and indexes, in one transaction of statements as a client sends them: no checks, no idempotency, no immutability, no
audit record. Asked for: at least 0.6 of it; no deadlock, which would have ended the run."""
STATEMENTS = """\
One account of each size, as a user under RLS; the page is from its middle. Asked for: flat within 1.5 ×."""
SEARCH = """\
Tasks of six words out of 20,000, as often as words are in a language, in one workspace, as a user under RLS. Twenty
different queries of each kind, of words that are in so many rows that there are 20 results at either size; the two
words are in every tenth to fortieth row each. Asked for: p95 flat within 2 ×."""
MOVING = """\
Tasks, with the command line as an operator uses it. An import writes indexes and the search index; the memory is the
process's peak. Asked for: flat memory."""
DIGESTS = """\
Ten notifications for each person, in three groups, over a hundred workspaces; rendered, written to the outbox, and
marked. Asked for: 100,000 people under 60 s, growing linearly."""
QUEUES = """\
No-op jobs on one server with fsync, each queue in a fresh database, at its best documented settings, in three rounds
in which they take turns; medians. In parentheses the share of the floor: a bare table and `skip locked` in batches of
1,000 by psycopg, without leases, retries, history, kinds or fairness. One worker process each; drained are 50,000
jobs (procrastinate: 5,000). Latency is from before `enqueue` to the start of the handler, with an idle worker. Bytes
are those on disk after all of it, with indexes; graphile-worker and procrastinate keep no history. pg-boss installs
only with a dependency overridden (bench/contenders/package.json). Asked for: drain and batches faster than the other
four and at least 0.5 of the floor, one by one at least 0.8 of a bare insert, latency p95 no worse than the best of
the four."""
DEAD_ROWS = """\
300 times a job is enqueued and claimed by itself: in an empty table, and in one where 50,000 jobs were drained while
another transaction's snapshot kept their dead rows from being cleared. Asked for: p99 at most 10 ms."""
END_TO_END = f"""\
A page of 50 projects over HTTP with {CONNECTIONS} connections; client, gateway, PostgREST and Postgres share the
cores."""
COMMAND = """Asked for: under 300 ms."""

if __name__ == "__main__":
    sys.exit(main())
