"""`gateway run` and what works beside it: real processes, real sockets, a real SQLite file."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest

from tests.cli.conftest import MINIMAL, Command, environment
from tests.support.databases import shared_postgres

PASSWORD = "correct horse battery"
ANA = "ana@example.com"
SETTINGS = """\
accounts: {bcrypt_cost: 10}
server: {listen: 127.0.0.1:0, ops_listen: 127.0.0.1:0}
routes:
  - {path: /admin/**, allow: admin}
"""


@dataclass
class Running:
    """A gateway in a process of its own."""

    process: subprocess.Popen[str]
    port: int
    ops: int
    lines: list[dict[str, Any]]

    def ask(self, method: str, path: str, body: object = None, token: str = "") -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        told = response.read()
        connection.close()
        return response.status, json.loads(told) if told else {}

    def log_in(self) -> str:
        status, told = self.ask("POST", "/auth/login", {"email": ANA, "password": PASSWORD})
        assert status == 200, told
        return str(told["accessToken"])

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@contextlib.contextmanager
def running(*words: str) -> Iterator[Running]:
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "run", *words],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield Running(process, *_listening(process))
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def _listening(process: subprocess.Popen[str]) -> tuple[int, int, list[dict[str, Any]]]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(json.loads(line))
        if lines[-1].get("message") == "listening":
            public, ops = (lines[-1][name][0].rpartition(":")[2] for name in ("listen", "ops"))
            return int(public), int(ops), lines
    raise AssertionError(f"it did not start: {lines} {process.communicate()[1]}")


class Backend(BaseHTTPRequestHandler):
    """Tells who it was told is asking."""

    def do_GET(self) -> None:
        body = json.dumps({"user": self.headers["X-User-Email"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def backend() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Backend) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def change(folder: Path, old: str, new: str) -> None:
    """Edit the configuration."""
    text = (folder / "gateway.yaml").read_text()
    assert old in text
    (folder / "gateway.yaml").write_text(text.replace(old, new))


@pytest.fixture
def served(site: Path, backend: str) -> Path:
    """A folder whose gateway serves a backend, on ports of its own."""
    settings = MINIMAL.replace("http://127.0.0.1:9000", backend) + SETTINGS
    (site / "gateway.yaml").write_text(settings)
    return site


def test_a_day_in_the_life(served: Path, process: Command, gateway: Command) -> None:
    with running() as front:
        (line,) = [line for line in front.lines if line.get("message") == "listening"]
        assert line["listen"] == [f"127.0.0.1:{front.port}"]
        assert line["ops"] == [f"127.0.0.1:{front.ops}"]
        assert (line["version"], line["file"]) == (version("auth-gateway"), "gateway.yaml")

        assert process("users", "add", ANA, "--password-stdin", stdin=PASSWORD).code == 0
        token = front.log_in()
        assert front.ask("GET", "/hello", token=token) == (200, {"user": ANA})
        assert front.ask("GET", "/admin/x")[0] == 401
        assert front.ask("GET", "/admin/x", token=token)[0] == 403

        (served / "asking.yaml").write_text(f"server: {{ops_listen: 127.0.0.1:{front.ops}}}\n")
        assert gateway("healthcheck", "-c", "asking.yaml").out == "alive\n"

        # What the command line changes, the running gateway feels, in tokens that are in use.
        assert gateway("users", "set", ANA, "--admin").code == 0
        deadline = time.monotonic() + 10
        while front.ask("GET", "/hello", token=token)[0] != 401:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert front.ask("GET", "/admin/x", token=front.log_in()) == (200, {"user": ANA})

        code, out, err = front.stop()
    assert (code, err) == (0, "")
    assert [json.loads(line).get("message") for line in out.splitlines()][-2:] == ["draining", "stopped"]
    decisions = [line for line in map(json.loads, out.splitlines()) if line["event"] == "request"]
    assert {line["status"] for line in decisions} == {200, 401, 403}
    assert PASSWORD not in out
    assert token not in out


def test_mistakes_are_those_of_check_and_nothing_starts(site: Path, gateway: Command) -> None:
    (site / "gateway.yaml").write_text(MINIMAL + "rotes: []\ndefalt: x\n")
    checked = gateway("check")
    result = gateway("run")
    assert (result.code, result.out) == (1, "")
    assert result.err == checked.out
    assert result.err.count("\n") == 2
    assert [path.name for path in site.iterdir()] == ["gateway.yaml"]


def test_warnings_are_said_and_ctrl_c_ends_it(served: Path) -> None:
    change(served, "routes:\n", "routes:\n  - {path: /**, allow: public}\n")
    with running() as front:
        code, out, err = front.stop(signal.SIGINT)
    assert code == 0
    assert err.startswith("warning: gateway.yaml:")
    assert err.count("\n") == 1
    assert "Traceback" not in out


def test_a_taken_port_is_one_sentence(served: Path, process: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1:{other.getsockname()[1]}"
        change(served, "listen: 127.0.0.1:0,", f"listen: {where},")
        result = process("run")
    assert result.code == 1
    assert result.err.startswith("Error: ")
    assert where in result.err
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.out


def test_secrets_that_are_not_set(site: Path, gateway: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JWT_REFRESH_SECRET")
    result = gateway("run")
    assert result.code == 1
    assert result.err.startswith("gateway.yaml:3:21  tokens.refresh.secret: the variable JWT_REFRESH_SECRET")


def test_a_file_that_only_now_turns_out_wrong(served: Path, process: Command, backend: str) -> None:
    upstreams = "upstreams: {a: {url: 'https://localhost:1', tls: {ca: nowhere.pem}}}"
    change(served, f"upstream: {backend}", upstreams)
    result = process("run")
    assert (result.code, result.err) == (1, f"Error: {served / 'nowhere.pem'}: No such file or directory\n")


def test_a_postgresql_is_upgraded_by_its_own_command_only(
    served: Path, gateway: Command, process: Command
) -> None:
    server = shared_postgres()
    url = server.empty()
    change(served, "bcrypt_cost: 10", f"bcrypt_cost: 10, database: '{url}'")
    try:
        for refused in (process("run"), gateway("users", "list")):
            assert refused.code == 1
            assert refused.err.endswith("run `gateway db upgrade`\n")
            assert refused.err.count("\n") == 1
        assert gateway("db", "check").code == 1
        assert gateway("db", "upgrade").out.startswith("upgraded from schema none to 0")
        assert gateway("db", "check").code == 0
        with running() as front:
            assert process("users", "add", ANA, "--password-stdin", stdin=PASSWORD).code == 0
            assert front.log_in()
            assert front.stop()[0] == 0
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        for refused in (process("run"), gateway("users", "list"), gateway("db", "upgrade")):
            assert refused.code == 1
            assert "at schema 9999, which is newer than this gateway" in refused.err
            assert refused.err.count("\n") == 1
    finally:
        server.drop(url)
        server.close()
