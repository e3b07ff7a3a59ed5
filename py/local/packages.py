"""Debian's packages, unpacked beside the project: Postgres with pg_cron, nginx and pgbouncer.

Nothing on the system is changed and no root is needed: `apt-get download` and `dpkg -x` put the
packages into a folder, from which Postgres runs just as well.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import RowhouseError
from .account import shared_home

OLDEST_POSTGRES = 15
EXTENSIONS = ("cron", "plpgsql-check")


@dataclass(frozen=True)
class Packages:
    """The unpacked packages: `root` is the folder that stands for `/`, `major` the Postgres version."""

    root: Path
    major: int

    @property
    def postgres_bin(self) -> Path:
        return self.root / f"usr/lib/postgresql/{self.major}/bin"

    @property
    def nginx(self) -> Path:
        return self.root / "usr/sbin/nginx"

    @property
    def pgbouncer(self) -> Path:
        return self.root / "usr/sbin/pgbouncer"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which their programs find the libraries that came along."""
        libraries = [*self.root.glob("usr/lib/*-linux-gnu"), *self.root.glob("lib/*-linux-gnu")]
        return {"LD_LIBRARY_PATH": ":".join(map(str, libraries))}


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Holds an exclusive lock on a file, which it makes, against other processes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def installed() -> Packages | None:
    """The packages, if they were unpacked to the end."""
    marker = shared_home() / "packages" / "complete"
    if not marker.is_file():
        return None
    packages = Packages(marker.parent / "root", int(marker.read_text()))
    # What an earlier version unpacked may lack what this one needs.
    return packages if packages.nginx.is_file() and packages.pgbouncer.is_file() else None


def ensure_packages() -> Packages:
    """Unpacks the packages if they are not there yet; two processes at once do it once.

    Raises RowhouseError where apt is missing or cannot deliver.
    """
    found = installed()
    if found:
        return found
    with locked(shared_home() / "packages.lock"):
        return installed() or _install()


def _install() -> Packages:
    if not shutil.which("apt-get"):
        raise RowhouseError(
            "The local platform takes Postgres from Debian's packages, and there is no apt-get here.",
            "Use Debian or Ubuntu, or set DATABASE_URL to a Supabase database of your own.",
        )
    folder = shared_home() / "packages"
    shutil.rmtree(folder, ignore_errors=True)
    downloads = folder / "downloads"
    downloads.mkdir(parents=True)
    try:
        major = _download(downloads, [])
    except (RowhouseError, subprocess.CalledProcessError):
        # The system's package lists are missing or stale: use lists of our own.
        major = _download(downloads, _own_lists(folder))
    root = folder / "root"
    for package in downloads.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, root], check=True)
    shutil.rmtree(downloads)
    shutil.rmtree(folder / "apt", ignore_errors=True)
    _check_time_zones()
    (folder / "complete").write_text(str(major))
    return Packages(root, major)


def _own_lists(folder: Path) -> list[str]:
    state = folder / "apt"
    (state / "lists/partial").mkdir(parents=True)
    (state / "cache/archives/partial").mkdir(parents=True)
    options = ["-o", f"Dir::State::lists={state}/lists", "-o", f"Dir::Cache={state}/cache"]
    if os.geteuid() == 0:
        options += ["-o", "APT::Sandbox::User=root"]
    result = subprocess.run(["apt-get", *options, "update", "-qq"], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RowhouseError(
            f"apt-get update failed: {_last_line(result.stderr)}", "Check the network and /etc/apt/sources.list."
        )
    return options


def _download(folder: Path, options: list[str]) -> int:
    major = _tested_major(options)
    server = f"postgresql-{major}"
    wanted = [server, f"postgresql-client-{major}", "libpq5", "nginx", "pgbouncer"]
    wanted += [f"{server}-{extension}" for extension in EXTENSIONS]
    simulated = subprocess.run(
        ["apt-get", *options, "install", "--simulate", "--no-install-recommends", *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    # Of what they depend on, the libraries that this machine lacks; their set-up scripts are not run.
    libraries = set(re.findall(r"^Inst (lib\S+)", simulated.stdout, re.MULTILINE))
    result = subprocess.run(
        ["apt-get", *options, "-o", "APT::Sandbox::User=root", "download", *sorted({*wanted, *libraries})],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RowhouseError(f"apt-get download failed: {_last_line(result.stderr)}", "Check the network and try again.")
    return major


def _tested_major(options: list[str]) -> int:
    names = subprocess.run(
        ["apt-cache", *options, "pkgnames", "postgresql-"], capture_output=True, text=True, check=False
    ).stdout.split()
    majors = {int(found[1]) for name in names if (found := re.fullmatch(r"postgresql-(\d+)", name))}
    complete = {
        major
        for major in majors
        if major >= OLDEST_POSTGRES and all(f"postgresql-{major}-{extension}" in names for extension in EXTENSIONS)
    }
    if not complete:
        raise RowhouseError(
            f"apt offers no postgresql-{OLDEST_POSTGRES} or later with pg_cron.",
            "Use Debian 12 or Ubuntu 24.04 or later, or add the PostgreSQL project's apt repository.",
        )
    # The oldest: the one that supabase/config.toml names, wherever it is offered.
    return min(complete)


def _check_time_zones() -> None:
    if not Path("/usr/share/zoneinfo/Europe/Berlin").exists():
        raise RowhouseError("Postgres needs the system's time zones.", "Install the package tzdata.")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
