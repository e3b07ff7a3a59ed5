-- Why: a job is checked when it is asked for, where whoever asks can still do something about it.
-- Locks: none on existing tables.
-- Workers: need not stop.

-- Payloads -----------------------------------------------------------------------------------

create function jobs.schema_flaw(schema jsonb, path text default '') returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    keyword text;
    argument jsonb;
    name text;
    flaw text;
begin
    if jsonb_typeof(schema_flaw.schema) is distinct from 'object' then
        return format('the schema%s is not an object', schema_flaw.path);
    end if;
    for keyword, argument in select e.key, e.value from jsonb_each(schema_flaw.schema) e loop
        if (case keyword
            when 'type' then argument #>> '{}' is null
                or argument #>> '{}' not in ('object', 'array', 'string', 'integer', 'number', 'boolean')
            when 'format' then argument #>> '{}' is null or argument #>> '{}' not in ('uuid', 'email', 'date-time', 'date')
            when 'required' then jsonb_typeof(argument) <> 'array'
            when 'enum' then jsonb_typeof(argument) <> 'array'
            when 'properties' then jsonb_typeof(argument) <> 'object'
            when 'items' then jsonb_typeof(argument) <> 'object'
            when 'additionalProperties' then jsonb_typeof(argument) <> 'boolean'
            when 'pattern' then jsonb_typeof(argument) <> 'string'
            when 'description' then false
            else keyword not in ('minimum', 'maximum', 'minLength', 'maxLength', 'minItems', 'maxItems')
                or jsonb_typeof(argument) <> 'number'
        end) then
            return format('%s in the schema%s means nothing', quote_literal(keyword), schema_flaw.path);
        end if;
        if keyword = 'pattern' then
            begin
                perform '' ~ (argument #>> '{}');
            exception
                when invalid_regular_expression then
                    return format('the pattern in the schema%s is none', schema_flaw.path);
            end;
        end if;
        if keyword = 'items' then
            flaw := jobs.schema_flaw(argument, schema_flaw.path || ' of items');
        elsif keyword = 'properties' then
            for name in select jsonb_object_keys(argument) loop
                flaw := coalesce(flaw, jobs.schema_flaw(argument -> name, format('%s of %s', schema_flaw.path, name)));
            end loop;
        end if;
        if flaw is not null then
            return flaw;
        end if;
    end loop;
    return null;
end
$$;
comment on function jobs.schema_flaw(jsonb, text) is 'What is wrong with a payload schema; null if it can be used.';

create function jobs.format_flaw(format text, word text) returns text
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    if (case format_flaw.format
        when 'uuid' then word ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$'
        when 'email' then word ~ '^[^@\s[:cntrl:]<>",;]+@[^@\s[:cntrl:]<>",;]+$'
        when 'date' then word ~ '^\d{4}-\d\d-\d\d$' and word::date is not null
        else word ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$' and word::timestamptz is not null
    end) then
        return null;
    end if;
    return format_flaw.format;
exception
    when datetime_field_overflow or invalid_datetime_format then return format_flaw.format;
end
$$;
comment on function jobs.format_flaw(text, text) is 'The format that a word is not in; null if it is.';

create function jobs.payload_flaw(payload jsonb, schema jsonb, path text default 'payload') returns text
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    kind text := jsonb_typeof(payload_flaw.payload);
    name text;
    item jsonb;
    flaw text;
begin
    if payload_flaw.schema ? 'type' and not (
        payload_flaw.schema ->> 'type' = kind
        or (
            payload_flaw.schema ->> 'type' = 'integer' and kind = 'number'
            and (payload_flaw.payload #>> '{}')::numeric % 1 = 0
        )
    ) then
        return format('%s is of type %s, and must be %s', payload_flaw.path, kind, payload_flaw.schema ->> 'type');
    end if;
    if payload_flaw.schema ? 'enum' and not payload_flaw.schema -> 'enum' @> payload_flaw.payload then
        return format('%s must be one of %s', payload_flaw.path, payload_flaw.schema -> 'enum');
    end if;
    if kind = 'object' then
        select r.field into name from jsonb_array_elements_text(coalesce(payload_flaw.schema -> 'required', '[]')) as r (field)
        where not payload_flaw.payload ? r.field limit 1;
        if found then
            return format('%s lacks %s', payload_flaw.path, quote_ident(name));
        end if;
        if payload_flaw.schema -> 'additionalProperties' = 'false' then
            select given.field into name from jsonb_object_keys(payload_flaw.payload) as given (field)
            where not coalesce(payload_flaw.schema -> 'properties' ? given.field, false) limit 1;
            if found then
                return format('%s has %s, which its schema does not know', payload_flaw.path, left(quote_ident(name), 100));
            end if;
        end if;
        for name in select jsonb_object_keys(payload_flaw.schema -> 'properties') loop
            if payload_flaw.payload ? name then
                flaw := jobs.payload_flaw(
                    payload_flaw.payload -> name, payload_flaw.schema -> 'properties' -> name,
                    payload_flaw.path || '.' || name
                );
                if flaw is not null then
                    return flaw;
                end if;
            end if;
        end loop;
    elsif kind = 'array' then
        if jsonb_array_length(payload_flaw.payload) < (payload_flaw.schema ->> 'minItems')::numeric
            or jsonb_array_length(payload_flaw.payload) > (payload_flaw.schema ->> 'maxItems')::numeric
        then
            return format('%s has %s items', payload_flaw.path, jsonb_array_length(payload_flaw.payload));
        end if;
        if payload_flaw.schema ? 'items' then
            for item in select e.value from jsonb_array_elements(payload_flaw.payload) as e loop
                flaw := jobs.payload_flaw(item, payload_flaw.schema -> 'items', payload_flaw.path || '[]');
                if flaw is not null then
                    return flaw;
                end if;
            end loop;
        end if;
    elsif kind = 'string' then
        if length(payload_flaw.payload #>> '{}') < (payload_flaw.schema ->> 'minLength')::numeric
            or length(payload_flaw.payload #>> '{}') > (payload_flaw.schema ->> 'maxLength')::numeric
        then
            return format('%s is of length %s', payload_flaw.path, length(payload_flaw.payload #>> '{}'));
        end if;
        if payload_flaw.schema ? 'pattern' and payload_flaw.payload #>> '{}' !~ (payload_flaw.schema ->> 'pattern') then
            return format('%s does not match %s', payload_flaw.path, payload_flaw.schema ->> 'pattern');
        end if;
        if payload_flaw.schema ? 'format' then
            flaw := jobs.format_flaw(payload_flaw.schema ->> 'format', payload_flaw.payload #>> '{}');
            if flaw is not null then
                return format('%s is not of format %s', payload_flaw.path, flaw);
            end if;
        end if;
    elsif kind = 'number' then
        if (payload_flaw.payload #>> '{}')::numeric < (payload_flaw.schema ->> 'minimum')::numeric
            or (payload_flaw.payload #>> '{}')::numeric > (payload_flaw.schema ->> 'maximum')::numeric
        then
            return format('%s is %s', payload_flaw.path, payload_flaw.payload #>> '{}');
        end if;
    end if;
    return null;
end
$$;
comment on function jobs.payload_flaw(jsonb, jsonb, text) is 'Where a payload breaks its schema; null if it does not.';

-- Asking for work ----------------------------------------------------------------------------

create function jobs.refuse(message text, hint text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception '%', refuse.message using errcode = 'invalid_parameter_value', hint = refuse.hint;
end
$$;
comment on function jobs.refuse(text, text) is 'Refuses a job, in words.';

create function jobs.kind_of(kind text) returns jobs.kinds
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    known jobs.kinds;
begin
    select k.* into known from jobs.kinds k where k.kind = kind_of.kind;
    if not found then
        perform jobs.refuse(
            format('there is no kind of job %s', coalesce(quote_literal(left(kind_of.kind, 100)), 'null')),
            'select jobs.declare_kind(…) declares one; jobs.kinds lists them.'
        );
    end if;
    return known;
end
$$;
comment on function jobs.kind_of(text) is 'A kind by its name; refuses one that is not declared.';

create function jobs.check_payload(known jobs.kinds, payload jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    flaw text;
begin
    if check_payload.payload is null then
        perform jobs.refuse(format('a job %s has no payload', known.kind), 'Give at least {}.');
    end if;
    if pg_column_size(check_payload.payload) > (select s.max_payload_bytes from jobs.settings s) then
        perform jobs.refuse(
            format(
                'the payload of a job %s has %s bytes, and may have %s', known.kind,
                pg_column_size(check_payload.payload), (select s.max_payload_bytes from jobs.settings s)
            ),
            'Store what is large in a table, and name its row.'
        );
    end if;
    if known.payload_schema <> '{}' then
        flaw := jobs.payload_flaw(check_payload.payload, known.payload_schema);
        if flaw is not null then
            perform jobs.refuse(format('a job %s: %s', known.kind, flaw), 'jobs.kinds.payload_schema says what it takes.');
        end if;
    end if;
end
$$;
comment on function jobs.check_payload(jobs.kinds, jsonb) is
'Refuses a payload that is too large or breaks its schema.';

create function jobs.check_queue(queue text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Not a constraint, which would cost every job of a batch a regular expression.
    if check_queue.queue !~ '^[a-z][a-z0-9_]{0,47}$' then
        perform jobs.refuse(
            format('%s cannot be a queue', quote_literal(left(check_queue.queue, 100))),
            'Use up to 48 of a-z, 0-9 and _, beginning with a letter.'
        );
    end if;
end
$$;
comment on function jobs.check_queue(text) is 'Refuses a name that no queue can have.';

create function jobs.wake(executor text, queue text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Equal ones of a transaction are sent once.
    perform pg_notify('rowhouse_jobs', wake.executor || ' ' || wake.queue);
end
$$;
comment on function jobs.wake(text, text) is 'Wakes idle workers when this transaction commits.';

create function jobs.enqueue(
    kind text,
    payload jsonb default '{}',
    workspace_id uuid default null,
    queue text default null,
    priority bigint default null,
    run_at timestamptz default null,
    max_attempts bigint default null,
    dedupe_key text default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    known jobs.kinds;
    moment timestamptz := ops.now();
    made bigint;
begin
    -- Each call of a function costs a twentieth of the whole: only where there is something to look at.
    select k.* into known from jobs.kinds k where k.kind = enqueue.kind;
    if not found then
        known := jobs.kind_of(enqueue.kind);
    end if;
    if enqueue.queue is not null then
        perform jobs.check_queue(enqueue.queue);
    end if;
    -- The least that settings.max_payload_bytes can be.
    if enqueue.payload is null or known.payload_schema <> '{}' or pg_column_size(enqueue.payload) > 1024 then
        perform jobs.check_payload(known, enqueue.payload);
    end if;
    if enqueue.dedupe_key is null then
        insert into jobs.jobs (
            kind, executor, queue, workspace_id, priority, is_due, max_attempts, run_at, enqueued_at, payload
        ) values (
            known.kind, known.executor, coalesce(enqueue.queue, known.queue), enqueue.workspace_id,
            coalesce(enqueue.priority, known.priority), coalesce(enqueue.run_at <= moment, true),
            coalesce(enqueue.max_attempts, known.max_attempts), coalesce(enqueue.run_at, moment), moment,
            enqueue.payload
        ) returning id into made;
    else
        insert into jobs.jobs as j (
            kind, executor, queue, workspace_id, priority, is_due, max_attempts, run_at, enqueued_at, payload, dedupe_key
        ) values (
            known.kind, known.executor, coalesce(enqueue.queue, known.queue), enqueue.workspace_id,
            coalesce(enqueue.priority, known.priority), coalesce(enqueue.run_at <= moment, true),
            coalesce(enqueue.max_attempts, known.max_attempts), coalesce(enqueue.run_at, moment), moment,
            enqueue.payload, enqueue.dedupe_key
        )
        on conflict (kind, dedupe_key, coalesce(workspace_id, '00000000-0000-0000-0000-000000000000'::uuid))
        where state = 'pending' and dedupe_key is not null
        -- The one that waits takes the newer payload, and the earlier time.
        do update
        set
            payload = excluded.payload, attempts = 0, priority = least(j.priority, excluded.priority),
            run_at = least(j.run_at, excluded.run_at), is_due = j.is_due or excluded.is_due
        returning j.id into made;
    end if;
    if coalesce(enqueue.run_at <= moment, true) then
        -- Equal ones of a transaction are sent once.
        perform pg_notify('rowhouse_jobs', known.executor || ' ' || coalesce(enqueue.queue, known.queue));
    end if;
    return made;
end
$$;
comment on function jobs.enqueue(text, jsonb, uuid, text, bigint, timestamptz, bigint, text) is
'Asks for a job in this transaction, and returns its id. What is left out is as its kind says. Where one of the same
kind, workspace and dedupe key waits, that one takes the payload and its id is returned.';

create function jobs.enqueue_many(
    kind text,
    payloads jsonb[],
    workspace_id uuid default null,
    queue text default null,
    priority bigint default null,
    run_at timestamptz default null,
    max_attempts bigint default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    known jobs.kinds := jobs.kind_of(enqueue_many.kind);
    moment timestamptz := ops.now();
    given jsonb;
    made bigint;
begin
    perform jobs.check_queue(enqueue_many.queue);
    if known.payload_schema = '{}' then
        -- The largest speaks for all.
        select p.payload into given from unnest(enqueue_many.payloads) as p (payload)
        order by pg_column_size(p.payload) desc nulls first limit 1;
        if found then
            perform jobs.check_payload(known, given);
        end if;
    else
        foreach given in array coalesce(enqueue_many.payloads, '{}'::jsonb[]) loop
            perform jobs.check_payload(known, given);
        end loop;
    end if;
    insert into jobs.jobs (
        kind, executor, queue, workspace_id, priority, is_due, max_attempts, run_at, enqueued_at, payload
    )
    select
        known.kind, known.executor, coalesce(enqueue_many.queue, known.queue), enqueue_many.workspace_id,
        coalesce(enqueue_many.priority, known.priority), coalesce(enqueue_many.run_at <= moment, true),
        coalesce(enqueue_many.max_attempts, known.max_attempts), coalesce(enqueue_many.run_at, moment), moment,
        p.payload
    from unnest(enqueue_many.payloads) as p (payload);
    get diagnostics made = row_count;
    if made > 0 and coalesce(enqueue_many.run_at <= moment, true) then
        perform jobs.wake(known.executor, coalesce(enqueue_many.queue, known.queue));
    end if;
    return made;
end
$$;
comment on function jobs.enqueue_many(text, jsonb[], uuid, text, bigint, timestamptz, bigint) is
'Asks for many jobs of a kind, one for each payload; returns how many. All of them, or none if a payload is refused.';
