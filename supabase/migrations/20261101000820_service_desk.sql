-- Why: the reference app's second part, a repair shop: customers, and the tickets of what they bring in. Status moves
--      along transitions that are data; every move is kept.
-- Locks: none on existing tables.
-- Workers: need not stop.

select authz.register_resource('customers', 'customers');
select authz.register_resource('tickets', 'tickets');

create table public.customers (
    workspace_id uuid not null,
    id uuid not null default gen_random_uuid(),
    name text not null,
    email text,
    phone text,
    notes text not null default '',
    deleted_at timestamptz,
    created_at timestamptz not null default ops.now(),
    updated_at timestamptz not null default ops.now(),
    created_by uuid default authz.user_id(),
    constraint customers_pkey primary key (workspace_id, id),
    constraint customers_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint customers_creator_exists foreign key (created_by) references public.profiles (id) on delete set null,
    constraint customers_name_is_a_line check (length(btrim(name)) between 1 and 200 and name !~ '[[:cntrl:]]'),
    constraint customers_email_is_one check (length(email) <= 320 and email ~ '^[^@\s]+@[^@\s]+$'),
    constraint customers_phone_is_short check (length(phone) <= 50),
    constraint customers_notes_are_short check (length(notes) <= 10000)
);
alter table public.customers enable row level security;
create index customers_created_at on public.customers (workspace_id, created_at desc, id);
create index customers_email on public.customers (workspace_id, lower(email)) where email is not null;
create index customers_created_by on public.customers (created_by) where created_by is not null;
comment on table public.customers is 'Who brings things in to be repaired.';
comment on column public.customers.workspace_id is 'The tenant.';
comment on column public.customers.id is 'The customer.';
comment on column public.customers.name is 'Their name, 1 to 200 characters.';
comment on column public.customers.email is 'Where to write to them.';
comment on column public.customers.phone is 'Where to call them.';
comment on column public.customers.notes is 'What there is to know.';
comment on column public.customers.deleted_at is 'When it was deleted; restore() brings it back.';
comment on column public.customers.created_at is 'When they first came.';
comment on column public.customers.updated_at is 'When the entry last changed.';
comment on column public.customers.created_by is 'Who entered them.';

create table public.ticket_transitions (
    from_status text not null,
    to_status text not null,
    constraint ticket_transitions_pkey primary key (from_status, to_status)
);
alter table public.ticket_transitions enable row level security;
comment on table public.ticket_transitions is 'Which status a ticket can go to from which.';
comment on column public.ticket_transitions.from_status is 'The status it has.';
comment on column public.ticket_transitions.to_status is 'A status it can get next.';

insert into public.ticket_transitions (from_status, to_status)
values
('received', 'diagnosing'), ('received', 'cancelled'),
('diagnosing', 'waiting_for_parts'), ('diagnosing', 'ready'), ('diagnosing', 'cancelled'),
('waiting_for_parts', 'diagnosing'), ('waiting_for_parts', 'ready'), ('waiting_for_parts', 'cancelled'),
('ready', 'diagnosing'), ('ready', 'completed'), ('ready', 'cancelled'),
('completed', 'collected'), ('completed', 'diagnosing'),
('cancelled', 'received'), ('cancelled', 'collected');

create table public.tickets (
    workspace_id uuid not null,
    id uuid not null default gen_random_uuid(),
    number bigint not null default 0,
    customer_id uuid not null,
    device text not null,
    problem text not null default '',
    estimate bigint,
    currency text not null default 'EUR',
    status text not null default 'received',
    assignee_id uuid,
    completed_at timestamptz,
    deleted_at timestamptz,
    created_at timestamptz not null default ops.now(),
    updated_at timestamptz not null default ops.now(),
    created_by uuid default authz.user_id(),
    constraint tickets_pkey primary key (workspace_id, id),
    constraint tickets_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint tickets_belong_to_a_customer foreign key (workspace_id, customer_id)
    references public.customers (workspace_id, id) on delete restrict,
    constraint tickets_assignee_is_a_member foreign key (workspace_id, assignee_id)
    references public.workspace_members (workspace_id, user_id) on delete set null (assignee_id),
    constraint tickets_creator_exists foreign key (created_by) references public.profiles (id) on delete set null,
    -- A number is never given twice, whatever is in the trash.
    constraint tickets_number_is_unique unique (workspace_id, number),
    constraint tickets_number_is_positive check (number > 0),
    constraint tickets_device_is_a_line check (length(btrim(device)) between 1 and 200 and device !~ '[[:cntrl:]]'),
    constraint tickets_problem_is_short check (length(problem) <= 10000),
    constraint tickets_estimate_is_not_negative check (estimate >= 0),
    constraint tickets_currency_is_iso_4217 check (currency ~ '^[A-Z]{3}$'),
    constraint tickets_status_is_known check (
        status in (
            'received', 'diagnosing', 'waiting_for_parts', 'ready', 'completed', 'collected', 'cancelled'
        )
    )
);
alter table public.tickets enable row level security;
create index tickets_customer_id on public.tickets (workspace_id, customer_id);
create index tickets_assignee_id on public.tickets (workspace_id, assignee_id);
create index tickets_status on public.tickets (workspace_id, status, created_at desc);
create index tickets_created_at on public.tickets (workspace_id, created_at desc, id);
create index tickets_created_by on public.tickets (created_by) where created_by is not null;
comment on table public.tickets is 'What is in for repair.';
comment on column public.tickets.workspace_id is 'The tenant.';
comment on column public.tickets.id is 'The ticket.';
comment on column public.tickets.number is 'Its number in the workspace, from 1 on.';
comment on column public.tickets.customer_id is 'Whose it is; the customer stays while there is a ticket.';
comment on column public.tickets.device is 'What it is.';
comment on column public.tickets.problem is 'What is wrong with it.';
comment on column public.tickets.estimate is 'What the repair may cost, in minor units of the currency.';
comment on column public.tickets.currency is 'ISO 4217; stays once there is money on the ticket.';
comment on column public.tickets.status is
'received, diagnosing, waiting_for_parts, ready, completed, collected or cancelled, as ticket_transitions allows.';
comment on column public.tickets.assignee_id is 'Who repairs it: a member of the workspace.';
comment on column public.tickets.completed_at is 'When it was last completed.';
comment on column public.tickets.deleted_at is 'When it was deleted; restore() brings it back.';
comment on column public.tickets.created_at is 'When it came in.';
comment on column public.tickets.updated_at is 'When it last changed.';
comment on column public.tickets.created_by is 'Who took it in.';

create table public.ticket_status_changes (
    workspace_id uuid not null,
    id uuid not null default gen_random_uuid(),
    ticket_id uuid not null,
    from_status text,
    to_status text not null,
    deleted_at timestamptz,
    created_at timestamptz not null default ops.now(),
    updated_at timestamptz not null default ops.now(),
    created_by uuid default authz.user_id(),
    constraint ticket_status_changes_pkey primary key (workspace_id, id),
    constraint ticket_status_changes_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint ticket_status_changes_belong_to_a_ticket foreign key (workspace_id, ticket_id)
    references public.tickets (workspace_id, id) on delete cascade,
    constraint ticket_status_changes_creator_exists foreign key (created_by)
    references public.profiles (id) on delete set null
);
alter table public.ticket_status_changes enable row level security;
create index ticket_status_changes_ticket_id on public.ticket_status_changes (workspace_id, ticket_id, created_at);
create index ticket_status_changes_to_status
on public.ticket_status_changes (workspace_id, to_status, created_at desc);
create index ticket_status_changes_created_by on public.ticket_status_changes (created_by)
where created_by is not null;
comment on table public.ticket_status_changes is
'Every status a ticket had, written by the ticket itself: what waits for a ticket to be completed reads it here.';
comment on column public.ticket_status_changes.workspace_id is 'The tenant.';
comment on column public.ticket_status_changes.id is 'The change.';
comment on column public.ticket_status_changes.ticket_id is 'The ticket.';
comment on column public.ticket_status_changes.from_status is 'What it was; null when it came in.';
comment on column public.ticket_status_changes.to_status is 'What it became.';
comment on column public.ticket_status_changes.deleted_at is 'When it was deleted, with its ticket.';
comment on column public.ticket_status_changes.created_at is 'When.';
comment on column public.ticket_status_changes.updated_at is 'When the entry last changed.';
comment on column public.ticket_status_changes.created_by is 'By whom.';

-- Numbers ------------------------------------------------------------------------------------

create table tenancy.counters (
    workspace_id uuid not null,
    name text not null,
    last_number bigint not null,
    constraint counters_pkey primary key (workspace_id, name),
    constraint counters_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade
) with (fillfactor = 50);
alter table tenancy.counters enable row level security;
create policy counters_nobody on tenancy.counters using (false);
comment on table tenancy.counters is
'The numbers that each workspace counts for itself: a sequence would tell of the others.';
comment on column tenancy.counters.workspace_id is 'The tenant.';
comment on column tenancy.counters.name is 'What is counted.';
comment on column tenancy.counters.last_number is 'The last number given.';

create function tenancy.next_number(workspace_id uuid, name text) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    given bigint;
begin
    insert into tenancy.counters as c (workspace_id, name, last_number)
    values (next_number.workspace_id, next_number.name, 1)
    on conflict on constraint counters_pkey do update set last_number = c.last_number + 1
    returning c.last_number into given;
    return given;
end
$$;
comment on function tenancy.next_number(uuid, text) is
'The next number of a workspace, from 1 without a gap: whoever asks meanwhile waits for the commit.';

create function tenancy.guard_ticket() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'INSERT' then
        if ops.is_allowed('import') then
            return new;
        end if;
        new.status := 'received';
        new.completed_at := null;
        -- What is here already, or whose workspace is not, is not inserted: no number is spent on it.
        if exists (select from public.workspaces w where w.id = new.workspace_id)
            and not exists (select from public.tickets t where t.workspace_id = new.workspace_id and t.id = new.id)
        then
            new.number := tenancy.next_number(new.workspace_id, 'tickets');
        else
            new.number := 1;
        end if;
        return new;
    end if;
    if new.number is distinct from old.number then
        raise exception 'a ticket keeps its number' using errcode = 'insufficient_privilege';
    end if;
    if new.status is distinct from old.status then
        if not exists (
            select from public.ticket_transitions t
            where t.from_status = old.status and t.to_status = new.status
        ) then
            perform ops.raise_http(
                409, 'transition_not_allowed', format('A ticket cannot go from %s to %s.', old.status, left(new.status, 50)),
                jsonb_build_object('from', old.status),
                coalesce(
                    (
                        select 'Next can be: ' || string_agg(t.to_status, ', ' order by t.to_status) || '.'
                        from public.ticket_transitions t where t.from_status = old.status
                    ),
                    'Nothing comes after it.'
                )
            );
        end if;
        if new.status = 'completed' then
            new.completed_at := ops.now();
        end if;
    end if;
    return new;
end
$$;
comment on function tenancy.guard_ticket() is
'Trigger: numbers a ticket, and lets its status move as ticket_transitions says.';

create trigger tickets_guard before insert or update of status, number on public.tickets
for each row execute function tenancy.guard_ticket();

create function tenancy.keep_status_change() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if ops.is_allowed('import') then
        return null;
    end if;
    insert into public.ticket_status_changes (workspace_id, ticket_id, from_status, to_status)
    values (new.workspace_id, new.id, case when tg_op = 'UPDATE' then old.status end, new.status);
    return null;
end
$$;
comment on function tenancy.keep_status_change() is 'Trigger: writes the history of a ticket''s status.';

create trigger tickets_came_in after insert on public.tickets
for each row execute function tenancy.keep_status_change();
create trigger tickets_moved_on after update of status on public.tickets
for each row when (old.status is distinct from new.status) execute function tenancy.keep_status_change();

select tenancy.adopt_table(
    'public.customers', 'customers',
    searchable => '{name,email,phone,notes}',
    erasure => '{"name": "anonymise", "email": "anonymise", "phone": "anonymise", "notes": "anonymise"}',
    identified_by => 'email'
);
select tenancy.adopt_table(
    'public.tickets', 'tickets',
    limits => '{"free": 50, "pro": 10000, "enterprise": null}',
    searchable => '{device,problem}',
    erasure => '{
        "device": "keep", "problem": "keep", "currency": "keep", "status": "keep", "assignee_id": "anonymise"
    }'
);
select tenancy.adopt_table(
    'public.ticket_status_changes', 'tickets', erasure => '{"from_status": "keep", "to_status": "keep"}'
);
insert into tenancy.other_tables (relation, reason)
values ('public.ticket_transitions', 'A catalogue, the same for all.');
