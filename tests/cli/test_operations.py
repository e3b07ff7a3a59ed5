"""The commands over the queue, the schedules, the digests and the outbox, as an operator types them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ..conftest import Database
from ..identities import add_member, make_user, make_workspace, run
from ..notify.told import declare as declare_news
from ..notify.told import emit
from .test_commands import answer, rowhouse


@pytest.fixture(scope="module")
def busy(module_database: Database) -> dict[str, Any]:
    """A workspace with news, a message that bounced, and jobs in every state."""
    with module_database.connect() as connection:
        ada = make_user(connection, "ada@acme.example")
        workspace = make_workspace(connection, ada, slug="acme")
        add_member(connection, workspace, "viewer", make_user(connection, "bob@acme.example"))
        declare_news(connection)
        emit(connection, workspace)
        run(connection, "select jobs.declare_kind('crm.push', 'worker', max_attempts => 1)")
        run(connection, "select jobs.enqueue('crm.push', '{\"n\": 1}', %s) from generate_series(1, 3)", [workspace])
        job = run(connection, "select * from jobs.claim()")[0]
        run(
            connection,
            "select jobs.fail(%s, jsonb_build_array(jsonb_build_object('id', %s::bigint, 'error', 'boom')))",
            [job["lease"], job["id"]],
        )
        job = run(connection, "select * from jobs.claim()")[0]
        run(connection, "select jobs.complete(%s, array[%s::bigint])", [job["lease"], job["id"]])
    return {"database": module_database, "workspace": workspace}


def test_jobs_are_listed_shown_retried_and_discarded(busy: dict[str, Any]) -> None:
    database = busy["database"]
    dead = answer(database, "jobs", "dead")["rows"]
    assert [(row["kind"], row["workspace"], row["last_error"]) for row in dead] == [("crm.push", "acme", "boom")]
    job = str(dead[0]["id"])
    assert answer(database, "jobs", "show", job)["payload"] == {"n": 1}
    assert len(answer(database, "jobs", "list", "--kind", "crm.push")["rows"]) == 2
    page = answer(database, "jobs", "list", "--limit", "1")
    assert (
        answer(database, "jobs", "list", "--limit", "1", "--after", page["next_after"])["rows"][0]["id"]
        < page["rows"][0]["id"]
    )
    done = answer(database, "jobs", "list", "--finished")["rows"]
    assert [(row["state"], row["kind"]) for row in done] == [("completed", "crm.push")]
    assert done[0]["finished_at"]
    assert answer(database, "jobs", "retry", "--kind", "crm.push")["retried"] == 1
    assert answer(database, "jobs", "show", job)["state"] == "pending"
    assert answer(database, "jobs", "discard", job, "--yes")["discarded"] == 1
    assert answer(database, "jobs", "show", job)["state"] == "discarded"
    assert "crm.push" in rowhouse(database, "jobs", "list").stdout


def test_a_job_is_enqueued_and_the_queue_is_watched(busy: dict[str, Any]) -> None:
    database = busy["database"]
    job = answer(database, "jobs", "enqueue", "crm.push", '{"n": 7}', "--priority", "3", "--queue", "later")["job"]
    row = answer(database, "jobs", "show", str(job))
    assert (row["payload"], row["priority"], row["queue"]) == ({"n": 7}, 3, "later")
    stats = answer(database, "jobs", "stats")[0]["queues"]
    assert {"default", "later"} <= {queue["queue"] for queue in stats}
    assert "later" in rowhouse(database, "jobs", "watch", "--looks", "2", "--seconds", "0.2").stdout


def test_schedules_are_listed_run_paused_and_resumed(busy: dict[str, Any]) -> None:
    database = busy["database"]

    def outcome() -> str:
        rows = answer(database, "schedules", "list")
        return str(next(row["outcome"] for row in rows if row["name"] == "rowhouse-purge"))

    assert outcome() == "never ran"
    assert answer(database, "schedules", "run", "rowhouse-purge")["ran"]
    assert outcome() == "succeeded"
    answer(database, "schedules", "pause", "rowhouse-purge")
    assert outcome() == "paused"
    assert answer(database, "schedules", "run", "rowhouse-purge")["ran"] is False
    answer(database, "schedules", "resume", "rowhouse-purge")
    assert outcome() == "succeeded"
    assert answer(database, "doctor")["is_sound"]


def test_digests_are_previewed_built_and_listed(busy: dict[str, Any]) -> None:
    database = busy["database"]
    assert "it in Apollo" in rowhouse(database, "digests", "preview", "bob@acme.example").stdout
    assert answer(database, "digests", "list") == []
    with database.connect() as connection:
        run(connection, "update notifications set due_at = now() where due_at is not null")
    assert answer(database, "digests", "run")["built"] == 2
    assert [row["mail"] for row in answer(database, "digests", "list", "--email", "bob@acme.example")] == ["pending"]
    assert answer(database, "digests", "preview", "bob@acme.example") == []


def test_messages_are_listed_shown_and_addresses_suppressed(busy: dict[str, Any]) -> None:
    database = busy["database"]
    with database.connect() as connection:
        run(
            connection,
            "select notify.write_message('email', 'test', 'eve@example.com', row('Hi', '<p>Hi</p>', 'Hi')::notify.rendered)",
        )
        run(connection, "update notify.messages set state = 'failed' where recipient = 'eve@example.com'")
    (row,) = answer(database, "mail", "list", "--to", "EVE@")["rows"]
    assert answer(database, "mail", "show", row["id"])["subject"] == "Hi"
    assert "Hi" in rowhouse(database, "mail", "show", row["id"]).stdout
    answer(database, "mail", "resend", row["id"], "--yes")
    assert answer(database, "mail", "show", row["id"])["state"] == "pending"
    assert rowhouse(database, "mail", "resend", row["id"], "--yes").returncode == 1
    answer(database, "mail", "suppress", "Eve@example.com", "--reason", "asked")
    assert [(s["address"], s["detail"]) for s in answer(database, "mail", "suppressed")] == [
        ("eve@example.com", "asked")
    ]
    assert answer(database, "mail", "unsuppress", "eve@example.com")["was"] is True
    assert answer(database, "mail", "unsuppress", "eve@example.com")["was"] is False
    changed = answer(database, "mail", "settings", "--set", "sender_email=hi@acme.example", "--set", "colour=#112233")
    assert (changed["sender_email"], changed["colour"]) == ("hi@acme.example", "#112233")
    assert "key" not in json.dumps(changed)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["jobs", "list", "--state", "lost"], 2, "There is no state"),
        (["jobs", "list", "--after", "x"], 2, "is no cursor"),
        (["jobs", "show", "999999"], 1, "There is no job"),
        (["jobs", "retry"], 2, "Which jobs?"),
        (["jobs", "discard", "1", "--all", "--yes"], 2, "Which jobs?"),
        (["jobs", "discard", "--all"], 1, "Give --yes"),
        (["jobs", "enqueue", "crm.push", "{"], 2, "is not JSON"),
        (["jobs", "enqueue", "no.such"], 4, "there is no kind of job"),
        (["jobs", "enqueue", "crm.push", "{}", "--priority", "5000"], 4, "priority"),
        (["schedules", "run", "nothing"], 4, "There is no schedule"),
        (["digests", "preview", "nobody@example.com"], 4, "Nobody signs in"),
        (["mail", "show", "x"], 1, "There is no message"),
        (["mail", "settings", "--set", "colour"], 2, "NAME=VALUE"),
        (["mail", "settings", "--set", "inner_key=x"], 2, "There is no setting"),
        (["mail", "settings", "--set", "colour=red"], 4, "settings_colour_is_one"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(
    busy: dict[str, Any], arguments: list[str], code: int, words: str
) -> None:
    result = rowhouse(busy["database"], *arguments)
    assert result.returncode == code, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr
