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
