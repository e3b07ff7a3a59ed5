-- Why: what was decided is read in one row, by members, functions and programs; and its people are told of it.
-- Locks: none on existing tables.
-- Workers: need not stop.

create function billing.access(workspace_id uuid) returns table (
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
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    return query
    select
        coalesce(p.version_of, p.id), p.version, ca.state, ca.reason, ca.until, ca.state <> 'restricted', ca.seats,
        case when ca.seats is not null then
            (select m.seats from billing.billable_members m where m.workspace_id = ca.workspace_id)
        end,
        (
            select coalesce(jsonb_object_agg(l.resource, to_jsonb(coalesce(o.max, case when o.resource is null then l.max end))), '{}')
            from billing.plan_limits l
            left join billing.limit_overrides o on o.workspace_id = ca.workspace_id and o.resource = l.resource
            where l.plan_id = ca.plan_id
        ),
        array(
            select f.feature from billing.plan_features f
            where
                f.plan_id = ca.plan_id and not exists (
                    select from billing.feature_overrides o
                    where o.workspace_id = ca.workspace_id and o.feature = f.feature and not o.is_enabled
                )
            union
            select o.feature from billing.feature_overrides o where o.workspace_id = ca.workspace_id and o.is_enabled
            order by 1
        )
    from billing.current_access ca
    join billing.plans p on p.id = ca.plan_id
    where ca.workspace_id = access.workspace_id;
end
$$;
comment on function billing.access(uuid) is
'In one row what a workspace may do now and why: plan, state, reason, until when, limits, features, seats.';

create view billing.billable_members with (security_invoker = true) as
select m.workspace_id, count(*) as seats
from public.workspace_members as m
inner join public.roles as r on m.role_id = r.id
-- Who can only look takes no seat.
where r.key <> 'viewer' or r.workspace_id is not null
group by m.workspace_id;
comment on view billing.billable_members is 'How many seats each workspace takes: its members but for viewers.';
comment on column billing.billable_members.workspace_id is 'The tenant.';
comment on column billing.billable_members.seats is 'How many.';

-- Telling ------------------------------------------------------------------------------------

select
    notify.declare_kind(
        'billing.trial_started', 'Your trial of {plan} has begun', '{count} trials have begun', 'A trial begins',
        body => 'It ends on {until}.',
        link => '/billing',
        permission => 'billing.manage',
        default_frequency => 'immediately'
    ),
    notify.declare_kind(
        'billing.trial_ending',
        'Your trial of {plan} ends in {days} days',
        '{count} reminders of a trial',
        'A trial is about to end',
        body => 'It ends on {until}. Choose a plan to keep what it gives.',
        link => '/billing',
        permission => 'billing.manage',
        default_frequency => 'immediately'
    ),
    notify.declare_kind(
        'billing.trial_ended', 'Your trial of {plan} has ended', '{count} trials have ended', 'A trial ends',
        body => 'You are on the {to_plan} plan now. Nothing is lost.',
        link => '/billing',
        permission => 'billing.manage',
        default_frequency => 'immediately'
    ),
    notify.declare_kind(
        'billing.activated', 'You are on the {to_plan} plan', '{count} changes of the plan', 'A plan is bought',
        link => '/billing', permission => 'billing.manage', default_frequency => 'immediately'
    ),
    notify.declare_kind(
        'billing.plan_changed', 'You are on the {to_plan} plan now', '{count} changes of the plan', 'The plan changes',
        link => '/billing', permission => 'billing.manage', default_frequency => 'immediately'
    ),
    notify.declare_kind(
        'billing.payment_failed', 'A payment for {plan} did not go through', '{count} payments did not go through',
        'A payment fails', body => 'Please see to it by {until}; until then everything works.', link => '/billing',
        permission => 'billing.manage', default_frequency => 'immediately'
    ),
    notify.declare_kind(
        'billing.payment_reminder', 'The payment for {plan} is still open', '{count} reminders of a payment',
        'A payment that failed is still open',
        body => 'On {until} the workspace becomes read only.',
        link => '/billing',
        permission => 'billing.manage', default_frequency => 'immediately'
    ),
    notify.declare_kind(
        'billing.restricted', 'The workspace is read only', '{count} times the workspace became read only',
        'The workspace becomes read only', body => 'Nothing is lost: everything works again once it is paid for.',
        link => '/billing', permission => 'billing.manage', default_frequency => 'immediately'
    ),
    notify.declare_kind(
        'billing.restored', 'Thank you: everything works again', '{count} payments made good', 'A payment is made good',
        link => '/billing', permission => 'billing.manage', default_frequency => 'immediately'
    ),
    notify.declare_kind(
        'billing.ended', 'The {plan} plan has ended', '{count} plans have ended', 'A plan ends',
        body => 'You are on the {to_plan} plan now. Nothing is lost.',
        link => '/billing',
        permission => 'billing.manage',
        default_frequency => 'immediately'
    ),
    notify.declare_kind(
        'billing.renewal_upcoming',
        'The {plan} plan renews on {until}',
        '{count} renewals are due',
        'A plan is about to renew',
        link => '/billing', permission => 'billing.manage', default_frequency => 'immediately'
    ),
    notify.declare_kind(
        'billing.card_expiring',
        'The card ending in {last_digits} expires {expires}',
        '{count} cards expire',
        'A card is about to expire',
        link => '/billing', permission => 'billing.manage', default_frequency => 'immediately'
    );

create function billing.day(moment timestamptz) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select coalesce(to_char(day.moment at time zone 'UTC', 'FMDD FMMonth YYYY'), 'an open day') $$;
comment on function billing.day(timestamptz) is 'A day for people.';

create function billing.tell(workspace_id uuid, kind text, facts jsonb) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    address text;
    known public.notification_kinds;
    title text;
    body text;
    field record;
begin
    if ops.is_allowed('import') then
        return;
    end if;
    perform notify.emit(tell.workspace_id, tell.kind, null, facts);
    -- The address for invoices may be nobody's who is a member.
    select c.email into address from billing.customers c
    where
        c.workspace_id = tell.workspace_id and notify.is_address('email', c.email)
        and not exists (
            select from authz.members_with(tell.workspace_id, 'billing.manage') m (user_id)
            join public.profiles p on p.id = m.user_id where lower(p.email) = lower(c.email)
        );
    if found then
        select k.* into strict known from public.notification_kinds k where k.kind = tell.kind;
        title := known.title;
        body := known.body;
        for field in select f.key, f.value from jsonb_each_text(facts) as f loop
            title := replace(title, '{' || field.key || '}', coalesce(field.value, ''));
            body := replace(body, '{' || field.key || '}', coalesce(field.value, ''));
        end loop;
        perform notify.write_message(
            'email', tell.kind, address,
            notify.compose(
                notify.look_of(null), title, array[body, (select 'Workspace: ' || w.name from public.workspaces w where w.id = tell.workspace_id)],
                'See billing', (notify.look_of(null)).site_url || known.link, 'You get this because invoices for the workspace go to this address.'
            ),
            tell.workspace_id
        );
    end if;
end
$$;
comment on function billing.tell(uuid, text, jsonb) is
'Tells those who may manage billing, and the address for invoices where that is somebody else''s.';

create function billing.plan_name(plan_id text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select p.name from billing.plans p where p.id = plan_name.plan_id $$;
comment on function billing.plan_name(text) is 'A plan''s name for people.';

create function billing.tell_of_change(workspace_id uuid, before billing.workspace_plans, decided billing.standing)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    told text;
begin
    if before.state <> decided.state then
        select t.kind into strict told from billing.access_transitions t
        where t.from_state = before.state and t.to_state = decided.state;
    elsif before.plan_id <> decided.plan_id
        and coalesce((select p.version_of from billing.plans p where p.id = before.plan_id), before.plan_id)
        <> coalesce((select p.version_of from billing.plans p where p.id = decided.plan_id), decided.plan_id)
    then
        told := 'billing.plan_changed';
    else
        return;
    end if;
    perform billing.tell(
        tell_of_change.workspace_id, told, jsonb_build_object(
            'plan', billing.plan_name(case when decided.state in ('free', 'active') then before.plan_id else decided.plan_id end),
            'to_plan', billing.plan_name(decided.plan_id), 'until', billing.day(decided.until), 'reason', decided.reason
        )
    );
end
$$;
comment on function billing.tell_of_change(uuid, billing.workspace_plans, billing.standing) is
'Tells of a transition, by the kind that it is declared with.';
