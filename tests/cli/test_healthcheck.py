from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import pytest

from gateway.cli.healthcheck import DEFAULT
from gateway.config.schema import Server
from tests.cli.conftest import MINIMAL, Command


class Ops(BaseHTTPRequestHandler):
    """An ops listener that answers as told and remembers what it was asked."""

    status: ClassVar[int] = 200
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(self.status)
        self.end_headers()

    def address_string(self) -> str:
        return "somebody"

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def handler() -> type[Ops]:
    return type("Fresh", (Ops,), {"asked": []})


@pytest.fixture
def port(handler: type[Ops]) -> Iterator[int]:
    with socketserver.TCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def unix(handler: type[Ops], folder: Path) -> Iterator[str]:
    with socketserver.UnixStreamServer("ops.sock", handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"unix:{folder / 'ops.sock'}"
        server.shutdown()


def listening_at(where: str) -> str:
    return MINIMAL + f'server: {{ops_listen: "{where}"}}\n'


def test_a_gateway_that_lives(gateway: Command, folder: Path, port: int, handler: type[Ops]) -> None:
    (folder / "gateway.yaml").write_text(listening_at(f"127.0.0.1:{port}"))
    result = gateway("healthcheck")
    assert (result.code, result.out, result.err) == (0, "alive\n", "")
    assert handler.asked == ["/healthz"]


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost"])
def test_where_a_listener_on_every_interface_is_reached(
    gateway: Command, folder: Path, port: int, host: str
) -> None:
    (folder / "gateway.yaml").write_text(listening_at(f"{host}:{port}"))
    assert gateway("healthcheck").code == 0


def test_a_unix_socket(gateway: Command, folder: Path, unix: str) -> None:
    (folder / "gateway.yaml").write_text(listening_at(unix))
    assert gateway("healthcheck").code == 0


def test_one_that_answers_anything_else(
    gateway: Command, folder: Path, port: int, handler: type[Ops]
) -> None:
    handler.status = 503
    (folder / "gateway.yaml").write_text(listening_at(f"127.0.0.1:{port}"))
    result = gateway("healthcheck")
    assert (result.code, result.err) == (1, f"Error: 127.0.0.1:{port} answered 503\n")


def test_one_that_is_not_there(gateway: Command, folder: Path) -> None:
    (folder / "gateway.yaml").write_text(listening_at("unix:/nowhere/ops.sock"))
    result = gateway("healthcheck")
    assert result.code == 1
    assert result.err == "Error: no answer from unix:/nowhere/ops.sock: no such file or directory\n"


def test_one_that_hangs(gateway: Command, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        where = f"127.0.0.1:{deaf.getsockname()[1]}"
        (folder / "gateway.yaml").write_text(listening_at(where))
        result = gateway("healthcheck", "--timeout", "0.1")
    assert (result.code, result.err) == (1, f"Error: no answer from {where}: timed out\n")


def test_one_that_talks_nonsense(gateway: Command, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        (folder / "gateway.yaml").write_text(listening_at(f"127.0.0.1:{server.getsockname()[1]}"))

        def answer() -> None:
            connection, _ = server.accept()
            connection.sendall(b"\x1b[2J nonsense\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        result = gateway("healthcheck")
        thread.join()
    assert result.code == 1
    assert "\x1b" not in result.err


def test_the_environment_and_the_env_file_count(
    gateway: Command, folder: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "gateway.yaml").write_text(listening_at("${WHERE}"))
    (folder / ".env").write_text("WHERE=127.0.0.1:1\n")
    assert "no answer from 127.0.0.1:1" in gateway("healthcheck").err
    monkeypatch.setenv("WHERE", f"127.0.0.1:{port}")
    assert gateway("healthcheck").code == 0


def test_it_stays_green_while_the_file_is_being_edited(gateway: Command, folder: Path, port: int) -> None:
    (folder / "gateway.yaml").write_text(listening_at(f"127.0.0.1:{port}") + "rotes: [\n")
    assert gateway("healthcheck").code == 1  # not YAML at all: where to ask can't be known
    (folder / "gateway.yaml").write_text(listening_at(f"127.0.0.1:{port}") + "rotes: []\n")
    assert gateway("healthcheck").code == 0


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("off", "server.ops_listen is off, so nobody answers /healthz."),
        ("9090", 'server.ops_listen: must be host:port or unix:/path, not "9090"'),
        ("${NOT_SET}", "server.ops_listen: the variable NOT_SET is not set"),
    ],
)
def test_nowhere_to_ask(gateway: Command, folder: Path, where: str, said: str) -> None:
    (folder / "gateway.yaml").write_text(listening_at(where))
    result = gateway("healthcheck")
    assert result.code == 1
    assert said in result.err


def test_a_list_is_no_place(gateway: Command, folder: Path) -> None:
    (folder / "gateway.yaml").write_text("server: {ops_listen: [127.0.0.1:9090]}\n")
    assert gateway("healthcheck").err == "Error: server.ops_listen must be host:port or unix:/path.\n"


def test_without_the_setting_its_default_counts(gateway: Command, folder: Path) -> None:
    assert Server.model_fields["ops_listen"].default == DEFAULT
    (folder / "gateway.yaml").write_text("server: []\n")
    assert f"from {DEFAULT}" in gateway("healthcheck").err or gateway("healthcheck").code == 0
