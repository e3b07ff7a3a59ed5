-- Why: how people come into a workspace, change roles, and leave; and how a workspace composes
--      roles of its own. Nobody grants what they do not hold.
-- Locks: none on existing tables.
-- Workers: need not stop.

create table public.invitations (
    workspace_id uuid not null,
    id uuid not null default gen_random_uuid(),
    email text not null,
    role_id uuid,
    expires_at timestamptz not null,
    sent_count bigint not null default 1,
    sent_at timestamptz not null default ops.now(),
    accepted_at timestamptz,
    accepted_by uuid,
    revoked_at timestamptz,
    deleted_at timestamptz,
    created_at timestamptz not null default ops.now(),
    updated_at timestamptz not null default ops.now(),
    created_by uuid default authz.user_id(),
    constraint invitations_pkey primary key (workspace_id, id),
    constraint invitations_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint invitations_offer_a_role foreign key (role_id) references public.roles (id) on delete set null,
    constraint invitations_were_accepted_by_a_person foreign key (accepted_by)
    references public.profiles (id) on delete set null,
    constraint invitations_creator_exists foreign key (created_by) references public.profiles (id) on delete set null,
    constraint invitations_email_is_one check (length(email) <= 320 and email ~ '^[^@\s]+@[^@\s]+\.[^@\s]+$'),
    constraint invitations_open_ones_offer_a_role check (
        role_id is not null or accepted_at is not null or revoked_at is not null
    ),
    constraint invitations_end_once check (accepted_at is null or revoked_at is null)
);
alter table public.invitations enable row level security;
create unique index invitations_one_open_each on public.invitations (workspace_id, lower(email))
where accepted_at is null and revoked_at is null and deleted_at is null;
create index invitations_role_id on public.invitations (role_id) where role_id is not null;
create index invitations_accepted_by on public.invitations (accepted_by) where accepted_by is not null;
create index invitations_created_by on public.invitations (created_by) where created_by is not null;
comment on table public.invitations is 'Offers of membership: single use, bound to an e-mail, expiring, revocable.';
comment on column public.invitations.workspace_id is 'The tenant.';
comment on column public.invitations.id is 'The invitation.';
comment on column public.invitations.email is 'Who is invited: whoever has verified this address.';
comment on column public.invitations.role_id is 'As what; null once that role is gone from a closed invitation.';
comment on column public.invitations.expires_at is 'From when on it is void.';
comment on column public.invitations.sent_count is 'How many times a token was made for it; only the last one works.';
comment on column public.invitations.sent_at is 'When the last token was made.';
comment on column public.invitations.accepted_at is 'When it was accepted.';
comment on column public.invitations.accepted_by is 'By whom.';
comment on column public.invitations.revoked_at is 'When it was withdrawn.';
comment on column public.invitations.deleted_at is 'When it was deleted.';
comment on column public.invitations.created_at is 'When it was made.';
comment on column public.invitations.updated_at is 'When it last changed.';
comment on column public.invitations.created_by is
'Who invites: their role is the ceiling, when sending and when accepting.';

select tenancy.adopt_table(
    'public.invitations', 'members', title => 'email',
    erasure => '{"email": "anonymise", "accepted_by": "anonymise"}', identified_by => 'email'
);

create table tenancy.invitation_tokens (
    token_hash bytea not null,
    workspace_id uuid not null,
    invitation_id uuid not null,
    constraint invitation_tokens_pkey primary key (token_hash),
    constraint invitation_tokens_one_each unique (workspace_id, invitation_id),
    constraint invitation_tokens_open_an_invitation foreign key (workspace_id, invitation_id)
    references public.invitations (workspace_id, id) on delete cascade
);
alter table tenancy.invitation_tokens enable row level security;
create policy invitation_tokens_nobody on tenancy.invitation_tokens using (false);
comment on table tenancy.invitation_tokens is
'The token that works for each invitation, as a hash; the token itself is nowhere.';
comment on column tenancy.invitation_tokens.token_hash is 'SHA-256 of the token.';
comment on column tenancy.invitation_tokens.workspace_id is 'The tenant.';
comment on column tenancy.invitation_tokens.invitation_id is 'The invitation it opens.';

create function authz.role_named(workspace_id uuid, key text) returns uuid
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    found_id uuid;
begin
    select r.id into found_id from public.roles r
    where r.key = role_named.key and (r.workspace_id is null or r.workspace_id = role_named.workspace_id)
    order by r.workspace_id nulls first
    limit 1;
    if not found then
        perform ops.raise_http(
            404, 'role_not_found', 'There is no such role in this workspace.', null,
            'Use owner, admin, member, viewer or the key of a custom role.'
        );
    end if;
    return found_id;
end
$$;
comment on function authz.role_named(uuid, text) is
'The system role or the workspace''s own of that key; answers 404 if none.';

-- Members ------------------------------------------------------------------------------------

create function tenancy.role_of(workspace_id uuid, user_id uuid) returns uuid
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    held uuid;
begin
    select m.role_id into held from public.workspace_members m
    where m.workspace_id = role_of.workspace_id and m.user_id = role_of.user_id;
    if not found then
        perform ops.raise_http(404, 'member_not_found', 'They are not a member of this workspace.');
    end if;
    return held;
end
$$;
comment on function tenancy.role_of(uuid, uuid) is 'The role a member has; answers 404 for no member.';

create function tenancy.add_member(workspace_id uuid, user_id uuid, role_id uuid, added_by uuid default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform tenancy.ensure_profile(add_member.user_id);
    insert into public.workspace_members (workspace_id, user_id, role_id, created_by)
    values (add_member.workspace_id, add_member.user_id, add_member.role_id, add_member.added_by);
exception
    when unique_violation then
        perform ops.raise_http(409, 'already_a_member', 'They are a member already.');
end
$$;
comment on function tenancy.add_member(uuid, uuid, uuid, uuid) is 'Adds a member. For operators.';

create function tenancy.change_role(workspace_id uuid, user_id uuid, role_id uuid) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform tenancy.role_of(change_role.workspace_id, change_role.user_id);
    update public.workspace_members m set role_id = change_role.role_id
    where m.workspace_id = change_role.workspace_id and m.user_id = change_role.user_id;
end
$$;
comment on function tenancy.change_role(uuid, uuid, uuid) is 'Gives a member another role. For operators.';

create function tenancy.drop_member(workspace_id uuid, user_id uuid) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform tenancy.role_of(drop_member.workspace_id, drop_member.user_id);
    delete from public.workspace_members m
    where m.workspace_id = drop_member.workspace_id and m.user_id = drop_member.user_id;
end
$$;
comment on function tenancy.drop_member(uuid, uuid) is 'Removes a member. For operators.';

create function tenancy.set_member_role(workspace_id uuid, user_id uuid, role text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    caller uuid := authz.require_alone(set_member_role.workspace_id, 'members.update');
    wanted uuid := authz.role_named(set_member_role.workspace_id, set_member_role.role);
begin
    perform authz.require_ceiling(
        set_member_role.workspace_id, caller,
        tenancy.role_of(set_member_role.workspace_id, set_member_role.user_id)
    );
    perform authz.require_ceiling(set_member_role.workspace_id, caller, wanted);
    perform tenancy.change_role(set_member_role.workspace_id, set_member_role.user_id, wanted);
end
$$;
comment on function tenancy.set_member_role(uuid, uuid, text) is 'Behind public.set_member_role().';

create function tenancy.remove_member(workspace_id uuid, user_id uuid) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    caller uuid := authz.require_alone(remove_member.workspace_id, 'members.remove');
begin
    perform authz.require_ceiling(
        remove_member.workspace_id, caller, tenancy.role_of(remove_member.workspace_id, remove_member.user_id)
    );
    perform tenancy.drop_member(remove_member.workspace_id, remove_member.user_id);
end
$$;
comment on function tenancy.remove_member(uuid, uuid) is 'Behind public.remove_member().';

create function tenancy.leave_workspace(workspace_id uuid) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    caller uuid := authz.refuse_unless_signed_in();
begin
    -- Asks for membership alone: nobody is kept in for a role that allows nothing or a missing second factor.
    if not exists (
        select from public.workspace_members m
        where m.workspace_id = leave_workspace.workspace_id and m.user_id = caller
    ) then
        perform ops.raise_http(
            404, 'workspace_not_found', 'There is no such workspace.', null, 'my_workspaces() lists yours.'
        );
    end if;
    perform tenancy.drop_member(leave_workspace.workspace_id, caller);
end
$$;
comment on function tenancy.leave_workspace(uuid) is 'Behind public.leave_workspace().';

create function tenancy.transfer_ownership(workspace_id uuid, user_id uuid) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    caller uuid := authz.require_alone(transfer_ownership.workspace_id, 'workspace.transfer');
begin
    perform authz.require_ceiling(transfer_ownership.workspace_id, caller, authz.owner_role());
    perform tenancy.change_role(transfer_ownership.workspace_id, transfer_ownership.user_id, authz.owner_role());
    if transfer_ownership.user_id <> caller then
        perform tenancy.change_role(
            transfer_ownership.workspace_id, caller, authz.role_named(transfer_ownership.workspace_id, 'admin')
        );
    end if;
end
$$;
comment on function tenancy.transfer_ownership(uuid, uuid) is 'Behind public.transfer_ownership().';

-- Invitations --------------------------------------------------------------------------------

create function tenancy.invitation_life() returns interval
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select interval '7 days' $$;
comment on function tenancy.invitation_life() is 'How long an invitation can be accepted.';

create function tenancy.new_token() returns text
language sql
set search_path = pg_catalog, pg_temp
as $$
    -- 244 bits from the server's strong random source, hashed to hide their form.
    select 'rhi_' || encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'hex')
$$;
comment on function tenancy.new_token() is 'An unguessable token for an invitation.';

create function tenancy.hash_token(token text) returns bytea
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select sha256(convert_to(token, 'UTF8')) $$;
comment on function tenancy.hash_token(text) is 'What is kept of a token.';

create function tenancy.issue_token(workspace_id uuid, invitation_id uuid) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    made text := tenancy.new_token();
begin
    insert into tenancy.invitation_tokens (token_hash, workspace_id, invitation_id)
    values (tenancy.hash_token(made), issue_token.workspace_id, issue_token.invitation_id)
    on conflict on constraint invitation_tokens_one_each do update set token_hash = excluded.token_hash;
    -- Here alone is the token known.
    perform notify.mail_invitation(issue_token.workspace_id, issue_token.invitation_id, made);
    return made;
end
$$;
comment on function tenancy.issue_token(uuid, uuid) is
'Makes a token for an invitation and mails the link; the one before stops working.';

create function tenancy.invite_member(workspace_id uuid, email text, role text)
returns table (id uuid, token text, expires_at timestamptz)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    caller uuid := authz.require_alone(invite_member.workspace_id, 'members.invite');
    offered uuid := authz.role_named(invite_member.workspace_id, invite_member.role);
    address text := btrim(invite_member.email);
    made public.invitations;
begin
    perform authz.require_ceiling(invite_member.workspace_id, caller, offered);
    if address is null or length(address) > 320 or address !~ '^[^@\s<>",;[:cntrl:]]+@[^@\s<>",;[:cntrl:]]+\.[^@\s<>",;[:cntrl:]]+$' then
        perform ops.raise_http(400, 'email_invalid', 'This is not an e-mail address.');
    end if;
    if exists (
        select from public.workspace_members m
        join public.profiles p on p.id = m.user_id
        where m.workspace_id = invite_member.workspace_id and lower(p.email) = lower(address)
    ) then
        perform ops.raise_http(409, 'already_a_member', 'They are a member already.');
    end if;
    -- An expired invitation makes room for a new one.
    update public.invitations i set revoked_at = ops.now()
    where
        i.workspace_id = invite_member.workspace_id
        and lower(i.email) = lower(address)
        and i.accepted_at is null and i.revoked_at is null and i.deleted_at is null
        and i.expires_at <= ops.now();
    if exists (
        select from public.invitations i
        where
            i.workspace_id = invite_member.workspace_id
            and lower(i.email) = lower(address)
            and i.accepted_at is null and i.revoked_at is null and i.deleted_at is null
    ) then
        perform ops.raise_http(
            409, 'already_invited', 'They are invited already.', null,
            'Resend that invitation, or revoke it first to offer another role.'
        );
    end if;
    insert into public.invitations (workspace_id, email, role_id, expires_at, created_by)
    values (invite_member.workspace_id, address, offered, ops.now() + tenancy.invitation_life(), caller)
    returning * into made;
    return query select made.id, tenancy.issue_token(made.workspace_id, made.id), made.expires_at;
end
$$;
comment on function tenancy.invite_member(uuid, text, text) is 'Behind public.invite_member().';

create function tenancy.open_invitation(workspace_id uuid, invitation_id uuid) returns public.invitations
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    invitation public.invitations;
begin
    select i.* into invitation from public.invitations i
    where
        i.workspace_id = open_invitation.workspace_id
        and i.id = open_invitation.invitation_id
        and i.accepted_at is null and i.revoked_at is null and i.deleted_at is null
    for update;
    if not found then
        perform ops.raise_http(404, 'invitation_not_found', 'There is no such open invitation.');
    end if;
    return invitation;
end
$$;
comment on function tenancy.open_invitation(uuid, uuid) is
'An invitation that waits, locked; answers 404 for any other.';

create function tenancy.resend_invitation(workspace_id uuid, invitation_id uuid)
returns table (id uuid, token text, expires_at timestamptz)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    caller uuid := authz.require_alone(resend_invitation.workspace_id, 'members.invite');
    invitation public.invitations := tenancy.open_invitation(
        resend_invitation.workspace_id, resend_invitation.invitation_id
    );
begin
    perform authz.require_ceiling(resend_invitation.workspace_id, caller, invitation.role_id);
    update public.invitations i
    set
        expires_at = ops.now() + tenancy.invitation_life(),
        sent_at = ops.now(),
        sent_count = i.sent_count + 1,
        created_by = caller
    where i.workspace_id = invitation.workspace_id and i.id = invitation.id
    returning i.* into invitation;
    return query
    select invitation.id, tenancy.issue_token(invitation.workspace_id, invitation.id), invitation.expires_at;
end
$$;
comment on function tenancy.resend_invitation(uuid, uuid) is 'Behind public.resend_invitation().';

create function tenancy.revoke_invitation(workspace_id uuid, invitation_id uuid) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    caller uuid := authz.require_alone(revoke_invitation.workspace_id, 'members.invite');
    invitation public.invitations := tenancy.open_invitation(
        revoke_invitation.workspace_id, revoke_invitation.invitation_id
    );
begin
    perform authz.require_ceiling(revoke_invitation.workspace_id, caller, invitation.role_id);
    update public.invitations i set revoked_at = ops.now()
    where i.workspace_id = invitation.workspace_id and i.id = invitation.id;
end
$$;
comment on function tenancy.revoke_invitation(uuid, uuid) is 'Behind public.revoke_invitation().';

create function tenancy.invitation_of(token text, caller uuid) returns public.invitations
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    invitation public.invitations;
begin
    select i.* into invitation from public.invitations i
    join tenancy.invitation_tokens t on t.workspace_id = i.workspace_id and t.invitation_id = i.id
    join public.workspaces w on w.id = i.workspace_id
    where
        t.token_hash = tenancy.hash_token(invitation_of.token)
        and i.deleted_at is null
        and w.deleted_at is null
        and not exists (select from authz.suspended_workspaces sw where sw.workspace_id = w.id);
    if not found or invitation.revoked_at is not null then
        perform ops.raise_http(
            404, 'invitation_not_found', 'This invitation does not exist, or was withdrawn.', null,
            'Only the newest link works; ask for another.'
        );
    end if;
    if invitation.accepted_at is not null then
        perform ops.raise_http(409, 'invitation_used', 'This invitation was accepted already.');
    end if;
    if invitation.expires_at <= ops.now() then
        perform ops.raise_http(
            410, 'invitation_expired', 'This invitation has expired.', null, 'Ask for it to be sent again.'
        );
    end if;
    if not exists (
        select from auth.users u
        where u.id = invitation_of.caller and lower(u.email) = lower(invitation.email)
    ) then
        perform ops.raise_http(
            403, 'invitation_for_another', 'This invitation was sent to another e-mail address.', null,
            'Sign in with the address it was sent to.'
        );
    end if;
    if not exists (
        select from auth.users u
        where u.id = invitation_of.caller and u.email_confirmed_at is not null
    ) then
        perform ops.raise_http(
            403, 'email_not_verified', 'Your e-mail address is not verified.', null,
            'Open the link in the mail that you got when you signed up.'
        );
    end if;
    return invitation;
end
$$;
comment on function tenancy.invitation_of(text, uuid) is
'The invitation a token stands for, if this person can accept it now; otherwise answers 403, 404, 409 or 410.';

create function tenancy.preview_invitation(token text)
returns table (workspace_name text, role_name text, email text, expires_at timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    invitation public.invitations := tenancy.invitation_of(
        preview_invitation.token, authz.refuse_unless_signed_in()
    );
begin
    return query
    select w.name, r.name, invitation.email, invitation.expires_at
    from public.workspaces w, public.roles r
    where w.id = invitation.workspace_id and r.id = invitation.role_id;
end
$$;
comment on function tenancy.preview_invitation(text) is 'Behind public.preview_invitation().';

create function tenancy.accept_invitation(token text) returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    caller uuid := authz.refuse_unless_signed_in();
    invitation public.invitations := tenancy.invitation_of(accept_invitation.token, caller);
begin
    -- Of two at once, the second waits here and then reads what the first has done.
    perform tenancy.lock_workspace(invitation.workspace_id);
    invitation := tenancy.invitation_of(accept_invitation.token, caller);
    -- Whoever has deleted their account holds nothing either.
    if not (
        authz.covers(invitation.workspace_id, invitation.created_by, '{members.invite}')
        and authz.outranks(invitation.workspace_id, invitation.created_by, invitation.role_id)
        and not exists (select from authz.suspended_users su where su.user_id = invitation.created_by)
    ) then
        perform ops.raise_http(
            403, 'inviter_lost_permission', 'Who invited you may not do so any more.', null,
            'Ask for it to be sent again.'
        );
    end if;
    perform tenancy.add_member(invitation.workspace_id, caller, invitation.role_id, invitation.created_by);
    update public.invitations i set accepted_at = ops.now(), accepted_by = caller
    where i.workspace_id = invitation.workspace_id and i.id = invitation.id;
    return invitation.workspace_id;
end
$$;
comment on function tenancy.accept_invitation(text) is 'Behind public.accept_invitation().';

-- Custom roles -------------------------------------------------------------------------------

create function tenancy.require_registered(permissions text[]) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    unknown text;
begin
    select given.permission into unknown from unnest(require_registered.permissions) as given (permission)
    where not exists (select from public.permissions p where p.permission = given.permission);
    if found then
        perform ops.raise_http(
            400, 'permission_unknown', format('There is no permission %L.', left(unknown, 100)), null,
            'The table permissions lists them.'
        );
    end if;
end
$$;
comment on function tenancy.require_registered(text[]) is 'Answers 400 for a permission that is not in the registry.';

create function tenancy.require_held(workspace_id uuid, user_id uuid, permissions text[]) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    perform authz.refuse_unless_within(
        authz.covers(require_held.workspace_id, require_held.user_id, require_held.permissions)
    );
end
$$;
comment on function tenancy.require_held(uuid, uuid, text[]) is
'Answers 403 for a permission that the member does not hold.';

create function tenancy.create_role(
    workspace_id uuid, key text, name text, permissions text[], description text
) returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    caller uuid := authz.require_alone(create_role.workspace_id, 'roles.manage');
    made uuid;
begin
    perform tenancy.require_registered(create_role.permissions);
    perform tenancy.require_held(create_role.workspace_id, caller, create_role.permissions);
    if exists (
        select from public.roles r
        where r.key = create_role.key and (r.workspace_id is null or r.workspace_id = create_role.workspace_id)
    ) then
        perform ops.raise_http(409, 'role_exists', 'There is a role of this key already.');
    end if;
    insert into public.roles (workspace_id, key, name, description, created_by)
    values (create_role.workspace_id, create_role.key, create_role.name, create_role.description, caller)
    returning id into made;
    insert into public.role_permissions (role_id, permission)
    select distinct made, given.permission from unnest(create_role.permissions) as given (permission);
    return made;
end
$$;
comment on function tenancy.create_role(uuid, text, text, text[], text) is 'Behind public.create_role().';

create function tenancy.own_role(workspace_id uuid, role_id uuid) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (
        select from public.roles r where r.id = own_role.role_id and r.workspace_id = own_role.workspace_id
    ) then
        perform ops.raise_http(
            404, 'role_not_found', 'There is no such custom role in this workspace.', null,
            'System roles cannot be changed.'
        );
    end if;
end
$$;
comment on function tenancy.own_role(uuid, uuid) is 'Answers 404 unless it is a custom role of this workspace.';

create function tenancy.update_role(
    workspace_id uuid, role_id uuid, name text, permissions text[], description text
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    caller uuid := authz.require_alone(update_role.workspace_id, 'roles.manage');
begin
    perform tenancy.own_role(update_role.workspace_id, update_role.role_id);
    perform tenancy.require_registered(update_role.permissions);
    perform authz.require_ceiling(update_role.workspace_id, caller, update_role.role_id);
    perform tenancy.require_held(update_role.workspace_id, caller, update_role.permissions);
    update public.roles r
    set
        name = coalesce(update_role.name, r.name),
        description = coalesce(update_role.description, r.description)
    where r.id = update_role.role_id;
    if update_role.permissions is not null then
        delete from public.role_permissions rp
        where rp.role_id = update_role.role_id and rp.permission <> all (update_role.permissions);
        insert into public.role_permissions (role_id, permission)
        select distinct update_role.role_id, given.permission from unnest(update_role.permissions) as given (permission)
        on conflict do nothing;
    end if;
end
$$;
comment on function tenancy.update_role(uuid, uuid, text, text[], text) is 'Behind public.update_role().';

create function tenancy.delete_role(workspace_id uuid, role_id uuid) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    caller uuid := authz.require_alone(delete_role.workspace_id, 'roles.manage');
begin
    perform tenancy.own_role(delete_role.workspace_id, delete_role.role_id);
    perform authz.require_ceiling(delete_role.workspace_id, caller, delete_role.role_id);
    if exists (
        select from public.workspace_members m
        where m.workspace_id = delete_role.workspace_id and m.role_id = delete_role.role_id
    ) or exists (
        select from public.invitations i
        where
            i.workspace_id = delete_role.workspace_id and i.role_id = delete_role.role_id
            and i.accepted_at is null and i.revoked_at is null and i.deleted_at is null
    ) then
        perform ops.raise_http(
            409, 'role_in_use', 'Members or open invitations have this role.', null, 'Give them another first.'
        );
    end if;
    -- First, while it can be told whose they were.
    delete from public.role_permissions rp where rp.role_id = delete_role.role_id;
    delete from public.roles r where r.id = delete_role.role_id;
end
$$;
comment on function tenancy.delete_role(uuid, uuid) is 'Behind public.delete_role().';

-- What clients call --------------------------------------------------------------------------

create function public.set_member_role(workspace_id uuid, user_id uuid, role text) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select tenancy.set_member_role($1, $2, $3) $$;
comment on function public.set_member_role(uuid, uuid, text) is
'Gives a member another role, by its key. Both roles must be within the caller''s own.';

create function public.remove_member(workspace_id uuid, user_id uuid) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select tenancy.remove_member($1, $2) $$;
comment on function public.remove_member(uuid, uuid) is 'Removes a member whose role is within the caller''s own.';

create function public.leave_workspace(workspace_id uuid) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select tenancy.leave_workspace($1) $$;
comment on function public.leave_workspace(uuid) is
'Ends the caller''s own membership, unless they are the last owner.';

create function public.transfer_ownership(workspace_id uuid, user_id uuid) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select tenancy.transfer_ownership($1, $2) $$;
comment on function public.transfer_ownership(uuid, uuid) is
'Makes a member the owner, and the caller an admin. For owners.';

create function public.invite_member(workspace_id uuid, email text, role text default 'member')
returns table (id uuid, token text, expires_at timestamptz)
language sql
set search_path = pg_catalog, pg_temp
as $$ select * from tenancy.invite_member($1, $2, $3) $$;
comment on function public.invite_member(uuid, text, text) is
'Invites an e-mail address for seven days. The token is shown this once; it goes into the link to send.';

create function public.resend_invitation(workspace_id uuid, invitation_id uuid)
returns table (id uuid, token text, expires_at timestamptz)
language sql
set search_path = pg_catalog, pg_temp
as $$ select * from tenancy.resend_invitation($1, $2) $$;
comment on function public.resend_invitation(uuid, uuid) is
'Makes a new token for an open invitation, for another seven days; earlier ones stop working.';

create function public.revoke_invitation(workspace_id uuid, invitation_id uuid) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select tenancy.revoke_invitation($1, $2) $$;
comment on function public.revoke_invitation(uuid, uuid) is 'Withdraws an open invitation.';

create function public.preview_invitation(token text)
returns table (workspace_name text, role_name text, email text, expires_at timestamptz)
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select * from tenancy.preview_invitation($1) $$;
comment on function public.preview_invitation(text) is 'What the caller is invited to.';

create function public.accept_invitation(token text) returns uuid
language sql
set search_path = pg_catalog, pg_temp
as $$ select tenancy.accept_invitation($1) $$;
comment on function public.accept_invitation(text) is
'Makes the caller a member of the workspace it returns. They must have verified the address that was invited.';

create function public.create_role(
    workspace_id uuid, key text, name text, permissions text[], description text default ''
) returns uuid
language sql
set search_path = pg_catalog, pg_temp
as $$ select tenancy.create_role($1, $2, $3, $4, $5) $$;
comment on function public.create_role(uuid, text, text, text[], text) is
'Composes a custom role from permissions the caller holds. Needs the plan feature custom_roles.';

create function public.update_role(
    workspace_id uuid, role_id uuid, name text default null, permissions text[] default null,
    description text default null
) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select tenancy.update_role($1, $2, $3, $4, $5) $$;
comment on function public.update_role(uuid, uuid, text, text[], text) is
'Changes a custom role within the caller''s own; what is left out stays.';

create function public.delete_role(workspace_id uuid, role_id uuid) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select tenancy.delete_role($1, $2) $$;
comment on function public.delete_role(uuid, uuid) is 'Deletes a custom role that nobody has.';
