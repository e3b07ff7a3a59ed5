"""A state machine: people come, go, are promoted, hide projects; after every step each sees what the model says.

Reads and writes of members go over HTTP, through PostgREST; what they see is compared row by row.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ..conftest import Database
from ..identities import as_user, make_user, make_workspace, one, refusal, run
from ..rest import Rest
from .world import HELD

Connection = psycopg.Connection[Any]
PEOPLE, WORKSPACES = 4, 2
ROLES = st.sampled_from(sorted(HELD))
person = st.integers(0, PEOPLE - 1)
place = st.integers(0, WORKSPACES - 1)


@dataclass
class Project:
    """What the model knows of a project."""

    workspace: int
    is_private: bool
    lead: int | None
    joined: set[int] = field(default_factory=set)
    tasks: set[str] = field(default_factory=set)


class Isolation(RuleBasedStateMachine):
    """The model: memberships, suspensions and projects in dictionaries; the oracle: `sees`."""

    rest: ClassVar[Rest]
    connection: ClassVar[Connection]

    @initialize()
    def begin(self) -> None:
        self.people = [make_user(self.connection) for _ in range(PEOPLE)]
        with self.connection.transaction():
            self.places = [make_workspace(self.connection, self.people[n]) for n in range(WORKSPACES)]
        self.clients = [self.rest.as_user(user) for user in self.people]
        self.roles: dict[tuple[int, int], str] = {(n, n): "owner" for n in range(WORKSPACES)}
        self.suspended: set[int] = set()
        self.deleted: set[int] = set()
        self.projects: dict[str, Project] = {}
        self.trash: dict[str, tuple[Project, int]] = {}

    # The oracle ---------------------------------------------------------------------------------

    def may(self, who: int, where: int, permission: str) -> bool:
        held = HELD.get(self.roles.get((where, who), ""), set())
        return permission in held and who not in self.suspended and where not in self.deleted

    def sees(self, who: int, project: Project, permission: str = "projects.read") -> bool:
        if not self.may(who, project.workspace, permission):
            return False
        if not project.is_private or who in project.joined or self.may(who, project.workspace, "projects.read_private"):
            return True
        return project.lead == who

    def owners(self, where: int) -> list[int]:
        return [who for (place, who), role in self.roles.items() if place == where and role == "owner"]

    def leave_projects(self, where: int, who: int) -> None:
        for project in [*self.projects.values(), *(project for project, _ in self.trash.values())]:
            if project.workspace == where:
                project.joined.discard(who)
                project.lead = None if project.lead == who else project.lead

    # What operators and owners do ---------------------------------------------------------------

    @rule(where=place, who=person, role=ROLES)
    def put_member(self, where: int, who: int, role: str) -> None:
        if (where, who) not in self.roles:
            call = "select tenancy.add_member(%(w)s, %(u)s, authz.role_named(%(w)s, %(r)s))"
        else:
            call = "select tenancy.change_role(%(w)s, %(u)s, authz.role_named(%(w)s, %(r)s))"
            if self.owners(where) == [who] and role != "owner" and where not in self.deleted:
                return self.expect("last_owner", call, where, who, role)
        if self.owners(where) == [who] and role != "owner":
            return None
        run(self.connection, call, {"w": self.places[where], "u": self.people[who], "r": role})
        self.roles[where, who] = role
        return None

    @rule(where=place, who=person)
    def drop_member(self, where: int, who: int) -> None:
        call = "select tenancy.drop_member(%(w)s, %(u)s)"
        if (where, who) not in self.roles:
            return self.expect("member_not_found", call, where, who)
        if self.owners(where) == [who]:
            if where not in self.deleted:
                self.expect("last_owner", call, where, who)
            return None
        run(self.connection, call, {"w": self.places[where], "u": self.people[who]})
        del self.roles[where, who]
        self.leave_projects(where, who)
        return None

    def expect(self, code: str, call: str, where: int, who: int, role: str = "") -> None:
        with pytest.raises(psycopg.Error) as caught:
            run(self.connection, call, {"w": self.places[where], "u": self.people[who], "r": role})
        assert refusal(caught.value) == code

    @rule(who=person)
    def suspend_or_resume(self, who: int) -> None:
        call = "select tenancy.resume_user(%s)" if who in self.suspended else "select tenancy.suspend_user(%s, 'test')"
        run(self.connection, call, [self.people[who]])
        self.suspended ^= {who}

    @rule(where=place)
    def delete_or_restore(self, where: int) -> None:
        call = "select tenancy.mark_restored(%s)" if where in self.deleted else "select tenancy.mark_deleted(%s)"
        run(self.connection, call, [self.places[where]])
        self.deleted ^= {where}

    # What members do, over HTTP -----------------------------------------------------------------

    @rule(where=place, who=person, is_private=st.booleans())
    def make_project(self, where: int, who: int, is_private: bool) -> None:
        project = str(uuid.uuid4())
        row = {"workspace_id": str(self.places[where]), "id": project, "name": "P", "is_private": is_private}
        response = self.clients[who].post("/projects", json=row)
        assert (response.status_code == 201) == self.may(who, where, "projects.create"), response.text
        if response.status_code == 201:
            self.projects[project] = Project(where, is_private, who)

    @precondition(lambda self: self.projects)
    @rule(data=st.data(), who=person, where=place)
    def make_task(self, data: st.DataObject, who: int, where: int) -> None:
        name = data.draw(st.sampled_from(list(self.projects)))
        project, task = self.projects[name], str(uuid.uuid4())
        row = {"workspace_id": str(self.places[where]), "id": task, "project_id": name, "title": "T"}
        response = self.clients[who].post("/tasks", json=row)
        allowed = where == project.workspace and self.may(who, where, "tasks.create") and self.sees(who, project)
        assert (response.status_code == 201) == allowed, response.text
        if allowed:
            project.tasks.add(task)

    @precondition(lambda self: self.projects)
    @rule(data=st.data(), who=person, whom=person)
    def join(self, data: st.DataObject, who: int, whom: int) -> None:
        name = data.draw(st.sampled_from(list(self.projects)))
        project = self.projects[name]
        row = {
            "workspace_id": str(self.places[project.workspace]),
            "project_id": name,
            "user_id": str(self.people[whom]),
        }
        response = self.clients[who].post("/project_members", json=row)
        allowed = (
            self.sees(who, project, "projects.update")
            and (project.workspace, whom) in self.roles
            and whom not in project.joined
        )
        assert (response.status_code == 201) == allowed, response.text
        if allowed:
            project.joined.add(whom)

    @precondition(lambda self: self.projects)
    @rule(data=st.data(), who=person)
    def hide_or_show(self, data: st.DataObject, who: int) -> None:
        name = data.draw(st.sampled_from(list(self.projects)))
        project = self.projects[name]
        response = self.clients[who].patch(
            "/projects",
            params={"id": f"eq.{name}"},
            json={"is_private": not project.is_private},
            headers={"Prefer": "return=representation"},
        )
        stays_visible = (
            project.is_private
            or who in project.joined
            or project.lead == who
            or self.may(who, project.workspace, "projects.read_private")
        )
        allowed = self.sees(who, project, "projects.update")
        assert (response.status_code == 200 and response.json() != []) == (allowed and stays_visible), response.text
        if allowed and stays_visible:
            project.is_private = not project.is_private

    @precondition(lambda self: self.projects)
    @rule(data=st.data(), who=person)
    def delete_project(self, data: st.DataObject, who: int) -> None:
        name = data.draw(st.sampled_from(list(self.projects)))
        project = self.projects[name]
        response = self.clients[who].delete("/projects", params={"id": f"eq.{name}"})
        assert response.status_code in (204, 403), response.text
        gone = one(self.connection, "select deleted_at is not null from projects where id = %s", [name])
        assert gone == self.sees(who, project, "projects.delete")
        if gone:
            self.trash[name] = (self.projects.pop(name), who)

    @precondition(lambda self: self.trash)
    @rule(data=st.data(), who=person)
    def restore_project(self, data: st.DataObject, who: int) -> None:
        name = data.draw(st.sampled_from(list(self.trash)))
        project, deleter = self.trash[name]
        place = project.workspace
        listed = {row["id"] for row in self.clients[who].get("/trash", params={"select": "id"}).json()}
        response = self.clients[who].post(
            "/rpc/restore", json={"workspace_id": str(self.places[place]), "kind": "projects", "id": name}
        )
        allowed = self.may(who, place, "projects.delete") and (deleter == who or self.may(who, place, "trash.manage"))
        assert (name in listed) == allowed, listed
        assert (response.status_code == 200) == allowed, response.text
        if allowed:
            self.projects[name] = self.trash.pop(name)[0]

    @rule(where=place, who=person)
    def move_a_row_to_another_tenant(self, where: int, who: int) -> None:
        response = self.clients[who].patch(
            "/projects", params={"id": "not.is.null"}, json={"workspace_id": str(self.places[where])}
        )
        assert response.status_code == 403, response.text

    # What must hold -----------------------------------------------------------------------------

    @invariant()
    def everybody_sees_what_the_model_says(self) -> None:
        if not hasattr(self, "projects"):
            return
        for who, client in enumerate(self.clients):
            visible = {name: project for name, project in self.projects.items() if self.sees(who, project)}
            assert {row["id"] for row in client.get("/projects", params={"select": "id"}).json()} == set(visible)
            tasks = {
                task
                for project in visible.values()
                for task in project.tasks
                if self.may(who, project.workspace, "tasks.read")
            }
            assert {row["id"] for row in client.get("/tasks", params={"select": "id"}).json()} == tasks
            places = {str(self.places[n]) for n in range(WORKSPACES) if self.may(who, n, "workspace.read")}
            with as_user(self.connection, self.people[who]):
                assert {str(row["id"]) for row in run(self.connection, "select id from workspaces")} == places

    @invariant()
    def every_workspace_has_an_owner(self) -> None:
        for n in range(WORKSPACES if hasattr(self, "roles") else 0):
            assert self.owners(n) or n in self.deleted

    def teardown(self) -> None:
        for client in getattr(self, "clients", []):
            client.close()


EFFORT = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


def test_everybody_sees_what_the_model_says_whatever_happens(module_database: Database, rest: Rest) -> None:
    with module_database.connect(autocommit=True) as connection:
        Isolation.rest, Isolation.connection = rest, connection
        run_state_machine_as_test(Isolation, settings=EFFORT)


@pytest.mark.parametrize(
    "flaw",
    [
        "drop policy projects_private on public.projects",
        "drop trigger workspace_members_keep_an_owner on public.workspace_members",
    ],
)
def test_the_machine_finds_a_planted_flaw(database: Database, flaw: str) -> None:
    with database.connect(autocommit=True) as connection, Rest(database.url("authenticator")) as rest:
        run(connection, flaw)
        Isolation.rest, Isolation.connection = rest, connection
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            run_state_machine_as_test(Isolation, settings=settings(EFFORT, max_examples=200, phases=[Phase.generate]))
