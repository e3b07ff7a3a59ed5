"""`rowhouse db`: migrations."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import migrations
from ..database import connect
from ..errors import FindingsError
from .output import Json, confirm, done, show

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Migrations: apply them, take them back, see where a database stands.",
)

Target = Annotated[str | None, typer.Option(help="The last version to apply.", metavar="VERSION")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Run it, say what it would do, and roll back.")]


@app.command()
def migrate(
    target: Target = None,
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="Go on although an applied file has changed.")] = False,
    as_json: Json = False,
) -> None:
    """Applies the migrations that are pending.

    Each file is one transaction with its history row. A second migrator waits. What the Supabase
    CLI has applied counts as applied.

    \b
    Examples:
      rowhouse db migrate
      rowhouse db migrate --dry-run
      rowhouse db migrate --target 20261101000400
    """

    def waiting() -> None:
        typer.echo("Another migrator is at work; waiting for it.", err=True)

    with connect(autocommit=True) as connection:
        applied = migrations.migrate(
            connection,
            target=target,
            dry_run=dry_run,
            force=force,
            on_wait=waiting,
            on_applied=None if as_json else lambda migration: typer.echo(f"applied {migration.path.name}"),
        )
    names = [migration.path.name for migration in applied]
    if dry_run:
        summary = f"{len(names)} would be applied: {', '.join(names)}" if names else "Nothing to apply."
    else:
        summary = f"{len(names)} applied." if names else "Nothing to apply."
    done(summary, as_json=as_json, migrations=names, dry_run=dry_run)


@app.command()
def status(as_json: Json = False) -> None:
    """Shows every migration and whether it is applied, pending, changed or missing.

    \b
    Examples:
      rowhouse db status
      rowhouse db status --json
    """
    with connect(autocommit=True) as connection:
        rows = migrations.status(connection)
    show(
        [{"version": row.version, "name": row.name, "state": row.state} for row in rows],
        as_json=as_json,
        empty="There are no migrations.",
    )


@app.command()
def verify(as_json: Json = False) -> None:
    """Checks that a database has exactly the migrations on disk, unchanged. Exit code 5 if not.

    \b
    Example:
      rowhouse db verify
    """
    with connect(autocommit=True) as connection:
        rows = [row for row in migrations.status(connection) if row.state != "applied"]
    if rows:
        what = ", ".join(f"{row.version}_{row.name} is {row.state}" for row in rows)
        raise FindingsError(f"The database and supabase/migrations differ: {what}.", "`rowhouse db status` shows all.")
    done("The database has every migration, unchanged.", as_json=as_json)


@app.command()
def rollback(
    target: Annotated[str, typer.Option(help="The version to go back to; 0 takes back all.", metavar="VERSION")],
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Takes back what was applied after a version, the latest first, in one transaction.

    The way back is the file of the same name in supabase/rollbacks. What the tables held is lost.

    \b
    Examples:
      rowhouse db rollback --target 20261101000700 --dry-run
      rowhouse db rollback --target 0 --yes
    """
    if not dry_run:
        confirm(f"Take back everything after {target}, with the data in it?", yes=yes)
    with connect(autocommit=True) as connection:
        back = migrations.rollback(connection, target=target, dry_run=dry_run)
    names = [migration.path.name for migration in back]
    verb = "would be taken back" if dry_run else "taken back"
    done(
        f"{len(names)} {verb}: {', '.join(names)}" if names else "Nothing to take back.",
        as_json=as_json,
        migrations=names,
    )


@app.command("new")
def new_migration(name: Annotated[str, typer.Argument(help="What it does, such as add_invoices.")]) -> None:
    """Makes an empty migration and its rollback.

    \b
    Example:
      rowhouse db new add_invoices
    """
    typer.echo(migrations.create(name))
