"""The commands over billing, as an operator types them, against a Stripe that keeps state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..billing.world import Billing
from ..conftest import ROOT, Database
from ..identities import make_user, make_workspace, one, run
from ..support.stripe_server import Stripe
from .test_commands import ROWHOUSE, rowhouse

# One story: each test goes on where the one before it ended.
pytestmark = pytest.mark.xdist_group("billing-cli")


@dataclass
class Shop:
    """A database, a Stripe, and the environment that leads to both."""

    database: Database
    stripe: Stripe
    billing: Billing
    workspace: uuid.UUID

    @property
    def environment(self) -> dict[str, str]:
        return {
            "STRIPE_SECRET_KEY": self.stripe.key,
            "STRIPE_API_URL": self.stripe.url,
            "STRIPE_WEBHOOK_SECRET": "whsec_x",
        }

    def call(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment: Any = {**self.environment, **more}
        return rowhouse(self.database, *arguments, **environment)

    def answer(self, *arguments: str) -> Any:
        result = self.call(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def error(self, *arguments: str, **more: str) -> tuple[int, Any]:
        result = self.call(*arguments, "--json", **more)
        assert result.returncode, result.stdout
        return result.returncode, json.loads(result.stderr)

    def catch_up(self) -> None:
        self.billing.hear()
        self.billing.work()


@pytest.fixture(scope="module")
def shop(module_database: Database) -> Iterator[Shop]:
    """Connected and sold by the command line itself; acme pays for pro."""
    with (
        Stripe() as stripe,
        module_database.connect(autocommit=True) as connection,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("STRIPE_API_URL", stripe.url)
        patch.setenv("STRIPE_SECRET_KEY", stripe.key)
        workspace = make_workspace(connection, make_user(connection, "ada@acme.example"), plan="free", slug="acme")
        made = Shop(module_database, stripe, Billing(connection, stripe), workspace)
        assert made.answer("stripe", "connect")["mode"] == "test"
        assert made.answer("plans", "apply")["stripe"]
        made.catch_up()
        made.billing.buy(workspace, "pro_monthly")
        made.catch_up()
        yield made


def test_plans_are_applied_once_and_shown_before(shop: Shop, tmp_path: Path) -> None:
    assert shop.answer("plans", "apply") == {"is_dry_run": False, "is_connected": True, "changes": [], "stripe": []}
    file = tmp_path / "plans.toml"
    text = (ROOT / "supabase" / "plans.toml").read_text()
    file.write_text(text.replace("amount = 2900\n", "amount = 3300\n"))
    shown = shop.answer("plans", "apply", "--file", str(file), "--dry-run")
    assert [row["path"] for row in shown["changes"]] == ["plans.pro.prices"]
    assert shown["stripe"] == ["price pro_monthly: 3300 USD per month"]
    assert "Nothing changed here." in shop.call("plans", "apply").stdout
    file.write_text(text.replace("audit_months = 24", "audit_month = 24"))
    code, error = shop.error("plans", "apply", "--file", str(file))
    assert code == 2 and "line " in error["error"] and "plans.pro.audit_month is not known" in error["error"]
    assert {row["plan"]: row["workspaces"] for row in shop.answer("plans", "list")}["pro"] == 1


def test_what_a_workspace_bought_is_shown(shop: Shop) -> None:
    shown = shop.answer("billing", "show", "acme")
    assert (shown["plan"], shown["state"], shown["reason"], shown["status"]) == ("pro", "active", "active", "active")
    invoices = shop.answer("billing", "invoices", "acme")
    assert [(row["status"], row["total"], row["currency"]) for row in invoices] == [("paid", 2900, "USD")]
    assert "29.00 USD" in shop.call("billing", "invoices", "acme").stdout
    assert shop.answer("billing", "payments", "acme")[0]["amount"] == 2900
    assert any(row["what"] == "access" for row in shop.answer("billing", "history", "acme"))
    assert shop.answer("billing", "dunning", "acme") == []
    assert "Nothing is due." in shop.call("billing", "dunning", "acme").stdout
    balances = {row["code"]: row["balance"] for row in shop.answer("ledger", "balances", "@operator")}
    assert balances == {"stripe:USD": 2900, "sales:USD": -2900}


def test_what_moves_money_asks_takes_a_reason_and_is_done_once(shop: Shop) -> None:
    number = shop.answer("billing", "invoices", "acme")[0]["number"]
    refund = ("billing", "refund", "acme", number, "--amount", "9.00")
    assert shop.error(*refund, "--reason", "oops")[0] == 1, "nobody is there to be asked"
    assert shop.call(*refund, "--yes").returncode == 2, "a reason is asked for"
    first = shop.answer(*refund, "--reason", "oops", "--yes")
    assert shop.answer(*refund, "--reason", "oops", "--yes")["request_id"] == first["request_id"]
    assert [row["amount"] for row in shop.stripe.store.every("refund")] == [900]
    assert shop.error(*refund[:-1], "20.01", "--reason", "more", "--yes")[1]["code"] == "refund_exceeds_payment"
    shop.catch_up()
    assert shop.error(*refund[:-1], "20.01", "--reason", "more", "--yes")[1]["code"] == "refund_exceeds_payment"
    for wrong in ("-5", "1e3", "1.005", "ten", "", "0"):
        assert shop.error("billing", "refund", "acme", number, f"--amount={wrong}", "--reason", "x", "--yes")[0] in (
            2,
            4,
        ), wrong
    assert (
        shop.error("billing", "refund", "acme", "RW-none", "--reason", "x", "--yes")[1]["code"] == "invoice_not_found"
    )
    shop.answer("billing", "credit", "acme", "25.00", "--reason", "outage", "--expires", "2090-01-01", "--yes")
    shop.answer("billing", "credit", "acme", "25.00", "--reason", "outage", "--expires", "2090-01-01", "--yes")
    adjusted = shop.call("billing", "adjust", "acme", "--reason", "by hand", "--yes", "--json", "--", "-5.00")
    assert adjusted.returncode == 0, adjusted.stderr
    shop.catch_up()
    assert shop.stripe.store.get(shop.billing.customer(shop.workspace))["balance"] == -2000
    assert shop.answer("billing", "show", "acme")["credit"] == 2000
    assert (
        shop.error("billing", "credit", "acme", "5", "--currency", "ZZZ", "--reason", "x", "--yes")[1]["code"]
        == "currency_unknown"
    )
    assert shop.error("billing", "credit", "acme", "5.5", "--currency", "JPY", "--reason", "x", "--yes")[0] == 2


def test_a_subscription_is_changed_cancelled_and_resumed(shop: Shop) -> None:
    shop.answer("billing", "change-plan", "acme", "enterprise_seat", "--seats", "2", "--reason", "grew", "--yes")
    shop.catch_up()
    assert (shop.answer("billing", "show", "acme")["plan"], shop.answer("billing", "show", "acme")["seats"]) == (
        "enterprise",
        2,
    )
    assert shop.error("billing", "resume", "acme", "--reason", "x")[1]["code"] == "nothing_to_resume"
    shop.answer("billing", "cancel", "acme", "--reason", "closing", "--yes")
    shop.catch_up()
    assert shop.answer("billing", "show", "acme")["reason"] == "canceling"
    shop.answer("billing", "resume", "acme", "--reason", "stays")
    shop.catch_up()
    assert shop.answer("billing", "show", "acme")["reason"] == "active"
    assert shop.error("billing", "dunning", "acme", "--until", "2090-01-01", "--reason", "x")[1]["code"] == "no_dunning"
    assert shop.error("billing", "extend-trial", "acme", "2026-12-24", "--reason", "x")[1]["code"] == "trial_not_found"


def test_usage_is_recorded_once_and_shown(shop: Shop) -> None:
    assert shop.answer("usage", "record", "acme", "api_calls", "250", "--key", "k")["is_new"]
    assert not shop.answer("usage", "record", "acme", "api_calls", "250", "--key", "k")["is_new"]
    assert shop.error("usage", "record", "acme", "api_calls", "0", "--key", "z")[1]["code"] == "usage_invalid"
    assert shop.error("usage", "record", "acme", "steps", "5", "--key", "z")[1]["code"] == "usage_invalid"
    shown = shop.answer("usage", "show", "acme")
    assert [(row["meter"], row["used"], row["included"]) for row in shown] == [("api_calls", 250, 1000000)]


def test_stripe_is_read_compared_and_looked_after(shop: Shop) -> None:
    assert shop.answer("stripe", "sync", "--objects", "product,price")["listed"] == 7
    assert shop.error("stripe", "sync", "--objects", "rockets")[1]["code"] == "object_unknown"
    assert shop.error("stripe", "sync", "--since", "yesterday")[0] == 2
    time.sleep(2.1)
    shop.answer("stripe", "sync", "--since", "1d")
    assert shop.call("stripe", "reconcile", "--objects", "invoice").returncode == 0
    run(
        shop.billing.connection,
        "update billing.objects set data = data || '{\"amount_paid\": 0}' where object = 'invoice' and data ->> 'amount_paid' = '2900'",
    )
    time.sleep(2.1)
    found = shop.call("stripe", "reconcile", "--objects", "invoice", "--json")
    assert found.returncode == 5
    assert [(row["object"], row["different"], row["amounts_off"]) for row in json.loads(found.stdout)] == [
        ("invoice", 1, {"usd": 2900})
    ]
    assert shop.answer("stripe", "drift")[0]["object"] == "invoice"
    assert "2,900 USD" in shop.call("stripe", "drift").stdout
    listed = shop.answer("stripe", "events", "list", "--type", "invoice.paid", "--limit", "1")
    name = listed["rows"][0]["id"]
    assert listed["next_after"]
    assert shop.answer("stripe", "events", "show", name)["payload"]["type"] == "invoice.paid"
    shop.answer("stripe", "events", "replay", name)
    assert shop.error("stripe", "events", "replay", "evt_none")[1]["code"] == "event_not_found"


def test_the_doctor_sees_what_is_amiss(shop: Shop) -> None:
    def findings(**more: str) -> dict[str, str]:
        result = shop.call("stripe", "doctor", "--json", **more)
        return {row["subject"]: row["finding"] for row in json.loads(result.stdout)["findings"]}

    assert "no webhook endpoint" in findings()["endpoint"]
    url = "https://example.com/functions/v1/stripe-webhook"
    made = shop.stripe.call(
        "POST", "/v1/webhook_endpoints", {"url": url, "enabled_events": ["invoice.paid"], "api_version": "2024-06-20"}
    )
    assert "2024-06-20" in findings()["endpoint"]
    endpoint = shop.stripe.store.get(made["id"])
    endpoint.update(api_version=None)
    assert "is not sent" in findings()["endpoint"]
    endpoint.update(enabled_events=["*"], status="disabled")
    assert "disabled" in findings()["endpoint"]
    endpoint.update(status="enabled")
    assert findings() == {}
    assert shop.call("stripe", "doctor").returncode == 0
    assert findings(STRIPE_SECRET_KEY="sk_live_x")["key"] == "it is a live key for a test database"
    assert "not set" in findings(STRIPE_SECRET_KEY="")["key"]
    assert "does not take it" in findings(STRIPE_SECRET_KEY="sk_test_wrong")["key"]
    assert "not set" in findings(STRIPE_WEBHOOK_SECRET="")["secret"]
    run(shop.billing.connection, "update billing.settings set api_version = '2020-08-27'")
    assert "2020-08-27" in findings()["version"]
    run(shop.billing.connection, "update billing.settings set api_version = '2026-10-28.endive'")


def test_what_stripe_refused_is_not_done_however_often_it_is_asked(shop: Shop) -> None:
    command = ("billing", "change-plan", "acme", "enterprise_seat", "--seats", "50", "--reason", "too dear", "--yes")
    customer = shop.billing.customer(shop.workspace)
    shop.stripe.set_card(customer, "pm_card_chargeDeclined")
    shop.catch_up()
    for _ in range(2):
        code, error = shop.error(*command)
        assert (code, error["code"]) == (4, "stripe_refused"), error
    shop.stripe.set_card(customer, "pm_card_visa")
    shop.catch_up()
    assert shop.answer(*command)["result"]["status"] == "active"
    shop.answer(*command)
    shop.catch_up()
    assert shop.answer("billing", "show", "acme")["seats"] == 50


@pytest.mark.parametrize(
    "arguments",
    [
        ("stripe", "sync", "--since", "99999999999d"), ("stripe", "sync", "--since", "²d"), ("stripe", "reconcile", "--objects", ""),
        ("usage", "record", "acme", "api_calls", "99999999999999999999", "--key", "k"),
        ("usage", "record", "acme", "api_calls", "1", "--key", "k", "--at", "yesterdayish"),
        ("billing", "extend-trial", "acme", "2026-13-45", "--reason", "x"), ("billing", "dunning", "acme", "--until", "a", "--reason", "x"),
        ("billing", "credit", "acme", "5", "--expires", "garbage", "--reason", "x", "--yes"),
        ("billing", "change-plan", "acme", "pro_monthly", "--seats", "99999999999999999999", "--reason", "x", "--yes"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_bad_input_says_what_to_do(shop: Shop, arguments: tuple[str, ...]) -> None:
    result = shop.call(*arguments)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("line", ["trial_days = 2026-01-01", "trial_days = nan", 'name2 = "a\\u0000"'])
def test_what_json_cannot_say_is_told_with_its_line(shop: Shop, tmp_path: Path, line: str) -> None:
    file = tmp_path / "plans.toml"
    file.write_text(f"[plans.free]\nname = 'x'\n{line}\n")
    code, error = shop.error("plans", "apply", "--file", str(file))
    assert code == 2 and "line 3" in error["error"]


def test_no_secret_is_printed(shop: Shop) -> None:
    for key in ("sk_test_canary\n", "sk_test_canary\nx", " sk_test_canary ", "sk_test_canary\u00e9"):
        for command in (("stripe", "connect"), ("stripe", "doctor")):
            result = shop.call(*command, STRIPE_SECRET_KEY=key)
            assert "canary" not in result.stdout + result.stderr
    for arguments in (
        ("stripe", "doctor"),
        ("stripe", "connect"),
        ("billing", "refund", "acme", "x", "--reason", "y", "--yes"),
    ):
        for key in ("sk_test_canary1234567890", "sk_live_canary1234567890", "pk_canary1234567890"):
            result = shop.call(*arguments, STRIPE_SECRET_KEY=key, STRIPE_WEBHOOK_SECRET="whsec_canary")
            assert "canary" not in result.stdout + result.stderr, (arguments, key)


def test_when_stripe_is_down_it_says_so_and_a_worker_does_it_later(shop: Shop) -> None:
    shop.stripe.faults = ["500"] * 4
    code, error = shop.error("billing", "credit", "acme", "1.00", "--reason", "down", "--yes", "--key", "later")
    assert code == 1 and "could not be asked" in error["error"]
    shop.stripe.faults = []
    assert (
        one(
            shop.billing.connection,
            "select count(*) from billing.requests where idempotency_key = 'adjust:later' and state = 'waiting'",
        )
        == 1
    )
    shop.answer("billing", "credit", "acme", "1.00", "--reason", "down", "--yes", "--key", "later")
    assert [row["amount"] for row in shop.stripe.store.every("customer_balance_transaction")].count(-100) == 1


def test_a_backfill_that_is_stopped_goes_on_where_it_was(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWHOUSE_LATE_SECONDS", "0.7")
    for _ in range(250):
        shop.stripe.store.make(
            "coupon",
            {
                "name": "x",
                "percent_off": 5.0,
                "amount_off": None,
                "currency": None,
                "duration": "once",
                "metadata": {},
                "valid": True,
            },
        )
    shop.stripe.faults = ["late"] * 50
    command = [*ROWHOUSE, "stripe", "sync", "--objects", "coupon", "--json"]
    environment = {**os.environ, **shop.environment, "DATABASE_URL": shop.database.url()}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not one(
        shop.billing.connection, "select coalesce(max(listed), 0) from billing.runs where objects = '{coupon}'"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    shop.stripe.faults = []
    read = one(
        shop.billing.connection, "select listed from billing.runs where objects = '{coupon}' and finished_at is null"
    )
    assert 0 < read < 250
    before = len(shop.stripe.requests)
    assert shop.answer("stripe", "sync", "--objects", "coupon")["listed"] == 250
    assert len(shop.stripe.requests) - before == (250 - read + 99) // 100
