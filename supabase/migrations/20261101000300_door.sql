-- Why: the one door. Every policy and every function of the API asks here, so that suspension,
--      MFA and plan features bind on every table, also on the ones that come later.
-- Locks: none on existing tables.
-- Workers: need not stop.

-- One plan for everybody: for people in few workspaces the planner would rather plan each time anew,
-- which takes several times as long as the query.
create function authz.workspaces_with(permission text) returns setof uuid
language plpgsql stable parallel safe security definer rows 10
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    caller uuid := authz.user_id();
    feature text;
    works_read_only boolean;
begin
    if caller is null or exists (select from authz.suspended_users su where su.user_id = caller) then
        return;
    end if;
    select p.required_feature, p.works_read_only into feature, works_read_only from public.permissions p
    where p.permission = workspaces_with.permission;
    return query
    select m.workspace_id
    from public.workspace_members m
    join public.workspaces w on w.id = m.workspace_id
    where
        m.user_id = caller
        and exists (
            select from public.role_permissions rp
            where rp.role_id = m.role_id and rp.permission = workspaces_with.permission
        )
        and w.deleted_at is null
        and (not w.require_mfa or coalesce(authz.claims() ->> 'aal' = 'aal2', false))
        and not exists (select from authz.suspended_workspaces sw where sw.workspace_id = m.workspace_id)
        and (feature is null or billing.has_feature(m.workspace_id, feature))
        -- Without a plan decided, which is no state to be in, nothing is written either.
        and (works_read_only or exists (
            select from billing.current_access ca where ca.workspace_id = m.workspace_id and ca.state <> 'restricted'
        ));
end
$$;
comment on function authz.workspaces_with(text) is
'The one door: the workspaces in which the caller may do this now. Every policy asks it, once per statement.';

create function authz.members_with(workspace_id uuid, permission text) returns setof uuid
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    feature text;
    works_read_only boolean;
begin
    -- The door from its other side. A second factor is a matter of sessions, and nobody is in one here.
    select p.required_feature, p.works_read_only into feature, works_read_only from public.permissions p
    where p.permission = members_with.permission;
    return query
    select m.user_id
    from public.workspace_members m
    join public.workspaces w on w.id = m.workspace_id
    where
        m.workspace_id = members_with.workspace_id
        and exists (
            select from public.role_permissions rp
            where rp.role_id = m.role_id and rp.permission = members_with.permission
        )
        and w.deleted_at is null
        and not exists (select from authz.suspended_workspaces sw where sw.workspace_id = m.workspace_id)
        and not exists (select from authz.suspended_users su where su.user_id = m.user_id)
        and (feature is null or billing.has_feature(m.workspace_id, feature))
        and (works_read_only or exists (
            select from billing.current_access ca where ca.workspace_id = m.workspace_id and ca.state <> 'restricted'
        ));
end
$$;
comment on function authz.members_with(uuid, text) is
'The members of a workspace who may do this there now: whom the door would let in.';

create function authz.refuse_estimates() returns bigint
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    -- The planner estimates with statistics of the whole table, so an estimate tells how many rows
    -- another tenant has, and which values. PostgREST hands one out (Prefer: count=planned). A stable
    -- LIMIT is evaluated while planning: an EXPLAIN of a request ends here; a query gets null, no limit.
    if current_setting('request.method', true) <> '' and current_query() ~* '^\s*explain' then
        perform ops.raise_http(
            400, 'count_not_exact', 'Rows are only counted exactly.', null, 'Use count=exact.'
        );
    end if;
    return null;
end
$$;
comment on function authz.refuse_estimates() is
'No limit, for the LIMIT in every policy; answers 400 to a request for an estimate, which would tell of other tenants.';

create function authz.refuse_unless_signed_in() returns uuid
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    caller uuid := authz.user_id();
begin
    if caller is null then
        perform ops.raise_http(
            401, 'not_authenticated', 'Nobody is signed in.', null, 'Sign in; an anonymous session is not enough.'
        );
    end if;
    if exists (select from authz.suspended_users su where su.user_id = caller) then
        perform ops.raise_http(
            403, 'user_suspended', 'This account is suspended.', null, 'Ask support why.'
        );
    end if;
    return caller;
end
$$;
comment on function authz.refuse_unless_signed_in() is
'The caller''s id. Answers 401 without a person, 403 for a suspended one.';

create function authz.require(workspace_id uuid, permission text) returns uuid
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    caller uuid := authz.refuse_unless_signed_in();
    workspace public.workspaces;
    known public.permissions;
begin
    if require.workspace_id in (select authz.workspaces_with(require.permission)) then
        return caller;
    end if;

    -- Refused. What follows only chooses the words, and says nothing of a workspace to those
    -- who are not in it.
    select w.* into workspace from public.workspaces w
    join public.workspace_members m on m.workspace_id = w.id
    where w.id = require.workspace_id and m.user_id = caller and w.deleted_at is null;
    if not found then
        perform ops.raise_http(
            404, 'workspace_not_found', 'There is no such workspace.', null, 'my_workspaces() lists yours.'
        );
    end if;
    if exists (select from authz.suspended_workspaces sw where sw.workspace_id = workspace.id) then
        perform ops.raise_http(
            403, 'workspace_suspended', 'This workspace is suspended.', null, 'Ask support why.'
        );
    end if;
    if workspace.require_mfa and authz.claims() ->> 'aal' is distinct from 'aal2' then
        perform ops.raise_http(
            403, 'mfa_required', 'This workspace requires a second factor.', null, 'Sign in with a second factor.'
        );
    end if;
    if not exists (
        select from public.workspace_members m
        join public.role_permissions rp on rp.role_id = m.role_id
        where m.workspace_id = workspace.id and m.user_id = caller and rp.permission = require.permission
    ) then
        perform ops.raise_http(
            403,
            'permission_denied',
            'Your role does not allow this.',
            jsonb_build_object('permission', require.permission),
            'Ask an admin of the workspace.'
        );
    end if;
    select p.* into known from public.permissions p where p.permission = require.permission;
    if known.required_feature is null or billing.has_feature(workspace.id, known.required_feature) then
        perform ops.raise_http(
            402,
            'workspace_restricted',
            'This workspace is read only until it is paid for.',
            jsonb_build_object(
                'reason', (select ca.reason from billing.current_access ca where ca.workspace_id = workspace.id)
            ),
            'Somebody who may manage billing can pay the open invoice, or choose a plan.'
        );
    end if;
    perform ops.raise_http(
        402,
        'feature_not_in_plan',
        'The plan does not include this.',
        jsonb_build_object(
            'feature', known.required_feature, 'lifted_by', billing.plan_with_feature(known.required_feature)
        ),
        coalesce(format('The %s plan includes it.', billing.plan_with_feature(known.required_feature)), 'Ask support.')
    );
    return null;
end
$$;
comment on function authz.require(uuid, text) is
'The caller''s id if they may do this here; otherwise answers 401, 402, 403 or 404 and says why.';

create function authz.permissions_of(workspace_id uuid, user_id uuid) returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select rp.permission
    from public.workspace_members m
    join public.role_permissions rp on rp.role_id = m.role_id
    where m.workspace_id = permissions_of.workspace_id and m.user_id = permissions_of.user_id
$$;
comment on function authz.permissions_of(uuid, uuid) is 'What a member''s role holds in a workspace.';

create function authz.covers(workspace_id uuid, user_id uuid, permissions text[]) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select not exists (
        select unnest(covers.permissions)
        except
        select authz.permissions_of(covers.workspace_id, covers.user_id)
    )
$$;
comment on function authz.covers(uuid, uuid, text[]) is
'The ceiling: whether a member holds every one of these permissions.';

create function authz.outranks(workspace_id uuid, user_id uuid, role_id uuid) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        authz.covers(
            outranks.workspace_id,
            outranks.user_id,
            array(select rp.permission from public.role_permissions rp where rp.role_id = outranks.role_id)
        )
        -- A custom role may come to hold everything; only an owner deals in ownership.
        and (
            outranks.role_id <> authz.owner_role()
            or exists (
                select from public.workspace_members m
                where
                    m.workspace_id = outranks.workspace_id
                    and m.user_id = outranks.user_id
                    and m.role_id = authz.owner_role()
            )
        )
$$;
comment on function authz.outranks(uuid, uuid, uuid) is
'Whether a member may give this role, or take it away: they hold all it holds, and are an owner if it is owner.';

create function authz.refuse_unless_within(is_within boolean) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if not refuse_unless_within.is_within then
        perform ops.raise_http(
            403, 'above_your_role', 'This role allows more than yours does.', null,
            'Ask somebody who holds all that it allows.'
        );
    end if;
end
$$;
comment on function authz.refuse_unless_within(boolean) is
'Answers 403 where what is asked for is above the caller''s role.';

create function authz.require_ceiling(workspace_id uuid, user_id uuid, role_id uuid) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    perform authz.refuse_unless_within(
        authz.outranks(require_ceiling.workspace_id, require_ceiling.user_id, require_ceiling.role_id)
    );
end
$$;
comment on function authz.require_ceiling(uuid, uuid, uuid) is 'Answers 403 unless a member outranks a role.';

create function authz.people() returns setof uuid
language plpgsql stable parallel safe security definer rows 100
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select m.user_id from public.workspace_members m
    where m.workspace_id = any (array(select authz.workspaces_with('members.read')))
    union
    select authz.user_id();
end
$$;
comment on function authz.people() is 'The people whose profiles the caller may see: fellow members, and themselves.';

create function authz.visible_roles() returns setof uuid
language plpgsql stable parallel safe security definer rows 10
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select r.id from public.roles r
    where
        (r.workspace_id is null and authz.user_id() is not null)
        or r.workspace_id = any (array(select authz.workspaces_with('roles.read')));
end
$$;
comment on function authz.visible_roles() is 'The roles the caller may see: the system''s, and their workspaces'' own.';

select authz.register_permission('workspace.read', 'See the workspace', '{admin,member,viewer}');
select authz.register_permission('workspace.update', 'Change its name, slug and security', '{admin}');
select authz.register_permission(
    'workspace.delete', 'Delete and restore the workspace', '{}', works_read_only => true
);
select authz.register_permission(
    'workspace.transfer', 'Hand the workspace to another owner', '{}', works_read_only => true
);
select authz.register_permission('members.read', 'See who belongs to the workspace', '{admin,member,viewer}');
select authz.register_permission('members.invite', 'Invite people, and withdraw invitations', '{admin}');
select authz.register_permission('members.update', 'Change the roles of members', '{admin}');
select authz.register_permission('members.remove', 'Remove members', '{admin}', works_read_only => true);
select authz.register_permission('roles.read', 'See roles and what they allow', '{admin,member,viewer}');
select authz.register_permission('roles.manage', 'Compose custom roles', '{admin}', 'custom_roles');
select authz.register_permission('billing.read', 'See plan and usage', '{admin,member,viewer}');
select authz.register_permission('billing.manage', 'Buy, pay and change the plan', '{admin}', works_read_only => true);
