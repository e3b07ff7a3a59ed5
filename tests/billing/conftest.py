"""A Stripe, and a database that is connected to it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from ..identities import make_user, make_workspace
from ..races import Connection
from ..support.stripe_server import Stripe
from .world import Billing

# A second in the middle of a month: tests move it.
START = 1_795_000_000


@pytest.fixture
def stripe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stripe]:
    with Stripe() as server:
        server.store.frozen = START
        monkeypatch.setenv("STRIPE_SECRET_KEY", server.key)
        monkeypatch.setenv("STRIPE_API_URL", server.url)
        yield server


@pytest.fixture
def billing(db: Connection, stripe: Stripe) -> Billing:
    """Connected, with a catalogue that Stripe has."""
    made = Billing(db, stripe)
    made.tick()
    made.connect()
    made.sell()
    made.settle()
    return made


@pytest.fixture
def owner(db: Connection) -> uuid.UUID:
    return make_user(db, "owner@example.com")


@pytest.fixture
def workspace(billing: Billing, owner: uuid.UUID) -> uuid.UUID:
    """A workspace on the free plan, with its customer at Stripe."""
    made = make_workspace(billing.connection, owner, plan="free")
    billing.settle()
    return made
