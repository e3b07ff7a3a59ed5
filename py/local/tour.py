"""The tour: a platform of its own, walked through over HTTP by signed-in users.

Every step asserts what it shows; the first that goes wrong ends the tour with exit code 1.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import typer

from ..errors import RowhouseError
from . import platform, purchase, repair
from .account import shared_home
from .instance import Instance, State

PASSWORD = "correct horse battery staple"  # noqa: S105  of people who live for ten seconds


class StepError(Exception):
    """A step showed something else than it promised."""


@dataclass
class Person:
    """Somebody signed in, with the unmodified supabase client."""

    name: str
    email: str
    id: str
    client: Any

    def try_(self, query: Any) -> tuple[Any, Any]:
        """Runs a query; returns (data, None) or (None, the error that came back)."""
        from postgrest.exceptions import APIError

        try:
            return query.execute().data, None
        except APIError as error:
            return None, error


class Tour:
    """The walk and what it prints."""

    def __init__(self, instance: Instance, state: State) -> None:
        self.instance = instance
        self.state = state
        self.steps = 0

    def section(self, title: str) -> None:
        self.steps += 1
        typer.secho(f"\n{self.steps}. {title}", bold=True)

    def say(self, who: str, what: str, answer: str) -> None:
        typer.echo(f"   {who:<6} {what}")
        typer.secho(f"          → {answer}", fg="cyan")

    def check(self, condition: bool, promised: str) -> None:
        """Raises StepError unless what was promised came."""
        if not condition:
            raise StepError(promised)

    def sign_up(self, name: str, email: str) -> Person:
        """Signs up, opens the link of the confirmation mail, signs in."""
        from supabase import create_client

        client = create_client(self.state.api_url, self.state.key("anon"))
        client.auth.sign_up({"email": email, "password": PASSWORD, "options": {"data": {"display_name": name}}})
        mail = self.mail_to(email)
        client.auth.verify_otp({"type": "email", "token_hash": mail["token_hash"]})
        session = client.auth.sign_in_with_password({"email": email, "password": PASSWORD}).session
        if session is None:
            raise StepError(f"{email} is signed in")
        self.say(name, f"signs up as {email} and opens the link in the mail", "signed in")
        return Person(name, email, session.user.id, client)

    def mail_to(self, address: str, subject: str = "") -> dict[str, Any]:
        """The newest message to an address, once it has come."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            mail: dict[str, Any]
            for mail in reversed(self.instance.messages()):
                if mail["to"] == address and subject in mail["subject"]:
                    return mail
            time.sleep(0.05)
        raise StepError(f"a message to {address} arrives")

    def providers(self, **faults: Any) -> None:
        """Has what stands in for Resend (email) and Twilio (sms) fail from now on."""
        import httpx

        httpx.post(f"{self.state.providers['TWILIO_API_URL']}/faults", json=faults).raise_for_status()

    def sql(self, statement: str) -> None:
        """Runs a statement as the database's owner."""
        import psycopg

        with psycopg.connect(self.state.database_url) as connection:
            connection.execute(statement.encode())

    def operator(self, *arguments: str) -> Any:
        """Runs the command line as an operator would; returns its JSON."""
        command = [sys.executable, "-m", "rowhouse.cli", *arguments, "--json"]
        result = subprocess.run(
            command,
            env={**os.environ, **self.state.providers, "DATABASE_URL": self.state.database_url},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise StepError(f"rowhouse {' '.join(arguments)} succeeds; it said: {result.stderr.strip()}")
        return json.loads(result.stdout)

    def walk(self) -> None:
        """All of it."""
        self.section("Two companies sign up")
        ada = self.sign_up("Ada", "ada@acme.example")
        gus = self.sign_up("Gus", "gus@globex.example")
        acme = ada.client.rpc("create_workspace", {"name": "Acme Inc.", "slug": "acme"}).execute().data
        self.say("Ada", "rpc create_workspace(Acme Inc., acme)", f"workspace {acme['slug']}, owned by her")
        globex = gus.client.rpc("create_workspace", {"name": "Globex", "slug": "globex"}).execute().data
        self.say("Gus", "rpc create_workspace(Globex, globex)", f"workspace {globex['slug']}, owned by him")
        _, error = gus.try_(gus.client.rpc("create_workspace", {"name": "Acme too", "slug": "ACME"}))
        self.check(error is not None and error.code == "slug_taken", "a taken slug is refused, whatever its case")
        self.say("Gus", "rpc create_workspace(Acme too, ACME)", f"refused: {error.message}")

        self.section("Each sees only its own")
        for person, workspace, name in ((ada, acme, "Apollo"), (gus, globex, "Gemini")):
            person.client.table("projects").insert({"workspace_id": workspace["id"], "name": name}).execute()
            seen = [row["name"] for row in person.client.table("projects").select("name").execute().data]
            self.check(seen == [name], f"{person.name} sees {name} and nothing else, and saw {seen}")
            self.say(person.name, f"inserts the project {name}, then selects all projects", f"sees {', '.join(seen)}")
        named = gus.client.table("projects").select("*").eq("workspace_id", acme["id"]).execute().data
        self.check(named == [], "Gus sees nothing of Acme's, also when he names it")
        self.say("Gus", "selects projects where workspace_id is Acme's", "sees nothing")
        _, error = gus.try_(gus.client.table("projects").insert({"workspace_id": acme["id"], "name": "Trojan"}))
        self.check(error is not None and error.code == "42501", "an insert into another's workspace is refused")
        self.say("Gus", "inserts a project into Acme's workspace", f"refused: {error.message}")

        self.section("An invitation is sent and accepted")
        vic = self.sign_up("Vic", "vic@acme.example")
        invitation = (
            ada.client.rpc("invite_member", {"workspace_id": acme["id"], "email": vic.email, "role": "viewer"})
            .execute()
            .data[0]
        )
        self.say("Ada", "rpc invite_member(vic@acme.example, viewer)", f"token {invitation['token'][:12]}…, for 7 days")
        _, error = gus.try_(gus.client.rpc("accept_invitation", {"token": invitation["token"]}))
        self.check(error is not None and error.code == "invitation_for_another", "a found token is of no use")
        self.say("Gus", "rpc accept_invitation(the token he found)", f"refused: {error.message}")
        mail = self.mail_to(vic.email, "invites you")
        self.check(invitation["token"] in mail["link"], "the invitation was mailed")
        vic.client.rpc("accept_invitation", {"token": mail["link"].partition("#")[2]}).execute()
        mine = vic.client.rpc("my_workspaces").execute().data
        self.check([row["slug"] for row in mine] == ["acme"], "Vic is in Acme")
        self.say(
            "Vic",
            "opens the link in the mail: rpc accept_invitation(token)",
            f"is {mine[0]['role']} of {mine[0]['name']}",
        )
        _, error = vic.try_(vic.client.rpc("accept_invitation", {"token": invitation["token"]}))
        self.check(error is not None and error.code == "invitation_used", "an invitation works once")
        self.say("Vic", "rpc accept_invitation(token) once more", f"refused: {error.message}")

        self.section("A viewer looks, and is refused a write")
        seen = vic.client.table("projects").select("name").execute().data
        self.check([row["name"] for row in seen] == ["Apollo"], "a viewer sees the projects")
        self.say("Vic", "selects all projects", f"sees {seen[0]['name']}")
        _, error = vic.try_(vic.client.table("projects").insert({"workspace_id": acme["id"], "name": "Vic's own"}))
        self.check(error is not None and error.code == "42501", "a viewer's insert is refused")
        self.say("Vic", "inserts a project", f"refused: {error.message}")

        self.section("A member is promoted; nobody promotes themselves")
        promotion = {"workspace_id": acme["id"], "user_id": vic.id, "role": "admin"}
        _, error = vic.try_(vic.client.rpc("set_member_role", promotion))
        self.check(error is not None and error.code == "permission_denied", "a viewer cannot promote anybody")
        self.say("Vic", "rpc set_member_role(himself, admin)", f"refused: {error.message}")
        ada.client.rpc("set_member_role", {**promotion, "role": "member"}).execute()
        made = vic.client.table("projects").insert({"workspace_id": acme["id"], "name": "Vostok"}).execute().data
        self.check(made[0]["created_by"] == vic.id, "a member's insert goes through")
        self.say("Ada", "rpc set_member_role(Vic, member)", "done")
        self.say("Vic", "inserts a project, with the same token as before", f"{made[0]['name']} is there")

        self.section("The fourth project on the free plan")
        ada.client.table("projects").insert({"workspace_id": acme["id"], "name": "Voyager"}).execute()
        usage = ada.client.table("workspace_usage").select("*").eq("resource", "projects").execute().data[0]
        self.check((usage["used"], usage["max"]) == (3, 3), "three of three projects are used")
        self.say("Ada", "inserts Voyager, then selects workspace_usage", f"{usage['used']} of {usage['max']} projects")
        _, error = ada.try_(ada.client.table("projects").insert({"workspace_id": acme["id"], "name": "Viking"}))
        self.check(error is not None and error.code == "plan_limit_reached", "the fourth is refused")
        details = json.loads(error.details)
        self.check(details["lifted_by"] == "pro", "the refusal says which plan lifts it")
        self.check(self.status_of_insert(ada, acme["id"]) == 402, "the refusal is 402 Payment Required")
        self.say("Ada", "inserts Viking", f"402: {error.message} {error.hint}")

        purchase.walk(self, ada, acme)
        repair.walk(self, ada, acme)

        self.section("What happened is told")
        seen = vic.client.table("notifications").select("kind,title").execute().data
        self.check(any(row["kind"] == "ticket.status_changed" for row in seen), "Vic was told of the ticket")
        unread = vic.client.rpc("unread_notification_count").execute().data
        self.say("Vic", "selects notifications", f"{unread} unread, such as: {seen[-1]['title']}")
        preview = self.operator("digests", "preview", vic.email)
        self.check(len(preview) == 1 and "payments received" in preview[0]["body"], "his digest waits")
        lines = [line for line in preview[0]["body"].splitlines() if line.startswith("- ")]
        self.say("You", f"rowhouse digests preview {vic.email}", f"{preview[0]['subject']}: {'; '.join(lines[:3])}")
        stats = self.operator("jobs", "stats")[0]["queues"]
        done = sum(row["completed_in_the_last_hour"] for row in stats)
        self.say("You", "rowhouse jobs stats", f"{done} jobs done, {sum(row['failed'] for row in stats)} failed")

        self.section("A removed member's token is still valid, and worth nothing")
        ada.client.rpc("remove_member", {"workspace_id": acme["id"], "user_id": vic.id}).execute()
        self.say("Ada", "rpc remove_member(Vic)", "done")
        seen = vic.client.table("projects").select("*").execute().data
        self.check(seen == [], "Vic sees nothing any more")
        self.say("Vic", "selects all projects, with the token he has", "sees nothing")

        self.section("The database is sound")
        report = self.operator("doctor")
        self.check(report["is_sound"], "the doctor finds nothing wrong")
        self.say("You", "rowhouse doctor", "sound: RLS, grants, keys, indexes, counters, policies as written")

    def status_of_insert(self, person: Person, workspace: str) -> int:
        """The HTTP status of an insert, which the client does not show."""
        import httpx

        session = person.client.auth.get_session()
        headers = {"apikey": self.state.key("anon"), "Authorization": f"Bearer {session.access_token}"}
        body = {"workspace_id": workspace, "name": "Viking"}
        return httpx.post(f"{self.state.api_url}/rest/v1/projects", headers=headers, json=body).status_code


def run() -> int:
    """Runs the tour on a platform of its own; returns the exit code."""
    begun = time.monotonic()
    for stop in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, lambda number, _: sys.exit(128 + number))
    platform.sweep("demo")
    instance = Instance(shared_home() / f"demo-{os.getpid()}")
    failed: str | None = None
    try:
        typer.secho("Rowhouse, a tour: everything below happens over HTTP, as signed-in users.", bold=True)
        state = platform.up(instance, durable=False, free_ports=True)
        typer.echo(f"The platform runs at {state.api_url} ({time.monotonic() - begun:.1f} s).")
        Tour(instance, state).walk()
    except StepError as error:
        failed = f"This step promised that {error}. It did not."
    except RowhouseError:
        raise
    except Exception as error:
        if os.environ.get("ROWHOUSE_DEBUG"):
            raise
        failed = f"This step failed: {type(error).__name__}: {error}"
    finally:
        for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(stop, signal.SIG_IGN)
        platform.down(instance)
        instance.remove()
    if failed:
        typer.secho(f"\n{failed}", fg="red", err=True)
        return 1
    typer.secho(
        f"\nAll of it held, in {time.monotonic() - begun:.1f} s. Nothing is left running.", bold=True, fg="green"
    )
    typer.echo("Next: `make up` keeps a platform running for you; docs/adopting.md adds your first table.")
    return 0
