"""The programs that are measured. Each does the same job on one core: verify the bearer token,
set identity headers, enforce an admin-only prefix, forward to the backend."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_GATEWAY_YAML = """
server: {{listen: "127.0.0.1:{port}", ops_listen: "off", public_url: "http://127.0.0.1:{port}"}}
tokens: {{access: {{secret: "${{JWT_ACCESS_SECRET}}"}}, refresh: {{secret: "${{JWT_REFRESH_SECRET}}"}}}}
accounts: {{database: "sqlite:///{folder}/gateway.db"}}
upstream: "http://127.0.0.1:{backend}"
routes: [{{path: "/admin/**", allow: admin}}]
"""
_EMAIL, _PASSWORD = "bench@example.com", "a long enough password"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a program needs to know to start."""

    port: int
    """Where it listens."""
    backend: int
    """The backend's port."""
    folder: Path
    """An empty folder of its own."""
    environ: dict[str, str]
    """With both JWT secrets."""


@dataclass(frozen=True, slots=True)
class Program:
    """One row of the table."""

    name: str
    what: str
    """One line: language and way."""
    command: Callable[[Setting], list[str]]
    missing: str | None = None
    """Why it can't run here, or None."""


def programs() -> list[Program]:
    """Every program, in the order of the table; the first is what ratios are against."""
    return [
        Program("asgi-ceiling", "uvicorn + httptools + uvloop answering by itself, no proxying", _hello),
        Program("gateway", "this gateway: `gateway run`, decision log and metrics on", _gateway),
        Program("starlette-httpx", "plain Starlette + PyJWT + httpx", _starlette),
    ]


def environment(folder: Path) -> dict[str, str]:
    """The environment of every program: fresh secrets, a clean home for nothing else."""
    names = ("JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET")
    return os.environ | {name: secrets.token_urlsafe(48) for name in names} | {"TMPDIR": str(folder)}


def access_token(setting: Setting) -> str:
    """Logs in at a running gateway, as a client would."""
    connection = http.client.HTTPConnection("127.0.0.1", setting.port, timeout=10)
    body = json.dumps({"email": _EMAIL, "password": _PASSWORD})
    connection.request("POST", "/auth/login", body, {"Content-Type": "application/json"})
    answer = json.load(connection.getresponse())
    return str(answer["accessToken"])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], *, seconds: float = 20) -> float:
    """Seconds until something listens on `port`."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with {process.returncode} before it listened")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return time.monotonic() - begun
        time.sleep(0.01)
    raise SystemExit(f"{process.args!r} did not listen within {seconds:.0f} s")


def _uvicorn(app: str, setting: Setting) -> list[str]:
    options = ["--http", "httptools", "--loop", "uvloop", "--no-access-log", "--log-level", "warning"]
    return [sys.executable, "-m", "uvicorn", app, "--port", str(setting.port), *options]


def _hello(setting: Setting) -> list[str]:
    return _uvicorn("benchmarks.peers.hello:app", setting)


def _starlette(setting: Setting) -> list[str]:
    setting.environ["UPSTREAM"] = f"http://127.0.0.1:{setting.backend}"
    return _uvicorn("benchmarks.peers.starlette_httpx:app", setting)


def _gateway(setting: Setting) -> list[str]:
    gateway = shutil.which("gateway", path=str(Path(sys.executable).parent)) or "gateway"
    config = setting.folder / "gateway.yaml"
    config.write_text(_GATEWAY_YAML.format(**{k: getattr(setting, k) for k in ("port", "backend", "folder")}))
    add = [gateway, "users", "add", _EMAIL, "--password-stdin", "-c", str(config)]
    subprocess.run(add, input=_PASSWORD.encode(), env=setting.environ, check=True, stdout=subprocess.DEVNULL)
    return [gateway, "run", "-c", str(config)]
