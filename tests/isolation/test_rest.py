"""The main tables over HTTP, through a real PostgREST: every verb by identity, and what must be a 4xx."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import psycopg
import pytest

from ..conftest import Database
from ..identities import add_member, make_project, make_user, make_workspace, run
from ..rest import SECRET, Rest
from .world import Identity, World, insertion, make_world, needed

Connection = psycopg.Connection[Any]
TABLES = ("projects", "tasks", "workspaces", "workspace_members", "invitations", "workspace_usage")


@pytest.fixture(scope="module")
def connection(module_database: Database) -> Iterator[Connection]:
    with module_database.connect(autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def world(connection: Connection) -> World:
    with connection.transaction():
        return make_world(connection)


def client(rest: Rest, identity: Identity) -> httpx.Client:
    if identity.role == "anon":
        return rest.as_anon()
    return rest.with_claims({"role": identity.role, **(identity.claims or {})})


def key(table: str) -> str:
    return "id" if table == "workspaces" else "workspace_id"


def test_reading_filtering_counting_and_embedding_show_only_ones_own(
    rest: Rest, connection: Connection, world: World
) -> None:
    for table in TABLES:
        permission = needed(connection, table)["select"]
        for identity in world.identities:
            expected = {str(workspace) for workspace in world.workspaces if identity.may(workspace, permission)}
            with client(rest, identity) as http:
                response = http.get(f"/{table}", params={"select": key(table)}, headers={"Prefer": "count=exact"})
                if identity.role == "anon":
                    assert response.status_code == 401
                    continue
                assert response.status_code == 200, response.text
                assert {row[key(table)] for row in response.json()} == expected, f"{identity.name} {table}"
                assert response.headers["Content-Range"].endswith(f"/{len(response.json())}")
                hidden = [str(workspace) for workspace in world.workspaces if str(workspace) not in expected]
                probe = http.get(f"/{table}", params={key(table): f"in.({','.join(hidden)})", "limit": "1"})
                assert probe.json() == [], f"{identity.name} probes {table}"
    for identity in world.identities:
        with client(rest, identity) as http:
            response = http.get(
                "/workspaces", params={"select": "id,projects(id,tasks(id)),workspace_members(user_id,profiles(email))"}
            )
            if response.status_code == 200:
                for row in response.json():
                    assert identity.may(uuid.UUID(row["id"]), "workspace.read")
                    assert bool(row["projects"]) == identity.may(uuid.UUID(row["id"]), "projects.read")


@pytest.mark.parametrize("table", ["projects", "tasks"])
def test_writing_is_allowed_where_the_role_allows_it(
    rest: Rest, connection: Connection, world: World, table: str
) -> None:
    column = "name" if table == "projects" else "title"
    undo = {"Prefer": "tx=rollback,return=representation"}
    for identity in world.identities:
        with client(rest, identity) as http:
            for workspace in world.workspaces:
                row = {"workspace_id": str(workspace), column: "N"}
                if table == "tasks":
                    row["project_id"] = str(world.rows[workspace]["projects"])
                where = {"workspace_id": f"eq.{workspace}"}
                answers = {
                    "create": http.post(f"/{table}", json=row, headers=undo),
                    "update": http.patch(f"/{table}", json={column: "M"}, params=where, headers=undo),
                }
                # DELETE takes rows to the trash and answers with none of them, whoever asks.
                gone = http.delete(f"/{table}", params=where, headers=undo)
                assert gone.status_code in ((401, 403) if identity.role == "anon" else (200,)), gone.text
                assert gone.json() == [] or identity.role == "anon"
                ignoring = http.post(
                    f"/{table}", json=row, headers={"Prefer": f"resolution=ignore-duplicates,{undo['Prefer']}"}
                )
                # PostgREST merges by setting every column, the keys too, which nobody may update.
                merging = http.post(
                    f"/{table}", json=row, headers={"Prefer": f"resolution=merge-duplicates,{undo['Prefer']}"}
                )
                for verb, answer in answers.items():
                    allowed = identity.may(workspace, f"{table}.{verb}")
                    done = answer.status_code < 300 and answer.json() != []
                    assert done == allowed, f"{identity.name}: {verb} {table}: {answer.status_code} {answer.text}"
                    assert answer.status_code < 500
                assert (ignoring.status_code < 300) == identity.may(workspace, f"{table}.create"), ignoring.text
                assert merging.status_code in (401, 403), merging.text


@pytest.fixture(scope="module")
def rest(module_database: Database) -> Iterator[Rest]:
    with Rest(module_database.url("authenticator"), PGRST_DB_TX_END="rollback-allow-override") as server:
        yield server


def expired() -> str:
    return jwt.encode(
        {"role": "authenticated", "sub": str(uuid.uuid4()), "exp": int(time.time()) - 60}, SECRET, "HS256"
    )


@pytest.mark.parametrize(
    "token",
    ["x", "a.b.c", "", expired(), jwt.encode({"role": "authenticated"}, "another-secret-that-is-long-enough!", "HS256"),
     jwt.encode({"role": "authenticated", "sub": str(uuid.uuid4())}, "", "none"), jwt.encode({"role": "postgres"}, SECRET, "HS256"),
     jwt.encode({"role": "supabase_admin"}, SECRET, "HS256"), jwt.encode({"role": 5}, SECRET, "HS256"),
     jwt.encode({"role": "authenticated", "sub": "x"}, SECRET, "HS256"), jwt.encode({"role": "authenticated", "sub": ["a"]}, SECRET, "HS256")],
    ids=["no token", "no claims", "empty", "expired", "another secret", "unsigned", "postgres", "supabase_admin", "role 5", "sub x", "sub a list"],
)  # fmt: skip
def test_a_bad_token_is_a_4xx_or_shows_nothing(rest: Rest, world: World, token: str) -> None:
    with rest.client(token or None) as http:
        for path in ("/projects", "/workspaces", "/profiles", "/rpc/my_workspaces"):
            response = http.get(path)
            assert 400 <= response.status_code < 500 or response.json() == [], response.text


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/rpc/create_workspace", {"name": "N", "slug": "no good"}),
        ("POST", "/rpc/create_workspace", {"name": "a\u0000b", "slug": "null-byte"}),
        ("POST", "/rpc/create_workspace", {"name": "x" * 10_000_000, "slug": "ten-megabytes"}),
        ("POST", "/rpc/create_workspace", {"nome": "N"}),
        ("POST", "/rpc/create_workspace", None),
        ("POST", "/rpc/accept_invitation", {"token": "rhi_nonsense"}),
        ("POST", "/rpc/leave_workspace", {"workspace_id": "not-a-uuid"}),
        (
            "POST",
            "/rpc/set_member_role",
            {"workspace_id": str(uuid.uuid4()), "user_id": str(uuid.uuid4()), "role": "\u202eking"},
        ),
        ("POST", "/projects", {"workspace_id": "x", "name": "N"}),
        ("POST", "/projects", {"no_such_column": 1}),
        ("POST", "/projects", [1, 2]),
        ("PATCH", "/projects?id=eq.x", {"name": "N"}),
        ("GET", "/projects?no_such=eq.1", None),
        ("GET", "/projects?select=*,secrets(*)", None),
        ("GET", "/no_such_table", None),
        ("GET", "/projects?limit=-1", None),
    ],
)
def test_bad_input_is_a_4xx_with_a_stable_code(
    rest: Rest, connection: Connection, method: str, path: str, body: Any
) -> None:
    user = make_user(connection)
    before = run(connection, "select count(*) from workspaces")
    with rest.as_user(user) as http:
        response = http.request(method, path, json=body)
    assert 400 <= response.status_code < 500, response.text
    assert response.json()["code"], response.text
    assert run(connection, "select count(*) from workspaces") == before


def test_the_plan_limit_answers_402_over_http(rest: Rest, connection: Connection) -> None:
    owner = make_user(connection)
    with connection.transaction():
        workspace = make_workspace(connection, owner, plan="free")
    rows = [{"workspace_id": str(workspace), "name": f"P{n}"} for n in range(4)]
    with rest.as_user(owner) as http:
        response = http.post("/projects", json=rows)
        assert response.status_code == 402
        assert response.json()["code"] == "plan_limit_reached"
        assert "pro plan" in response.json()["hint"]
        assert http.post("/projects", json=rows[:3]).status_code == 201


def test_removal_binds_at_the_next_request_with_the_same_token(rest: Rest, connection: Connection) -> None:
    with connection.transaction():
        workspace = make_workspace(connection, make_user(connection))
        make_project(connection, workspace)
        member = add_member(connection, workspace, "member")
    with rest.as_user(member) as http:
        assert len(http.get("/projects").json()) == 1
        run(connection, "select tenancy.drop_member(%s, %s)", [workspace, member])
        assert http.get("/projects").json() == []


def test_the_openapi_document_names_no_private_function(rest: Rest) -> None:
    with rest.as_service() as http:
        paths = http.get("/").json()["paths"]
    assert "/projects" in paths
    assert not any("tenancy" in path or "authz" in path for path in paths)


def test_insertions_of_the_oracle_are_plausible(connection: Connection, world: World) -> None:
    with connection.transaction(force_rollback=True):
        for table in ("projects", "tasks"):
            run(connection, *insertion(connection, table, world.a, world.rows[world.a]))


@pytest.mark.parametrize("prefer", [["count=planned"], ["count=estimated"], ["count=planned", "return=minimal"]])
@pytest.mark.parametrize("table", [*TABLES[:5], "project_members", "profiles", "roles"])
def test_an_estimate_which_would_tell_of_other_tenants_is_refused(
    rest: Rest, world: World, table: str, prefer: list[str]
) -> None:
    stranger = next(identity for identity in world.identities if identity.name == "a stranger")
    with client(rest, stranger) as http:
        for method in ("GET", "HEAD"):
            request = http.build_request(
                method, f"/{table}", headers=[*(("Prefer", value) for value in prefer), ("Connection", "close")]
            )
            response = http.send(request)
            assert response.status_code == 400
            assert not response.headers.get("Content-Range", "*/*").split("/")[1].isdecimal()
        assert http.get(f"/{table}", headers={"Prefer": "count=exact"}).status_code in (200, 206)
        embedded = http.get(
            "/workspaces", params={"select": "id,projects!inner(id)"}, headers=[("Prefer", "count=planned")]
        )
        assert embedded.status_code == 400


def test_views_are_read_only_and_say_so(rest: Rest, connection: Connection, world: World) -> None:
    views = [
        row["relname"]
        for row in run(
            connection, "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'v'"
        )
    ]
    assert len(views) >= 8
    for identity in world.identities:
        with client(rest, identity) as http:
            for view in views:
                where = {"workspace_id": f"eq.{world.a}"}
                for answer in (
                    http.patch(f"/{view}", params=where, json={"workspace_id": str(world.b)}),
                    http.delete(f"/{view}", params=where),
                    http.post(f"/{view}", json={"workspace_id": str(world.a)}),
                ):
                    assert answer.status_code in (400, 401, 403), f"{identity.name}: {view}: {answer.text}"
