"""API tokens and real processes: commands beside a running gateway, tunnels, a database that goes away."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from gateway.identity.api_tokens import make_token
from tests.support.databases import Server, migrate
from tests.support.process import Site
from tests.support.tunnels import TunnelSite, tunnel_site
from tests.support.websockets import WebSocketBackend

SOON = 2.0
"""Seconds in which what was ended is dead everywhere."""


def made(site: Site, *words: str) -> tuple[str, str]:
    """The text and the id of a new token."""
    done = site.command("tokens", "add", *words, "--name", "x", "--format", "json")
    assert done.returncode == 0, done.stderr
    token = json.loads(done.stdout)
    return token["token"], token["id"]


@pytest.fixture
def ci(site: Site) -> str:
    done = site.command("users", "add", "ci@example.com", "--service")
    assert done.returncode == 0, done.stderr
    return "ci@example.com"


def test_a_program_from_its_first_request_to_its_last(site: Site, ci: str) -> None:
    token, ident = made(site, ci, "--scope", "deploy")
    with site.running() as gateway:
        seen = gateway.request("GET", "/orders", token=token).json["headers"]
        assert ["X-User-Email", ci] in seen
        assert gateway.request("GET", "/admin/x", token=token).status == 403
        assert gateway.request("GET", "/auth/me", token=token).json["email"] == ci
        assert gateway.request("GET", "/auth/tokens", token=token).status == 403
        assert gateway.request("GET", "/orders", token=make_token()).status == 401
        for _ in range(20):  # the same bytes again: let pass without another look at the rules
            assert gateway.request("GET", "/orders", token=token).status == 200
        metrics = gateway.request("GET", "/metrics", ops=True).body.decode()
        assert "gateway_api_tokens_known 1.0" in metrics
        assert site.command("tokens", "revoke", ident).returncode == 0
        begun = time.monotonic()
        while gateway.request("GET", "/orders", token=token).status != 401:
            assert time.monotonic() - begun < SOON
        assert gateway.stop() == 0
    lines = [line for line in gateway.lines if line["event"] == "request"]
    assert {
        line.get("credential") for line in lines if line["status"] == 200 and line["path"] == "/orders"
    } == {ident}
    assert token not in json.dumps(gateway.lines)


def test_its_use_is_written_down_at_the_end_at_the_latest(site: Site, ci: str) -> None:
    token, _ = made(site, ci)
    with site.running() as gateway:
        assert gateway.request("GET", "/orders", token=token).status == 200
        assert gateway.stop() == 0
    listed = json.loads(site.command("tokens", "list", "--format", "json").stdout)
    assert listed["items"][0]["lastUsedAt"] is not None


def test_without_its_database_a_gateway_goes_on_with_what_it_knows(tmp_path: Path, backend: int) -> None:
    # Not below tmp_path, which is closed to the other user that a server of root's runs as.
    server = Server(Path(tempfile.mkdtemp(prefix="gateway-postgres-")))
    try:
        migrate(server.url)
        site = Site(tmp_path, backend=backend, database=server.url)
        assert site.command("users", "add", "ci@example.com", "--service").returncode == 0
        (known, _), (unknown, _) = made(site, "ci@example.com"), made(site, "ci@example.com")
        with site.running() as gateway:
            assert gateway.request("GET", "/orders", token=known).status == 200
            server.stop()
            assert gateway.request("GET", "/orders", token=known).status == 200
            refused = gateway.request("GET", "/orders", token=unknown)
            assert (refused.status, refused.json["code"]) == (503, "unavailable")
            assert refused.headers["retry-after"] == "1"
            assert gateway.request("GET", "/orders", token=unknown[:-6] + "000000").status == 401
            assert gateway.request("GET", "/health", token=unknown).status == 200
            server.start()
            assert gateway.request("GET", "/orders", token=unknown).status == 200
    finally:
        server.remove()


@pytest.fixture(scope="module")
def tunnels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TunnelSite]:
    with tunnel_site(tmp_path_factory.mktemp("site")) as opened:
        yield opened


@pytest.mark.anyio
@pytest.mark.parametrize("end", ["revoked", "disabled"])
async def test_a_tunnel_ends_with_its_token(tunnels: TunnelSite, end: str) -> None:
    who = await tunnels.person()
    token, ident = await asyncio.to_thread(made, tunnels, who.email)
    async with (
        WebSocketBackend(tunnels.talk) as backend,
        tunnels.door(token).connect("/echo", as_subprotocol=True) as tunnel,
        tunnels.door(who).connect("/echo") as of_the_login,
    ):
        await tunnel.send("hello")
        assert await tunnel.recv() == "hello"
        assert all(token not in str(seen.headers) for seen in backend.seen)
        if end == "revoked":
            path = f"/auth/users/{who.id}/tokens/{ident}"
            assert (await tunnels.ask("DELETE", path, token=tunnels.root.access)).status == 204
        else:
            path = f"/auth/users/{who.id}"
            told = await tunnels.ask("PATCH", path, token=tunnels.root.access, json_body={"disabled": True})
            assert told.status == 200
        async with asyncio.timeout(SOON):
            with pytest.raises(ConnectionClosed):
                await tunnel.recv()
        if end != "disabled":
            await of_the_login.send("still here")
            assert await of_the_login.recv() == "still here"
    assert (await tunnels.ask("GET", "/echo", token=token)).status == 401
