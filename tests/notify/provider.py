"""The stand-in for Resend and Twilio in a thread, and a worker that is led to it."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

from rowhouse.local import providers

from ..jobs.worker import Worker
from ..server import free_port


class Provider:
    """A running stand-in; `mails` and `texts` are what it took."""

    def __enter__(self) -> Self:
        self.port = free_port()
        self.memory = providers.Memory()
        self.server = providers.Server(self.port, self.memory)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self.port}"
        return {
            "RESEND_API_KEY": "re_test", "RESEND_API_URL": url, "RESEND_BASE_URL": url, "TWILIO_API_URL": url,
            "TWILIO_ACCOUNT_SID": "AC" + "1" * 32, "TWILIO_AUTH_TOKEN": "t", "ROWHOUSE_PROVIDER_TIMEOUT": "1",
            "ROWHOUSE_LATE_SECONDS": "2",
        }  # fmt: skip

    def worker(self, url: str, *arguments: str, **more: Any) -> Worker:
        return Worker(url, "--poll", "0.1", *arguments, **{**self.environment, **more})

    def fail(self, channel: str, faults: list[str] | str | None) -> None:
        """How the next requests fail, one by one; a word for all of them; None for none."""
        self.memory.faults[channel] = list(faults) if isinstance(faults, list) else []
        self.memory.stuck[channel] = faults if isinstance(faults, str) else None

    def taken(self, channel: str) -> list[dict[str, Any]]:
        return [row for row in self.memory.taken if row["channel"] == channel]
