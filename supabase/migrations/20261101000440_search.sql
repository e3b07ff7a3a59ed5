-- Why: search over every adopted table that names searchable columns. RLS keeps Postgres from using text indexes,
--      whose operators may leak; so a definer function finds candidates, whose first condition is the tenant, and
--      the caller's own SELECT decides which of them are shown.
-- Locks: none on existing tables.
-- Workers: need not stop.

-- Each lexeme begins with its tenant: the index then holds every tenant's words together, and what others have
-- written costs nothing, prefixes included. Plain GIN over plain words would read everybody's.
create table tenancy.search_documents (
    workspace_id uuid not null,
    relation regclass not null,
    row_id uuid not null,
    document tsvector not null,
    constraint search_documents_pkey primary key (workspace_id, relation, row_id)
);
alter table tenancy.search_documents enable row level security;
create policy search_documents_nobody on tenancy.search_documents using (false);
create index search_documents_document on tenancy.search_documents using gin (document);
comment on table tenancy.search_documents is 'What can be searched: one row for each live row of a searchable table.';
comment on column tenancy.search_documents.workspace_id is 'The tenant.';
comment on column tenancy.search_documents.relation is 'The table.';
comment on column tenancy.search_documents.row_id is 'The row.';
comment on column tenancy.search_documents.document is 'Its words, each behind the tenant''s mark.';

-- No unique index: two transactions that bring the same new word would wait for each other, and may deadlock.
create table tenancy.search_spellings (
    workspace_id uuid not null,
    spelling text not null,
    word text not null
);
alter table tenancy.search_spellings enable row level security;
create policy search_spellings_nobody on tenancy.search_spellings using (false);
create index search_spellings_key on tenancy.search_spellings (workspace_id, spelling, word);
comment on table tenancy.search_spellings is
'Each word of a workspace, and what is left of it without one letter: two words that share such a rest are one typing
error apart.';
comment on column tenancy.search_spellings.workspace_id is 'The tenant.';
comment on column tenancy.search_spellings.spelling is 'The word, or the word without one letter.';
comment on column tenancy.search_spellings.word is 'The word.';

create function tenancy.search_mark(workspace_id uuid) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select left(encode(uuid_send(search_mark.workspace_id), 'hex'), 16) || ':' $$;
comment on function tenancy.search_mark(uuid) is 'What the lexemes of a tenant begin with.';

create function tenancy.search_parts(content text) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    -- Addresses, paths and tags are one word to the parser, or none: their parts are added.
    select case
        when search_parts.content is null then ''
        when search_parts.content ~ '[/@.<>_]' then
            left(search_parts.content, 100000) || ' '
            || regexp_replace(left(search_parts.content, 100000), '[/@.<>_]+', ' ', 'g')
        else left(search_parts.content, 100000)
    end
$$;
comment on function tenancy.search_parts(text) is
'A text, and the parts of what in it the parser would not take apart.';

create function tenancy.search_words(content text) returns text[]
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    -- "simple" knows no language, so it favours none. Longer words than this are no words.
    select coalesce(array_agg(distinct left(w.word, 64)), '{}')
    from unnest(tsvector_to_array(to_tsvector('simple', tenancy.search_parts(search_words.content)))) as w (word)
$$;
comment on function tenancy.search_words(text) is 'The words of a text, each once, as the index knows them.';

create function tenancy.search_document(workspace_id uuid, title text, content text) returns tsvector
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(
        string_agg(
            format(
                '''%s'':%s',
                replace(replace(
                    tenancy.search_mark(search_document.workspace_id) || left(w.lexeme, 64), '\', '\\'), '''', ''''''
                ),
                (
                    select string_agg(p.place || p.weight, ',')
                    from unnest(w.positions, w.weights) as p (place, weight)
                )
            ),
            ' '
        ),
        ''
    )::tsvector
    from unnest(
        setweight(to_tsvector('simple', tenancy.search_parts(search_document.title)), 'A')
        || setweight(to_tsvector('simple', tenancy.search_parts(search_document.content)), 'B')
    ) as w
$$;
comment on function tenancy.search_document(uuid, text, text) is 'What is kept of a row for searching.';

create function tenancy.spellings(word text) returns setof text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select spellings.word
    union
    select overlay(spellings.word placing '' from place for 1)
    from generate_series(1, length(spellings.word)) as place
    where length(spellings.word) between 4 and 32
$$;
comment on function tenancy.spellings(text) is 'A word, and from four letters on what is left of it without one.';

create function tenancy.index_row() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    this jsonb;
    title text;
    content text;
begin
    if tg_op <> 'INSERT' and (tg_op = 'DELETE' or new.deleted_at is not null) then
        delete from tenancy.search_documents d
        where d.workspace_id = old.workspace_id and d.relation = tg_relid and d.row_id = old.id;
        return null;
    end if;
    if new.deleted_at is not null then
        return null;
    end if;
    this := to_jsonb(new);
    title := this ->> tg_argv[0];
    for i in 1 .. tg_nargs - 1 loop
        content := concat_ws(' ', content, this ->> tg_argv[i]);
    end loop;
    insert into tenancy.search_documents as d (workspace_id, relation, row_id, document)
    values (new.workspace_id, tg_relid, new.id, tenancy.search_document(new.workspace_id, title, content))
    on conflict on constraint search_documents_pkey do update set document = excluded.document;
    perform tenancy.learn_words(new.workspace_id, concat_ws(' ', title, content));
    return null;
end
$$;
comment on function tenancy.index_row() is 'Trigger: keeps the searchable columns named in its arguments findable.';

create function tenancy.learn_words(workspace_id uuid, content text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    term text;
begin
    -- So many of a text will do: a dictionary is not to be had for the price of a note. One by one, as a join would be
    -- planned while there are few words, and read all of them for each when there are many.
    foreach term in array (tenancy.search_words(learn_words.content))[1:200] loop
        continue when length(term) not between 4 and 32;
        perform from tenancy.search_spellings known
        where known.workspace_id = learn_words.workspace_id and known.spelling = term and known.word = term;
        continue when found;
        insert into tenancy.search_spellings (workspace_id, spelling, word)
        select learn_words.workspace_id, s.spelling, term from tenancy.spellings(term) as s (spelling);
    end loop;
end
$$;
comment on function tenancy.learn_words(uuid, text) is 'Remembers the words of a text that are new to a workspace.';

create function tenancy.forget_words(workspace_id uuid, words text[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
begin
    delete from tenancy.search_spellings s
    where
        s.workspace_id = forget_words.workspace_id
        and s.word = any (forget_words.words)
        and not exists (
            select from tenancy.search_documents d
            where d.document @@ tenancy.search_query(forget_words.workspace_id, array[s.word], '')
        );
end
$$;
comment on function tenancy.forget_words(uuid, text[]) is
'Forgets those of the words that nothing in a workspace contains.';

create function tenancy.forget_workspace() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from tenancy.search_documents d where d.workspace_id = old.id;
    delete from tenancy.search_spellings s where s.workspace_id = old.id;
    return null;
end
$$;
comment on function tenancy.forget_workspace() is 'Trigger: a workspace that goes for good takes its words along.';

create trigger workspaces_forget_words after delete on public.workspaces
for each row execute function tenancy.forget_workspace();

-- Asking -------------------------------------------------------------------------------------

create function tenancy.search_query(workspace_id uuid, words text[], suffix text) returns tsquery
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select string_agg(
        format(
            '''%s''%s',
            replace(replace(coalesce(tenancy.search_mark(search_query.workspace_id), '') || w.word, '\', '\\'), '''', ''''''),
            search_query.suffix
        ),
        ' | '
    )::tsquery
    from unnest(search_query.words) as w (word)
$$;
comment on function tenancy.search_query(uuid, text[], text) is
'A query for any of these words, with a suffix of tsquery (:* for what begins so); without a workspace, for a text.';

create function tenancy.search_candidates(
    workspace_id uuid, words text[], relations regclass[], scope text, at_most integer
) returns table (relation regclass, row_id uuid, rank real)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    readable regclass[];
    term text;
    near text[];
    wanted tsquery;
    part tsquery;
begin
    select array_agg(t.relation) into readable
    from tenancy.tenant_tables t
    where
        t.relation = any (search_candidates.relations)
        and search_candidates.workspace_id in (select authz.workspaces_with(t.resource || '.read'));
    if readable is null then
        return;
    end if;
    foreach term in array search_candidates.words loop
        part := tenancy.search_query(
            search_candidates.workspace_id, array[term], case search_candidates.scope when 'titles' then ':*A' else ':*' end
        );
        if search_candidates.scope = 'typing errors' then
            select array_agg(found.word) into near
            from (
                select distinct s.word from tenancy.search_spellings s
                where
                    s.workspace_id = search_candidates.workspace_id
                    and s.spelling = any (array(select tenancy.spellings(term)))
                limit 50
            ) as found;
            if near is not null then
                part := part || tenancy.search_query(search_candidates.workspace_id, near, '');
            end if;
        end if;
        wanted := coalesce(wanted && part, part);
    end loop;
    return query
    select found.relation, found.row_id, ts_rank(found.document, wanted) as rank
    from (
        select d.relation, d.row_id, d.document
        from tenancy.search_documents d
        where
            d.document @@ wanted
            and d.workspace_id = search_candidates.workspace_id
            and d.relation = any (readable)
        limit search_candidates.at_most
    ) as found;
end
$$;
comment on function tenancy.search_candidates(uuid, text[], regclass[], text, integer) is
'The rows that match in their titles, anywhere, or with typing errors, of the tables that the caller''s role may read
there. Only their keys: what a row says, and whether the caller sees it at all, is asked of the table itself.';

create function tenancy.search(workspace_id uuid, query text, kinds text[], max_results integer)
returns table (kind text, id uuid, title text, snippet text, rank real)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    words text[];
    places regclass[];
    place record;
    scope text;
    at_most integer;
    candidates bigint;
    visible bigint;
    marked tsquery;
    found jsonb := '{}'::jsonb;
    left_over integer := least(greatest(coalesce(search.max_results, 20), 1), 100);
    batch jsonb;
    texts jsonb := '{}'::jsonb;
begin
    if length(search.query) > 500 then
        perform ops.raise_http(
            400, 'query_too_long', 'Nobody searches for so much.', null, 'Use at most 500 characters.'
        );
    end if;
    words := (tenancy.search_words(search.query))[1:10];
    if search.workspace_id is null or words is null or words = '{}' then
        return;
    end if;
    places := tenancy.searchable_tables(search.kinds);

    foreach scope in array array['titles', 'all', 'typing errors'] loop
        -- A word that is everywhere is not read to its end; but what the caller may not see must not hide what
        -- they may: if too little of a few is left, more are looked at.
        foreach at_most in array array[100, 5000] loop
            candidates := 0::bigint;
            for place in
                select
                    c.relation, array_agg(c.row_id) as ids, jsonb_object_agg(c.row_id, c.rank) as ranks, count(*) as counted
                from tenancy.search_candidates(search.workspace_id, words, places, scope, at_most) c
                group by c.relation
            loop
                candidates := candidates + place.counted;
                -- Under the caller's policies, which know what they may see.
                execute format(
                    'select jsonb_object_agg(%1$L || r.id, jsonb_build_object(''kind'', %1$L::text, ''id'', r.id, '
                    '''rank'', ($3 ->> r.id::text)::real)) '
                    'from %2$s r where r.workspace_id = $1 and r.id = any ($2)',
                    (select c.relname from pg_class c where c.oid = place.relation), place.relation
                ) into batch using search.workspace_id, place.ids, place.ranks;
                found := coalesce(batch, '{}') || found;
            end loop;
            select count(*) into visible from jsonb_object_keys(found);
            exit when candidates < at_most or visible >= left_over;
        end loop;
        -- Only whoever finds nothing has mistyped.
        exit when visible >= left_over or (scope = 'all' and visible > 0);
    end loop;
    if visible = 0 then
        return;
    end if;

    marked := tenancy.search_query(null, words || tenancy.similar_words(search.workspace_id, words), ':*');
    select jsonb_object_agg(best.key, best.value) into found
    from (
        select f.key, f.value from jsonb_each(found) f order by (f.value ->> 'rank')::real desc, f.key limit left_over
    ) as best;
    for place in
        select f.value ->> 'kind' as kind, array_agg((f.value ->> 'id')::uuid) as ids
        from jsonb_each(found) f group by 1
    loop
        execute tenancy.search_text(place.kind) into batch using search.workspace_id, place.ids;
        texts := texts || coalesce(batch, '{}');
    end loop;
    for place in
        select
            f.value ->> 'kind' as kind, (f.value ->> 'id')::uuid as id, (f.value ->> 'rank')::real as rank,
            texts -> f.key as said
        from jsonb_each(found) f
        where texts ? f.key
        order by (f.value ->> 'rank')::real desc, f.key
    loop
        kind := place.kind;
        id := place.id;
        rank := place.rank;
        title := place.said ->> 0;
        -- The text is anybody's: escaped, so that the marks are the only markup in it.
        snippet := ts_headline(
            'simple', replace(replace(replace(place.said ->> 1, '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), marked,
            'StartSel=<mark>, StopSel=</mark>, MaxWords=24, MinWords=8'
        );
        return next;
    end loop;
end
$$;
comment on function tenancy.search(uuid, text, text[], integer) is
'Behind public.search(). Runs with the caller''s rights.';

create function tenancy.searchable_tables(kinds text[]) returns regclass[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    unknown text;
    chosen regclass[];
begin
    select given.kind into unknown from unnest(searchable_tables.kinds) as given (kind)
    where not exists (
        select from tenancy.tenant_tables t join pg_class c on c.oid = t.relation
        where c.relname = given.kind and t.searchable <> '{}'
    );
    if found then
        perform ops.raise_http(
            400, 'kind_unknown', format('There are no %L to search.', left(unknown, 64)), null,
            (
                select 'Kinds: ' || string_agg(c.relname, ', ' order by c.relname) || '.'
                from tenancy.tenant_tables t join pg_class c on c.oid = t.relation
                where t.searchable <> '{}'
            )
        );
    end if;
    select array_agg(t.relation) into chosen
    from tenancy.tenant_tables t join pg_class c on c.oid = t.relation
    where t.searchable <> '{}' and (searchable_tables.kinds is null or c.relname = any (searchable_tables.kinds));
    return chosen;
end
$$;
comment on function tenancy.searchable_tables(text[]) is
'The tables of these kinds, all that can be searched by default; answers 400 for one that cannot.';

create function tenancy.similar_words(workspace_id uuid, words text[]) returns text[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
begin
    if similar_words.workspace_id not in (select authz.workspaces_with('workspace.read')) then
        return '{}'::text[];
    end if;
    return (
        select coalesce(array_agg(distinct near.word), '{}')
        from unnest(similar_words.words) as w (word)
        cross join lateral (
            select s.word from tenancy.search_spellings s
            where s.workspace_id = similar_words.workspace_id and s.spelling = any (array(select tenancy.spellings(w.word)))
            limit 50
        ) as near
    );
end
$$;
comment on function tenancy.similar_words(uuid, text[]) is
'The words of a workspace that are one typing error away, for its members.';

create function tenancy.search_text(kind text) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select format(
        'select jsonb_object_agg(%L || r.id, jsonb_build_array(r.%I, concat_ws('' · '', %s))) from %s r '
        'where r.workspace_id = $1 and r.id = any ($2)',
        c.relname, t.title,
        (
            select string_agg(format('nullif(r.%I::text, '''')', s.name), ', ' order by s.place)
            from unnest(t.searchable) with ordinality as s (name, place)
        ),
        t.relation
    )
    from tenancy.tenant_tables t
    join pg_class c on c.oid = t.relation
    where c.relname = search_text.kind
$$;
comment on function tenancy.search_text(text) is
'The query for the titles and texts of rows, to be run by whoever asks.';

create function public.search(
    workspace_id uuid, query text, kinds text[] default null, max_results integer default 20
) returns table (kind text, id uuid, title text, snippet text, rank real)
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select * from tenancy.search($1, $2, $3, $4) $$;
comment on function public.search(uuid, text, text[], integer) is
'What matches in a workspace, the best first: all words, by their beginnings; if nothing does, with one typing error
each. The snippet is HTML: escaped text with <mark> around what matches. At most 100 results.';
