"""Two tenants and everybody who could ask for their rows, with an oracle that does not ask the database."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from ..identities import add_member, as_user, claims_of, make_project, make_task, make_user, make_workspace, one, run

Connection = psycopg.Connection[Any]
Row = dict[str, Any]

# What each system role may do, written down a second time on purpose: the oracle.
VIEWER = {
    "workspace.read", "members.read", "roles.read", "billing.read", "projects.read", "tasks.read",
    "customers.read", "tickets.read",
}  # fmt: skip
MEMBER = (
    VIEWER
    | {"projects.create", "projects.update", "tasks.create", "tasks.update", "tasks.delete"}
    | {
        "customers.create",
        "customers.update",
        "customers.delete",
        "tickets.create",
        "tickets.update",
        "tickets.delete",
        "ledger.read",
        "ledger.post",
    }
)
ADMIN = MEMBER | {
    "workspace.update", "members.invite", "members.update", "members.remove", "roles.manage", "billing.manage",
    "projects.delete", "projects.read_private", "audit.read", "trash.manage", "ledger.refund",
}  # fmt: skip
OWNER = ADMIN | {"workspace.delete", "workspace.transfer"}
HELD = {"viewer": VIEWER, "member": MEMBER, "admin": ADMIN, "owner": OWNER}
KNOWN = {permission.partition(".")[0] for permission in OWNER}


def holds(role: str, permission: str) -> bool:
    """Whether a role allows something; an adopter's own resource is as register_resource() leaves it."""
    resource, _, action = permission.partition(".")
    if role not in HELD or resource in KNOWN:
        return permission in HELD.get(role, set())
    return action == "read" or role != "viewer"


# Which permission each verb on each table needs; a verb that is missing is nobody's. A table that an
# adopter adds needs none of this: resource.read, .create, .update and .delete are assumed.
NEEDED = {
    "workspaces": {"select": "workspace.read", "update": "workspace.update"},
    "workspace_members": {"select": "members.read"},
    "invitations": {"select": "members.invite"},
    "workspace_usage": {"select": "billing.read"},
    "metered_usage": {"select": "billing.read"},
    "billing_invoices": {"select": "billing.manage"},
    "audit_log": {"select": "audit.read"},
    "ticket_status_changes": {"select": "tickets.read"},
    # Whoever sees money sees tickets, too.
    "ticket_balances": {"select": "ledger.read"},
    "customer_balances": {"select": "ledger.read"},
    "account_statement": {"select": "ledger.read"},
    "trial_balance": {"select": "ledger.read"},
    "cash_report": {"select": "ledger.read"},
    "projects": {
        "select": "projects.read", "insert": "projects.create", "update": "projects.update", "delete": "projects.delete",
    },
    "project_members": {"select": "projects.read", "insert": "projects.update", "delete": "projects.update"},
    "tasks": {"select": "tasks.read", "insert": "tasks.create", "update": "tasks.update", "delete": "tasks.delete"},
}  # fmt: skip
CATALOGUES = ("permissions", "roles", "role_permissions", "ticket_transitions", "notification_kinds")


@dataclass(frozen=True)
class Identity:
    """Somebody who asks: the role and claims of the request, and what they hold in which workspace."""

    name: str
    role: str
    claims: Row | None
    user: uuid.UUID | None
    memberships: dict[uuid.UUID, str]
    is_shut_out: bool = False

    def may(self, workspace: uuid.UUID, permission: str | None) -> bool:
        role = self.memberships.get(workspace, "")
        return permission is not None and not self.is_shut_out and holds(role, permission)


@dataclass
class World:
    """Workspaces `a` and `b`, and three that show nothing; one row of every table in each."""

    a: uuid.UUID
    b: uuid.UUID
    closed: list[uuid.UUID]
    identities: list[Identity]
    rows: dict[uuid.UUID, dict[str, uuid.UUID]] = field(default_factory=dict)

    @property
    def workspaces(self) -> list[uuid.UUID]:
        return [self.a, self.b, *self.closed]


def make_world(db: Connection) -> World:
    """Plants the world as the database's owner."""
    owner_a, owner_b = make_user(db), make_user(db)
    a, b = make_workspace(db, owner_a), make_workspace(db, owner_b)
    viewer, member, admin = (add_member(db, a, role) for role in ("viewer", "member", "admin"))
    both = add_member(db, a, "member")
    add_member(db, b, "admin", both)
    removed, suspended = add_member(db, a, "admin"), add_member(db, a, "admin")
    run(db, "select tenancy.drop_member(%s, %s)", [a, removed])
    run(db, "select tenancy.suspend_user(%s, 'test')", [suspended])

    mfa, shut, deleted = (make_workspace(db, owner_a) for _ in range(3))
    for workspace in (mfa, shut, deleted):
        add_member(db, workspace, "viewer")
    run(db, "update workspaces set require_mfa = true where id = %s", [mfa])
    run(db, "select tenancy.suspend_workspace(%s, 'test')", [shut])

    anonymous = make_user(db, is_anonymous=True)
    add_member(db, a, "admin", anonymous)

    def person(name: str, user: uuid.UUID, memberships: dict[uuid.UUID, str], **more: Any) -> Identity:
        shut_out = more.pop("is_shut_out", False)
        return Identity(name, "authenticated", claims_of(user, **more), user, memberships, shut_out)

    identities = [
        Identity("anon", "anon", {"role": "anon"}, None, {}),
        Identity("no claims", "authenticated", None, None, {}),
        Identity("null sub", "authenticated", {"sub": None, "role": "authenticated"}, None, {}),
        Identity("empty sub", "authenticated", {"sub": "", "role": "authenticated"}, None, {}),
        person("an anonymous sign-in", anonymous, {a: "admin"}, is_anonymous=True, is_shut_out=True),
        person("a stranger", make_user(db), {}),
        person("viewer", viewer, {a: "viewer"}),
        person("member", member, {a: "member"}),
        person("admin", admin, {a: "admin"}),
        person("owner, aal1", owner_a, {a: "owner"}),
        person("owner, aal2", owner_a, {a: "owner", mfa: "owner"}, aal="aal2"),
        person("owner of b", owner_b, {b: "owner"}),
        person("a member of both", both, {a: "member", b: "admin"}),
        person("a removed member", removed, {}),
        person("a suspended admin", suspended, {a: "admin"}, is_shut_out=True),
    ]
    world = World(a, b, [mfa, shut, deleted], identities)
    for workspace in world.workspaces:
        world.rows[workspace] = plant(db, workspace, owner_b if workspace == b else owner_a)
    run(db, "select tenancy.mark_deleted(%s)", [deleted])
    return world


def plant(db: Connection, workspace: uuid.UUID, owner: uuid.UUID) -> dict[str, uuid.UUID]:
    """One row of every tenant table, the adopters' too; returns their ids by table."""
    project = make_project(db, workspace, lead=owner)
    rows = {"projects": project, "tasks": make_task(db, workspace, project)}
    rows["project_members"] = one(
        db,
        "insert into project_members (workspace_id, project_id, user_id) values (%s, %s, %s) returning id",
        [workspace, project, owner],
    )
    rows["invitations"] = one(
        db,
        "insert into invitations (workspace_id, email, role_id, expires_at) "
        "select %s, 'x@example.com', id, now() + interval '1 day' from roles where key = 'member' returning id",
        [workspace],
    )
    for table in ("customers", "tickets", "ticket_status_changes", *tenant_tables(db)):
        if table not in rows:
            rows[table] = one(db, *insertion(db, table, workspace, rows, returning=True))
    for kind, debit, credit, method in (
        ("charge", "receivable", "sales", None),
        ("payment", "cash", "receivable", "cash"),
    ):
        run(
            db,
            "select ledger.post_for_ticket(t, %s, 1000, %s, %s, %s, '', %s) from tickets t where workspace_id = %s and id = %s",
            [kind, debit, credit, kind, method, workspace, rows["tickets"]],
        )
    charge(db, workspace)
    return rows


def charge(db: Connection, workspace: uuid.UUID) -> None:
    """An invoice, and something used."""
    name = workspace.hex
    run(db, "update billing.customers set stripe_id = %s where workspace_id = %s", [f"cus_{name}", workspace])
    invoice = {"id": f"in_{name}", "object": "invoice", "livemode": False, "customer": f"cus_{name}", "status": "open", "total": 5,
               "amount_due": 5, "amount_paid": 0, "currency": "usd", "created": 1, "attempt_count": 0}  # fmt: skip
    run(db, "select billing.apply(%s, '2026-10-28.endive', now(), 'fetch')", [Jsonb(invoice)])
    run(db, "insert into billing.meters (meter, name) values ('calls', 'Calls') on conflict do nothing")
    run(db, "select billing.record_usage(%s, 'calls', 1, 'k')", [workspace])


def tenant_tables(db: Connection) -> list[str]:
    return [
        row["t"]
        for row in run(
            db, "select relname as t from tenancy.tenant_tables t join pg_class c on c.oid = t.relation order by 1"
        )
    ]


def resource_of(db: Connection, table: str) -> str:
    resource: str = one(
        db, "select resource from tenancy.tenant_tables where relation = %s::regclass", [f"public.{table}"]
    )
    return resource


def needed(db: Connection, table: str) -> dict[str, str]:
    """Which permission each verb needs."""
    if table in NEEDED:
        return NEEDED[table]
    resource = resource_of(db, table)
    return {
        "select": f"{resource}.read",
        "insert": f"{resource}.create",
        "update": f"{resource}.update",
        "delete": f"{resource}.delete",
    }


SAMPLES = {
    "text": "sample", "uuid": None, "boolean": False, "integer": 1, "bigint": 1, "numeric": 1, "date": "2026-01-01",
    "timestamp with time zone": "2026-01-01", "jsonb": "{}",
}  # fmt: skip


def insertion(
    db: Connection, table: str, workspace: uuid.UUID, rows: dict[str, uuid.UUID], *, returning: bool = False
) -> tuple[str, list[Any]]:
    """An INSERT of a plausible row: only what must be given, references into the same workspace."""
    values: dict[str, Any] = {"workspace_id": workspace}
    for column in run(
        db,
        """
        select a.attname as name, format_type(a.atttypid, null) as type, k.confrelid::regclass::text as target
        from pg_attribute a
        left join pg_constraint k on k.conrelid = a.attrelid and k.contype = 'f' and a.attnum = any (k.conkey)
            and cardinality(k.conkey) > 1
        where a.attrelid = %s::regclass and a.attnum > 0 and a.attnotnull and not a.atthasdef and a.attname <> 'workspace_id'
        """,
        [f"public.{table}"],
    ):
        if column["name"].endswith("_is_private"):
            continue  # follows the parent
        if column["target"] and column["target"].removeprefix("public.") in rows:
            values[column["name"]] = rows[column["target"].removeprefix("public.")]
        elif column["target"] and column["target"].endswith("workspace_members"):
            values[column["name"]] = one(
                db, "select user_id from workspace_members where workspace_id = %s limit 1", [workspace]
            )
        else:
            values[column["name"]] = SAMPLES[column["type"]]
    names = ", ".join(values)
    marks = ", ".join(["%s"] * len(values))
    query = f"insert into public.{table} ({names}) values ({marks})"
    return query + (" returning id" if returning else ""), list(values.values())


__all__ = ["CATALOGUES", "Identity", "World", "as_user", "insertion", "make_world", "needed", "plant", "tenant_tables"]
