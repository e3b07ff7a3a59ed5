"""The far side of the internet: Resend for mail, Twilio for SMS, each through its own SDK."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from ..errors import RowhouseError
from ..settings import setting
from .kinds import GiveUpError, RetryError

Delivery = dict[str, Any]
Accepted = list[dict[str, str]]


def timeout() -> float:
    """Seconds after which a provider's silence is no answer: ROWHOUSE_PROVIDER_TIMEOUT, 20 without it."""
    return float(setting("ROWHOUSE_PROVIDER_TIMEOUT") or 20)


class KnownError(RowhouseError):
    """The provider has taken this batch before, under the same key, as it was then."""


class Pace:
    """Holds back calls that a provider has said it would refuse."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.not_before = 0.0

    def wait(self) -> None:
        """Waits until the provider listens again. Raises RetryError where that is too long for a thread to wait."""
        with self.lock:
            pause = self.not_before - time.monotonic()
        if pause > 5:
            raise RetryError("the provider's rate limit is used up", pause, counts=False)
        if pause > 0:
            time.sleep(pause)

    def heed(self, headers: Any) -> float | None:
        """Notes the headers of an answer (IETF RateLimit, Retry-After); returns the seconds they ask to wait."""
        given = {str(name).lower(): str(value) for name, value in dict(headers or {}).items()}
        asked = _seconds(given.get("retry-after"))
        if asked is None and given.get("ratelimit-remaining") == "0":
            asked = _seconds(given.get("ratelimit-reset"))
        if asked:
            with self.lock:
                self.not_before = max(self.not_before, time.monotonic() + asked)
        return asked


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, min(float(text or ""), 3600.0))
    except ValueError:
        return None


resend_pace = Pace()


def send_email(delivery: Delivery) -> Accepted:
    """Hands mails to Resend, one or a batch of up to 100, under the batch's id as idempotency key.

    Returns [{"id", "provider_id"}]. Raises GiveUpError for what Resend will never take, KnownError for a batch that it
    took before in another form, RetryError for the rest.
    https://resend.com/docs/dashboard/emails/idempotency-keys
    """
    import resend
    from resend.exceptions import RateLimitError, ResendError

    key = setting("RESEND_API_KEY")
    if not key:
        raise RetryError("RESEND_API_KEY is not set: mails wait", 300, counts=False)
    resend.api_key = key
    resend.api_url = setting("RESEND_API_URL") or "https://api.resend.com"
    resend.default_http_client = _resend_client()
    messages = delivery["messages"]
    resend_pace.wait()
    try:
        if len(messages) == 1:
            answer: Any = resend.Emails.send(messages[0]["body"], {"idempotency_key": delivery["batch_id"]})
            ids = [answer["id"]]
        else:
            answer = resend.Batch.send(
                [message["body"] for message in messages], {"idempotency_key": delivery["batch_id"]}
            )
            ids = [row["id"] for row in answer["data"]]
    except RateLimitError as error:
        raise RetryError(f"Resend: {error.message}", resend_pace.heed(error.headers) or 5.0, counts=False) from error
    except ResendError as error:
        raise _of_resend(error) from error
    except (KeyError, TypeError) as error:
        raise RetryError("Resend: its answer could not be read") from error
    resend_pace.heed(answer.get("http_headers"))
    if len(ids) != len(messages):
        raise RetryError(f"Resend: it took {len(messages)} mails and names {len(ids)}")
    return [{"id": message["id"], "provider_id": name} for message, name in zip(messages, ids, strict=True)]


@cache
def _resend_client() -> Any:
    from resend import RequestsClient

    return RequestsClient(timeout=timeout())  # type: ignore[arg-type]


def _of_resend(error: Any) -> RowhouseError:
    """What the SDK's error means for the batch: a key that is wrong today may be right tomorrow, a body never."""
    code = int(error.code) if str(error.code).isdecimal() else 500
    message = f"Resend: {code} {error.error_type}: {error.message}"
    if error.error_type == "invalid_idempotent_request":
        return KnownError(message)
    return GiveUpError(message) if code in (400, 413, 422) else RetryError(message)


def send_sms(delivery: Delivery) -> Accepted:
    """Hands an SMS to Twilio, which knows no idempotency key: before a second attempt its list is asked.

    Returns [{"id", "provider_id"}]. Raises GiveUpError for what Twilio will never take, RetryError for the rest.
    https://www.twilio.com/docs/messaging/api/message-resource
    """
    try:
        from twilio.base.exceptions import TwilioRestException
    except ImportError:
        raise RetryError("Twilio's SDK is not installed: pip install rowhouse[sms]", 300, counts=False) from None
    from requests import RequestException

    client = _twilio_client(setting("TWILIO_ACCOUNT_SID"), setting("TWILIO_AUTH_TOKEN"), setting("TWILIO_API_URL"))
    message = delivery["messages"][0]
    body = message["body"]
    try:
        if not delivery["is_first"]:
            # By the time it was made, with room for clocks that differ: one that is queued has no time of sending yet.
            since = datetime.fromisoformat(delivery["first_attempt_at"]) - timedelta(minutes=5)
            for known in client.messages.list(to=body["To"], limit=50):
                is_ours = known.body == body["Body"] and known.from_ == body["From"]
                if is_ours and (known.date_created is None or known.date_created >= since):
                    return [{"id": message["id"], "provider_id": str(known.sid)}]
        sent = client.messages.create(to=body["To"], from_=body["From"], body=body["Body"])
    except TwilioRestException as error:
        text = f"Twilio: {error.status} {error.code or ''}: {error.msg}"
        if error.status in (400, 404, 410, 422):
            raise GiveUpError(text) from error
        raise RetryError(text, 5.0 if error.status == 429 else None, counts=error.status != 429) from error
    except (RequestException, ValueError) as error:
        raise RetryError(f"Twilio: {type(error).__name__}: {error}"[:500]) from error
    return [{"id": message["id"], "provider_id": str(sent.sid)}]


@cache
def _twilio_client(account: str | None, token: str | None, url: str | None) -> Any:
    if not account or not token:
        raise RetryError("TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN are not set: SMS wait", 300, counts=False)
    from twilio.http.http_client import TwilioHttpClient
    from twilio.rest import Client

    class Http(TwilioHttpClient):  # type: ignore[misc]
        """Twilio's own client, which speaks to another address where one is given."""

        def request(self, method: str, url_: str, *arguments: Any, **named: Any) -> Any:
            address = url_.replace("https://api.twilio.com", url.rstrip("/")) if url else url_
            return super().request(method, address, *arguments, **named)

    return Client(account, token, http_client=Http(timeout=timeout()))
