"""Members, roles, the ceiling, and the owner that there always is."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from ..identities import (
    add_member,
    as_user,
    make_project,
    make_user,
    make_workspace,
    one,
    refused,
    run,
)

Connection = psycopg.Connection[Any]
NOBODY = "99999999-9999-4999-8999-999999999999"


def set_role(db: Connection, workspace: Any, user: Any, role: str) -> None:
    run(db, "select public.set_member_role(%s, %s, %s)", [workspace, user, role])


def role_of(db: Connection, workspace: Any, user: Any) -> str:
    key: str = one(
        db,
        "select r.key from workspace_members m join roles r on r.id = m.role_id where m.workspace_id = %s and m.user_id = %s",
        [workspace, user],
    )
    return key


def test_the_last_owner_cannot_leave_be_demoted_be_removed_or_be_deleted(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    admin = add_member(db, workspace, "admin")
    with as_user(db, owner) as session:
        for call in (
            "leave_workspace(%(w)s)",
            "remove_member(%(w)s, %(o)s)",
            "set_member_role(%(w)s, %(o)s, 'member')",
        ):
            with refused("last_owner"), session.transaction():
                run(db, f"select public.{call}", {"w": workspace, "o": owner})
    with as_user(db, admin) as session:
        for call in ("remove_member(%(w)s, %(o)s)", "set_member_role(%(w)s, %(o)s, 'member')"):
            with refused("above_your_role"), session.transaction():
                run(db, f"select public.{call}", {"w": workspace, "o": owner})
    for statement in (
        "delete from auth.users where id = %(o)s",
        "delete from public.profiles where id = %(o)s",
        "delete from public.workspace_members where workspace_id = %(w)s",
        "update public.workspace_members set role_id = (select id from roles where key = 'viewer') where workspace_id = %(w)s",
    ):
        with refused("last_owner"), db.transaction():
            run(db, statement, {"w": workspace, "o": owner})
    assert role_of(db, workspace, owner) == "owner"


def test_ownership_is_transferred_in_one_step(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    heir = add_member(db, workspace, "viewer")
    admin = add_member(db, workspace, "admin")
    with as_user(db, admin), refused("permission_denied"), db.transaction():
        run(db, "select public.transfer_ownership(%s, %s)", [workspace, admin])
    with as_user(db, owner):
        run(db, "select public.transfer_ownership(%s, %s)", [workspace, heir])
    assert (role_of(db, workspace, heir), role_of(db, workspace, owner)) == ("owner", "admin")
    with as_user(db, heir), refused("member_not_found"), db.transaction():
        run(db, "select public.transfer_ownership(%s, %s)", [workspace, NOBODY])


def test_nobody_grants_more_than_they_hold(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    admin, member = add_member(db, workspace, "admin"), add_member(db, workspace, "member")
    with as_user(db, admin) as session:
        for user in (member, admin):
            with refused("above_your_role"), session.transaction():
                set_role(db, workspace, user, "owner")
        set_role(db, workspace, member, "admin")
        with refused("above_your_role"), session.transaction():
            run(db, "select public.invite_member(%s, 'x@example.com', 'owner')", [workspace])
        with refused("above_your_role"), session.transaction():
            run(db, "select public.create_role(%s, 'boss', 'Boss', '{workspace.delete}')", [workspace])
    assert role_of(db, workspace, member) == "admin"


def test_a_custom_role_that_holds_everything_still_does_not_deal_in_ownership(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    with as_user(db, owner):
        run(
            db,
            "select public.create_role(%s, 'all', 'All', (select array_agg(permission) from permissions))",
            [workspace],
        )
    almighty = add_member(db, workspace, "all")
    with as_user(db, almighty) as session:
        for call in ("set_member_role(%s, %s, 'owner')", "transfer_ownership(%s, %s)"):
            with refused("above_your_role"), session.transaction():
                run(db, f"select public.{call}", [workspace, almighty])
        with refused("above_your_role"), session.transaction():
            run(db, "select public.remove_member(%s, %s)", [workspace, owner])


def test_a_custom_role_allows_what_it_says_at_once_and_can_be_changed_and_deleted(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    make_project(db, workspace)
    with as_user(db, owner):
        role = one(
            db,
            "select public.create_role(%s, 'auditor', 'Auditor', '{workspace.read,projects.read,projects.read}')",
            [workspace],
        )
    auditor = add_member(db, workspace, "auditor")
    with as_user(db, auditor):
        assert len(run(db, "select * from projects")) == 1
        with refused("42501"), db.transaction():
            run(db, "insert into projects (workspace_id, name) values (%s, 'X')", [workspace])
    with as_user(db, owner):
        run(db, "select public.update_role(%s, %s, permissions => '{workspace.read}')", [workspace, role])
    with as_user(db, auditor):
        assert run(db, "select * from projects") == []
        assert [row["my_permissions"] for row in run(db, "select public.my_permissions(%s)", [workspace])] == [
            "workspace.read"
        ]
    with as_user(db, owner) as session:
        with refused("role_in_use"), session.transaction():
            run(db, "select public.delete_role(%s, %s)", [workspace, role])
        set_role(db, workspace, auditor, "viewer")
        run(db, "select public.delete_role(%s, %s)", [workspace, role])
        with refused("role_not_found"), session.transaction():
            run(db, "select public.delete_role(%s, %s)", [workspace, role])


@pytest.mark.parametrize(
    ("key", "permissions", "code"),
    [
        ("admin", "{workspace.read}", "role_exists"),
        ("Bad Key", "{workspace.read}", "23514"),
        ("fine", "{no.such}", "permission_unknown"),
    ],
)
def test_a_malformed_custom_role_is_refused(db: Connection, key: str, permissions: str, code: str) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    with as_user(db, owner), refused(code), db.transaction():
        run(db, "select public.create_role(%s, %s, 'N', %s)", [workspace, key, permissions])


def test_custom_roles_need_the_feature_and_the_refusal_names_the_plan(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner, plan="pro")
    with as_user(db, owner), pytest.raises(psycopg.Error) as caught, db.transaction():
        run(db, "select public.create_role(%s, 'auditor', 'Auditor', '{workspace.read}')", [workspace])
    assert '"lifted_by\\": \\"enterprise' in str(caught.value.diag.message_primary)
    assert '"status": 402' in str(caught.value.diag.message_detail)
    run(
        db,
        "insert into billing.feature_overrides (workspace_id, feature, is_enabled, reason) values (%s, 'custom_roles', true, 'deal')",
        [workspace],
    )
    with as_user(db, owner):
        run(db, "select public.create_role(%s, 'auditor', 'Auditor', '{workspace.read}')", [workspace])


def test_a_role_of_another_workspace_cannot_be_given_by_any_path(db: Connection) -> None:
    owner = make_user(db)
    here, there = make_workspace(db, owner), make_workspace(db, owner)
    with as_user(db, owner):
        role = one(db, "select public.create_role(%s, 'foreign', 'F', '{workspace.read}')", [there])
    member = add_member(db, here, "member")
    with as_user(db, owner), refused("role_not_found"), db.transaction():
        set_role(db, here, member, "foreign")
    with refused("role_not_found"), db.transaction():
        run(
            db,
            "update workspace_members set role_id = %s where workspace_id = %s and user_id = %s",
            [role, here, member],
        )
    with refused("42501"), db.transaction():
        run(db, "update roles set workspace_id = %s where id = %s", [here, role])


def test_removal_binds_at_the_next_statement(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    make_project(db, workspace)
    member = add_member(db, workspace, "member")
    with as_user(db, member):
        assert len(run(db, "select * from projects")) == 1
    with as_user(db, owner):
        run(db, "select public.remove_member(%s, %s)", [workspace, member])
    with as_user(db, member):
        assert run(db, "select * from projects") == []
        with refused("workspace_not_found"), db.transaction():
            run(db, "select public.leave_workspace(%s)", [workspace])


def test_a_stranger_learns_nothing_from_any_function(db: Connection) -> None:
    owner, stranger = make_user(db), make_user(db)
    workspace = make_workspace(db, owner)
    calls = (
        "delete_workspace(%(w)s)", "restore_workspace(%(w)s)", "leave_workspace(%(w)s)", "remove_member(%(w)s, %(u)s)",
        "set_member_role(%(w)s, %(u)s, 'viewer')", "transfer_ownership(%(w)s, %(u)s)",
        "invite_member(%(w)s, 'a@example.com')", "resend_invitation(%(w)s, %(u)s)", "revoke_invitation(%(w)s, %(u)s)",
        "create_role(%(w)s, 'k', 'N', '{}')", "update_role(%(w)s, %(u)s)", "delete_role(%(w)s, %(u)s)",
    )  # fmt: skip
    with as_user(db, stranger) as session:
        for call in calls:
            for named in (workspace, NOBODY):
                with refused("workspace_not_found"), session.transaction():
                    run(db, f"select public.{call}", {"w": named, "u": owner})
        assert run(db, "select public.my_permissions(%s)", [workspace]) == []


def test_nobody_is_kept_in_by_a_role_that_allows_nothing_or_a_missing_second_factor(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    with as_user(db, owner):
        run(db, "select public.create_role(%s, 'nothing', 'Nothing', '{}')", [workspace])
    member = add_member(db, workspace, "nothing")
    run(db, "update workspaces set require_mfa = true where id = %s", [workspace])
    with as_user(db, member):
        run(db, "select public.leave_workspace(%s)", [workspace])
        assert run(db, "select * from public.my_workspaces()") == []


def test_a_system_role_added_later_wins_over_a_custom_role_of_its_key(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    with as_user(db, owner):
        run(db, "select public.create_role(%s, 'guest', 'Guest', '{}')", [workspace])
    system = one(db, "insert into roles (key, name) values ('guest', 'Guest') returning id")
    assert one(db, "select authz.role_named(%s, 'guest')", [workspace]) == system
