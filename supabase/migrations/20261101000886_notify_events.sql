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
