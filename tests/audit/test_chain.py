"""The sealed chain: it waits for nobody, loses nothing, and shows whatever its owner does to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from rowhouse import records
from rowhouse.local.cluster import SUPERUSER

from ..conftest import Database
from ..identities import make_project, make_user, make_workspace, one, run

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


def seal(connection: Connection, expected: int | None = None) -> int:
    """Seals until nothing waits, or so many records are sealed: transactions of other databases hold it up, too."""
    sealed: int = 0
    for _ in range(400):
        sealed += one(connection, "select audit.seal()")
        waiting = one(connection, "select count(*) from audit.inbox")
        if sealed == expected if expected is not None else not waiting:
            return sealed
        time.sleep(0.05)
    return sealed


def verify(connection: Connection, anchors: list[dict[str, Any]] | None = None) -> list[str]:
    return [row["finding"] for row in records.verify_chain(connection, anchors or [], lambda *_: None)]


@pytest.fixture
def chain(database: Database) -> Iterator[Connection]:
    """A chain of three seals, as the superuser who may switch triggers off."""
    with database.connect(autocommit=True) as connection:
        workspace = make_workspace(connection, make_user(connection))
        for n in range(3):
            for m in range(4):
                make_project(connection, workspace, name=f"P{n}{m}")
            seal(connection)
    with database.connect(SUPERUSER, autocommit=True) as connection:
        assert verify(connection) == []
        yield connection


TAMPERING = {
    "an edit": ("update audit.entries set after = '{\"name\": \"innocent\"}' where number = %(n)s", "edited"),
    "an edit of who it was": ("update audit.entries set actor_name = 'somebody else' where number = %(n)s", "edited"),
    "an edit of when it was": (
        "update audit.entries set occurred_at = occurred_at - interval '1 day' where number = %(n)s", "edited",
    ),
    "a deletion": ("delete from audit.entries where number = %(n)s", "missing"),
    "a reordering": (
        "update audit.entries e set position = case e.position when %(p)s then -1 else %(p)s end "
        "where e.position in (%(p)s, %(p)s + 1) and e.kept_until = %(k)s; "
        "update audit.entries set position = %(p)s + 1 where position = -1",
        "edited or moved",
    ),
    "an insertion": (
        "insert into audit.entries select kept_until, position + 1000, seal_number + 1000, number, gen_random_uuid(), "
        "transaction_id, occurred_at, workspace_id, action, resource, row_id, changed, before, after, actor_kind, actor_id, "
        "actor_name, on_behalf_of, ip, user_agent, request_id, digest, salt, details_hash, entry_hash, erased_by "
        "from audit.entries where number = %(n)s",
        "inserted",
    ),
    "an insertion under a seal that is there": (
        "insert into audit.entries select kept_until, position + 1000, seal_number, number, gen_random_uuid(), "
        "transaction_id, occurred_at, workspace_id, action, resource, row_id, changed, before, after, actor_kind, actor_id, "
        "actor_name, on_behalf_of, ip, user_agent, request_id, digest, salt, details_hash, entry_hash, erased_by "
        "from audit.entries where number = %(n)s",
        "inserted",
    ),
    "a cut tail of records": (
        "delete from audit.entries where seal_number = (select max(seal_number) from audit.entries)", "missing",
    ),
    "a cut tail of seals": (
        "delete from audit.entries where seal_number = (select max(number) from audit.seals); "
        "delete from audit.seals where number = (select max(number) from audit.seals)",
        "tail was cut",
    ),
    "a seal taken out of the middle": ("delete from audit.seals where number = 2", "seal is missing"),
    "an edited seal": ("update audit.seals set last_position = last_position - 1 where number = 2", "seal was edited"),
    "a head that was deleted": ("delete from audit.chain_head", "has no head"),
    "a record with its hash made to fit": (
        "update audit.entries e set actor_name = 'x' where number = %(n)s; "
        "update audit.entries e set entry_hash = audit.entry_hash(e) where number = %(n)s",
        "not those that were sealed",
    ),
    "details said to be erased": (
        "update audit.entries set before = null, after = null, ip = null, user_agent = null, salt = null, "
        "erased_by = gen_random_uuid() where number = %(n)s",
        "does not tell of",
    ),
}  # fmt: skip


@pytest.mark.parametrize("deed", TAMPERING)
def test_verify_finds_what_the_owner_does(chain: Connection, deed: str) -> None:
    statement, words = TAMPERING[deed]
    victim = run(
        chain, "select number, position, kept_until from audit.entries where seal_number = 2 order by position limit 1"
    )[0]
    run(chain, "set session_replication_role = replica")
    for part in statement.split("; "):
        run(chain, part, {"n": victim["number"], "p": victim["position"], "k": victim["kept_until"]})
    assert any(words in finding for finding in verify(chain)), verify(chain)


def test_a_chain_written_anew_is_found_by_an_anchor_and_by_nothing_else(chain: Connection) -> None:
    kept = records.anchors(chain)
    last = {"last": kept[-1]["seal"], "before": kept[-1]["seal"] - 1}
    run(chain, "set session_replication_role = replica")
    for statement in (
        "delete from audit.entries where seal_number = %(last)s",
        "delete from audit.seals where number = %(last)s",
        "update audit.chain_head set (seal_number, hash) = (select number, hash from audit.seals where number = %(before)s)",
    ):
        run(chain, statement, last)
    assert verify(chain) == []
    assert verify(chain, kept) == ["the seal is gone: the chain was cut, or begun anew"]
    for statement in (
        "update audit.entries e set actor_name = 'x' where seal_number = %(before)s",
        "update audit.entries e set entry_hash = audit.entry_hash(e) where seal_number = %(before)s",
        "update audit.seals s set entries_hash = (select sha256(string_agg(entry_hash, '' order by position)) "
        "from audit.entries e where e.seal_number = s.number) where number = %(before)s",
        "update audit.seals s set hash = audit.seal_hash(s) where number = %(before)s",
        "update audit.chain_head set hash = (select hash from audit.seals where number = %(before)s)",
    ):
        run(chain, statement, last)
    assert verify(chain) == []
    assert verify(chain, kept[:-1]) == ["the seal is another: the chain was rewritten"]


def test_seals_never_pass_a_running_transaction_and_nobody_waits(connect: Connect) -> None:
    slow, writer, sealer = connect(), connect(autocommit=True), connect(autocommit=True)
    workspace = make_workspace(writer, make_user(writer))
    seal(sealer)
    early = make_project(slow, workspace, name="begun first, committed last")
    late = make_project(writer, workspace, name="begun later")
    run(sealer, "set lock_timeout = '1s'; set statement_timeout = '5s'")
    assert one(sealer, "select audit.seal()") == 0, "the transaction that wrote before it is still running"
    make_project(writer, workspace, name="while records wait")
    slow.commit()
    assert seal(sealer, 3) == 3
    sealed = [
        row["row_id"]
        for row in run(sealer, "select row_id from audit.entries where resource = 'projects' order by position")
    ]
    assert sealed[:2] == [str(early), str(late)]
    assert (verify(sealer), one(sealer, "select count(*) from audit.inbox")) == ([], 0)


def test_a_sealer_that_is_at_work_holds_up_no_writer_and_no_second_sealer(connect: Connect) -> None:
    first, second, writer = connect(), connect(autocommit=True), connect(autocommit=True)
    workspace = make_workspace(writer, make_user(writer))
    while not one(first, "select audit.seal()"):
        first.rollback()
    run(writer, "set statement_timeout = '5s'")
    make_project(writer, workspace)
    assert one(second, "select audit.seal()") == 0
    first.commit()
    assert seal(second) >= 1
    assert verify(second) == []


def test_a_seal_that_is_rolled_back_leaves_the_records_waiting(connect: Connect) -> None:
    sealer, writer = connect(), connect(autocommit=True)
    make_workspace(writer, make_user(writer))
    waiting = one(writer, "select count(*) from audit.inbox")
    while not one(sealer, "select audit.seal()"):
        sealer.rollback()
    sealer.rollback()
    assert one(writer, "select count(*) from audit.inbox") == waiting
    seal(writer)
    assert (one(writer, "select count(*) from audit.inbox"), verify(writer)) == (0, [])


def test_records_of_another_server_are_sealed_after_a_restore(connect: Connect) -> None:
    connection = connect(autocommit=True)
    make_workspace(connection, make_user(connection))
    # As in a database restored from a server that had counted further.
    run(connection, "begin; select ops.allow('seal'); update audit.inbox set transaction_id = '99999999999'; commit")
    assert seal(connection) > 0
    assert (one(connection, "select count(*) from audit.inbox"), verify(connection)) == (0, [])


def test_records_are_kept_as_long_as_the_plan_says_and_go_by_the_partition(connect: Connect) -> None:
    connection = connect(autocommit=True)
    owner = make_user(connection)
    free, large = (make_workspace(connection, owner, plan=plan) for plan in ("free", "enterprise"))
    seal(connection)
    months = {
        row["workspace_id"]: row["months"]
        for row in run(
            connection,
            "select workspace_id, min(extract(year from age(kept_until, date_trunc('month', now())::date)) * 12 "
            "+ extract(month from age(kept_until, date_trunc('month', now())::date)))::int as months "
            "from audit.entries where workspace_id is not null and action <> 'workspace_plans.create' group by 1",
        )
    }
    assert (months[free], months[large]) == (13, 37), "whole months, and the one that has begun"
    ahead = one(connection, "select count(*) from pg_inherits where inhparent = 'audit.entries'::regclass")
    assert ahead >= 12, "partitions for the months to come are there"
    run(connection, "insert into ops.clock (set_to) values (now() + interval '14 months')")
    assert one(connection, "select audit.maintain()") >= 1
    assert one(connection, "select count(*) from audit.entries where workspace_id = %s", [free]) == 0
    assert one(connection, "select count(*) from audit.entries where workspace_id = %s", [large]) > 0
    run(connection, "delete from ops.clock")
    assert one(connection, "select count(*) from audit.inbox where action = 'audit.expire'") >= 1
    findings = verify(connection)
    assert findings and all("missing" in finding for finding in findings), "gone before their time, which is told"


def test_the_doctor_warns_of_records_that_nobody_seals(connect: Connect) -> None:
    connection = connect()
    seal(connection)
    run(
        connection,
        "insert into audit.inbox (action, resource, actor_kind, occurred_at) values ('a.b', 'a', 'cli', now() - interval '1 hour')",
    )
    found = run(connection, "select finding from ops.data_findings()")
    assert any("records wait to be sealed" in row["finding"] for row in found)
