"""The house's kind billing.call: carries what the database asks of Stripe, and brings back what it answered.

What is asked, under which idempotency key, and what an answer means is decided in the database.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from ..errors import RowhouseError, UsageError
from ..settings import setting
from .kinds import GiveUpError, Job, RetryError, job_kind
from .providers import timeout

if TYPE_CHECKING:
    from ..database import Connection

Answer = dict[str, Any]
Connect = Callable[[], Any]


def secret_key() -> str:
    """STRIPE_SECRET_KEY. Raises RowhouseError where it is not set, or is no secret key."""
    key = (setting("STRIPE_SECRET_KEY") or "").strip()
    if not key:
        raise RowhouseError("STRIPE_SECRET_KEY is not set.", "Set it to a secret or restricted key of your account.")
    # Whatever else is in it, an error of the network's library would print.
    if not re.fullmatch(r"(sk|rk)_(live|test)_\w{1,250}", key, re.ASCII):
        raise UsageError("STRIPE_SECRET_KEY is no secret key.", "Secret keys begin with sk_ or rk_.")
    return key


def mode_of(key: str) -> str:
    """live or test, by the key's own word."""
    return "live" if key[3:].startswith("live_") else "test"


@cache
def _client(key: str, url: str | None) -> Any:
    from stripe import RequestsClient, StripeClient

    # Stripe's own retries keep the idempotency key, and wait longer each time.
    return StripeClient(
        key,
        base_addresses={"api": url} if url else None,
        max_network_retries=1,
        http_client=RequestsClient(timeout=timeout()),
    )


def ask(call: dict[str, Any], key: str | None = None) -> Answer:
    """Makes one call of billing.take_call(); returns its answer as billing.settle_call() takes it.

    {"status", "body", "date", "elapsed", "retry_after"}, or {"error"} where none came; never raised.
    """
    from stripe import StripeError

    options = {"idempotency_key": call.get("idempotency_key"), "stripe_version": call.get("api_version")}
    given = {name: value for name, value in options.items() if value}
    secret = key or secret_key()
    begun = time.monotonic()
    try:
        response = _client(secret, setting("STRIPE_API_URL")).raw_request(
            call["method"], call["path"], **call["params"], **given
        )
        status, headers, body = response.code, response.headers, response.body
    except StripeError as error:
        if error.http_status is None:
            return {"error": f"{type(error).__name__}: {error}"[:500].replace(secret, "…")}
        status, headers, body = error.http_status, error.headers, error.http_body
    except (ValueError, TypeError) as error:
        # What cannot be sent at all.
        return {"error": f"{type(error).__name__}: {error}"[:500].replace(secret, "…")}
    lower = {str(name).lower(): value for name, value in dict(headers or {}).items()}
    try:
        read = json.loads(body or "null")
    except ValueError:
        return {"error": f"{status}, and a body that is no JSON"}
    wait = str(lower.get("retry-after", ""))
    return {
        "status": status,
        "body": read,
        "date": lower.get("date"),
        "elapsed": time.monotonic() - begun,
        **({"retry_after": float(wait)} if wait.replace(".", "", 1).isdigit() else {}),
    }


def carry(connect: Connect, payload: dict[str, Any], key: str | None = None) -> Iterator[dict[str, Any]]:
    """Makes the calls of a payload one after the other, until none is left; yields what came of each.

    `connect` gives a context manager with a connection, for each question to the database. Stops after what is to be
    tried again later, or never.
    """
    secret = key or secret_key()
    while True:
        with connect() as connection:
            call = _one(connection, "select billing.take_call(%s, %s)", [Jsonb(payload), mode_of(secret)])
        if call is None:
            return
        answer = ask(call, secret)
        with connect() as connection:
            outcome = _one(
                connection, "select billing.settle_call(%s, %s)", [Jsonb(call["token"]), Jsonb(storable_json(answer))]
            )
        yield outcome
        if not outcome.get("again"):
            return


def storable_json(value: Any) -> Any:
    """JSON that Postgres can keep: without NUL characters."""
    text = json.dumps(value)
    return json.loads(text.replace("\\u0000", "")) if "\\u0000" in text else value


def _one(connection: Connection, query: str, parameters: list[Any]) -> Any:
    row = connection.execute(query.encode(), parameters).fetchone()
    return row[0] if row else None


@job_kind("billing.call", is_declared_in_sql=True)
def call_stripe(job: Job) -> None:
    """Calls Stripe until what was asked for is done."""
    try:
        secret = secret_key()
    except RowhouseError as error:
        raise RetryError(str(error), 300, counts=False) from error
    begun = time.monotonic()
    for outcome in carry(job.connect, job.payload, secret):
        if outcome.get("failed"):
            raise GiveUpError(outcome["error"])
        if outcome.get("retry"):
            raise RetryError(outcome["error"], outcome.get("retry_in"), counts=outcome.get("counts", True))
        # A long walk is cut into jobs: its bookmark is in the database.
        if outcome.get("again") and time.monotonic() - begun > job.timeout / 2:
            raise RetryError("there is more to read", 0, counts=False)
