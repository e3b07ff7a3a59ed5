"""The audit log and the trash, as operators see them: each function is one SQL call, or a stream of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .administration import workspace_id
from .errors import UsageError
from .queries import Row, escape_like, fetch_rows, storable

if TYPE_CHECKING:
    from .database import Connection

COLUMNS = (
    "occurred_at", "action", "workspace_id", "resource", "row_id", "actor_kind", "actor_id", "actor_name",
    "on_behalf_of", "changed", "before", "after", "ip", "user_agent", "request_id", "id",
)  # fmt: skip
SEALS_AT_A_TIME = 50


def search_records(
    connection: Connection,
    *,
    workspace: str | None = None,
    action: str | None = None,
    actor: str | None = None,
    row: str | None = None,
    since: str | None = None,
    until: str | None = None,
    limit: int | None = 50,
    newest_first: bool = True,
) -> Iterator[Row]:
    """Streams audit records.

    `action` may end with `*`; `actor` is an e-mail address or a name (of a job, a schedule, an operator); `row` is
    the id of what was changed; `since` and `until` are times as Postgres reads them. Raises RefusedError
    (workspace_not_found) and, for times that are none, UsageError. The connection must be in a transaction.
    """
    import psycopg
    from psycopg.rows import dict_row

    direction = "desc" if newest_first else "asc"
    columns = ", ".join(COLUMNS)
    condition = """
        (%(workspace)s::uuid is null or workspace_id = %(workspace)s)
        and (%(action)s::text is null or action like %(action)s)
        and (
            %(actor)s::text is null or actor_name = %(actor)s
            or actor_id in (select u.id from auth.users u where lower(u.email) = lower(%(actor)s))
        )
        and (%(row)s::text is null or row_id = %(row)s)
        and (%(since)s::timestamptz is null or occurred_at >= %(since)s::timestamptz)
        and (%(until)s::timestamptz is null or occurred_at < %(until)s::timestamptz)
    """
    query = f"""
        select {columns} from (
            select {columns}, number from audit.inbox where {condition}
            union all
            select {columns}, number from audit.entries where {condition}
        ) as records
        order by occurred_at {direction}, number {direction}
        limit %(limit)s
    """  # noqa: S608  no input in it
    pattern = escape_like(action).replace("*", "%") if action else None
    parameters = {
        "workspace": workspace_id(connection, workspace) if workspace else None, "action": pattern, "actor": actor,
        "row": row, "since": since, "until": until, "limit": limit,
    }  # fmt: skip
    with connection.cursor(name="rowhouse_audit", row_factory=dict_row) as cursor:
        try:
            cursor.execute(query.encode(), {k: storable(v) if isinstance(v, str) else v for k, v in parameters.items()})
        except psycopg.DataError as error:
            raise UsageError(
                f"{error.diag.message_primary}.", "Write times like 2026-11-01 or '2026-11-01 14:30+01'."
            ) from error
        yield from cursor


def verify_chain(
    connection: Connection, anchors: list[dict[str, Any]], progress: Callable[[int, int], None]
) -> list[Row]:
    """What does not hold about the sealed records; an empty list if all does.

    `anchors` are seals that were exported before: their numbers and hashes must still be in the chain.
    `progress` is told how many seals of how many are done.
    """
    findings = fetch_rows(connection, "select * from audit.verify_head()")
    last = fetch_rows(
        connection,
        "select greatest((select seal_number from audit.chain_head), (select max(number) from audit.seals), 0) as last",
    )[0]["last"]
    for first in range(1, last + 1, SEALS_AT_A_TIME):
        findings += fetch_rows(
            connection,
            "select * from audit.verify_seals(%(first)s, %(last)s)",
            {"first": first, "last": min(first + SEALS_AT_A_TIME - 1, last)},
        )
        progress(min(first + SEALS_AT_A_TIME - 1, last), last)
    for anchor in anchors:
        wrong = fetch_rows(
            connection,
            "select audit.verify_anchor(%(seal)s, %(hash)s) as wrong",
            {"seal": anchor["seal"], "hash": anchor["hash"]},
        )[0]["wrong"]
        if wrong:
            findings.append(
                {"seal_number": anchor["seal"], "kept_until": None, "record_position": None, "finding": wrong}
            )
    return findings


def anchors(connection: Connection) -> list[Row]:
    """The seals, to be kept elsewhere: whoever has one can tell whether the chain before it was rewritten."""
    return fetch_rows(
        connection, "select number as seal, encode(hash, 'hex') as hash, sealed_at from audit.seals order by number"
    )


def seal(connection: Connection) -> int:
    """Seals the records that wait. Returns how many."""
    sealed: int = fetch_rows(connection, "select audit.seal() as sealed")[0]["sealed"]
    return sealed


def list_trash(connection: Connection, slug: str) -> list[Row]:
    """What can be restored in a workspace, the latest first."""
    return fetch_rows(
        connection,
        """
        select ops.name_of(d.relation) as table, d.row_id as id, d.row_count as rows,
            coalesce(p.email, d.deleted_by::text) as deleted_by, d.deleted_at, d.purge_after
        from tenancy.deletions d
        left join public.profiles p on p.id = d.deleted_by
        where d.workspace_id = %(id)s order by d.deleted_at desc
        """,
        {"id": workspace_id(connection, slug)},
    )


def restore(connection: Connection, slug: str, kind: str, row_id: str) -> int:
    """Brings back a row and what went with it; returns how many rows. Raises RefusedError (not_in_trash, …)."""
    restored: int = fetch_rows(
        connection,
        "select tenancy.restore_row(%(w)s, tenancy.table_named(%(kind)s), %(id)s) as restored",
        {"w": workspace_id(connection, slug), "kind": storable(kind), "id": row_id},
    )[0]["restored"]
    return restored
