"""A workspace and its owner, for tests that roll back."""

from __future__ import annotations

import uuid

import pytest

from ..identities import make_user, make_workspace
from ..races import Connection


@pytest.fixture
def owner(db: Connection) -> uuid.UUID:
    return make_user(db, "owner@example.com")


@pytest.fixture
def workspace(db: Connection, owner: uuid.UUID) -> uuid.UUID:
    return make_workspace(db, owner)
