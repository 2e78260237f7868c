"""SIGTERM while requests and streams are in flight, with the real command: who finishes, and who is cut."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest
import trustme

from tests.support.life import soon
from tests.support.process import PATIENCE, Running, Site

DRAIN_S = 1.5
"""Longer than the slow request, far shorter than the stream."""
AUTHORITY = trustme.CA()


@pytest.fixture
def site(site: Site) -> Site:
    text = site.config.read_text().replace("drain: 10s", f"drain: {DRAIN_S}s")
    text = text.replace("{path: /health, allow: public}", "{path: /**, allow: public}")
    site.config.write_text(text)
    return site


@pytest.fixture(params=["plain", "tls"])
def dial(request: pytest.FixtureRequest, site: Site) -> Callable[[Running], socket.socket]:
    """How clients connect."""
    if request.param == "plain":
        return lambda gateway: socket.create_connection(gateway.address, PATIENCE)
    issued = AUTHORITY.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(site.folder / "tls.pem")
    tls = "server: {tls: {certificate: tls.pem, key: tls.pem}, public_url: https://localhost, "
    site.config.write_text(site.config.read_text().replace("server: {", tls))
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)

    def connect(gateway: Running) -> socket.socket:
        plain = socket.create_connection(gateway.address, PATIENCE)
        return context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)

    return connect


def send(client: socket.socket, target: str) -> None:
    client.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


def read(client: socket.socket, until: bytes) -> bytes:
    seen = b""
    while until not in seen:
        data = client.recv(65536)
        assert data, seen
        seen += data
    return seen


def is_cut(client: socket.socket) -> bool:
    """Whether the end comes without the last chunk and, with TLS, without close_notify."""
    seen = b""
    try:
        while data := client.recv(65536):
            seen += data
    except (ConnectionResetError, ssl.SSLError):
        pass
    return b"\r\n0\r\n" not in seen


def decisions(gateway: Running) -> dict[str, dict[str, Any]]:
    return {line["path"]: line for line in gateway.lines if line["event"] == "request"}


def test_requests_finish_and_streams_are_cut(site: Site, dial: Callable[[Running], socket.socket]) -> None:
    with (
        site.running() as gateway,
        dial(gateway) as idle,
        dial(gateway) as slow,
        dial(gateway) as stream,
    ):
        send(idle, "/first")
        read(idle, b'"headers"')
        send(stream, "/sse?events=1000&every=0.1")
        read(stream, b"id: 2\n")
        send(slow, "/slow?seconds=0.7")
        soon(lambda: b"gateway_requests_in_flight 2.0" in gateway.request("GET", "/metrics", ops=True).body)

        began = time.monotonic()
        gateway.process.send_signal(SIGTERM)
        assert b"connection: close" in read(slow, b'"headers"').lower()
        assert gateway.request("GET", "/readyz", ops=True).json["status"] == "draining"
        assert is_cut(stream)
        assert DRAIN_S - 0.1 < time.monotonic() - began < DRAIN_S + 5
        assert gateway.process.wait(PATIENCE) == 0
        soon(lambda: "/sse" in decisions(gateway))

    assert decisions(gateway)["/slow"]["status"] == 200
    assert decisions(gateway)["/sse"]["reason"] != "ok"
    said = [line for line in gateway.lines if line["event"] == "server"]
    assert [line["message"] for line in said if line["level"] == "warning"] == [
        "the drain is over, and what was still open is cut"
    ]
    assert not [line for line in gateway.lines if line.get("level") == "error"]


def test_a_tunnel_goes_on_until_the_end_of_the_drain(
    site: Site, dial: Callable[[Running], socket.socket]
) -> None:
    with site.running() as gateway, dial(gateway) as client:
        client.sendall(
            b"GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert read(client, b'"trailers": []').startswith(b"HTTP/1.1 101 ")
        gateway.process.send_signal(SIGTERM)
        began = time.monotonic()
        soon(lambda: any(line.get("message") == "draining" for line in gateway.lines))
        client.sendall(b"\x81\x85\x00\x00\x00\x00hello")  # a text frame, masked with zeros
        read(client, b"\x81\x05hello")
        assert is_cut(client)
        assert DRAIN_S - 0.1 < time.monotonic() - began < DRAIN_S + 5
        assert gateway.process.wait(PATIENCE) == 0
        soon(lambda: "/chat" in decisions(gateway))
    assert decisions(gateway)["/chat"]["status"] == 101


def test_nothing_in_flight_ends_at_once(site: Site, dial: Callable[[Running], socket.socket]) -> None:
    with site.running() as gateway, dial(gateway) as idle:
        send(idle, "/first")
        read(idle, b'"headers"')
        gateway.process.send_signal(SIGTERM)
        assert not idle.recv(1)
        idle.close()
        began = time.monotonic()
        assert gateway.process.wait(PATIENCE) == 0
        assert time.monotonic() - began < DRAIN_S


def test_an_upload_in_flight_is_taken_to_its_end(
    site: Site, dial: Callable[[Running], socket.socket], tmp_path: Path
) -> None:
    with site.running() as gateway, dial(gateway) as client:
        client.sendall(b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n")
        client.sendall(bytes(100_000))
        soon(lambda: b"gateway_requests_in_flight 1.0" in gateway.request("GET", "/metrics", ops=True).body)
        gateway.process.send_signal(SIGTERM)
        soon(lambda: any(line.get("message") == "draining" for line in gateway.lines))
        client.sendall(bytes(100_000))
        assert read(client, b'"headers"').startswith(b"HTTP/1.1 200 ")
        assert gateway.process.wait(PATIENCE) == 0
