-- Why: the ground that every capability stands on: its schemas, default privileges that refuse,
--      the clock, and the one way to raise an error that reaches an HTTP client whole.
-- Locks: none on existing tables.
-- Workers: need not stop.

create schema ops;
comment on schema ops is 'Health, errors, the clock; later rate limits, retention, export and erasure.';

-- Without "in schema": Postgres adds per-schema default privileges to the global ones, so the
-- execute right that PUBLIC has by default can only be taken away globally.
alter default privileges revoke execute on functions from public;

-- Supabase grants everything in `public` to its API roles by default. Here a relation shows
-- nothing until policies/ says otherwise.
alter default privileges in schema public revoke all on tables from anon, authenticated, service_role;
alter default privileges in schema public revoke all on sequences from anon, authenticated, service_role;
alter default privileges in schema public revoke all on functions from anon, authenticated, service_role;

-- The clock ----------------------------------------------------------------------------------

create table ops.clock (
    singleton boolean not null default true,
    set_to timestamptz not null,
    constraint clock_pkey primary key (singleton),
    constraint clock_has_one_row check (singleton)
);
alter table ops.clock enable row level security;
create policy clock_nobody on ops.clock using (false);
comment on table ops.clock is 'Empty except in tests: the time that ops.now() tells.';
comment on column ops.clock.singleton is 'Keeps the table at one row.';
comment on column ops.clock.set_to is 'The time that ops.now() returns while this row exists.';

create function ops.now() returns timestamptz
language plpgsql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce((select clock.set_to from ops.clock), pg_catalog.now());
end
$$;
comment on function ops.now() is
'The clock of every rule that waits: transaction time, or what a test has set.';

-- Errors -------------------------------------------------------------------------------------

create function ops.raise_http(
    status integer,
    code text,
    message text,
    details jsonb default null,
    hint text default null,
    headers jsonb default '{}'
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Volatile, or the planner would call it, and raise, before anything is decided.
    -- PostgREST reads SQLSTATE PGRST as JSON: the body from message, status and headers from
    -- detail. Its body fields are text, so `details` travels as the text of a JSON object.
    raise sqlstate 'PGRST' using
        message = jsonb_build_object(
            'code', raise_http.code,
            'message', raise_http.message,
            'details', raise_http.details::text,
            'hint', raise_http.hint
        )::text,
        detail = jsonb_build_object(
            'status', raise_http.status,
            'headers', raise_http.headers
        )::text;
end
$$;
comment on function ops.raise_http(integer, text, text, jsonb, text, jsonb) is
'Raises an error with an HTTP status, a stable code, a message for people, and what to do about it.';

-- Facts --------------------------------------------------------------------------------------

create function ops.allow(deed text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config('rowhouse.allowed', coalesce(allow.deed, ''), true);
end
$$;
comment on function ops.allow(text) is
'Allows one deed that triggers refuse otherwise (seal, erase, delete, purge, import) until the transaction ends or
ops.allow(null). For the functions that do it: no role of the API can call it.';

create function ops.is_allowed(deed text) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return current_setting('rowhouse.allowed', true) is not distinct from is_allowed.deed;
end
$$;
comment on function ops.is_allowed(text) is 'Whether ops.allow() was called for this deed.';

create function ops.refuse_change() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    for i in 0 .. tg_nargs - 1 loop
        if ops.is_allowed(tg_argv[i]) then
            return coalesce(new, old);
        end if;
    end loop;
    raise exception '% is append-only', tg_table_name
        using errcode = 'insufficient_privilege', hint = 'What is wrong is corrected by adding to it.';
end
$$;
comment on function ops.refuse_change() is
'Trigger: refuses UPDATE, DELETE and TRUNCATE to everybody, but for the deeds named in its arguments.';

create function ops.house_schemas() returns text[]
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select '{public,tenancy,authz,audit,jobs,notify,billing,ledger,analytics,ops}'::text[]
$$;
comment on function ops.house_schemas() is 'The schemas whose contents are answered for.';

create function ops.name_of(relation regclass) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select format('%I.%I', n.nspname, c.relname)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.oid = name_of.relation
$$;
comment on function ops.name_of(regclass) is 'The name of a table with its schema, whatever the search_path.';
