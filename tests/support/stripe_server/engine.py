"""How subscriptions live: trials, renewals, proration, declines, retries, and what the customer's balance pays."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from .store import Object, Store, StripeError

DAY = 86_400
RETRY_DAYS = (3, 5, 7)


def add_interval(moment: int, interval: str, count: int) -> int:
    """The same time so many intervals later; on the last day of a month that has no such day."""
    if interval in ("day", "week"):
        return moment + DAY * count * (7 if interval == "week" else 1)
    start = datetime.fromtimestamp(moment, UTC)
    months = start.year * 12 + start.month - 1 + count * (12 if interval == "year" else 1)
    year, month = divmod(months, 12)
    day = start.day
    while True:
        try:
            return int(start.replace(year=year, month=month + 1, day=day).timestamp())
        except ValueError:
            day -= 1


class Engine:
    """Works on a store; every change of an object is followed by its event."""

    def __init__(self, store: Store) -> None:
        self.store = store

    # Prices -------------------------------------------------------------------------------------

    def cost(self, price: Object, quantity: int) -> int:
        """What so many units of a price cost, in minor units."""
        if price["billing_scheme"] == "per_unit":
            return int(price["unit_amount"] * quantity)
        total = used = 0
        for tier in price["tiers"]:
            upto = quantity if tier["up_to"] is None else min(quantity, tier["up_to"])
            total += max(0, upto - used) * tier["unit_amount"]
            used = max(used, upto)
        return total

    def item(self, subscription: str, price: Object, quantity: int | None, start: int, end: int) -> Object:
        made = {
            "id": f"si_{next(self.store.numbers):08d}rw", "object": "subscription_item", "created": start,
            "discounts": [], "metadata": {}, "price": dict(price), "subscription": subscription, "tax_rates": [],
            "billing_thresholds": None, "current_period_start": start, "current_period_end": end,
        }  # fmt: skip
        if price["recurring"]["usage_type"] == "licensed":
            made["quantity"] = 1 if quantity is None else int(quantity)
        return made

    # Subscriptions ------------------------------------------------------------------------------

    def subscribe(self, params: Object) -> Object:
        """POST /v1/subscriptions."""
        store = self.store
        customer = store.get(params["customer"], "customer")
        now = store.now(customer)
        prices = [(store.get(row["price"], "price"), row.get("quantity")) for row in params.get("items") or []]
        if not prices:
            raise StripeError(400, "Missing required param: items.", param="items")
        recurring = prices[0][0]["recurring"]
        trial_end = params.get("trial_end")
        if params.get("trial_period_days"):
            trial_end = now + DAY * int(params["trial_period_days"])
        trial_end = int(trial_end) if trial_end else None
        end = trial_end or add_interval(now, recurring["interval"], recurring["interval_count"])
        behaviour = params.get("payment_behavior", "allow_incomplete")
        if not trial_end and behaviour == "error_if_incomplete" and not self.can_pay(customer, None):
            raise declined()
        made = store.make("subscription", {
            "customer": customer["id"], "status": "trialing" if trial_end else "incomplete", "currency": prices[0][0]["currency"],
            "billing_cycle_anchor": end if trial_end else now, "cancel_at": None, "cancel_at_period_end": False,
            "canceled_at": None, "cancellation_details": {"comment": None, "feedback": None, "reason": None},
            "collection_method": params.get("collection_method", "charge_automatically"), "start_date": now,
            "days_until_due": params.get("days_until_due"), "default_payment_method": params.get("default_payment_method"),
            "discounts": [], "ended_at": None, "latest_invoice": None, "metadata": params.get("metadata") or {},
            "pause_collection": None, "pending_update": None, "schedule": None, "trial_start": now if trial_end else None,
            "trial_end": trial_end, "test_clock": customer.get("test_clock"),
            "trial_settings": params.get("trial_settings") or {"end_behavior": {"missing_payment_method": "create_invoice"}},
            "billing_mode": {"type": "flexible", "flexible": {"proration_discounts": "included"}}, "automatic_tax": {"enabled": False},
        })  # fmt: skip
        made["items"] = {
            "object": "list", "has_more": False, "url": f"/v1/subscription_items?subscription={made['id']}",
            "data": [self.item(made["id"], price, quantity, now, end) for price, quantity in prices],
        }  # fmt: skip
        for coupon in params.get("discounts") or []:
            made["discounts"].append(self.discount(made, coupon)["id"])
        store.emit("customer.subscription.created", made)
        if trial_end:
            self.entitle(customer["id"])
            return made
        lines = [self.line(made, item, now, end) for item in licensed(made)]
        invoice = self.bill(made, "subscription_create", lines)
        if made["collection_method"] == "send_invoice":
            made["status"] = "active"
        elif behaviour != "default_incomplete":
            self.attempt(invoice)
        elif invoice["status"] == "paid":
            made["status"] = "active"
        if made["status"] == "active" and made["collection_method"] == "send_invoice":
            store.emit("customer.subscription.updated", made)
        self.entitle(customer["id"])
        return made

    def discount(self, subscription: Object, given: Object) -> Object:
        store = self.store
        coupon, code = given.get("coupon"), given.get("promotion_code")
        if code:
            coupon = store.get(code, "promotion_code")["promotion"]["coupon"]
        made = store.make("discount", {
            "customer": subscription["customer"], "subscription": subscription["id"], "end": None, "invoice": None,
            "start": store.now(subscription["customer"]), "promotion_code": code, "source": {"coupon": store.get(coupon, "coupon")["id"], "type": "coupon"},
        })  # fmt: skip
        store.emit("customer.discount.created", made)
        return made

    def update(self, subscription: Object, params: Object) -> Object:
        """POST /v1/subscriptions/:id."""
        store = self.store
        if subscription["status"] in ("canceled", "incomplete_expired"):
            raise StripeError(400, "A canceled subscription can only update its cancellation_details and metadata.")
        now = store.now(subscription["customer"])
        before = dict(subscription)
        if "items" in params:
            self.change_items(subscription, params, now)
        if "cancel_at_period_end" in params:
            ends = is_true(params["cancel_at_period_end"])
            end = period(subscription)[1]
            subscription.update(
                cancel_at_period_end=ends, cancel_at=end if ends else None, canceled_at=now if ends else None
            )
        if "cancel_at" in params:
            subscription["cancel_at"] = int(params["cancel_at"]) if params["cancel_at"] else None
            subscription["canceled_at"] = now if params["cancel_at"] else None
        if "pause_collection" in params:
            given = params["pause_collection"]
            subscription["pause_collection"] = (
                {"behavior": given["behavior"], "resumes_at": given.get("resumes_at")} if given else None
            )
        if params.get("trial_end"):
            end = now if params["trial_end"] == "now" else int(params["trial_end"])
            subscription.update(trial_end=end, status="trialing")
            for row in subscription["items"]["data"]:
                row["current_period_end"] = end
        for name in ("default_payment_method", "metadata", "cancellation_details"):
            if name in params:
                value = params[name]
                subscription[name] = {**(subscription[name] or {}), **value} if isinstance(value, dict) else value
        if subscription != before or "items" in params:
            store.emit("customer.subscription.updated", subscription)
        self.entitle(subscription["customer"])
        return subscription

    def change_items(self, subscription: Object, params: Object, now: int) -> None:
        store = self.store
        lines, rows, is_reset = self.prorate(subscription, params["items"], now)
        behaviour = params.get("proration_behavior", "create_prorations")
        if behaviour == "none":
            lines = [line for line in lines if not line["parent"]["subscription_item_details"]["proration"]]
        must_pay = behaviour == "always_invoice" or is_reset
        customer = store.get(subscription["customer"])
        total = sum(line["amount"] for line in lines)
        owes = total + customer["balance"] > 0
        if (
            must_pay
            and owes
            and params.get("payment_behavior") == "error_if_incomplete"
            and not self.can_pay(customer, subscription)
        ):
            raise declined()
        subscription["items"]["data"] = rows
        if must_pay and lines:
            self.attempt(self.bill(subscription, "subscription_update", lines))
        else:
            subscription.setdefault("_pending", []).extend(lines)

    def prorate(self, subscription: Object, given: list[Object], now: int) -> tuple[list[Object], list[Object], bool]:
        """What a change of items would put on an invoice, the items after it, and whether a new period begins."""
        store = self.store
        rows = [dict(row) for row in subscription["items"]["data"]]
        start, end = period(subscription)
        lines: list[Object] = []
        is_reset = False
        for change in given:
            row = next((row for row in rows if row["id"] == change.get("id")), None)
            if change.get("id") and row is None:
                raise StripeError(400, f"No such subscription item: '{change['id']}'", code="resource_missing")
            if row is not None and is_true(change.get("deleted")):
                rows.remove(row)
                continue
            price = store.get(change["price"], "price") if change.get("price") else (row or {})["price"]
            if row is None:
                rows.append(self.item(subscription["id"], price, change.get("quantity"), start, end))
                continue
            quantity = int(change.get("quantity") or row.get("quantity") or 1)
            if price["id"] == row["price"]["id"] and quantity == row.get("quantity"):
                continue
            if price["recurring"]["interval"] != row["price"]["recurring"]["interval"]:
                is_reset = True
            if subscription["status"] != "trialing":
                share = (end - now) / (end - start)
                old = -round(self.cost(row["price"], row["quantity"]) * share)
                lines.append(self.line(subscription, row, now, end, amount=old, proration=True, text="Unused time on"))
                if not is_reset:
                    new = round(self.cost(price, quantity) * share)
                    fresh = {**row, "price": dict(price), "quantity": quantity}
                    lines.append(
                        self.line(subscription, fresh, now, end, amount=new, proration=True, text="Remaining time on")
                    )
            row.update(price=dict(price), quantity=quantity)
        if is_reset and subscription["status"] != "trialing":
            recurring = rows[0]["price"]["recurring"]
            end = add_interval(now, recurring["interval"], recurring["interval_count"])
            for row in rows:
                row.update(current_period_start=now, current_period_end=end)
                if "quantity" in row:
                    lines.append(self.line(subscription, row, now, end))
        return lines, rows, is_reset

    def cancel(self, subscription: Object, at: int | None = None) -> Object:
        """DELETE /v1/subscriptions/:id, and every other end."""
        now = at or self.store.now(subscription["customer"])
        subscription.update(status="canceled", ended_at=now, canceled_at=subscription["canceled_at"] or now)
        self.store.emit("customer.subscription.deleted", subscription, at)
        self.entitle(subscription["customer"])
        return subscription

    # Invoices -----------------------------------------------------------------------------------

    def line(
        self, subscription: Object, item: Object, start: int, end: int, *, amount: int | None = None,
        quantity: int | None = None, proration: bool = False, text: str = "",
    ) -> Object:  # fmt: skip
        count = item.get("quantity", 0) if quantity is None else quantity
        return {
            "id": f"il_{next(self.store.numbers):08d}rw", "object": "line_item", "currency": subscription["currency"],
            "amount": self.cost(item["price"], count) if amount is None else amount, "quantity": count, "livemode": self.store.live,
            "description": f"{text} {count} × {item['price'].get('nickname') or item['price']['product']}".strip(),
            "discount_amounts": [], "discountable": True, "discounts": [], "metadata": {}, "subscription": subscription["id"],
            "period": {"start": start, "end": end}, "taxes": [],
            "pricing": {"type": "price_details", "price_details": {"price": item["price"]["id"], "product": item["price"]["product"]}},
            "parent": {"type": "subscription_item_details", "subscription_item_details": {
                "subscription": subscription["id"], "subscription_item": item["id"], "proration": proration, "invoice_item": None}},
        }  # fmt: skip

    def totals(self, subscription: Object | None, lines: list[Object], balance: int) -> Object:
        subtotal = sum(line["amount"] for line in lines)
        off = 0
        for name in (subscription or {}).get("discounts", []):
            coupon = self.store.objects[self.store.objects[name]["source"]["coupon"]]
            for line in lines:
                share = round(line["amount"] * (coupon.get("percent_off") or 0) / 100)
                if coupon.get("amount_off") and line is lines[0]:
                    share = min(coupon["amount_off"], line["amount"])
                if share > 0:
                    line["discount_amounts"].append({"amount": share, "discount": name})
                    off += share
        tax = round((subtotal - off) * self.store.tax_percent / 100)
        total = subtotal - off + tax
        due = max(0, total + balance)
        return {
            "subtotal": subtotal, "total": total, "amount_due": due, "amount_paid": 0, "amount_remaining": due,
            "total_excluding_tax": total - tax, "starting_balance": balance, "ending_balance": total + balance - due,
            "total_taxes": [{"amount": tax, "tax_behavior": "exclusive", "taxable_amount": subtotal - off, "type": "tax_rate_details"}] if tax else [],
            "total_discount_amounts": [{"amount": off, "discount": (subscription or {}).get("discounts", [None])[0]}] if off else [],
        }  # fmt: skip

    def bill(self, subscription: Object, reason: str, lines: list[Object], at: int | None = None) -> Object:
        """An invoice, made and finalised; what the customer's balance pays, it pays."""
        store = self.store
        customer = store.get(subscription["customer"])
        now = at or store.now(customer)
        lines = subscription.pop("_pending", []) + lines
        start, end = period(subscription)
        sums = self.totals(subscription, lines, customer["balance"])
        invoice = store.make("invoice", {
            "customer": customer["id"], "currency": subscription["currency"], "status": "draft", "billing_reason": reason,
            "collection_method": subscription["collection_method"], "attempt_count": 0, "attempted": False, "auto_advance": True,
            "customer_email": customer["email"], "customer_name": customer["name"], "customer_address": customer["address"],
            "description": None, "discounts": list(subscription["discounts"]), "due_date": None, "footer": customer["invoice_settings"].get("footer"),
            "custom_fields": customer["invoice_settings"].get("custom_fields"), "metadata": {}, "next_payment_attempt": None,
            "number": None, "period_start": start, "period_end": end, "hosted_invoice_url": None, "invoice_pdf": None,
            "post_payment_credit_notes_amount": 0, "pre_payment_credit_notes_amount": 0, "automatic_tax": {"enabled": False},
            "status_transitions": {"finalized_at": None, "marked_uncollectible_at": None, "paid_at": None, "voided_at": None},
            "parent": {"type": "subscription_details", "quote_details": None, "subscription_details": {"subscription": subscription["id"], "metadata": subscription["metadata"]}},
            "lines": {"object": "list", "data": lines, "has_more": False, "url": ""}, **sums,
        }, at=now)  # fmt: skip
        for line in lines:
            line["invoice"] = invoice["id"]
        store.emit("invoice.created", invoice, at)
        invoice.update(
            status="open",
            number=f"RW-{next(store.numbers):06d}",
            hosted_invoice_url=f"https://invoice.stripe.example/{invoice['id']}",
        )
        invoice["invoice_pdf"] = invoice["hosted_invoice_url"] + "/pdf"
        invoice["status_transitions"]["finalized_at"] = now
        if subscription["collection_method"] == "send_invoice":
            invoice["due_date"] = now + DAY * int(subscription["days_until_due"] or 30)
        subscription["latest_invoice"] = invoice["id"]
        used = invoice["ending_balance"] - invoice["starting_balance"]
        if used:
            self.move_balance(customer, used, "applied_to_invoice", invoice["currency"], invoice=invoice["id"], at=at)
        store.emit("invoice.finalized", invoice, at)
        if invoice["amount_due"] == 0:
            self.settle(invoice, now)
        return invoice

    def move_balance(
        self, customer: Object, amount: int, kind: str, currency: str, at: int | None = None, **more: Any
    ) -> Object:
        """Changes what a customer owes: negative is credit."""
        customer["balance"] += amount
        made = self.store.make("customer_balance_transaction", {
            "customer": customer["id"], "amount": amount, "currency": currency, "type": kind, "ending_balance": customer["balance"],
            "description": None, "invoice": None, "credit_note": None, "metadata": {}, **more,
        })  # fmt: skip
        self.store.emit("customer.updated", customer, at)
        return made

    def can_pay(self, customer: Object, subscription: Object | None) -> bool:
        method = (subscription or {}).get("default_payment_method") or customer["invoice_settings"].get(
            "default_payment_method"
        )
        return bool(method) and "declined" not in str(method).lower()

    def attempt(self, invoice: Object, at: int | None = None) -> bool:
        """Tries to collect an open invoice; True if it is paid."""
        store = self.store
        if invoice["status"] != "open":
            return bool(invoice["status"] == "paid")
        customer = store.get(invoice["customer"])
        now = at or store.now(customer)
        subscription = store.objects.get(subscription_of(invoice) or "")
        pays = self.can_pay(customer, subscription)
        method = (subscription or {}).get("default_payment_method") or customer["invoice_settings"].get(
            "default_payment_method"
        )
        intent = next(
            (
                store.objects[row["payment"]["payment_intent"]]
                for row in store.every("invoice_payment", invoice=invoice["id"])
            ),
            None,
        )
        if intent is None:
            intent = store.make("payment_intent", {
                "customer": customer["id"], "amount": invoice["amount_due"], "amount_received": 0, "currency": invoice["currency"],
                "status": "requires_payment_method", "latest_charge": None, "payment_method": method, "metadata": {},
            }, at=now)  # fmt: skip
            link = store.make("invoice_payment", {
                "invoice": invoice["id"], "amount_requested": invoice["amount_due"], "amount_paid": None, "currency": invoice["currency"],
                "is_default": True, "status": "open", "payment": {"type": "payment_intent", "payment_intent": intent["id"]},
                "status_transitions": {"paid_at": None, "canceled_at": None},
            }, at=now)  # fmt: skip
        else:
            link = next(store.every("invoice_payment", invoice=invoice["id"]))
        invoice["attempted"] = True
        invoice["attempt_count"] += 1
        if method:
            charge = self.charge(customer, intent, method, pays, now)
            intent["latest_charge"] = charge["id"]
            store.emit("charge.succeeded" if pays else "charge.failed", charge, at)
        if not pays:
            intent["status"] = "requires_payment_method"
            if method:
                store.emit("payment_intent.payment_failed", intent, at)
            days = [
                day for day in RETRY_DAYS if day * DAY + (invoice["status_transitions"]["finalized_at"] or now) > now
            ]
            invoice["next_payment_attempt"] = (
                invoice["status_transitions"]["finalized_at"] + days[0] * DAY if days else None
            )
            store.emit("invoice.payment_failed", invoice, at)
            store.emit("invoice.updated", invoice, at)
            self.follow(invoice, subscription, is_paid=False, at=at)
            return False
        intent.update(status="succeeded", amount_received=intent["amount"])
        link.update(status="paid", amount_paid=intent["amount"])
        link["status_transitions"]["paid_at"] = now
        store.emit("payment_intent.succeeded", intent, at)
        store.emit("invoice_payment.paid", link, at)
        self.settle(invoice, now, at)
        return True

    def charge(self, customer: Object, intent: Object, method: str, pays: bool, now: int) -> Object:
        amount = intent["amount"]
        charge = self.store.make("charge", {
            "customer": customer["id"], "amount": amount, "amount_captured": amount if pays else 0, "amount_refunded": 0,
            "captured": pays, "currency": intent["currency"], "disputed": False, "paid": pays, "refunded": False,
            "payment_intent": intent["id"], "payment_method": method, "status": "succeeded" if pays else "failed", "metadata": {},
            "failure_code": None if pays else "card_declined", "failure_message": None if pays else "Your card was declined.",
            "payment_method_details": {"type": "card", "card": {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2034}},
            "balance_transaction": None, "billing_details": {}, "description": None,
        }, at=now)  # fmt: skip
        if pays:
            charge["balance_transaction"] = self.transact(amount, "charge", charge)["id"]
        return charge

    def transact(self, amount: int, kind: str, source: Object, fee: int = 0) -> Object:
        return self.store.make("balance_transaction", {
            "amount": amount, "currency": source["currency"], "fee": fee, "net": amount - fee, "type": kind, "source": source["id"],
            "reporting_category": kind, "status": "available", "fee_details": [],
        }, at=self.store.now(source.get("customer")))  # fmt: skip

    def settle(self, invoice: Object, now: int, at: int | None = None) -> None:
        invoice.update(
            status="paid",
            amount_paid=invoice["amount_due"],
            amount_remaining=0,
            attempted=True,
            next_payment_attempt=None,
        )
        invoice["status_transitions"]["paid_at"] = now
        self.store.emit("invoice.paid", invoice, at)
        self.store.emit("invoice.payment_succeeded", invoice, at)
        self.follow(invoice, self.store.objects.get(subscription_of(invoice) or ""), is_paid=True, at=at)

    def follow(self, invoice: Object, subscription: Object | None, *, is_paid: bool, at: int | None = None) -> None:
        """What an invoice's fate means for its subscription."""
        if subscription is None or subscription["status"] in ("canceled", "incomplete_expired"):
            return
        before = subscription["status"]
        others = any(
            row["status"] == "open"
            and row["attempt_count"] > 0
            and row is not invoice
            and subscription_of(row) == subscription["id"]
            for row in self.store.every("invoice", customer=subscription["customer"])
        )
        if is_paid and not others and before in ("incomplete", "past_due", "unpaid"):
            subscription["status"] = "active"
        elif not is_paid and before == "active":
            subscription["status"] = "past_due"
        elif not is_paid and before == "past_due" and invoice["next_payment_attempt"] is None:
            if self.store.after_retries == "canceled":
                self.cancel(subscription, at)
                return
            subscription["status"] = self.store.after_retries
        if subscription["status"] != before:
            self.store.emit("customer.subscription.updated", subscription, at)
            self.entitle(subscription["customer"])

    # Time ---------------------------------------------------------------------------------------

    def due(self, subscription: Object) -> int | None:
        """When something happens to a subscription by itself."""
        if subscription["status"] == "incomplete":
            return int(subscription["created"]) + DAY - 3600
        if subscription["status"] in ("canceled", "incomplete_expired", "paused"):
            return None
        moments = [period(subscription)[1]]
        if subscription["cancel_at"]:
            moments.append(subscription["cancel_at"])
        moments += [
            row["next_payment_attempt"] for row in self.store.every("invoice", customer=subscription["customer"])
            if row["status"] == "open" and row["next_payment_attempt"] and subscription_of(row) == subscription["id"]
        ]  # fmt: skip
        return min(moments)

    def run(self, now: int, clock: str | None = None) -> None:
        """Lets everything happen that is due until now, in its order."""
        while True:
            waiting = [
                (due, row["id"]) for row in self.store.every("subscription")
                if row.get("test_clock") == clock and (due := self.due(row)) is not None and due <= now
            ]  # fmt: skip
            if not waiting:
                return
            moment, name = min(waiting)
            self.step(self.store.objects[name], moment)

    def step(self, subscription: Object, moment: int) -> None:
        store = self.store
        if subscription["status"] == "incomplete":
            store.change(subscription, "customer.subscription.updated", status="incomplete_expired", ended_at=moment)
            return
        if subscription["cancel_at"] and subscription["cancel_at"] <= moment:
            self.cancel(subscription, moment)
            return
        for invoice in list(store.every("invoice", customer=subscription["customer"])):
            if (
                invoice["status"] == "open"
                and invoice["next_payment_attempt"]
                and invoice["next_payment_attempt"] <= moment
            ):
                self.attempt(invoice, moment)
                return
        self.renew(subscription, moment)

    def renew(self, subscription: Object, moment: int) -> None:
        store = self.store
        start, end = period(subscription)
        was_trial = subscription["status"] == "trialing"
        if was_trial and not self.can_pay(store.get(subscription["customer"]), subscription):
            behaviour = subscription["trial_settings"]["end_behavior"]["missing_payment_method"]
            if behaviour == "cancel":
                self.cancel(subscription, moment)
                return
            if behaviour == "pause":
                store.emit("customer.subscription.paused", subscription, moment)
                subscription["status"] = "paused"
                store.emit("customer.subscription.updated", subscription, moment)
                return
        lines = [] if was_trial else self.metered_lines(subscription, start, end)
        recurring = subscription["items"]["data"][0]["price"]["recurring"]
        fresh = add_interval(end, recurring["interval"], recurring["interval_count"])
        for row in subscription["items"]["data"]:
            row.update(current_period_start=end, current_period_end=fresh)
        if was_trial:
            subscription["status"] = "active"
        behaviour = (subscription["pause_collection"] or {}).get("behavior")
        lines += [self.line(subscription, item, end, fresh) for item in licensed(subscription)]
        invoice = self.bill(subscription, "subscription_cycle", lines, moment)
        store.emit("customer.subscription.updated", subscription, moment)
        if behaviour in ("void", "mark_uncollectible") and invoice["status"] == "open":
            status = "void" if behaviour == "void" else "uncollectible"
            invoice["status"] = status
            store.emit(f"invoice.{'voided' if status == 'void' else 'marked_uncollectible'}", invoice, moment)
        elif not behaviour and subscription["status"] != "unpaid":
            self.attempt(invoice, moment)

    def metered_lines(self, subscription: Object, start: int, end: int) -> list[Object]:
        lines = []
        for item in subscription["items"]["data"]:
            meter = item["price"]["recurring"].get("meter")
            if meter:
                name = self.store.objects[meter]["event_name"]
                used = sum(
                    int(row["payload"]["value"]) for row in self.store.meter_events.values()
                    if row["event_name"] == name and row["payload"]["stripe_customer_id"] == subscription["customer"]
                    and start <= row["timestamp"] < end
                )  # fmt: skip
                lines.append(self.line(subscription, item, start, end, quantity=used))
        return lines

    # Entitlements -------------------------------------------------------------------------------

    def entitle(self, customer: str) -> None:
        """What a customer's subscriptions give by the features of their products."""
        store = self.store
        wanted: dict[str, str] = {}
        for row in store.every("subscription", customer=customer):
            if row["status"] in ("active", "trialing", "past_due"):
                for item in row["items"]["data"]:
                    for feature in store.every("product_feature", _product=item["price"]["product"]):
                        wanted[feature["entitlement_feature"]["id"]] = feature["entitlement_feature"]["lookup_key"]
        have = {row["feature"]: row for row in store.every("entitlements.active_entitlement", _customer=customer)}
        if set(wanted) == set(have):
            return
        for name, held in have.items():
            if name not in wanted:
                store.delete(held["id"])
        for name, key in wanted.items():
            if name not in have:
                store.make(
                    "entitlements.active_entitlement", {"feature": name, "lookup_key": key, "_customer": customer}
                )
        data = [public(row) for row in store.every("entitlements.active_entitlement", _customer=customer)]
        store.emit("entitlements.active_entitlement_summary.updated", {
            "object": "entitlements.active_entitlement_summary", "customer": customer, "livemode": store.live,
            "entitlements": {"object": "list", "data": data, "has_more": False, "url": f"/v1/customer/{customer}/entitlements"},
        })  # fmt: skip


def public(row: Object) -> Object:
    """An object without what only the stand-in knows."""
    return {name: value for name, value in row.items() if not name.startswith("_")}


def licensed(subscription: Object) -> list[Object]:
    return [row for row in subscription["items"]["data"] if row["price"]["recurring"]["usage_type"] == "licensed"]


def period(subscription: Object) -> tuple[int, int]:
    row = subscription["items"]["data"][0]
    return row["current_period_start"], row["current_period_end"]


def subscription_of(invoice: Object) -> str | None:
    found: str | None = ((invoice.get("parent") or {}).get("subscription_details") or {}).get("subscription")
    return found


def declined() -> StripeError:
    return StripeError(
        402, "Your card was declined.", "card_error", code="card_declined", decline_code="generic_decline"
    )


def is_true(value: Any) -> bool:
    return str(value).lower() == "true"
