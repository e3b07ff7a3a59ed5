"""Where things are: the project on disk, and the settings, from the environment and `.env`."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from .errors import UsageError


@cache
def project_root() -> Path:
    """The folder of the project the command runs in: the nearest one that holds `supabase/migrations`.

    Raises UsageError outside of any.
    """
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "supabase" / "migrations").is_dir():
            return folder
    raise UsageError(
        f"{here} is not inside a Rowhouse project.", "Change to a folder with supabase/migrations in it or above it."
    )


@cache
def dotenv() -> dict[str, str]:
    """The `KEY=value` lines of the project's `.env`; the environment wins over them."""
    values: dict[str, str] = {}
    try:
        file = project_root() / ".env"
    except UsageError:
        # A worker may run where the package is installed and the project is not.
        return values
    if not file.is_file():
        return values
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        key, separator, value = text.removeprefix("export ").partition("=")
        if not separator:
            raise UsageError(f".env, line {number}: not of the form KEY=value.")
        values[key.strip()] = value.strip().strip("\"'")
    return values


def setting(name: str, default: str | None = None) -> str | None:
    """A setting by its environment name, or the default; one that is set to nothing hides `.env`."""
    if name in os.environ:
        return os.environ[name] or default
    return dotenv().get(name) or default


def database_url() -> str:
    """The database to administer: DATABASE_URL, or the local platform's while it is set up.

    Raises UsageError when there is neither.
    """
    url = setting("DATABASE_URL")
    if url:
        return url
    from .local.instance import Instance

    instance = Instance.default()
    if instance.exists():
        return instance.load().database_url
    raise UsageError("No database is named.", "Set DATABASE_URL, or start the local platform with `rowhouse local up`.")
