-- Why: Stripe is called by whoever has a network (a worker, an edge function, the command line), but what is asked,
--      with which idempotency key, and what an answer means is decided here: take_call() hands a call out,
--      settle_call() takes its answer in.
-- Locks: none on existing tables.
-- Workers: need not stop.

create table billing.requests (
    id uuid not null default gen_random_uuid(),
    workspace_id uuid,
    kind text not null,
    method text not null default 'post',
    path text not null,
    params jsonb not null default '{}',
    idempotency_key text not null,
    body_hash text not null,
    state text not null default 'waiting',
    reason text,
    attempts bigint not null default 0,
    first_attempt_at timestamptz,
    answer jsonb,
    error text,
    created_at timestamptz not null default ops.now(),
    created_by uuid default authz.user_id(),
    settled_at timestamptz,
    constraint requests_pkey primary key (id),
    constraint requests_once_per_key unique (idempotency_key),
    constraint requests_belong_to_a_workspace foreign key (workspace_id)
    references public.workspaces (id) on delete cascade,
    constraint requests_method_is_known check (method in ('post', 'delete', 'get')),
    constraint requests_state_is_known check (state in ('waiting', 'done', 'failed')),
    constraint requests_key_is_short check (length(idempotency_key) between 1 and 200)
);
alter table billing.requests enable row level security;
create policy requests_nobody on billing.requests using (false);
create index requests_workspace_id on billing.requests (workspace_id, created_at);
comment on table billing.requests is 'What Stripe was asked to do, once per idempotency key, and what it answered.';
comment on column billing.requests.id is 'The request.';
comment on column billing.requests.workspace_id is 'For which tenant; null for the catalogue.';
comment on column billing.requests.kind is 'What for: customer.create, checkout, refund, …';
comment on column billing.requests.method is 'post, delete or get.';
comment on column billing.requests.path is
'Where, such as /v1/customers; {customer} is filled in when it is first sent.';
comment on column billing.requests.params is 'What is sent. Frozen at the first attempt: a key holds for one body.';
comment on column billing.requests.idempotency_key is 'By which Stripe knows a second attempt for what it is.';
comment on column billing.requests.body_hash is 'Of what was asked for: the same key asks for nothing else.';
comment on column billing.requests.state is 'waiting, done or failed.';
comment on column billing.requests.reason is 'Why, where a person asked for it.';
comment on column billing.requests.attempts is 'How often it was sent.';
comment on column billing.requests.first_attempt_at is 'When first: Stripe remembers a key for a day.';
comment on column billing.requests.answer is 'The object that Stripe answered with.';
comment on column billing.requests.error is 'Why it failed, or waits.';
comment on column billing.requests.created_at is 'When it was asked for.';
comment on column billing.requests.created_by is 'By whom.';
comment on column billing.requests.settled_at is 'When it was answered for good.';

create function billing.require_connected(mode text default null) returns billing.settings
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    settings billing.settings;
begin
    select s.* into strict settings from billing.settings s;
    if settings.account_id is null then
        perform ops.raise_http(
            503, 'stripe_not_connected', 'This database belongs to no Stripe account yet.', null,
            'Run `rowhouse stripe connect` with STRIPE_SECRET_KEY set.'
        );
    end if;
    if require_connected.mode <> (case when settings.is_live then 'live' else 'test' end) then
        perform ops.raise_http(
            409, 'stripe_mode_differs',
            format('This is a %s key, and the database belongs to the %s mode.', require_connected.mode,
                case when settings.is_live then 'live' else 'test' end),
            null, 'Set STRIPE_SECRET_KEY to a key of that mode.'
        );
    end if;
    return settings;
end
$$;
comment on function billing.require_connected(text) is
'The settings; answers 503 where no Stripe account is connected, 409 for a key of the other mode (live or test).';

create function billing.wish_hash(kind text, workspace_id uuid, wish jsonb) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select md5(concat_ws('|', wish_hash.kind, wish_hash.workspace_id, wish_hash.wish)) $$;
comment on function billing.wish_hash(text, uuid, jsonb) is 'What an idempotency key stands for.';

create function billing.derived_key(base text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    -- What Stripe refused may be asked for again, and is another request.
    select derived_key.base || case when count(*) > 0 then ':' || count(*) else '' end
    from billing.requests r where starts_with(r.idempotency_key, derived_key.base) and r.state = 'failed'
$$;
comment on function billing.derived_key(text) is 'The idempotency key of a deed that is named by what it is about.';

create function billing.known_request(kind text, workspace_id uuid, idempotency_key text, wish jsonb) returns uuid
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    known billing.requests;
begin
    select r.* into known from billing.requests r where r.idempotency_key = known_request.idempotency_key;
    if known.body_hash <> billing.wish_hash(known_request.kind, known_request.workspace_id, known_request.wish) then
        perform ops.raise_http(
            409, 'idempotency_key_reused', 'This key was used for something else.', null, 'Use a new key for what is new.'
        );
    end if;
    return known.id;
end
$$;
comment on function billing.known_request(text, uuid, text, jsonb) is
'The request that was made of a wish under this key, before anything of it is composed anew; null if none was. Answers
409 for a key of another wish.';

create function billing.request(
    kind text,
    path text,
    params jsonb,
    idempotency_key text,
    workspace_id uuid default null,
    method text default 'post',
    reason text default null, is_enqueued boolean default true, wish jsonb default null
) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    made billing.requests;
    body_hash text := billing.wish_hash(
        request.kind, request.workspace_id,
        coalesce(request.wish, jsonb_build_array(request.method, request.path, request.params))
    );
begin
    insert into billing.requests (kind, path, params, idempotency_key, body_hash, workspace_id, method, reason)
    values (
        request.kind, request.path, request.params, request.idempotency_key, body_hash, request.workspace_id,
        request.method, request.reason
    )
    on conflict on constraint requests_once_per_key do nothing
    returning * into made;
    if not found then
        select r.* into strict made from billing.requests r where r.idempotency_key = request.idempotency_key;
        if made.body_hash <> body_hash then
            perform ops.raise_http(
                409, 'idempotency_key_reused', 'This key was used for something else.', null, 'Use a new key for what is new.'
            );
        end if;
    elsif request.is_enqueued then
        perform jobs.enqueue(
            'billing.call', jsonb_build_object('request', made.id), request.workspace_id, dedupe_key => 'request:' || made.id
        );
    end if;
    return made.id;
end
$$;
comment on function billing.request(text, text, jsonb, text, uuid, text, text, boolean, jsonb) is
'Has Stripe asked for something by a job, once per idempotency key. Returns the request. Answers 409 for a key that was
used for something else.';

create function billing.take_request(id uuid) returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    request billing.requests;
    customer billing.customers;
begin
    select r.* into request from billing.requests r where r.id = take_request.id for update;
    if not found or request.state <> 'waiting' then
        return null;
    end if;
    if request.kind = 'customer.update' and request.first_attempt_at is null then
        request.params := billing.customer_params(request.workspace_id);
    end if;
    -- Only where it stands for a customer: names may hold anything.
    if request.first_attempt_at is null and (request.path like '%{customer}%' or request.params ->> 'customer' = '{customer}') then
        select c.* into customer from billing.customers c where c.workspace_id = request.workspace_id;
        if customer.stripe_id is null then
            -- First things first.
            return billing.take_request(billing.make_customer(request.workspace_id));
        end if;
        request.path := replace(request.path, '{customer}', customer.stripe_id);
        request.params := request.params || case
            when request.params ->> 'customer' = '{customer}' then jsonb_build_object('customer', customer.stripe_id) else '{}' end;
    end if;
    if request.first_attempt_at < ops.now() - interval '23 hours' and request.method = 'post' then
        -- Stripe has forgotten the key: a second attempt could act twice.
        if request.kind <> 'customer.create' then
            update billing.requests r
            set state = 'failed', settled_at = ops.now(), error = 'unanswered for a day: see at Stripe whether it was done. ' || coalesce(r.error, '')
            where r.id = request.id
            returning r.* into request;
            perform billing.heed_failure(request);
            return null;
        end if;
        return jsonb_build_object(
            'token', jsonb_build_object('search', request.id), 'method', 'get', 'path', '/v1/customers/search',
            'params', jsonb_build_object('query', format('metadata[''workspace_id'']:''%s''', request.workspace_id), 'limit', 1)
        );
    end if;
    update billing.requests r
    set
        path = request.path, params = request.params, attempts = r.attempts + 1,
        first_attempt_at = coalesce(r.first_attempt_at, ops.now())
    where r.id = request.id;
    return jsonb_build_object(
        'token', jsonb_build_object('request', request.id) || coalesce((
            select jsonb_build_object('id', o.id, 'revision', o.revision) from billing.objects o
            where o.id = substring(request.path from '([^/]+)$')
        ), '{}'),
        'method', request.method, 'path', request.path,
        'params', request.params,
        'idempotency_key', case when request.method = 'post' then 'rowhouse:' || request.idempotency_key end
    );
end
$$;
comment on function billing.take_request(uuid) is
'What to send for a request; null where there is nothing to send any more.';

create function billing.take_object(payload jsonb) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    kind billing.object_types;
    parent text;
    revision bigint;
begin
    if payload ->> 'object' = 'balance' then
        return jsonb_build_object(
            'token', payload, 'method', 'get', 'path', format('/v1/customers/%s/balance_transactions', payload ->> 'id'),
            'params', '{"limit": 100}'::jsonb
        );
    end if;
    select t.* into kind from billing.object_types t where t.object = payload ->> 'object';
    select o.revision, o.parent_id into revision, parent from billing.objects o where o.id = payload ->> 'id';
    parent := coalesce(payload ->> 'parent', parent);
    if kind.object = 'entitlements.active_entitlement_summary' then
        return jsonb_build_object(
            'token', payload || jsonb_build_object('revision', coalesce(revision, 0)), 'method', 'get', 'path', kind.list_path,
            'params', jsonb_build_object('customer', parent, 'limit', 100)
        );
    end if;
    if kind.get_path is null or (kind.get_path like '%{parent}%' and parent is null) then
        return null;
    end if;
    return jsonb_build_object(
        'token', payload || jsonb_build_object('revision', coalesce(revision, 0)), 'method', 'get',
        'path', replace(replace(kind.get_path, '{id}', payload ->> 'id'), '{parent}', coalesce(parent, '')),
        'params', case when kind.object = 'customer' then '{"expand": ["tax_ids"]}'::jsonb
            when kind.object = 'invoice' then '{"expand": ["payments"]}'::jsonb else '{}'::jsonb end
    );
end
$$;
comment on function billing.take_object(jsonb) is 'How one object is fetched; null for one that cannot be.';

create function billing.take_call(payload jsonb, mode text default null) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    settings billing.settings := billing.require_connected(take_call.mode);
    call jsonb;
begin
    call := case
        when payload ? 'request' then billing.take_request((payload ->> 'request')::uuid)
        when payload ? 'run' then billing.take_page((payload ->> 'run')::uuid)
        else billing.take_object(payload)
    end;
    return call || jsonb_build_object('api_version', settings.api_version);
end
$$;
comment on function billing.take_call(jsonb, text) is
'The next call to make for a job billing.call: method, path, params, idempotency_key, api_version, and a token for
settle_call(). Null when nothing is left to do. mode is that of the key: live or test.';

create function billing.answered_at(answer jsonb) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    moment timestamptz := ops.now();
begin
    begin
        -- RFC 9110: "Fri, 20 Nov 2026 17:09:03 GMT".
        if answer ->> 'date' ~ '^\w{3}, \d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2} GMT$' then
            moment := (substr(answer ->> 'date', 6, 20) || ' UTC')::timestamptz;
        end if;
    exception
        when datetime_field_overflow or invalid_datetime_format then null;
    end;
    -- What it says may be as old as the question.
    return date_trunc('second', moment - make_interval(secs => coalesce((answer ->> 'elapsed')::double precision, 0)));
end
$$;
comment on function billing.answered_at(jsonb) is
'Of when an answer is, by Stripe''s clock: not later than it was asked.';

create function billing.settle_object(token jsonb, answer jsonb) returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    body jsonb := answer -> 'body';
    revision bigint;
    version text := (select s.api_version from billing.settings s);
begin
    perform billing.lock_learning();
    if token ->> 'object' = 'balance' then
        perform billing.apply(e.item, version, billing.answered_at(answer), 'fetch', token ->> 'id')
        from jsonb_array_elements(coalesce(body -> 'data', '[]')) as e (item);
        return '{}'::jsonb;
    end if;
    select o.revision into revision from billing.objects o where o.id = token ->> 'id';
    if coalesce(revision, 0) <> (token ->> 'revision')::bigint then
        return '{"again": true}'::jsonb;
    end if;
    if (answer ->> 'status')::bigint = 404 then
        -- Never seen, and gone: there is nothing to remember.
        if revision is not null then
            perform billing.apply(
                jsonb_build_object('id', token -> 'id', 'object', token -> 'object', 'deleted', true), version,
                billing.answered_at(answer), 'fetch', is_deletion => true
            );
        end if;
        return '{}'::jsonb;
    end if;
    if token ->> 'object' = 'entitlements.active_entitlement_summary' then
        body := jsonb_build_object(
            'object', token -> 'object', 'customer', substr(token ->> 'id', length('entitlements:') + 1), 'entitlements', body
        );
    end if;
    perform billing.apply(body, version, billing.answered_at(answer), 'fetch', token ->> 'parent');
    return '{}'::jsonb;
end
$$;
comment on function billing.settle_object(jsonb, jsonb) is
'Learns a fetched object. Where something was learnt of it while the answer was under way, it is fetched again.';

create function billing.settle_request(id uuid, answer jsonb, token jsonb default '{}') returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    request billing.requests;
    body jsonb := answer -> 'body';
    status bigint := (answer ->> 'status')::bigint;
    settings billing.settings;
    parent text;
begin
    perform billing.lock_learning();
    select s.* into settings from billing.settings s;
    select r.* into request from billing.requests r where r.id = settle_request.id for update;
    if not found then
        -- The workspace went meanwhile, and with it whom to tell.
        return '{}'::jsonb;
    end if;
    if request.state <> 'waiting' then
        return '{"again": true}'::jsonb;
    end if;
    if status between 200 and 299 then
        update billing.requests r
        set state = 'done', answer = body, error = null, settled_at = ops.now()
        where r.id = request.id
        returning * into request;
        perform billing.heed_answer(request);
        -- A preview is of nothing that exists.
        if request.kind = 'preview' then
            return '{"again": true}'::jsonb;
        end if;
        parent := coalesce(request.params ->> 'customer', substring(request.path from '^/v1/(?:products|customers)/([^/]+)/'));
        if (select o.revision from billing.objects o where o.id = billing.key_of(body)) = (token ->> 'revision')::bigint then
            -- Nothing was learnt of it since it was asked to change: this is what it has become.
            perform billing.apply(body, settings.api_version, billing.answered_at(answer), 'answer', parent);
        else
            perform billing.apply_unless_newer(body, settings.api_version, billing.answered_at(answer), 'answer', parent);
        end if;
        return '{"again": true}'::jsonb;
    end if;
    update billing.requests r
    set state = 'failed', answer = body, error = format('Stripe: %s: %s', status, body #>> '{error,message}'), settled_at = ops.now()
    where r.id = request.id
    returning * into request;
    perform billing.heed_failure(request);
    return jsonb_build_object(
        'failed', true, 'error', request.error, 'code', body #>> '{error,code}', 'status', status, 'request', request.id
    );
end
$$;
comment on function billing.settle_request(uuid, jsonb, jsonb) is
'Takes in what Stripe answered to a request, for good.';

create function billing.settle_call(token jsonb, answer jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    status bigint := coalesce((answer ->> 'status')::bigint, 0);
    kind text := coalesce(answer #>> '{body,error,type}', '');
    complaint text;
    is_unbegun boolean := status in (401, 403, 429);
begin
    -- No answer, too many at once, Stripe's own trouble, or a twin under way: nothing is known, and the same key is safe.
    if status = 0 or status = 429 or status >= 500 or status in (401, 403)
        or (status = 409 and kind in ('idempotency_error', ''))
        or answer #>> '{body,error,code}' = 'lock_timeout'
    then
        complaint := left(
            case when status = 0 then 'no answer: ' || coalesce(answer ->> 'error', '')
                else format('Stripe: %s: %s', status, coalesce(answer #>> '{body,error,message}', '')) end, 1000
        );
        update billing.requests r
        set
            error = complaint,
            -- Refused at the door: nothing was begun, and no day runs.
            attempts = r.attempts - is_unbegun::integer,
            first_attempt_at = case when is_unbegun and r.attempts <= 1 then null else r.first_attempt_at end
        where r.id = coalesce(token ->> 'request', token ->> 'search')::uuid and r.state = 'waiting';
        return jsonb_build_object(
            'retry', true, 'error', complaint, 'status', status,
            'retry_in', case
                when status = 429 then coalesce((answer ->> 'retry_after')::double precision, 1)
                when status in (401, 403) then 300
            end,
            -- Being asked to wait is no attempt.
            'counts', status not in (429, 401, 403)
        );
    end if;
    return case
        when token ? 'request' then billing.settle_request((token ->> 'request')::uuid, answer, token)
        when token ? 'search' then billing.settle_search((token ->> 'search')::uuid, answer)
        when token ? 'run' then billing.settle_page(token, answer)
        else billing.settle_object(token, answer)
    end;
end
$$;
comment on function billing.settle_call(jsonb, jsonb) is
'Takes in the answer to a call: {status, body, date, elapsed, retry_after}, or {error} where none came. Returns
{"again": true} to take the next call of the same job, {"retry": true, "retry_in", "counts", "error"} to try it later,
{"failed": true, "error"} where it never will succeed, {} when it is done.';

select jobs.declare_kind(
    'billing.call', 'worker', queue => 'billing', priority => 60::bigint,
    payload_schema => '{"type": "object", "properties": {
        "request": {"type": "string"}, "run": {"type": "string"}, "object": {"type": "string"}, "id": {"type": "string"},
        "parent": {"type": "string"}
    }}',
    timeout => '5 minutes', max_attempts => 50::bigint, backoff => '2 seconds', max_backoff => '30 minutes',
    description => 'Calls Stripe, and takes in what it answers.'
);
