-- Why: what happens to each column when a person is erased is data, declared with the table and shown before it is
--      done. A tenant table without a declaration fails the doctor.
-- Locks: none on existing tables.
-- Workers: need not stop.

create table ops.erasure_plan (
    relation regclass not null,
    column_name text not null,
    action text not null,
    identifies boolean not null default false,
    constraint erasure_plan_pkey primary key (relation, column_name),
    constraint erasure_plan_actions_are_known check (action in ('delete', 'anonymise', 'keep'))
);
alter table ops.erasure_plan enable row level security;
create policy erasure_plan_nobody on ops.erasure_plan using (false);
comment on table ops.erasure_plan is 'What erasing a person does, column by column.';
comment on column ops.erasure_plan.relation is 'The table.';
comment on column ops.erasure_plan.column_name is
'The column: one that refers to people, or one that may hold what is personal.';
comment on column ops.erasure_plan.action is
'delete: the row goes with the person. anonymise: cleared in rows that are about the person; a reference is cleared.
keep: stays.';
comment on column ops.erasure_plan.identifies is 'Whether a row is about the person whose e-mail address stands here.';

create function tenancy.personal_columns(relation regclass) returns table (column_name text, refers boolean)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        a.attname::text,
        exists (
            select from pg_constraint k
            where
                k.contype = 'f' and k.conrelid = a.attrelid and a.attnum = any (k.conkey)
                and a.attname <> 'workspace_id'
                and k.confrelid in ('public.profiles'::regclass, 'public.workspace_members'::regclass)
        )
    from pg_attribute a
    join pg_type t on t.oid = a.atttypid
    where
        a.attrelid = personal_columns.relation and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
        and (
            t.typcategory = 'S'
            or t.typname in ('json', 'jsonb', 'inet', 'xml', 'hstore', 'bytea', 'tsvector')
            or (t.typcategory = 'A' and t.typelem in (select e.oid from pg_type e where e.typcategory = 'S'))
            or exists (
                select from pg_constraint k
                where
                    k.contype = 'f' and k.conrelid = a.attrelid and a.attnum = any (k.conkey)
                    and a.attname <> 'workspace_id'
                    and k.confrelid in ('public.profiles'::regclass, 'public.workspace_members'::regclass)
            )
        )
    order by a.attnum
$$;
comment on function tenancy.personal_columns(regclass) is
'The columns that an erasure plan must speak of: text of any kind, and references to people.';

create function tenancy.erasure_findings(relation regclass) returns table (code text, finding text, hint text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        'erasure_not_declared',
        format('%s does not say what erasing a person does to %s', erasure_findings.relation, c.column_name),
        format('select tenancy.plan_erasure(%L, ''{"%s": "keep"}'');, or "anonymise", or "delete".', erasure_findings.relation, c.column_name)
    from tenancy.personal_columns(erasure_findings.relation) c
    where not exists (
        select from ops.erasure_plan p
        where p.relation = erasure_findings.relation and p.column_name = c.column_name
    )
$$;
comment on function tenancy.erasure_findings(regclass) is 'Columns that the erasure plan does not speak of.';

create function tenancy.plan_erasure(relation regclass, plan jsonb, identified_by text default null) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    unknown text;
begin
    select given.key into unknown from jsonb_each_text(plan_erasure.plan) as given
    where
        given.value not in ('delete', 'anonymise', 'keep')
        or not exists (
            select from tenancy.personal_columns(plan_erasure.relation) c where c.column_name = given.key
        );
    if found then
        raise exception 'the erasure plan of % says nothing sensible of %', plan_erasure.relation, quote_ident(unknown)
            using errcode = 'invalid_parameter_value',
            hint = 'Name columns of text or references to people, with "delete", "anonymise" or "keep".';
    end if;
    if plan_erasure.identified_by is not null and plan_erasure.plan ->> plan_erasure.identified_by is null then
        raise exception 'the erasure plan of % does not speak of %', plan_erasure.relation, quote_ident(plan_erasure.identified_by)
            using errcode = 'invalid_parameter_value', hint = 'identified_by is one of its columns.';
    end if;
    insert into ops.erasure_plan as p (relation, column_name, action, identifies)
    select plan_erasure.relation, given.key, given.value, coalesce(given.key = plan_erasure.identified_by, false)
    from jsonb_each_text(plan_erasure.plan) as given
    on conflict on constraint erasure_plan_pkey do update
    set action = excluded.action, identifies = excluded.identifies;
end
$$;
comment on function tenancy.plan_erasure(regclass, jsonb, text) is
'Declares what erasing a person does to columns of a table, {"column": "delete", "anonymise" or "keep"}. A row is about
the person if a column that refers to people names them, or if `identified_by` holds their address. For migrations.';
