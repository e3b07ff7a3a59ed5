"""A platform of the tests' own: one for all of them, on free ports, in a folder that root's services can enter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rowhouse.local.account import shared_home
from rowhouse.local.instance import PORTS, Instance

from ..conftest import ROOT
from ..server import free_port

ROWHOUSE = [sys.executable, "-m", "rowhouse.cli"]


def new_home() -> Path:
    home = Path(tempfile.mkdtemp(prefix="test-platform-", dir=_parent()))
    home.chmod(0o755)
    return home


def _parent() -> Path:
    shared_home().mkdir(parents=True, exist_ok=True)
    return shared_home()


def new_environment(home: Path) -> dict[str, str]:
    ports = {variable: str(free_port()) for variable, _ in PORTS.values()}
    # Set to nothing, so that a developer's .env cannot lead a test into another database.
    return {**os.environ, "DATABASE_URL": "", "ROWHOUSE_HOME": str(home), **ports}


@dataclass(frozen=True)
class Platform:
    """A home, the environment that leads to it, and the command line in it."""

    home: Path
    environment: dict[str, str]

    def rowhouse(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*ROWHOUSE, *arguments], cwd=ROOT, env={**self.environment, **more}, capture_output=True, text=True,
            check=False, stdin=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip

    @property
    def instance(self) -> Instance:
        return Instance(self.home)

    def end(self) -> None:
        self.rowhouse("local", "down")
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture
def fresh() -> Iterator[Platform]:
    """A platform that does not run yet."""
    home = new_home()
    platform = Platform(home, new_environment(home))
    yield platform
    platform.end()


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """A platform that runs."""
    home = new_home()
    platform = Platform(home, new_environment(home))
    started = platform.rowhouse("local", "up")
    assert started.returncode == 0, started.stderr
    yield platform
    platform.end()
