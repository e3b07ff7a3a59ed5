"""Search: prefixes, typing errors, ranks and marks; and nothing that the caller could not select."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from ..identities import (
    acting,
    add_member,
    as_user,
    claims_of,
    make_project,
    make_task,
    make_user,
    make_workspace,
    one,
    refused,
    run,
)
from ..isolation.world import make_world

Connection = psycopg.Connection[Any]


def search(db: Connection, workspace: Any, query: Any, **more: Any) -> list[dict[str, Any]]:
    return run(
        db,
        "select * from search(%(w)s, %(q)s, %(kinds)s, %(max)s)",
        {"w": workspace, "q": query, "kinds": more.get("kinds"), "max": more.get("max", 20)},
    )


def titles(db: Connection, workspace: Any, query: Any, **more: Any) -> list[str]:
    return [row["title"] for row in search(db, workspace, query, **more)]


@pytest.fixture
def shop(db: Connection) -> dict[str, Any]:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    project = make_project(db, workspace, lead=owner, name="Apollo lander")
    make_task(db, workspace, project, "Calibrate gyroscope")
    make_task(db, workspace, project, "Order new shelves")
    run(db, "update tasks set notes = 'from the harbour warehouse' where title like 'Order%%'")
    customer = one(
        db,
        "insert into customers (workspace_id, name, email, phone) values (%s, 'Ada Lovelace', 'ada@engine.example', '+44 20 7946') "
        "returning id",
        [workspace],
    )
    run(
        db, "insert into tickets (workspace_id, customer_id, device, problem) values (%s, %s, 'Difference engine', 'Grinds')",
        [workspace, customer],
    )  # fmt: skip
    return {"owner": owner, "workspace": workspace, "project": project, "customer": customer}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("gyroscope", ["Calibrate gyroscope"]),
        ("GYRO", ["Calibrate gyroscope"]),
        ("gyrsocope", ["Calibrate gyroscope"]),
        ("gyroscpe", ["Calibrate gyroscope"]),
        ("gyrooscope", ["Calibrate gyroscope"]),
        ("gyroskope", ["Calibrate gyroscope"]),
        ("new shel", ["Order new shelves"]),
        ("new shelevs", ["Order new shelves"]),
        ("harbour", ["Order new shelves"]),
        ("ada@engine.example", ["Ada Lovelace"]),
        ("lovelace", ["Ada Lovelace"]),
        ("grinds engine", ["Difference engine"]),
        ("lander shelves", []),
        ("zzzz", []),
        ("", []),
        (None, []),
    ],
)
def test_prefixes_and_typing_errors_are_found(
    db: Connection, shop: dict[str, Any], query: Any, found: list[str]
) -> None:
    with as_user(db, shop["owner"]):
        assert titles(db, shop["workspace"], query) == found


def test_a_match_in_the_title_comes_first_and_is_marked(db: Connection, shop: dict[str, Any]) -> None:
    make_project(db, shop["workspace"], lead=shop["owner"], name="Harbour")
    with as_user(db, shop["owner"]):
        rows = search(db, shop["workspace"], "harbour")
    assert [(row["kind"], row["title"]) for row in rows] == [("projects", "Harbour"), ("tasks", "Order new shelves")]
    assert "<mark>harbour</mark>" in rows[1]["snippet"]
    assert rows[0]["rank"] > rows[1]["rank"]


def test_kinds_and_the_number_of_results_can_be_limited(db: Connection, shop: dict[str, Any]) -> None:
    for n in range(30):
        make_project(db, shop["workspace"], lead=shop["owner"], name=f"Gyroscope {n}")
    with as_user(db, shop["owner"]):
        assert {row["kind"] for row in search(db, shop["workspace"], "gyroscope", max=100)} == {"projects", "tasks"}
        assert titles(db, shop["workspace"], "gyroscope", kinds=["tasks"]) == ["Calibrate gyroscope"]
        assert len(search(db, shop["workspace"], "gyroscope", max=7)) == 7
        assert len(search(db, shop["workspace"], "gyroscope", max=-3)) == 1
        for kinds in (["pg_class"], ["invitations"], ["'; drop table tasks; --"]):
            with refused("kind_unknown"), db.transaction():
                search(db, shop["workspace"], "gyroscope", kinds=kinds)


@pytest.mark.parametrize(
    "query",
    ["' & | ! :* <-> ( )", "\\", "'", "''':*", "a:*b & c", "!!!", "😀", "😀 gyroscope 😀", "%_%", "\t\n", "gyroscope\\' | '", "x" * 400,
     "<script>alert(1)</script>", "gyroscope & !calibrate", "$1", "\u202e", "ﷺ"],
)  # fmt: skip
def test_operators_quotes_and_emoji_are_words_or_nothing(db: Connection, shop: dict[str, Any], query: str) -> None:
    with as_user(db, shop["owner"]):
        found = titles(db, shop["workspace"], query)
    assert found == (["Calibrate gyroscope"] if query.startswith(("😀 g", "gyroscope &", "gyroscope\\")) else [])


def test_a_megabyte_is_refused_with_a_sentence(db: Connection, shop: dict[str, Any]) -> None:
    with as_user(db, shop["owner"]), refused("query_too_long"), db.transaction():
        search(db, shop["workspace"], "gyroscope " * 100_000)


def test_a_snippet_holds_no_markup_but_its_marks(db: Connection, shop: dict[str, Any]) -> None:
    make_task(db, shop["workspace"], shop["project"], "<img src=x onerror=alert(1)> & gyroscope </mark>")
    with as_user(db, shop["owner"]):
        (row,) = [row for row in search(db, shop["workspace"], "gyroscope") if "img" in row["title"]]
    inside = row["snippet"].replace("<mark>", "").replace("</mark>", "")
    assert "<" not in inside and "<mark>gyroscope</mark>" in row["snippet"]


def test_the_index_follows_every_change(db: Connection, shop: dict[str, Any]) -> None:
    workspace, owner = shop["workspace"], shop["owner"]
    task = make_task(db, workspace, shop["project"], "Sharpen chisel")

    def found(query: str) -> bool:
        with as_user(db, owner):
            return "tasks" in {row["kind"] for row in search(db, workspace, query)}

    assert found("chisel")
    run(db, "update tasks set title = 'Sharpen plane' where id = %s", [task])
    assert (found("chisel"), found("plane")) == (False, True)
    run(db, "delete from tasks where id = %s", [task])
    assert not found("plane")
    run(db, "select tenancy.restore_row(%s, 'public.tasks', %s)", [workspace, task])
    assert found("plane")
    run(db, "delete from projects where id = %s", [shop["project"]])
    assert not found("plane")
    documents = one(db, "select count(*) from tenancy.search_documents where workspace_id = %s", [workspace])
    assert documents == 2, "the customer and the ticket"


def test_a_private_project_and_its_tasks_are_found_by_those_who_see_them(db: Connection) -> None:
    owner, lead = make_user(db), make_user(db)
    workspace = make_workspace(db, owner)
    member, joined = add_member(db, workspace, "member"), add_member(db, workspace, "member")
    add_member(db, workspace, "member", lead)
    secret = make_project(db, workspace, lead=lead, is_private=True, name="Moonshot")
    make_task(db, workspace, secret, "Moonshot fuel")
    run(
        db,
        "insert into project_members (workspace_id, project_id, user_id) values (%s, %s, %s)",
        [workspace, secret, joined],
    )
    for who, expected in ((owner, 2), (lead, 2), (joined, 2), (member, 0)):
        with as_user(db, who):
            assert len(search(db, workspace, "moonshot")) == expected
            assert len(search(db, workspace, "mooonshot")) == expected, "nor by a typing error"


def test_everybody_finds_what_they_could_select_and_no_more(db: Connection) -> None:
    world = make_world(db)
    for workspace in world.workspaces:
        run(db, "update projects set name = 'Canary' where workspace_id = %s", [workspace])
        run(db, "update tasks set title = 'Canary' where workspace_id = %s", [workspace])
        run(db, "update customers set name = 'Canary' where workspace_id = %s", [workspace])
    for identity in world.identities:
        with acting(db, identity.role, identity.claims):
            for workspace in world.workspaces:
                try:
                    with db.transaction():
                        found = {row["kind"] for row in search(db, workspace, "canary")}
                except psycopg.errors.InsufficientPrivilege:
                    found = set()
                expected = {k for k in ("projects", "tasks", "customers") if identity.may(workspace, f"{k}.read")}
                assert found == expected, f"{identity.name} in {workspace}"


def test_candidates_are_keys_alone_and_of_readable_tables(db: Connection, shop: dict[str, Any]) -> None:
    stranger = make_user(db)
    with as_user(db, stranger):
        assert run(
            db, "select * from tenancy.search_candidates(%s, '{gyroscope}', '{public.tasks}', 'all', 10)", [shop["workspace"]]
        ) == []  # fmt: skip
        assert one(db, "select tenancy.similar_words(%s, '{gyroscope}')", [shop["workspace"]]) == []
    with acting(db, "authenticated", claims_of(stranger)):
        for table in ("tenancy.search_documents", "tenancy.search_spellings"):
            with refused("42501"), db.transaction():
                run(db, f"select * from {table}")


def test_what_one_may_not_see_does_not_hide_what_one_may(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    member = add_member(db, workspace, "member")
    secret, open_one = make_project(db, workspace, lead=owner, is_private=True), make_project(db, workspace)
    run(
        db,
        "insert into tasks (workspace_id, project_id, title) select %s, %s, 'quokka ' || n from generate_series(1, 600) n",
        [workspace, secret],
    )
    make_task(db, workspace, open_one, "quokka in sight")
    with as_user(db, member):
        assert titles(db, workspace, "quokka") == ["quokka in sight"]
    with as_user(db, owner):
        assert len(titles(db, workspace, "quokka", max=100)) == 100
