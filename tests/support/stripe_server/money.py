"""Invoices, refunds, disputes, credit notes; clocks and webhook endpoints."""

from __future__ import annotations

from .engine import Engine, add_interval, is_true, licensed, period, subscription_of
from .routes import required, route
from .store import Object, StripeError


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
