"""The tour's second half: a repair is taken in, paid in parts, partly refunded; what is deleted comes back."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tour import Person, Tour


GRACES_NUMBER = "+12025550147"


def complete_while_sms_is_down(tour: Tour, ada: Person, here: dict[str, Any], ticket: dict[str, Any]) -> None:
    """The repair is done while nobody can be texted: the transaction does not care, and one SMS arrives later."""
    ada.client.rpc(
        "set_brand", {**here, "name": "Acme Repairs", "colour": "#0f766e", "texts_customers": True}
    ).execute()
    # A demo does not wait for ten seconds between attempts.
    tour.sql("update jobs.kinds set backoff = '0.3 seconds' where kind = 'notify.send'")
    tour.providers(sms="503")
    begun = time.monotonic()
    ada.client.table("tickets").update({"status": "completed"}).eq("id", ticket["id"]).execute()
    took = time.monotonic() - begun
    tour.say("Ada", "updates its status to completed, while the SMS provider is down", f"done, in {took * 1000:.0f} ms")
    message = None
    while message is None or message["attempts"] < 3:
        waiting = tour.operator("mail", "list", "--to", GRACES_NUMBER)["rows"]
        tour.check(len(waiting) == 1 and took < 5, "the message waits in the outbox")
        message = waiting[0]
    tour.say(
        "You", "rowhouse mail list", f"{message['state']}, tried {message['attempts']} times: {message['last_error']}"
    )
    tour.providers(sms=["lost"])
    text = tour.mail_to(GRACES_NUMBER)
    while tour.operator("mail", "list", "--to", GRACES_NUMBER)["rows"][0]["state"] != "sent":
        time.sleep(0.1)
    tour.check(len([m for m in tour.instance.messages() if m["to"] == GRACES_NUMBER]) == 1, "exactly one SMS is sent")
    tour.say("Grace", "gets one SMS when the provider is back, though its first answer was lost", text["text"])


def walk(tour: Tour, ada: Person, acme: dict[str, Any]) -> None:
    """Takes in a phone at Acme's service desk, as Ada."""
    here = {"workspace_id": acme["id"]}
    tour.section("A repair is taken in and estimated")
    table = ada.client.table
    grace_hopper = {"name": "Grace Hopper", "email": "grace@navy.example", "phone": GRACES_NUMBER}
    grace = table("customers").insert({**here, **grace_hopper}).execute().data[0]
    phone = {"customer_id": grace["id"], "device": "Phone", "problem": "Screen broken", "estimate": 12000}
    ticket = table("tickets").insert({**here, **phone}).execute().data[0]
    tour.check((ticket["number"], ticket["status"]) == (1, "received"), "it is ticket 1, received")
    tour.say("Ada", "inserts the customer Grace, and a ticket for her phone", "ticket 1, estimated at 120.00 EUR")
    _, error = ada.try_(table("tickets").update({"status": "collected"}).eq("id", ticket["id"]))
    tour.check(error is not None and error.code == "transition_not_allowed", "a status does not jump")
    tour.say("Ada", "updates its status to collected", f"refused: {error.message} {error.hint}")
    for status in ("diagnosing", "ready"):
        table("tickets").update({"status": status}).eq("id", ticket["id"]).execute()
    complete_while_sms_is_down(tour, ada, here, ticket)
    moves = table("ticket_status_changes").select("to_status").eq("to_status", "completed").execute().data
    tour.check(len(moves) == 1, "its completion is on record")
    tour.say("Ada", "selects ticket_status_changes", "each step is kept")

    tour.section("It is paid in two parts, and partly refunded")
    rpc, money = ada.client.rpc, {**here, "ticket_id": ticket["id"]}
    rpc("record_charge", {**money, "amount": 10000, "key": "charge-1"}).execute()
    first = rpc("record_payment", {**money, "amount": 6000, "method": "card", "key": "payment-1"}).execute().data
    rpc("record_payment", {**money, "amount": 4000, "method": "cash", "key": "payment-2"}).execute()
    again = rpc("record_payment", {**money, "amount": 6000, "method": "card", "key": "payment-1"}).execute().data
    tour.check(first == again, "a payment that is sent again is the same payment")
    tour.say(
        "Ada", "rpc record_charge(100.00), record_payment(60.00 card), (40.00 cash), and the first again", "paid once"
    )
    refund = {**here, "payment_id": first, "reason": "scratch", "key": "refund-1"}
    rpc("record_refund", {**refund, "amount": 1500}).execute()
    _, error = ada.try_(rpc("record_refund", {**refund, "amount": 4501, "key": "refund-2"}))
    tour.check(error is not None and error.code == "refund_exceeds_payment", "no more is refunded than was paid")
    tour.say("Ada", "rpc record_refund(15.00), then 45.01 more of the 60.00", f"refused: {error.message} {error.hint}")
    balance = table("ticket_balances").select("*").eq("ticket_id", ticket["id"]).execute().data[0]
    seen = tuple(balance[name] for name in ("charged", "paid", "refunded", "pending"))
    tour.check(seen == (10000, 10000, 1500, 1500), f"the balance is right, and was {seen}")
    tour.say("Ada", "selects ticket_balances", "charged 100.00, paid 100.00, refunded 15.00, owed 15.00")

    tour.section("What is deleted can be restored")
    _, error = ada.try_(table("customers").delete().eq("id", grace["id"]))
    tour.check(error is not None and error.code == "23503", "a customer with a ticket is not deleted")
    tour.say("Ada", "deletes Grace", f"refused: {error.message}")
    table("tickets").delete().eq("id", ticket["id"]).execute()
    tour.check(table("tickets").select("id").execute().data == [], "the ticket is gone")
    trash = table("trash").select("*").execute().data
    tour.check([row["title"] for row in trash] == ["Phone"], "it is in the trash")
    restored = rpc("restore", {**here, "kind": "tickets", "id": ticket["id"]}).execute().data
    tour.check(len(table("tickets").select("id").execute().data) == 1, "the ticket is back")
    tour.say("Ada", "deletes the ticket, then rpc restore(tickets, …)", f"{restored} rows are back: it and its history")

    tour.section("It is found, and it is on record")
    found = rpc("search", {**here, "query": "scren brokn"}).execute().data
    tour.check([row["title"] for row in found] == ["Phone"], "typing errors do not hide it")
    tour.say("Ada", "rpc search(scren brokn)", f"{found[0]['title']}: {found[0]['snippet']}")
    log = (
        ada.client.table("audit_log").select("action,actor_id,ip,request_id").eq("row_id", ticket["id"]).execute().data
    )
    actions = {row["action"] for row in log}
    tour.check(
        {"tickets.create", "tickets.update", "tickets.delete", "tickets.restore"} <= actions, "every step is kept"
    )
    tour.check({row["actor_id"] for row in log} == {ada.id}, "and by whom")
    tour.check(all(row["ip"] and row["request_id"] for row in log), "and from where, by which request")
    tour.say("Ada", "selects audit_log of the ticket", f"{len(log)} records, all hers, from {log[0]['ip']}")
    tour.operator("audit", "seal")
    tour.check(tour.operator("audit", "verify")["is_sound"], "the sealed chain holds")
    tour.check(tour.operator("ledger", "check")["is_sound"], "the books hold")
    statement = tour.operator("ledger", "statement", "acme", f"receivable:{ticket['id']}")["rows"]
    tour.check(statement[-1]["balance"] == 1500, "the statement ends at what is owed")
    tour.say("You", "rowhouse audit verify; rowhouse ledger check", "the chain and the books hold")
    tour.say("You", "rowhouse ledger statement", json.dumps([row["balance"] / 100 for row in statement]))
