"""A database connected to a Stripe of the tests' own, and the work between the two done in the test's transaction."""

from __future__ import annotations

import copy
import tomllib
import uuid
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb
from rowhouse.worker import stripe_calls

from ..identities import Row, make_user, one, run
from ..races import Connection
from ..support.stripe_server import Stripe
from ..support.stripe_server.store import Object

PLANS: Any = {
    "features": {"custom_roles": {"description": "Roles composed by the workspace itself."}},
    "meters": {"api_calls": {"name": "API calls"}},
    "plans": {
        "free": {"name": "Free", "rank": 1, "default": True, "meters": {"api_calls": {"cap": 100, "hard": True}}},
        "pro": {
            "name": "Pro", "rank": 2, "audit_months": 24, "trial_days": 14,
            "meters": {"api_calls": {"included": 1000, "cap": 5000}},
            "prices": [
                {"lookup_key": "pro_monthly", "currency": "usd", "amount": 2900, "interval": "month"},
                {"lookup_key": "pro_yearly", "currency": "usd", "amount": 29000, "interval": "year"},
                {"lookup_key": "pro_calls", "currency": "usd", "amount": 2, "interval": "month", "meter": "api_calls"},
            ],
        },
        "enterprise": {
            "name": "Enterprise", "rank": 3, "audit_months": 36, "features": ["custom_roles"],
            "prices": [{"lookup_key": "seat_monthly", "currency": "usd", "amount": 1000, "interval": "month", "per_seat": True}],
        },
    },
}  # fmt: skip
LIMITS = {"free": 3, "pro": 100, "enterprise": "unlimited"}


def catalogue(connection: Connection) -> Any:
    """A catalogue with limits for whatever is under limits."""
    resources = [row["resource"] for row in run(connection, "select resource from billing.resources")]
    document = copy.deepcopy(PLANS)
    for name, plan in document["plans"].items():
        plan["limits"] = dict.fromkeys(resources, LIMITS[name])
    return document


def shipped() -> Any:
    """The catalogue that the project ships with."""
    return tomllib.loads((Path(__file__).parents[2] / "supabase" / "plans.toml").read_text(encoding="utf-8"))


class Billing:
    """The database side: receives events, carries calls, looks at what came of it."""

    def __init__(self, connection: Connection, stripe: Stripe) -> None:
        self.connection = connection
        self.stripe = stripe
        self.heard = 0

    def connect(self) -> None:
        run(
            self.connection,
            "select billing.connect_account(%s, %s)",
            [self.stripe.store.account, self.stripe.store.live],
        )
        if self.stripe.version != one(self.connection, "select api_version from billing.settings"):
            run(self.connection, "update billing.settings set api_version = %s", [self.stripe.version])

    def tick(self) -> None:
        """Sets the database's clock to Stripe's."""
        run(
            self.connection,
            "insert into ops.clock (set_to) values (%s) on conflict (singleton) do update set set_to = excluded.set_to",
            [datetime.fromtimestamp(self.stripe.store.now(), UTC)],
        )

    def sell(self, document: Any = None) -> list[str]:
        """Brings the catalogue to the database and to Stripe; returns what was done there."""
        run(self.connection, "select * from billing.apply_plans(%s)", [Jsonb(document or catalogue(self.connection))])
        done = []
        while rows := run(self.connection, "select * from billing.next_catalogue_request()"):
            done.append(rows[0]["what"])
            outcomes = self.carry({"request": str(rows[0]["request_id"])})
            assert not any(outcome.get("failed") for outcome in outcomes), outcomes
            assert len(done) < 100, done
        return done

    def carry(self, payload: Any) -> list[dict[str, Any]]:
        """Makes the calls of one payload, through the real SDK."""
        return list(stripe_calls.carry(lambda: nullcontext(self.connection), payload, self.stripe.key))

    def receive(self, event: Object) -> bool:
        fresh: bool = one(self.connection, "select billing.receive(%s)", [Jsonb(event)])
        return fresh

    def hear(self, version: str | None = None) -> int:
        """Receives every event that was not received yet, in order; returns how many."""
        events = self.stripe.store.events[self.heard :]
        self.heard += len(events)
        for event in events:
            self.receive(self.stripe.shown(event, version))
        return len(events)

    def work(self) -> int:
        """Runs the queue until it is empty; returns how many jobs ran."""
        done = 0
        for _ in range(1000):
            token = one(self.connection, "select jobs.claim_for_postgres()")
            if token is not None:
                run(self.connection, "select jobs.execute(%s)", [token])
                run(self.connection, "set constraints all deferred")
            claimed = run(self.connection, "select * from jobs.claim('{billing}', 100)")
            for job in claimed:
                outcomes = self.carry(job["payload"])
                last = outcomes[-1] if outcomes else {}
                if last.get("retry"):
                    run(
                        self.connection,
                        "select jobs.fail(%s, %s)",
                        [job["lease"], Jsonb([{"id": job["id"], "error": last["error"], "retry_in": 0}])],
                    )
                else:
                    run(self.connection, "select jobs.complete(%s, %s)", [job["lease"], [job["id"]]])
            done += len(claimed) + (token is not None)
            if not claimed and token is None:
                return done
        raise AssertionError("the queue never ends")

    def settle(self) -> None:
        """Time, events and jobs, until nothing is left to do."""
        self.tick()
        for _ in range(20):
            if not self.hear() + self.work():
                return
        raise AssertionError("it never settles")

    def customer(self, workspace: uuid.UUID) -> str:
        name: str = one(self.connection, "select stripe_id from billing.customers where workspace_id = %s", [workspace])
        return name

    def access(self, workspace: uuid.UUID) -> Row:
        return run(self.connection, "select * from billing.access(%s)", [workspace])[0]

    def buy(
        self, workspace: uuid.UUID, price: str = "pro_monthly", method: str = "pm_card_visa", **more: Any
    ) -> Object:
        """Subscribes a workspace at Stripe; returns the subscription there."""
        customer = self.customer(workspace)
        self.stripe.store.get(customer)["invoice_settings"]["default_payment_method"] = method
        found = self.stripe.call("GET", "/v1/prices", {"lookup_keys": [price]})["data"][0]
        subscription: Object = self.stripe.call("POST", "/v1/subscriptions", {
            "customer": customer, "items": [{"price": found["id"], "quantity": more.pop("quantity", 1)}], **more,
        })  # fmt: skip
        return subscription


def price_id(billing: Billing, key: str) -> str:
    name: str = billing.stripe.call("GET", "/v1/prices", {"lookup_keys": [key]})["data"][0]["id"]
    return name


def person(connection: Connection) -> uuid.UUID:
    return make_user(connection)
