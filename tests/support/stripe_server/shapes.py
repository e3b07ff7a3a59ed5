"""The same object in the shape of an earlier version of the API.

2025-03-31 moved periods to subscription items and took payments off invoices; 2025-09-30 put coupons behind `source`.
https://docs.stripe.com/changelog
"""

from __future__ import annotations

import copy
from typing import Any

from .store import Object, Store

BASIL, CLOVER = "2025-03-31", "2025-09-30"


def render(store: Store, subject: Any, version: str) -> Any:
    """A copy of an object, as `version` shows it."""
    shown = _public(subject)
    _each(store, shown, _at_its_price)
    if version < CLOVER:
        _each(store, shown, _before_clover)
    if version < BASIL:
        _each(store, shown, _before_basil)
    return shown


def _public(subject: Any) -> Any:
    # What only the stand-in knows is nobody's business.
    if isinstance(subject, dict):
        return {name: _public(value) for name, value in subject.items() if not str(name).startswith("_")}
    return [_public(item) for item in subject] if isinstance(subject, list) else subject


def _each(store: Store, shown: Any, change: Any) -> None:
    if isinstance(shown, list):
        for item in shown:
            _each(store, item, change)
    elif isinstance(shown, dict):
        for item in list(shown.values()):
            _each(store, item, change)
        if "object" in shown and not shown.get("deleted"):
            change(store, shown)


def _at_its_price(store: Store, shown: Object) -> None:
    # An item shows its price as that is now.
    if shown["object"] == "subscription_item" and isinstance(shown.get("price"), dict):
        shown["price"] = _public(copy.deepcopy(store.objects.get(shown["price"]["id"], shown["price"])))


def _before_clover(store: Store, shown: Object) -> None:
    if shown["object"] == "discount" and "source" in shown:
        shown["coupon"] = copy.deepcopy(store.objects.get(shown.pop("source")["coupon"]))
    if shown["object"] == "promotion_code" and "promotion" in shown:
        shown["coupon"] = copy.deepcopy(store.objects.get(shown.pop("promotion")["coupon"]))


def _before_basil(store: Store, shown: Object) -> None:
    kind = shown["object"]
    if kind == "subscription":
        items = shown["items"]["data"]
        for name in ("current_period_start", "current_period_end"):
            shown[name] = items[0].pop(name) if items else None
            for item in items[1:]:
                item.pop(name, None)
    elif kind == "invoice":
        parent = (shown.pop("parent", None) or {}).get("subscription_details") or {}
        shown["subscription"] = parent.get("subscription")
        shown.pop("payments", None)
        paid_by = list(store.every("invoice_payment", invoice=shown["id"]))
        intent = paid_by[-1]["payment"]["payment_intent"] if paid_by else None
        shown["payment_intent"] = intent
        charges = [row["id"] for row in store.every("charge", payment_intent=intent)] if intent else []
        shown["charge"] = charges[-1] if charges else None
        shown["paid"] = shown["status"] == "paid"
        shown["paid_out_of_band"] = False
        taxes = shown.pop("total_taxes", None) or []
        shown["tax"] = sum(row["amount"] for row in taxes) or None
    elif kind == "line_item":
        pricing = shown.pop("pricing", None)
        parent = shown.pop("parent", None) or {}
        details = parent.get("subscription_item_details") or parent.get("invoice_item_details") or {}
        if pricing:
            shown["price"] = copy.deepcopy(store.objects.get(pricing["price_details"]["price"]))
        shown.update(
            proration=bool(details.get("proration")), subscription_item=details.get("subscription_item"),
            subscription=details.get("subscription"),
            type="subscription" if "subscription_item" in details else "invoiceitem",
        )  # fmt: skip
    elif kind in ("charge", "payment_intent"):
        intent = shown["id"] if kind == "payment_intent" else shown.get("payment_intent")
        shown["invoice"] = next(
            (row["invoice"] for row in store.every("invoice_payment") if row["payment"]["payment_intent"] == intent),
            None,
        )
    elif kind == "credit_note":
        refunds = shown.pop("refunds", [])
        shown["refund"] = refunds[0]["refund"] if refunds else None
