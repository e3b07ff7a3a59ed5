"""The alarms ring: each known flaw is planted, and must be seen by the doctor, or by the matrix, or both."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from rowhouse import policies
from rowhouse.local.cluster import SUPERUSER

from ..conftest import Database
from ..identities import run
from . import test_matrix as matrix
from .world import make_world

Connection = psycopg.Connection[Any]

# What is planted, and what the doctor must say of it.
FLAWS = {
    "a view with its owner's rights": (
        "create view public.leak as select * from public.projects; grant select on public.leak to authenticated",
        "the view reads with its owner's rights",
    ),
    "a table without RLS": ("alter table public.tasks disable row level security", "row level security is off"),
    "a foreign key without the tenant": (
        "alter table public.tasks add constraint loose foreign key (assignee_id) references public.projects (id)",
        "references public.projects without the tenant",
    ),
    "a policy that lets nobody in, too": (
        "alter policy projects_select on public.projects using "
        "(workspace_id = any (array(select authz.workspaces_with('projects.read'))) or auth.uid() is null)",
        "the policy says more or less than the one line",
    ),
    "a policy that lets everybody in": (
        "create policy wide on public.tasks for select to authenticated using (true)",
        "the policy says more or less than the one line",
    ),
    "a unique constraint across tenants": (
        "create unique index loud on public.projects (name)", "does not contain workspace_id",
    ),
    "a row that can change tenant": (
        "drop trigger projects_guard_update on public.projects; grant update (workspace_id) on public.projects to authenticated",
        "lacks the trigger that keeps a row in its tenant",
    ),
    "a disabled tenant lock": (
        "alter table public.projects disable trigger projects_guard_update", "lacks the trigger that keeps a row in its tenant",
    ),
    "a granted TRUNCATE": ("grant truncate on public.projects to authenticated", "authenticated holds TRUNCATE"),
    "a function that everybody may call": (
        "grant execute on function tenancy.purge_workspaces(integer) to public", "everybody may call it",
    ),
    "a definer with the caller's path": (
        "alter function tenancy.create_workspace(text, text) reset search_path", "the caller's search_path",
    ),
    "a table that was never adopted": (
        "create table public.stray (id int); alter table public.stray enable row level security", "neither adopted nor on the list",
    ),
    "a policy on a permission that does not exist": (
        "alter policy tasks_select on public.tasks using (workspace_id = any (array(select authz.workspaces_with('tasks.raed'))))",
        "there is no permission tasks.raed",
    ),
    "an uncounted table": ("drop trigger projects_count_deleted on public.projects", "lacks its counting triggers"),
    "a missing index": ("drop index public.tasks_assignee_id", "no index of public.tasks begins with"),
    "a counter that is off": ("update billing.usage_counters set used = 2 where used = 0", "it counts 2"),
    "a clock set by hand": ("insert into ops.clock (set_to) values ('2020-01-01')", "the clock is set by hand"),
    "a kind whose runner is gone": (
        "drop function jobs.run_notify_mail_now_886ba94f(uuid, bigint[], timestamptz)",
        "the function that would run it is gone",
    ),
    "an event that enqueues nothing": (
        "select jobs.on_event('public.tasks', 'insert', 'notify.send'); "
        "drop trigger job_insert_notify_send_5a815189 on public.tasks",
        "the trigger that enqueues jobs notify.send is gone",
    ),
    "a schedule that fails": (
        "update ops.schedules set started_at = now(), failed_at = now(), last_error = 'x' where name = 'rowhouse-purge'",
        "its last run failed: x",
    ),
    "a queue that nobody empties": (
        "select jobs.enqueue('notify.send', jsonb_build_object('batch_id', gen_random_uuid())); "
        "update jobs.jobs set run_at = now() - interval '1 hour'",
        "queue_age",
    ),
    "a schedule that does not run": ("select cron.unschedule('rowhouse-purge-workspaces')", "pg_cron does not run it"),
    "an exclusion constraint": (
        "alter table public.projects add constraint alone exclude (name with =)", "is an exclusion constraint",
    ),
    "a reference that clears the tenant": (
        "alter table public.tasks add constraint cleared foreign key (workspace_id, assignee_id) "
        "references public.workspace_members (workspace_id, user_id) on delete set null",
        "would clear workspace_id",
    ),
    "a membership that nobody guards": (
        "drop trigger workspace_members_guard on public.workspace_members", "lacks the trigger of tenancy.guard_membership()",
    ),
    "an owner that nobody keeps": (
        "alter table public.workspace_members disable trigger workspace_members_keep_an_owner", "lacks the trigger of tenancy.keep_an_owner()",
    ),
    "a counter that counts something else": (
        "drop trigger projects_count_deleted on public.projects; create trigger projects_count_deleted after delete on public.projects "
        "referencing old table as old_rows for each statement execute function billing.count_deleted('members')",
        "lacks its counting triggers",
    ),
    "a limit that is not the one agreed": ("update billing.usage_counters set max = 5 where max is not null", "is not the one agreed"),
    "tables to come for everybody": (
        "alter default privileges in schema public grant select on tables to anon", "anon will hold SELECT on it",
    ),
    "a role that inherits more": ("grant pg_read_all_data to authenticated", "member of pg_read_all_data"),
    "a role that may create": ("grant create on schema public to authenticated", "authenticated may create in it"),
    "a rule on a tenant table": (
        "create rule copy as on insert to public.projects do also notify leak", "rewrites what is done to it",
    ),
    "a schema that nobody answers for": (
        "create schema api; grant usage on schema api to anon", "nobody answers for it",
    ),
    "a catalogue for everybody": (
        "create policy wide on public.profiles for select to authenticated using (true)", "lets everybody in",
    ),
    "a materialized view": (
        "create materialized view tenancy.copy as select * from public.projects; grant select on tenancy.copy to authenticated",
        "knows no policies",
    ),
    "a table that shows its trash": ("drop policy tasks_live on public.tasks", "it shows what is in the trash"),
    "a table that nobody records": (
        "drop trigger audit_update on public.tasks", "lacks the triggers that record its changes",
    ),
    "a column that nobody records": ("alter table public.tasks add column priority int", "a column is not recorded"),
    "a table that really deletes": (
        "drop trigger tasks_soft_delete on public.tasks", "lacks the trigger that takes deleted rows to the trash",
    ),
    "children that nobody keeps from the trash": (
        "drop trigger tasks_live_parents_updated on public.tasks", "can refer to a row in the trash",
    ),
    "a reference that a delete does not know of": (
        "delete from tenancy.child_references where child = 'public.tasks'::regclass", "that a delete would not know of",
    ),
    "a trash that still counts": ("drop trigger projects_count_trash on public.projects", "lacks its counting triggers"),
    "a column without an erasure plan": (
        "alter table public.tasks add column nickname text", "does not say what erasing a person does to nickname",
    ),
    "a tree that cascades": (
        "alter table public.tasks add column parent_id uuid; create index on public.tasks (workspace_id, parent_id); "
        "alter table public.tasks add constraint nested foreign key (workspace_id, parent_id) "
        "references public.tasks (workspace_id, id) on delete cascade",
        "cascades within the table",
    ),
    "a partition that is not ahead": (
        # A plan that keeps records for longer than any partition is there for.
        "update billing.plans set audit_months = 60 where id = 'pro'", "there is no partition for records",
    ),
    "functions to come for everybody": (
        "alter default privileges grant execute on functions to public", "a function that is created tomorrow",
    ),
}  # fmt: skip


def prepare(connection: Connection, flaw: str) -> None:
    """What a flaw needs to be plantable at all."""
    if flaw == "a foreign key without the tenant":
        run(connection, "create unique index projects_id on public.projects (id)")
    if flaw == "a role that inherits more":
        run(connection, "set local role supabase_admin")
    if flaw in ("a counter that is off", "a limit that is not the one agreed"):
        from ..identities import make_user, make_workspace

        make_workspace(connection, make_user(connection), plan="free")


@pytest.fixture(scope="module")
def connection(module_database: Database) -> Any:
    with module_database.connect(SUPERUSER) as connection:
        run(connection, "set role postgres")
        yield connection
        connection.rollback()


def doctor(connection: Connection, *, warnings: bool = False) -> list[str]:
    rows = run(connection, "select subject, finding from ops.doctor() where severity = 'error' or %s", [warnings])
    return [f"{row['subject']}: {row['finding']}" for row in rows]


def test_without_a_flaw_the_doctor_finds_nothing(connection: Connection) -> None:
    assert doctor(connection) == []


@pytest.mark.parametrize("flaw", FLAWS)
def test_the_doctor_sees_it(connection: Connection, flaw: str) -> None:
    statement, words = FLAWS[flaw]
    with connection.transaction(force_rollback=True):
        prepare(connection, flaw)
        for part in statement.split("; "):
            run(connection, part.replace("%", "%%") if "%" in part else part)
        run(connection, "set local role postgres")
        found = doctor(connection, warnings=True)
        assert any(words in line for line in found), found


# Flaws that leak, and the test of the matrix that must then fail.
LEAKS = {
    "a policy that lets nobody in, too": matrix.test_malformed_claims_show_nothing,
    "a policy that lets everybody in": matrix.test_select_returns_exactly_the_rows_of_workspaces_where_the_role_allows_it,
    "a table without RLS": matrix.test_select_returns_exactly_the_rows_of_workspaces_where_the_role_allows_it,
    "a view with its owner's rights": matrix.test_every_relation_is_covered,
    "a granted TRUNCATE": matrix.test_no_role_of_the_api_truncates_references_or_triggers,
}


@pytest.mark.parametrize("flaw", LEAKS)
def test_the_matrix_sees_it(connection: Connection, flaw: str) -> None:
    check: Any = LEAKS[flaw]
    with connection.transaction(force_rollback=True):
        arguments: dict[str, Any] = {"connection": connection}
        if "world" in check.__code__.co_varnames[: check.__code__.co_argcount]:
            arguments["world"] = make_world(connection)
        if "claims" in check.__code__.co_varnames[: check.__code__.co_argcount]:
            arguments["claims"] = "{}"
        check(**arguments)
        for part in FLAWS[flaw][0].split("; "):
            run(connection, part)
        with pytest.raises(AssertionError):
            check(**arguments)


def test_policies_check_sees_what_the_database_has_more_and_less(database: Database) -> None:
    with database.connect(autocommit=True) as connection:
        assert policies.check(connection) == []
        run(connection, "grant select on public.tasks to anon")
        run(connection, "drop policy tasks_delete on public.tasks")
        run(connection, "grant execute on function tenancy.purge_workspaces(integer) to anon")
        run(connection, "revoke update (name) on public.projects from authenticated")
        findings = "\n".join(policies.check(connection))
    for words in (
        "grant SELECT on public.tasks to anon",
        "policy tasks_delete on public.tasks",
        "purge_workspaces",
        "UPDATE on public.projects.name",
    ):
        assert words in findings
