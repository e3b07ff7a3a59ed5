"""docs/reference: written from the database's own comments, grants and policies; compared with what is committed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from .server import TEMPLATE, Server

FOLDER = Path(__file__).parent.parent / "docs" / "reference"

TABLES = """
select c.oid::regclass::text as name, c.relname, obj_description(c.oid) as about,
    (select t.resource from tenancy.tenant_tables t where t.relation = c.oid) as resource,
    (select o.reason from tenancy.other_tables o where o.relation = c.oid) as exception
from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v') order by c.relname
"""
COLUMNS = """
select a.attname as name, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as required,
    col_description(a.attrelid, a.attnum) as about,
    array(
        select lower(p) from unnest('{SELECT,INSERT,UPDATE}'::text[]) p
        where has_column_privilege('authenticated', a.attrelid, a.attnum, p)
    ) as clients
from pg_attribute a where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum
"""
POLICIES = """
select policyname as name, cmd, permissive, coalesce(qual, with_check) as rule
from pg_policies where schemaname = 'public' and tablename = %s order by permissive, cmd, policyname
"""
FUNCTIONS = """
select p.proname || '(' || pg_get_function_arguments(p.oid) || ')' as call, pg_get_function_result(p.oid) as result,
    obj_description(p.oid) as about
from pg_proc p where p.pronamespace = 'public'::regnamespace order by p.proname
"""
PRIVATE = """
select p.oid::regprocedure::text as call, pg_get_function_result(p.oid) as result, p.prosecdef as is_definer,
    obj_description(p.oid) as about, n.nspname as schema,
    array(select a.grantee::regrole::text from aclexplode(p.proacl) a where a.grantee <> p.proowner order by 1) as callers
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname = any (ops.house_schemas()) and n.nspname <> 'public' and p.prorettype <> 'trigger'::regtype
order by n.nspname, p.proname, 1
"""
PERMISSIONS = """
select p.permission, p.description, p.required_feature,
    array(
        select r.key from public.role_permissions rp join public.roles r on r.id = rp.role_id
        where rp.permission = p.permission and r.workspace_id is null order by r.id
    ) as roles
from public.permissions p order by 1
"""
HEAD = "Written by `make docs` from the database. Change the comments in the migrations, not this page.\n"


def _rows(connection: psycopg.Connection[Any], query: str, *parameters: Any) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()


def _cell(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def _table(headings: list[str], rows: list[list[Any]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _tables_page(connection: psycopg.Connection[Any]) -> str:
    parts = [f"# Tables and views\n\n{HEAD}"]
    for table in _rows(connection, TABLES):
        kind = f"Tenant table; permissions `{table['resource']}.*`." if table["resource"] else table["exception"]
        parts.append(f"## {table['relname']}\n\n{table['about']}" + (f"\n\n{kind}" if kind else "") + "\n")
        columns = _rows(connection, COLUMNS, table["name"])
        rows = [
            [f"`{c['name']}`", c["type"], "yes" if c["required"] else "", c["clients"], c["about"]] for c in columns
        ]
        parts.append(_table(["column", "type", "required", "clients may", ""], rows))
        rules = _rows(connection, POLICIES, table["relname"])
        if rules:
            parts.append(
                _table(
                    ["policy", "for", "kind", "rule"],
                    [[r["name"], r["cmd"].lower(), r["permissive"].lower(), f"`{_cell(r['rule'])}`"] for r in rules],
                )
            )
    return "\n".join(parts)


def _functions_page(connection: psycopg.Connection[Any]) -> str:
    parts = [f"# Functions\n\n{HEAD}", "## What clients call\n"]
    rows = _rows(connection, FUNCTIONS)
    parts.append(
        _table(["rpc", "returns", ""], [[f"`{r['call']}`", f"`{_cell(r['result'])}`", r["about"]] for r in rows])
    )
    private = _rows(connection, PRIVATE)
    for schema in sorted({row["schema"] for row in private}):
        mine = [row for row in private if row["schema"] == schema]
        parts.append(f"## {schema}\n")
        parts.append(
            _table(
                ["function", "runs as", "callable by", ""],
                [[f"`{r['call']}`", "owner" if r["is_definer"] else "caller", r["callers"], r["about"]] for r in mine],
            )
        )
    return "\n".join(parts)


def _permissions_page(connection: psycopg.Connection[Any]) -> str:
    rows = _rows(connection, PERMISSIONS)
    system = ["owner", "admin", "member", "viewer"]
    body = [
        [
            f"`{r['permission']}`",
            r["description"],
            *("yes" if role in r["roles"] else "" for role in system),
            r["required_feature"],
        ]
        for r in rows
    ]
    return f"# Permissions\n\n{HEAD}\n" + _table(["permission", "", *system, "needs the feature"], body)


def pages(url: str) -> dict[str, str]:
    """Every page by its file name."""
    with psycopg.connect(url) as connection:
        return {
            "tables.md": _tables_page(connection),
            "functions.md": _functions_page(connection),
            "permissions.md": _permissions_page(connection),
        }


def differences(url: str) -> str:
    """The pages that are not as the database would have them, a line each."""
    stale = [
        name
        for name, text in pages(url).items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text() != text
    ]
    return "\n".join(f"docs/reference/{name} is out of date: make docs" for name in stale)


def main() -> int:
    server = Server()
    try:
        server.start()
        server.make_template()
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name, text in pages(server.cluster.url(TEMPLATE)).items():
            (FOLDER / name).write_text(text)
            print(f"wrote docs/reference/{name}")
    finally:
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
