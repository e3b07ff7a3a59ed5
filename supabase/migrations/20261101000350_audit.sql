-- Why: who changed what, when, from where. A record is written in the transaction of the change it tells of,
--      into audit.inbox; audit.seal() moves records on into a chain that shows any later change.
-- Locks: none on existing tables.
-- Workers: need not stop.

create schema audit;
comment on schema audit is 'Who changed what, when, from where; sealed against changes.';

create table audit.settings (
    singleton boolean not null default true,
    trusted_proxies bigint not null default 1,
    constraint settings_pkey primary key (singleton),
    constraint settings_has_one_row check (singleton),
    constraint settings_trusted_proxies_is_a_number_of_hops check (trusted_proxies between 0 and 20)
);
alter table audit.settings enable row level security;
create policy settings_nobody on audit.settings using (false);
insert into audit.settings default values;
comment on table audit.settings is 'How audit records are written.';
comment on column audit.settings.singleton is 'Keeps the table at one row.';
comment on column audit.settings.trusted_proxies is
'How many proxies of ours append to X-Forwarded-For; the hop before them is the client, whatever it claims itself.';

-- Who asks -----------------------------------------------------------------------------------

create type audit.origin as (
    actor_kind text, actor_id uuid, actor_name text, on_behalf_of uuid, ip inet, user_agent text, request_id text
);
comment on type audit.origin is 'Who a change comes from, and by which request.';

create function audit.client_ip(forwarded_for text, trusted_proxies bigint) returns inet
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    hops text[] := string_to_array(client_ip.forwarded_for, ',');
    hop text;
begin
    -- Each proxy appends whom it was called by. Only what our own proxies wrote can be believed: the
    -- outermost of them wrote the client's address, so many places from the right as there are of them.
    hop := btrim(hops[cardinality(hops) + 1 - client_ip.trusted_proxies]);
    if client_ip.trusted_proxies < 1 or hop is null or hop !~ '^[0-9a-fA-F:.]{2,45}$' then
        return null;
    end if;
    return hop::inet;
exception
    when invalid_text_representation then return null;
end
$$;
comment on function audit.client_ip(text, bigint) is
'The hop of X-Forwarded-For that the outermost of our proxies wrote; null if there is none or it is no address.';

create function audit.origin() returns audit.origin
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    claims jsonb := authz.claims();
    headers jsonb;
    actor text := nullif(current_setting('rowhouse.actor', true), '');
    origin audit.origin;
begin
    if claims = '{}' then
        -- No request: whoever holds a connection of their own says who they are.
        if actor is not null then
            origin.actor_kind := split_part(actor, ':', 1);
            origin.actor_name := substr(actor, length(origin.actor_kind) + 2);
            origin.on_behalf_of := nullif(current_setting('rowhouse.on_behalf_of', true), '')::uuid;
        -- As a background worker pg_cron has no name of its own.
        elsif current_setting('application_name') = 'pg_cron' or (
            current_setting('application_name') = ''
            and (select a.backend_type from pg_stat_get_activity(pg_backend_pid()) a) = 'pg_cron'
        ) then
            origin.actor_kind := 'cron';
        else
            origin.actor_kind := 'database';
            origin.actor_name := session_user::text;
        end if;
        return origin;
    end if;

    if claims ->> 'role' = 'service_role' then
        origin.actor_kind := 'service';
    elsif claims ->> 'sub' ~ '^[0-9a-fA-F-]{36}$' then
        origin.actor_kind := 'user';
        origin.actor_id := (claims ->> 'sub')::uuid;
        -- RFC 8693: who acts for the subject, such as support for a customer.
        if claims #>> '{act,sub}' ~ '^[0-9a-fA-F-]{36}$' then
            origin.on_behalf_of := origin.actor_id;
            origin.actor_id := (claims #>> '{act,sub}')::uuid;
        end if;
    else
        origin.actor_kind := 'anonymous';
    end if;
    headers := nullif(current_setting('request.headers', true), '')::jsonb;
    if headers is not null then
        origin.ip := audit.client_ip(
            headers ->> 'x-forwarded-for', (select s.trusted_proxies from audit.settings s)
        );
        origin.user_agent := left(headers ->> 'user-agent', 500);
        origin.request_id := left(
            coalesce(headers ->> 'x-request-id', headers ->> 'sb-request-id', headers ->> 'cf-ray'), 200
        );
    end if;
    return origin;
end
$$;
comment on function audit.origin() is
'Who the current transaction works for: the person or service of the request, or the job, schedule, command or
database user behind it.';

create function audit.act_as(kind text, name text, on_behalf_of uuid default null) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if act_as.kind not in ('job', 'cron', 'cli') then
        raise exception 'there is no kind of actor %', quote_literal(act_as.kind)
            using errcode = 'invalid_parameter_value', hint = 'Use job, cron or cli.';
    end if;
    perform set_config('rowhouse.actor', act_as.kind || ':' || left(act_as.name, 200), true);
    perform set_config('rowhouse.on_behalf_of', coalesce(act_as.on_behalf_of::text, ''), true);
end
$$;
comment on function audit.act_as(text, text, uuid) is
'Names the actor (job, cron or cli) of this transaction''s audit records, and on whose behalf. For operators, workers.';

-- Records ------------------------------------------------------------------------------------

-- One row for each change, in the order they were written. Whoever writes appends here and waits for nobody:
-- two small indexes, no partition to choose, no chain to hold.
create table audit.inbox (
    number bigint not null generated always as identity,
    id uuid not null default gen_random_uuid(),
    transaction_id xid8 not null default pg_current_xact_id(),
    occurred_at timestamptz not null default now(),
    workspace_id uuid,
    action text not null,
    resource text not null,
    row_id text,
    changed text[],
    before jsonb,
    after jsonb,
    actor_kind text not null,
    actor_id uuid,
    actor_name text,
    on_behalf_of uuid,
    ip inet,
    user_agent text,
    request_id text,
    digest bytea,
    constraint inbox_pkey primary key (number),
    constraint inbox_occurred_at_is_a_time check (isfinite(occurred_at))
);
alter table audit.inbox enable row level security;
create index inbox_workspace_id on audit.inbox (workspace_id, occurred_at desc, id);
comment on table audit.inbox is 'Records that are not sealed yet; audit.seal() moves them to audit.entries.';
comment on column audit.inbox.number is 'The order of writing. Never shown to tenants: it counts everybody''s changes.';
comment on column audit.inbox.id is 'The record.';
comment on column audit.inbox.transaction_id is 'The transaction that made the change, and the record.';
comment on column audit.inbox.occurred_at is 'When that transaction began.';
comment on column audit.inbox.workspace_id is 'The tenant; null for what belongs to none.';
comment on column audit.inbox.action is 'What was done, such as tasks.update.';
comment on column audit.inbox.resource is 'The table, or the kind of thing.';
comment on column audit.inbox.row_id is 'Which one.';
comment on column audit.inbox.changed is 'The columns that an update changed.';
comment on column audit.inbox.before is 'Their values before; a column that was null is left out.';
comment on column audit.inbox.after is 'Their values after, or those a new row has; null is left out.';
comment on column audit.inbox.actor_kind is 'user, service, anonymous, job, cron, cli or database.';
comment on column audit.inbox.actor_id is 'The person, if it was one.';
comment on column audit.inbox.actor_name is 'The job, schedule, operator or database role, if it was one.';
comment on column audit.inbox.on_behalf_of is 'For whom they acted, if not for themselves.';
comment on column audit.inbox.ip is 'From where, as our outermost proxy saw it.';
comment on column audit.inbox.user_agent is 'With what, as the client says.';
comment on column audit.inbox.request_id is 'The request, as the gateway numbers them.';
comment on column audit.inbox.digest is 'A hash over all of what it tells of, where that must never change.';

-- The same, sealed. A partition holds what is kept until the same month, whoever's it is: what is past its
-- retention goes by the partition. The key needs no foreign one: a record outlives what it tells of.
create table audit.entries (
    kept_until date not null,
    position bigint not null,
    seal_number bigint not null,
    number bigint not null,
    id uuid not null,
    transaction_id xid8 not null,
    occurred_at timestamptz not null,
    workspace_id uuid,
    action text not null,
    resource text not null,
    row_id text,
    changed text[],
    before jsonb,
    after jsonb,
    actor_kind text not null,
    actor_id uuid,
    actor_name text,
    on_behalf_of uuid,
    ip inet,
    user_agent text,
    request_id text,
    digest bytea,
    salt uuid,
    details_hash bytea not null,
    entry_hash bytea not null,
    erased_by uuid,
    constraint entries_pkey primary key (kept_until, position),
    constraint entries_erased_ones_are_empty check (
        erased_by is null
        or (before is null and after is null and ip is null and user_agent is null and salt is null)
    )
) partition by range (kept_until);
alter table audit.entries enable row level security;
create index entries_workspace_id on audit.entries (workspace_id, occurred_at desc, id);
create index entries_seal_number on audit.entries using brin (seal_number);
comment on table audit.entries is 'Sealed records, by the month until which they are kept.';
comment on column audit.entries.kept_until is 'The first day of the month in which they may go.';
comment on column audit.entries.position is 'Its place among those kept as long, without a gap.';
comment on column audit.entries.seal_number is 'The seal that covers it.';
comment on column audit.entries.number is 'As in audit.inbox, like all columns up to digest.';
comment on column audit.entries.id is 'The record.';
comment on column audit.entries.transaction_id is 'The transaction.';
comment on column audit.entries.occurred_at is 'When.';
comment on column audit.entries.workspace_id is 'The tenant.';
comment on column audit.entries.action is 'What was done.';
comment on column audit.entries.resource is 'To what kind of thing.';
comment on column audit.entries.row_id is 'Which one.';
comment on column audit.entries.changed is 'The columns that an update changed.';
comment on column audit.entries.before is 'Their values before.';
comment on column audit.entries.after is 'Their values after.';
comment on column audit.entries.actor_kind is 'What kind of actor.';
comment on column audit.entries.actor_id is 'The person.';
comment on column audit.entries.actor_name is 'The job, schedule, operator or role.';
comment on column audit.entries.on_behalf_of is 'For whom.';
comment on column audit.entries.ip is 'From where.';
comment on column audit.entries.user_agent is 'With what.';
comment on column audit.entries.request_id is 'By which request.';
comment on column audit.entries.digest is 'A hash over all of what it tells of; never erased.';
comment on column audit.entries.salt is 'Keeps the details from being guessed from their hash.';
comment on column audit.entries.details_hash is
'SHA-256 of salt, values, address and user agent: these can be erased, and the chain still holds.';
comment on column audit.entries.entry_hash is 'SHA-256 of everything else and details_hash.';
comment on column audit.entries.erased_by is 'The id of the record that tells why its details were erased.';

create trigger inbox_is_append_only before update or delete on audit.inbox
for each row execute function ops.refuse_change('seal', 'erase');
create trigger inbox_is_never_truncated before truncate on audit.inbox
for each statement execute function ops.refuse_change();
create trigger entries_are_append_only before update or delete on audit.entries
for each row execute function ops.refuse_change('erase');
create trigger entries_are_never_truncated before truncate on audit.entries
for each statement execute function ops.refuse_change();

create function audit.write(
    action text, workspace_id uuid, resource text, row_id text, before jsonb default null, after jsonb default null,
    digest bytea default null, id uuid default gen_random_uuid()
) returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    origin audit.origin := audit.origin();
begin
    insert into audit.inbox (
        id, workspace_id, action, resource, row_id, before, after,
        actor_kind, actor_id, actor_name, on_behalf_of, ip, user_agent, request_id, digest
    ) values (
        write.id, write.workspace_id, write.action, write.resource, write.row_id, write.before, write.after,
        origin.actor_kind, origin.actor_id, origin.actor_name, origin.on_behalf_of,
        origin.ip, origin.user_agent, origin.request_id, write.digest
    );
    return write.id;
end
$$;
comment on function audit.write(text, uuid, text, text, jsonb, jsonb, bytea, uuid) is
'Records something that is no change of a row. Returns the id of the record. For definer functions.';

-- Partitions ---------------------------------------------------------------------------------

create function audit.kept_until(occurred_at timestamptz, months bigint) returns date
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    -- The first of a month, by which at least so many whole months have passed.
    select (
        date_trunc('month', kept_until.occurred_at at time zone 'UTC')
        + make_interval(months => kept_until.months::integer + 1)
    )::date
$$;
comment on function audit.kept_until(timestamptz, bigint) is
'The month in which a record may go that is kept for so many months.';

create function audit.partition_of(kept_until date) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 'entries_until_' || to_char(partition_of.kept_until, 'YYYY_MM') $$;
comment on function audit.partition_of(date) is 'The name of the partition of a month.';

create function audit.ensure_partition(kept_until date) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if to_regclass('audit.' || audit.partition_of(ensure_partition.kept_until)) is not null then
        return;
    end if;
    execute format(
        'create table audit.%I partition of audit.entries for values from (%L) to (%L)',
        audit.partition_of(ensure_partition.kept_until),
        ensure_partition.kept_until, ensure_partition.kept_until + interval '1 month'
    );
    -- Reached through audit.entries alone.
    execute format(
        'alter table audit.%1$I enable row level security; create policy %2$I on audit.%1$I using (false)',
        audit.partition_of(ensure_partition.kept_until), audit.partition_of(ensure_partition.kept_until) || '_nobody'
    );
end
$$;
comment on function audit.ensure_partition(date) is 'Makes the partition of a month, if it is not there.';

create function audit.maintain() returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    month date;
    expired record;
    dropped bigint := 0::bigint;
begin
    for month in
        select distinct audit.kept_until(now() + make_interval(months => ahead), p.audit_months)
        from billing.plans p, generate_series(0, 3) as ahead
        order by 1
    loop
        perform audit.ensure_partition(month);
    end loop;

    for expired in
        select c.oid::regclass as relation, to_date(right(c.relname, 7), 'YYYY_MM') as kept_until
        from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where
            i.inhparent = 'audit.entries'::regclass
            and to_date(right(c.relname, 7), 'YYYY_MM') <= ops.now() at time zone 'UTC'
        order by 2
    loop
        execute format('drop table %s', expired.relation);
        perform audit.write(
            'audit.expire', null, 'audit', to_char(expired.kept_until, 'YYYY-MM')
        );
        dropped := dropped + 1;
    end loop;
    return dropped;
end
$$;
comment on function audit.maintain() is
'Makes the partitions of the months to come, drops those past their retention; returns how many it dropped. Run daily.';

select audit.maintain();
