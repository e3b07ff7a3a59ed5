"""plpgsql_check on every function of the house; trigger functions with the tables they are attached to."""

from __future__ import annotations

import psycopg

QUERY = """
with functions as (
    -- A function of several triggers of a table sees the transition tables of all of them.
    select p.oid, p.oid::regprocedure::text as name, t.tgrelid, max(t.tgoldtable) as tgoldtable,
        max(t.tgnewtable) as tgnewtable
    from pg_proc p
    join pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
    left join pg_trigger t on t.tgfoid = p.oid and not t.tgisinternal
    where p.pronamespace::regnamespace::text = any (ops.house_schemas())
        and (p.prorettype <> 'trigger'::regtype or t.oid is not null)
    group by p.oid, t.tgrelid
)
select f.name, c.lineno, c.level, c.message
from functions f
cross join lateral extensions.plpgsql_check_function_tb(
    f.oid, coalesce(f.tgrelid, 0), oldtable => f.tgoldtable, newtable => f.tgnewtable,
    all_warnings => true, compatibility_warnings => false
) c
-- A constant returned as a row is one: there is nothing to make faster.
where c.message <> 'immutable expression without parameters found'
    -- What raises, or posts, must not be called while planning: it stays volatile.
    and not (
        f.oid::regproc::text in ('jobs.refuse', 'notify.nudge') and c.message like 'routine is marked as VOLATILE%'
    )
    -- Their SQL is put together from the catalogue and from the house's own registries, by format() and quote_…().
    and not (
        c.message = 'text type variable is not sanitized'
        and f.oid::regproc::text in (
            'tenancy.attach', 'tenancy.is_orphan', 'tenancy.search', 'ops.import_rows', 'ops.erase_details',
            'ops.erase_user', 'ops.erase_workspace', 'ops.run_schedule', 'jobs.write_runner', 'jobs.on_event',
            'notify.may_see', 'notify.nudge'
        )
    )
order by 1, 2
"""


def install(url: str) -> None:
    """Makes the extension, which only a superuser may; `supabase db lint` needs it too."""
    with psycopg.connect(url) as connection:
        connection.execute("create extension if not exists plpgsql_check with schema extensions")


def findings(url: str) -> str:
    """What it finds, a line each; the extension must be there."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(QUERY.encode()).fetchall()
    return "\n".join(f"{name}, line {line}: {level}: {message}" for name, line, level, message in rows)
