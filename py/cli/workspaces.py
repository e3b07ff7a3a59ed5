"""`rowhouse workspaces`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .. import administration, archives
from ..database import connect
from .erasure import show_erasure
from .listing import After, Limit, Search, Slug, Yes, show_page
from .output import Json, bar, confirm, done, show_one

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Workspaces: list, create, suspend, delete, restore, change the plan, export, import, erase.",
)


class State(StrEnum):
    """What a workspace can be."""

    active = "active"
    suspended = "suspended"
    deleted = "deleted"


@app.command("list")
def list_(
    search: Search = None,
    plan: Annotated[str | None, typer.Option(help="Only those on this plan.")] = None,
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    after: After = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Lists workspaces by slug.

    \b
    Examples:
      rowhouse workspaces list --search acme --plan pro
      rowhouse workspaces list --state deleted --json
    """
    with connect() as connection:
        page = administration.list_workspaces(
            connection, search=search, plan=plan, state=state, after=after, limit=limit
        )
    show_page(page, as_json=as_json, empty="No workspace fits.")


@app.command()
def show(workspace: Slug, as_json: Json = False) -> None:
    """Shows one workspace: its plan, usage, owners and state.

    \b
    Example:
      rowhouse workspaces show acme
    """
    with connect() as connection:
        row = administration.show_workspace(connection, workspace)
    show_one(row, as_json=as_json)


@app.command()
def create(
    workspace: Slug,
    name: Annotated[str, typer.Option(help="Its name for people.")],
    owner: Annotated[str, typer.Option(help="The address its owner signs in with.")],
    plan: Annotated[str | None, typer.Option(help="The plan it starts on.")] = None,
    as_json: Json = False,
) -> None:
    """Makes a workspace for somebody who has signed up.

    \b
    Example:
      rowhouse workspaces create acme --name "Acme Inc." --owner ada@acme.example --plan pro
    """
    with connect() as connection:
        made = administration.create_workspace(connection, name=name, slug=workspace, owner=owner, plan=plan)
    done(f"{made['slug']} is there, and {owner} owns it.", as_json=as_json, **made)


@app.command()
def suspend(
    workspace: Slug,
    reason: Annotated[str, typer.Option(help="Why, for other operators.")],
    as_json: Json = False,
) -> None:
    """Shuts a workspace for everybody in it, from their next request on.

    \b
    Example:
      rowhouse workspaces suspend acme --reason "abuse report 4711"
    """
    with connect() as connection:
        administration.suspend_workspace(connection, workspace, reason)
    done(f"{workspace} is suspended.", as_json=as_json)


@app.command()
def resume(workspace: Slug, as_json: Json = False) -> None:
    """Opens a suspended workspace again.

    \b
    Example:
      rowhouse workspaces resume acme
    """
    with connect() as connection:
        administration.resume_workspace(connection, workspace)
    done(f"{workspace} is open.", as_json=as_json)


@app.command()
def delete(
    workspace: Slug,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what it is.")] = False,
    as_json: Json = False,
) -> None:
    """Deletes a workspace; it can be restored until its grace period is over.

    \b
    Example:
      rowhouse workspaces delete acme
    """
    if dry_run:
        show(workspace, as_json=as_json)
        return
    confirm(f"Delete {workspace}?", yes=yes)
    with connect() as connection:
        until = administration.delete_workspace(connection, workspace)
    if until is None:
        done(f"{workspace} was deleted already.", as_json=as_json)
    else:
        done(f"{workspace} is deleted; it can be restored until {until:%Y-%m-%d %H:%M}.", as_json=as_json, until=until)


@app.command()
def restore(workspace: Slug, as_json: Json = False) -> None:
    """Brings a deleted workspace back, with all that was in it.

    \b
    Example:
      rowhouse workspaces restore acme
    """
    with connect() as connection:
        restored = administration.restore_workspace(connection, workspace)
    done(f"{workspace} is back." if restored else f"{workspace} was not deleted.", as_json=as_json)


@app.command("set-plan")
def set_plan(
    workspace: Slug,
    plan: Annotated[str, typer.Argument(help="The plan, such as pro.", metavar="PLAN")],
    as_json: Json = False,
) -> None:
    """Moves a workspace to a plan. Having more than it allows blocks growth, nothing else.

    \b
    Example:
      rowhouse workspaces set-plan acme pro
    """
    with connect() as connection:
        over = administration.set_plan(connection, workspace, plan)
    blocked = "".join(f" It cannot add {row['resource']}: {row['used']} of {row['max']}." for row in over)
    done(f"{workspace} is on {plan}.{blocked}", as_json=as_json, over_limit=over)


@app.command()
def export(
    workspace: Slug,
    output: Annotated[Path | None, typer.Option(help="The archive; WORKSPACE.zip by default.", metavar="FILE")] = None,
    as_json: Json = False,
) -> None:
    """Writes all that belongs to a workspace into one archive: NDJSON per table, and a manifest.

    Everything is as of one moment. Interrupted, it goes on where it was when it is started again.

    \b
    Example:
      rowhouse workspaces export acme --output acme.zip
    """
    target = output or Path(f"{workspace}.zip")
    with connect(autocommit=True) as connection, bar("Exporting", hidden=as_json) as progress:
        row = administration.show_workspace(connection, workspace)
        tables = archives.workspace_tables(connection)
        task = progress.add_task("rows", total=archives.count_rows(connection, tables, row["id"]))
        subject = {"id": row["id"], "slug": row["slug"], "name": row["name"]}
        manifest = archives.export(
            connection, tables, archives.Manifest("workspace", subject), row["id"], target,
            lambda _, rows: progress.advance(task, rows),
        )  # fmt: skip
    rows = sum(table.rows for table in manifest.tables.values())
    done(f"{rows} rows of {len(manifest.tables)} tables are in {target}.", as_json=as_json, rows=rows, file=str(target))


@app.command("import")
def import_(
    archive: Annotated[Path, typer.Argument(help="What `rowhouse workspaces export` wrote.", metavar="FILE")],
    as_json: Json = False,
) -> None:
    """Brings an exported workspace into this database, ids and all: the whole of it, or nothing.

    Its people are signed up without a password, if they are not here; invitations must be sent again.

    \b
    Example:
      rowhouse workspaces import acme.zip
    """
    with connect() as connection, bar("Importing", hidden=as_json) as progress:
        check, load = (progress.add_task(name, total=None) for name in ("rows checked", "rows brought in"))
        manifest = archives.load(
            connection, archive,
            lambda _, rows: progress.advance(check, rows), lambda _, rows: progress.advance(load, rows),
        )  # fmt: skip
    rows = sum(table.rows for table in manifest.tables.values())
    slug = manifest.subject.get("slug")
    done(f"{slug} is here, with {rows} rows.", as_json=as_json, rows=rows, workspace=slug)


@app.command()
def erase(
    workspace: Slug,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    as_json: Json = False,
) -> None:
    """Erases a workspace at once and for good. The ledger keeps its figures, the audit log what was done when.

    \b
    Examples:
      rowhouse workspaces erase acme --dry-run
      rowhouse workspaces erase acme --yes
    """
    show_erasure(administration.erase_workspace, workspace, yes=yes, dry_run=dry_run, as_json=as_json)
