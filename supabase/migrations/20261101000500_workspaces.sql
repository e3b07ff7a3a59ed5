-- Why: the life of a workspace and of the people in it: sign-up, creation, deletion with a grace
--      period, suspension, and the rule that there is always an owner.
-- Locks: adds triggers to auth.users (a brief lock that conflicts with writes to it).
-- Workers: need not stop.

-- People -------------------------------------------------------------------------------------

create function tenancy.ensure_profile(user_id uuid) returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    insert into public.profiles (id, email, display_name)
    select
        u.id,
        u.email,
        left(
            regexp_replace(
                coalesce(
                    u.raw_user_meta_data ->> 'display_name', u.raw_user_meta_data ->> 'full_name',
                    u.raw_user_meta_data ->> 'name', ''
                ),
                '[[:cntrl:]]+', ' ', 'g'
            ),
            200
        )
    from auth.users u
    where u.id = ensure_profile.user_id
    on conflict on constraint profiles_pkey do update
    set email = excluded.email, updated_at = ops.now()
    where profiles.email is distinct from excluded.email
$$;
comment on function tenancy.ensure_profile(uuid) is 'Makes a person''s profile, or brings its e-mail up to date.';

create function tenancy.sync_profile() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform tenancy.ensure_profile(new.id);
    return null;
exception
    -- Nothing here may keep anybody from signing up; whoever then needs the profile makes it.
    when others then
        raise warning 'the profile of user % was not synced: %', new.id, sqlerrm;
        return null;
end
$$;
comment on function tenancy.sync_profile() is 'Trigger: keeps profiles in step with auth.users, and never in its way.';

create trigger rowhouse_sync_profile
after insert or update of email on auth.users
for each row execute function tenancy.sync_profile();

select tenancy.ensure_profile(users.id) from auth.users;

create function tenancy.touch() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    new.updated_at := ops.now();
    return new;
end
$$;
comment on function tenancy.touch() is 'Trigger: stamps updated_at.';

create function tenancy.lock_workspaces_of_person() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    -- In one order, so that two people who share workspaces can go at the same moment.
    perform tenancy.lock_workspace(theirs.workspace_id)
    from (
        select m.workspace_id from public.workspace_members m where m.user_id = old.id order by m.workspace_id
    ) as theirs;
    return old;
end
$$;
comment on function tenancy.lock_workspaces_of_person() is
'Trigger: whoever leaves for good holds their workspaces first.';

create trigger profiles_touch before update on public.profiles
for each row execute function tenancy.touch();

create function tenancy.person(email text, must_be_verified boolean default false) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    found_ids uuid[];
begin
    -- auth.users is asked, not profiles: it cannot be behind.
    select array_agg(u.id) into found_ids from auth.users u
    where
        lower(u.email) = lower(btrim(person.email))
        and (u.email_confirmed_at is not null or not person.must_be_verified);
    if found_ids is null then
        perform ops.raise_http(
            404, 'user_not_found', format('Nobody signs in as %s.', left(person.email, 320)), null,
            case
                when person.must_be_verified then 'They must sign up and verify the address first.'
                else 'They must sign up first.'
            end
        );
    end if;
    if cardinality(found_ids) > 1 then
        perform ops.raise_http(
            409, 'user_ambiguous', format('Several people sign in as %s.', left(person.email, 320)), null,
            'Single sign-on shares the address: merge the accounts first.'
        );
    end if;
    perform tenancy.ensure_profile(found_ids[1]);
    return found_ids[1];
end
$$;
comment on function tenancy.person(text, boolean) is
'Whose e-mail it is; answers 404 for nobody''s, or nobody who has verified it, and 409 where several share it.';

-- Slugs --------------------------------------------------------------------------------------

create table tenancy.reserved_slugs (
    slug text not null,
    constraint reserved_slugs_pkey primary key (slug)
);
alter table tenancy.reserved_slugs enable row level security;
create policy reserved_slugs_nobody on tenancy.reserved_slugs using (false);
comment on table tenancy.reserved_slugs is 'Names that no workspace may take, because URLs need them.';
comment on column tenancy.reserved_slugs.slug is 'In lower case.';

insert into tenancy.reserved_slugs (slug)
select unnest(
    '{about,account,accounts,admin,administrator,api,app,assets,auth,billing,blog,cdn,contact,dashboard,
    docs,download,edge,email,enterprise,features,files,ftp,functions,graphql,health,help,home,host,
    image,images,invitations,invite,legal,localhost,login,logout,mail,me,media,new,oauth,owner,
    postmaster,pricing,privacy,profile,public,realtime,register,rest,root,rowhouse,security,settings,
    signin,signout,signup,smtp,ssl,staging,static,status,storage,subscribe,support,system,team,terms,
    test,undefined,user,users,webhook,webhooks,webmaster,workspace,workspaces,www}'::text[]
);

create function tenancy.check_workspace() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    new.slug := lower(btrim(new.slug));
    new.name := btrim(new.name);
    if new.slug is null or new.slug !~ '^[a-z0-9]([a-z0-9-]{1,46}[a-z0-9])$' then
        perform ops.raise_http(
            400, 'slug_invalid', 'This cannot be a slug.', null,
            'Use 3 to 48 of a-z, 0-9 and hyphens, with a letter or digit at both ends.'
        );
    end if;
    -- A word reserved later stays with whoever has it.
    if (tg_op = 'INSERT' or new.slug is distinct from old.slug)
        and exists (select from tenancy.reserved_slugs r where r.slug = new.slug)
    then
        perform ops.raise_http(400, 'slug_reserved', 'This slug is reserved.', null, 'Choose another.');
    end if;
    if tg_op = 'UPDATE' then
        new.updated_at := ops.now();
        -- Who has no second factor would shut everybody out, themselves first.
        if new.require_mfa and not old.require_mfa
            and authz.user_id() is not null and authz.claims() ->> 'aal' is distinct from 'aal2'
        then
            perform ops.raise_http(
                403, 'mfa_required', 'Only who signed in with a second factor can require one.', null,
                'Sign in with a second factor.'
            );
        end if;
    end if;
    return new;
end
$$;
comment on function tenancy.check_workspace() is
'Trigger: folds and checks a slug, trims a name, lets only a second factor require one, stamps updated_at.';

create trigger workspaces_check
before insert or update of slug, name, require_mfa, deleted_at on public.workspaces
for each row execute function tenancy.check_workspace();

-- There is always an owner -------------------------------------------------------------------

create function tenancy.lock_workspace(workspace_id uuid) returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    update public.workspaces w set membership_version = w.membership_version + 1
    where w.id = lock_workspace.workspace_id and not ops.is_allowed('import')
$$;
comment on function tenancy.lock_workspace(uuid) is
'Makes changes to who may do what in a workspace wait for each other, until commit. Changing the row rather than
locking it makes the loser fail, not err, under repeatable read.';

create function authz.require_alone(workspace_id uuid, permission text) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    -- First, so that strangers cannot hold the lock; again, because what held before waiting
    -- for it may not hold any more.
    perform authz.require(require_alone.workspace_id, require_alone.permission);
    perform tenancy.lock_workspace(require_alone.workspace_id);
    return authz.require(require_alone.workspace_id, require_alone.permission);
end
$$;
comment on function authz.require_alone(uuid, text) is
'authz.require(), with changes of membership and roles in the workspace held off until commit.';

create function tenancy.has_owner(workspace_id uuid) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select from public.workspace_members m
        where m.workspace_id = has_owner.workspace_id and m.role_id = authz.owner_role()
    )
$$;
comment on function tenancy.has_owner(uuid) is 'Whether a workspace has an owner.';

create function tenancy.guard_membership() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'DELETE' then
        perform tenancy.lock_rows(old.workspace_id);
        perform tenancy.lock_workspace(old.workspace_id);
        return old;
    end if;
    if tg_op = 'UPDATE' then
        if (new.workspace_id, new.user_id) is distinct from (old.workspace_id, old.user_id) then
            raise exception 'a membership cannot move' using errcode = 'insufficient_privilege';
        end if;
        new.updated_at := ops.now();
    end if;
    perform tenancy.lock_workspace(new.workspace_id);
    -- Roles never change hands, so what is found here stays true.
    if not exists (
        select from public.roles r
        where r.id = new.role_id and coalesce(r.workspace_id, new.workspace_id) = new.workspace_id
    ) then
        perform ops.raise_http(
            404, 'role_not_found', 'There is no such role in this workspace.', null,
            'Use owner, admin, member, viewer or the key of a custom role.'
        );
    end if;
    return new;
end
$$;
comment on function tenancy.guard_membership() is
'Trigger: one change of membership at a time, and only roles of the system or of the workspace itself.';

create trigger workspace_members_guard
before insert or update or delete on public.workspace_members
for each row execute function tenancy.guard_membership();

create function tenancy.require_owner(workspace_id uuid) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if not tenancy.has_owner(require_owner.workspace_id) and exists (
        select from public.workspaces w where w.id = require_owner.workspace_id and w.deleted_at is null
    ) then
        perform ops.raise_http(
            409, 'last_owner', 'A workspace must have an owner.', null,
            'Make somebody else an owner first, or delete the workspace.'
        );
    end if;
end
$$;
comment on function tenancy.require_owner(uuid) is
'Answers 409 for a workspace, if it is not deleted, without an owner.';

create function tenancy.keep_an_owner() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform tenancy.require_owner(old.workspace_id);
    return null;
end
$$;
comment on function tenancy.keep_an_owner() is 'Trigger: refuses to end the last ownership of a workspace.';

create function tenancy.have_an_owner() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform tenancy.require_owner(new.id);
    return null;
end
$$;
comment on function tenancy.have_an_owner() is 'Trigger: refuses a new or restored workspace without an owner.';

create trigger workspace_members_keep_an_owner
after update or delete on public.workspace_members
for each row execute function tenancy.keep_an_owner();

-- A new workspace may get its owner within its transaction; a restored one must have one.
create constraint trigger workspaces_have_an_owner
after insert or update of deleted_at on public.workspaces
deferrable initially deferred
for each row execute function tenancy.have_an_owner();

create function tenancy.guard_role() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if (new.id, new.workspace_id) is distinct from (old.id, old.workspace_id) then
        raise exception 'a role cannot change its workspace' using errcode = 'insufficient_privilege';
    end if;
    new.updated_at := ops.now();
    return new;
end
$$;
comment on function tenancy.guard_role() is 'Trigger: keeps a role where it was made, and stamps updated_at.';

create trigger roles_guard before update on public.roles
for each row execute function tenancy.guard_role();

create trigger profiles_lock_workspaces before delete on public.profiles
for each row execute function tenancy.lock_workspaces_of_person();

-- Workspaces ---------------------------------------------------------------------------------

create function tenancy.make_workspace(name text, slug text, owner_id uuid) returns public.workspaces
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    made public.workspaces;
begin
    perform tenancy.ensure_profile(make_workspace.owner_id);
    begin
        insert into public.workspaces (name, slug, created_by)
        values (make_workspace.name, make_workspace.slug, make_workspace.owner_id)
        returning * into made;
    exception
        when unique_violation then
            perform ops.raise_http(409, 'slug_taken', 'This slug is taken.', null, 'Choose another.');
    end;
    insert into public.workspace_members (workspace_id, user_id, role_id, created_by)
    values (made.id, make_workspace.owner_id, authz.owner_role(), make_workspace.owner_id);
    -- As its owner leaves it, not as it was inserted.
    select w.* into made from public.workspaces w where w.id = made.id;
    return made;
end
$$;
comment on function tenancy.make_workspace(text, text, uuid) is
'Makes a workspace on the default plan, with its owner. For operators.';

create function tenancy.create_workspace(name text, slug text) returns public.workspaces
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return tenancy.make_workspace(
        create_workspace.name, create_workspace.slug, authz.refuse_unless_signed_in()
    );
end
$$;
comment on function tenancy.create_workspace(text, text) is 'Behind public.create_workspace().';

create function tenancy.grace_period() returns interval
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select interval '30 days' $$;
comment on function tenancy.grace_period() is 'How long a deleted workspace can be restored.';

create function tenancy.mark_deleted(workspace_id uuid) returns timestamptz
language sql
set search_path = pg_catalog, pg_temp
as $$
    update public.workspaces w
    set deleted_at = ops.now(), purge_after = ops.now() + tenancy.grace_period()
    where w.id = mark_deleted.workspace_id and w.deleted_at is null
    returning w.purge_after
$$;
comment on function tenancy.mark_deleted(uuid) is
'Hides a workspace; returns until when it can be restored, null if it was deleted already. For operators.';

create function tenancy.mark_restored(workspace_id uuid) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    update public.workspaces w set deleted_at = null, purge_after = null
    where w.id = mark_restored.workspace_id and w.deleted_at is not null;
    return found;
end
$$;
comment on function tenancy.mark_restored(uuid) is
'Brings a deleted workspace back; false if it was not deleted. For operators.';

create function tenancy.delete_workspace(workspace_id uuid) returns timestamptz
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform authz.require_alone(delete_workspace.workspace_id, 'workspace.delete');
    return tenancy.mark_deleted(delete_workspace.workspace_id);
end
$$;
comment on function tenancy.delete_workspace(uuid) is 'Behind public.delete_workspace().';

create function tenancy.require_restorable(workspace_id uuid) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    caller uuid := authz.refuse_unless_signed_in();
begin
    -- The door is shut on a deleted workspace, so its own rules are asked here: who could
    -- delete it can bring it back, with the second factor if it wants one.
    if not exists (
        select from public.workspaces w
        where
            w.id = require_restorable.workspace_id
            and w.deleted_at is not null
            and authz.covers(w.id, caller, '{workspace.delete}')
            and (not w.require_mfa or authz.claims() ->> 'aal' = 'aal2')
            and not exists (select from authz.suspended_workspaces sw where sw.workspace_id = w.id)
    ) then
        perform ops.raise_http(
            404, 'workspace_not_found', 'There is no such deleted workspace.', null,
            'my_workspaces() lists yours, the deleted ones too.'
        );
    end if;
end
$$;
comment on function tenancy.require_restorable(uuid) is
'Answers 404 unless it is a deleted workspace that the caller may bring back.';

create function tenancy.restore_workspace(workspace_id uuid) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform tenancy.require_restorable(restore_workspace.workspace_id);
    perform tenancy.lock_workspace(restore_workspace.workspace_id);
    perform tenancy.require_restorable(restore_workspace.workspace_id);
    perform tenancy.mark_restored(restore_workspace.workspace_id);
end
$$;
comment on function tenancy.restore_workspace(uuid) is 'Behind public.restore_workspace().';

create function tenancy.purge_workspaces(at_most integer default 100) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    purged integer;
begin
    delete from public.workspaces w
    where w.id in (
        select due.id from public.workspaces due
        where due.purge_after <= ops.now()
        order by due.purge_after
        limit purge_workspaces.at_most
        for update skip locked
    );
    get diagnostics purged = row_count;
    return purged;
end
$$;
comment on function tenancy.purge_workspaces(integer) is
'Removes for good the workspaces whose grace period is over, and all that is in them. Returns how many. Run daily.';

create function tenancy.my_workspaces() returns table (
    workspace_id uuid, slug text, name text, role text, status text, purge_after timestamptz
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select
        w.id,
        w.slug,
        w.name,
        r.key,
        case
            when w.deleted_at is not null then 'deleted'
            when exists (select from authz.suspended_users su where su.user_id = m.user_id) then 'suspended'
            when exists (select from authz.suspended_workspaces sw where sw.workspace_id = w.id) then 'suspended'
            when w.require_mfa and authz.claims() ->> 'aal' is distinct from 'aal2' then 'mfa_required'
            else 'active'
        end,
        w.purge_after
    from public.workspace_members m
    join public.workspaces w on w.id = m.workspace_id
    join public.roles r on r.id = m.role_id
    where m.user_id = authz.user_id()
    order by w.name, w.id
$$;
comment on function tenancy.my_workspaces() is 'Behind public.my_workspaces().';

create function tenancy.my_permissions(workspace_id uuid) returns setof text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select p.permission
    from public.permissions p
    where my_permissions.workspace_id in (select authz.workspaces_with(p.permission))
    order by p.permission
$$;
comment on function tenancy.my_permissions(uuid) is 'Behind public.my_permissions().';

-- Suspension ---------------------------------------------------------------------------------

create function tenancy.suspend_user(user_id uuid, reason text) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    insert into authz.suspended_users (user_id, reason) values (suspend_user.user_id, suspend_user.reason)
    on conflict on constraint suspended_users_pkey do update set reason = excluded.reason
$$;
comment on function tenancy.suspend_user(uuid, text) is 'Shuts a person out of every workspace. For operators.';

create function tenancy.resume_user(user_id uuid) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ delete from authz.suspended_users su where su.user_id = resume_user.user_id $$;
comment on function tenancy.resume_user(uuid) is 'Lets a suspended person in again. For operators.';

create function tenancy.suspend_workspace(workspace_id uuid, reason text) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    insert into authz.suspended_workspaces (workspace_id, reason)
    values (suspend_workspace.workspace_id, suspend_workspace.reason)
    on conflict on constraint suspended_workspaces_pkey do update set reason = excluded.reason
$$;
comment on function tenancy.suspend_workspace(uuid, text) is 'Shuts a workspace for everybody in it. For operators.';

create function tenancy.resume_workspace(workspace_id uuid) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ delete from authz.suspended_workspaces sw where sw.workspace_id = resume_workspace.workspace_id $$;
comment on function tenancy.resume_workspace(uuid) is 'Opens a suspended workspace again. For operators.';

-- What clients call --------------------------------------------------------------------------

create function public.create_workspace(name text, slug text) returns public.workspaces
language sql
set search_path = pg_catalog, pg_temp
as $$ select tenancy.create_workspace($1, $2) $$;
comment on function public.create_workspace(text, text) is 'Makes a workspace, with the caller as its owner.';

create function public.delete_workspace(workspace_id uuid) returns timestamptz
language sql
set search_path = pg_catalog, pg_temp
as $$ select tenancy.delete_workspace($1) $$;
comment on function public.delete_workspace(uuid) is
'Deletes a workspace. Returns until when restore_workspace() can bring it back. For its owners.';

create function public.restore_workspace(workspace_id uuid) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select tenancy.restore_workspace($1) $$;
comment on function public.restore_workspace(uuid) is 'Brings a deleted workspace back. For its owners.';

create function public.my_workspaces() returns table (
    workspace_id uuid, slug text, name text, role text, status text, purge_after timestamptz
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select * from tenancy.my_workspaces() $$;
comment on function public.my_workspaces() is
'The caller''s workspaces and what each is: active, suspended, mfa_required or deleted.';

create function public.my_permissions(workspace_id uuid) returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select tenancy.my_permissions($1) $$;
comment on function public.my_permissions(uuid) is 'What the caller may do in a workspace, now.';
