"""Invitations: single use, bound to a verified e-mail, hashed, expiring, revocable, resendable."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from ..identities import add_member, as_user, make_user, make_workspace, one, refused, run

Connection = psycopg.Connection[Any]


def invite(db: Connection, workspace: Any, email: str, role: str = "member") -> dict[str, Any]:
    return run(db, "select * from public.invite_member(%s, %s, %s)", [workspace, email, role])[0]


def accept(db: Connection, user: Any, token: str) -> Any:
    with as_user(db, user):
        return one(db, "select public.accept_invitation(%s)", [token])


@pytest.fixture
def owner(db: Connection) -> Any:
    return make_user(db)


@pytest.fixture
def workspace(db: Connection, owner: Any) -> Any:
    return make_workspace(db, owner)


def test_an_invitation_is_accepted_once_by_whoever_verified_its_address(
    db: Connection, owner: Any, workspace: Any
) -> None:
    with as_user(db, owner):
        token = invite(db, workspace, "  Bob@Example.COM ", "viewer")["token"]
    bob = make_user(db, "bob@example.com")
    with as_user(db, bob):
        preview = run(db, "select workspace_name, role_name from public.preview_invitation(%s)", [token])
    assert preview == [{"workspace_name": "Test", "role_name": "Viewer"}]
    assert accept(db, bob, token) == workspace
    with refused("invitation_used"), db.transaction():
        accept(db, bob, token)
    assert one(db, "select accepted_by from invitations where workspace_id = %s", [workspace]) == bob
    with as_user(db, bob):
        assert run(db, "select role from public.my_workspaces()") == [{"role": "viewer"}]


def test_the_token_is_nowhere_in_the_database(db: Connection, owner: Any, workspace: Any) -> None:
    with as_user(db, owner):
        token = invite(db, workspace, "bob@example.com")["token"]
    dumped = run(
        db,
        "select i::text as line from invitations i union all select encode(token_hash, 'escape') from tenancy.invitation_tokens",
    )
    assert not any(token[4:] in row["line"] for row in dumped)
    assert len(token) == len("rhi_") + 64


def test_another_address_and_an_unverified_one_are_refused(db: Connection, owner: Any, workspace: Any) -> None:
    with as_user(db, owner):
        token = invite(db, workspace, "bob@example.com")["token"]
    with refused("invitation_for_another"), db.transaction():
        accept(db, make_user(db, "eve@example.com"), token)
    with refused("email_not_verified"), db.transaction():
        accept(db, make_user(db, "bob@example.com", is_verified=False), token)


def test_an_expired_invitation_is_refused_and_makes_room_for_a_new_one(
    db: Connection, owner: Any, workspace: Any
) -> None:
    with as_user(db, owner):
        token = invite(db, workspace, "bob@example.com")["token"]
        with refused("already_invited"), db.transaction():
            invite(db, workspace, "BOB@example.com")
    bob = make_user(db, "bob@example.com")
    run(db, "insert into ops.clock (set_to) values (now() + interval '7 days')")
    with refused("invitation_expired"), db.transaction():
        accept(db, bob, token)
    with as_user(db, owner):
        fresh = invite(db, workspace, "bob@example.com")["token"]
    with refused("invitation_not_found"), db.transaction():
        accept(db, bob, token)
    assert accept(db, bob, fresh) == workspace


def test_resending_makes_a_new_token_and_voids_the_old_one(db: Connection, owner: Any, workspace: Any) -> None:
    with as_user(db, owner):
        first = invite(db, workspace, "bob@example.com")
        again = run(db, "select * from public.resend_invitation(%s, %s)", [workspace, first["id"]])[0]
    bob = make_user(db, "bob@example.com")
    with refused("invitation_not_found"), db.transaction():
        accept(db, bob, first["token"])
    assert accept(db, bob, again["token"]) == workspace
    assert one(db, "select sent_count from invitations where id = %s", [first["id"]]) == 2


def test_a_revoked_invitation_is_gone(db: Connection, owner: Any, workspace: Any) -> None:
    with as_user(db, owner):
        made = invite(db, workspace, "bob@example.com")
        run(db, "select public.revoke_invitation(%s, %s)", [workspace, made["id"]])
        with refused("invitation_not_found"), db.transaction():
            run(db, "select public.revoke_invitation(%s, %s)", [workspace, made["id"]])
    with refused("invitation_not_found"), db.transaction():
        accept(db, make_user(db, "bob@example.com"), made["token"])


def test_an_invitation_of_another_workspace_cannot_be_touched(db: Connection, owner: Any, workspace: Any) -> None:
    with as_user(db, owner):
        made = invite(db, workspace, "bob@example.com")
    other = make_user(db)
    theirs = make_workspace(db, other)
    with as_user(db, other):
        for call in ("resend_invitation", "revoke_invitation"):
            with refused("invitation_not_found"), db.transaction():
                run(db, f"select public.{call}(%s, %s)", [theirs, made["id"]])


@pytest.mark.parametrize("loss", ["demoted", "removed", "suspended"])
def test_the_ceiling_is_checked_again_when_accepting(db: Connection, owner: Any, workspace: Any, loss: str) -> None:
    admin = add_member(db, workspace, "admin")
    with as_user(db, admin):
        token = invite(db, workspace, "bob@example.com", "admin")["token"]
    statement = {
        "demoted": "select tenancy.change_role(%(w)s, %(a)s, authz.role_named(%(w)s, 'member'))",
        "removed": "select tenancy.drop_member(%(w)s, %(a)s)",
        "suspended": "select tenancy.suspend_user(%(a)s, 'why')",
    }[loss]
    run(db, statement, {"w": workspace, "a": admin})
    with refused("inviter_lost_permission"), db.transaction():
        accept(db, make_user(db, "bob@example.com"), token)


@pytest.mark.parametrize(
    "email", ["", "bob", "bob@", "@example.com", "a b@example.com", "x" * 400 + "@example.com", None]
)
def test_a_malformed_address_is_refused(db: Connection, owner: Any, workspace: Any, email: str | None) -> None:
    with as_user(db, owner), refused("email_invalid"), db.transaction():
        run(db, "select * from public.invite_member(%s, %s, 'member')", [workspace, email])


@pytest.mark.parametrize("token", ["", "rhi_", "x" * 10_000_000, "rhi_" + "0" * 64, None])
def test_a_malformed_token_is_refused(db: Connection, token: str | None) -> None:
    with as_user(db, make_user(db)), refused("invitation_not_found"), db.transaction():
        run(db, "select public.accept_invitation(%s)", [token])


def test_a_member_is_not_invited_again_and_cannot_accept_again(db: Connection, owner: Any, workspace: Any) -> None:
    with as_user(db, owner):
        token = invite(db, workspace, "bob@example.com")["token"]
    bob = make_user(db, "bob@example.com")
    add_member(db, workspace, "viewer", bob)
    with as_user(db, owner), refused("already_a_member"), db.transaction():
        invite(db, workspace, "bob@example.com")
    with refused("already_a_member"), db.transaction():
        accept(db, bob, token)


def test_nobody_accepts_into_a_suspended_or_deleted_workspace(db: Connection, owner: Any, workspace: Any) -> None:
    with as_user(db, owner):
        token = invite(db, workspace, "bob@example.com")["token"]
    bob = make_user(db, "bob@example.com")
    run(db, "select tenancy.suspend_workspace(%s, 'why')", [workspace])
    with refused("invitation_not_found"), db.transaction():
        accept(db, bob, token)
    run(db, "select tenancy.resume_workspace(%s)", [workspace])
    run(db, "select tenancy.mark_deleted(%s)", [workspace])
    with refused("invitation_not_found"), db.transaction():
        accept(db, bob, token)


def test_the_invitation_of_a_deleted_account_is_void(db: Connection, owner: Any, workspace: Any) -> None:
    admin = add_member(db, workspace, "admin")
    with as_user(db, admin):
        token = invite(db, workspace, "bob@example.com", "admin")["token"]
    run(db, "delete from auth.users where id = %s", [admin])
    with refused("inviter_lost_permission"), db.transaction():
        accept(db, make_user(db, "bob@example.com"), token)
