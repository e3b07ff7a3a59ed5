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
