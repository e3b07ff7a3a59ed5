"""Splitting a file into statements: quotes, dollar quotes, comments, and bodies with semicolons."""

from __future__ import annotations

import pytest
from rowhouse.migrations import split


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("select 1; select 2", [("select 1", 1), ("select 2", 1)]),
        ("-- only; a comment\n/* and; another */\n", []),
        ("", []),
        (";;\n;select 1;;", [("select 1", 2)]),
        ("select 'a''; b', E'\\'; c', \"x;y\";\nselect 2;", [("select 'a''; b', E'\\'; c', \"x;y\"", 1), ("select 2", 2)]),
        ("do $$ begin; end $$;\nselect 1;", [("do $$ begin; end $$", 1), ("select 1", 2)]),
        ("create function f() returns int language sql as$$ select 1; $$;\nselect 2;", [("create function f() returns int language sql as$$ select 1; $$", 1), ("select 2", 2)]),
        ("do $a$ begin; $b$ x; $b$ end $a$; select 1;", [("do $a$ begin; $b$ x; $b$ end $a$", 1), ("select 1", 1)]),
        ("create function g() returns int begin atomic; select 1; select 2; end;\nselect 3;", [("create function g() returns int begin atomic; select 1; select 2; end", 1), ("select 3", 2)]),
        ("-- why; not\nselect 1; -- after\n\n/* b; */\nselect 2;", [("-- why; not\nselect 1; -- after", 2), ("/* b; */\nselect 2", 5)]),
        ("select 1;\r\nselect 2;\r\n", [("select 1", 1), ("select 2", 2)]),
        ("do $$ never closed; select 1;", [("do $$ never closed; select 1;", 1)]),
    ],
)  # fmt: skip
def test_statements_and_their_lines(source: str, expected: list[tuple[str, int]]) -> None:
    assert [(statement.text, statement.line) for statement in split(source)] == expected
