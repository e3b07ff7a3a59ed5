"""What operators ask and do: each function is one SQL call on the connection it is given.

Rows come back as dictionaries, ready for a table or for JSON. Names that do not exist raise
RefusedError with the codes of docs/errors.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import RefusedError
from .queries import Page, Row, containing, fetch_page, fetch_rows, storable

if TYPE_CHECKING:
    from .database import Connection


def workspace_id(connection: Connection, slug: str) -> Any:
    """The id of a workspace by its slug, deleted ones too. Raises RefusedError (workspace_not_found)."""
    rows = fetch_rows(
        connection, "select id from public.workspaces where lower(slug) = lower(%(slug)s)", {"slug": storable(slug)}
    )
    if not rows:
        raise RefusedError(
            f"There is no workspace {slug[:80]!r}.", "`rowhouse workspaces list` shows them.", "workspace_not_found"
        )
    return rows[0]["id"]


def user_id(connection: Connection, email: str) -> Any:
    """The id of a person by e-mail. Raises RefusedError (user_not_found)."""
    return fetch_rows(connection, "select tenancy.person(%(email)s) as id", {"email": storable(email)})[0]["id"]


WORKSPACE_STATUS = """
    case
        when w.deleted_at is not null then 'deleted'
        when exists (select from authz.suspended_workspaces s where s.workspace_id = w.id) then 'suspended'
        else 'active'
    end
"""


def list_workspaces(
    connection: Connection,
    *,
    search: str | None = None,
    plan: str | None = None,
    state: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Page:
    """Workspaces in the order of their slugs, with plan, state and number of members.

    `search` is part of a slug or name; `state` is active, suspended or deleted; `after` is the slug
    that the page before ended with.
    """
    query = f"""
        select w.slug, w.name, coalesce(bp.version_of, bp.id) as plan, {WORKSPACE_STATUS} as state,
            (select count(*) from public.workspace_members m where m.workspace_id = w.id) as members,
            w.created_at
        from public.workspaces w
        left join billing.current_access ca on ca.workspace_id = w.id
        left join billing.plans bp on bp.id = ca.plan_id
        where (%(after)s::text is null or lower(w.slug) > lower(%(after)s))
            and (%(search)s::text is null or w.slug like %(search)s or lower(w.name) like %(search)s)
            and (%(plan)s::text is null or coalesce(bp.version_of, bp.id) = %(plan)s)
            and (%(state)s::text is null or {WORKSPACE_STATUS} = %(state)s)
        order by lower(w.slug)
        limit %(limit)s
    """  # noqa: S608  no input in it
    parameters = {"search": containing(search), "plan": plan, "state": state, "after": after}
    return fetch_page(connection, query, parameters, "slug", limit)


def show_workspace(connection: Connection, slug: str) -> Row:
    """All there is to know of one workspace, usage and owners included."""
    query = f"""
        select w.id, w.slug, w.name, {WORKSPACE_STATUS} as state, coalesce(bp.version_of, bp.id) as plan, w.require_mfa,
            w.created_at, w.deleted_at, w.purge_after,
            (select s.reason from authz.suspended_workspaces s where s.workspace_id = w.id) as suspension_reason,
            array(
                select coalesce(p.email, p.id::text) from public.workspace_members m
                join public.profiles p on p.id = m.user_id
                where m.workspace_id = w.id and m.role_id = authz.owner_role() order by 1
            ) as owners,
            array(
                select format(
                    '%%s %%s of %%s', c.resource, coalesce(c.used, billing.count_rows(w.id, c.resource)),
                    coalesce(c.max::text, 'unlimited')
                )
                from billing.usage_counters c where c.workspace_id = w.id order by 1
            ) as usage
        from public.workspaces w
        left join billing.current_access ca on ca.workspace_id = w.id
        left join billing.plans bp on bp.id = ca.plan_id
        where w.id = %(id)s
    """  # noqa: S608  no input in it
    return fetch_rows(connection, query, {"id": workspace_id(connection, slug)})[0]


def create_workspace(connection: Connection, *, name: str, slug: str, owner: str, plan: str | None) -> Row:
    """Makes a workspace for an owner who has signed up, on a plan or the default one."""
    made = fetch_rows(
        connection,
        "select id, slug, name from tenancy.make_workspace(%(name)s, %(slug)s, tenancy.person(%(owner)s, true))",
        {"name": storable(name), "slug": storable(slug), "owner": storable(owner)},
    )[0]
    if plan is not None:
        connection.execute("select billing.set_plan(%s, %s)", [made["id"], storable(plan)])
    return made


def suspend_workspace(connection: Connection, slug: str, reason: str) -> None:
    """Shuts a workspace for everybody in it."""
    connection.execute("select tenancy.suspend_workspace(%s, %s)", [workspace_id(connection, slug), storable(reason)])


def resume_workspace(connection: Connection, slug: str) -> None:
    """Opens a suspended workspace again."""
    connection.execute("select tenancy.resume_workspace(%s)", [workspace_id(connection, slug)])


def delete_workspace(connection: Connection, slug: str) -> Any:
    """Hides a workspace. Returns until when it can be restored, or None if it was deleted already."""
    return fetch_rows(
        connection, "select tenancy.mark_deleted(%(id)s) as until", {"id": workspace_id(connection, slug)}
    )[0]["until"]


def restore_workspace(connection: Connection, slug: str) -> bool:
    """Brings a deleted workspace back; False if it was not deleted."""
    found: bool = fetch_rows(
        connection, "select tenancy.mark_restored(%(id)s) as done", {"id": workspace_id(connection, slug)}
    )[0]["done"]
    return found


def set_plan(connection: Connection, slug: str, plan: str) -> list[Row]:
    """Moves a workspace to a plan. Returns what it now has more of than the plan allows."""
    workspace = workspace_id(connection, slug)
    connection.execute("select billing.set_plan(%s, %s)", [workspace, storable(plan)])
    return fetch_rows(
        connection,
        "select resource, used, max from billing.usage_counters where workspace_id = %(id)s and used > max order by 1",
        {"id": workspace},
    )


def list_members(
    connection: Connection, slug: str, *, search: str | None = None, role: str | None = None,
    after: str | None = None, limit: int = 50,
) -> Page:  # fmt: skip
    """Members of a workspace in the order of their ids; `search` is part of an e-mail or name."""
    query = """
        select m.user_id, p.email, p.display_name, r.key as role, m.created_at,
            exists (select from authz.suspended_users s where s.user_id = m.user_id) as is_suspended
        from public.workspace_members m
        join public.profiles p on p.id = m.user_id
        join public.roles r on r.id = m.role_id
        where m.workspace_id = %(id)s
            and (%(after)s::uuid is null or m.user_id > %(after)s::uuid)
            and (%(search)s::text is null or lower(p.email) like %(search)s or lower(p.display_name) like %(search)s)
            and (%(role)s::text is null or r.key = %(role)s)
        order by m.user_id
        limit %(limit)s
    """
    parameters = {"id": workspace_id(connection, slug), "search": containing(search), "role": role, "after": after}
    return fetch_page(connection, query, parameters, "user_id", limit)


def add_member(connection: Connection, slug: str, email: str, role: str) -> None:
    """Adds a person who has signed up to a workspace. Raises RefusedError (already_a_member)."""
    connection.execute(
        "select tenancy.add_member(%(w)s, tenancy.person(%(email)s, true), authz.role_named(%(w)s, %(role)s))",
        {"w": workspace_id(connection, slug), "email": storable(email), "role": storable(role)},
    )


def remove_member(connection: Connection, slug: str, email: str) -> None:
    """Removes a member. Raises RefusedError (member_not_found, last_owner)."""
    connection.execute(
        "select tenancy.drop_member(%s, %s)", [workspace_id(connection, slug), user_id(connection, email)]
    )


def set_role(connection: Connection, slug: str, email: str, role: str) -> None:
    """Gives a member another role. Raises RefusedError (member_not_found, role_not_found, last_owner)."""
    connection.execute(
        "select tenancy.change_role(%(w)s, %(u)s, authz.role_named(%(w)s, %(role)s))",
        {"w": workspace_id(connection, slug), "u": user_id(connection, email), "role": storable(role)},
    )


def list_users(
    connection: Connection, *, search: str | None = None, is_suspended: bool | None = None,
    after: str | None = None, limit: int = 50,
) -> Page:  # fmt: skip
    """People in the order of their ids, with the number of their workspaces."""
    query = """
        select p.id, p.email, p.display_name, p.created_at,
            (select count(*) from public.workspace_members m where m.user_id = p.id) as workspaces,
            exists (select from authz.suspended_users s where s.user_id = p.id) as is_suspended
        from public.profiles p
        where (%(after)s::uuid is null or p.id > %(after)s::uuid)
            and (%(search)s::text is null or lower(p.email) like %(search)s or lower(p.display_name) like %(search)s)
            and (
                %(suspended)s::boolean is null
                or exists (select from authz.suspended_users s where s.user_id = p.id) = %(suspended)s
            )
        order by p.id
        limit %(limit)s
    """
    parameters = {"search": containing(search), "suspended": is_suspended, "after": after}
    return fetch_page(connection, query, parameters, "id", limit)


def show_user(connection: Connection, email: str) -> Row:
    """All there is to know of one person, their workspaces and roles included."""
    query = """
        select p.id, p.email, p.display_name, p.locale, p.time_zone, p.created_at,
            u.email_confirmed_at, u.last_sign_in_at,
            (select s.reason from authz.suspended_users s where s.user_id = p.id) as suspension_reason,
            array(
                select w.slug || ' (' || r.key || ')' from public.workspace_members m
                join public.workspaces w on w.id = m.workspace_id
                join public.roles r on r.id = m.role_id
                where m.user_id = p.id order by 1
            ) as workspaces
        from public.profiles p join auth.users u on u.id = p.id
        where p.id = %(id)s
    """
    return fetch_rows(connection, query, {"id": user_id(connection, email)})[0]


def suspend_user(connection: Connection, email: str, reason: str) -> None:
    """Shuts a person out of every workspace."""
    connection.execute("select tenancy.suspend_user(%s, %s)", [user_id(connection, email), storable(reason)])


def resume_user(connection: Connection, email: str) -> None:
    """Lets a suspended person in again."""
    connection.execute("select tenancy.resume_user(%s)", [user_id(connection, email)])


def list_plans(connection: Connection) -> list[Row]:
    """The plans, the smallest first, with their limits, features and number of workspaces."""
    return fetch_rows(
        connection,
        """
        select p.id as plan, p.name, p.is_default,
            array(
                select pl.resource || ' ' || coalesce(pl.max::text, 'unlimited')
                from billing.plan_limits pl where pl.plan_id = p.id order by 1
            ) as limits,
            array(select pf.feature from billing.plan_features pf where pf.plan_id = p.id order by 1) as features,
            p.version, (
                select count(*) from billing.current_access ca
                join billing.plans v on v.id = ca.plan_id where coalesce(v.version_of, v.id) = p.id
            ) as workspaces
        from billing.plans p where p.version_of is null and not p.is_archived order by p.rank
        """,
    )


def show_plan(connection: Connection, plan: str) -> Row:
    """One plan. Raises RefusedError (plan_not_found)."""
    rows = [row for row in list_plans(connection) if row["plan"] == plan]
    if not rows:
        raise RefusedError(f"There is no plan {plan[:64]!r}.", "`rowhouse plans list` shows them.", "plan_not_found")
    return rows[0]


ERASED = 'select relation as "table", column_name as "column", action, row_count as rows from '


def erase_user(connection: Connection, email: str) -> list[Row]:
    """Erases a person by the erasure plan; returns what was done to how many rows. Raises RefusedError (last_owner)."""
    return fetch_rows(connection, ERASED + "ops.erase_user(%(id)s)", {"id": user_id(connection, email)})


def erase_workspace(connection: Connection, slug: str) -> list[Row]:
    """Erases a workspace; returns what was done to how many rows."""
    return fetch_rows(connection, ERASED + "ops.erase_workspace(%(id)s)", {"id": workspace_id(connection, slug)})
