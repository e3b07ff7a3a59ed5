"""Grants and policies: written in `policies/`, shipped as migrations, compared with a database.

A built migration holds the full text of each file that changed, after a line that names the file
and its digest; the latest such line of a file says what was last shipped.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .migrations import next_version, on_disk
from .settings import project_root

if TYPE_CHECKING:
    from .database import Connection

SHIPPED = re.compile(r"^-- policies/([a-z0-9_]+\.sql) sha256:([0-9a-f]{64})$", re.MULTILINE)
WITHDRAWN = "0" * 64
TWIN = "rowhouse_twin_"
ADVICE_LOCKS = "-- Locks: each table named, for as long as it takes to replace its policies.\n"


@dataclass(frozen=True)
class Shipped:
    """What a migration shipped of a policy file: its digest and its text."""

    digest: str
    text: str


def sources(root: Path | None = None) -> dict[str, str]:
    """The policy files by name, functions.sql last: it speaks of what the others name."""
    folder = (root or project_root()) / "policies"
    files = sorted(folder.glob("*.sql"), key=lambda path: (path.name == "functions.sql", path.name))
    return {path.name: path.read_text(encoding="utf-8") for path in files}


def shipped(root: Path | None = None) -> dict[str, Shipped]:
    """What the migrations last shipped of each policy file."""
    last: dict[str, Shipped] = {}
    for migration in on_disk((root or project_root()) / "supabase" / "migrations"):
        text = migration.path.read_text(encoding="utf-8")
        _, *parts = SHIPPED.split(text)
        for name, digest, body in zip(parts[0::3], parts[1::3], parts[2::3], strict=True):
            last[name] = Shipped(digest, body.strip() + "\n")
    return {name: entry for name, entry in last.items() if entry.digest != WITHDRAWN}


def unshipped(root: Path | None = None) -> list[str]:
    """The policy files that differ from what the migrations ship, deleted ones too."""
    now = {name: _digest(text) for name, text in sources(root).items()}
    before = {name: entry.digest for name, entry in shipped(root).items()}
    # What is gone first: a renamed file gives again what its old name takes back.
    ordered = [*(name for name in before if name not in now), *now]
    return [name for name in ordered if now.get(name) != before.get(name)]


def build(root: Path | None = None) -> Path | None:
    """Writes the policy files that changed as a new migration with its rollback; None if none did."""
    root = root or project_root()
    changed = unshipped(root)
    if not changed:
        return None
    files, before = sources(root), shipped(root)
    folder = root / "supabase" / "migrations"
    up = ["-- Why: what policies/ says now of who may do what.\n" + ADVICE_LOCKS + "-- Workers: need not stop.\n"]
    down = ["-- The way back: what policies/ said before.\n"]
    for name in changed:
        text, previous = files.get(name), before.get(name)
        digest = _digest(text) if text is not None else WITHDRAWN
        withdrawal = _withdraw(previous.text) if previous else ""
        up.append(f"-- policies/{name} sha256:{digest}\n\n{withdrawal}{text or ''}")
        down.insert(1, _withdraw(text or "") + (previous.text if previous else ""))
    path = folder / f"{next_version(folder)}_policies.sql"
    path.write_text("\n".join(up).rstrip() + "\n", encoding="utf-8")
    rollback = folder.parent / "rollbacks" / path.name
    rollback.parent.mkdir(exist_ok=True)
    rollback.write_text("\n".join(down).rstrip() + "\n", encoding="utf-8")
    return path


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _withdraw(text: str) -> str:
    """The statements that take back what a policy file gives."""
    lines = []
    for name, table in re.findall(r'^create policy ("[^"]+"|\S+) on (\S+)', text, re.MULTILINE | re.IGNORECASE):
        lines.append(f"drop policy if exists {name} on {table};")
    for _, target, roles in _grants(text):
        line = f"revoke all on {target} from {roles};"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines) + "\n\n" if lines else ""


def _grants(text: str) -> list[tuple[str, str, str]]:
    """The grants of a policy file: privileges, what they are on, and to whom."""
    code = re.sub(r"--[^\n]*", "", text)
    found = re.findall(r"grant\s+(.+?)\s+on\s+(.+?)\s+to\s+([a-z0-9_, ]+?)\s*;", code, re.DOTALL | re.IGNORECASE)
    return [(privileges, " ".join(target.split()), roles) for privileges, target, roles in found]


def check(connection: Connection, root: Path | None = None) -> list[str]:
    """Compares a database with `policies/`, both ways; returns what differs, as sentences.

    The files are run on empty twins of the tables, in a transaction that is rolled back, and what
    Postgres then says of the twins is compared with what it says of the tables: nothing real is
    locked or changed. `connection` must be in autocommit and may create schemas.
    """
    files = sources(root)
    tables = {name: text for name, text in files.items() if name != "functions.sql"}
    with connection.transaction(force_rollback=True):
        connection.execute("set local client_min_messages = error")
        schemas = [
            name
            for (name,) in connection.execute(
                "select nspname from pg_namespace where nspname = any (ops.house_schemas())"
            ).fetchall()
        ]
        for schema in schemas:
            connection.execute(f"drop schema if exists {TWIN}{schema} cascade".encode())
            connection.execute(f"create schema {TWIN}{schema}".encode())
        # Supabase's default privileges are for public; a twin starts with nothing.
        for schema, name in connection.execute(
            "select relnamespace::regnamespace::text, relname from pg_class "
            "where relnamespace::regnamespace::text = any (%s) and relkind in ('r', 'p', 'v') and not relispartition",
            [schemas],
        ).fetchall():
            connection.execute(f'create table {TWIN}{schema}."{name}" (like {schema}."{name}")'.encode())
        relation = re.compile(rf"\b({'|'.join(schemas)})\.(?=[a-z0-9_]+\b(?!\())")
        for text in tables.values():
            connection.execute(relation.sub(rf"{TWIN}\1.", text).encode())
        wanted = {line for schema in schemas for line in _access(connection, f"{TWIN}{schema}")}
        there = {line for schema in schemas for line in _access(connection, schema)}
    findings = [f"policies/ says, the database does not: {line}" for line in sorted(wanted - there)]
    findings += [f"the database says, policies/ does not: {line}" for line in sorted(there - wanted)]
    findings += _check_functions(connection, files.get("functions.sql", ""))
    return findings


def _access(connection: Connection, schema: str) -> set[str]:
    """Each policy and each grant on the relations of a schema or its twin, as a line that is the same for both.

    Policies called `…_nobody` come with their tables, in the migrations.
    """
    lines = set()
    for table, policy, permissive, roles, command, using, check_text, comment in connection.execute(
        """
        select p.tablename, p.policyname, p.permissive, p.roles::text, p.cmd, p.qual, p.with_check,
            obj_description(pol.oid, 'pg_policy')
        from pg_policies p
        join pg_policy pol on pol.polname = p.policyname
            and pol.polrelid = format('%%I.%%I', p.schemaname, p.tablename)::regclass
        where p.schemaname = %s and p.policyname not like '%%\\_nobody'
        """,
        [schema],
    ):
        text = (
            f"policy {policy} on {schema}.{table}: {permissive} for {command} to {roles}"
            f" using {using} with check {check_text} ({comment})"
        )
        lines.add(text.replace(TWIN, ""))
    for table, column, grantee, privilege in connection.execute(
        """
        select c.relname, null, a.grantee::regrole::text, a.privilege_type
        from pg_class c, aclexplode(c.relacl) a
        where c.relnamespace = %(schema)s::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f')
            and a.grantee <> c.relowner
        union all
        select c.relname, att.attname, a.grantee::regrole::text, a.privilege_type
        from pg_class c join pg_attribute att on att.attrelid = c.oid, aclexplode(att.attacl) a
        where c.relnamespace = %(schema)s::regnamespace and a.grantee <> c.relowner
        """,
        {"schema": schema},
    ):
        where = f"{schema.removeprefix(TWIN)}.{table}" + (f".{column}" if column else "")
        lines.add(f"grant {privilege} on {where} to {'PUBLIC' if grantee == '-' else grantee}")
    return lines


def _check_functions(connection: Connection, text: str) -> list[str]:
    wanted, findings = set(), []
    for privileges, target, roles in _grants(text):
        for role in roles.split(", "):
            kind, _, names = target.partition(" ")
            if kind == "schema":
                wanted |= {
                    f"grant {privileges.upper()} on schema {name.strip()} to {role}" for name in names.split(",")
                }
                continue
            known = connection.execute("select to_regprocedure(%s)::text", [names]).fetchone()
            if known is None or known[0] is None:
                findings.append(f"policies/functions.sql names a function that is not there: {names}")
            else:
                wanted.add(f"grant EXECUTE on function {known[0]} to {role}")
    there = {
        f"grant {privilege} on {kind} {name} to {grantee}"
        for privilege, kind, name, grantee in connection.execute(
            """
            select a.privilege_type, 'function', p.oid::regprocedure::text,
                case when a.grantee = 0 then 'PUBLIC' else a.grantee::regrole::text end
            from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
            where p.pronamespace::regnamespace::text = any (ops.house_schemas()) and a.grantee <> p.proowner
                and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
            union all
            select a.privilege_type, 'schema', n.nspname, coalesce(a.grantee::regrole::text, 'PUBLIC')
            from pg_namespace n, aclexplode(n.nspacl) a
            where n.nspname = any (ops.house_schemas()) and n.nspname <> 'public' and a.grantee <> n.nspowner
            """,
        )
    }
    findings += [f"policies/ says, the database does not: {line}" for line in sorted(wanted - there)]
    findings += [f"the database says, policies/ does not: {line}" for line in sorted(there - wanted)]
    return findings
