"""Unmodified clients against the gateway: auth from supabase-py and supabase-js, keys, functions, mail, bad requests."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from supabase_auth.errors import AuthApiError, AuthWeakPasswordError

from supabase import create_client

from .conftest import Platform

pytestmark = pytest.mark.xdist_group("platform")
PASSWORD = "a long enough password"


@pytest.fixture
def url(platform: Platform) -> str:
    return platform.instance.load().api_url


@pytest.fixture
def key(platform: Platform) -> str:
    return platform.instance.load().key("anon")


def address() -> str:
    return f"{uuid.uuid4().hex}@example.com"


def mail_to(platform: Platform, email: str, kind: str = "signup") -> dict[str, Any]:
    """The newest mail of auth's to somebody, once the worker has sent it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        result = platform.rowhouse("local", "mail", "--to", email, "--json")
        mails: list[dict[str, Any]] = [mail for mail in json.loads(result.stdout) if mail.get("type") == kind]
        if mails:
            return mails[-1]
    raise AssertionError("no mail came")


def test_supabase_py_signs_up_in_refreshes_and_resets_a_password(platform: Platform, url: str, key: str) -> None:
    client: Any = create_client(url, key)
    email = address()
    assert client.auth.sign_up({"email": email, "password": PASSWORD}).session is None
    with pytest.raises(AuthApiError, match="not confirmed"):
        client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
    client.auth.verify_otp({"type": "email", "token_hash": mail_to(platform, email)["token_hash"]})
    session = client.auth.sign_in_with_password({"email": email, "password": PASSWORD}).session
    refreshed = client.auth.refresh_session().session
    assert refreshed.access_token
    assert client.auth.get_user().user.email == email
    made = client.rpc("create_workspace", {"name": "Py", "slug": f"py-{uuid.uuid4().hex[:12]}"}).execute().data
    assert client.table("workspaces").select("id").execute().data == [{"id": made["id"]}]
    client.auth.reset_password_for_email(email)
    recovery = mail_to(platform, email, "recovery")
    client.auth.verify_otp({"type": "recovery", "token_hash": recovery["token_hash"]})
    client.auth.update_user({"password": "another long password"})
    client.auth.sign_out()
    with pytest.raises(AuthApiError, match="Invalid login"):
        client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
    assert client.auth.sign_in_with_password({"email": email, "password": "another long password"}).session
    assert session.user.id == refreshed.user.id
    with pytest.raises(AuthWeakPasswordError):
        client.auth.sign_up({"email": address(), "password": "short"})


def test_supabase_js_does_the_same(platform: Platform, url: str, key: str) -> None:
    script = Path(__file__).with_name("client.mjs")
    result = subprocess.run(
        ["node", script], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "SUPABASE_URL": url, "SUPABASE_ANON_KEY": key, "OUTBOX": str(platform.instance.outbox)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [
        "signed-up",
        "signed-in",
        "refreshed",
        "workspace",
        "refused",
        "anonymous",
        "reset",
        "signed-out",
    ]


def test_the_metadata_of_a_user_is_an_object_and_becomes_the_profile(platform: Platform, url: str, key: str) -> None:
    import psycopg

    client: Any = create_client(url, key)
    email = address()
    client.auth.sign_up({"email": email, "password": PASSWORD, "options": {"data": {"display_name": "Zoë"}}})
    with psycopg.connect(platform.instance.load().database_url) as connection:
        row = connection.execute(
            "select jsonb_typeof(u.raw_user_meta_data), p.display_name from auth.users u join profiles p using (id) where u.email = %s",
            [email],
        ).fetchone()
    assert row == ("object", "Zoë")


def test_auth_leaves_the_database_functions_alone(platform: Platform) -> None:
    import psycopg

    with psycopg.connect(platform.instance.load().database_url) as connection:
        row = connection.execute(
            "select set_config('request.jwt.claims', '{\"sub\": \"11111111-1111-4111-8111-111111111111\"}', true), auth.uid()::text"
        ).fetchone()
    assert row is not None
    assert row[1] == "11111111-1111-4111-8111-111111111111"


@pytest.mark.parametrize("path", ["/rest/v1/projects", "/auth/v1/user", "/auth/v1/settings"])
def test_without_a_known_key_the_gateway_answers_401(url: str, path: str) -> None:
    for headers in ({}, {"apikey": "nonsense"}, {"apikey": ""}):
        response = httpx.get(url + path, headers=headers)
        assert response.status_code == 401
        assert response.json()["code"] == "no_api_key"


def test_what_is_nowhere_is_404_and_what_is_too_large_413(url: str, key: str) -> None:
    assert httpx.get(f"{url}/nowhere").json()["code"] == "not_found"
    response = httpx.post(f"{url}/rest/v1/projects", headers={"apikey": key}, content=b"x" * 21_000_000)
    assert (response.status_code, response.json()["code"]) == (413, "request_too_large")


def test_browsers_may_call_it(url: str, key: str) -> None:
    for path in ("/rest/v1/projects", "/auth/v1/token", "/functions/v1/health"):
        preflight = httpx.options(
            url + path,
            headers={
                "Origin": "http://app.example",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "apikey",
            },
        )
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert "apikey" in preflight.headers["access-control-allow-headers"]
        answer = httpx.get(url + path, headers={"apikey": key, "Origin": "http://app.example"})
        assert answer.headers.get_list("access-control-allow-origin") == ["*"]


def test_the_health_function_answers_without_a_key_and_others_need_a_token(url: str) -> None:
    response = httpx.get(f"{url}/functions/v1/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "rest": "ok"})
    missing = httpx.get(f"{url}/functions/v1/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "function_not_found")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/auth/v1/signup", b"{"), ("/auth/v1/signup", b"[]"), ("/auth/v1/signup", b'"x"'), ("/auth/v1/signup", b"null"),
        ("/auth/v1/signup", json.dumps({"email": "a\0b@example.com", "password": PASSWORD}).encode()),
        ("/auth/v1/signup", json.dumps({"email": {"a": 1}, "password": PASSWORD}).encode()),
        ("/auth/v1/signup", json.dumps({"email": "nonsense", "password": PASSWORD}).encode()),
        ("/auth/v1/signup", json.dumps({"email": "x" * 300 + "@example.com", "password": PASSWORD}).encode()),
        ("/auth/v1/signup", json.dumps({"email": "b@example.com", "password": PASSWORD, "data": {"name": "\0"}}).encode()),
        ("/auth/v1/signup", json.dumps({"email": "b@example.com", "password": PASSWORD, "data": {"x": "y" * 10_000_000}}).encode()),
        ("/auth/v1/token?grant_type=password", json.dumps({"email": "b@example.com", "password": 5}).encode()),
        ("/auth/v1/token?grant_type=refresh_token", json.dumps({"refresh_token": "\ud800"}).encode()),
        ("/auth/v1/token?grant_type=nonsense", b"{}"),
        ("/auth/v1/verify", json.dumps({"type": "signup", "token_hash": "x"}).encode()),
        ("/auth/v1/recover", b"{}"),
    ],
)  # fmt: skip
def test_bad_auth_requests_are_a_4xx(url: str, key: str, path: str, body: bytes) -> None:
    response = httpx.post(url + path, headers={"apikey": key, "Content-Type": "application/json"}, content=body)
    assert 400 <= response.status_code < 500, f"{response.status_code} {response.text}"


def test_an_anonymous_sign_in_is_shown_nothing_and_makes_nothing(url: str, key: str) -> None:
    from postgrest.exceptions import APIError

    client: Any = create_client(url, key)
    client.auth.sign_in_anonymously()
    assert client.table("workspaces").select("*").execute().data == []
    assert client.table("profiles").select("*").execute().data == []
    with pytest.raises(APIError) as caught:
        client.rpc("create_workspace", {"name": "Nobody", "slug": "nobody-s"}).execute()
    assert caught.value.code == "not_authenticated"
