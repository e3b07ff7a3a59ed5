-- Why: what the house tells of: members, tasks, tickets, payments, limits and suspensions; the mails that are strictly
--      needed, Supabase Auth's own among them; and the SMS of a finished repair. An adopter's tables do it the same
--      way.
-- Locks: adds triggers to invitations, members, tasks, ticket_status_changes, transactions, usage_counters and
--      suspended_workspaces (briefly).
-- Workers: need not stop.

select
    notify.declare_kind(
        'member.invited', '{actor} invited {email}', '{count} people were invited', 'Somebody is invited',
        permission => 'members.invite'
    ),
    notify.declare_kind(
        'member.joined', '{member} joined {workspace}', '{count} people joined', 'Somebody joins', link => '/members',
        permission => 'members.read'
    ),
    notify.declare_kind(
        'task.assigned', '{actor} gave you {task}', '{count} tasks given to you in {project}', 'A task is given to you',
        body => 'It is in the project {project}.', link => '/tasks/{id}', relation => 'public.tasks',
        permission => 'tasks.read', default_frequency => 'immediately'
    ),
    notify.declare_kind(
        'task.completed', '{actor} completed {task} in {project}', '{count} tasks completed in {project}',
        'A task is completed', link => '/tasks/{id}', relation => 'public.tasks', permission => 'tasks.read'
    ),
    notify.declare_kind(
        'ticket.status_changed', 'Ticket {number} ({device}) is now {status}', '{count} tickets are now {status}',
        'A ticket moves on', link => '/tickets/{id}', relation => 'public.tickets', permission => 'tickets.read'
    ),
    notify.declare_kind(
        'payment.received', '{amount} {currency} received for ticket {number}', '{count} payments received',
        'A payment comes in', link => '/tickets/{id}', permission => 'ledger.read'
    ),
    notify.declare_kind(
        'limit.reached', 'All {max} {resource} of the plan are used', '{count} limits of the plan are reached',
        'A limit of the plan is reached', link => '/billing', permission => 'billing.manage',
        default_frequency => 'immediately'
    ),
    notify.declare_kind(
        'workspace.suspended', '{workspace} is suspended', '{count} suspensions', 'The workspace is suspended',
        permission => 'workspace.update', default_frequency => 'never'
    );

create function notify.actor_name() returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(
        (select coalesce(nullif(p.display_name, ''), 'Somebody') from public.profiles p where p.id = authz.user_id()),
        (select s.product_name from notify.settings s)
    )
$$;
comment on function notify.actor_name() is 'What to call whoever does this: the person, or the product itself.';

-- Members ------------------------------------------------------------------------------------

create function notify.tell_of_invitation() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if not ops.is_allowed('import') then
        perform notify.emit(
            new.workspace_id, 'member.invited', new.id,
            jsonb_build_object('actor', notify.actor_name(), 'email', new.email)
        );
    end if;
    return null;
end
$$;
comment on function notify.tell_of_invitation() is 'Trigger: tells those who may invite that somebody is invited.';

create trigger invitations_tell after insert on public.invitations
for each row execute function notify.tell_of_invitation();

create function notify.mail_invitation(workspace_id uuid, invitation_id uuid, token text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    look notify.look := notify.look_of(mail_invitation.workspace_id);
    invitation public.invitations;
    place text;
    inviter text := notify.actor_name();
begin
    select i.* into invitation from public.invitations i
    where i.workspace_id = mail_invitation.workspace_id and i.id = mail_invitation.invitation_id;
    select w.name into place from public.workspaces w where w.id = mail_invitation.workspace_id;
    perform notify.write_message(
        'email', 'invitation', invitation.email,
        notify.compose(
            look, left(format('%s invites you to %s', inviter, place), 300),
            array[
                format('%s invites you to join %s.', inviter, place),
                format('The invitation is for %s, and holds until %s (UTC).', invitation.email,
                    to_char(invitation.expires_at at time zone 'UTC', 'FMDD FMMonth YYYY'))
            ],
            'Accept the invitation', look.site_url || '/invitations/accept#' || mail_invitation.token,
            'You get this once, because somebody entered your address. Ignore it if you do not know them.'
        ),
        mail_invitation.workspace_id, has_secret => true
    );
end
$$;
comment on function notify.mail_invitation(uuid, uuid, text) is 'Mails the link of an invitation.';

create function notify.tell_of_member() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    -- The first member is the one who makes the workspace.
    if not ops.is_allowed('import') and new.role_id <> authz.owner_role() then
        perform notify.emit(
            new.workspace_id, 'member.joined', null,
            jsonb_build_object(
                'member', (select coalesce(nullif(p.display_name, ''), p.email, 'Somebody') from public.profiles p where p.id = new.user_id),
                'workspace', (select w.name from public.workspaces w where w.id = new.workspace_id)
            ),
            array(
                select m.user_id from public.workspace_members m
                where m.workspace_id = new.workspace_id and m.user_id <> new.user_id
            )
        );
    end if;
    return null;
end
$$;
comment on function notify.tell_of_member() is 'Trigger: tells the others that somebody joined.';

create trigger workspace_members_tell after insert on public.workspace_members
for each row execute function notify.tell_of_member();

-- Tasks and tickets --------------------------------------------------------------------------

create function notify.tell_of_task() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    facts jsonb;
begin
    if ops.is_allowed('import') or new.deleted_at is not null then
        return null;
    end if;
    facts := jsonb_build_object(
        'id', new.id, 'task', new.title, 'actor', notify.actor_name(),
        'project', (select p.name from public.projects p where p.workspace_id = new.workspace_id and p.id = new.project_id)
    );
    if new.assignee_id is not null and (tg_op = 'INSERT' or old.assignee_id is distinct from new.assignee_id) then
        perform notify.emit(new.workspace_id, 'task.assigned', new.id, facts, array[new.assignee_id]);
    end if;
    if new.status = 'done' and tg_op = 'UPDATE' and old.status <> 'done' then
        perform notify.emit(new.workspace_id, 'task.completed', new.id, facts);
    end if;
    return null;
end
$$;
comment on function notify.tell_of_task() is 'Trigger: tells of a task that was given to somebody, or completed.';

create trigger tasks_tell_of_new after insert on public.tasks
for each row when (new.assignee_id is not null) execute function notify.tell_of_task();
create trigger tasks_tell after update of status, assignee_id on public.tasks
for each row
when (new.assignee_id is distinct from old.assignee_id or new.status is distinct from old.status)
execute function notify.tell_of_task();

create function notify.tell_of_status() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    ticket public.tickets;
    customer public.customers;
    number text;
begin
    if ops.is_allowed('import') then
        return null;
    end if;
    select t.* into ticket from public.tickets t where t.workspace_id = new.workspace_id and t.id = new.ticket_id;
    perform notify.emit(
        new.workspace_id, 'ticket.status_changed', new.ticket_id,
        jsonb_build_object(
            'id', ticket.id, 'number', ticket.number, 'device', ticket.device, 'status', replace(new.to_status, '_', ' ')
        )
    );
    if new.to_status = 'completed' and exists (
        select from notify.brands b where b.workspace_id = new.workspace_id and b.texts_customers
    ) then
        select c.* into customer from public.customers c
        where c.workspace_id = new.workspace_id and c.id = ticket.customer_id;
        -- As people write numbers. An extension, or a name beside it, makes it somebody else's.
        number := regexp_replace(replace(customer.phone, '(0)', ''), '[\s./()-]', '', 'g');
        if notify.is_address('sms', number) then
            perform notify.write_message(
                'sms', 'ticket.completed', number,
                row(
                    '', '',
                    format(
                        '%s: your %s is repaired (ticket %s). You can collect it.',
                        (notify.look_of(new.workspace_id)).name, left(ticket.device, 100), ticket.number
                    )
                )::notify.rendered,
                new.workspace_id
            );
        end if;
    end if;
    return null;
end
$$;
comment on function notify.tell_of_status() is
'Trigger: tells of a ticket that moved on; its customer by SMS, when the repair is done and the workspace wants it.';

create trigger ticket_status_changes_tell after insert on public.ticket_status_changes
for each row when (new.from_status is not null) execute function notify.tell_of_status();

-- Money and limits ---------------------------------------------------------------------------

create function notify.amount(minor_units bigint, currency text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select round(
        amount.minor_units / power(10::numeric, coalesce(c.minor_digits, 2)), coalesce(c.minor_digits, 2)::integer
    )::text
    from (select 1) as one
    left join ledger.currencies c on c.code = amount.currency
$$;
comment on function notify.amount(bigint, text) is 'An amount of minor units as people write it, without the currency.';

create function notify.tell_of_payment() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    ticket public.tickets;
    customer public.customers;
    paid text;
    look notify.look;
begin
    if ops.is_allowed('import') or new.subject is distinct from 'tickets' then
        return null;
    end if;
    select t.* into ticket from public.tickets t where t.workspace_id = new.workspace_id and t.id = new.subject_id;
    if not found then
        return null;
    end if;
    paid := notify.amount(new.amount, ticket.currency);
    perform notify.emit(
        new.workspace_id, 'payment.received', null,
        jsonb_build_object('id', ticket.id, 'number', ticket.number, 'amount', paid, 'currency', ticket.currency)
    );
    select c.* into customer from public.customers c
    where c.workspace_id = new.workspace_id and c.id = ticket.customer_id;
    if notify.is_address('email', customer.email) and not exists (
        select from notify.brands b where b.workspace_id = new.workspace_id and not b.mails_receipts
    ) then
        look := notify.look_of(new.workspace_id);
        perform notify.write_message(
            'email', 'receipt', customer.email,
            notify.compose(
                look, format('Receipt: %s %s', paid, ticket.currency),
                array[
                    format('Thank you. %s received %s %s for your %s (ticket %s).', (select w.name from public.workspaces w where w.id = new.workspace_id),
                        paid, ticket.currency, ticket.device, ticket.number),
                    format('Paid by %s.', coalesce(new.method, 'other means'))
                ],
                null, null, 'You get this because you paid.'
            ),
            new.workspace_id
        );
    end if;
    return null;
end
$$;
comment on function notify.tell_of_payment() is 'Trigger: tells of a payment, and mails the customer a receipt.';

create trigger transactions_tell after insert on ledger.transactions
for each row when (new.kind = 'payment') execute function notify.tell_of_payment();

create function notify.tell_of_limit() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Not each time that one is deleted and another made.
    if not ops.is_allowed('import') and not exists (
        select from public.notifications n
        where
            n.workspace_id = new.workspace_id and n.kind = 'limit.reached'
            and n.payload ->> 'resource' = new.resource and n.created_at > ops.now() - interval '1 day'
    ) then
        perform notify.emit(
            new.workspace_id, 'limit.reached', null, jsonb_build_object('resource', new.resource, 'max', new.max)
        );
    end if;
    return null;
end
$$;
comment on function notify.tell_of_limit() is 'Trigger: tells who can do something about it that a limit is reached.';

create trigger usage_counters_tell after update of used on billing.usage_counters
for each row
when (new.used >= new.max and old.used < new.max and new.max > 0)
execute function notify.tell_of_limit();

create function notify.tell_of_suspension() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    look notify.look := notify.look_of(null);
    place text;
    owner record;
begin
    select w.name into place from public.workspaces w where w.id = new.workspace_id;
    -- Before the row is there: behind it the door is shut, and there is nobody to tell.
    if not exists (select from authz.suspended_workspaces s where s.workspace_id = new.workspace_id) then
        perform notify.emit(new.workspace_id, 'workspace.suspended', null, jsonb_build_object('workspace', place));
        for owner in
            select p.id, p.email from public.workspace_members m join public.profiles p on p.id = m.user_id
            where
                m.workspace_id = new.workspace_id and m.role_id = authz.owner_role()
                and notify.is_address('email', p.email)
            order by p.id
        loop
            perform notify.write_message(
                'email', 'suspension', owner.email,
                notify.compose(
                    look, format('%s is suspended', place),
                    array[
                        format('The workspace %s is suspended: nobody in it sees anything until it is resumed.', place),
                        'Nothing is lost. Answer this mail, or ask support, to learn why.'
                    ],
                    null, null, 'You get this because you own the workspace.'
                ),
                new.workspace_id, owner.id
            );
        end loop;
    end if;
    return new;
end
$$;
comment on function notify.tell_of_suspension() is
'Trigger: tells a workspace and mails its owners that it is suspended.';

create trigger suspended_workspaces_tell before insert on authz.suspended_workspaces
for each row execute function notify.tell_of_suspension();

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
