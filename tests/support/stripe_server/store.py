"""What the stand-in remembers: objects in the newest shape, events, clocks, idempotency keys."""

from __future__ import annotations

import copy
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Object = dict[str, Any]

PREFIXES = {
    "customer": "cus", "subscription": "sub", "subscription_item": "si", "invoice": "in", "line_item": "il",
    "invoice_payment": "inpay", "payment_intent": "pi", "charge": "ch", "refund": "re", "dispute": "du",
    "credit_note": "cn", "customer_balance_transaction": "cbtxn", "tax_id": "txi", "checkout.session": "cs_test",
    "billing_portal.session": "bps", "product": "prod", "price": "price", "coupon": "co", "promotion_code": "promo",
    "discount": "di", "billing.meter": "mtr", "entitlements.feature": "feat", "product_feature": "prodft",
    "entitlements.active_entitlement": "ent", "event": "evt", "webhook_endpoint": "we", "test_helpers.test_clock": "clock",
    "balance_transaction": "txn", "subscription_schedule": "sub_sched", "invoiceitem": "ii",
}  # fmt: skip


TIMELESS = ("discount", "entitlements.feature", "entitlements.active_entitlement", "product_feature", "line_item")


class StripeError(Exception):
    """An answer other than 200, as Stripe gives it."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"type": kind, "message": message, **more}}


def missing(name: str, param: str = "id") -> StripeError:
    return StripeError(404, f"No such object: '{name}'", code="resource_missing", param=param)


class Store:
    """All that there is. `lock` is held for each request, so that requests come one after the other."""

    def __init__(self, *, live: bool = False) -> None:
        self.lock = threading.RLock()
        self.live = live
        self.account = "acct_rowhouse_test"
        self.objects: dict[str, Object] = {}
        self.kinds: dict[str, list[str]] = {}
        self.places: dict[str, int] = {}
        self.deleted: dict[str, str] = {}
        self.events: list[Object] = []
        self.offset = 0.0
        self.frozen: int | None = None
        self.meter_events: dict[str, Object] = {}
        self.numbers = itertools.count(1)
        self.tax_percent = 0.0
        # What becomes of a subscription when the last retry fails: canceled, unpaid or past_due.
        self.after_retries = "unpaid"
        self.listeners: list[Callable[[Object], None]] = []

    # Time ---------------------------------------------------------------------------------------

    def now(self, owner: Object | str | None = None) -> int:
        """Seconds since 1970: of a customer's test clock, if it has one; frozen where a test wants that."""
        customer = self.objects.get(owner) if isinstance(owner, str) else owner
        if customer is not None and customer.get("test_clock"):
            clock: int = self.objects[customer["test_clock"]]["frozen_time"]
            return clock
        return self.frozen if self.frozen is not None else int(time.time() + self.offset)

    # Objects ------------------------------------------------------------------------------------

    def make(self, kind: str, fields: Object, name: str | None = None, at: int | None = None) -> Object:
        """Keeps a new object; returns it."""
        name = name or f"{PREFIXES[kind]}_{next(self.numbers):08d}rw"
        made = {"id": name, "object": kind, "livemode": self.live, **fields}
        if kind in ("refund", "balance_transaction"):
            made.pop("livemode")
        if kind not in TIMELESS:
            made.setdefault("created", at if at is not None else self.now(fields.get("customer")))
        self.objects[name] = made
        names = self.kinds.setdefault(kind, [])
        self.places[name] = len(names)
        names.append(name)
        return made

    def get(self, name: Any, kind: str | None = None) -> Object:
        """An object by its id. Raises StripeError 404."""
        found = self.objects.get(str(name))
        if found is None or (kind is not None and found["object"] != kind):
            raise missing(str(name))
        return found

    def every(self, kind: str, **fields: Any) -> Iterator[Object]:
        """Objects of a kind, the oldest first, whose fields are these."""
        for name in list(self.kinds.get(kind, [])):
            found = self.objects.get(name)
            if found is not None and all(found.get(field) == value for field, value in fields.items()):
                yield found

    def newest_first(self, kind: str, after: str | None) -> Iterable[Object]:
        """Objects of a kind, the newest first, from behind one of them."""
        names = self.kinds.get(kind, [])
        start = len(names) if after is None else self.places.get(after, -1)
        if start < 0:
            raise StripeError(400, f"No such object: '{after}'", code="resource_missing", param="starting_after")
        for place in range(start - 1, -1, -1):
            found = self.objects.get(names[place])
            if found is not None:
                yield found

    def delete(self, name: str) -> Object:
        gone = self.objects.pop(name)
        self.deleted[name] = gone["object"]
        return {"id": name, "object": gone["object"], "deleted": True}

    # Events -------------------------------------------------------------------------------------

    def emit(self, kind: str, subject: Object, at: int | None = None) -> Object:
        """Something happened: an event with the object as it is now."""
        customer = subject["id"] if subject["object"] == "customer" else subject.get("customer")
        event = {
            "id": f"evt_{next(self.numbers):08d}rw", "object": "event", "type": kind, "livemode": self.live,
            "created": at if at is not None else self.now(customer), "pending_webhooks": 0,
            "request": {"id": None, "idempotency_key": None}, "data": {"object": copy.deepcopy(subject)},
        }  # fmt: skip
        self.events.append(event)
        for listener in self.listeners:
            listener(event)
        return event

    def change(self, subject: Object, kind: str, **fields: Any) -> Object:
        """Changes an object and tells of it."""
        subject.update(fields)
        self.emit(kind, subject)
        return subject
