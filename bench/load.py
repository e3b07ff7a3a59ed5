"""Many connections at once: pgbench, which ships with Postgres."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from rowhouse.local.packages import ensure_packages

from tests.conftest import Database


def rate(database: Database, script: str, *, connections: int, seconds: int = 5, user: str = "postgres") -> float:
    """Transactions a second of a pgbench script. Raises RuntimeError if one of them failed, as by a deadlock."""
    packages = ensure_packages()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "script.sql"
        path.write_text(script)
        result = subprocess.run(
            [
                packages.postgres_bin / "pgbench", "--no-vacuum", "--protocol=prepared", f"--client={connections}",
                "--jobs=1", f"--time={seconds}", f"--file={path}", database.url(user),
            ],
            env={**os.environ, **packages.environment}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    found = re.search(r"tps = ([\d.]+)", result.stdout)
    if result.returncode or not found:
        raise RuntimeError(result.stderr[-2000:])
    return float(found[1])


def alternating(contenders: dict[str, tuple[Database, str]], *, connections: int, rounds: int = 3) -> dict[str, float]:
    """The median rate of each contender; they take turns."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, (database, script) in contenders.items():
            measured = rate(database, script, connections=connections, seconds=4 if number else 2)
            if number:
                rates[name].append(measured)
    return {name: sorted(values)[len(values) // 2] for name, values in rates.items()}
