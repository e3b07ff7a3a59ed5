"""The furnished workspace, and an empty house to bring it to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ..conftest import Database, _clone
from .furnished import furnish


@pytest.fixture
def elsewhere() -> Iterator[Database]:
    """Another migrated database, without anybody in it."""
    yield from _clone()


@pytest.fixture
def acme(database: Database) -> dict[str, Any]:
    with database.connect() as connection:
        return furnish(connection)
