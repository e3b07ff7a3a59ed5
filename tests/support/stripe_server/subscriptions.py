"""Subscriptions, checkout and the portal."""

from __future__ import annotations

from .engine import Engine, is_true
from .routes import required, route
from .store import Object, StripeError


@route("POST", "subscriptions")
def subscribe(engine: Engine, params: Object) -> Object:
    required(params, "customer")
    return engine.subscribe(params)


@route("POST", "subscriptions/{id}")
def update_subscription(engine: Engine, params: Object, id: str) -> Object:
    return engine.update(engine.store.get(id, "subscription"), params)


@route("DELETE", "subscriptions/{id}")
def cancel_subscription(engine: Engine, _: Object, id: str) -> Object:
    subscription = engine.store.get(id, "subscription")
    if subscription["status"] == "canceled":
        raise StripeError(404, f"No such subscription: '{id}'", code="resource_missing")
    return engine.cancel(subscription)


@route("POST", "subscription_items/{id}")
def update_item(engine: Engine, params: Object, id: str) -> Object:
    for subscription in engine.store.every("subscription"):
        for row in subscription["items"]["data"]:
            if row["id"] == id:
                change: Object = {"id": id, **{name: params[name] for name in ("price", "quantity") if name in params}}
                engine.update(
                    subscription,
                    {**{k: v for k, v in params.items() if k not in ("price", "quantity")}, "items": [change]},
                )
                return next(item for item in subscription["items"]["data"] if item["id"] == id)
    raise StripeError(404, f"No such subscription_item: '{id}'", code="resource_missing")


@route("POST", "subscription_schedules")
def create_schedule(engine: Engine, params: Object) -> Object:
    subscription = engine.store.get(params.get("from_subscription"), "subscription")
    made = engine.store.make("subscription_schedule", {
        "customer": subscription["customer"], "subscription": subscription["id"], "status": "active", "phases": [], "metadata": {},
        "end_behavior": "release", "canceled_at": None, "completed_at": None, "released_at": None,
    })  # fmt: skip
    subscription["schedule"] = made["id"]
    engine.store.emit("subscription_schedule.created", made)
    return made


@route("POST", "checkout/sessions")
def create_session(engine: Engine, params: Object) -> Object:
    required(params, "mode", "success_url", "line_items")
    store = engine.store
    customer = store.get(params.get("customer"), "customer")
    prices = [store.get(row["price"], "price") for row in params["line_items"]]
    for price, row in zip(prices, params["line_items"], strict=True):
        if price["recurring"]["usage_type"] == "metered" and "quantity" in row:
            raise StripeError(400, "Quantity should not be specified where usage_type is metered.", param="line_items")
        if not price["active"]:
            raise StripeError(400, "The price specified is inactive.", param="line_items")
    total = sum(
        engine.cost(price, int(row.get("quantity", 0))) for price, row in zip(prices, params["line_items"], strict=True)
    )
    now = store.now(customer)
    made = store.make("checkout.session", {
        "customer": customer["id"], "mode": params["mode"], "status": "open", "payment_status": "unpaid", "url": "",
        "success_url": params["success_url"], "cancel_url": params.get("cancel_url"), "amount_subtotal": total, "amount_total": total,
        "currency": prices[0]["currency"], "client_reference_id": params.get("client_reference_id"), "expires_at": now + 86400,
        "metadata": params.get("metadata", {}), "invoice": None, "subscription": None, "payment_intent": None,
        "allow_promotion_codes": is_true(params.get("allow_promotion_codes")), "_params": params,
    })  # fmt: skip
    made["url"] = f"https://checkout.stripe.example/c/pay/{made['id']}"
    return made


@route("POST", "checkout/sessions/{id}/expire")
def expire_session(engine: Engine, _: Object, id: str) -> Object:
    session = engine.store.get(id, "checkout.session")
    if session["status"] != "open":
        raise StripeError(400, "Only open sessions can be expired.")
    return engine.store.change(session, "checkout.session.expired", status="expired")


def complete_session(engine: Engine, id: str, method: str, promotion_code: str | None = None) -> Object:
    """What a customer does on the checkout page: pays with a card. Raises StripeError where it is declined."""
    store = engine.store
    session = store.get(id, "checkout.session")
    if session["status"] != "open":
        raise StripeError(400, "This session is not open.")
    customer = store.get(session["customer"])
    before = customer["invoice_settings"].get("default_payment_method")
    customer["invoice_settings"]["default_payment_method"] = method
    given = session["_params"].get("subscription_data") or {}
    wanted = {
        "customer": customer["id"], "items": session["_params"]["line_items"], "payment_behavior": "error_if_incomplete",
        "metadata": given.get("metadata", {}), "trial_period_days": given.get("trial_period_days"), "default_payment_method": method,
        "discounts": [{"promotion_code": promotion_code}] if promotion_code else [],
    }  # fmt: skip
    try:
        subscription = engine.subscribe(wanted)
    except StripeError:
        customer["invoice_settings"]["default_payment_method"] = before
        raise
    store.emit("customer.updated", customer)
    paid = "no_payment_required" if subscription["status"] == "trialing" else "paid"
    session.update(
        status="complete", payment_status=paid, subscription=subscription["id"], invoice=subscription["latest_invoice"]
    )
    store.emit("checkout.session.completed", session)
    return session


@route("POST", "billing_portal/sessions")
def create_portal(engine: Engine, params: Object) -> Object:
    customer = engine.store.get(params.get("customer"), "customer")
    made = engine.store.make(
        "billing_portal.session", {"customer": customer["id"], "return_url": params.get("return_url"), "url": ""}
    )
    made["url"] = f"https://billing.stripe.example/p/session/{made['id']}"
    return made
