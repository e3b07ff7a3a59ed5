"""Workspaces and people: how they begin, what they are called, how they are shut, deleted and restored."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from ..identities import (
    add_member,
    as_anon,
    as_service,
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


def test_whoever_makes_a_workspace_owns_it_and_it_starts_on_the_default_plan(db: Connection) -> None:
    user = make_user(db)
    with as_user(db, user):
        made = run(db, "select * from public.create_workspace(' Acme Inc. ', ' AcMe-1 ')")[0]
    assert (made["slug"], made["name"], made["created_by"]) == ("acme-1", "Acme Inc.", user)
    with as_user(db, user):
        assert run(db, "select role from public.my_workspaces()") == [{"role": "owner"}]
    assert one(db, "select plan_id from billing.workspace_plans where workspace_id = %s", [made["id"]]) == "free"


@pytest.mark.parametrize(
    ("slug", "code"),
    [
        ("ab", "slug_invalid"), ("-acme", "slug_invalid"), ("acme-", "slug_invalid"), ("ac me", "slug_invalid"),
        ("ÄCME", "slug_invalid"), ("a" * 49, "slug_invalid"), ("a" * 10_000_000, "slug_invalid"), ("", "slug_invalid"),
        (None, "slug_invalid"), ("acme\x01", "slug_invalid"), ("Admin", "slug_reserved"), ("api", "slug_reserved"),
    ],
)  # fmt: skip
def test_a_malformed_or_reserved_slug_is_refused_and_leaves_nothing(
    db: Connection, slug: str | None, code: str
) -> None:
    user = make_user(db)
    with as_user(db, user) as session:
        with refused(code), session.transaction():
            run(db, "select public.create_workspace('Acme', %s)", [slug])
        assert run(db, "select * from public.my_workspaces()") == []


@pytest.mark.parametrize("name", ["", "   ", "x" * 121, "a\nb", "a\x07b", "x" * 10_000_000])
def test_a_malformed_name_is_refused(db: Connection, name: str) -> None:
    with as_user(db, make_user(db)), refused("23514"), db.transaction():
        run(db, "select public.create_workspace(%s, 'acme-names')", [name])


def test_a_slug_is_unique_regardless_of_case_also_while_its_workspace_is_deleted(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner, slug="taken-slug")
    run(db, "select tenancy.mark_deleted(%s)", [workspace])
    with as_user(db, make_user(db)), refused("slug_taken"), db.transaction():
        run(db, "select public.create_workspace('Other', 'Taken-SLUG')")


def test_nobody_without_an_account_makes_a_workspace(db: Connection) -> None:
    with as_anon(db), refused("42501"), db.transaction():
        run(db, "select public.create_workspace('A', 'anon-made')")
    anonymous = make_user(db, is_anonymous=True)
    with as_user(db, anonymous, is_anonymous=True), refused("not_authenticated"), db.transaction():
        run(db, "select public.create_workspace('A', 'anon-made')")
    with as_service(db), refused("42501"), db.transaction():
        run(db, "select public.create_workspace('A', 'anon-made')")


def test_a_workspace_without_an_owner_cannot_be_committed(connect: Any) -> None:
    connection = connect()
    run(connection, "insert into public.workspaces (name, slug) values ('Nobody''s', 'nobodys')")
    with refused("last_owner"):
        connection.commit()


def test_a_suspended_person_is_shut_out_everywhere_and_comes_back(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    make_project(db, workspace)
    run(db, "select tenancy.suspend_user(%s, 'stolen')", [owner])
    with as_user(db, owner) as session:
        assert run(db, "select * from projects") == []
        assert run(db, "select status from public.my_workspaces()") == [{"status": "suspended"}]
        for call in ("create_workspace('N', 'new-one')", f"leave_workspace('{workspace}')"):
            with refused("user_suspended"), session.transaction():
                run(db, f"select public.{call}")
    run(db, "select tenancy.resume_user(%s)", [owner])
    with as_user(db, owner):
        assert len(run(db, "select * from projects")) == 1


def test_a_suspended_workspace_shows_nothing_and_says_why(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    make_project(db, workspace)
    run(db, "select tenancy.suspend_workspace(%s, 'abuse')", [workspace])
    with as_user(db, owner) as session:
        assert run(db, "select * from projects") == []
        assert run(db, "select * from workspaces") == []
        with refused("workspace_suspended"), session.transaction():
            run(db, "select public.delete_workspace(%s)", [workspace])
        assert run(db, "select status from public.my_workspaces()") == [{"status": "suspended"}]
    run(db, "select tenancy.resume_workspace(%s)", [workspace])
    with as_user(db, owner):
        assert len(run(db, "select * from projects")) == 1


def test_a_workspace_that_requires_mfa_answers_no_aal1_session(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    make_project(db, workspace)
    switch_on = "update workspaces set require_mfa = true where id = %s"
    with as_user(db, owner), refused("mfa_required"), db.transaction():
        run(db, switch_on, [workspace])
    with as_user(db, owner, aal="aal2"):
        run(db, switch_on, [workspace])
    with as_user(db, owner) as session:
        for table in ("projects", "workspaces", "workspace_members", "workspace_usage"):
            assert run(db, f"select * from {table}") == []
        with refused("mfa_required"), session.transaction():
            run(db, "select public.delete_workspace(%s)", [workspace])
        assert run(db, "select status from public.my_workspaces()") == [{"status": "mfa_required"}]
    with as_user(db, owner, aal="aal2"):
        assert len(run(db, "select * from projects")) == 1


def test_a_deleted_workspace_can_be_restored_until_it_is_purged(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    make_project(db, workspace)
    admin = add_member(db, workspace, "admin")
    with as_user(db, admin), refused("permission_denied"), db.transaction():
        run(db, "select public.delete_workspace(%s)", [workspace])
    with as_user(db, owner):
        run(db, "select public.delete_workspace(%s)", [workspace])
        assert run(db, "select * from projects") == []
        assert run(db, "select status from public.my_workspaces()") == [{"status": "deleted"}]
    with as_user(db, admin), refused("workspace_not_found"), db.transaction():
        run(db, "select public.restore_workspace(%s)", [workspace])
    assert one(db, "select tenancy.purge_workspaces()") == 0
    with as_user(db, owner):
        run(db, "select public.restore_workspace(%s)", [workspace])
        assert len(run(db, "select * from projects")) == 1
        run(db, "select public.delete_workspace(%s)", [workspace])
    run(db, "insert into ops.clock (set_to) values (now() + interval '30 days')")
    assert one(db, "select tenancy.purge_workspaces()") == 1
    assert run(db, "select from projects where workspace_id = %s", [workspace]) == []
    assert run(db, "select from workspaces where id = %s", [workspace]) == []


def test_a_deleted_workspace_without_an_owner_is_not_restored(connect: Any) -> None:
    connection = connect()
    owner = make_user(connection)
    workspace = make_workspace(connection, owner)
    run(connection, "select tenancy.mark_deleted(%s)", [workspace])
    connection.commit()
    run(connection, "delete from auth.users where id = %s", [owner])
    connection.commit()
    run(connection, "select tenancy.mark_restored(%s)", [workspace])
    with refused("last_owner"):
        connection.commit()


def test_a_profile_follows_its_user_and_never_blocks_a_sign_up(db: Connection) -> None:
    user = make_user(db, "first@example.com")
    run(db, "update auth.users set email = 'second@example.com' where id = %s", [user])
    assert one(db, "select email from profiles where id = %s", [user]) == "second@example.com"
    run(db, "alter table profiles add constraint broken check (email <> 'third@example.com')")
    third = make_user(db, "third@example.com")
    assert run(db, "select from profiles where id = %s", [third]) == []
    run(db, "alter table profiles drop constraint broken")
    with as_user(db, third):
        run(db, "select public.create_workspace('Healed', 'healed')")
    assert one(db, "select email from profiles where id = %s", [third]) == "third@example.com"


def test_people_see_themselves_and_fellow_members_only(db: Connection) -> None:
    owner, stranger = make_user(db), make_user(db)
    workspace = make_workspace(db, owner)
    member = add_member(db, workspace, "viewer")
    with as_user(db, owner):
        assert {row["id"] for row in run(db, "select id from profiles")} == {owner, member}
        assert run(db, "update profiles set display_name = 'X' where id = %s returning id", [member]) == []
        assert len(run(db, "update profiles set display_name = 'Me' where id = %s returning id", [owner])) == 1
        with refused("42501"), db.transaction():
            run(db, "update profiles set email = 'other@example.com' where id = %s", [owner])
    with as_user(db, stranger):
        assert [row["id"] for row in run(db, "select id from profiles")] == [stranger]


def test_a_word_reserved_later_stays_with_whoever_has_it(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner, slug="early-bird")
    run(db, "insert into tenancy.reserved_slugs values ('early-bird')")
    with as_user(db, owner):
        run(db, "update workspaces set name = 'Renamed' where id = %s", [workspace])
        run(db, "select public.delete_workspace(%s)", [workspace])


def test_operators_give_ownership_only_to_a_verified_address_and_see_where_several_share_one(db: Connection) -> None:
    make_user(db, "squatter@example.com", is_verified=False)
    with refused("user_not_found"), db.transaction():
        run(db, "select tenancy.person('squatter@example.com', true)")
    assert one(db, "select tenancy.person(' SQUATTER@example.com')")
    run(db, "insert into auth.users (id, email, is_sso_user) values (gen_random_uuid(), 'squatter@example.com', true)")
    with refused("user_ambiguous"), db.transaction():
        run(db, "select tenancy.person('squatter@example.com')")
