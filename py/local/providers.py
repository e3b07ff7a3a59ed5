"""What stands in for Resend and Twilio on this machine: their wire format, a memory of idempotency keys, and an outbox.

Nothing leaves the machine: each message becomes a line of JSON. `POST /faults` has it fail as providers do; the tour
and the tests use that.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, Any]
# down: no answer at all. late: an answer after the client has gone. lost: taken, but the answer is cut off.
# half: taken, and half of the answer comes. A number: that status.
FAULTS = ("down", "late", "lost", "half", "429", "500", "503")


class Memory:
    """What was taken, by whom it was asked, and how the next requests are to fail."""

    def __init__(self, outbox: Path | None = None) -> None:
        self.outbox = outbox
        self.lock = threading.Lock()
        self.answers: dict[str, tuple[str, Answer]] = {}
        self.texts: list[dict[str, Any]] = []
        self.taken: list[dict[str, Any]] = []
        self.faults: dict[str, list[str]] = {"email": [], "sms": []}
        self.stuck: dict[str, str | None] = {"email": None, "sms": None}
        self.requests = 0

    def next_fault(self, channel: str) -> str | None:
        with self.lock:
            self.requests += 1
            return self.faults[channel].pop(0) if self.faults[channel] else self.stuck[channel]

    def keep(self, **message: Any) -> str:
        """Takes a message; returns the provider's id for it."""
        name = str(uuid.uuid4())
        row = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "id": name,
            **message,
            **_link(message["text"]),
        }
        self.taken.append(row)
        if self.outbox is not None:
            descriptor = os.open(self.outbox, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        return name

    def once(self, key: str | None, body: Any, make: Callable[[], Answer]) -> Answer:
        """The answer to a request: the same for the same key and body, 409 for another body."""
        if key is None:
            return make()
        text = json.dumps(body, sort_keys=True)
        if key in self.answers:
            known, answer = self.answers[key]
            if known != text:
                return 409, _error(409, "invalid_idempotent_request", "This key was used with another body.")
            return answer
        answer = make()
        if answer[0] < 400:
            self.answers[key] = (text, answer)
        return answer


def _link(text: str) -> dict[str, str]:
    """The first link of a text, and the token and code of Supabase Auth in it, for whoever tries things out."""
    found = re.search(r"https?://\S+", text)
    facts = {"link": found[0]} if found else {}
    if found and "/verify?" in found[0]:
        query = parse_qs(urlsplit(found[0]).query)
        facts |= {"token_hash": query["token"][0], "type": query["type"][0]}
    if code := re.search(r"Your code is (\d+)\.", text):
        facts["token"] = code[1]
    return facts


def _error(status: int, name: str, message: str) -> dict[str, Any]:
    return {"statusCode": status, "name": name, "message": message}


def flaw_of(mail: Any) -> str | None:
    """Why Resend would not take a mail; None if it would."""
    if not isinstance(mail, dict):
        return "A mail is an object."
    for name in ("from", "to", "subject"):
        if not mail.get(name):
            return f"Missing `{name}` field."
    to = mail["to"] if isinstance(mail["to"], list) else [mail["to"]]
    if len(to) > 50 or not all(re.fullmatch(r"[^@\s]+@[^@\s]+", str(address)) for address in to):
        return "Invalid `to` field."
    if "\n" in mail["subject"] or "\r" in mail["subject"]:
        return "The `subject` field is not allowed to have `\\n`."
    return None


class Handler(BaseHTTPRequestHandler):
    """Resend's /emails and /emails/batch, Twilio's Messages.json, and /faults, /taken."""

    protocol_version = "HTTP/1.1"
    memory: Memory

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/taken":
            self._answer(200, self.memory.taken)
        elif "/Messages.json" in path:
            asked = parse_qs(query)
            rows = [row for row in self.memory.texts if asked.get("To", [row["to"]])[0] == row["to"]]
            self._answer(200, {"messages": list(reversed(rows)), "next_page_uri": None, "page": 0, "page_size": 50})
        else:
            self._answer(200, {"status": "ok"})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/faults":
            self._set_faults(json.loads(raw))
            return
        channel = "sms" if "/Messages.json" in self.path else "email"
        fault = self.memory.next_fault(channel)
        if fault == "down":
            self.close_connection = True
            return
        if fault is not None and fault.isdecimal():
            headers = {"retry-after": "1"} if fault == "429" else {}
            name = "rate_limit_exceeded" if fault == "429" else "application_error"
            self._answer(int(fault), _error(int(fault), name, "Asked to fail."), headers)
            return
        with self.memory.lock:
            status, body = self._take(channel, raw)
        if fault == "late":
            time.sleep(float(os.environ.get("ROWHOUSE_LATE_SECONDS", "30")))
        if fault in ("lost", "late"):
            self.close_connection = True
            return
        self._answer(status, body, {}, half=fault == "half")

    def _set_faults(self, wanted: dict[str, Any]) -> None:
        for channel in ("email", "sms"):
            if channel in wanted:
                given = wanted[channel]
                self.memory.faults[channel] = list(given) if isinstance(given, list) else []
                self.memory.stuck[channel] = given if isinstance(given, str) else None
        self._answer(200, {"requests": self.memory.requests})

    def _take(self, channel: str, raw: bytes) -> Answer:
        if channel == "sms":
            return self._take_sms({name: values[0] for name, values in parse_qs(raw.decode()).items()})
        if not (self.headers.get("Authorization") or "").startswith("Bearer re_"):
            return 401, _error(401, "missing_api_key", "Missing API key in the authorization header.")
        try:
            body = json.loads(raw)
        except ValueError:
            return 400, _error(400, "validation_error", "The body is not JSON.")
        key = self.headers.get("Idempotency-Key")
        is_batch = self.path.endswith("/batch")
        mails = body if is_batch else [body]
        if not isinstance(mails, list) or len(mails) > 100:
            return 422, _error(422, "validation_error", "A batch has 1 to 100 mails.")
        for mail in mails:
            if flaw := flaw_of(mail):
                return 422, _error(422, "validation_error", flaw)

        def take() -> Answer:
            ids = [
                self.memory.keep(
                    channel="email", to=mail["to"][0] if isinstance(mail["to"], list) else mail["to"],
                    sender=mail["from"], subject=mail["subject"], html=mail.get("html"), text=mail.get("text") or "",
                    headers=mail.get("headers") or {}, idempotency_key=key,
                )
                for mail in mails
            ]  # fmt: skip
            return 200, {"data": [{"id": name} for name in ids]} if is_batch else {"id": ids[0]}

        return self.memory.once(key, body, take)

    def _take_sms(self, form: dict[str, str]) -> Answer:
        if not re.fullmatch(r"\+[1-9]\d{6,14}", form.get("To", "")):
            return 400, {"code": 21211, "message": "Invalid 'To' Phone Number", "status": 400, "more_info": ""}
        name = "SM" + uuid.uuid4().hex
        text = {
            "sid": name, "to": form["To"], "from": form.get("From"), "body": form.get("Body"), "status": "queued",
            "date_created": formatdate(usegmt=True), "date_sent": None,
        }  # fmt: skip
        self.memory.texts.append(text)
        self.memory.keep(channel="sms", to=form["To"], sender=form.get("From"), subject="", text=form.get("Body", ""))
        return 201, text

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None, *, half: bool = False) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if half else data)
        if half:
            self.close_connection = True


class Server(ThreadingHTTPServer):
    """A stand-in on a port of the loopback interface; `serve_forever()` runs it. `memory` is what it took."""

    daemon_threads = True

    def __init__(self, port: int, memory: Memory) -> None:
        self.memory = memory
        super().__init__(("127.0.0.1", port), type("BoundHandler", (Handler,), {"memory": memory}))


if __name__ == "__main__":
    Server(int(sys.argv[1]), Memory(Path(sys.argv[2]))).serve_forever()
