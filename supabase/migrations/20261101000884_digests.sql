-- Why: notifications become mail: at once, or gathered into one digest for each person and period, built in one pass
--      over everybody whose hour has come.
-- Locks: none on existing tables.
-- Workers: need not stop.

create function notify.enqueue_batches(batch_ids uuid[]) returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
    select jobs.enqueue_many(
        'notify.send', array(select jsonb_build_object('batch_id', b.id) from unnest(enqueue_batches.batch_ids) as b (id))
    )
$$;
comment on function notify.enqueue_batches(uuid[]) is 'Asks for batches of messages to be sent; returns how many.';

create function notify.random_ids(size bigint) returns uuid[]
language sql volatile
set search_path = pg_catalog, pg_temp
as $$ select coalesce(array_agg(gen_random_uuid()), '{}') from generate_series(1, random_ids.size) $$;
comment on function notify.random_ids(bigint) is 'So many new ids.';

-- At once ------------------------------------------------------------------------------------

create function notify.rendered_notification(told public.notifications) returns notify.rendered
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    look notify.look := notify.look_of(told.workspace_id);
    known public.notification_kinds;
    place text;
begin
    select k.* into known from public.notification_kinds k where k.kind = told.kind;
    select w.name into place from public.workspaces w where w.id = told.workspace_id;
    return notify.compose(
        look, told.title, array[told.body],
        'Open', case when told.link = '' then null else look.site_url || told.link end,
        format('You get this because you are in %s (%s).', place, lower(known.description)),
        notify.unsubscribe_url(told.recipient_id, told.workspace_id, told.kind)
    );
end
$$;
comment on function notify.rendered_notification(public.notifications) is 'The mail that tells of one notification.';

create function notify.mail_now(job jobs.jobs) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    tenant constant uuid := (job.payload ->> 'workspace_id')::uuid;
    ids uuid[] := array(select u.id::uuid from jsonb_array_elements_text(job.payload -> 'ids') as u (id));
    batches uuid[] := notify.random_ids((cardinality(ids) + 99) / 100);
    members uuid[];
begin
    -- All of a job are of one kind: it comes from one emit.
    members := array(
        select m.id
        from (
            select k.permission from public.notifications n
            join public.notification_kinds k on k.kind = n.kind
            where n.workspace_id = tenant and n.id = any (ids)
            limit 1
        ) as kind
        cross join lateral authz.members_with(tenant, kind.permission) as m (id)
    );
    insert into notify.messages (
        workspace_id, channel, kind, recipient, recipient_id, subject, html, body, headers, batch_id
    )
    select
        r.workspace_id, 'email', r.kind, r.email, r.recipient_id, left((r.mail).subject, 300), (r.mail).html, (r.mail).body,
        notify.unsubscribe_headers(notify.unsubscribe_url(r.recipient_id, r.workspace_id, r.kind)),
        batches[1 + (r.place - 1) / 100]
    from (
        select
            n.workspace_id, n.kind, n.recipient_id, p.email, notify.rendered_notification(n) as mail,
            row_number() over (order by n.id) as place
        from public.notifications n
        join public.profiles p on p.id = n.recipient_id and notify.is_address('email', p.email)
        join public.notification_kinds k on k.kind = n.kind
        where
            -- Still a member, of a workspace that is still open, who still may see it, and has not said otherwise.
            n.recipient_id = any (members)
            and (
                n.subject_id is null or not coalesce(notify.has_row_rules(k.relation), false)
                or notify.may_see(n.recipient_id, k.relation, n.workspace_id, n.subject_id)
            )
            and n.workspace_id = tenant and n.id = any (ids)
            -- Whoever has seen it in the app meanwhile needs no mail.
            and n.read_at is null and n.due_at is not null and n.frequency = 'immediately'
    ) as r;
    update public.notifications n set due_at = null
    where n.workspace_id = tenant and n.id = any (ids);
    perform notify.enqueue_batches(
        array(select b.id from unnest(batches) as b (id) where exists (select from notify.messages m where m.batch_id = b.id))
    );
end
$$;
comment on function notify.mail_now(jobs.jobs) is
'Job notify.mail_now: writes the mails of notifications that are to come at once, in batches of up to a hundred.';

-- Digests ------------------------------------------------------------------------------------

create table notify.digests (
    user_id uuid not null,
    frequency text not null,
    period date not null,
    item_count bigint not null,
    message_id uuid,
    built_at timestamptz not null,
    constraint digests_pkey primary key (user_id, frequency, period),
    constraint digests_are_somebodys foreign key (user_id) references public.profiles (id) on delete cascade,
    constraint digests_frequency_is_known check (frequency in ('daily', 'weekly'))
);
alter table notify.digests enable row level security;
create policy digests_nobody on notify.digests using (false);
create index digests_built_at on notify.digests (built_at);
comment on table notify.digests is 'The digests there were: one for each person, frequency and period.';
comment on column notify.digests.user_id is 'The person.';
comment on column notify.digests.frequency is 'daily or weekly.';
comment on column notify.digests.period is
'The day on which it was due, by the person''s own clock; of weekly ones the Monday before.';
comment on column notify.digests.item_count is 'How many notifications went into it.';
comment on column notify.digests.message_id is 'The mail; it is cleared before this is.';
comment on column notify.digests.built_at is 'When it was built.';

create function notify.open_workspaces() returns setof uuid
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select w.id from public.workspaces w
    where
        w.deleted_at is null
        and not exists (select from authz.suspended_workspaces s where s.workspace_id = w.id)
$$;
comment on function notify.open_workspaces() is 'Workspaces that are neither deleted nor suspended.';

create function notify.render_digests(people uuid[], until timestamptz) returns table (
    user_id uuid, frequency text, email text, period date, item_count bigint, subject text, html text, body text,
    unsubscribe_url text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    house notify.look := notify.look_of(null);
begin
    return query
    with waiting as (
        select
            n.recipient_id, n.frequency, n.workspace_id, n.kind, n.summary, count(*) as total, min(n.title) as title,
            min(n.link) as link, max(n.created_at) as latest, max(n.due_at) as due_at
        from unnest(render_digests.people) as who (id)
        cross join lateral (
            select m.* from public.notifications m
            where
                m.recipient_id = who.id and m.due_at is not null and m.due_at <= render_digests.until
                and m.frequency <> 'immediately' and m.read_at is null
            offset 0
        ) as n
        group by n.recipient_id, n.frequency, n.workspace_id, n.kind, n.summary
    ),
    lines as (
        select
            w.*,
            case when w.total = 1 then w.title else replace(w.summary, E'\x01', w.total::text) end as line,
            row_number() over (
                partition by w.recipient_id, w.frequency, w.workspace_id order by w.latest desc, w.kind, w.summary
            ) as place
        from waiting w
    ),
    sections as (
        select
            l.recipient_id, l.frequency, l.workspace_id, sum(l.total) as total, max(l.due_at) as due_at,
            xmlagg(
                xmlelement(
                    name li,
                    case
                        when l.total = 1 and l.link <> ''
                            then xmlelement(name a, xmlattributes(house.site_url || l.link as href), l.line)
                        else xmlelement(name span, l.line)
                    end
                )
                order by l.place
            ) filter (where l.place <= 20) as items,
            string_agg('- ' || l.line, E'\n' order by l.place) filter (where l.place <= 20) as text_items,
            sum(l.total) filter (where l.place > 20) as left_out
        from lines l
        group by l.recipient_id, l.frequency, l.workspace_id
    ),
    digests as (
        select
            s.recipient_id, s.frequency, sum(s.total)::bigint as total, count(*) as places, min(w.name) as place,
            max(s.due_at) as due_at,
            xmlagg(
                xmlelement(
                    name div,
                    xmlelement(name h2, xmlattributes('font-size:16px' as style), w.name),
                    xmlelement(name ul, s.items),
                    case when s.left_out > 0 then xmlelement(name p, format('… and %s more', s.left_out)) end
                )
                order by w.name, s.workspace_id
            ) as content,
            string_agg(
                w.name || E'\n' || s.text_items
                || case when s.left_out > 0 then format(E'\n… and %s more', s.left_out) else '' end,
                E'\n\n'
                order by w.name, s.workspace_id
            ) as text_content
        from sections s
        join public.workspaces w on w.id = s.workspace_id and w.deleted_at is null
        where not exists (select from authz.suspended_workspaces x where x.workspace_id = s.workspace_id)
        group by s.recipient_id, s.frequency
    ),
    addressed as (
        select
            d.*, p.email,
            case d.frequency
                when 'weekly' then date_trunc('week', d.due_at at time zone notify.zone(p.time_zone))::date
                else (d.due_at at time zone notify.zone(p.time_zone))::date
            end as period,
            format(
                '%s: %s in %s', house.name, case d.total when 1 then '1 update' else d.total || ' updates' end,
                case d.places when 1 then d.place else d.places || ' workspaces' end
            ) as subject,
            notify.unsubscribe_url(d.recipient_id, null, null) as url
        from digests d
        join public.profiles p on p.id = d.recipient_id and notify.is_address('email', p.email)
        where not exists (select from authz.suspended_users x where x.user_id = d.recipient_id)
        offset 0
    )
    select
        a.recipient_id, a.frequency, a.email, a.period, a.total, left(a.subject, 300),
        notify.page(
            house, a.subject, a.content,
            notify.footer(format('You get this %s, as you chose.', case a.frequency when 'weekly' then 'every week' else 'every day' end), a.url)
        ),
        concat_ws(
            E'\n\n', a.subject, a.text_content,
            concat_ws(E'\n', '-- ', 'Unsubscribe: ' || a.url, nullif(house.postal_address, ''))
        ),
        a.url
    from addressed a;
end
$$;
comment on function notify.render_digests(uuid[], timestamptz) is
'The digests of these people as they would be, of what waits for them and is due until then: a section for each
workspace, a line for each group of notifications that read alike. Nobody who has read it all gets one.';

create function notify.build_digests(size bigint default 2000) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    moment timestamptz := ops.now();
    people uuid[];
    batches uuid[];
    built bigint;
begin
    people := array(
        select distinct d.recipient_id
        from (
            select n.recipient_id from public.notifications n
            where n.due_at <= moment and n.frequency <> 'immediately'
            order by n.due_at, n.recipient_id
            limit build_digests.size * 10
        ) as d
        limit build_digests.size
    );
    if cardinality(people) = 0 then
        return 0::bigint;
    end if;
    batches := notify.random_ids((2 * cardinality(people) + 99) / 100);
    -- One statement, and so one moment: what is committed while it runs waits for the next digest.
    with rendered as materialized (
        select r.*, gen_random_uuid() as message_id from notify.render_digests(people, moment) r
    ),
    kept as (
        -- What makes a digest the only one of its period, whoever else builds them at this moment.
        insert into notify.digests (user_id, frequency, period, item_count, message_id, built_at)
        select r.user_id, r.frequency, r.period, r.item_count, r.message_id, moment from rendered r
        on conflict on constraint digests_pkey do nothing
        returning user_id, frequency, message_id
    ),
    written as (
        insert into notify.messages (
            id, channel, kind, recipient, recipient_id, subject, html, body, headers, batch_id, created_at
        )
        select
            r.message_id, 'email', 'digest.' || r.frequency, r.email, r.user_id, r.subject, r.html, r.body,
            notify.unsubscribe_headers(r.unsubscribe_url), batches[1 + (row_number() over () - 1) / 100], moment
        from rendered r
        join kept k on k.message_id = r.message_id
        returning id
    ),
    settled as (
        -- What is in no digest now, because its person had one of the period already or its workspace is shut, waits.
        update public.notifications n
        set due_at = case
            when n.read_at is not null then null
            when
                w.id is not null and exists (
                    select from kept k where k.user_id = n.recipient_id and k.frequency = n.frequency
                )
                then null
            else notify.next_digest(moment, m.zone, m.hour, m.weekday, n.frequency)
        end
        from (
            select
                p.id, notify.zone(p.time_zone) as zone, coalesce(h.digest_hour, 8) as hour,
                coalesce(h.digest_weekday, 1) as weekday
            from unnest(people) as who (id)
            join public.profiles p on p.id = who.id
            left join public.notification_hours h on h.user_id = p.id
            offset 0
        ) as m
        cross join lateral (
            select d.workspace_id, d.id from public.notifications d
            where d.recipient_id = m.id and d.due_at <= moment and d.frequency <> 'immediately'
            offset 0
        ) as due
        left join notify.open_workspaces() as w (id) on w.id = due.workspace_id
        where n.workspace_id = due.workspace_id and n.id = due.id
    )
    select count(*) into built from written;
    if built > 0 then
        perform notify.enqueue_batches(batches[1:((built + 99) / 100)::integer]);
    end if;
    return cardinality(people)::bigint;
end
$$;
comment on function notify.build_digests(bigint) is
'Builds the digests that are due, of up to so many people, and returns how many were looked at: 0 when all is done.';

create procedure notify.run_digests()
language plpgsql
as $$
declare
    until timestamptz := pg_catalog.clock_timestamp() + interval '10 minutes';
begin
    -- No search_path is set, since a procedure that sets one cannot commit: every name says its schema.
    if ops.is_paused('rowhouse-digests') then
        return;
    end if;
    perform ops.beat('rowhouse-digests', pg_catalog.clock_timestamp(), null);
    commit;
    loop
        exit when notify.build_digests() = 0 or pg_catalog.clock_timestamp() > until;
        commit;
    end loop;
    perform ops.beat('rowhouse-digests', null, pg_catalog.clock_timestamp());
end
$$;
comment on procedure notify.run_digests is 'Builds all digests that are due, committing as it goes.';

select jobs.declare_kind(
    'notify.mail_now', 'postgres', 'notify.mail_now', queue => 'notify', priority => 50,
    payload_schema => '{
        "type": "object", "required": ["workspace_id", "ids"],
        "properties": {
            "workspace_id": {"type": "string", "format": "uuid"},
            "ids": {"type": "array", "maxItems": 500, "items": {"type": "string", "format": "uuid"}}
        }
    }',
    description => 'Writes the mails of notifications that are to come at once.'
);
select jobs.declare_kind(
    'notify.send', 'worker', queue => 'mail', timeout => '2 minutes', max_attempts => 30, backoff => '10 seconds',
    payload_schema => '{
        "type": "object", "required": ["batch_id"], "properties": {"batch_id": {"type": "string", "format": "uuid"}}
    }',
    description => 'Hands a batch of messages to their provider.'
);
