"""People in tests, and how they speak to the database: exactly as PostgREST does for them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import dict_row

Row = dict[str, Any]


class NotRefusedError(AssertionError):
    """A query that a test expected to pass was refused."""


def run(connection: psycopg.Connection[Any], query: str, parameters: Any = None) -> list[Row]:
    """Runs one statement and returns its rows as dictionaries, an empty list if it has none."""
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(query.encode(), parameters)
        return cursor.fetchall() if cursor.description else []


def one(connection: psycopg.Connection[Any], query: str, parameters: Any = None) -> Any:
    """The first column of the only row."""
    rows = run(connection, query, parameters)
    assert len(rows) == 1, f"{len(rows)} rows where one was expected"
    return next(iter(rows[0].values()))


@contextmanager
def acting(
    connection: psycopg.Connection[Any], role: str, claims: Row | str | None
) -> Iterator[psycopg.Connection[Any]]:
    """Acts as a role with claims inside a savepoint, as PostgREST sets them for one request."""
    text = claims if isinstance(claims, str) else json.dumps(claims) if claims is not None else ""
    if not connection.autocommit:
        run(connection, "select 1")  # begins the transaction, so that the next line makes a savepoint in it
    with connection.transaction():
        run(connection, "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)", [role, text])
        yield connection
        run(connection, "select set_config('role', 'postgres', true), set_config('request.jwt.claims', '', true)")


def claims_of(user: uuid.UUID, **more: Any) -> Row:
    return {"sub": str(user), "role": "authenticated", "aal": "aal1", "is_anonymous": False, **more}


def as_user(connection: psycopg.Connection[Any], user: uuid.UUID, **claims: Any) -> Any:
    return acting(connection, "authenticated", claims_of(user, **claims))


def as_anon(connection: psycopg.Connection[Any]) -> Any:
    return acting(connection, "anon", {"role": "anon"})


def as_service(connection: psycopg.Connection[Any]) -> Any:
    return acting(connection, "service_role", {"role": "service_role"})


def refusal(error: psycopg.Error) -> str:
    """The stable code of a refusal: one of docs/errors.md, or the SQLSTATE."""
    if error.sqlstate == "PGRST":
        code: str = json.loads(error.diag.message_primary or "{}")["code"]
        return code
    return error.sqlstate or ""


@contextmanager
def refused(code: str) -> Iterator[None]:
    """Expects the block to be refused with a code."""
    try:
        yield
    except psycopg.Error as error:
        assert refusal(error) == code, f"refused with {refusal(error)} ({error}), not {code}"
    else:
        raise NotRefusedError(f"it was not refused with {code}")


def make_user(
    connection: psycopg.Connection[Any],
    email: str | None = None,
    *,
    is_verified: bool = True,
    is_anonymous: bool = False,
) -> uuid.UUID:
    """Signs somebody up, as auth does."""
    user = uuid.uuid4()
    run(
        connection,
        "insert into auth.users (id, email, email_confirmed_at, is_anonymous) values (%s, %s, case when %s then now() end, %s)",
        [user, None if is_anonymous else email or f"{user.hex}@example.com", is_verified, is_anonymous],
    )
    return user


def make_workspace(
    connection: psycopg.Connection[Any], owner: uuid.UUID, *, plan: str = "enterprise", slug: str | None = None
) -> uuid.UUID:
    """Makes a workspace, on the plan without limits unless told otherwise."""
    slug = slug or f"w-{uuid.uuid4().hex[:20]}"
    workspace: uuid.UUID = one(connection, "select id from tenancy.make_workspace('Test', %s, %s)", [slug, owner])
    if plan != "free":
        run(connection, "select billing.set_plan(%s, %s)", [workspace, plan])
    return workspace


def add_member(
    connection: psycopg.Connection[Any], workspace: uuid.UUID, role: str, user: uuid.UUID | None = None
) -> uuid.UUID:
    """Adds a member with a role by its key; a new person unless one is given."""
    user = user or make_user(connection)
    run(connection, "select tenancy.add_member(%s, %s, authz.role_named(%s, %s))", [workspace, user, workspace, role])
    return user


def make_project(
    connection: psycopg.Connection[Any],
    workspace: uuid.UUID,
    *,
    lead: uuid.UUID | None = None,
    is_private: bool = False,
    name: str = "P",
) -> uuid.UUID:
    """Makes a project as the database's owner."""
    project: uuid.UUID = one(
        connection,
        "insert into public.projects (workspace_id, name, is_private, lead_id) values (%s, %s, %s, %s) returning id",
        [workspace, name, is_private, lead],
    )
    return project


def make_task(
    connection: psycopg.Connection[Any], workspace: uuid.UUID, project: uuid.UUID, title: str = "T"
) -> uuid.UUID:
    """Makes a task as the database's owner."""
    task: uuid.UUID = one(
        connection,
        "insert into public.tasks (workspace_id, project_id, title) values (%s, %s, %s) returning id",
        [workspace, project, title],
    )
    return task


def make_customer(connection: psycopg.Connection[Any], workspace: uuid.UUID, **more: Any) -> uuid.UUID:
    """Makes a customer as the database's owner; `more` are columns."""
    values = {"workspace_id": workspace, "name": "C", **more}
    customer: uuid.UUID = one(
        connection,
        f"insert into public.customers ({', '.join(values)}) values ({', '.join(['%s'] * len(values))}) returning id",
        list(values.values()),
    )
    return customer


def make_ticket(connection: psycopg.Connection[Any], workspace: uuid.UUID, customer: uuid.UUID) -> uuid.UUID:
    """Makes a ticket as the database's owner."""
    ticket: uuid.UUID = one(
        connection,
        "insert into public.tickets (workspace_id, customer_id, device) values (%s, %s, 'Phone') returning id",
        [workspace, customer],
    )
    return ticket
