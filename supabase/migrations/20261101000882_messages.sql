-- Why: the outbox. A message is a row, rendered and written in the transaction that wants it sent; executors only carry
--      it. Messages leave in batches that never change once one was tried, so that a provider's idempotency holds.
-- Locks: none on existing tables.
-- Workers: need not stop.

create table notify.settings (
    singleton boolean not null default true,
    product_name text not null default 'Rowhouse',
    sender_email text not null default 'no-reply@example.com',
    sms_sender text not null default '+15005550006',
    site_url text not null default 'http://127.0.0.1:3000',
    functions_url text not null default 'http://127.0.0.1:54321/functions/v1',
    auth_url text not null default 'http://127.0.0.1:54321/auth/v1',
    colour text not null default '#334155',
    postal_address text not null default '',
    keep_days bigint not null default 90,
    inner_key bytea not null,
    outer_key bytea not null,
    constraint settings_pkey primary key (singleton),
    constraint settings_has_one_row check (singleton),
    constraint settings_product_name_is_a_name check (product_name ~ '^[^[:cntrl:]<>"\\]{1,80}$'),
    constraint settings_sender_email_is_one check (jobs.format_flaw('email', sender_email) is null),
    constraint settings_sms_sender_is_short check (sms_sender ~ '^(\+[1-9]\d{6,14}|[A-Za-z0-9 ]{1,11})$'),
    constraint settings_site_url_is_one check (site_url ~ '^https?://[^\s<>"]+$'),
    constraint settings_functions_url_is_one check (functions_url ~ '^https?://[^\s<>"]+$'),
    constraint settings_auth_url_is_one check (auth_url ~ '^https?://[^\s<>"]+$'),
    constraint settings_colour_is_one check (colour ~ '^#[0-9a-fA-F]{6}$'),
    constraint settings_keep_days_are_sensible check (keep_days between 7 and 3650)
);
alter table notify.settings enable row level security;
create policy settings_nobody on notify.settings using (false);
comment on table notify.settings is 'Who writes, and what messages lead to.';
comment on column notify.settings.singleton is 'Keeps the table at one row.';
comment on column notify.settings.product_name is 'What the product is called in messages.';
comment on column notify.settings.sender_email is 'Where mails come from.';
comment on column notify.settings.sms_sender is 'Where SMS come from: a number like +15005550006, or a name.';
comment on column notify.settings.site_url is 'Where the app is.';
comment on column notify.settings.functions_url is 'Where the edge functions are; the links to unsubscribe lead there.';
comment on column notify.settings.auth_url is 'Where Supabase Auth is; the links of its mails lead there.';
comment on column notify.settings.colour is 'The colour of buttons where a workspace has no other.';
comment on column notify.settings.postal_address is 'What the law wants at the foot of mails, if it does.';
comment on column notify.settings.keep_days is 'For how many days messages and read notifications are kept.';
comment on column notify.settings.inner_key is 'The key of signed links, as HMAC uses it inside.';
comment on column notify.settings.outer_key is 'The key of signed links, as HMAC uses it outside.';

create function notify.padded(secret bytea, pad integer) returns bytea
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    block bytea := padded.secret || decode(repeat('00', 64 - length(padded.secret)), 'hex');
begin
    for i in 0 .. 63 loop
        block := set_byte(block, i, get_byte(block, i) # padded.pad);
    end loop;
    return block;
end
$$;
comment on function notify.padded(bytea, integer) is
'A key of up to 64 bytes with a pad of HMAC (RFC 2104) laid over it.';

insert into notify.settings (inner_key, outer_key)
select notify.padded(secret.key, 54), notify.padded(secret.key, 92)
from (
    select sha256((string_agg(gen_random_uuid()::text, ''))::bytea) as key from generate_series(1, 4)
) as secret;

create function notify.sign(word text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return encode(
        sha256(
            (select s.outer_key from notify.settings s)
            || sha256((select s.inner_key from notify.settings s) || convert_to(sign.word, 'UTF8'))
        ),
        'hex'
    );
end
$$;
comment on function notify.sign(text) is 'HMAC-SHA-256 of a word, in hexadecimal.';

-- The look -----------------------------------------------------------------------------------

create table notify.brands (
    workspace_id uuid not null,
    name text not null,
    colour text,
    logo_url text,
    texts_customers boolean not null default false,
    mails_receipts boolean not null default true,
    updated_at timestamptz not null default ops.now(),
    constraint brands_pkey primary key (workspace_id),
    constraint brands_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint brands_name_is_a_name check (name ~ '^[^[:cntrl:]<>"\\]{1,80}$'),
    constraint brands_colour_is_one check (colour ~ '^#[0-9a-fA-F]{6}$'),
    constraint brands_logo_url_is_one check (
        logo_url ~ '^https://[^\s<>"]+$' and length(logo_url) <= 500
    )
);
alter table notify.brands enable row level security;
create policy brands_nobody on notify.brands using (false);
comment on table notify.brands is 'How messages of a workspace look, where it has said.';
comment on column notify.brands.workspace_id is 'The tenant.';
comment on column notify.brands.name is 'Who writes.';
comment on column notify.brands.colour is 'Of buttons and headings, such as #0f766e.';
comment on column notify.brands.logo_url is 'A picture at the top, by https.';
comment on column notify.brands.texts_customers is 'Whether customers get an SMS when their repair is done.';
comment on column notify.brands.mails_receipts is 'Whether customers get a receipt of a payment by mail.';
comment on column notify.brands.updated_at is 'When it last changed.';

create type notify.look as (name text, colour text, logo_url text, site_url text, postal_address text);
comment on type notify.look is 'How a message looks: whose it is, in which colour, with which picture.';

create function notify.look_of(workspace_id uuid) returns notify.look
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    look notify.look;
begin
    select coalesce(b.name, s.product_name), coalesce(b.colour, s.colour), b.logo_url, s.site_url, s.postal_address
    into look
    from notify.settings s
    left join notify.brands b on b.workspace_id = look_of.workspace_id;
    return look;
end
$$;
comment on function notify.look_of(uuid) is 'The look of a workspace''s messages; the house''s own for null.';

create function notify.button(look notify.look, label text, url text) returns xml
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select xmlelement(
        name p,
        xmlelement(
            name a,
            xmlattributes(
                button.url as href,
                'display:inline-block;padding:10px 18px;border-radius:6px;color:#ffffff;text-decoration:none;background:'
                || look.colour as style
            ),
            button.label
        )
    )
$$;
comment on function notify.button(notify.look, text, text) is 'A link that looks like a button.';

create function notify.page(look notify.look, title text, content xml, footer xml) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    -- The one place that says how mails look. Every text in it has been through xmlelement, which escapes.
    select '<!doctype html>' || xmlserialize(
        content xmlelement(
            name html,
            xmlattributes('en' as lang),
            xmlelement(
                name head,
                xmlelement(name meta, xmlattributes('utf-8' as charset)),
                xmlelement(
                    name meta, xmlattributes('viewport' as name, 'width=device-width,initial-scale=1' as content)
                ),
                xmlelement(name title, page.title)
            ),
            xmlelement(
                name body,
                xmlattributes(
                    'margin:0;padding:24px;background:#f1f5f9;color:#0f172a;font:16px/1.5 system-ui,sans-serif' as style
                ),
                xmlelement(
                    name div,
                    xmlattributes('max-width:600px;margin:0 auto;padding:24px;background:#ffffff;border-radius:8px' as style),
                    case
                        when look.logo_url is null
                            then xmlelement(name p, xmlattributes('margin:0;font-weight:600;color:' || look.colour as style), look.name)
                        else xmlelement(name img, xmlattributes(look.logo_url as src, look.name as alt, '40' as height))
                    end,
                    xmlelement(name h1, xmlattributes('font-size:20px;margin:16px 0' as style), page.title),
                    page.content
                ),
                xmlelement(
                    name div,
                    xmlattributes('max-width:600px;margin:16px auto;font-size:13px;color:#64748b' as style),
                    page.footer,
                    case when look.postal_address <> '' then xmlelement(name p, look.postal_address) end
                )
            )
        ) as text
    )
$$;
comment on function notify.page(notify.look, text, xml, xml) is 'A whole mail in HTML, in the look given.';

create function notify.footer(reason text, unsubscribe_url text) returns xml
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select xmlelement(
        name p, footer.reason, ' ',
        case
            when footer.unsubscribe_url is not null
                then xmlelement(name a, xmlattributes(footer.unsubscribe_url as href), 'Unsubscribe')
        end
    )
$$;
comment on function notify.footer(text, text) is 'The foot of a mail: why it came, and how to have no more of them.';

create type notify.rendered as (subject text, html text, body text);
comment on type notify.rendered is 'A message in HTML and in plain text.';

create function notify.compose(
    look notify.look, subject text, paragraphs text[], label text, url text, reason text,
    unsubscribe_url text default null
) returns notify.rendered
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    rendered notify.rendered;
begin
    rendered.subject := compose.subject;
    rendered.html := notify.page(
        look, compose.subject,
        xmlconcat(
            (
                select xmlagg(xmlelement(name p, p.line) order by p.place)
                from unnest(compose.paragraphs) with ordinality as p (line, place) where p.line <> ''
            ),
            case when compose.url is not null then notify.button(look, compose.label, compose.url) end
        ),
        notify.footer(compose.reason, compose.unsubscribe_url)
    );
    rendered.body := concat_ws(
        E'\n\n', compose.subject,
        (select string_agg(p.line, E'\n\n' order by p.place) from unnest(compose.paragraphs) with ordinality as p (line, place) where p.line <> ''),
        compose.label || ': ' || compose.url,
        '-- ' || E'\n' || concat_ws(E'\n', compose.reason, 'Unsubscribe: ' || compose.unsubscribe_url, nullif(look.postal_address, ''))
    );
    return rendered;
end
$$;
comment on function notify.compose(notify.look, text, text[], text, text, text, text) is
'A mail of a subject, paragraphs and a button, in HTML and in plain text.';

-- The outbox ---------------------------------------------------------------------------------

create function notify.is_address(channel text, word text) returns boolean
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(
        length(is_address.word) <= 320 and case is_address.channel
            when 'email' then is_address.word ~ '^[^@\s[:cntrl:]<>",;]+@[^@\s[:cntrl:]<>",;]+$'
            else is_address.word ~ '^\+[1-9]\d{6,14}$'
        end, false
    )
$$;
comment on function notify.is_address(text, text) is 'Whether a word can be written to, by mail or by SMS.';

create table notify.suppressions (
    address text not null,
    reason text not null,
    detail text not null default '',
    suppressed_at timestamptz not null default ops.now(),
    constraint suppressions_pkey primary key (address),
    constraint suppressions_address_is_folded check (address = lower(address)),
    constraint suppressions_reason_is_known check (reason in ('bounced', 'complained', 'by hand'))
);
alter table notify.suppressions enable row level security;
create policy suppressions_nobody on notify.suppressions using (false);
comment on table notify.suppressions is 'Addresses that are not written to any more.';
comment on column notify.suppressions.address is 'The address or number, in lower case.';
comment on column notify.suppressions.reason is 'bounced, complained, or by hand.';
comment on column notify.suppressions.detail is 'What the provider said.';
comment on column notify.suppressions.suppressed_at is 'Since when.';

create table notify.messages (
    id uuid not null default gen_random_uuid(),
    workspace_id uuid,
    channel text not null,
    kind text not null,
    recipient text not null,
    recipient_id uuid,
    subject text not null default '',
    html text not null default '',
    body text not null,
    headers jsonb not null default '{}',
    sender text,
    is_transactional boolean not null default false,
    has_secret boolean not null default false,
    state text not null default 'pending',
    batch_id uuid not null default gen_random_uuid(),
    provider_id text,
    attempts bigint not null default 0,
    last_error text,
    created_at timestamptz not null default ops.now(),
    first_attempt_at timestamptz,
    sent_at timestamptz,
    settled_at timestamptz,
    constraint messages_pkey primary key (id),
    constraint messages_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint messages_are_to_somebody foreign key (recipient_id) references public.profiles (id) on delete cascade,
    constraint messages_channel_is_known check (channel in ('email', 'sms')),
    constraint messages_state_is_known check (
        state in ('pending', 'sending', 'sent', 'delivered', 'bounced', 'complained', 'suppressed', 'failed')
    ),
    constraint messages_recipient_is_an_address check (notify.is_address(channel, recipient)),
    constraint messages_subject_is_a_line check (length(subject) <= 300 and subject !~ '[[:cntrl:]]'),
    constraint messages_headers_are_lines check (
        jsonb_typeof(headers) = 'object' and headers::text !~ '\\[nrtbf]|\\u00[01]'
    ),
    constraint messages_sms_are_short check (channel <> 'sms' or length(body) <= 1600)
);
alter table notify.messages enable row level security;
create policy messages_nobody on notify.messages using (false);
create index messages_batch_id on notify.messages (batch_id);
create index messages_provider_id on notify.messages (provider_id) where provider_id is not null;
create index messages_recipient_id on notify.messages (recipient_id) where recipient_id is not null;
create index messages_recipient on notify.messages (lower(recipient));
create index messages_workspace_id on notify.messages (workspace_id, created_at desc) where workspace_id is not null;
create index messages_created_at on notify.messages (created_at);
comment on table notify.messages is 'The outbox: every mail and SMS, and what became of it.';
comment on column notify.messages.id is 'The message.';
comment on column notify.messages.workspace_id is 'For which tenant; null for the house.';
comment on column notify.messages.channel is 'email or sms.';
comment on column notify.messages.kind is 'What it is: digest, invitation, auth.recovery or a kind of notification.';
comment on column notify.messages.recipient is 'The address or number.';
comment on column notify.messages.recipient_id is 'The person, where it is one who signs in.';
comment on column notify.messages.subject is 'The subject: one line.';
comment on column notify.messages.html is 'The mail in HTML.';
comment on column notify.messages.body is 'The mail in plain text, or the SMS.';
comment on column notify.messages.headers is 'More headers: how to unsubscribe.';
comment on column notify.messages.sender is 'Whom it says it is from; settled when it is first tried.';
comment on column notify.messages.is_transactional is 'Whether it is strictly needed, so that nobody can unsubscribe.';
comment on column notify.messages.has_secret is
'Whether it holds a token; then it is emptied once it was sent, or never will be.';
comment on column notify.messages.state is
'pending, sending, sent, delivered, bounced, complained; suppressed where the address is not written to; or failed.';
comment on column notify.messages.batch_id is
'What is handed to the provider together. Never changes once it was tried: it is the idempotency key.';
comment on column notify.messages.provider_id is 'What the provider calls it.';
comment on column notify.messages.attempts is 'How often it was tried.';
comment on column notify.messages.last_error is 'Why the last attempt failed, or why it is suppressed.';
comment on column notify.messages.created_at is 'When it was written.';
comment on column notify.messages.first_attempt_at is 'When it was first tried: providers remember keys for a day.';
comment on column notify.messages.sent_at is 'When the provider took it.';
comment on column notify.messages.settled_at is 'When it was delivered, bounced, suppressed or given up.';

create function notify.forget_secret() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    new.html := '';
    new.body := '[not kept]';
    return new;
end
$$;
comment on function notify.forget_secret() is
'Trigger: a token stays in the outbox no longer than it takes to send it.';

create trigger messages_forget_secret before update of state on notify.messages
for each row when (new.has_secret and new.state not in ('pending', 'sending'))
execute function notify.forget_secret();

create table notify.provider_events (
    id text not null,
    type text not null,
    provider_id text,
    detail jsonb not null default '{}',
    message_id uuid,
    received_at timestamptz not null default ops.now(),
    constraint provider_events_pkey primary key (id),
    constraint provider_events_id_is_short check (length(id) <= 200),
    constraint provider_events_tell_of_a_message foreign key (message_id)
    references notify.messages (id) on delete cascade
);
alter table notify.provider_events enable row level security;
create policy provider_events_nobody on notify.provider_events using (false);
create index provider_events_provider_id on notify.provider_events (provider_id) where message_id is null;
create index provider_events_message_id on notify.provider_events (message_id);
create index provider_events_received_at on notify.provider_events (received_at);
comment on table notify.provider_events is 'What providers told of messages, each once.';
comment on column notify.provider_events.id is 'What the provider calls the event.';
comment on column notify.provider_events.type is 'Such as email.bounced.';
comment on column notify.provider_events.provider_id is 'The message, as the provider calls it.';
comment on column notify.provider_events.detail is 'Why it bounced.';
comment on column notify.provider_events.message_id is 'The message; null while it is not known to be sent.';
comment on column notify.provider_events.received_at is 'When it was told.';

insert into ops.not_exported (relation, reason)
values
('notify.messages', 'They were sent; they hold addresses and tokens.'),
('jobs.jobs', 'What is under way belongs to the database that does it.'),
('jobs.history', 'What was done belongs to the database that did it.');

create function notify.write_message(
    channel text,
    kind text,
    recipient text,
    rendered notify.rendered,
    workspace_id uuid default null,
    recipient_id uuid default null,
    is_transactional boolean default true,
    has_secret boolean default false,
    headers jsonb default '{}'
) returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    made notify.messages;
begin
    insert into notify.messages (
        workspace_id, channel, kind, recipient, recipient_id, subject, html, body, headers, is_transactional, has_secret
    ) values (
        write_message.workspace_id, write_message.channel, write_message.kind, write_message.recipient,
        write_message.recipient_id, coalesce(rendered.subject, ''), coalesce(rendered.html, ''), rendered.body,
        write_message.headers, write_message.is_transactional, write_message.has_secret
    ) returning * into made;
    perform jobs.enqueue(
        'notify.send', jsonb_build_object('batch_id', made.batch_id), write_message.workspace_id,
        -- Whoever waits for a link comes before those who wait for a digest.
        priority => case when write_message.is_transactional then 10 else 100 end
    );
    return made.id;
end
$$;
comment on function notify.write_message(
    text, text, text, notify.rendered, uuid, uuid, boolean, boolean, jsonb
) is
'Writes one message to the outbox, and asks for it to be sent, when this transaction commits. Returns its id.';

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
