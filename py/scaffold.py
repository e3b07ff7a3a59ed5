"""Writes what a new tenant table needs: migration and way back, policy file, test."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from . import policies
from .errors import UsageError
from .migrations import next_version
from .settings import project_root

NAME = re.compile(r"[a-z][a-z0-9_]{1,40}")
TYPES = {
    "text": "text", "int": "integer", "bigint": "bigint", "numeric": "numeric", "bool": "boolean", "date": "date",
    "timestamptz": "timestamptz", "uuid": "uuid", "jsonb": "jsonb",
}  # fmt: skip
SAMPLES = {
    "text": "'sample'", "integer": "1", "bigint": "1", "numeric": "1.5", "boolean": "true", "date": "'2026-01-31'",
    "timestamptz": "'2026-01-31 12:00Z'", "uuid": "gen_random_uuid()", "jsonb": "'{}'",
}  # fmt: skip
# What Postgres reserves: pg_get_keywords(), catcode R and T. Quoted they would do, and everybody would have to quote.
RESERVED_WORDS = """
all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation
column concurrently constraint create cross current_catalog current_date current_role current_schema current_time
current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze
from full grant group having ilike in initially inner intersect into is isnull join lateral leading left like limit
localtime localtimestamp natural not notnull null offset on only or order outer overlaps placing primary references
returning right select session_user similar some symmetric table tablesample then to trailing true union unique
user using variadic verbose when where window with
"""
RESERVED = frozenset(RESERVED_WORDS.split())
STANDARD = ("workspace_id", "id", "deleted_at", "created_at", "updated_at", "created_by")
PERSONAL = ("text", "jsonb")
TEXT_LENGTH = 10_000


@dataclass(frozen=True)
class Column:
    """A column asked for: `references` is a tenant table of public, if it points to one."""

    name: str
    type: str
    is_required: bool
    references: str | None


def parse_columns(text: str) -> list[Column]:
    """Reads `"title:text, due_on:date?, project_id:projects"`; `?` makes a column optional.

    A type that is no type is a tenant table to refer to. Raises UsageError for what makes no sense.
    """
    columns: list[Column] = []
    for part in text.split(","):
        name, separator, kind = (piece.strip() for piece in part.partition(":"))
        if not separator or not NAME.fullmatch(name) or not NAME.fullmatch(kind.removesuffix("?")):
            raise UsageError(
                f"{part.strip()[:60]!r} is not a column.", 'Write "title:text, due_on:date?, project_id:projects".'
            )
        if name in RESERVED:
            raise UsageError(f"{name} is a word of SQL, which no column should be called.", "Choose another name.")
        if name in STANDARD or name in {column.name for column in columns}:
            raise UsageError(f"The column {name} is there already.", f"Every table has {', '.join(STANDARD)}.")
        target = kind.removesuffix("?")
        references = None if target in TYPES else target
        if references and not _is_adopted(references):
            raise UsageError(
                f"{target} is neither a type nor a tenant table.",
                f"Types are {', '.join(TYPES)}; tenant tables are those that a migration adopts.",
            )
        columns.append(Column(name, TYPES.get(target, "uuid"), not kind.endswith("?"), references))
    return columns


def new_table(name: str, columns_text: str, permission: str | None = None, limits: str | None = None) -> list[Path]:
    """Writes the files of a new tenant table; returns their paths.

    `permission` is the prefix of its permissions, by default the table's name; one that exists is
    shared. `limits` is like `free=10,pro=1000,enterprise=unlimited`. Raises UsageError, and then
    has written nothing.
    """
    root = project_root()
    if not NAME.fullmatch(name) or name in RESERVED:
        raise UsageError(
            f"{name[:60]!r} cannot be a table's name.", "Use a plural of a-z, 0-9 and _, such as invoices."
        )
    if (root / "policies" / f"{name}.sql").exists():
        raise UsageError(f"There is a table {name} already.", f"See policies/{name}.sql.")
    prefix = permission or name
    if not NAME.fullmatch(prefix):
        raise UsageError(f"{prefix[:60]!r} cannot begin a permission.", "Use a-z, 0-9 and _, such as invoices.")
    columns, limits_json = parse_columns(columns_text), _limits(limits)
    folder = root / "supabase" / "migrations"
    version = next_version(folder)
    registered = _is_registered(folder, prefix)
    files = {
        folder / f"{version}_{name}.sql": _migration(name, columns, prefix, limits_json, registered=registered),
        folder.parent / "rollbacks" / f"{version}_{name}.sql": _rollback(name, prefix, registered=registered),
        root / "policies" / f"{name}.sql": _policies(name, columns, prefix),
        root / "tests" / name / f"test_{name}.py": _test(name, columns),
        root / "tests" / name / "__init__.py": "",
    }
    taken = [path for path in files if path.exists()]
    if taken:
        raise UsageError(f"{taken[0].relative_to(root)} is there already.", "Choose another name, or move the file.")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    built = policies.build(root)
    return [*files, *([built] if built else [])]


def _is_adopted(table: str) -> bool:
    folder = project_root() / "supabase" / "migrations"
    wanted = re.compile(rf"adopt_table\(\s*'public\.{table}'")
    return any(wanted.search(path.read_text(encoding="utf-8")) for path in folder.glob("*.sql"))


def _is_registered(folder: Path, prefix: str) -> bool:
    wanted = re.compile(rf"register_(resource|permission)\(\s*'{prefix}('|\.read')")
    return any(wanted.search(path.read_text(encoding="utf-8")) for path in folder.glob("*.sql"))


def _limits(text: str | None) -> str | None:
    if text is None:
        return None
    pairs = re.findall(r"([a-z][a-z0-9_]*)=(\d+|unlimited)(?:,|$)", text.replace(" ", ""))
    if ",".join("=".join(pair) for pair in pairs) != text.replace(" ", ""):
        raise UsageError(f"{text[:60]!r} are no limits.", "Write free=10,pro=1000,enterprise=unlimited.")
    values = (f'"{plan}": {"null" if number == "unlimited" else number}' for plan, number in pairs)
    return "{" + ", ".join(values) + "}"


def _title(name: str) -> str:
    return name.replace("_", " ")


def _migration(name: str, columns: list[Column], prefix: str, limits: str | None, *, registered: bool) -> str:
    title = _title(name)
    lines = ["    workspace_id uuid not null,", "    id uuid not null default gen_random_uuid(),"]
    lines += [f"    {column.name} {column.type}{' not null' if column.is_required else ''}," for column in columns]
    lines += [
        "    deleted_at timestamptz,",
        "    created_at timestamptz not null default ops.now(),",
        "    updated_at timestamptz not null default ops.now(),",
        "    created_by uuid default authz.user_id(),",
        f"    constraint {name}_pkey primary key (workspace_id, id),",
        f"    constraint {name}_belong_to_a_workspace foreign key (workspace_id)",
        "    references public.workspaces (id) on delete cascade,",
    ]
    for column in columns:
        if column.references:
            action = "cascade" if column.is_required else f"set null ({column.name})"
            lines += [
                f"    constraint {name}_{column.name}_exists foreign key (workspace_id, {column.name})",
                f"    references public.{column.references} (workspace_id, id) on delete {action},",
            ]
        if column.type == "text":
            lines.append(
                f"    constraint {name}_{column.name}_is_short check (length({column.name}) <= {TEXT_LENGTH}),"
            )
    lines += [
        f"    constraint {name}_creator_exists foreign key (created_by)",
        "    references public.profiles (id) on delete set null",
    ]
    indexes = [f"create index {name}_created_at on public.{name} (workspace_id, created_at desc, id);"]
    indexes += [
        f"create index {name}_{column.name} on public.{name} (workspace_id, {column.name});"
        for column in columns
        if column.references
    ]
    indexes.append(f"create index {name}_created_by on public.{name} (created_by) where created_by is not null;")
    comments = [f"comment on table public.{name} is 'The {title} of a workspace.';"]
    described = {
        "workspace_id": "The tenant.", "id": "The row.",
        **{column.name: f"{_title(column.name).capitalize()}." for column in columns},
        "deleted_at": "When it was deleted; restore() brings it back.",
        "created_at": "When it was made.", "updated_at": "When it last changed.", "created_by": "Who made it.",
    }  # fmt: skip
    comments += [f"comment on column public.{name}.{column} is '{text}';" for column, text in described.items()]
    register = "" if registered else f"select authz.register_resource('{prefix}', '{title}');\n\n"
    options = [f"    limits => '{limits}'"] if limits else []
    texts = [column.name for column in columns if column.type == "text"]
    if texts:
        options.append(f"    searchable => '{{{','.join(texts)}}}'")
    personal = [f'"{column.name}": "keep"' for column in columns if column.type in PERSONAL]
    plan = ", ".join(personal)
    if personal:
        options.append(
            f"    -- What erasing a person does to each: keep, anonymise or delete.\n    erasure => '{{{plan}}}'"
        )
    adoption = f"select tenancy.adopt_table(\n    'public.{name}', '{prefix}'"
    adoption += "".join(f",\n{option}" for option in options) + "\n);\n"
    return (
        f"-- Why: {title}.\n-- Locks: none on existing tables.\n-- Workers: need not stop.\n\n{register}"
        f"create table public.{name} (\n" + "\n".join(lines) + "\n);\n"
        f"alter table public.{name} enable row level security;\n" + "\n".join([*indexes, *comments]) + "\n\n" + adoption
    )


def _rollback(name: str, prefix: str, *, registered: bool) -> str:
    forget = "" if registered else f"delete from public.permissions\nwhere permission like '{prefix}.%';\n"
    return f"select tenancy.release_table('public.{name}');\ndrop table public.{name};\n{forget}"


def _policies(name: str, columns: list[Column], prefix: str) -> str:
    writable = ", ".join(column.name for column in columns)
    text = (
        f"grant select, delete on public.{name} to authenticated;\n"
        f"grant insert (workspace_id, id, {writable}) on public.{name} to authenticated;\n"
        f"grant update ({writable}) on public.{name} to authenticated;\n"
        f"grant select, insert, update, delete on public.{name} to service_role;\n"
    )
    for command, action in (("select", "read"), ("insert", "create"), ("update", "update"), ("delete", "delete")):
        asked = f"authz.workspaces_with('{prefix}.{action}') limit authz.refuse_estimates()"
        door = f"(workspace_id = any (array(select {asked})))"
        clauses = [f"using {door}"] if command != "insert" else []
        clauses += [f"with check {door}"] if command in ("insert", "update") else []
        text += (
            f"\ndrop policy if exists {name}_{command} on public.{name};\n"
            f"create policy {name}_{command} on public.{name} for {command} to authenticated\n"
            + "\n".join(clauses)
            + f";\ncomment on policy {name}_{command} on public.{name} is\n"
            + "'Those whose role allows it, in their workspaces.';\n"
        )
    return text + (
        f"\ndrop policy if exists {name}_live on public.{name};\n"
        f"create policy {name}_live on public.{name} as restrictive for all to authenticated\n"
        f"using (deleted_at is null);\n"
        f"comment on policy {name}_live on public.{name} is 'What is in the trash is not there.';\n"
    )


def _test(name: str, columns: list[Column]) -> str:
    required = [column for column in columns if column.is_required]
    names = ", ".join(["workspace_id", *(column.name for column in required)])
    parents = {column.references for column in required if column.references}
    values = ["%(workspace_id)s"]
    for column in required:
        parent = f"(select id from public.{column.references} where workspace_id = %(workspace_id)s limit 1)"
        values.append(parent if column.references else SAMPLES[column.type])
    plant = "plant(db, workspace, owner)" if parents else ""
    imports = "from ..isolation.world import plant\n" if parents else ""
    insert = f"insert into public.{name} ({names}) values ({', '.join(values)}) returning id"
    first = (required or columns)[0]
    sample = first.name if first.references else SAMPLES[first.type]
    return f'''"""{_title(name).capitalize()}: who may do what. The isolation matrix covers the table besides."""

from __future__ import annotations

from typing import Any

import psycopg

from ..identities import add_member, as_user, make_user, make_workspace, one, refused, run
{imports}
Connection = psycopg.Connection[Any]
INSERT = """{insert}"""


def test_members_write_and_viewers_read(db: Connection) -> None:
    owner = make_user(db)
    workspace = make_workspace(db, owner)
    member, viewer = add_member(db, workspace, "member"), add_member(db, workspace, "viewer")
    {plant + chr(10) + "    " if plant else ""}before = one(db, "select count(*) from public.{name}")
    with as_user(db, member):
        made = one(db, INSERT, {{"workspace_id": workspace}})
        run(db, "update public.{name} set {first.name} = {sample} where id = %s", [made])
    with as_user(db, viewer):
        assert one(db, "select count(*) from public.{name}") == before + 1
        with refused("42501"), db.transaction():
            run(db, INSERT, {{"workspace_id": workspace}})
    with as_user(db, member):
        run(db, "delete from public.{name} where id = %s", [made])
        assert one(db, "select count(*) from public.{name}") == before
        assert one(db, "select restore(%s, '{name}', %s)", [workspace, made]) == 1
        assert one(db, "select count(*) from public.{name}") == before + 1


def test_a_stranger_sees_and_changes_nothing(db: Connection) -> None:
    owner, stranger = make_user(db), make_user(db)
    workspace = make_workspace(db, owner)
    {plant + chr(10) + "    " if plant else ""}run(db, INSERT, {{"workspace_id": workspace}})
    with as_user(db, stranger):
        assert run(db, "select * from public.{name}") == []
        run(db, "delete from public.{name} where true")
        with refused("42501"), db.transaction():
            run(db, "insert into public.{name} (workspace_id) values (%s)", [workspace])
    assert one(db, "select count(*) from public.{name} where workspace_id = %s and deleted_at is null", [workspace]) > 0
'''
