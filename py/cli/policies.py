"""`rowhouse policies`: grants and policies."""

from __future__ import annotations

import typer

from .. import policies
from ..database import connect
from ..errors import FindingsError
from .output import Json, done

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Grants and policies: ship policies/ as a migration, compare it with a database.",
)


@app.command()
def build(as_json: Json = False) -> None:
    """Writes what changed in policies/ as a new migration, with its rollback.

    \b
    Example:
      rowhouse policies build && rowhouse db migrate
    """
    path = policies.build()
    done(str(path) if path else "policies/ is shipped already.", as_json=as_json, migration=str(path) if path else None)


@app.command()
def check(as_json: Json = False) -> None:
    """Compares a database with policies/, in both directions. Exit code 5 if they differ.

    \b
    Example:
      rowhouse policies check
    """
    findings = [f"policies/{name} is not shipped: run `rowhouse policies build`" for name in policies.unshipped()]
    with connect(autocommit=True) as connection:
        findings += policies.check(connection)
    if findings:
        raise FindingsError("\n".join(findings), "policies/ and the database must say the same.")
    done("The database grants what policies/ says, and nothing else.", as_json=as_json)
