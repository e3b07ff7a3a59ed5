"""Customers, their tax ids and their balance."""

from __future__ import annotations

import re

from .engine import Engine
from .routes import getting, page, required, route
from .store import Object, StripeError

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
