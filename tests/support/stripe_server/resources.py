"""What each path of the API does: a function per path, which takes the store's engine and the parameters."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .engine import Engine, add_interval, is_true, licensed, period, public, subscription_of
from .store import Object, StripeError

Handler = Callable[..., Any]
ROUTES: list[tuple[str, re.Pattern[str], Handler]] = []


def route(method: str, path: str) -> Callable[[Handler], Handler]:
    """Registers what answers a path; {name} is an argument."""
    pattern = re.compile("^/v1/" + re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path) + "$")

    def register(handler: Handler) -> Handler:
        ROUTES.append((method, pattern, handler))
        return handler

    return register


def answer(engine: Engine, method: str, path: str, params: Object) -> Any:
    """The answer to a request. Raises StripeError."""
    for known, pattern, handler in ROUTES:
        if known == method and (found := pattern.match(path)):
            return handler(engine, params, **found.groupdict())
    raise StripeError(404, f"Unrecognized request URL ({method}: {path}).")


def required(params: Object, *names: str) -> None:
    for name in names:
        if params.get(name) in (None, ""):
            raise StripeError(400, f"Missing required param: {name}.", code="parameter_missing", param=name)


def page(engine: Engine, params: Object, url: str, rows: Any) -> Object:
    """A page of a list: at most `limit`, and whether there is more."""
    limit = int(params.get("limit", 10))
    if not 1 <= limit <= 100:
        raise StripeError(400, "This value must be between 1 and 100.", param="limit")
    taken: list[Object] = []
    for row in rows:
        if len(taken) == limit:
            return {"object": "list", "url": url, "has_more": True, "data": taken}
        taken.append(row)
    return {"object": "list", "url": url, "has_more": False, "data": taken}


def listing(path: str, kind: str, *filters: str) -> None:
    """GET of a list, filtered by fields of the same name."""

    def list_(engine: Engine, params: Object) -> Object:
        def rows() -> Any:
            created = params.get("created") or {}
            for row in engine.store.newest_first(kind, params.get("starting_after")):
                wanted = all(_same(row, name, params[name]) for name in filters if name in params)
                if wanted and int(created.get("gte", 0)) <= row.get("created", 0) and _in_status(kind, row, params):
                    yield _expanded(engine, row, params)

        return page(engine, params, f"/v1/{path}", rows())

    route("GET", path)(list_)


def _same(row: Object, name: str, wanted: Any) -> bool:
    if name == "lookup_keys":
        return bool(row.get("lookup_key") in wanted)
    if name == "subscription" and row["object"] == "invoice":
        return bool(subscription_of(row) == wanted)
    value = row.get(name)
    return value == is_true(wanted) if isinstance(value, bool) else str(value) == str(wanted)


def _in_status(kind: str, row: Object, params: Object) -> bool:
    # Of subscriptions, those that ended are listed only when they are asked for.
    status = params.get("status")
    if kind == "subscription" and status in (None, "all"):
        return status == "all" or row["status"] not in ("canceled", "incomplete_expired")
    return status is None or row.get("status") == status


def _expanded(engine: Engine, row: Object, params: Object) -> Object:
    shown = dict(row)
    for name in params.get("expand") or []:
        field = name.removeprefix("data.")
        if field == "tax_ids":
            data = list(engine.store.every("tax_id", customer=row["id"]))
        elif field == "payments":
            data = list(engine.store.every("invoice_payment", invoice=row["id"]))
        else:
            raise StripeError(400, f"This property cannot be expanded ({field}).", param="expand")
        shown[field] = {
            "object": "list",
            "data": data,
            "has_more": False,
            "url": f"/v1/{row['object']}s/{row['id']}/{field}",
        }
    return shown


def getting(path: str, kind: str) -> None:
    """GET of one object."""

    def get(engine: Engine, params: Object, id: str) -> Object:
        if engine.store.deleted.get(id) == kind:
            if kind == "customer":
                return {"id": id, "object": kind, "deleted": True}
            raise StripeError(404, f"No such {kind}: '{id}'", code="resource_missing", param="id")
        return _expanded(engine, engine.store.get(id, kind), params)

    route("GET", f"{path}/{{id}}")(get)


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


# Customers --------------------------------------------------------------------------------------

CUSTOMER: Object = {
    "address": None, "balance": 0, "currency": None, "default_source": None, "delinquent": False, "description": None,
    "discount": None, "email": None, "invoice_prefix": "RW", "invoice_settings": {}, "metadata": {}, "name": None, "phone": None,
    "preferred_locales": [], "shipping": None, "tax_exempt": "none", "test_clock": None,
}  # fmt: skip


@route("GET", "customers/search")
def search_customers(engine: Engine, params: Object) -> Object:
    found = re.fullmatch(r"metadata\['(\w+)'\]:'([^']*)'", params.get("query", ""))
    if not found:
        raise StripeError(400, "The query could not be parsed.", param="query")
    rows = [row for row in engine.store.every("customer") if row["metadata"].get(found[1]) == found[2]]
    return {
        "object": "search_result",
        "url": "/v1/customers/search",
        "has_more": False,
        "data": rows,
        "next_page": None,
    }


getting("customers", "customer")


@route("POST", "customers")
def create_customer(engine: Engine, params: Object) -> Object:
    _check_email(params)
    fields = {
        **CUSTOMER,
        "invoice_settings": {"default_payment_method": None, "custom_fields": None, "footer": None},
        "metadata": {},
    }
    fields.update({name: value for name, value in params.items() if name in CUSTOMER and name != "invoice_settings"})
    fields["invoice_settings"] = {**fields["invoice_settings"], **params.get("invoice_settings", {})}
    if params.get("payment_method"):
        fields["invoice_settings"]["default_payment_method"] = params["payment_method"]
    made = engine.store.make("customer", fields)
    if made["test_clock"]:
        made["created"] = engine.store.now(made)
    engine.store.emit("customer.created", made)
    return made


def _check_email(params: Object) -> None:
    if params.get("email") and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", params["email"]):
        raise StripeError(400, f"Invalid email address: {params['email']}", code="email_invalid", param="email")


@route("POST", "customers/{id}")
def update_customer(engine: Engine, params: Object, id: str) -> Object:
    _check_email(params)
    customer = engine.store.get(id, "customer")
    for name, value in params.items():
        if name not in CUSTOMER:
            raise StripeError(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
        old = customer[name]
        customer[name] = {**old, **value} if isinstance(value, dict) and isinstance(old, dict) else value or None
    engine.store.emit("customer.updated", customer)
    return customer


@route("DELETE", "customers/{id}")
def delete_customer(engine: Engine, _: Object, id: str) -> Object:
    store = engine.store
    customer = store.get(id, "customer")
    for row in list(store.every("subscription", customer=id)):
        if row["status"] not in ("canceled", "incomplete_expired"):
            engine.cancel(row)
    store.emit("customer.deleted", customer)
    return store.delete(id)


@route("GET", "customers/{id}/tax_ids")
def tax_ids(engine: Engine, params: Object, id: str) -> Object:
    return page(engine, params, f"/v1/customers/{id}/tax_ids", engine.store.every("tax_id", customer=id))


@route("GET", "customers/{customer}/tax_ids/{id}")
def tax_id(engine: Engine, _: Object, customer: str, id: str) -> Object:
    return engine.store.get(id, "tax_id")


@route("POST", "customers/{id}/tax_ids")
def create_tax_id(engine: Engine, params: Object, id: str) -> Object:
    required(params, "type", "value")
    if params["type"] == "eu_vat" and not re.fullmatch(r"[A-Z]{2}\w{6,12}", params["value"]):
        raise StripeError(400, "Invalid value for eu_vat.", code="tax_id_invalid", param="value")
    made = engine.store.make("tax_id", {
        "customer": engine.store.get(id, "customer")["id"], "type": params["type"], "value": params["value"], "country": params["value"][:2],
        "owner": {"type": "customer", "customer": id}, "verification": {"status": "pending", "verified_address": None, "verified_name": None},
    })  # fmt: skip
    engine.store.emit("customer.tax_id.created", made)
    return made


@route("DELETE", "customers/{customer}/tax_ids/{id}")
def delete_tax_id(engine: Engine, _: Object, customer: str, id: str) -> Object:
    engine.store.emit("customer.tax_id.deleted", engine.store.get(id, "tax_id"))
    return engine.store.delete(id)


@route("GET", "customers/{id}/balance_transactions")
def balance_transactions(engine: Engine, params: Object, id: str) -> Object:
    rows = (
        row
        for row in engine.store.newest_first("customer_balance_transaction", params.get("starting_after"))
        if row["customer"] == id
    )
    return page(engine, params, f"/v1/customers/{id}/balance_transactions", rows)


@route("GET", "customers/{customer}/balance_transactions/{id}")
def balance_transaction(engine: Engine, _: Object, customer: str, id: str) -> Object:
    return engine.store.get(id, "customer_balance_transaction")


@route("POST", "customers/{id}/balance_transactions")
def create_balance_transaction(engine: Engine, params: Object, id: str) -> Object:
    required(params, "amount", "currency")
    customer = engine.store.get(id, "customer")
    return engine.move_balance(
        customer, int(params["amount"]), "adjustment", params["currency"], description=params.get("description")
    )


# The catalogue ----------------------------------------------------------------------------------


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


def updating(path: str, kind: str, event: str | None, *fields: str) -> None:
    """POST to an object that changes some of its fields."""

    def update(engine: Engine, params: Object, id: str) -> Object:
        found = engine.store.get(id, kind)
        for name, value in params.items():
            if name not in fields:
                raise StripeError(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
            found[name] = is_true(value) if isinstance(found.get(name), bool) else value
        if event:
            engine.store.emit(event, found)
        return found

    route("POST", f"{path}/{{id}}")(update)


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


# Subscriptions ----------------------------------------------------------------------------------


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


# Checkout and portal ----------------------------------------------------------------------------


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


# Money ------------------------------------------------------------------------------------------


@route("POST", "invoices/create_preview")
def preview(engine: Engine, params: Object) -> Object:
    subscription = engine.store.get(params.get("subscription"), "subscription")
    customer = engine.store.get(subscription["customer"])
    details = params.get("subscription_details") or {}
    now = int(details.get("proration_date") or engine.store.now(customer))
    lines, rows, is_reset = engine.prorate(subscription, details.get("items") or [], now)
    if details.get("proration_behavior") != "always_invoice" and not is_reset:
        start = period(subscription)[1]
        recurring = rows[0]["price"]["recurring"]
        end = add_interval(start, recurring["interval"], recurring["interval_count"])
        lines += [engine.line(subscription, row, start, end) for row in licensed({"items": {"data": rows}})]
    sums = engine.totals(subscription, lines, customer["balance"])
    return {
        "id": f"upcoming_in_{subscription['id']}", "object": "invoice", "livemode": engine.store.live, "created": now,
        "currency": subscription["currency"], "customer": customer["id"], "status": "draft", "lines": {"object": "list", "data": lines, "has_more": False}, **sums,
    }  # fmt: skip


@route("POST", "invoices/{id}/pay")
def pay_invoice(engine: Engine, params: Object, id: str) -> Object:
    invoice = engine.store.get(id, "invoice")
    if invoice["status"] not in ("open", "uncollectible"):
        raise StripeError(
            400,
            "Invoice is already paid" if invoice["status"] == "paid" else "This invoice cannot be paid.",
            code="invoice_not_payable",
        )
    if params.get("payment_method"):
        engine.store.get(invoice["customer"])["invoice_settings"]["default_payment_method"] = params["payment_method"]
        subscription = engine.store.objects.get(subscription_of(invoice) or "")
        if subscription is not None:
            subscription["default_payment_method"] = params["payment_method"]
    invoice["status"] = "open"
    if not engine.attempt(invoice):
        raise StripeError(402, "Your card was declined.", "card_error", code="card_declined")
    return invoice


@route("POST", "invoices/{id}/void")
def void_invoice(engine: Engine, _: Object, id: str) -> Object:
    invoice = engine.store.get(id, "invoice")
    if invoice["status"] != "open":
        raise StripeError(400, "Only open invoices can be voided.")
    return engine.store.change(invoice, "invoice.voided", status="void", next_payment_attempt=None)


@route("POST", "refunds")
def create_refund(engine: Engine, params: Object) -> Object:
    store = engine.store
    charge = store.get(params.get("charge"), "charge")
    left = charge["amount_captured"] - charge["amount_refunded"]
    amount = int(params.get("amount", left))
    if amount <= 0 or amount > left:
        raise StripeError(
            400,
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})",
            code="amount_too_large",
            param="amount",
        )
    refund = store.make("refund", {
        "amount": amount, "charge": charge["id"], "currency": charge["currency"], "payment_intent": charge["payment_intent"],
        "metadata": params.get("metadata", {}), "reason": params.get("reason"), "status": "succeeded", "balance_transaction": None,
    }, at=store.now(charge["customer"]))  # fmt: skip
    refund["balance_transaction"] = engine.transact(-amount, "refund", {**refund, "customer": charge["customer"]})["id"]
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]
    store.emit("refund.created", refund, store.now(charge["customer"]))
    store.emit("charge.refunded", charge)
    return refund


def open_dispute(engine: Engine, charge_id: str) -> Object:
    """What a customer's bank does: takes the money back until the matter is decided."""
    store = engine.store
    charge = store.get(charge_id, "charge")
    amount = charge["amount_captured"] - charge["amount_refunded"]
    dispute = store.make("dispute", {
        "amount": amount, "charge": charge["id"], "currency": charge["currency"], "payment_intent": charge["payment_intent"], "metadata": {},
        "status": "needs_response", "reason": "fraudulent", "balance_transactions": [], "is_charge_refundable": False, "evidence": {},
    }, at=store.now(charge["customer"]))  # fmt: skip
    dispute["balance_transactions"] = [
        dict(engine.transact(-amount, "dispute", {**dispute, "customer": charge["customer"]}, fee=1500))
    ]
    charge["disputed"] = True
    store.emit("charge.dispute.created", dispute, store.now(charge["customer"]))
    store.emit("charge.dispute.funds_withdrawn", dispute, store.now(charge["customer"]))
    store.emit("charge.updated", charge)
    return dispute


def close_dispute(engine: Engine, dispute_id: str, status: str) -> Object:
    """The matter is decided: won or lost."""
    store = engine.store
    dispute = store.get(dispute_id, "dispute")
    charge = store.get(dispute["charge"])
    dispute["status"] = status
    if status == "won":
        dispute["balance_transactions"].append(
            dict(engine.transact(dispute["amount"], "dispute", {**dispute, "customer": charge["customer"]}))
        )
        store.emit("charge.dispute.funds_reinstated", dispute, store.now(charge["customer"]))
    store.emit("charge.dispute.closed", dispute, store.now(charge["customer"]))
    return dispute


@route("POST", "credit_notes")
def create_credit_note(engine: Engine, params: Object) -> Object:
    store = engine.store
    invoice = store.get(params.get("invoice"), "invoice")
    customer = store.get(invoice["customer"])
    amount = int(params.get("amount", 0))
    parts = {name: int(params.get(name, 0)) for name in ("refund_amount", "credit_amount", "out_of_band_amount")}
    is_paid = invoice["status"] == "paid"
    if amount <= 0 or (is_paid and sum(parts.values()) != amount):
        raise StripeError(
            400, "The sum of credit amount, refund amount and out of band amount must equal the credit note amount."
        )
    note = store.make("credit_note", {
        "customer": customer["id"], "invoice": invoice["id"], "amount": amount, "total": amount, "subtotal": amount, "currency": invoice["currency"],
        "status": "issued", "type": "post_payment" if is_paid else "pre_payment", "memo": params.get("memo"), "metadata": {},
        "number": f"{invoice['number']}-CN-{next(store.numbers)}", "customer_balance_transaction": None, "refunds": [],
        "out_of_band_amount": parts["out_of_band_amount"] or None, "voided_at": None, "total_taxes": [],
    })  # fmt: skip
    if is_paid:
        invoice["post_payment_credit_notes_amount"] += amount
        if parts["credit_amount"]:
            moved = engine.move_balance(
                customer, -parts["credit_amount"], "credit_note", invoice["currency"], credit_note=note["id"]
            )
            note["customer_balance_transaction"] = moved["id"]
        if parts["refund_amount"]:
            link = next(store.every("invoice_payment", invoice=invoice["id"]))
            charge = next(store.every("charge", payment_intent=link["payment"]["payment_intent"], status="succeeded"))
            made = create_refund(engine, {"charge": charge["id"], "amount": parts["refund_amount"]})
            note["refunds"] = [{"refund": made["id"], "amount_refunded": made["amount"]}]
    else:
        invoice["pre_payment_credit_notes_amount"] += amount
        invoice["amount_due"] -= amount
        invoice["amount_remaining"] -= amount
        store.emit("invoice.updated", invoice)
    store.emit("credit_note.created", note)
    return note


@route("POST", "credit_notes/{id}/void")
def void_credit_note(engine: Engine, _: Object, id: str) -> Object:
    note = engine.store.get(id, "credit_note")
    return engine.store.change(note, "credit_note.voided", status="void", voided_at=engine.store.now(note["customer"]))


# Clocks and endpoints ---------------------------------------------------------------------------


@route("POST", "test_helpers/test_clocks")
def create_clock(engine: Engine, params: Object) -> Object:
    required(params, "frozen_time")
    return engine.store.make(
        "test_helpers.test_clock",
        {"frozen_time": int(params["frozen_time"]), "name": params.get("name"), "status": "ready"},
    )


@route("POST", "test_helpers/test_clocks/{id}/advance")
def advance_clock(engine: Engine, params: Object, id: str) -> Object:
    clock = engine.store.get(id, "test_helpers.test_clock")
    wanted = int(params["frozen_time"])
    if wanted <= clock["frozen_time"]:
        raise StripeError(400, "A test clock only moves forward.", param="frozen_time")
    clock["frozen_time"] = wanted
    engine.run(wanted, id)
    return clock


@route("POST", "webhook_endpoints")
def create_endpoint(engine: Engine, params: Object) -> Object:
    required(params, "url", "enabled_events")
    return engine.store.make("webhook_endpoint", {
        "url": params["url"], "enabled_events": params["enabled_events"], "status": "enabled", "metadata": {}, "description": params.get("description"),
        "api_version": params.get("api_version"), "application": None, "secret": f"whsec_{next(engine.store.numbers):08d}standin",
    })  # fmt: skip


@route("POST", "webhook_endpoints/{id}")
def update_endpoint(engine: Engine, params: Object, id: str) -> Object:
    endpoint = engine.store.get(id, "webhook_endpoint")
    if "disabled" in params:
        endpoint["status"] = "disabled" if is_true(params["disabled"]) else "enabled"
    endpoint.update({name: params[name] for name in ("url", "enabled_events", "description") if name in params})
    return endpoint
