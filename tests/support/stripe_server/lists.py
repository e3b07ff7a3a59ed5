"""What is listed and fetched alike: every kind of object, the account, and events."""

from __future__ import annotations

from .engine import Engine
from .routes import getting, listing, page, route
from .store import Object, StripeError

for _path, _kind, _filters in (
    ("customers", "customer", ("email",)), ("subscriptions", "subscription", ("customer", "price")),
    ("subscription_schedules", "subscription_schedule", ("customer",)), ("products", "product", ("active",)),
    ("prices", "price", ("active", "product", "lookup_keys")), ("coupons", "coupon", ()), ("promotion_codes", "promotion_code", ("active", "code")),
    ("invoices", "invoice", ("customer", "subscription")), ("invoice_payments", "invoice_payment", ("invoice",)),
    ("payment_intents", "payment_intent", ("customer",)), ("charges", "charge", ("customer", "payment_intent")),
    ("refunds", "refund", ("charge", "payment_intent")), ("disputes", "dispute", ("charge", "payment_intent")),
    ("credit_notes", "credit_note", ("invoice", "customer")), ("checkout/sessions", "checkout.session", ("customer", "subscription")),
    ("billing/meters", "billing.meter", ()), ("entitlements/features", "entitlements.feature", ("lookup_key",)),
    ("webhook_endpoints", "webhook_endpoint", ()), ("balance_transactions", "balance_transaction", ("type",)),
    ("test_helpers/test_clocks", "test_helpers.test_clock", ()),
):  # fmt: skip
    listing(_path, _kind, *_filters)
    if _path != "customers":
        getting(_path, _kind)


@route("GET", "account")
def account(engine: Engine, _: Object) -> Object:
    return {
        "id": engine.store.account,
        "object": "account",
        "country": "US",
        "default_currency": "usd",
        "charges_enabled": True,
    }


@route("GET", "events")
def events(engine: Engine, params: Object) -> Object:
    after = params.get("starting_after")
    since = int((params.get("created") or {}).get("gte", 0))
    rows = list(reversed(engine.store.events))
    if after:
        names = [row["id"] for row in rows]
        if after not in names:
            raise StripeError(400, f"No such event: '{after}'", param="starting_after")
        rows = rows[names.index(after) + 1 :]
    return page(engine, params, "/v1/events", (row for row in rows if row["created"] >= since))
