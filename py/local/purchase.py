"""The tour's purchase: checkout, a card that is declined, dunning, payment, a refund, and books that balance."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tour import Person, Tour

DAY = 86_400


def at_stripe(tour: Tour, deed: str, **given: Any) -> Any:
    """What a customer, a bank or the clock does at Stripe, which stands beside the platform here."""
    import httpx

    url = tour.state.providers["STRIPE_API_URL"]
    response = httpx.post(f"{url}/_control/{deed}", json=given, timeout=30)
    response.raise_for_status()
    return response.json()


def function(tour: Tour, person: Person, name: str, **body: Any) -> Any:
    """The answer of an edge function to somebody."""
    import httpx

    headers = {"Authorization": f"Bearer {person.client.auth.get_session().access_token}"}
    return httpx.post(f"{tour.state.api_url}/functions/v1/{name}", json=body, headers=headers, timeout=60).json()


def until(tour: Tour, promised: str, condition: Callable[[], Any]) -> Any:
    """What a condition comes to, once it comes to something: what Stripe tells arrives in its own time."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    tour.check(False, promised)
    return None


def walk(tour: Tour, ada: Person, acme: dict[str, Any]) -> None:
    """Acme buys the plan that lifts its limit, does not pay for a while, and does."""
    here = {"workspace_id": acme["id"]}

    def access() -> Any:
        return ada.client.rpc("billing_access", here).execute().data[0]

    tour.section("Acme buys the plan that lifts the limit")
    tour.say("You", "rowhouse stripe connect", tour.operator("stripe", "connect")["done"])
    made = tour.operator("plans", "apply")["stripe"]
    tour.say("You", "rowhouse plans apply", f"{len(made)} products, prices, meters and features are made at Stripe")
    tour.check(tour.operator("plans", "apply")["stripe"] == [], "twice is once")
    opened = until(tour, "a checkout opens", lambda: _opened(tour, ada, here))
    tour.say("Ada", "POST /functions/v1/checkout {price: pro_monthly}", opened["url"])
    session = opened["url"].rsplit("/", 1)[1]
    at_stripe(tour, "pay", session=session, method="pm_card_visa")
    found = until(tour, "Acme is on pro", lambda: (row := access())["plan"] == "pro" and row)
    tour.say("Ada", "enters her card at Stripe; its webhook arrives", f"{found['plan']}, {found['state']}")
    ada.client.table("projects").insert({**here, "name": "Viking"}).execute()
    usage = ada.client.table("workspace_usage").select("*").eq("resource", "projects").execute().data[0]
    tour.check((usage["used"], usage["max"]) == (4, 100), "the insert goes through and is counted")
    tour.say("Ada", "inserts Viking again", f"{usage['used']} of {usage['max']} projects")
    preview = function(tour, ada, "change-plan", **here, price="pro_yearly", preview=True)
    tour.check(preview.get("currency") == "usd", f"a change is previewed: {preview}")

    tour.section("A card is declined, and made good")
    customer = tour.operator("billing", "show", "acme")["customer"]
    at_stripe(tour, "set_card", customer=customer, method="pm_card_chargeDeclined")
    at_stripe(tour, "advance", seconds=15 * DAY)
    found = until(tour, "Acme is in grace", lambda: (row := access())["state"] == "grace" and row)
    tour.say(
        "Clock", "15 days on the trial is over, and the card declined", f"{found['state']} until {found['until'][:10]}"
    )
    mail = tour.mail_to(ada.email, "did not go through")
    tour.say("Ada", "gets a mail", mail["subject"])
    steps = [
        f"{row['kind']} {row['due_at'][:10]}"
        for row in tour.operator("billing", "dunning", "acme")
        if not row["done_at"]
    ]
    tour.say("You", "rowhouse billing dunning acme", "; ".join(steps))
    tour.operator("billing", "dunning", "acme", "--until", "2020-01-01", "--reason", "the tour is in a hurry")
    _, error = ada.try_(ada.client.table("projects").insert({**here, "name": "Venera"}))
    tour.check(error is not None and error.code == "42501", "nothing can be written")
    seen = ada.client.table("projects").select("name").execute().data
    tour.say("Ada", "inserts Venera when the grace is over", f"refused; she still reads her {len(seen)} projects")
    at_stripe(tour, "set_card", customer=customer, method="pm_card_visa")
    invoice = next(row for row in tour.operator("billing", "invoices", "acme") if row["status"] == "open")
    at_stripe(tour, "pay_invoice", invoice=invoice["id"])
    until(tour, "Acme can write again", lambda: access()["state"] == "active")
    ada.client.table("projects").insert({**here, "name": "Venera"}).execute()
    tour.say("Ada", "pays the invoice, and inserts Venera", "active; it goes through")

    tour.section("A refund, and the operator's books")
    answer = tour.operator(
        "billing", "refund", "acme", invoice["id"], "--amount", "9.00", "--reason", "goodwill", "--yes"
    )
    tour.say("You", f"rowhouse billing refund acme {invoice['number']} --amount 9.00", answer["done"])
    books = until(tour, "the refund is in the books", lambda: _books(tour))
    tour.say(
        "You", "rowhouse ledger balances @operator", json.dumps({code: cents / 100 for code, cents in books.items()})
    )
    tour.check(tour.operator("stripe", "doctor")["is_sound"], "database, key, endpoint, books and Stripe agree")
    tour.say("You", "rowhouse stripe doctor", "key, version, endpoint, events and books are sound")


def _opened(tour: Tour, ada: Person, here: dict[str, Any]) -> Any:
    answer = function(tour, ada, "checkout", **here, price="pro_monthly", return_path="/billing")
    return answer if "url" in answer else None


def _books(tour: Tour) -> dict[str, int] | None:
    rows = tour.operator("ledger", "balances", "@operator")
    books = {row["code"]: row["balance"] for row in rows}
    tour.check(sum(books.values()) == 0, "the books balance")
    return books if books.get("refunds:USD") == 900 and books.get("stripe:USD") == 2000 else None
