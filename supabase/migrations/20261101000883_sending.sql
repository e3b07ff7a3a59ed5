-- Why: what executors call to hand messages over, and what providers tell of them; and how people end them.
-- Locks: none on existing tables.
-- Workers: need not stop.

-- Unsubscribing ------------------------------------------------------------------------------

create function notify.unsubscribe_url(user_id uuid, workspace_id uuid, kind text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    word text := concat_ws(
        '~', unsubscribe_url.user_id, coalesce(unsubscribe_url.workspace_id::text, '-'), coalesce(unsubscribe_url.kind, '-')
    );
begin
    return (select s.functions_url from notify.settings s) || '/unsubscribe?token=' || word || '~' || notify.sign(word);
end
$$;
comment on function notify.unsubscribe_url(uuid, uuid, text) is
'The signed link by which a person ends mails of a kind in a workspace, or all mails.';

create function notify.unsubscribe_headers(url text) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    -- RFC 8058.
    select jsonb_build_object(
        'List-Unsubscribe', '<' || unsubscribe_headers.url || '>', 'List-Unsubscribe-Post', 'List-Unsubscribe=One-Click'
    )
$$;
comment on function notify.unsubscribe_headers(text) is
'The headers by which a mail program unsubscribes with one click.';

create function notify.unsubscribe(token text, is_confirmed boolean) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    parts text[] := string_to_array(unsubscribe.token, '~');
    person uuid;
    place uuid;
    about text;
begin
    if cardinality(parts) is distinct from 4 or length(unsubscribe.token) > 400
        or notify.sign(array_to_string(parts[1:3], '~')) <> parts[4]
    then
        perform ops.raise_http(
            400, 'link_invalid', 'This link is not one of ours.', null, 'Use the link of the newest mail, whole.'
        );
    end if;
    person := parts[1]::uuid;
    place := nullif(parts[2], '-')::uuid;
    about := nullif(parts[3], '-');
    if unsubscribe.is_confirmed and exists (select from public.profiles p where p.id = person) then
        if place is null and about is null then
            update public.notification_preferences p set frequency = 'never' where p.user_id = person;
        end if;
        -- Whoever left the workspace, or a kind that is gone, sends nothing any more.
        if (place is null or exists (
            select from public.workspace_members m where m.workspace_id = place and m.user_id = person
        )) and (about is null or exists (select from public.notification_kinds k where k.kind = about)) then
            insert into public.notification_preferences as p (user_id, workspace_id, kind, frequency)
            values (person, place, about, 'never')
            on conflict on constraint notification_preferences_once_each do update set frequency = 'never';
        end if;
    end if;
    return jsonb_build_object(
        'about', coalesce((select k.description from public.notification_kinds k where k.kind = about), 'All mails'),
        'workspace', (select w.name from public.workspaces w where w.id = place),
        'product', (select s.product_name from notify.settings s),
        'is_done', unsubscribe.is_confirmed
    );
end
$$;
comment on function notify.unsubscribe(text, boolean) is
'What a signed link would end; ends it if that is confirmed. Answers 400 for a link that was not signed here.';

-- Sending ------------------------------------------------------------------------------------

create function notify.sender_of(channel text, workspace_id uuid) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    look notify.look := notify.look_of(sender_of.workspace_id);
    settings notify.settings;
begin
    select s.* into settings from notify.settings s;
    return case
        when sender_of.channel = 'sms' then settings.sms_sender
        else format(
            '"%s" <%s>',
            case when look.name = settings.product_name then look.name else look.name || ' via ' || settings.product_name end,
            settings.sender_email
        )
    end;
end
$$;
comment on function notify.sender_of(text, uuid) is 'Whom a workspace''s messages are from.';

create function notify.body_of(message notify.messages) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select case
        when message.channel = 'sms'
            then jsonb_build_object('From', message.sender, 'To', message.recipient, 'Body', message.body)
        else jsonb_build_object(
            'from', message.sender, 'to', jsonb_build_array(message.recipient), 'subject', message.subject,
            'html', message.html, 'text', message.body, 'headers', message.headers
        )
    end
$$;
comment on function notify.body_of(notify.messages) is
'A message as its provider''s API takes it: Resend''s or Twilio''s.';

create function notify.take(batch_id uuid) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    moment timestamptz := ops.now();
    head notify.messages;
begin
    perform m.id from notify.messages m where m.batch_id = take.batch_id order by m.id for update;
    select m.* into head from notify.messages m
    where m.batch_id = take.batch_id and m.state in ('pending', 'sending') order by m.id limit 1;
    if not found then
        return jsonb_build_object('batch_id', take.batch_id, 'messages', '[]'::jsonb);
    end if;
    if head.first_attempt_at is null then
        -- Only now: what was tried once goes out again exactly as it was, or the provider takes it for another.
        update notify.messages m
        set state = 'suppressed', settled_at = moment, last_error = format('%s: %s', s.reason, s.detail)
        from notify.suppressions s
        where m.batch_id = take.batch_id and m.state = 'pending' and s.address = lower(m.recipient);
    elsif head.first_attempt_at < moment - interval '23 hours' then
        update notify.messages m
        set
            state = 'failed', settled_at = moment,
            last_error = 'tried for a day; the provider may have taken it and forgets its key: ' || coalesce(m.last_error, '')
        where m.batch_id = take.batch_id and m.state in ('pending', 'sending');
    end if;
    update notify.messages m
    set
        state = 'sending', attempts = m.attempts + 1, first_attempt_at = coalesce(m.first_attempt_at, moment),
        sender = coalesce(m.sender, notify.sender_of(m.channel, m.workspace_id))
    where m.batch_id = take.batch_id and m.state in ('pending', 'sending');
    return jsonb_build_object(
        'batch_id', take.batch_id, 'channel', head.channel, 'is_first', head.first_attempt_at is null,
        'first_attempt_at', coalesce(head.first_attempt_at, moment),
        'messages', coalesce(
            (
                select jsonb_agg(jsonb_build_object('id', m.id, 'body', notify.body_of(m)) order by m.id)
                from notify.messages m where m.batch_id = take.batch_id and m.state = 'sending'
            ), '[]'
        )
    );
end
$$;
comment on function notify.take(uuid) is
'A batch of messages as their provider takes them, {"batch_id", "channel", "messages": [{"id", "body"}]}: the same every
time. Whose address is suppressed is left out before the first attempt. Nothing is left of one that is done.';

create function notify.apply_event(event notify.provider_events) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    told notify.messages;
    outcome text := case event.type
        when 'email.delivered' then 'delivered' when 'email.bounced' then 'bounced'
        when 'email.complained' then 'complained' when 'email.failed' then 'failed'
    end;
begin
    select m.* into told from notify.messages m where m.id = event.message_id for update;
    -- What came later may be told earlier: a complaint is not undone by a delivery.
    if outcome is null or told.state in ('bounced', 'complained') or (told.state = 'delivered' and outcome = 'failed') then
        return;
    end if;
    update notify.messages m
    set
        state = outcome, settled_at = ops.now(),
        last_error = case when outcome = 'delivered' then m.last_error else event.detail ->> 'message' end
    where m.id = told.id;
    -- A full mailbox is not the end of it.
    if outcome = 'complained' or (outcome = 'bounced' and coalesce(event.detail ->> 'type', 'Permanent') <> 'Transient') then
        insert into notify.suppressions (address, reason, detail)
        values (lower(told.recipient), outcome, left(coalesce(event.detail ->> 'message', ''), 1000))
        on conflict on constraint suppressions_pkey do nothing;
    end if;
end
$$;
comment on function notify.apply_event(notify.provider_events) is
'Brings a message to what its provider told of it; who bounces or complains is not written to again.';

create function notify.accepted(batch_id uuid, results jsonb) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    event notify.provider_events;
    settled bigint;
begin
    update notify.messages m
    set
        state = 'sent', sent_at = ops.now(), provider_id = r.provider_id, last_error = null
    from jsonb_to_recordset(accepted.results) as r (id uuid, provider_id text)
    where m.id = r.id and m.batch_id = accepted.batch_id and m.state = 'sending';
    get diagnostics settled = row_count;
    for event in
        update notify.provider_events e set message_id = m.id
        from notify.messages m
        where m.batch_id = accepted.batch_id and e.provider_id = m.provider_id and e.message_id is null
        returning e.*
    loop
        perform notify.apply_event(event);
    end loop;
    return settled;
end
$$;
comment on function notify.accepted(uuid, jsonb) is
'The provider took a batch: [{"id": message, "provider_id": "…"}]. Returns how many messages were under way.';

create function notify.taken_before(batch_id uuid, error text) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    settled bigint;
begin
    -- Somebody of the batch was erased between two attempts, so that it is not the same any more. That the provider
    -- knows its key shows that it was taken as it was.
    update notify.messages m set state = 'sent', sent_at = ops.now(), last_error = left(taken_before.error, 2000)
    where m.batch_id = taken_before.batch_id and m.state = 'sending';
    get diagnostics settled = row_count;
    return settled;
end
$$;
comment on function notify.taken_before(uuid, text) is
'The provider knows a batch''s idempotency key with other contents: it took the batch before. Returns how many messages
that settles.';

create function notify.refused(batch_id uuid, error text, is_permanent boolean, was_tried boolean default true)
returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    one notify.messages;
    total bigint;
begin
    update notify.messages m
    set
        last_error = left(refused.error, 2000),
        -- What never left does not grow old.
        attempts = m.attempts - case when refused.was_tried then 0 else 1 end,
        first_attempt_at = case when refused.was_tried or m.attempts > 1 then m.first_attempt_at end
    where m.batch_id = refused.batch_id and m.state = 'sending';
    get diagnostics total = row_count;
    if not refused.is_permanent or total = 0 then
        return 'waiting';
    end if;
    if total = 1 then
        update notify.messages m set state = 'failed', settled_at = ops.now()
        where m.batch_id = refused.batch_id and m.state = 'sending';
        return 'failed';
    end if;
    -- One of them spoils it for all: each is tried by itself.
    for one in
        update notify.messages m set batch_id = gen_random_uuid(), state = 'pending', first_attempt_at = null
        where m.batch_id = refused.batch_id and m.state = 'sending'
        returning m.*
    loop
        perform jobs.enqueue('notify.send', jsonb_build_object('batch_id', one.batch_id), one.workspace_id);
    end loop;
    return 'split';
end
$$;
comment on function notify.refused(uuid, text, boolean, boolean) is
'The provider did not take a batch, for now or for good: a batch of many is split, one by itself has failed; without
was_tried it was not even asked. Returns waiting, split or failed.';

create function notify.resend(message_id uuid) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    again notify.messages;
begin
    update notify.messages m
    set
        batch_id = gen_random_uuid(), state = 'pending', first_attempt_at = null, settled_at = null, provider_id = null,
        attempts = 0
    where m.id = resend.message_id and m.state in ('failed', 'suppressed') and not m.has_secret
    returning * into again;
    if not found then
        return false;
    end if;
    perform jobs.enqueue('notify.send', jsonb_build_object('batch_id', again.batch_id), again.workspace_id);
    return true;
end
$$;
comment on function notify.resend(uuid) is
'Sends a message that failed or was suppressed as if it were a new one; false for any other, and for those whose secret
was not kept. For operators.';

create function notify.receive(id text, event jsonb) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    kept notify.provider_events;
begin
    if coalesce(length(receive.id), 0) not between 1 and 200 or jsonb_typeof(receive.event) is distinct from 'object'
        or coalesce(length(receive.event ->> 'type'), 0) not between 1 and 100
    then
        perform ops.raise_http(400, 'event_invalid', 'This is no event.', null, 'Send what the provider sent, whole.');
    end if;
    insert into notify.provider_events (id, type, provider_id, detail, message_id)
    values (
        receive.id, receive.event ->> 'type', left(receive.event #>> '{data,email_id}', 200),
        jsonb_strip_nulls(
            jsonb_build_object(
                'type', receive.event #>> '{data,bounce,type}',
                'message', coalesce(
                    left(receive.event #>> '{data,bounce,message}', 1000), left(receive.event #>> '{data,failed,reason}', 1000)
                )
            )
        ),
        (select m.id from notify.messages m where m.provider_id = left(receive.event #>> '{data,email_id}', 200) limit 1)
    )
    on conflict on constraint provider_events_pkey do nothing
    returning * into kept;
    if found and kept.message_id is not null then
        perform notify.apply_event(kept);
    end if;
    return kept.id is not null;
end
$$;
comment on function notify.receive(text, jsonb) is
'A provider told of a message: kept once, whether the message is known yet or not. False if it was told before.';

create function notify.maintain() returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    oldest timestamptz := ops.now() - make_interval(days => (select s.keep_days::integer from notify.settings s));
    gone bigint;
begin
    delete from notify.provider_events e where e.received_at < oldest;
    delete from public.notifications n where n.created_at < oldest;
    -- Whose job has failed for good, or was discarded.
    update notify.messages m
    set state = 'failed', settled_at = ops.now(), last_error = coalesce(m.last_error, 'nobody tries it any more')
    where
        m.state in ('pending', 'sending') and m.created_at < ops.now() - interval '1 day'
        and not exists (
            select from jobs.jobs j
            where j.kind = 'notify.send' and j.state <> 'failed' and j.payload ->> 'batch_id' = m.batch_id::text
        );
    delete from notify.messages m where m.created_at < oldest and m.state not in ('pending', 'sending');
    get diagnostics gone = row_count;
    return gone;
end
$$;
comment on function notify.maintain() is
'Clears what is older than settings.keep_days: notifications, messages and events; returns how many messages. Run
daily.';
