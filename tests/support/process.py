"""The real command: `gateway run` as a process of its own, found by the line it logs when it listens."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "gateway"]
_HASTY = (
    "import gateway.server.run as run, gateway.identity.keywatch as keys; run.LOOK_S = keys.LOOK_S = {};"
    "from gateway.cli.main import main; main()"
)
PASSWORD = "a long enough password"
PATIENCE = 60.0
_YAML = """
server: {{listen: "127.0.0.1:0", ops_listen: "127.0.0.1:0", timeouts: {{drain: 10s}}}}
tokens:
  access: {{secret: "${{JWT_ACCESS_SECRET}}"}}
  refresh: {{secret: "${{JWT_REFRESH_SECRET}}"}}
accounts: {{database: "{database}", bcrypt_cost: 4}}
rate_limits:
  login: {{per_account: 1000/minute, per_address: 1000/minute}}
  refresh: {{per_address: 100000/minute}}
upstream: http://127.0.0.1:{backend}
routes:
  - {{path: /health, allow: public}}
  - {{path: /admin/**, allow: admin}}
"""


@dataclass(slots=True)
class Answer:
    """A response, whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Running:
    """A gateway process that listens."""

    process: subprocess.Popen[bytes]
    address: tuple[str, int]
    ops: tuple[str, int]
    lines: list[dict[str, Any]] = field(default_factory=list)
    """What it has logged so far."""
    tls: ssl.SSLContext | None = None
    """How its clients come in; None for plain HTTP."""

    def request(
        self,
        method: str,
        path: str,
        *,
        token: str = "",
        headers: dict[str, str] | None = None,
        json_body: Any = None,
        ops: bool = False,
    ) -> Answer:
        connection = self._connection(ops)
        headers = (headers or {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        body = None
        if json_body is not None:
            headers["Content-Type"], body = "application/json", json.dumps(json_body)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def _connection(self, ops: bool) -> http.client.HTTPConnection:
        if ops:
            return http.client.HTTPConnection(*self.ops, timeout=PATIENCE)
        if self.tls is None:
            return http.client.HTTPConnection(*self.address, timeout=PATIENCE)
        return http.client.HTTPSConnection(*self.address, timeout=PATIENCE, context=self.tls)

    def log_in(self, email: str) -> dict[str, Any]:
        answer = self.request("POST", "/auth/login", json_body={"email": email, "password": PASSWORD})
        assert answer.status == 200, answer.body
        return dict(answer.json)

    def refresh(self, token: str) -> Answer:
        return self.request("POST", "/auth/refresh", json_body={"refreshToken": token})

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


class Site:
    """A folder with a configuration, its secrets and a database; gateways can be started on it."""

    def __init__(self, folder: Path, *, backend: int, database: str | None = None) -> None:
        self.folder = folder
        self.config = folder / "gateway.yaml"
        database = database or f"sqlite:///{folder}/gateway.db"
        self.config.write_text(_YAML.format(database=database, backend=backend))
        names = ("JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET")
        self.environ = os.environ | {name: secrets.token_urlsafe(48) for name in names}

    def command(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """One finished command of the command line."""
        full = [*COMMAND, *words, "-c", str(self.config)]
        return subprocess.run(
            full, input=stdin, env=self.environ, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def add(self, email: str, *options: str) -> None:
        done = self.command("users", "add", email, "--password-stdin", *options, stdin=PASSWORD)
        assert done.returncode == 0, done.stderr

    @contextmanager
    def running(self, *words: str) -> Iterator[Running]:
        """A gateway, run with these options; killed at the end if it still lives."""
        process = subprocess.Popen(
            [*COMMAND, "run", "-c", str(self.config), *words],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            yield _listening(process)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()


def _listening(process: subprocess.Popen[bytes]) -> Running:
    assert process.stdout is not None
    assert process.stderr is not None
    seen: list[dict[str, Any]] = []
    for line in process.stdout:
        seen.append(json.loads(line))
        if seen[-1].get("message") == "listening":
            running = Running(process, _address(seen[-1]["listen"]), _address(seen[-1]["ops"]), seen)
            threading.Thread(target=_read_on, args=(process, seen), daemon=True).start()
            return running
    raise AssertionError(f"it ended before it listened: {seen} {process.stderr.read().decode()}")


def _read_on(process: subprocess.Popen[bytes], seen: list[dict[str, Any]]) -> None:
    """Somebody has to empty the pipe; the lines are there for tests to look at."""
    assert process.stdout is not None
    try:
        for line in process.stdout:
            seen.append(json.loads(line))
    except ValueError:
        return  # closed by the test's end


def _address(written: list[str]) -> tuple[str, int]:
    host, _, port = written[0].rpartition(":")
    return host, int(port)


def looking_every(seconds: float) -> list[str]:
    """The command, for `COMMAND`, with looks at files and keys at another pace than every two seconds."""
    return [sys.executable, "-c", _HASTY.format(seconds)]


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
