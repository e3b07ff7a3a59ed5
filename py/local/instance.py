"""An instance of the local platform on disk: its folder, its ports and its secrets."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
from base64 import b64encode
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jwt

from ..errors import RowhouseError, UsageError
from ..settings import setting
from .account import give_to_service, service_account, shared_home
from .cluster import Cluster, new_password
from .packages import ensure_packages

# What listens where unless the environment says otherwise; as `supabase start` has them, where it has them.
PORTS = {
    "api": ("ROWHOUSE_API_PORT", 54321),
    "db": ("ROWHOUSE_DB_PORT", 54322),
    "rest": ("ROWHOUSE_REST_PORT", 54331),
    "rest_admin": ("ROWHOUSE_REST_ADMIN_PORT", 54332),
    "auth": ("ROWHOUSE_AUTH_PORT", 54333),
    "functions": ("ROWHOUSE_FUNCTIONS_PORT", 54334),
    "providers": ("ROWHOUSE_PROVIDERS_PORT", 54335),
    "stripe": ("ROWHOUSE_STRIPE_PORT", 54336),
}
LOGIN_ROLES = ("supabase_admin", "postgres", "authenticator", "supabase_auth_admin", "rowhouse_worker")
KEY_ISSUED_AT, KEY_EXPIRES_AT = 1_700_000_000, 2_100_000_000


@dataclass
class State:
    """What an instance keeps between runs: ports by name, and its secrets."""

    ports: dict[str, int]
    jwt_secret: str = field(default_factory=lambda: secrets.token_hex(32))
    passwords: dict[str, str] = field(default_factory=lambda: {role: new_password() for role in LOGIN_ROLES})
    is_prepared: bool = False
    is_seeded: bool = False

    def key(self, role: str) -> str:
        """The API key of a role: a JWT, as PostgREST wants it. Always the same for the same secret."""
        claims = {"iss": "rowhouse-local", "role": role, "iat": KEY_ISSUED_AT, "exp": KEY_EXPIRES_AT}
        return jwt.encode(claims, self.jwt_secret, algorithm="HS256")

    def url_of(self, role: str) -> str:
        return f"postgresql://{role}:{self.passwords[role]}@127.0.0.1:{self.ports['db']}/postgres"

    @property
    def providers(self) -> dict[str, str]:
        """What leads workers, functions and the command line to what stands in for Resend, Twilio and Stripe."""
        url = f"http://127.0.0.1:{self.ports['providers']}"
        return {
            "RESEND_API_KEY": "re_local",
            "RESEND_API_URL": url,
            "RESEND_BASE_URL": url,
            "RESEND_WEBHOOK_SECRET": f"whsec_{b64encode(self.jwt_secret[:32].encode()).decode()}",
            "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
            "TWILIO_AUTH_TOKEN": "local",
            "TWILIO_API_URL": url,
            "STRIPE_SECRET_KEY": "sk_test_standin",
            "STRIPE_API_URL": f"http://127.0.0.1:{self.ports['stripe']}",
            "STRIPE_WEBHOOK_SECRET": f"whsec_{self.jwt_secret[32:]}",
        }

    @property
    def database_url(self) -> str:
        return self.url_of("postgres")

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['api']}"

    def environment(self) -> dict[str, str]:
        """What a client or an operator needs, under Supabase's own names."""
        return {
            "SUPABASE_URL": self.api_url,
            "SUPABASE_ANON_KEY": self.key("anon"),
            "SUPABASE_SERVICE_ROLE_KEY": self.key("service_role"),
            "SUPABASE_JWT_SECRET": self.jwt_secret,
            "DATABASE_URL": self.database_url,
        }


@dataclass(frozen=True)
class Instance:
    """A folder that holds one platform: data, logs, configuration and `state.json`."""

    home: Path

    @classmethod
    def default(cls) -> Instance:
        """The one that `rowhouse local` commands work on: ROWHOUSE_HOME, or `.rowhouse/platform`."""
        chosen = setting("ROWHOUSE_HOME")
        return cls(Path(chosen).expanduser().resolve() if chosen else shared_home() / "platform")

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def outbox(self) -> Path:
        return self.home / "mail.jsonl"

    def messages(self) -> list[dict[str, Any]]:
        """The mails and SMS that were sent here, the newest last."""
        try:
            return [json.loads(line) for line in self.outbox.read_text(encoding="utf-8").splitlines()]
        except FileNotFoundError:
            return []

    @property
    def state_file(self) -> Path:
        return self.home / "state.json"

    def exists(self) -> bool:
        return self.state_file.is_file()

    def load(self) -> State:
        """Reads the state. Raises RowhouseError if there is none, or it cannot be read."""
        try:
            state = State(**json.loads(self.state_file.read_text()))
            for role in LOGIN_ROLES:
                state.passwords.setdefault(role, new_password())
            for name, (_, port) in PORTS.items():
                state.ports.setdefault(name, port)
            return state
        except FileNotFoundError:
            raise RowhouseError("There is no local platform here yet.", "Start one with `rowhouse local up`.") from None
        except PermissionError:
            raise RowhouseError(
                f"{self.state_file} belongs to another user.",
                "Run as that user, or set ROWHOUSE_HOME to a folder of yours.",
            ) from None
        except (ValueError, TypeError):
            raise RowhouseError(
                f"{self.state_file} is damaged.", "`rowhouse local reset` starts afresh; its database is lost."
            ) from None

    def save(self, state: State) -> None:
        self.write_secret("state.json", json.dumps(asdict(state), indent=2))

    def write_secret(self, name: str, text: str, *, for_service: bool = False) -> Path:
        """Writes a file that only its owner can read, whole or not at all."""
        path = self.home / name
        building = path.with_suffix(f"{path.suffix}.{os.getpid()}")
        building.touch(mode=0o600)
        building.write_text(text)
        if for_service:
            give_to_service(building)
        building.rename(path)
        return path

    def make_folders(self) -> None:
        """Makes what the services write to. Raises RowhouseError where that is not possible."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            for name in ("logs", "gateway"):
                folder = self.home / name
                folder.mkdir(exist_ok=True)
                give_to_service(folder)
        except PermissionError as error:
            raise RowhouseError(
                f"{error.filename} cannot be written.", "Set ROWHOUSE_HOME to a folder of yours."
            ) from None
        if service_account() is not None:
            for folder in (self.home, *self.home.parents):
                if not folder.stat().st_mode & 0o001:
                    raise RowhouseError(
                        f"Root's services run under another account, which cannot enter {folder}.",
                        "Set ROWHOUSE_HOME to a folder that all can enter, such as one in /var/lib.",
                    )

    def prepare(self, *, free_ports: bool = False) -> State:
        """The state, made if there is none, with the ports that the environment asks for."""
        self.make_folders()
        ports = _free_ports() if free_ports else _chosen_ports()
        state = self.load() if self.exists() else State(ports)
        if not free_ports:
            state.ports = ports
        self.save(state)
        return state

    def cluster(self, state: State) -> Cluster:
        return Cluster.of_packages(ensure_packages(), self.data, state.ports["db"], state.passwords["supabase_admin"])

    def remove(self) -> None:
        """Deletes everything; the platform must be down."""
        shutil.rmtree(self.home, ignore_errors=True)

    def socket_file(self) -> Path:
        """Where its supervisor listens: in its folder, unless that path is too long for a socket."""
        direct = self.home / "supervisor.sock"
        if len(str(direct)) < 90:
            return direct
        from hashlib import sha256

        return Path("/tmp") / f"rowhouse-{os.getuid()}-{sha256(str(self.home).encode()).hexdigest()[:16]}.sock"  # noqa: S108


def _chosen_ports() -> dict[str, int]:
    ports = {}
    for name, (variable, default) in PORTS.items():
        text = setting(variable, str(default)) or ""
        if not text.isdecimal() or not 1024 <= int(text) <= 65535:
            raise UsageError(f"{variable} is {text!r}, which is no port.", "Use a number from 1024 to 65535.")
        ports[name] = int(text)
    if len(set(ports.values())) < len(ports):
        raise UsageError("Two services have the same port.", f"Check {', '.join(v for v, _ in PORTS.values())}.")
    return ports


def _free_ports() -> dict[str, int]:
    with ExitStack() as held:
        ports = {}
        for name in PORTS:
            listener = held.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports[name] = listener.getsockname()[1]
        return ports
