"""Search over 10,000 and 1,000,000 tasks, and the same by ilike under RLS."""

from __future__ import annotations

import random
from functools import partial

from rowhouse.local.cluster import SUPERUSER

from tests.identities import make_project, make_user, make_workspace, run
from tests.server import Server

from .houses import as_person, house
from .timing import milliseconds, side_by_side

Rows = list[list[str]]
# 20,000 words of two syllables and a number, as likely as in a language: the n-th a n-th as often.
FILL = """
insert into public.tasks (workspace_id, id, project_id, project_is_private, title)
select %(w)s::uuid, md5(n::text || %(w)s::text)::uuid, %(p)s, false,
    (select string_agg(
        chr(97 + k %% 23) || (array['ana', 'oro', 'ili', 'ubu', 'eke'])[1 + k %% 5] || chr(97 + k %% 19) || 'er' || k,
        ' '
    ) from (select floor(power(20000, random()))::int as k from generate_series(1, 6) where n > 0) w)
from generate_series(1, %(n)s::int) n;
insert into tenancy.search_documents
select t.workspace_id, 'public.tasks'::regclass, t.id, tenancy.search_document(t.workspace_id, t.title, '')
from public.tasks t where t.workspace_id = %(w)s::uuid;
insert into tenancy.search_spellings
select %(w)s::uuid, s.spelling, v.word
from (select distinct unnest(tenancy.search_words(title)) as word from public.tasks where workspace_id = %(w)s::uuid) v
cross join lateral tenancy.spellings(v.word) s (spelling) where length(v.word) between 4 and 32
"""


SEARCH = "select * from public.search(%s, %s)"
ILIKE = "select id, title from public.tasks where workspace_id = %s and title ilike %s limit 20"


def word(k: int) -> str:
    return chr(97 + k % 23) + ("ana", "oro", "ili", "ubu", "eke")[k % 5] + chr(97 + k % 19) + "er" + str(k)


def searching(server: Server, most: int) -> Rows:
    """Milliseconds of a search for a word, a prefix, two words, and a typing error, at two sizes."""
    chance = random.Random(7)
    queries = {
        "a word": [word(chance.randint(20, 300)) for _ in range(20)],
        "a prefix": [word(chance.randint(200, 300))[:-1] for _ in range(20)],
        "two words": [f"{word(chance.randint(5, 12))} {word(chance.randint(5, 12))}" for _ in range(20)],
        "a typing error": [word(k)[:2] + word(k)[3:] for k in (chance.randint(20, 300) for _ in range(20))],
    }
    p50, p95 = {}, {}
    ilike = 0.0
    with house(server, 10, 10) as database:
        for size in (10_000, most):
            with database.connect(SUPERUSER, autocommit=True) as connection:
                owner = make_user(connection)
                workspace = make_workspace(connection, owner)
                project = make_project(connection, workspace, lead=owner)
                run(connection, "set session_replication_role = replica")
                for statement in FILL.strip().split(";\n"):
                    run(connection, statement, {"w": str(workspace), "p": project, "n": size})
                run(connection, "reset session_replication_role")
                run(connection, "vacuum analyze")
            with database.connect(SUPERUSER, autocommit=True) as connection:
                as_person(connection, owner)
                for name, words in queries.items():
                    asked = {w: partial(run, connection, SEARCH, [workspace, w]) for w in words}
                    seconds = side_by_side(asked, 3, 1)
                    times = sorted(t for result in seconds.values() for t in result.seconds)
                    p50[name, size], p95[name, size] = times[len(times) // 2], times[len(times) * 95 // 100]
                if size == most:
                    text = queries["a word"][0]
                    ilike = side_by_side({"ilike": partial(run, connection, ILIKE, [workspace, f"%{text}%"])}, 3, 1)[
                        "ilike"
                    ].median
    rows = []
    for name in queries:
        rows.append(
            [name, milliseconds(p50[name, 10_000]), milliseconds(p95[name, 10_000]), milliseconds(p50[name, most]),
             milliseconds(p95[name, most]), f"{p95[name, most] / p95[name, 10_000]:.1f} ×"]
        )  # fmt: skip
    rows.append(["a word by ilike", "", "", milliseconds(ilike), "", f"{ilike / p50['a word', most]:,.0f} × slower"])
    return rows
