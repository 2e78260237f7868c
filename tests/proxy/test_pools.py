"""What a reload keeps of the connections to backends, and how the rest ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.proxy.upstream.address import Address, Tls
from gateway.proxy.upstream.pools import Pools
from gateway.proxy.upstream.settings import HealthCheck, Settings
from tests.support.backend import Backend, Peer, echo, response
from tests.support.forwarding import talk, until

pytestmark = pytest.mark.anyio


def settings(*urls: str, **changes: int) -> Settings:
    return Settings(tuple(Address.from_url(url) for url in urls), **changes)


def reload(pools: Pools, wanted: Mapping[str, Settings]) -> None:
    pools.adopt(pools.prepare(wanted))


async def test_equal_settings_keep_the_pool_and_its_connections() -> None:
    async with Backend(echo) as backend:
        pools = Pools({"app": settings(backend.url)})
        await talk(pools.by_name["app"]).ended()
        before = pools.by_name["app"]
        reload(pools, {"app": settings(backend.url), "other": settings("http://127.0.0.1:1")})
        assert pools.by_name["app"] is before
        assert before.idle_count == 1
        await talk(pools.by_name["app"]).ended()
        assert len(backend.peers) == 1
        pools.close()


async def test_a_pool_that_is_replaced_serves_who_uses_it_or_waits_and_then_is_empty() -> None:
    valve = asyncio.Event()

    async def held(peer: Peer) -> None:
        while True:
            await peer.request()
            await valve.wait()
            await peer.send(response(b"ok"))

    async with Backend(held) as backend:
        pools = Pools({"app": settings(backend.url, connections=1)})
        before = pools.by_name["app"]
        using, waiting = talk(before), talk(before)
        await until(lambda: len(backend.requests) == 1)
        reload(pools, {"app": settings(backend.url, connections=2)})
        assert pools.by_name["app"] is not before
        valve.set()
        for each in (using, waiting):
            assert (await each.ended()).outcome == "finish"
        await until(lambda: before.idle_count == before.busy_count == 0)
        pools.close()


async def test_an_upstream_that_is_gone_closes_what_is_idle() -> None:
    async with Backend(echo) as backend:
        pools = Pools({"app": settings(backend.url)})
        before = pools.by_name["app"]
        await talk(before).ended()
        assert before.idle_count == 1
        reload(pools, {})
        assert (before.idle_count, pools.by_name) == (0, {})


async def test_a_pool_that_can_not_be_made_changes_nothing(tmp_path: Path) -> None:
    pools = Pools({"app": settings("http://127.0.0.1:1")})
    before = pools.by_name
    (tmp_path / "ca.pem").write_text("nonsense")
    secured = Settings((Address("localhost", 1, tls=True),), tls=Tls.read(str(tmp_path / "ca.pem")))
    with pytest.raises(OSError, match=r"ca\.pem"):
        reload(pools, {"app": settings("http://127.0.0.1:2"), "secured": secured})
    assert pools.by_name is before


async def test_health_checks_begin_with_a_new_pool_and_end_with_an_old_one() -> None:
    async def asked(peer: Peer) -> None:
        await peer.request()
        await peer.send(response(b""))

    async with Backend(asked) as first, Backend(asked) as second:
        check = HealthCheck("/health", interval=0.01)
        pools = Pools({"app": Settings((Address.from_url(first.url),), health=check)})
        pools.start()
        await until(lambda: first.requests)
        reload(pools, {"app": Settings((Address.from_url(second.url),), health=check)})
        await until(lambda: second.requests)
        before = len(first.requests)
        await until(lambda: len(second.requests) > 5)
        assert len(first.requests) <= before + 1
        pools.close()
