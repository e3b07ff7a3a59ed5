"""What the clock brings about: trials without a card, reminders, dunning on its days, read-only, and back."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from ..identities import add_member, as_user, make_project, make_user, make_workspace, one, refused, run
from ..isolation.world import tenant_tables
from ..races import Connection
from .world import Billing, catalogue

DAY = 86_400


def told(billing: Billing) -> list[str]:
    """The kinds of notifications about billing, in their order."""
    rows = run(
        billing.connection, "select kind from public.notifications where kind like 'billing.%%' order by created_at, id"
    )
    return [row["kind"].removeprefix("billing.") for row in rows]


def pass_days(billing: Billing, days: float) -> None:
    """Days go by, an hour at a time, with the clock's own schedule."""
    for _ in range(int(days * 4)):
        billing.stripe.advance(DAY // 4)
        billing.settle()
        run(billing.connection, "select billing.plan_reminders(), billing.advance()")


def fail(billing: Billing, workspace: uuid.UUID) -> None:
    """A renewal is declined, just now."""
    billing.buy(workspace)
    billing.settle()
    billing.stripe.set_card(billing.customer(workspace), "pm_declined")
    end = next(billing.stripe.store.every("subscription"))["items"]["data"][0]["current_period_end"]
    billing.stripe.advance(to=end)
    billing.settle()
    run(billing.connection, "update notify.settings set product_name = 'Test'")


def test_dunning_goes_by_its_days_and_ends_in_read_only(billing: Billing, workspace: uuid.UUID) -> None:
    fail(billing, workspace)
    begun = told(billing)
    assert begun[-1] == "payment_failed"
    assert billing.access(workspace)["state"] == "grace"
    steps = run(
        billing.connection,
        "select kind, due_at - of as after from billing.steps where kind in ('dunning', 'restrict') order by due_at",
    )
    assert [(row["kind"], row["after"].days) for row in steps] == [("dunning", 3), ("dunning", 7), ("restrict", 14)]
    pass_days(billing, 2.5)
    assert told(billing) == begun
    pass_days(billing, 1)
    assert told(billing)[len(begun) :] == ["payment_reminder"]
    pass_days(billing, 4)
    assert told(billing)[len(begun) :] == ["payment_reminder"] * 2
    pass_days(billing, 7)
    # Stripe gave up on day seven; the grace period held all the same.
    assert billing.access(workspace)["can_write"] is False
    assert told(billing)[-1] == "restricted"
    billing.stripe.set_card(billing.customer(workspace), "pm_card_visa")
    for invoice in list(billing.stripe.store.every("invoice", status="open")):
        billing.stripe.call("POST", f"/v1/invoices/{invoice['id']}/pay", {})
    billing.settle()
    assert billing.access(workspace)["state"] == "active"
    assert told(billing)[-1] == "restored"
    assert one(billing.connection, "select count(*) from billing.dunning_cases where ended_at is null") == 0
    assert (
        one(
            billing.connection,
            "select count(*) from billing.steps where done_at is null and kind in ('dunning', 'restrict')",
        )
        == 0
    )


def test_what_is_paid_in_time_has_no_more_reminders(billing: Billing, workspace: uuid.UUID) -> None:
    fail(billing, workspace)
    billing.stripe.set_card(billing.customer(workspace), "pm_card_visa")
    pass_days(billing, 4)
    # Stripe tried again on its third day, and was paid.
    assert billing.access(workspace)["state"] == "active"
    assert "restricted" not in told(billing) and told(billing)[-1] == "restored"
    assert {
        row["outcome"] for row in run(billing.connection, "select outcome from billing.steps where kind = 'restrict'")
    } == {"skipped"}


def test_the_operator_has_the_last_word_on_grace(billing: Billing, workspace: uuid.UUID) -> None:
    fail(billing, workspace)
    later = datetime.fromtimestamp(billing.stripe.store.now() + 60 * DAY, UTC)
    billing.stripe.store.after_retries = "past_due"
    with refused("reason_missing"), billing.connection.transaction():
        run(billing.connection, "select billing.override_dunning(%s, %s, '')", [workspace, later])
    run(billing.connection, "select billing.override_dunning(%s, %s, 'promised')", [workspace, later])
    assert billing.access(workspace)["until"] == later
    pass_days(billing, 20)
    assert billing.access(workspace)["state"] == "grace"
    past = datetime.fromtimestamp(billing.stripe.store.now() - 1, UTC)
    run(billing.connection, "select billing.override_dunning(%s, %s, 'enough')", [workspace, past])
    assert billing.access(workspace)["state"] == "restricted"
    other = make_workspace(billing.connection, make_user(billing.connection), plan="free")
    with refused("no_dunning"), billing.connection.transaction():
        run(billing.connection, "select billing.override_dunning(%s, %s, 'x')", [other, later])


def test_what_is_restricted_reads_everything_and_writes_nothing(
    billing: Billing, workspace: uuid.UUID, owner: uuid.UUID
) -> None:
    make_project(billing.connection, workspace)
    fail(billing, workspace)
    run(billing.connection, "select billing.override_dunning(%s, '2020-01-01', 'test')", [workspace])
    member = add_member(billing.connection, workspace, "member")
    tables = tenant_tables(billing.connection)
    with as_user(billing.connection, owner):
        assert len(run(billing.connection, "select * from public.projects")) == 1
        for table in tables:
            if table in ("project_members",):
                continue
            with (
                pytest.raises(Exception, match=r"row-level security|permission denied|read only|violates"),
                billing.connection.transaction(),
            ):
                run(billing.connection, f"insert into public.{table} (workspace_id) values (%s)", [workspace])
        assert run(billing.connection, "update public.projects set name = 'x' returning id") == []
        with refused("workspace_restricted"), billing.connection.transaction():
            run(billing.connection, "select public.invite_member(%s, 'a@example.com', 'member')", [workspace])
        # What lets it pay, and what lets people leave or be removed, works.
        run(billing.connection, "select public.billing_details(%s)", [workspace])
        run(billing.connection, "select public.remove_member(%s, %s)", [workspace, member])
        assert one(billing.connection, "select state from public.billing_access(%s)", [workspace]) == "restricted"


def test_nobody_else_is_restricted(billing: Billing, workspace: uuid.UUID, owner: uuid.UUID) -> None:
    other = make_workspace(billing.connection, owner, plan="free")
    fail(billing, workspace)
    run(billing.connection, "select billing.override_dunning(%s, '2020-01-01', 'test')", [workspace])
    with as_user(billing.connection, owner):
        run(billing.connection, "insert into public.projects (workspace_id, name) values (%s, 'here')", [other])
        rows = run(billing.connection, "select authz.workspaces_with('projects.create') as id")
    assert [row["id"] for row in rows] == [other]


# Trials -------------------------------------------------------------------------------------------


def starting(billing: Billing) -> None:
    document = catalogue(billing.connection)
    document["plans"]["pro"]["starts_with_trial"] = True
    run(billing.connection, "select * from billing.apply_plans(%s)", [Jsonb(document)])


def test_a_trial_starts_with_the_workspace_reminds_twice_and_ends_free(billing: Billing) -> None:
    starting(billing)
    workspace = make_workspace(billing.connection, make_user(billing.connection), plan="free")
    billing.settle()
    access = billing.access(workspace)
    assert (access["plan"], access["state"], access["reason"]) == ("pro", "trialing", "trial")
    pass_days(billing, 10.75)
    assert told(billing) == []
    pass_days(billing, 0.5)
    assert told(billing) == ["trial_ending"]
    pass_days(billing, 2)
    assert told(billing) == ["trial_ending"] * 2
    titles = [
        row["title"]
        for row in run(
            billing.connection,
            "select title from public.notifications where kind = 'billing.trial_ending' order by created_at",
        )
    ]
    assert ("ends in 3 days" in titles[0], "ends in 1 days" in titles[1]) == (True, True)
    pass_days(billing, 1)
    assert told(billing)[-1] == "trial_ended"
    access = billing.access(workspace)
    assert (access["plan"], access["state"], access["can_write"]) == ("free", "free", True)
    assert access["limits"]["projects"] == 3
    assert (
        one(
            billing.connection,
            "select max from billing.usage_counters where workspace_id = %s and resource = 'projects'",
            [workspace],
        )
        == 3
    )
    with refused("trial_used"), billing.connection.transaction():
        run(billing.connection, "select billing.begin_trial(%s)", [workspace])


def test_a_trial_on_request_is_once_and_for_those_who_manage_billing(
    billing: Billing, workspace: uuid.UUID, owner: uuid.UUID
) -> None:
    viewer = add_member(billing.connection, workspace, "viewer")
    # Whoever does something is not told of it; the others are.
    add_member(billing.connection, workspace, "admin")
    with as_user(billing.connection, viewer), refused("permission_denied"), billing.connection.transaction():
        run(billing.connection, "select public.start_trial(%s)", [workspace])
    with as_user(billing.connection, owner):
        ends = one(billing.connection, "select public.start_trial(%s)", [workspace])
        with refused("trial_used"), billing.connection.transaction():
            run(billing.connection, "select public.start_trial(%s)", [workspace])
    assert (ends - datetime.fromtimestamp(billing.stripe.store.now(), UTC)).days == 14
    assert told(billing)[-1] == "trial_started"


def test_who_buys_in_a_trial_is_on_what_they_bought(billing: Billing, workspace: uuid.UUID) -> None:
    run(billing.connection, "select billing.begin_trial(%s)", [workspace])
    billing.buy(workspace, "seat_monthly")
    billing.settle()
    assert (billing.access(workspace)["plan"], billing.access(workspace)["state"]) == ("enterprise", "active")
    pass_days(billing, 15)
    assert billing.access(workspace)["plan"] == "enterprise"


def test_the_operator_extends_a_trial_that_is_over(billing: Billing, workspace: uuid.UUID) -> None:
    run(billing.connection, "select billing.begin_trial(%s)", [workspace])
    pass_days(billing, 15)
    assert billing.access(workspace)["state"] == "free"
    later = datetime.fromtimestamp(billing.stripe.store.now() + 5 * DAY, UTC)
    run(billing.connection, "select billing.extend_trial(%s, %s, 'was ill')", [workspace, later])
    assert (billing.access(workspace)["state"], billing.access(workspace)["until"]) == ("trialing", later)
    for wrong in ("2020-01-01", "2090-01-01"):
        with refused("trial_end_invalid"), billing.connection.transaction():
            run(billing.connection, "select billing.extend_trial(%s, %s, 'why')", [workspace, wrong])


def test_a_trial_with_a_card_is_extended_at_stripe(billing: Billing, workspace: uuid.UUID) -> None:
    subscription = billing.buy(workspace, trial_period_days=14)
    billing.settle()
    later = billing.stripe.store.now() + 30 * DAY
    run(billing.connection, "select billing.extend_trial(%s, to_timestamp(%s), 'asked')", [workspace, later])
    billing.stripe.advance(5)
    billing.settle()
    assert billing.stripe.store.get(subscription["id"])["trial_end"] == later
    assert int(billing.access(workspace)["until"].timestamp()) == later


# Reminders ----------------------------------------------------------------------------------------


def test_renewals_and_cards_are_reminded_of_once(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    charge = next(billing.stripe.store.every("charge"))
    expires = datetime.fromtimestamp(billing.stripe.store.now(), UTC)
    charge["payment_method_details"]["card"].update(exp_month=expires.month, exp_year=expires.year)
    billing.stripe.store.emit("charge.updated", charge, billing.stripe.store.now() + 5)
    billing.stripe.advance(10)
    billing.settle()
    for _ in range(3):
        run(billing.connection, "select billing.plan_card_reminders(), billing.advance()")
    assert told(billing).count("card_expiring") == 1
    pass_days(billing, 29)
    assert told(billing).count("renewal_upcoming") == 1
    text = one(billing.connection, "select title from public.notifications where kind = 'billing.card_expiring'")
    assert text == f"The card ending in 4242 expires {expires:%m/%Y}"


def test_who_gets_the_invoices_is_mailed_too(billing: Billing, workspace: uuid.UUID, owner: uuid.UUID) -> None:
    with as_user(billing.connection, owner):
        run(
            billing.connection,
            'select public.set_billing_details(%s, \'{"email": "bills@acme.example"}\')',
            [workspace],
        )
    fail(billing, workspace)
    mails = run(
        billing.connection,
        "select subject from notify.messages where recipient = 'bills@acme.example' order by created_at",
    )
    assert mails[-1]["subject"] == "A payment for Pro did not go through"


def test_one_workspace_that_goes_wrong_holds_up_nobody(billing: Billing, workspace: uuid.UUID, db: Connection) -> None:
    broken = make_workspace(db, make_user(db), plan="free")
    for place in (broken, workspace):
        run(db, "select billing.begin_trial(%s)", [place])
    run(db, f"""
        create function pg_temp.break() returns trigger language plpgsql as $$ begin
            if new.workspace_id = '{broken}' then raise exception 'broken'; end if; return new; end $$
    """)  # fmt: skip
    run(
        db,
        "create trigger broken before update on billing.workspace_plans for each row execute function pg_temp.break()",
    )
    billing.stripe.advance(15 * DAY)
    billing.tick()
    run(db, "select billing.advance()")
    state = "select state from billing.workspace_plans where workspace_id = %s"
    assert one(db, state, [workspace]) == "free"
    assert one(db, state, [broken]) == "trialing"
    # What time has made of it is read all the same.
    assert billing.access(broken)["state"] == "free"


def test_every_transition_is_declared_recorded_and_told_by_a_kind(db: Connection) -> None:
    pairs: list[Any] = run(db, "select * from billing.access_transitions")
    assert len(pairs) == 20
    kinds = {row["kind"] for row in run(db, "select kind from public.notification_kinds")}
    assert {row["kind"] for row in pairs} <= kinds
    states = {row["state"] for row in run(db, "select state from billing.access_rules where state is not null")}
    assert states == {"trialing", "active", "grace", "restricted", "free"}
    owner = make_user(db)
    workspace = make_workspace(db, owner, plan="free")
    run(db, "select billing.set_plan(%s, 'pro', 'by contract')", [workspace])
    changes = run(
        db,
        "select from_plan_id, to_plan_id, from_state, to_state, reason from billing.access_changes where workspace_id = %s",
        [workspace],
    )
    assert changes == [
        {"from_plan_id": "free", "to_plan_id": "pro", "from_state": "free", "to_state": "active", "reason": "operator"}
    ]
    with pytest.raises(Exception, match="append-only"), db.transaction():
        run(db, "update billing.access_changes set reason = 'x'")
