"""What two people do at the same moment: never no owner, never two uses, never above the ceiling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from ..identities import acting, add_member, as_user, claims_of, make_user, make_workspace, one, run
from ..races import Call, wait_until_blocked

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]
LEVELS = [psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.REPEATABLE_READ]


def act(user: Any, query: str, parameters: Any) -> Callable[[Connection], Any]:
    def run_as(connection: Connection) -> None:
        with acting(connection, "authenticated", claims_of(user)):
            run(connection, query, parameters)

    return run_as


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("way", ["leave", "demote", "remove", "delete account"])
def test_two_owners_cannot_both_go(connect: Connect, level: psycopg.IsolationLevel, way: str) -> None:
    setup, observer = connect(), connect(autocommit=True)
    ann = make_user(setup)
    workspace = make_workspace(setup, ann)
    bob = add_member(setup, workspace, "owner")
    setup.commit()
    first, second = connect(), connect()
    first.isolation_level = second.isolation_level = level

    def go(user: Any, other: Any) -> Callable[[Connection], Any]:
        if way == "leave":
            return act(user, "select public.leave_workspace(%s)", [workspace])
        if way == "demote":
            return act(user, "select public.set_member_role(%s, %s, 'viewer')", [workspace, other])
        if way == "remove":
            return act(user, "select public.remove_member(%s, %s)", [workspace, other])
        return lambda connection: run(connection, "delete from auth.users where id = %s", [user])

    go(ann, bob)(first)
    # The second transaction has its snapshot before the first one ends.
    run(second, "select 1 from pg_class limit 1")
    call = Call(second, go(bob, ann))
    wait_until_blocked(observer, second)
    first.commit()
    assert call.result() in {"last_owner", "40001", "permission_denied", "workspace_not_found"}
    owners = one(
        observer,
        "select count(*) from workspace_members where workspace_id = %s and role_id = authz.owner_role()",
        [workspace],
    )
    assert owners == 1


@pytest.mark.parametrize("level", LEVELS)
def test_an_invitation_accepted_twice_at_once_is_used_once(connect: Connect, level: psycopg.IsolationLevel) -> None:
    setup, observer = connect(), connect(autocommit=True)
    owner = make_user(setup)
    workspace = make_workspace(setup, owner)
    bob = make_user(setup, "bob@example.com")
    with as_user(setup, owner):
        token = run(setup, "select token from public.invite_member(%s, 'bob@example.com')", [workspace])[0]["token"]
    setup.commit()
    first, second = connect(), connect()
    first.isolation_level = second.isolation_level = level
    accept = act(bob, "select public.accept_invitation(%s)", [token])
    accept(first)
    call = Call(second, accept)
    wait_until_blocked(observer, second)
    first.commit()
    assert call.result() in {"invitation_used", "40001"}
    assert one(observer, "select count(*) from workspace_members where user_id = %s", [bob]) == 1


@pytest.mark.parametrize("level", LEVELS)
def test_an_admin_who_is_being_demoted_cannot_promote_anybody_meanwhile(
    connect: Connect, level: psycopg.IsolationLevel
) -> None:
    setup, observer = connect(), connect(autocommit=True)
    owner = make_user(setup)
    workspace = make_workspace(setup, owner)
    admin, member = add_member(setup, workspace, "admin"), add_member(setup, workspace, "member")
    setup.commit()
    first, second = connect(), connect()
    first.isolation_level = second.isolation_level = level
    act(owner, "select public.set_member_role(%s, %s, 'viewer')", [workspace, admin])(first)
    call = Call(second, act(admin, "select public.set_member_role(%s, %s, 'admin')", [workspace, member]))
    wait_until_blocked(observer, second)
    first.commit()
    assert call.result() in {"permission_denied", "40001"}


def test_two_workspaces_of_one_slug_are_made_once(connect: Connect) -> None:
    setup, observer = connect(), connect(autocommit=True)
    ann, bob = make_user(setup), make_user(setup)
    setup.commit()
    first, second = connect(), connect()
    act(ann, "select public.create_workspace('A', 'same-slug')", [])(first)
    call = Call(second, act(bob, "select public.create_workspace('B', 'Same-Slug')", []))
    wait_until_blocked(observer, second)
    first.commit()
    assert call.result() == "slug_taken"
    assert one(observer, "select count(*) from workspaces") == 1


def test_an_owner_who_is_being_demoted_cannot_delete_the_workspace_meanwhile(connect: Connect) -> None:
    setup, observer = connect(), connect(autocommit=True)
    ann = make_user(setup)
    workspace = make_workspace(setup, ann)
    bob = add_member(setup, workspace, "owner")
    setup.commit()
    for call, deleted in (("delete_workspace", False), ("restore_workspace", True)):
        first, second = connect(), connect()
        if deleted:
            run(
                setup,
                "select tenancy.change_role(%(w)s, %(b)s, authz.owner_role()), tenancy.mark_deleted(%(w)s)",
                {"w": workspace, "b": bob},
            )
            setup.commit()
        run(
            first,
            "select tenancy.change_role(%(w)s, %(b)s, authz.role_named(%(w)s, 'viewer'))",
            {"w": workspace, "b": bob},
        )
        waiting = Call(second, act(bob, f"select public.{call}(%s)", [workspace]))
        wait_until_blocked(observer, second)
        first.commit()
        assert waiting.result() in {"permission_denied", "workspace_not_found"}
        assert one(observer, "select deleted_at is not null from workspaces where id = %s", [workspace]) == deleted


def test_two_people_who_share_workspaces_can_delete_their_accounts_at_once(connect: Connect) -> None:
    setup, observer = connect(), connect(autocommit=True)
    owner = make_user(setup)
    workspaces = sorted(make_workspace(setup, owner) for _ in range(2))
    ann, bob = make_user(setup), make_user(setup)
    # Joined in opposite orders, so that each one's rows come in another order.
    for user, places in ((ann, workspaces), (bob, list(reversed(workspaces)))):
        for workspace in places:
            add_member(setup, workspace, "member", user)
    setup.commit()
    first, second = connect(), connect()
    run(first, "delete from auth.users where id = %s", [ann])
    call = Call(second, lambda connection: run(connection, "delete from auth.users where id = %s", [bob]))
    wait_until_blocked(observer, second)
    first.commit()
    assert call.result() == "ok"
