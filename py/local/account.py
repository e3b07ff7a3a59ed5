"""Whose account services run under, and where their files can be."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
from functools import cache
from pathlib import Path

from ..errors import RowhouseError
from ..settings import project_root


@cache
def service_account() -> pwd.struct_passwd | None:
    """The account that Postgres runs under: None for one's own, which will do unless it is root's.

    Postgres refuses to run as root.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RowhouseError("Postgres does not run as root.", "Run as another user, or add one called postgres.")


def as_service(command: list[str]) -> list[str]:
    """The command line that runs a command under the service account."""
    account = service_account()
    if account is None:
        return command
    if not shutil.which("setpriv"):
        raise RowhouseError("setpriv is missing, which drops root's rights.", "Install the package util-linux.")
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", "--", *command]


def give_to_service(path: Path) -> None:
    """Makes the service account the owner of a file or folder."""
    account = service_account()
    if account is not None:
        os.chown(path, account.pw_uid, account.pw_gid)


def _open_to_others(folder: Path) -> bool:
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in (folder, *folder.parents) if parent.exists())


@cache
def shared_home() -> Path:
    """The folder for what all instances of this clone share: `.rowhouse`.

    Root's services run under another account; where that cannot enter the clone, as under /root,
    the folder is in /var/lib.
    """
    folder = project_root() / ".rowhouse"
    if service_account() is None or _open_to_others(folder.parent):
        return folder
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    return Path("/var/lib/rowhouse") / digest
