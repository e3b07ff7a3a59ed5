-- Why: who is told what happened, and how soon: in the app at once, by mail as each person prefers. Kinds are data; who
--      sees what a notification is about is asked at the one door.
-- Locks: none on existing tables.
-- Workers: need not stop.

create schema notify;
comment on schema notify is 'Notifications, preferences, digests, and the outbox of messages.';

-- Kinds --------------------------------------------------------------------------------------

create table public.notification_kinds (
    kind text not null,
    title text not null,
    body text not null default '',
    summary text not null,
    link text not null default '',
    relation regclass,
    permission text not null default 'workspace.read',
    default_frequency text not null default 'daily',
    description text not null,
    constraint notification_kinds_pkey primary key (kind),
    constraint notification_kinds_need_a_permission foreign key (permission) references public.permissions (permission),
    constraint notification_kinds_kind_is_well_formed check (
        kind ~ '^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$' and length(kind) <= 63
    ),
    constraint notification_kinds_default_frequency_is_known check (
        default_frequency in ('immediately', 'daily', 'weekly', 'never')
    )
);
alter table public.notification_kinds enable row level security;
create index notification_kinds_permission on public.notification_kinds (permission);
comment on table public.notification_kinds is 'What people can be told of.';
comment on column public.notification_kinds.kind is 'Its name, such as task.assigned.';
comment on column public.notification_kinds.title is 'One line; {names} are filled in from what is emitted.';
comment on column public.notification_kinds.body is 'More, where a line does not say it; filled in likewise.';
comment on column public.notification_kinds.summary is
'The line of a digest for several of them: {count} is how many. Those that read alike otherwise are counted together.';
comment on column public.notification_kinds.link is 'Where it leads in the app: a path, filled in likewise.';
comment on column public.notification_kinds.relation is
'The table that a notification is about a row of; null where it is about the workspace.';
comment on column public.notification_kinds.permission is 'Who may see what it is about.';
comment on column public.notification_kinds.default_frequency is
'How it is mailed to those who have not said: immediately, daily, weekly or never.';
comment on column public.notification_kinds.description is 'What it tells, for a page of preferences.';

create function notify.fields(template text) returns text[]
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(array_agg(distinct m.found[1]), '{}')
    from regexp_matches(fields.template, '\{([a-z_]+)\}', 'g') as m (found)
    where m.found[1] <> 'count'
$$;
comment on function notify.fields(text) is 'The fields that a template names, but for count.';

create function notify.fill(template text, payload jsonb) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    parts text[] := regexp_split_to_array(fill.template, '[{}]');
    filled text := '';
begin
    -- One pass: what is filled in is never read as a template. Of each value a line, or it would end the line.
    for i in 1 .. cardinality(parts) loop
        filled := filled || case
            when i % 2 = 1 then parts[i]
            when parts[i] = 'count' then E'\x01'
            else left(regexp_replace(fill.payload ->> parts[i], '[[:cntrl:]]+', ' ', 'g'), 300)
        end;
    end loop;
    return filled;
end
$$;
comment on function notify.fill(text, jsonb) is 'A template with its fields filled in; {count} is left as a mark.';

create function notify.declare_kind(
    kind text, title text, summary text, description text, body text default '', link text default '',
    relation regclass default null, permission text default 'workspace.read', default_frequency text default 'daily'
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    template text;
begin
    foreach template in array array[
        declare_kind.title, declare_kind.body, declare_kind.summary, declare_kind.link
    ] loop
        if regexp_replace(template, '\{[a-z_]+\}', '', 'g') ~ '[{}]' then
            raise exception 'kind %: the braces of % do not fit', declare_kind.kind, quote_literal(template)
                using errcode = 'invalid_parameter_value', hint = 'Fields are like {name}, of a-z and _.';
        end if;
    end loop;
    insert into public.notification_kinds as k (
        kind, title, body, summary, link, relation, permission, default_frequency, description
    ) values (
        declare_kind.kind, declare_kind.title, declare_kind.body, declare_kind.summary, declare_kind.link,
        declare_kind.relation, declare_kind.permission, declare_kind.default_frequency, declare_kind.description
    )
    on conflict on constraint notification_kinds_pkey do update
    set
        title = excluded.title, body = excluded.body, summary = excluded.summary, link = excluded.link,
        relation = excluded.relation, permission = excluded.permission,
        default_frequency = excluded.default_frequency, description = excluded.description;
end
$$;
comment on function notify.declare_kind(text, text, text, text, text, text, regclass, text, text) is
'Declares what people can be told of, or changes it. For migrations.';

-- Preferences --------------------------------------------------------------------------------

create table public.notification_preferences (
    id uuid not null default gen_random_uuid(),
    user_id uuid not null default authz.user_id(),
    workspace_id uuid,
    kind text,
    frequency text,
    is_muted boolean not null default false,
    created_at timestamptz not null default ops.now(),
    updated_at timestamptz not null default ops.now(),
    constraint notification_preferences_pkey primary key (id),
    constraint notification_preferences_once_each unique nulls not distinct (user_id, workspace_id, kind),
    constraint notification_preferences_are_somebodys foreign key (user_id)
    references public.profiles (id) on delete cascade,
    constraint notification_preferences_are_a_members foreign key (workspace_id, user_id)
    references public.workspace_members (workspace_id, user_id) on delete cascade,
    constraint notification_preferences_kind_exists foreign key (kind)
    references public.notification_kinds (kind) on delete cascade,
    constraint notification_preferences_frequency_is_known check (
        frequency in ('immediately', 'daily', 'weekly', 'never')
    )
);
alter table public.notification_preferences enable row level security;
create index notification_preferences_member on public.notification_preferences (workspace_id, user_id);
create index notification_preferences_kind on public.notification_preferences (kind);
comment on table public.notification_preferences is
'How soon each person wants a mail of what: the row that names workspace and kind wins, then the workspace, then the
kind, then the one that names neither.';
comment on column public.notification_preferences.id is 'The preference.';
comment on column public.notification_preferences.user_id is 'The person.';
comment on column public.notification_preferences.workspace_id is 'In which workspace; null for all.';
comment on column public.notification_preferences.kind is 'Of which kind; null for all.';
comment on column public.notification_preferences.frequency is
'When mails come: immediately, daily, weekly or never; null as each kind has it. The app shows it in any case.';
comment on column public.notification_preferences.is_muted is 'Whether not even the app is to show it.';
comment on column public.notification_preferences.created_at is 'When it was first said.';
comment on column public.notification_preferences.updated_at is 'When it last changed.';

create trigger notification_preferences_touch before update on public.notification_preferences
for each row execute function tenancy.touch();

create table public.notification_hours (
    user_id uuid not null default authz.user_id(),
    digest_hour bigint not null default 8,
    digest_weekday bigint not null default 1,
    quiet_from time,
    quiet_until time,
    updated_at timestamptz not null default ops.now(),
    constraint notification_hours_pkey primary key (user_id),
    constraint notification_hours_are_somebodys foreign key (user_id) references public.profiles (id) on delete cascade,
    constraint notification_hours_digest_hour_is_one check (digest_hour between 0 and 23),
    constraint notification_hours_digest_weekday_is_one check (digest_weekday between 1 and 7),
    constraint notification_hours_quiet_has_both_ends check ((quiet_from is null) = (quiet_until is null))
);
alter table public.notification_hours enable row level security;
comment on table public.notification_hours is
'When mails may come to a person, by the clock of profiles.time_zone. Without a row: digests at 8, weekly on Monday.';
comment on column public.notification_hours.user_id is 'The person.';
comment on column public.notification_hours.digest_hour is 'The hour at which digests come, 0 to 23.';
comment on column public.notification_hours.digest_weekday is 'The day on which weekly ones do: 1 is Monday, 7 Sunday.';
comment on column public.notification_hours.quiet_from is 'From when on no mail comes at once; it waits.';
comment on column public.notification_hours.quiet_until is 'Until when; before quiet_from it is of the next day.';
comment on column public.notification_hours.updated_at is 'When it last changed.';

create trigger notification_hours_touch before update on public.notification_hours
for each row execute function tenancy.touch();

-- Whatever was stored before anybody looked.
update public.profiles set time_zone = 'UTC'
where not exists (
    select from pg_timezone_names
    where pg_timezone_names.name = profiles.time_zone
);

create function notify.zone(time_zone text) returns text
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    perform now() at time zone zone.time_zone;
    return coalesce(zone.time_zone, 'UTC');
exception
    -- One that this server does not know, or not any more, must not keep anybody from working.
    when invalid_parameter_value then return 'UTC';
end
$$;
comment on function notify.zone(text) is 'A time zone that can be reckoned with: the one given, or UTC.';

create function notify.check_time_zone() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from pg_timezone_names z where z.name = new.time_zone) then
        perform ops.raise_http(
            400, 'time_zone_unknown', format('There is no time zone %s.', quote_literal(left(new.time_zone, 64))), null,
            'Use a name of the IANA list, such as Europe/Berlin.'
        );
    end if;
    return new;
end
$$;
comment on function notify.check_time_zone() is 'Trigger: lets a profile name only time zones that there are.';

create trigger profiles_time_zone before update of time_zone on public.profiles
for each row when (new.time_zone is distinct from old.time_zone) execute function notify.check_time_zone();

create function notify.after_quiet(moment timestamptz, time_zone text, quiet_from time, quiet_until time)
returns timestamptz
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    with here as (select after_quiet.moment at time zone after_quiet.time_zone as at)
    select case
        when after_quiet.quiet_from is null or after_quiet.quiet_from = after_quiet.quiet_until then after_quiet.moment
        when after_quiet.quiet_from < after_quiet.quiet_until then
            case
                when here.at::time >= after_quiet.quiet_from and here.at::time < after_quiet.quiet_until
                    then (here.at::date + after_quiet.quiet_until) at time zone after_quiet.time_zone
                else after_quiet.moment
            end
        when here.at::time >= after_quiet.quiet_from
            then (here.at::date + 1 + after_quiet.quiet_until) at time zone after_quiet.time_zone
        when here.at::time < after_quiet.quiet_until
            then (here.at::date + after_quiet.quiet_until) at time zone after_quiet.time_zone
        else after_quiet.moment
    end
    from here
$$;
comment on function notify.after_quiet(timestamptz, text, time, time) is
'The moment itself, or the end of the quiet hours that it is in.';

create function notify.next_digest(moment timestamptz, time_zone text, hour bigint, weekday bigint, frequency text)
returns timestamptz
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    -- The first such hour after the moment. An hour that the clock skips in spring comes when it has skipped it.
    with here as (
        select
            (next_digest.moment at time zone next_digest.time_zone)::date as day,
            make_time(next_digest.hour::integer, 0, 0) as hour
    )
    select min((d.day + here.hour) at time zone next_digest.time_zone)
    from here
    cross join lateral (
        select here.day + ahead as day from generate_series(0, case next_digest.frequency when 'weekly' then 8 else 2 end) as ahead
    ) as d
    where
        (d.day + here.hour) at time zone next_digest.time_zone > next_digest.moment
        and (next_digest.frequency <> 'weekly' or extract(isodow from d.day) = next_digest.weekday)
$$;
comment on function notify.next_digest(timestamptz, text, bigint, bigint, text) is
'When the next daily or weekly digest is due after a moment, at an hour (and, weekly, a weekday) of a time zone.';

-- Notifications ------------------------------------------------------------------------------

create table public.notifications (
    workspace_id uuid not null,
    id uuid not null default gen_random_uuid(),
    recipient_id uuid not null,
    kind text not null,
    title text not null,
    body text not null default '',
    summary text not null,
    link text not null default '',
    subject_id uuid,
    payload jsonb not null default '{}',
    actor_id uuid,
    frequency text not null,
    due_at timestamptz,
    read_at timestamptz,
    created_at timestamptz not null default ops.now(),
    constraint notifications_pkey primary key (workspace_id, id),
    -- Not to the membership: who tells would wait for who leaves, and then fail. A trigger clears up instead.
    constraint notifications_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint notifications_are_somebodys foreign key (recipient_id)
    references public.profiles (id) on delete cascade,
    constraint notifications_actor_exists foreign key (actor_id) references public.profiles (id) on delete set null,
    constraint notifications_kind_exists foreign key (kind) references public.notification_kinds (kind)
    on delete cascade
);
alter table public.notifications enable row level security;
create index notifications_recipient on public.notifications (recipient_id, created_at desc, id);
create index notifications_member on public.notifications (workspace_id, recipient_id);
create index notifications_unread on public.notifications (recipient_id, workspace_id) where read_at is null;
create index notifications_due on public.notifications (due_at, recipient_id)
where due_at is not null and frequency <> 'immediately';
create index notifications_actor on public.notifications (actor_id) where actor_id is not null;
create index notifications_kind on public.notifications (kind);
comment on table public.notifications is 'What each person was told; nobody else sees it.';
comment on column public.notifications.workspace_id is 'The tenant.';
comment on column public.notifications.id is 'The notification.';
comment on column public.notifications.recipient_id is 'Who is told.';
comment on column public.notifications.kind is 'What of.';
comment on column public.notifications.title is 'In one line.';
comment on column public.notifications.body is 'What a line does not say.';
comment on column public.notifications.summary is 'The line of a digest that several of them share.';
comment on column public.notifications.link is 'Where it leads in the app.';
comment on column public.notifications.subject_id is 'The row that it is about.';
comment on column public.notifications.payload is 'What it was made from, for apps that show it their own way.';
comment on column public.notifications.actor_id is 'Who did it.';
comment on column public.notifications.frequency is 'How it is mailed: immediately, daily, weekly or never.';
comment on column public.notifications.due_at is 'When it is to be mailed, alone or in a digest; null once it was.';
comment on column public.notifications.read_at is 'When its recipient read it.';
comment on column public.notifications.created_at is 'When it happened.';

create function notify.forget_member() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from public.notifications n where n.workspace_id = old.workspace_id and n.recipient_id = old.user_id;
    return null;
end
$$;
comment on function notify.forget_member() is 'Trigger: what a member was told goes with the membership.';

create trigger workspace_members_forget after delete on public.workspace_members
for each row execute function notify.forget_member();

-- Realtime, where there is a publication for it: Supabase makes one.
do $$
begin
    if not exists (select from pg_publication p where p.pubname = 'supabase_realtime') then
        create publication supabase_realtime;
    end if;
    alter publication supabase_realtime add table public.notifications;
exception
    when others then raise notice 'public.notifications is not published: %', sqlerrm;
end
$$;

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
    with written as (
        insert into public.notifications (
            workspace_id, recipient_id, kind, title, body, summary, link, subject_id, payload, actor_id, frequency, due_at,
            created_at
        )
        select
            emit.workspace_id, a.user_id, known.kind,
            notify.fill(known.title, emit.payload), notify.fill(known.body, emit.payload),
            notify.fill(known.summary, emit.payload), notify.fill(known.link, emit.payload),
            emit.subject_id, emit.payload, authz.user_id(), (a.wishes).frequency, notify.due_at(a.wishes, moment), moment
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
