"""Products, prices, coupons, meters, features."""

from __future__ import annotations

from .engine import Engine, is_true, public
from .routes import page, required, route, updating
from .store import Object, StripeError


@route("POST", "products")
def create_product(engine: Engine, params: Object) -> Object:
    required(params, "name")
    if params.get("id") in engine.store.objects:
        raise StripeError(400, f"Product already exists: {params['id']}", code="resource_already_exists")
    made = engine.store.make("product", {
        "name": params["name"], "active": True, "description": params.get("description"), "metadata": params.get("metadata", {}),
        "images": [], "marketing_features": [], "default_price": None, "type": "service", "updated": engine.store.now(),
    }, params.get("id"))  # fmt: skip
    engine.store.emit("product.created", made)
    return made


updating("products", "product", "product.updated", "name", "active", "description", "metadata", "default_price")
updating("prices", "price", "price.updated", "active", "metadata", "nickname", "lookup_key")
updating("coupons", "coupon", "coupon.updated", "name", "metadata")
updating("promotion_codes", "promotion_code", "promotion_code.updated", "active", "metadata")
updating("entitlements/features", "entitlements.feature", None, "active", "name", "metadata")
updating("charges", "charge", "charge.updated", "description", "metadata")


@route("DELETE", "products/{id}")
def delete_product(engine: Engine, _: Object, id: str) -> Object:
    engine.store.emit("product.deleted", engine.store.get(id, "product"))
    return engine.store.delete(id)


@route("GET", "products/{id}/features")
def product_features(engine: Engine, params: Object, id: str) -> Object:
    return page(engine, params, f"/v1/products/{id}/features", engine.store.every("product_feature", _product=id))


@route("POST", "products/{id}/features")
def attach_feature(engine: Engine, params: Object, id: str) -> Object:
    feature = engine.store.get(params.get("entitlement_feature"), "entitlements.feature")
    made = engine.store.make(
        "product_feature", {"entitlement_feature": dict(feature), "_product": engine.store.get(id, "product")["id"]}
    )
    for customer in {row["customer"] for row in engine.store.every("subscription")}:
        engine.entitle(customer)
    return made


@route("DELETE", "products/{product}/features/{id}")
def detach_feature(engine: Engine, _: Object, product: str, id: str) -> Object:
    gone = engine.store.delete(id)
    for customer in {row["customer"] for row in engine.store.every("subscription")}:
        engine.entitle(customer)
    return gone


@route("POST", "prices")
def create_price(engine: Engine, params: Object) -> Object:
    required(params, "currency", "product")
    store = engine.store
    product = store.get(params["product"], "product")
    key = params.get("lookup_key")
    holder = next(store.every("price", lookup_key=key), None) if key else None
    if holder is not None:
        if not is_true(params.get("transfer_lookup_key")):
            raise StripeError(400, f"A price already uses the lookup key {key}.", code="resource_already_exists")
        store.change(holder, "price.updated", lookup_key=None)
    given = params.get("recurring") or {"interval": "month"}
    if given.get("usage_type") == "metered" and not given.get("meter"):
        raise StripeError(400, "Metered prices must be backed by meters.", param="recurring[meter]")
    tiers = [
        {
            "up_to": None if row["up_to"] == "inf" else int(row["up_to"]),
            "unit_amount": int(row["unit_amount"]),
            "flat_amount": None,
        }
        for row in params.get("tiers") or []
    ]
    amount = int(params["unit_amount"]) if params.get("unit_amount") is not None else None
    made = store.make("price", {
        "active": True, "billing_scheme": params.get("billing_scheme", "per_unit"), "currency": params["currency"], "lookup_key": key,
        "metadata": params.get("metadata", {}), "nickname": params.get("nickname"), "product": product["id"],
        "recurring": {"interval": given["interval"], "interval_count": int(given.get("interval_count", 1)), "meter": given.get("meter"),
            "usage_type": given.get("usage_type", "licensed"), "trial_period_days": None},
        "tax_behavior": "unspecified", "tiers_mode": params.get("tiers_mode"), "transform_quantity": None, "type": "recurring",
        "unit_amount": amount, "unit_amount_decimal": None if amount is None else str(amount), "custom_unit_amount": None, **({"tiers": tiers} if tiers else {}),
    })  # fmt: skip
    store.emit("price.created", made)
    return made


@route("POST", "coupons")
def create_coupon(engine: Engine, params: Object) -> Object:
    made = engine.store.make("coupon", {
        "name": params.get("name"), "percent_off": float(params["percent_off"]) if params.get("percent_off") else None,
        "amount_off": int(params["amount_off"]) if params.get("amount_off") else None, "currency": params.get("currency"),
        "duration": params.get("duration", "forever"), "duration_in_months": None, "metadata": {}, "valid": True, "times_redeemed": 0,
    }, params.get("id"))  # fmt: skip
    engine.store.emit("coupon.created", made)
    return made


@route("DELETE", "coupons/{id}")
def delete_coupon(engine: Engine, _: Object, id: str) -> Object:
    engine.store.emit("coupon.deleted", engine.store.get(id, "coupon"))
    return engine.store.delete(id)


@route("POST", "promotion_codes")
def create_promotion_code(engine: Engine, params: Object) -> Object:
    coupon = engine.store.get((params.get("promotion") or {}).get("coupon") or params.get("coupon"), "coupon")
    made = engine.store.make("promotion_code", {
        "active": True, "code": params.get("code", "CODE"), "customer": None, "expires_at": None, "metadata": {}, "times_redeemed": 0,
        "promotion": {"type": "coupon", "coupon": coupon["id"]},
    })  # fmt: skip
    engine.store.emit("promotion_code.created", made)
    return made


@route("POST", "billing/meters")
def create_meter(engine: Engine, params: Object) -> Object:
    required(params, "display_name", "event_name")
    if any(row["status"] == "active" for row in engine.store.every("billing.meter", event_name=params["event_name"])):
        raise StripeError(400, "An active meter with this event name exists.", code="resource_already_exists")
    made = engine.store.make("billing.meter", {
        "display_name": params["display_name"], "event_name": params["event_name"], "status": "active", "updated": engine.store.now(),
        "default_aggregation": params.get("default_aggregation", {"formula": "sum"}), "value_settings": {"event_payload_key": "value"},
        "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"}, "status_transitions": {"deactivated_at": None},
    })  # fmt: skip
    engine.store.emit("billing.meter.created", made)
    return made


@route("POST", "billing/meters/{id}/deactivate")
def deactivate_meter(engine: Engine, _: Object, id: str) -> Object:
    return engine.store.change(engine.store.get(id, "billing.meter"), "billing.meter.deactivated", status="inactive")


@route("POST", "billing/meter_events")
def create_meter_event(engine: Engine, params: Object) -> Object:
    required(params, "event_name", "payload")
    store = engine.store
    if not any(row["status"] == "active" for row in store.every("billing.meter", event_name=params["event_name"])):
        raise StripeError(400, f"No active meter: {params['event_name']}", code="no_meter")
    customer = store.get(params["payload"]["stripe_customer_id"], "customer")
    stamp = int(params.get("timestamp", store.now(customer)))
    if not store.now(customer) - 35 * 86400 <= stamp <= store.now(customer) + 300:
        raise StripeError(
            400,
            "The timestamp must be within the past 35 days or up to 5 minutes in the future.",
            code="timestamp_invalid",
        )
    name = params.get("identifier") or f"mev_{next(store.numbers)}"
    if name in store.meter_events:
        raise StripeError(400, f"An event already exists with identifier {name}.", code="duplicate_meter_event")
    store.meter_events[name] = {
        "object": "billing.meter_event", "identifier": name, "event_name": params["event_name"], "payload": params["payload"],
        "timestamp": stamp, "created": store.now(customer), "livemode": store.live,
    }  # fmt: skip
    return store.meter_events[name]


@route("POST", "entitlements/features")
def create_feature(engine: Engine, params: Object) -> Object:
    required(params, "lookup_key", "name")
    return engine.store.make(
        "entitlements.feature",
        {"active": True, "lookup_key": params["lookup_key"], "name": params["name"], "metadata": {}},
    )


@route("GET", "entitlements/active_entitlements")
def active_entitlements(engine: Engine, params: Object) -> Object:
    required(params, "customer")
    rows = (public(row) for row in engine.store.every("entitlements.active_entitlement", _customer=params["customer"]))
    return page(engine, params, "/v1/entitlements/active_entitlements", rows)
