-- Why: records are sealed in the background: each seal covers the records since the one before it and that seal
--      itself, so that an edit, a deletion, an insertion, another order or a cut tail shows.
-- Locks: none on existing tables.
-- Workers: need not stop.

create table audit.seals (
    number bigint not null,
    kept_until date not null,
    first_position bigint not null,
    last_position bigint not null,
    sealed_at timestamptz not null,
    entries_hash bytea not null,
    previous_hash bytea not null,
    hash bytea not null,
    constraint seals_pkey primary key (number),
    constraint seals_cover_something check (first_position <= last_position)
);
alter table audit.seals enable row level security;
create policy seals_nobody on audit.seals using (false);
create unique index seals_positions on audit.seals (kept_until, first_position);
comment on table audit.seals is 'The chain: one seal after the other over what was sealed. Outlives what it covers.';
comment on column audit.seals.number is 'Its place in the chain, from 1 without a gap.';
comment on column audit.seals.kept_until is 'Which partition it covers a piece of.';
comment on column audit.seals.first_position is 'From which record.';
comment on column audit.seals.last_position is 'To which record.';
comment on column audit.seals.sealed_at is 'When.';
comment on column audit.seals.entries_hash is 'SHA-256 of the hashes of the records, in their order.';
comment on column audit.seals.previous_hash is 'The hash of the seal before; 32 zero bytes for the first.';
comment on column audit.seals.hash is 'SHA-256 of all the columns before.';

create trigger seals_are_append_only before update or delete on audit.seals
for each row execute function ops.refuse_change();
create trigger seals_are_never_truncated before truncate on audit.seals
for each statement execute function ops.refuse_change();

create table audit.chain_head (
    singleton boolean not null default true,
    seal_number bigint not null,
    hash bytea not null,
    constraint chain_head_pkey primary key (singleton),
    constraint chain_head_has_one_row check (singleton)
);
alter table audit.chain_head enable row level security;
create policy chain_head_nobody on audit.chain_head using (false);
insert into audit.chain_head (seal_number, hash) values (0, decode(repeat('00', 32), 'hex'));
comment on table audit.chain_head is 'Where the chain ends, so that a cut tail shows.';
comment on column audit.chain_head.singleton is 'Keeps the table at one row.';
comment on column audit.chain_head.seal_number is 'The last seal.';
comment on column audit.chain_head.hash is 'Its hash.';

-- Hashes -------------------------------------------------------------------------------------

create function audit.details_hash(salt uuid, before jsonb, after jsonb, ip inet, user_agent text) returns bytea
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select sha256(convert_to(
        jsonb_build_array(
            salt, before is null, before, after is null, after, ip::text, user_agent
        )::text, 'UTF8'
    ))
$$;
comment on function audit.details_hash(uuid, jsonb, jsonb, inet, text) is
'What stands in the chain for the part of a record that can be erased.';

create function audit.entry_hash(entry audit.entries) returns bytea
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select sha256(convert_to(
        jsonb_build_array(
            entry.kept_until - date '2000-01-01', entry.position, entry.number, entry.id,
            entry.transaction_id::text, extract(epoch from entry.occurred_at), entry.workspace_id,
            entry.action, entry.resource, entry.row_id, entry.changed,
            entry.actor_kind, entry.actor_id, entry.actor_name, entry.on_behalf_of, entry.request_id,
            encode(entry.digest, 'hex'), encode(entry.details_hash, 'hex')
        )::text, 'UTF8'
    ))
$$;
comment on function audit.entry_hash(audit.entries) is 'The hash of a record, as the chain has it.';

create function audit.seal_hash(seal audit.seals) returns bytea
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select sha256(convert_to(
        jsonb_build_array(
            seal.number, seal.kept_until - date '2000-01-01', seal.first_position, seal.last_position,
            extract(epoch from seal.sealed_at), encode(seal.entries_hash, 'hex'), encode(seal.previous_hash, 'hex')
        )::text, 'UTF8'
    ))
$$;
comment on function audit.seal_hash(audit.seals) is 'The hash of a seal, over everything else in it.';

-- Sealing ------------------------------------------------------------------------------------

create function audit.seal(at_most integer default 10000) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    snapshot pg_snapshot;
    head audit.chain_head;
    sealed bigint := 0::bigint;
    longest bigint;
    earliest date := (date_trunc('month', now() at time zone 'UTC') + interval '1 month')::date;
    month date;
    made audit.seals;
begin
    -- One sealer at a time; whoever writes records never takes this lock.
    if not pg_try_advisory_xact_lock(hashtextextended('rowhouse audit seal', 0)) then
        return 0::bigint;
    end if;
    select h.* into strict head from audit.chain_head h for update;
    snapshot := pg_current_snapshot();
    select max(p.audit_months) into longest from billing.plans p;
    for month in
        select distinct
            greatest(
                audit.kept_until(date_trunc('month', i.occurred_at, 'UTC'), coalesce(p.audit_months, longest)), earliest
            )
        from audit.inbox i
        left join billing.workspace_plans wp on wp.workspace_id = i.workspace_id
        left join billing.plans p on p.id = wp.plan_id
        order by 1
    loop
        perform audit.ensure_partition(month);
    end loop;

    perform ops.allow('seal');
    -- Never past the oldest running transaction: what it wrote comes into a later seal. An id from beyond the
    -- snapshot is one of another server, from which this database was restored.
    with taken as (
        delete from audit.inbox i
        where i.number in (
            select waiting.number from audit.inbox waiting
            where
                waiting.transaction_id < pg_snapshot_xmin(snapshot)
                or waiting.transaction_id >= pg_snapshot_xmax(snapshot)
            order by waiting.number
            limit seal.at_most
        )
        returning i.*
    ),
    kept as materialized (
        select
            t.*,
            -- What comes late, as in an import, is kept a while all the same.
            greatest(audit.kept_until(t.occurred_at, coalesce(p.audit_months, longest)), earliest) as kept_until,
            gen_random_uuid() as salt
        from taken t
        left join billing.workspace_plans wp on wp.workspace_id = t.workspace_id
        left join billing.plans p on p.id = wp.plan_id
    ),
    months as materialized (
        select
            m.kept_until,
            coalesce(
                (
                    select s.last_position from audit.seals s where s.kept_until = m.kept_until
                    order by s.first_position desc limit 1
                ),
                0
            ) as last_position
        from (select distinct k.kept_until from kept k) as m
    ),
    placed as materialized (
        select row(
            k.kept_until,
            m.last_position + row_number() over (partition by k.kept_until order by k.number),
            head.seal_number + dense_rank() over (order by k.kept_until),
            k.number, k.id, k.transaction_id, k.occurred_at, k.workspace_id, k.action, k.resource, k.row_id,
            k.changed, k.before, k.after, k.actor_kind, k.actor_id, k.actor_name, k.on_behalf_of, k.ip,
            k.user_agent, k.request_id, k.digest, k.salt,
            audit.details_hash(k.salt, k.before, k.after, k.ip, k.user_agent), ''::bytea, null
        )::audit.entries as entry
        from kept k
        join months m on m.kept_until = k.kept_until
    )
    insert into audit.entries
    select
        (p.entry).kept_until, (p.entry).position, (p.entry).seal_number, (p.entry).number, (p.entry).id,
        (p.entry).transaction_id, (p.entry).occurred_at, (p.entry).workspace_id, (p.entry).action,
        (p.entry).resource, (p.entry).row_id, (p.entry).changed, (p.entry).before, (p.entry).after,
        (p.entry).actor_kind, (p.entry).actor_id, (p.entry).actor_name, (p.entry).on_behalf_of, (p.entry).ip,
        (p.entry).user_agent, (p.entry).request_id, (p.entry).digest, (p.entry).salt, (p.entry).details_hash,
        audit.entry_hash(p.entry), null
    from placed p;
    get diagnostics sealed = row_count;
    perform ops.allow(null);

    for made in
        select
            e.seal_number, e.kept_until, min(e.position), max(e.position), clock_timestamp(),
            sha256(string_agg(e.entry_hash, ''::bytea order by e.position)), ''::bytea, ''::bytea
        from audit.entries e
        where e.seal_number > head.seal_number
        group by e.seal_number, e.kept_until
        order by e.seal_number
    loop
        made.previous_hash := head.hash;
        made.hash := audit.seal_hash(made);
        insert into audit.seals values (made.*);
        head.seal_number := made.number;
        head.hash := made.hash;
    end loop;
    update audit.chain_head h set seal_number = head.seal_number, hash = head.hash;
    return sealed;
end
$$;
comment on function audit.seal(integer) is
'Moves records whose transactions are over from the inbox into the chain, at most so many. Returns how many. Run
every minute; no writer waits for it.';

-- Verifying ----------------------------------------------------------------------------------

create function audit.erased() returns table (erasure uuid, records bigint, hash text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        e.erased_by, count(*),
        encode(sha256(string_agg(e.entry_hash, ''::bytea order by e.kept_until, e.position)), 'hex')
    from audit.entries e
    where e.erased_by is not null
    group by e.erased_by
$$;
comment on function audit.erased() is
'How many sealed records each erasure emptied, and a hash over which: its own record says the same.';

create function audit.verify_head()
returns table (seal_number bigint, kept_until date, record_position bigint, finding text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select h.seal_number, null::date, null::bigint, 'the chain ends before its head: its tail was cut'
    from audit.chain_head h
    where
        h.seal_number > 0
        and not exists (select from audit.seals s where s.number = h.seal_number and s.hash = h.hash)
    union all
    select s.number, s.kept_until, null, 'the seal comes after the head of the chain: it was inserted'
    from audit.seals s, audit.chain_head h
    where s.number > h.seal_number
    union all
    select null, null, null, 'the chain has no head: it was deleted'
    where not exists (select from audit.chain_head)
    union all
    -- What no seal covers, which the seals' own checks would not come across.
    select null, e.kept_until, e.position, 'no seal covers this record: it was inserted'
    from audit.entries e
    left join audit.seals s on s.number = e.seal_number and s.kept_until = e.kept_until
    where (e.position between s.first_position and s.last_position) is not true
    union all
    select null, null, null, 'details were erased that the record of the erasure does not tell of'
    from audit.erased() as erased
    where not exists (
        select from (
            select i.id, i.action, i.after from audit.inbox i
            union all
            select why.id, why.action, why.after from audit.entries why
        ) as told
        where
            told.id = erased.erasure and told.action like '%.erase'
            and told.after = jsonb_build_object('records', erased.records, 'hash', erased.hash)
    )
$$;
comment on function audit.verify_head() is
'What does not hold about the end of the chain, and records outside it; no rows if all does.';

create function audit.verify_seals(first bigint, last bigint)
returns table (seal_number bigint, kept_until date, record_position bigint, finding text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    seal audit.seals;
    entry audit.entries;
    wanted bigint := greatest(verify_seals.first, 1);
    previous bytea;
    expected bigint;
    broken boolean;
begin
    select s.hash into previous from audit.seals s where s.number = wanted - 1;
    previous := coalesce(previous, decode(repeat('00', 32), 'hex'));
    for seal in
        select s.* from audit.seals s where s.number between wanted and verify_seals.last order by s.number
    loop
        if seal.number <> wanted then
            return query select wanted, null::date, null::bigint, 'the seal is missing: it was deleted';
            wanted := seal.number;
        elsif seal.previous_hash is distinct from previous then
            return query select seal.number, seal.kept_until, null::bigint, 'the seal does not follow the one before it';
        end if;
        if audit.seal_hash(seal) is distinct from seal.hash then
            return query select seal.number, seal.kept_until, null::bigint, 'the seal was edited';
        end if;
        previous := seal.hash;
        wanted := wanted + 1;

        -- Past its retention, the seal alone remains.
        continue when seal.kept_until <= now() at time zone 'UTC'
            and to_regclass('audit.' || audit.partition_of(seal.kept_until)) is null;
        expected := seal.first_position;
        broken := false;
        for entry in
            select e.* from audit.entries e
            where e.kept_until = seal.kept_until and e.position between seal.first_position and seal.last_position
            order by e.position
        loop
            if entry.position > expected then
                return query select seal.number, seal.kept_until, expected, 'the record is missing: it was deleted or moved';
                broken := true;
            end if;
            if entry.seal_number is distinct from seal.number
                or audit.entry_hash(entry) is distinct from entry.entry_hash
                or (
                    entry.erased_by is null
                    and audit.details_hash(entry.salt, entry.before, entry.after, entry.ip, entry.user_agent)
                    is distinct from entry.details_hash
                )
            then
                return query select seal.number, seal.kept_until, entry.position, 'the record was edited or moved';
                broken := true;
            end if;
            expected := entry.position + 1;
        end loop;
        if expected <= seal.last_position then
            return query select seal.number, seal.kept_until, expected, 'the record is missing: it was deleted or moved';
        elsif not broken and seal.entries_hash is distinct from (
            select sha256(string_agg(e.entry_hash, ''::bytea order by e.position)) from audit.entries e
            where e.kept_until = seal.kept_until and e.position between seal.first_position and seal.last_position
        ) then
            return query select seal.number, seal.kept_until, null::bigint, 'its records are not those that were sealed';
        end if;
    end loop;
    if wanted <= least(verify_seals.last, (select h.seal_number from audit.chain_head h)) then
        return query select wanted, null::date, null::bigint, 'the seal is missing: it was deleted';
    end if;
end
$$;
comment on function audit.verify_seals(bigint, bigint) is
'What does not hold in a stretch of the chain: edits, deletions, insertions, another order. No rows if all does.';

create function audit.verify_anchor(seal_number bigint, hash text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select case
        when s.number is null then 'the seal is gone: the chain was cut, or begun anew'
        when encode(s.hash, 'hex') is distinct from verify_anchor.hash then 'the seal is another: the chain was rewritten'
    end
    from (select) as asked
    left join audit.seals s on s.number = verify_anchor.seal_number
$$;
comment on function audit.verify_anchor(bigint, text) is
'What is wrong with the chain, measured by a seal''s hash (hexadecimal) that was kept elsewhere; null if nothing.';

-- What clients see ---------------------------------------------------------------------------

create view public.audit_log with (security_invoker = true) as
select
    i.id,
    i.workspace_id,
    i.occurred_at,
    i.action,
    i.resource,
    i.row_id,
    i.changed,
    i.before,
    i.after,
    i.actor_kind,
    i.actor_id,
    i.on_behalf_of,
    i.ip,
    i.user_agent,
    i.request_id,
    false as is_sealed
from audit.inbox as i
union all
select
    e.id,
    e.workspace_id,
    e.occurred_at,
    e.action,
    e.resource,
    e.row_id,
    e.changed,
    e.before,
    e.after,
    e.actor_kind,
    e.actor_id,
    e.on_behalf_of,
    e.ip,
    e.user_agent,
    e.request_id,
    true
from audit.entries as e;
comment on view public.audit_log is
'Who changed what in a workspace, for those with audit.read. Order by occurred_at, id.';
comment on column public.audit_log.id is 'The record.';
comment on column public.audit_log.workspace_id is 'The tenant.';
comment on column public.audit_log.occurred_at is 'When the transaction of the change began.';
comment on column public.audit_log.action is 'What was done, such as tasks.update.';
comment on column public.audit_log.resource is 'The table, or the kind of thing.';
comment on column public.audit_log.row_id is 'Which one.';
comment on column public.audit_log.changed is 'The columns that an update changed.';
comment on column public.audit_log.before is 'Their values before; null is left out.';
comment on column public.audit_log.after is 'Their values after; null is left out.';
comment on column public.audit_log.actor_kind is 'user, service, anonymous, job, cron, cli or database.';
comment on column public.audit_log.actor_id is 'The person, if it was one.';
comment on column public.audit_log.on_behalf_of is 'For whom they acted, if not for themselves.';
comment on column public.audit_log.ip is 'From where.';
comment on column public.audit_log.user_agent is 'With what, as the client says.';
comment on column public.audit_log.request_id is 'The request.';
comment on column public.audit_log.is_sealed is 'Whether it is part of the sealed chain yet; a minute later it is.';

create trigger audit_log_is_read_only instead of insert or update or delete on public.audit_log
for each row execute function ops.refuse_change();
