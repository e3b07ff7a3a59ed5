"""The wire: HTTP as Stripe speaks it, idempotency keys, rate limits, faults; and webhooks that are signed and retried."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import os
import random
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from stripe import StripeClient

from . import catalogue, customers, lists, money, subscriptions
from .engine import Engine
from .routes import answer
from .shapes import render
from .store import Object, Store, StripeError

NEWEST = "2026-10-28.endive"
# They register what answers each path.
ROOMS = (catalogue, customers, lists, money, subscriptions)
# 429 and 500 are answered and nothing is done; down: no answer, nothing done; lost: done, and no answer; late: after a while.
FAULTS = ("429", "500", "down", "lost", "late")


def decode(text: str) -> Object:
    """Form parameters as Stripe nests them: a[b][0][c]=1."""
    whole: Object = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        parts = name.replace("]", "").split("[")
        place = whole
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        if parts[-1] == "":
            place[str(len(place))] = value
        else:
            place[parts[-1]] = value
    result: Object = _lists(whole)
    return result


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {name: _lists(item) for name, item in value.items()}
    if inner and all(name.isdecimal() for name in inner):
        return [inner[name] for name in sorted(inner, key=int)]
    return inner


class Stripe:
    """A Stripe on a port of the loopback interface. A context manager; `store` is what it knows.

    `version` is the account's own: that of its events, and of requests that name none. `faults` are how the next
    requests fail, one by one. `hold` keeps webhooks in `held`, until `release` sends them in any order.
    """

    def __init__(self, port: int = 0, *, version: str = NEWEST, live: bool = False) -> None:
        self.store = Store(live=live)
        self.engine = Engine(self.store)
        self.version = version
        self.key = ("sk_live_" if live else "sk_test_") + "standin"
        self.faults: list[str] = []
        self.limit: int | None = None
        self.window: tuple[int, int] = (0, 0)
        self.requests: list[tuple[str, str]] = []
        self.answers: dict[str, tuple[str, int, bytes]] = {}
        self.secrets: dict[str, list[str]] = {}
        self.hold = False
        self.held: list[Object] = []
        self.drop = self.duplicate = self.delay = 0.0
        self.random = random.Random(11)
        self.client: StripeClient | None = None
        self.attempts = 12
        self.delivered: list[tuple[str, int]] = []
        self.queue: SimpleQueue[tuple[Object, str, int] | None] = SimpleQueue()
        self.store.listeners.append(self.tell)
        self.server = ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (Handler,), {"stripe": self}))
        self.server.daemon_threads = True
        self.port: int = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        for _ in range(4):
            threading.Thread(target=self.deliver, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for _n in range(4):
            self.queue.put(None)
        self.server.shutdown()
        self.server.server_close()

    def checkpoint(self) -> Object:
        """What it knows, to come back to."""
        with self.store.lock:
            kept = ("objects", "kinds", "places", "deleted", "events", "offset", "frozen", "meter_events")
            return copy.deepcopy({name: getattr(self.store, name) for name in kept})

    def restore(self, kept: Object) -> None:
        """Goes back to a checkpoint; names that were given are not given again."""
        with self.store.lock:
            for name, value in kept.items():
                setattr(self.store, name, value)

    # Requests -----------------------------------------------------------------------------------

    def call(self, method: str, path: str, params: Object, version: str | None = None) -> Any:
        """A request by somebody else than the house, through Stripe's SDK; its answer. Raises stripe.StripeError."""
        if self.client is None:
            self.client = StripeClient(self.key, base_addresses={"api": self.url}, max_network_retries=0)
        answered = self.client.raw_request(method.lower(), path, stripe_version=version or self.version, **params)
        return json.loads(answered.body)

    def respond(self, method: str, target: str, body: str, headers: Any) -> tuple[int, bytes, Object]:
        """Status, body and headers of the answer to a request."""
        split = urlsplit(target)
        version = headers.get("Stripe-Version") or self.version
        extra: Object = {
            "Request-Id": f"req_{next(self.store.numbers):08d}",
            "Stripe-Version": version,
            "Date": formatdate(self.store.now(), usegmt=True),
        }
        with self.store.lock:
            self.requests.append((method, split.path))
            fault = self.faults.pop(0) if self.faults else None
            if fault == "down":
                return 0, b"", extra
            if not str(headers.get("Authorization", "")).endswith(self.key):
                return 401, _error("Invalid API Key provided.", "invalid_request_error"), extra
            second, count = self.window
            now = int(time.time())
            self.window = (now, count + 1 if second == now else 1)
            if fault == "429" or (self.limit is not None and self.window[1] > self.limit):
                return 429, _error("Request rate limit exceeded.", "invalid_request_error", code="rate_limit"), extra
            if fault == "500":
                return 500, _error("An unknown error occurred.", "api_error"), extra
            status, data = self.once(
                method, split.path, split.query, body, headers.get("Idempotency-Key"), version, extra
            )
        if fault == "late":
            time.sleep(float(os.environ.get("ROWHOUSE_LATE_SECONDS", "3")))
        return (0 if fault == "lost" else status), data, extra

    def once(
        self, method: str, path: str, query: str, body: str, key: str | None, version: str, extra: Object
    ) -> tuple[int, bytes]:
        known = self.answers.get(key or "")
        said = f"{method} {path} {body}"
        if known is not None and method == "POST":
            if known[0] != said:
                return 400, _error(
                    f"Keys for idempotent requests can only be used with the same parameters they were first used with. Try using a key other than '{key}'.",
                    "idempotency_error",
                )
            extra["Idempotent-Replayed"] = "true"
            return known[1], known[2]
        try:
            result = answer(self.engine, method, path, decode(query if method == "GET" else body))
            status, data = 200, json.dumps(render(self.store, result, version)).encode()
        except StripeError as error:
            status, data = error.status, json.dumps(error.body).encode()
        except (KeyError, ValueError, TypeError) as error:
            status, data = 400, _error(f"Invalid parameters: {error!r}", "invalid_request_error")
        if key and method == "POST" and status < 500:
            self.answers[key] = (said, status, data)
        return status, data

    # What happens at Stripe ---------------------------------------------------------------------

    def advance(self, seconds: float = 0, *, to: int | None = None) -> None:
        """Moves the time of everything that has no test clock, and lets happen what is due."""
        with self.store.lock:
            if self.store.frozen is not None:
                self.store.frozen = to if to is not None else self.store.frozen + int(seconds)
            else:
                self.store.offset += seconds if to is None else to - self.store.now()
            self.engine.run(self.store.now())

    def pay(self, session: str, method: str = "pm_card_visa", promotion_code: str | None = None) -> Object:
        """A customer completes a checkout."""
        with self.store.lock:
            return subscriptions.complete_session(self.engine, session, method, promotion_code)

    def set_card(self, customer: str, method: str) -> None:
        """A customer changes their card in the portal."""
        with self.store.lock:
            found = self.store.get(customer, "customer")
            found["invoice_settings"]["default_payment_method"] = method
            for row in self.store.every("subscription", customer=customer):
                row["default_payment_method"] = method
            self.store.emit("customer.updated", found)

    def dispute(self, charge: str) -> Object:
        with self.store.lock:
            return money.open_dispute(self.engine, charge)

    def close_dispute(self, dispute: str, status: str) -> Object:
        with self.store.lock:
            return money.close_dispute(self.engine, dispute, status)

    # Webhooks -----------------------------------------------------------------------------------

    def shown(self, event: Object, version: str | None = None) -> Object:
        """An event as it is sent: its object in the shape of a version."""
        wanted = version or self.version
        sent = copy.deepcopy(event)
        sent["api_version"] = wanted
        sent["data"]["object"] = render(self.store, event["data"]["object"], wanted)
        return sent

    def tell(self, event: Object) -> None:
        """The adversary: drops, duplicates, delays, or holds what is to be sent."""
        for endpoint in list(self.store.every("webhook_endpoint", status="enabled")):
            if "*" not in endpoint["enabled_events"] and event["type"] not in endpoint["enabled_events"]:
                continue
            sent = self.shown(event, endpoint["api_version"])
            if self.hold:
                self.held.append({"event": sent, "endpoint": endpoint["id"]})
            elif self.random.random() >= self.drop:
                for _ in range(2 if self.random.random() < self.duplicate else 1):
                    self.queue.put((sent, endpoint["id"], 0))

    def oppose(self, *, drop: float = 0, duplicate: float = 0, delay: float = 0, hold: bool = False) -> None:
        """How webhooks fail from now on: shares that are dropped and sent twice, seconds of delay, or none is sent yet."""
        self.drop, self.duplicate, self.delay, self.hold = drop, duplicate, delay, hold

    def release(self, order: list[int] | None = None, *, shuffle: bool = False) -> None:
        """Sends what was held, in this order of places, or in any."""
        waiting, self.held = self.held, []
        places = list(range(len(waiting))) if order is None else order
        if shuffle:
            self.random.shuffle(places)
        for place in places:
            self.queue.put((waiting[place]["event"], waiting[place]["endpoint"], 0))

    def signature(self, body: bytes, secrets: list[str], at: float | None = None) -> str:
        """The header Stripe-Signature. https://docs.stripe.com/webhooks#verify-manually"""
        stamp = int(at if at is not None else time.time())
        signed = [
            hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest() for secret in secrets
        ]
        return ",".join([f"t={stamp}", *(f"v1={mac}" for mac in signed)])

    def secrets_of(self, endpoint: str) -> list[str]:
        return [self.store.get(endpoint)["secret"], *self.secrets.get(endpoint, [])]

    def rotate(self, endpoint: str) -> str:
        """A new secret; what is sent is signed with both from now on."""
        found = self.store.get(endpoint)
        self.secrets.setdefault(endpoint, []).append(found["secret"])
        found["secret"] = f"whsec_{next(self.store.numbers):08d}rotated"
        return str(found["secret"])

    def deliver(self) -> None:
        """Sends what is in the queue, and again what was not taken."""
        import httpx

        with httpx.Client(timeout=30) as client:
            while (job := self.queue.get()) is not None:
                event, name, tried = job
                endpoint = self.store.objects.get(name)
                if endpoint is None or endpoint["status"] != "enabled":
                    continue
                if self.delay:
                    time.sleep(self.random.random() * self.delay)
                body = json.dumps(event, indent=2).encode()
                headers = {
                    "Stripe-Signature": self.signature(body, self.secrets_of(name)),
                    "Content-Type": "application/json; charset=utf-8",
                }
                try:
                    status = client.post(endpoint["url"], content=body, headers=headers).status_code
                except httpx.HTTPError:
                    status = 0
                self.delivered.append((event["id"], status))
                if not 200 <= status < 300 and tried < self.attempts:
                    threading.Timer(min(5.0, 0.2 * 2**tried), self.queue.put, [(event, name, tried + 1)]).start()

    def drain(self) -> None:
        """Forgets what is still to be sent."""
        try:
            while True:
                self.queue.get_nowait()
        except Empty:
            pass


def _error(message: str, kind: str, **more: Any) -> bytes:
    return json.dumps({"error": {"type": kind, "message": message, **more}}).encode()


class Handler(BaseHTTPRequestHandler):
    """HTTP, and under /_control/ what a customer, a bank or the clock does."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    stripe: Stripe

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._respond("GET")

    def do_DELETE(self) -> None:
        self._respond("DELETE")

    def do_POST(self) -> None:
        self._respond("POST")

    def _respond(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if self.path == "/":
            self._send(200, b'{"status":"ok"}', {})
            return
        if self.path.startswith("/_control/"):
            self._control(self.path.removeprefix("/_control/"), json.loads(body or "{}"))
            return
        status, data, extra = self.stripe.respond(method, self.path, body, self.headers)
        if status == 0:
            self.close_connection = True
            return
        self._send(status, data, extra)

    def _control(self, name: str, given: Object) -> None:
        stripe = self.stripe
        deeds: dict[str, Any] = {
            "advance": lambda: stripe.advance(**given), "pay": lambda: stripe.pay(**given), "set_card": lambda: stripe.set_card(**given), "pay_invoice": lambda: stripe.call("POST", f"/v1/invoices/{given['invoice']}/pay", {}),
            "dispute": lambda: stripe.dispute(**given), "close_dispute": lambda: stripe.close_dispute(**given),
            "faults": lambda: stripe.faults.extend(given["faults"]),
            "adversary": lambda: stripe.oppose(**given),
            "release": lambda: stripe.release(shuffle=True), "rotate": lambda: stripe.rotate(**given),
        }  # fmt: skip
        try:
            result = deeds[name]()
            self._send(
                200,
                json.dumps(
                    render(stripe.store, result, stripe.version) if isinstance(result, dict) else {"result": result}
                ).encode(),
                {},
            )
        except StripeError as error:
            self._send(error.status, json.dumps(error.body).encode(), {})

    def _send(self, status: int, data: bytes, extra: Object) -> None:
        self.send_response_only(status)
        extra.setdefault("Date", formatdate(usegmt=True))
        for header, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **extra}.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(data)
