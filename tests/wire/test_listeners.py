"""Proxied requests over every kind of listener, with the real command: unix sockets and TLS."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from tests.support.life import soon
from tests.support.process import PATIENCE, Running, Site

AUTHORITY = trustme.CA()


@pytest.fixture
def gateway(site: Site) -> Iterator[Running]:
    """Listens with TLS and on a unix socket."""
    issue(site, "localhost")
    listen = f'listen: ["localhost:0", "unix:{site.folder}/gateway.sock"]'
    text = site.config.read_text().replace('listen: "127.0.0.1:0"', listen, 1)
    tls = "server: {tls: {certificate: tls.crt, key: tls.key}, public_url: https://localhost, "
    site.config.write_text(text.replace("server: {", tls))
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    with site.running() as gateway:
        gateway.tls, gateway.address = context, ("localhost", gateway.address[1])
        yield gateway


def issue(site: Site, *names: str) -> None:
    issued = AUTHORITY.issue_cert(*names)
    issued.cert_chain_pems[0].write_to_path(site.folder / "tls.crt")
    issued.private_key_pem.write_to_path(site.folder / "tls.key")


class Unix(http.client.HTTPConnection):
    """A client of a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def seen_by_backend(body: bytes) -> dict[str, str]:
    return {name.lower(): value for name, value in json.loads(body)["headers"]}


def test_the_backend_hears_of_tls(gateway: Running) -> None:
    answer = gateway.request("GET", "/health")
    assert answer.status == 200
    seen = seen_by_backend(answer.body)
    assert seen["x-forwarded-proto"] == "https"
    assert seen["x-forwarded-for"] in ("127.0.0.1", "::1")


def test_a_unix_socket_is_plain_and_its_client_has_no_address(gateway: Running, site: Site) -> None:
    client = Unix(f"{site.folder}/gateway.sock")
    client.request("GET", "/health")
    response = client.getresponse()
    assert response.status == 200
    seen = seen_by_backend(response.read())
    assert seen["x-forwarded-proto"] == "http"
    assert "x-forwarded-for" not in seen
    client.request("POST", "/health", body=bytes(300_000))
    assert client.getresponse().read()
    client.request("GET", "/admin/x")
    assert client.getresponse().status == 401
    client.close()
    soon(lambda: [line for line in gateway.lines if line.get("status") == 401])
    assert {line["client"] for line in gateway.lines if line["event"] == "request"} == {"unix"}


def test_logging_in_and_large_bodies_over_tls(gateway: Running, site: Site) -> None:
    site.add("ana@example.com")
    token = gateway.log_in("ana@example.com")["accessToken"]
    body: Any = ["x" * 1_000_000]
    answer = gateway.request("POST", "/orders", token=token, json_body=body)
    assert answer.status == 200
    assert seen_by_backend(answer.body)["x-user-email"] == "ana@example.com"


def test_the_health_check_asks_the_plain_ops_listener(gateway: Running, site: Site) -> None:
    text = site.config.read_text()
    asking = text.replace('ops_listen: "127.0.0.1:0"', f'ops_listen: "127.0.0.1:{gateway.ops[1]}"')
    site.config.write_text(asking)
    assert site.command("healthcheck").stdout == "alive\n"
    metrics = gateway.request("GET", "/metrics", ops=True).body
    assert b"gateway_ready 1.0" in metrics
    assert b"\ngateway_certificate_expires_timestamp_seconds 3.25" in metrics  # the year 3000


def test_a_renewed_certificate_is_served_without_being_told(gateway: Running, site: Site) -> None:
    assert gateway.request("GET", "/health").status == 200
    issue(site, "renewed.test", "localhost")
    soon(lambda: any("a new certificate is served" in line.get("message", "") for line in gateway.lines))
    assert gateway.tls is not None
    with (
        socket.create_connection(gateway.address, PATIENCE) as plain,
        gateway.tls.wrap_socket(plain, server_hostname="renewed.test") as client,
    ):
        assert client.version() == "TLSv1.3"
    (site.folder / "tls.key").write_text("")
    soon(lambda: any("not taken up" in line.get("message", "") for line in gateway.lines))
    assert gateway.request("GET", "/health").status == 200
