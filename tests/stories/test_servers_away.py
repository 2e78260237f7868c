"""A backend of several servers, some of them away: what clients, operators and the log see."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.app import Gateway
from gateway.telemetry.outlet import Outlet, target_of
from tests.support.backend import Backend, answering, response
from tests.support.forwarding import PATIENCE
from tests.support.house import Clock, open_gateway

pytestmark = pytest.mark.anyio

CONFIGURATION = """
server: {{listen: "127.0.0.1:0", ops_listen: "off"}}
tokens:
  access: {{secret: "${{JWT_ACCESS_SECRET}}"}}
  refresh: {{secret: "${{JWT_REFRESH_SECRET}}"}}
accounts: {{bcrypt_cost: 4}}
upstreams:
  app:
    urls: ["unix:{folder}/one", "unix:{folder}/two"]
    health: {{path: /up, interval: 50ms, timeout: 50ms, healthy: 1, unhealthy: 1}}
routes:
  - {{path: "/**", allow: authenticated}}
  - {{path: /open, allow: public}}
"""
OK = answering(response(b"ok"))


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient, httpx.AsyncClient]]:
    """The gateway, a client of it, and the operator's."""
    outlet = Outlet(target_of(io.StringIO()), report=lambda lost: b"")
    text = CONFIGURATION.format(folder=folder)
    async with (
        open_gateway(folder, text, clock=Clock(), outlet=outlet) as gateway,
        _client(gateway.asgi) as client,
        _client(gateway.ops) as operator,
    ):
        yield gateway, client, operator


def _client(app: object) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=("192.0.2.7", 1234))  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://gateway.test")


async def test_one_away_is_seen_and_nobody_feels_it_two_away_are_told_to_the_operator(tmp_path: Path) -> None:
    async def shown() -> dict[str, str]:
        """Each server by its name, as the metrics have it."""
        lines = (await operator.get("/metrics")).text.splitlines()
        told = (line.rpartition(" ") for line in lines if line.startswith("gateway_upstream_server_up{"))
        return {name.rpartition("/")[2].partition('"')[0]: value for name, _, value in told}

    async def until_shown(servers: dict[str, str]) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                if await shown() == servers:
                    return
                await asyncio.sleep(0.001)

    async def degraded() -> list[str]:
        await gateway._upkeep._look_around()  # once a second by itself
        return [each["name"] for each in (await operator.get("/readyz")).json()["degraded"]]

    two = Backend(OK, unix=tmp_path / "two")
    async with two, running(tmp_path) as (gateway, client, operator):
        await until_shown({"one": "0.0", "two": "1.0"})
        assert [(await client.get("/open")).text for _ in range(5)] == ["ok"] * 5
        assert await degraded() == []

        await two.stop()
        await until_shown({"one": "0.0", "two": "0.0"})
        assert (await client.get("/open")).json()["code"] == "upstream_unavailable"
        assert await degraded() == ["upstreams.app"]
        assert (await operator.get("/readyz")).status_code == 200

        async with Backend(OK, unix=tmp_path / "one"):
            await until_shown({"one": "1.0", "two": "0.0"})
            assert (await client.get("/open")).text == "ok"
            assert await degraded() == []
