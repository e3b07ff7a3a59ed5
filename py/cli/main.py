"""The `rowhouse` command."""

from __future__ import annotations

import sys

import typer

from ..errors import RowhouseError, UsageError
from . import (
    audit,
    billing,
    database,
    digests,
    doctor,
    jobs,
    ledger,
    local,
    mail,
    members,
    new,
    plans,
    policies,
    schedules,
    stripe,
    trash,
    usage,
    users,
    work,
    workspaces,
)
from .output import print_error

app = typer.Typer(
    name="rowhouse",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=(
        "Administers a Rowhouse database.\n\n"
        "It works on the database that DATABASE_URL names (in the environment or in .env), or else on the"
        " local platform.\n\n"
        "\b\nExamples:\n"
        "  rowhouse local up\n"
        "  rowhouse db migrate --dry-run\n"
        "  rowhouse workspaces list --search acme\n"
        "  rowhouse doctor"
    ),
)
app.add_typer(local.app, name="local")
app.add_typer(database.app, name="db")
app.add_typer(policies.app, name="policies")
app.add_typer(new.app, name="new")
app.add_typer(workspaces.app, name="workspaces")
app.add_typer(members.app, name="members")
app.add_typer(users.app, name="users")
app.add_typer(plans.app, name="plans")
app.add_typer(billing.app, name="billing")
app.add_typer(usage.app, name="usage")
app.add_typer(stripe.app, name="stripe")
app.add_typer(audit.app, name="audit")
app.add_typer(trash.app, name="trash")
app.add_typer(ledger.app, name="ledger")
app.add_typer(jobs.app, name="jobs")
app.add_typer(schedules.app, name="schedules")
app.add_typer(digests.app, name="digests")
app.add_typer(mail.app, name="mail")
app.command("work")(work.work)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Runs the command line; ends the process with 0, or the exit code of what went wrong.

    1 cannot be done, 2 badly asked, 3 no database, 4 refused by a rule, 5 a check found something,
    6 a migration failed.
    """
    try:
        if any("\ud800" <= character <= "\udfff" for character in "".join(sys.argv)):
            raise UsageError("An argument is not UTF-8.", "Check the terminal's encoding.")
        app()
    except RowhouseError as error:
        print_error(error, as_json="--json" in sys.argv)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read the output has read enough. Python would complain when flushing at exit.
        sys.stderr.close()
        sys.exit(0)
