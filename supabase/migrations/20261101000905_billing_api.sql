-- Why: what members and edge functions see of billing.
-- Locks: none on existing tables.
-- Workers: need not stop.

create function billing.read_access(workspace_id uuid) returns table (
    plan text,
    version bigint,
    state text,
    reason text,
    until timestamptz,
    can_write boolean,
    seats bigint,
    seats_used bigint,
    limits jsonb, features text[]
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform authz.require(read_access.workspace_id, 'billing.read');
    return query select a.* from billing.access(read_access.workspace_id) a;
end
$$;
comment on function billing.read_access(uuid) is 'Behind public.billing_access().';

create function billing.start_trial(workspace_id uuid) returns timestamptz
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform authz.require(start_trial.workspace_id, 'billing.manage');
    return billing.begin_trial(start_trial.workspace_id);
end
$$;
comment on function billing.start_trial(uuid) is 'Behind public.start_trial().';

create function billing.invoices() returns table (
    workspace_id uuid,
    id text,
    number text,
    status text,
    currency text,
    total bigint,
    amount_due bigint,
    amount_paid bigint,
    hosted_invoice_url text, invoice_pdf text, period_end timestamptz, created_at timestamptz
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select
        c.workspace_id, o.id, o.data ->> 'number', o.data ->> 'status', upper(o.data ->> 'currency'), (o.data ->> 'total')::bigint,
        (o.data ->> 'amount_due')::bigint, (o.data ->> 'amount_paid')::bigint, o.data ->> 'hosted_invoice_url', o.data ->> 'invoice_pdf',
        billing.moment(o.data -> 'period_end'), billing.moment(o.data -> 'created')
    from billing.customers c
    join billing.objects o on o.customer_id = c.stripe_id and o.object = 'invoice' and not o.is_deleted
    where c.workspace_id = any (array(select authz.workspaces_with('billing.manage'))) and o.data ->> 'status' <> 'draft'
$$;
comment on function billing.invoices() is 'Behind public.billing_invoices.';

create view public.billing_invoices with (security_invoker = true) as
select
    i.workspace_id,
    i.id,
    i.number,
    i.status,
    i.currency,
    i.total,
    i.amount_due,
    i.amount_paid,
    i.hosted_invoice_url,
    i.invoice_pdf,
    i.period_end,
    i.created_at
from billing.invoices() as i;
comment on view public.billing_invoices is 'What the caller''s workspaces were charged, for those who manage billing.';
comment on column public.billing_invoices.workspace_id is 'The tenant.';
comment on column public.billing_invoices.id is 'The invoice, at Stripe.';
comment on column public.billing_invoices.number is 'Its number.';
comment on column public.billing_invoices.status is 'open, paid, void or uncollectible.';
comment on column public.billing_invoices.currency is 'ISO 4217.';
comment on column public.billing_invoices.total is 'What it comes to, in minor units.';
comment on column public.billing_invoices.amount_due is 'What was to be paid, after credit.';
comment on column public.billing_invoices.amount_paid is 'What was.';
comment on column public.billing_invoices.hosted_invoice_url is 'Where it can be seen and paid.';
comment on column public.billing_invoices.invoice_pdf is 'The same to print.';
comment on column public.billing_invoices.period_end is 'Until when it counts.';
comment on column public.billing_invoices.created_at is 'When it was made.';
create trigger billing_invoices_is_read_only instead of insert or update or delete on public.billing_invoices
for each row execute function ops.refuse_change();

create view public.metered_usage with (security_invoker = true) as
select
    u.workspace_id,
    u.meter,
    u.name,
    u.used,
    u.included,
    u.cap,
    u.is_hard,
    u.starts_at,
    u.ends_at
from billing.usage_now() as u;
comment on view public.metered_usage is 'What the caller''s workspaces used this period, against what is included.';
comment on column public.metered_usage.workspace_id is 'The tenant.';
comment on column public.metered_usage.meter is 'What is counted.';
comment on column public.metered_usage.name is 'Its name for people.';
comment on column public.metered_usage.used is 'How much was used.';
comment on column public.metered_usage.included is 'How much the plan includes.';
comment on column public.metered_usage.cap is 'How far it goes; null is without cap.';
comment on column public.metered_usage.is_hard is 'Whether more is refused.';
comment on column public.metered_usage.starts_at is 'When the period began.';
comment on column public.metered_usage.ends_at is 'When it ends.';
create trigger metered_usage_is_read_only instead of insert or update or delete on public.metered_usage
for each row execute function ops.refuse_change();

create function public.billing_access(workspace_id uuid) returns table (
    plan text,
    version bigint,
    state text,
    reason text,
    until timestamptz,
    can_write boolean,
    seats bigint,
    seats_used bigint,
    limits jsonb, features text[]
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select * from billing.read_access($1) $$;
comment on function public.billing_access(uuid) is
'In one row what a workspace may do now and why: plan, state (trialing, active, grace, restricted, free),
reason, until.';

create function public.billing_details(workspace_id uuid) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select billing.details($1) $$;
comment on function public.billing_details(uuid) is
'What invoices say of the workspace: name, email, address, tax_ids, purchase_order, invoice_footer.';

create function public.set_billing_details(workspace_id uuid, details jsonb) returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$ select billing.set_details($1, $2) $$;
comment on function public.set_billing_details(uuid, jsonb) is
'Changes those of the billing details that are given. Returns all of them.';

create function public.start_trial(workspace_id uuid) returns timestamptz
language sql
set search_path = pg_catalog, pg_temp
as $$ select billing.start_trial($1) $$;
comment on function public.start_trial(uuid) is 'Begins the one trial of a workspace, without a card. Returns its end.';

create function public.start_checkout(
    workspace_id uuid,
    price text,
    seats bigint default null,
    return_path text default null,
    idempotency_key text default null
) returns uuid
language sql
set search_path = pg_catalog, pg_temp
as $$ select billing.start_checkout($1, $2, $3, $4, $5) $$;
comment on function public.start_checkout(uuid, text, bigint, text, text) is
'Asks for a checkout of a price by its lookup key. The edge function checkout carries it, and answers with its
address.';

create function public.start_portal(workspace_id uuid, return_path text default null) returns uuid
language sql
set search_path = pg_catalog, pg_temp
as $$ select billing.start_portal($1, $2) $$;
comment on function public.start_portal(uuid, text) is
'Asks for Stripe''s customer portal. The edge function portal carries it, and answers with its address.';

create function public.preview_change(workspace_id uuid, price text, seats bigint default null) returns uuid
language sql
set search_path = pg_catalog, pg_temp
as $$ select billing.preview_change($1, $2, $3) $$;
comment on function public.preview_change(uuid, text, bigint) is
'Asks what a change of plan or seats would cost today. The edge function change-plan carries it, and answers with it.';

create function public.change_plan(
    workspace_id uuid, price text, seats bigint default null, idempotency_key text default null
)
returns uuid
language sql
set search_path = pg_catalog, pg_temp
as $$ select billing.change_plan($1, $2, $3, $4) $$;
comment on function public.change_plan(uuid, text, bigint, text) is
'Asks for a change of plan or seats, paid at once or not made. The edge function change-plan carries it.';

-- What edge functions call -------------------------------------------------------------------

create function public.receive_stripe_events(events jsonb) returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$ select billing.receive_many($1) $$;
comment on function public.receive_stripe_events(jsonb) is
'Keeps events of Stripe. For the edge function stripe-webhook.';

create function public.take_stripe_call(payload jsonb, mode text) returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$ select billing.take_call($1, $2) $$;
comment on function public.take_stripe_call(jsonb, text) is 'The next call to make to Stripe. For edge functions.';

create function public.settle_stripe_call(token jsonb, answer jsonb) returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$ select billing.settle_call($1, $2) $$;
comment on function public.settle_stripe_call(jsonb, jsonb) is 'Takes in what Stripe answered. For edge functions.';

create function public.stripe_result(request_id uuid) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select billing.result_of($1) $$;
comment on function public.stripe_result(uuid) is 'What a request came to. For edge functions.';

create function public.record_usage(
    workspace_id uuid, meter text, quantity bigint, idempotency_key text, at timestamptz default null
) returns boolean
language sql
set search_path = pg_catalog, pg_temp
as $$ select billing.record_usage($1, $2, $3, $4, $5) $$;
comment on function public.record_usage(uuid, text, bigint, text, timestamptz) is
'Records that so much of a meter was used, once per key. For servers, with the service role''s key.';

create function public.record_usage_many(workspace_id uuid, events jsonb) returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$ select billing.record_usage_many($1, $2) $$;
comment on function public.record_usage_many(uuid, jsonb) is
'Records up to 10,000 events of usage, all or none. For servers, with the service role''s key.';

create function billing.claim_calls(size integer) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce((
        select jsonb_agg(jsonb_build_object('job', c.id, 'lease', c.lease, 'payload', c.payload))
        from jobs.claim('{billing}', claim_calls.size, 'edge function', 300) c
    ), '[]');
end
$$;
comment on function billing.claim_calls(integer) is 'Behind public.claim_stripe_calls().';

create function billing.finish_call(result jsonb) returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    lease uuid := (result ->> 'lease')::uuid;
    job bigint := (result ->> 'job')::bigint;
begin
    if not (result ? 'error') then
        perform jobs.complete(lease, array[job]);
        return 'done';
    end if;
    if result -> 'counts' = 'false' then
        perform jobs.release(lease, array[job], (result ->> 'retry_in')::double precision);
        return 'waiting';
    end if;
    perform jobs.fail(lease, jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
        'id', job, 'error', result ->> 'error', 'retry_in', result -> 'retry_in', 'is_permanent', result -> 'failed'
    ))));
    return 'waiting';
end
$$;
comment on function billing.finish_call(jsonb) is 'Behind public.finish_stripe_call().';

create function public.claim_stripe_calls(size integer) returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$ select billing.claim_calls($1) $$;
comment on function public.claim_stripe_calls(integer) is
'Hands out jobs that call Stripe. For the edge function deliver.';

create function public.finish_stripe_call(result jsonb) returns text
language sql
set search_path = pg_catalog, pg_temp
as $$ select billing.finish_call($1) $$;
comment on function public.finish_stripe_call(jsonb) is
'Says what came of a job that called Stripe. For the edge function deliver.';

insert into ops.not_exported (relation, reason)
values
('billing.requests', 'What Stripe was asked belongs to the database that asked.'),
('billing.usage_pushes', 'What Stripe was told belongs to the database that told it.'),
('billing.steps', 'Written afresh where it is imported.');
