-- Why: something happens, and those who may see it are told: one call writes a notification for each of them.
-- Locks: adds triggers to profiles (briefly).
-- Workers: need not stop.

-- Telling ------------------------------------------------------------------------------------

create function notify.may_see(person uuid, relation regclass, workspace_id uuid, row_id uuid) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    before text := current_setting('request.jwt.claims', true);
    is_seen boolean;
begin
    -- As the person would ask, under the policies of the table: this function's owner is a role that they bind.
    perform set_config(
        'request.jwt.claims',
        jsonb_build_object(
            'sub', may_see.person, 'role', 'authenticated', 'aal', 'aal2', 'is_anonymous', false
        )::text,
        true
    );
    execute format('select exists (select from %s t where t.workspace_id = $1 and t.id = $2)', may_see.relation)
    into is_seen using may_see.workspace_id, may_see.row_id;
    perform set_config('request.jwt.claims', coalesce(before, ''), true);
    return is_seen;
end
$$;
comment on function notify.may_see(uuid, regclass, uuid, uuid) is
'Whether a person sees a row: asked as that person, under row level security.';

grant create on schema notify to authenticated;
alter function notify.may_see(uuid, regclass, uuid, uuid) owner to authenticated;
revoke create on schema notify from authenticated;
revoke all on function notify.may_see(uuid, regclass, uuid, uuid) from public, authenticated;
create function notify.has_row_rules(relation regclass) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    -- What is in the trash is no news to anybody, and its rule holds for all alike.
    select exists (
        select from pg_policy p
        where p.polrelid = has_row_rules.relation and not p.polpermissive and p.polname not like '%\_live'
    )
$$;
comment on function notify.has_row_rules(regclass) is 'Whether a table shows some rows to some members only.';

create function notify.audience(
    workspace_id uuid, known public.notification_kinds, subject_id uuid, recipients uuid[]
) returns setof uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    actor uuid := authz.user_id();
    is_asked boolean := coalesce(notify.has_row_rules(known.relation), false) and audience.subject_id is not null;
begin
    return query
    select m.user_id from authz.members_with(audience.workspace_id, known.permission) as m (user_id)
    where
        m.user_id is distinct from actor
        and (audience.recipients is null or m.user_id = any (audience.recipients))
        and (
            not is_asked or notify.may_see(m.user_id, known.relation, audience.workspace_id, audience.subject_id)
        );
end
$$;
comment on function notify.audience(uuid, public.notification_kinds, uuid, uuid[]) is
'The members who may see what a notification is about, but for whoever did it.';

create type notify.wishes as (
    frequency text, is_muted boolean, time_zone text, digest_hour bigint, digest_weekday bigint, quiet_from time,
    quiet_until time
);
comment on type notify.wishes is 'How a person wants to be told.';

create function notify.wishes_of(user_id uuid, workspace_id uuid, known public.notification_kinds)
returns notify.wishes
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    wishes notify.wishes;
begin
    select notify.zone(p.time_zone), coalesce(h.digest_hour, 8), coalesce(h.digest_weekday, 1), h.quiet_from, h.quiet_until
    into wishes.time_zone, wishes.digest_hour, wishes.digest_weekday, wishes.quiet_from, wishes.quiet_until
    from public.profiles p
    left join public.notification_hours h on h.user_id = p.id
    where p.id = wishes_of.user_id;
    select w.frequency, w.is_muted into wishes.frequency, wishes.is_muted
    from public.notification_preferences w
    where
        w.user_id = wishes_of.user_id
        and (w.workspace_id = wishes_of.workspace_id or w.workspace_id is null)
        and (w.kind = known.kind or w.kind is null)
    order by w.workspace_id is null, w.kind is null
    limit 1;
    wishes.frequency := coalesce(wishes.frequency, known.default_frequency);
    wishes.is_muted := coalesce(wishes.is_muted, false);
    return wishes;
end
$$;
comment on function notify.wishes_of(uuid, uuid, public.notification_kinds) is
'How a person wants to be told of a kind in a workspace.';

create function notify.due_at(wishes notify.wishes, moment timestamptz) returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select case wishes.frequency
        when 'never' then null
        when 'immediately'
            then notify.after_quiet(due_at.moment, wishes.time_zone, wishes.quiet_from, wishes.quiet_until)
        else notify.next_digest(
            due_at.moment, wishes.time_zone, wishes.digest_hour, wishes.digest_weekday, wishes.frequency
        )
    end
$$;
comment on function notify.due_at(notify.wishes, timestamptz) is
'When what happens now is to be mailed; null for never.';

create function notify.emit(
    workspace_id uuid, kind text, subject_id uuid default null, payload jsonb default '{}',
    recipients uuid[] default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    known public.notification_kinds;
    moment timestamptz := ops.now();
    missing text;
    -- The same for all who are told.
    filled_title text;
    filled_body text;
    filled_summary text;
    filled_link text;
    told bigint;
begin
    select k.* into known from public.notification_kinds k where k.kind = emit.kind;
    if not found then
        raise exception 'there is no kind of notification %', coalesce(quote_literal(left(emit.kind, 100)), 'null')
            using errcode = 'invalid_parameter_value', hint = 'select notify.declare_kind(…) declares one.';
    end if;
    select f.name into missing
    from unnest(notify.fields(concat_ws(' ', known.title, known.body, known.summary, known.link))) as f (name)
    where emit.payload ->> f.name is null limit 1;
    if found then
        raise exception 'a notification % lacks %', known.kind, quote_literal(missing)
            using errcode = 'invalid_parameter_value', hint = 'Its templates name it: give it in the payload.';
    end if;
    filled_title := notify.fill(known.title, emit.payload);
    filled_body := notify.fill(known.body, emit.payload);
    filled_summary := notify.fill(known.summary, emit.payload);
    filled_link := notify.fill(known.link, emit.payload);
    with written as (
        insert into public.notifications (
            workspace_id, recipient_id, kind, title, body, summary, link, subject_id, payload, actor_id, frequency, due_at,
            created_at
        )
        select
            emit.workspace_id, a.user_id, known.kind, filled_title, filled_body, filled_summary, filled_link, emit.subject_id, emit.payload, authz.user_id(), (a.wishes).frequency, notify.due_at(a.wishes, moment), moment
        from (
            select m.user_id, notify.wishes_of(m.user_id, emit.workspace_id, known) as wishes
            from notify.audience(emit.workspace_id, known, emit.subject_id, emit.recipients) as m (user_id)
            offset 0
        ) as a (user_id, wishes)
        where not (a.wishes).is_muted
        returning id, frequency, due_at
    ),
    mailed as (
        select jobs.enqueue(
            'notify.mail_now', jsonb_build_object('workspace_id', emit.workspace_id, 'ids', b.ids), emit.workspace_id,
            run_at => b.due_at
        ) as job
        from (
            select n.due_at, array_agg(n.id) as ids
            from (
                select w.due_at, w.id, (row_number() over (partition by w.due_at order by w.id) - 1) / 500 as part
                from written w where w.frequency = 'immediately'
            ) as n
            group by n.due_at, n.part
        ) as b
    )
    select count(*) + 0 * (select count(m.job) from mailed m) into told from written;
    return told;
end
$$;
comment on function notify.emit(uuid, text, uuid, jsonb, uuid[]) is
'Something happened: writes a notification for each member who may see what it is about, has not muted it, and is not
the one who did it; of these people only, if recipients are named. Returns how many were told.';

-- What clients call --------------------------------------------------------------------------

create function notify.mark_read(ids uuid[]) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    caller uuid := authz.refuse_unless_signed_in();
    marked bigint;
begin
    update public.notifications n set read_at = ops.now()
    where n.recipient_id = caller and n.id = any (mark_read.ids) and n.read_at is null;
    get diagnostics marked = row_count;
    return marked;
end
$$;
comment on function notify.mark_read(uuid[]) is 'Behind public.mark_notifications_read().';

create function notify.mark_all_read(workspace_id uuid) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    caller uuid := authz.refuse_unless_signed_in();
    marked bigint;
begin
    update public.notifications n set read_at = ops.now()
    where
        n.recipient_id = caller and n.read_at is null
        and (mark_all_read.workspace_id is null or n.workspace_id = mark_all_read.workspace_id);
    get diagnostics marked = row_count;
    return marked;
end
$$;
comment on function notify.mark_all_read(uuid) is 'Behind public.mark_all_notifications_read().';

create function public.mark_notifications_read(ids uuid[]) returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$ select notify.mark_read($1) $$;
comment on function public.mark_notifications_read(uuid[]) is
'Marks notifications of the caller''s own as read; returns how many were unread.';

create function public.mark_all_notifications_read(workspace_id uuid default null) returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$ select notify.mark_all_read($1) $$;
comment on function public.mark_all_notifications_read(uuid) is
'Marks all of the caller''s notifications as read, in one workspace or in all; returns how many were unread.';

create function public.unread_notification_count(workspace_id uuid default null) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select count(*) from public.notifications n
    where n.recipient_id = authz.user_id() and n.read_at is null and ($1 is null or n.workspace_id = $1)
$$;
comment on function public.unread_notification_count(uuid) is
'How many notifications the caller has not read, in one workspace or in all.';

-- Who changes how they want to be told wants it so for what is waiting, too.
create function notify.reschedule(user_id uuid) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update public.notifications n
    set
        frequency = (w.wishes).frequency,
        due_at = case when not (w.wishes).is_muted then notify.due_at(w.wishes, ops.now()) end
    from (
        select
            m.workspace_id, m.id, m.frequency as before,
            notify.wishes_of(reschedule.user_id, m.workspace_id, k) as wishes
        from public.notifications m
        join public.notification_kinds k on k.kind = m.kind
        where m.recipient_id = reschedule.user_id and m.due_at is not null and m.read_at is null
        offset 0
    ) as w
    where
        n.workspace_id = w.workspace_id and n.id = w.id
        -- A mail of its own is asked for when it happens, or never: what has one waiting keeps it, unless nothing is to
        -- come at all; what waits for a digest goes on waiting for one.
        and case
            when (w.wishes).is_muted or (w.wishes).frequency = 'never' then true
            else w.before <> 'immediately' and (w.wishes).frequency <> 'immediately'
        end;
end
$$;
comment on function notify.reschedule(uuid) is 'Works out anew when what waits for a person''s digest is due.';

create function notify.reschedule_person() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform notify.reschedule(case when tg_op = 'DELETE' then old.user_id else new.user_id end);
    return null;
end
$$;
comment on function notify.reschedule_person() is 'Trigger: what waits for a person follows what they now prefer.';

create trigger notification_preferences_reschedule after insert or update or delete on public.notification_preferences
for each row execute function notify.reschedule_person();
create trigger notification_hours_reschedule after insert or update or delete on public.notification_hours
for each row execute function notify.reschedule_person();

create function notify.reschedule_profile() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform notify.reschedule(new.id);
    return null;
end
$$;
comment on function notify.reschedule_profile() is 'Trigger: what waits for a person follows their clock.';

create trigger profiles_reschedule after update of time_zone on public.profiles
for each row when (new.time_zone is distinct from old.time_zone) execute function notify.reschedule_profile();

insert into tenancy.other_tables (relation, reason)
values
('public.notification_kinds', 'A catalogue, the same for all.'),
('public.notification_preferences', 'A person''s own, across workspaces.'),
('public.notification_hours', 'A person''s own, across workspaces.'),
('public.notifications', 'Each is one person''s; neither audited nor kept in the trash.');
insert into ops.not_exported (relation, reason)
values ('public.notifications', 'People were told already.');
