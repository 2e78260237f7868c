"""The real command on real sockets: a whole morning, a race of tabs, a kill, a database that goes away."""

from __future__ import annotations

import signal
import socket
import tempfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.support.databases import Server, migrate
from tests.support.life import soon
from tests.support.process import PATIENCE, Running, Site

ROUNDS = 100


def test_a_morning_with_the_gateway(site: Site) -> None:
    site.add("root@example.com", "--admin")
    site.add("ana@example.com", "--role", "analyst")
    with site.running() as gateway:
        assert gateway.request("GET", "/readyz", ops=True).status == 200
        root, ana = gateway.log_in("root@example.com"), gateway.log_in("ana@example.com")

        assert gateway.request("GET", "/admin/x").status == 401
        assert gateway.request("GET", "/admin/x", token=ana["accessToken"]).status == 403
        assert gateway.request("GET", "/admin/x", token=root["accessToken"]).status == 200

        seen = gateway.request("GET", "/orders", token=ana["accessToken"]).json["headers"]
        assert ["X-User-Email", "ana@example.com"] in seen
        assert ["X-User-Roles", "analyst"] in seen

        metrics = gateway.request("GET", "/metrics", ops=True).body.decode()
        assert 'gateway_requests_total{route="/admin/**",status="403",verdict="deny"} 1.0' in metrics
        assert gateway.stop() == 0
    reasons = {(line["path"], line["status"], line["reason"]) for line in gateway.lines if "route" in line}
    assert {("/admin/x", 401, "no_credential"), ("/admin/x", 403, "not_admin")} <= reasons


def test_a_change_on_the_command_line_reaches_a_running_gateway(site: Site) -> None:
    site.add("ana@example.com")
    with site.running() as gateway:
        token = gateway.log_in("ana@example.com")["accessToken"]
        assert gateway.request("GET", "/orders", token=token).status == 200
        assert site.command("users", "disable", "ana@example.com").returncode == 0
        # The feed is read every second; each look is a request of its own.
        statuses = (gateway.request("GET", "/slow?seconds=0.1", token=token).status for _ in range(100))
        assert 401 in statuses


def _refresh_twice(address: tuple[str, int], token: str) -> list[str]:
    """In a process of its own: two refreshes with one token; the refresh tokens that came back."""
    gateway = Running(None, address, address)  # type: ignore[arg-type]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(gateway.refresh, [token, token]))
    return [answer.json["refreshToken"] for answer in answers if answer.status == 200]


def test_tabs_in_threads_and_processes_refresh_at_once_and_one_chain_lives(site: Site) -> None:
    site.add("ana@example.com")
    with site.running() as gateway, ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        token = gateway.log_in("ana@example.com")["refreshToken"]
        for _ in range(ROUNDS):
            tabs = [processes.submit(_refresh_twice, gateway.address, token) for _ in range(2)]
            successors = [successor for tab in tabs for successor in tab.result()]
            assert len(successors) == 4
            assert len(set(successors)) == 1
            token = successors[0]
        assert gateway.refresh(token).status == 200


def test_a_killed_gateway_forgets_no_logout_and_loses_no_session(site: Site) -> None:
    site.add("ana@example.com")
    with site.running() as gateway:
        gone, stays = gateway.log_in("ana@example.com"), gateway.log_in("ana@example.com")
        assert (
            gateway.request("POST", "/auth/logout", json_body={"refreshToken": gone["refreshToken"]}).status
            == 204
        )
        gateway.process.send_signal(signal.SIGKILL)
    with site.running() as gateway:
        assert gateway.request("GET", "/orders", token=gone["accessToken"]).status == 401
        assert gateway.refresh(gone["refreshToken"]).status == 401
        assert gateway.request("GET", "/orders", token=stays["accessToken"]).status == 200
        assert gateway.refresh(stays["refreshToken"]).status == 200


def test_a_database_that_goes_away_closes_auth_and_nothing_else(tmp_path: Path, backend: int) -> None:
    # Not below tmp_path, which is closed to the other user that a server of root's runs as.
    server = Server(Path(tempfile.mkdtemp(prefix="gateway-postgres-")))
    try:
        migrate(server.url)
        site = Site(tmp_path, backend=backend, database=server.url)
        site.add("ana@example.com")
        with site.running() as gateway:
            ana = gateway.log_in("ana@example.com")
            server.stop()

            assert gateway.request("GET", "/orders", token=ana["accessToken"]).status == 200
            assert gateway.request("GET", "/orders").status == 401
            refused = gateway.refresh(ana["refreshToken"])
            assert (refused.status, refused.json["code"]) == (503, "unavailable")
            ready = gateway.request("GET", "/readyz", ops=True)
            while not ready.json["degraded"]:
                ready = gateway.request("GET", "/readyz", ops=True)
            assert ready.status == 200
            assert ready.json["degraded"][0]["name"] == "database"

            server.start()
            assert gateway.refresh(ana["refreshToken"]).status == 200
    finally:
        server.remove()


def test_a_database_that_stays_away_closes_the_door_if_that_was_asked_for(
    tmp_path: Path, backend: int
) -> None:
    server = Server(Path(tempfile.mkdtemp(prefix="gateway-postgres-")))
    try:
        migrate(server.url)
        site = Site(tmp_path, backend=backend, database=server.url)
        site.config.write_text(site.config.read_text() + "sessions: {max_staleness: 5s, on_stale: deny}\n")
        site.add("ana@example.com")
        with site.running() as gateway, socket.create_connection(gateway.address, PATIENCE) as stream:
            token = gateway.log_in("ana@example.com")["accessToken"]
            stream.sendall(f"GET /sse?events=900&every=0.1 HTTP/1.1\r\nHost: a\r\n{_bearer(token)}".encode())
            assert stream.recv(65536).startswith(b"HTTP/1.1 200")
            server.stop()
            assert gateway.request("GET", "/orders", token=token).status == 200
            while stream.recv(65536):  # it is cut; PATIENCE bounds the wait
                pass
            refused = gateway.request("GET", "/orders", token=token)
            assert (refused.status, refused.json["code"]) == (503, "cutoffs_stale")
            assert gateway.request("GET", "/health", token=token).status == 200
            soon(lambda: _degraded(gateway) == {"cutoffs", "database"})  # looked after once a second
            server.start()
            soon(lambda: gateway.request("GET", "/orders", token=token).status == 200)
    finally:
        server.remove()


def _degraded(gateway: Running) -> set[str]:
    ready = gateway.request("GET", "/readyz", ops=True)
    assert ready.status == 200
    return {each["name"] for each in ready.json["degraded"]}


def _bearer(token: str) -> str:
    return f"Authorization: Bearer {token}\r\n\r\n"


def test_without_a_secret_nothing_starts_and_the_place_is_named(site: Site) -> None:
    del site.environ["JWT_REFRESH_SECRET"]
    done = site.command("run")
    assert done.returncode == 1
    assert (
        "gateway.yaml:5:21  tokens.refresh.secret: the variable JWT_REFRESH_SECRET is not set" in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_the_same_secret_twice_is_refused(site: Site) -> None:
    site.environ["JWT_REFRESH_SECRET"] = site.environ["JWT_ACCESS_SECRET"]
    done = site.command("run")
    assert done.returncode == 1
    assert "tokens.refresh.secret" in done.stderr
    assert site.environ["JWT_ACCESS_SECRET"] not in done.stderr + done.stdout


@pytest.mark.parametrize("path", ["/health", "/auth/login"])
def test_a_request_whose_body_turns_out_malformed_has_one_line(site: Site, path: str) -> None:
    with site.running() as gateway, socket.create_connection(gateway.address, PATIENCE) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        client.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\nzz\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 400 ")
        gateway.stop()
    lines = [line for line in gateway.lines if line["event"] == "request"]
    assert [(line["path"], line["status"], line["reason"]) for line in lines] == [(path, 400, "bad_framing")]
    assert lines[0]["requestId"].encode() in answer
    assert lines[0]["route"] is not None
