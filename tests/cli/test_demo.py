"""`make run` as a stranger meets it: everything is made, the printed lines work, Ctrl-C ends it."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import environment

ROOT = Path(__file__).parents[2]
VARIABLES = ("GATEWAY_LISTEN", "GATEWAY_OPS_LISTEN", "GATEWAY_UPSTREAM")


@pytest.fixture
def project(folder: Path) -> Path:
    """As much of the project as the demo uses, where it may leave its files."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copy(ROOT / "gateway.yaml", folder)
    return folder


@pytest.fixture
def where() -> dict[str, str]:
    """Free places for its three listeners."""
    with ExitStack() as sockets:
        opened = [sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in VARIABLES]
        places = [f"127.0.0.1:{each.getsockname()[1]}" for each in opened]
    return dict(zip(VARIABLES, (*places[:2], f"http://{places[2]}"), strict=True))


@contextmanager
def demo(project: Path, where: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The running demo, and what it said when it was ready."""
    process = subprocess.Popen(
        [sys.executable, "examples/demo.py"], cwd=project, env=environment() | where,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if "Bearer $ADMIN" in line:
                break
        yield process, said
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def status(where: dict[str, str], path: str, token: str = "") -> int:
    connection = http.client.HTTPConnection(where["GATEWAY_LISTEN"], timeout=30)
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
    found = connection.getresponse().status
    connection.close()
    return found


def log_in(where: dict[str, str], email: str, password: str) -> str:
    connection = http.client.HTTPConnection(where["GATEWAY_LISTEN"], timeout=30)
    body = json.dumps({"email": email, "password": password})
    connection.request("POST", "/auth/login", body, {"Content-Type": "application/json"})
    token = json.loads(connection.getresponse().read())["accessToken"]
    connection.close()
    return str(token)


def test_the_first_and_the_second_start(project: Path, where: dict[str, str]) -> None:
    with demo(project, where) as (process, said):
        passwords = dict(re.findall(r"^  (\w+)@example\.com +(\S+)$", said, re.MULTILINE))
        user = log_in(where, "user@example.com", passwords["user"])
        admin = log_in(where, "admin@example.com", passwords["admin"])
        assert [status(where, "/admin/users", token) for token in ("", user, admin)] == [401, 403, 200]
        assert status(where, "/hello", user) == 200
        if shutil.which("curl"):
            pasted = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", said[said.index("# log in") :]],
                capture_output=True, text=True, check=True, timeout=60,
            ).stdout  # fmt: skip
            assert pasted.endswith("401\n403\n200\n")
            assert '"user@example.com"' in pasted
    assert process.returncode == 0
    assert passwords["user"] not in (project / "gateway.yaml").read_text() + (project / ".env").read_text()

    with demo(project, where) as (process, said):
        assert "admin@example.com  (made earlier" in said
        assert passwords["user"] not in said
        assert status(where, "/hello", user) == 200  # the secrets stayed, so did the session
    assert process.returncode == 0


def test_a_gateway_that_does_not_start(project: Path, where: dict[str, str]) -> None:
    (project / "gateway.yaml").write_text("rotes: []\n")
    done = subprocess.run(
        [sys.executable, "examples/demo.py"], cwd=project, env=environment() | where,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert 'rotes: unknown setting, did you mean "routes"?' in done.stderr
    assert done.stderr.endswith("The gateway did not start; the lines above say why.\n")
    with socket.create_server(("127.0.0.1", int(where["GATEWAY_UPSTREAM"].rpartition(":")[2]))):
        pass  # and the backend was stopped
