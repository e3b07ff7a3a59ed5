"""plans.toml: checked whole, brought to the database and to Stripe once, and kept for those who bought before."""

from __future__ import annotations

import copy
import uuid
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from rowhouse import catalogue as plans
from rowhouse.errors import UsageError

from ..identities import make_user, make_workspace, one, refused, run
from ..races import Connection
from .world import Billing, catalogue, price_id, shipped


def test_the_catalogue_that_ships_is_what_the_database_begins_with(db: Connection) -> None:
    document = shipped()
    assert run(db, "select * from billing.plan_flaws(%s)", [Jsonb(document)]) == []
    changed = {row["path"] for row in run(db, "select path from billing.apply_plans(%s, true)", [Jsonb(document)])}
    assert not [
        path for path in changed if ".limits" in path or ".features" in path or path.endswith((".rank", ".name"))
    ]


def test_twice_is_once_here_and_at_stripe(billing: Billing) -> None:
    before = len(billing.stripe.store.events)
    assert (
        run(billing.connection, "select * from billing.apply_plans(%s)", [Jsonb(catalogue(billing.connection))]) == []
    )
    assert billing.sell() == []
    assert len(billing.stripe.store.events) == before
    assert {row["lookup_key"] for row in billing.stripe.store.every("price")} == {
        "pro_monthly",
        "pro_yearly",
        "pro_calls",
        "seat_monthly",
    }
    included = next(billing.stripe.store.every("price", lookup_key="pro_calls"))
    assert [(row["up_to"], row["unit_amount"]) for row in included["tiers"]] == [(1000, 0), (None, 2)]
    assert [row["lookup_key"] for row in billing.stripe.store.every("entitlements.feature")] == ["custom_roles"]


def test_a_dry_run_changes_nothing(billing: Billing) -> None:
    document = catalogue(billing.connection)
    document["plans"]["pro"]["name"] = "Professional"
    shown = run(billing.connection, "select * from billing.apply_plans(%s, true)", [Jsonb(document)])
    assert [(row["path"], row["before"], row["after"]) for row in shown] == [("plans.pro.name", "Pro", "Professional")]
    assert one(billing.connection, "select name from billing.plans where id = 'pro'") == "Pro"


def test_a_changed_amount_is_a_new_price_and_customers_stay_on_theirs(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    old = price_id(billing, "pro_monthly")
    document = catalogue(billing.connection)
    document["plans"]["pro"]["prices"][0]["amount"] = 3900
    billing.stripe.advance(60)
    done = billing.sell(document)
    billing.settle()
    assert len(done) == 2 and done[1].endswith("archive")
    new = price_id(billing, "pro_monthly")
    assert (
        new != old
        and not billing.stripe.store.get(old)["active"]
        and billing.stripe.store.get(old)["lookup_key"] is None
    )
    assert billing.access(workspace)["plan"] == "pro" and billing.access(workspace)["version"] == 1
    billing.stripe.advance(31 * 86_400)
    billing.settle()
    assert [row["amount_paid"] for row in billing.stripe.store.every("invoice")] == [2900, 2900]
    # And back again: a third price, not the first.
    assert billing.sell(catalogue(billing.connection))[0].startswith("price pro_monthly: 2900")
    assert price_id(billing, "pro_monthly") not in (old, new)


def test_other_terms_are_a_new_version_and_customers_stay_until_moved(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace)
    billing.settle()
    document = catalogue(billing.connection)
    document["plans"]["pro"]["limits"] = dict.fromkeys(document["plans"]["pro"]["limits"], 50)
    document["plans"]["free"]["limits"] = dict.fromkeys(document["plans"]["free"]["limits"], 2)
    billing.stripe.advance(60)
    billing.sell(document)
    billing.settle()
    access = billing.access(workspace)
    assert (access["plan"], access["version"], access["limits"]["projects"]) == ("pro", 1, 100)
    newcomer = make_workspace(billing.connection, make_user(billing.connection), plan="free")
    billing.settle()
    # Nobody has bought the free plan: it changes for all.
    assert billing.access(newcomer)["limits"]["projects"] == 2
    billing.buy(newcomer)
    billing.settle()
    assert (billing.access(newcomer)["version"], billing.access(newcomer)["limits"]["projects"]) == (2, 50)
    run(billing.connection, "select billing.request_change(%s, 'pro_monthly', null, 'k', 'moved', true)", [workspace])
    billing.settle()
    assert (billing.access(workspace)["version"], billing.access(workspace)["limits"]["projects"]) == (2, 50)


def test_what_is_gone_from_the_file_is_archived_and_never_deleted(billing: Billing, workspace: uuid.UUID) -> None:
    billing.buy(workspace, "seat_monthly")
    billing.settle()
    document = catalogue(billing.connection)
    del document["plans"]["enterprise"]
    document["features"] = {}
    billing.stripe.advance(60)
    billing.sell(document)
    billing.settle()
    assert billing.access(workspace)["plan"] == "enterprise"
    assert [row["active"] for row in billing.stripe.store.every("product") if row["id"] == "rowhouse_enterprise"] == [
        False
    ]
    assert not billing.stripe.store.get(next(billing.stripe.store.every("price", lookup_key="seat_monthly"))["id"])[
        "active"
    ]
    assert billing.stripe.store.deleted == {}
    with refused("price_not_found"), billing.connection.transaction():
        run(billing.connection, "select billing.price_for('seat_monthly')")
    billing.sell()
    assert one(billing.connection, "select is_archived from billing.plans where id = 'enterprise'") is False


def edit(document: Any, path: str, value: Any) -> Any:
    changed = copy.deepcopy(document)
    place = changed
    *way, last = path.split(".")
    for name in way:
        place = place[int(name)] if name.isdigit() else place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return changed


FLAWS: dict[str, tuple[str, Any, str]] = {
    "a price without a lookup key": ("plans.pro.prices.0.lookup_key", None, "plans.pro.prices[0].lookup_key is missing"),
    "a typo": ("plans.pro.limit", {}, "plans.pro.limit is not known here"),
    "a typo in a price": ("plans.pro.prices.0.ammount", 1, "plans.pro.prices[0].ammount is not known here"),
    "a limit of nothing": ("plans.pro.limits.rockets", 1, "plans.pro.limits.rockets limits nothing"),
    "a missing limit": ("plans.pro.limits.projects", None, "plans.pro.limits.projects is missing"),
    "a limit in words": ("plans.pro.limits.projects", "many", "plans.pro.limits.projects must be"),
    "a negative limit": ("plans.pro.limits.projects", -1, "plans.pro.limits.projects must be"),
    "an amount in euros": ("plans.pro.prices.0.amount", 29.5, "plans.pro.prices[0].amount is 29.5"),
    "no currency": ("plans.pro.prices.0.currency", "euro", "plans.pro.prices[0].currency is no currency"),
    "an interval": ("plans.pro.prices.0.interval", "fortnight", "plans.pro.prices[0].interval must be"),
    "a key given twice": ("plans.pro.prices.1.lookup_key", "pro_monthly", "is given twice"),
    "an unknown feature": ("plans.pro.features", ["wings"], "plans.pro.features names wings"),
    "an unknown meter": ("plans.pro.prices.2.meter", "steps", "plans.pro.prices[2].meter is not declared"),
    "a meter per seat": ("plans.pro.prices.2.per_seat", True, "plans.pro.prices[2].per_seat and a meter"),
    "no default": ("plans.free.default", False, "plans must have one"),
    "two defaults": ("plans.pro.default", True, "plans must have one"),
    "one rank twice": ("plans.pro.rank", 1, "is given twice"),
    "a trial of no days": ("plans.enterprise.starts_with_trial", True, "plans.enterprise.starts_with_trial needs trial_days"),
    "audit of a month": ("plans.pro.audit_months", 1, "plans.pro.audit_months is 1"),
    "a plan's name": ("plans.Pro Plan", {"name": "x", "rank": 9}, "plans.Pro Plan must be named"),
    "no table": ("plans.gold", 5, "plans.gold is no table"),
    "prices as a table": ("plans.pro.prices", {"monthly": 5}, "plans.pro.prices must be a list"),
    "days in words": ("settings", {"dunning_days": "weekly"}, "settings.dunning_days must be"),
    "a meter nobody has": ("plans.pro.meters.steps", {"included": 1}, "plans.pro.meters.steps is of a meter"),
}  # fmt: skip


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_catalogue_with_a_flaw_is_refused_and_nothing_is_half_applied(db: Connection, flaw: str) -> None:
    path, value, words = FLAWS[flaw]
    document = edit(catalogue(db), path, value)
    document["plans"]["free"]["name"] = "Gratis"
    found = [
        f"{row['path']} {row['flaw']}" for row in run(db, "select * from billing.plan_flaws(%s)", [Jsonb(document)])
    ]
    assert any(words in line for line in found), found
    with refused("catalogue_invalid"), db.transaction():
        run(db, "select * from billing.apply_plans(%s)", [Jsonb(document)])
    assert one(db, "select name from billing.plans where id = 'free'") == "Free"


def test_a_flaw_is_told_with_its_line(db: Connection, tmp_path: Path) -> None:
    text = (Path(plans.__file__).parent.parent / "supabase" / "plans.toml").read_text()
    wrong = text.replace('lookup_key = "pro_yearly"\n', "").replace("projects = 3,", 'projects = "three",')
    file = tmp_path / "plans.toml"
    file.write_text(wrong)
    document, read, _ = plans.read_catalogue(file)
    with pytest.raises(UsageError) as refusal:
        plans.apply_plans(db, document, read, is_dry_run=False)
    lines = wrong.splitlines()
    at = [number for number, line in enumerate(lines, 1) if line == "[[plans.pro.prices]]"][1]
    limits = next(number for number, line in enumerate(lines, 1) if '"three"' in line)
    assert f"line {at}: plans.pro.prices[1].lookup_key is missing" in str(refusal.value)
    assert f"line {limits}: plans.free.limits.projects must be" in str(refusal.value)
    file.write_text("[plans.pro\nname = 1")
    with pytest.raises(UsageError, match="line 1"):
        plans.read_catalogue(file)
