-- Why: what others call: Supabase Auth for its own mails, clients for a workspace's brand, edge functions for
--      delivery; and
--      what erasing a person does to all that was told and written.
-- Locks: none on existing tables.
-- Workers: need not stop.

-- Supabase Auth's own mails ------------------------------------------------------------------

create function notify.url_encode(word text) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    -- RFC 3986: byte by byte, but for what needs it not.
    select coalesce(
        string_agg(
            case
                when chr(b.byte) ~ '^[A-Za-z0-9._~-]$' then chr(b.byte) else '%' || upper(lpad(to_hex(b.byte), 2, '0'))
            end,
            '' order by b.place
        ), ''
    )
    from (
        select get_byte(convert_to(url_encode.word, 'UTF8'), p.place) as byte, p.place
        from generate_series(0, octet_length(url_encode.word) - 1) as p (place)
    ) as b
$$;
comment on function notify.url_encode(text) is 'A word as a URL''s query takes it.';

create function notify.mail_for_auth(
    address text, person uuid, action text, token text, token_hash text, redirect_to text
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    look notify.look := notify.look_of(null);
    words text[] := case mail_for_auth.action
        when 'signup' then array['Confirm your address', 'Welcome. One step is left: confirm that this address is yours.', 'Confirm']
        when 'invite' then array['You are invited', 'You are invited to sign up.', 'Accept']
        when 'magiclink' then array['Your link to sign in', 'This link signs you in, once.', 'Sign in']
        when 'recovery' then array['Choose a new password', 'Somebody, probably you, asked for a new password.', 'Choose a password']
        when 'email_change' then array['Confirm your new address', 'Confirm that this is to be your address.', 'Confirm']
        when 'reauthentication' then array['Your code', 'Enter this code to go on.', null]
        else array[
            initcap(replace(replace(mail_for_auth.action, '_notification', ''), '_', ' ')),
            format('This happened to your account at %s. Sign in and look, if it was not you.', look.name), null
        ]
    end;
begin
    perform notify.write_message(
        'email', 'auth.' || mail_for_auth.action, mail_for_auth.address,
        notify.compose(
            look, words[1],
            array[words[2], case when mail_for_auth.token <> '' then format('Your code is %s.', mail_for_auth.token) end],
            words[3],
            case
                when words[3] is not null and mail_for_auth.token_hash <> '' then format(
                    '%s/verify?token=%s&type=%s&redirect_to=%s', (select s.auth_url from notify.settings s),
                    notify.url_encode(mail_for_auth.token_hash), mail_for_auth.action,
                    notify.url_encode(coalesce(nullif(mail_for_auth.redirect_to, ''), look.site_url))
                )
            end,
            'Ignore this mail if you did not ask for it: nothing happens then.'
        ),
        null, (select p.id from public.profiles p where p.id = mail_for_auth.person), has_secret => true
    );
end
$$;
comment on function notify.mail_for_auth(text, uuid, text, text, text, text) is 'Writes one of Supabase Auth''s mails.';

create function notify.send_auth_email(event jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    data jsonb := send_auth_email.event -> 'email_data';
    person uuid := (send_auth_email.event #>> '{user,id}')::uuid;
    action text := data ->> 'email_action_type';
    address text := send_auth_email.event #>> '{user,email}';
    new_address text := nullif(send_auth_email.event #>> '{user,new_email}', '');
begin
    if action is null or action !~ '^[a-z_]{1,40}$' or not notify.is_address('email', coalesce(new_address, address)) then
        return '{"error": {"http_code": 400, "message": "There is no such mail, or no such address."}}'::jsonb;
    end if;
    if action = 'email_change' and new_address is not null then
        -- The hash for the old address is the one called new, and the other way round: so it is in Supabase Auth.
        -- https://supabase.com/docs/guides/auth/auth-hooks/send-email-hook
        if coalesce(data ->> 'token_hash_new', '') <> '' then
            perform notify.mail_for_auth(address, person, action, data ->> 'token', data ->> 'token_hash_new', data ->> 'redirect_to');
            perform notify.mail_for_auth(new_address, person, action, data ->> 'token_new', data ->> 'token_hash', data ->> 'redirect_to');
        else
            perform notify.mail_for_auth(new_address, person, action, data ->> 'token', data ->> 'token_hash', data ->> 'redirect_to');
        end if;
    else
        perform notify.mail_for_auth(address, person, action, data ->> 'token', data ->> 'token_hash', data ->> 'redirect_to');
    end if;
    return '{}'::jsonb;
end
$$;
comment on function notify.send_auth_email(jsonb) is
'Supabase Auth''s hook for sending mails: queues what it would have sent, in the transaction that asks for it.';

select
    audit.watch('notify.brands', 'brands', 'r.workspace_id', 'r.workspace_id'),
    audit.watch('notify.settings', 'mail_settings', null, 'r.singleton', redacted => '{inner_key,outer_key}');

-- Erasure ------------------------------------------------------------------------------------

create function notify.forget_person(person uuid, addresses text[], name text) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    -- A name of a letter or two would be found in everything.
    words text[] := forget_person.addresses
        || case when length(btrim(forget_person.name)) >= 3 then array[lower(btrim(forget_person.name))] else '{}'::text[] end;
    forgotten bigint;
begin
    -- What was told of them, and what was written to them or names them. What is under way is on its way: its batch was
    -- taken, or will be known to the provider when it is tried again.
    delete from public.notifications n
    where
        n.actor_id = forget_person.person
        or exists (select from unnest(words) as w (word) where position(w.word in lower(n.title || ' ' || n.body || ' ' || n.payload::text)) > 0);
    delete from notify.messages m
    where
        lower(m.recipient) = any (forget_person.addresses)
        or exists (select from unnest(words) as w (word) where position(w.word in lower(m.subject || ' ' || m.body)) > 0);
    get diagnostics forgotten = row_count;
    delete from notify.provider_events e
    where exists (select from unnest(forget_person.addresses) as w (word) where position(w.word in lower(e.detail::text)) > 0);
    delete from notify.suppressions s where s.address = any (forget_person.addresses);
    return forgotten;
end
$$;
comment on function notify.forget_person(uuid, text[], text) is
'Deletes notifications and messages that are to a person or name them, and what is known of their addresses; returns
how many messages went.';

-- What clients call --------------------------------------------------------------------------

create function notify.set_brand(
    workspace_id uuid, name text, colour text, logo_url text, texts_customers boolean, mails_receipts boolean
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform authz.require(set_brand.workspace_id, 'workspace.update');
    insert into notify.brands as b (workspace_id, name, colour, logo_url, texts_customers, mails_receipts)
    values (
        set_brand.workspace_id, set_brand.name, set_brand.colour, set_brand.logo_url, set_brand.texts_customers,
        set_brand.mails_receipts
    )
    on conflict on constraint brands_pkey do update
    set
        name = excluded.name, colour = excluded.colour, logo_url = excluded.logo_url,
        texts_customers = excluded.texts_customers, mails_receipts = excluded.mails_receipts, updated_at = ops.now();
exception
    when check_violation then
        perform ops.raise_http(
            400, 'brand_invalid', 'This cannot be a brand.', null,
            'A name of up to 80 characters without <, > and quotes, a colour like #0f766e, a logo by https.'
        );
end
$$;
comment on function notify.set_brand(uuid, text, text, text, boolean, boolean) is 'Behind public.set_brand().';

create function public.set_brand(
    workspace_id uuid, name text, colour text default null, logo_url text default null,
    texts_customers boolean default false, mails_receipts boolean default true
) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select notify.set_brand($1, $2, $3, $4, $5, $6) $$;
comment on function public.set_brand(uuid, text, text, text, boolean, boolean) is
'Says how a workspace''s messages look, and whether its customers get SMS and receipts.';

-- What edge functions call: each of their operations is one of these. --------------------------

create function notify.claim_deliveries(size integer) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    claimed jobs.claimed;
    deliveries jsonb := '[]'::jsonb;
begin
    for claimed in
        select c.* from jobs.claim(array['mail'], claim_deliveries.size, 'deliver', 150) c
    loop
        if claimed.kind = 'notify.send' then
            deliveries := deliveries || jsonb_build_object(
                'job', claimed.id, 'lease', claimed.lease, 'delivery', notify.take((claimed.payload ->> 'batch_id')::uuid)
            );
        else
            perform jobs.release(claimed.lease, array[claimed.id], 30);
        end if;
    end loop;
    return deliveries;
end
$$;
comment on function notify.claim_deliveries(integer) is 'Behind public.claim_deliveries().';

create function notify.settle_delivery(result jsonb) returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    lease uuid := (settle_delivery.result ->> 'lease')::uuid;
    job bigint := (settle_delivery.result ->> 'job')::bigint;
    batch uuid := (settle_delivery.result ->> 'batch_id')::uuid;
    error text := settle_delivery.result ->> 'error';
    outcome text;
begin
    if error is null then
        perform notify.accepted(batch, settle_delivery.result -> 'accepted');
        perform jobs.complete(lease, array[job]);
        return 'completed';
    end if;
    if (settle_delivery.result ->> 'is_known')::boolean then
        perform notify.taken_before(batch, error);
        perform jobs.complete(lease, array[job]);
        return 'completed';
    end if;
    outcome := notify.refused(
        batch, error, coalesce((settle_delivery.result ->> 'is_permanent')::boolean, false),
        coalesce((settle_delivery.result ->> 'counts')::boolean, true)
    );
    if outcome = 'waiting' and not coalesce((settle_delivery.result ->> 'counts')::boolean, true) then
        perform jobs.release(lease, array[job], (settle_delivery.result ->> 'retry_in')::double precision);
    elsif outcome = 'waiting' then
        perform jobs.fail(
            lease, jsonb_build_array(jsonb_build_object('id', job, 'error', error, 'retry_in', settle_delivery.result -> 'retry_in'))
        );
    else
        perform jobs.complete(lease, array[job]);
    end if;
    return outcome;
end
$$;
comment on function notify.settle_delivery(jsonb) is 'Behind public.settle_delivery().';

create function notify.nudge() returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    key text;
begin
    -- Only a nudge: pg_net's queue is unlogged, and the job is the truth. Whoever runs workers has no key in the vault.
    if to_regprocedure('net.http_post(text,jsonb,jsonb,jsonb,integer)') is null
        or to_regclass('vault.decrypted_secrets') is null
        or not exists (
            select from jobs.jobs j
            where j.executor = 'worker' and j.queue = 'mail' and j.state = 'pending' and j.run_at <= ops.now()
        )
    then
        return false;
    end if;
    execute format('select s.decrypted_secret from %s s where s.name = $1', to_regclass('vault.decrypted_secrets')) into key
    using 'service_role_key';
    if key is null then
        return false;
    end if;
    execute format('select %s(url => $1, headers => $2, timeout_milliseconds => 55000)', to_regproc('net.http_post'))
    using
        (select s.functions_url from notify.settings s) || '/deliver',
        jsonb_build_object('Authorization', 'Bearer ' || key, 'Content-Type', 'application/json');
    return true;
end
$$;
comment on function notify.nudge() is
'Has pg_net call the edge function deliver where messages wait, if it is there and the vault holds the secret
service_role_key. Returns whether it did.';

create function public.claim_deliveries(size integer default 10) returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$ select notify.claim_deliveries($1) $$;
comment on function public.claim_deliveries(integer) is
'Batches of messages to hand to their providers, each with the job and lease that settle it. For the service role.';

create function public.settle_delivery(result jsonb) returns text
language sql
set search_path = pg_catalog, pg_temp
as $$ select notify.settle_delivery($1) $$;
comment on function public.settle_delivery(jsonb) is
'How handing over a batch ended: {"job", "lease", "batch_id", "accepted": [{"id", "provider_id"}]}, or with "error",
"is_permanent" and "retry_in" seconds. For the service role.';

create function public.receive_mail_event(id text, event jsonb) returns boolean
language sql
set search_path = pg_catalog, pg_temp
as $$ select notify.receive($1, $2) $$;
comment on function public.receive_mail_event(text, jsonb) is
'Keeps what the mail provider told, once its signature was checked. For the service role.';

create function public.unsubscribe(token text, is_confirmed boolean default false) returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$ select notify.unsubscribe($1, $2) $$;
comment on function public.unsubscribe(text, boolean) is
'What a signed link would end; ends it if that is confirmed. For the service role.';
