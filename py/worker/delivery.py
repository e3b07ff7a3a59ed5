"""The house's own kind, notify.send: hands a batch of messages to its provider and says what came of it.

What is sent, to whom, and whether again, is decided in the database; here bytes are carried.
"""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from . import providers
from .kinds import GiveUpError, Job, RetryError, job_kind


@job_kind("notify.send", is_declared_in_sql=True)
def send(job: Job) -> None:
    """Hands a batch of messages to its provider."""
    batch = job.payload["batch_id"]
    delivery = _ask(job, "select notify.take(%s)", [batch])
    if not delivery["messages"]:
        return
    carry = providers.send_sms if delivery["channel"] == "sms" else providers.send_email
    try:
        accepted = carry(delivery)
    except GiveUpError as error:
        if _ask(job, "select notify.refused(%s, %s, true)", [batch, str(error)]) == "failed":
            raise
        return
    except RetryError as error:
        _ask(job, "select notify.refused(%s, %s, false, %s)", [batch, str(error), error.counts])
        raise
    except providers.KnownError as error:
        _ask(job, "select notify.taken_before(%s, %s)", [batch, str(error)])
        return
    _ask(job, "select notify.accepted(%s, %s)", [batch, Jsonb(accepted)])


def _ask(job: Job, query: str, parameters: list[Any]) -> Any:
    with job.connect() as connection:
        row = connection.execute(query.encode(), parameters).fetchone()
    return row[0] if row else None
