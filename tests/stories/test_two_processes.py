"""Two gateways on one file, each with counters of its own: they work, and operators hear what that means."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.accounts.world import make_read_only
from tests.support.house import House, open_house

pytestmark = pytest.mark.anyio


async def a_while_later(*houses: House) -> None:
    for house in houses:
        house.clock.advance(seconds=30)
        await house.gateway._upkeep._presence.beat()  # every half minute by itself
    for house in houses:
        await house.gateway._upkeep._presence.beat()
        await house.gateway._upkeep._look_around()


async def replicas(house: House) -> str:
    transport = httpx.ASGITransport(house.gateway.ops)
    async with httpx.AsyncClient(transport=transport, base_url="http://ops.test") as operator:
        lines = (await operator.get("/metrics")).text.splitlines()
    return next(line.split()[1] for line in lines if line.startswith("gateway_replicas "))


async def test_counters_that_nobody_shares_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_house(tmp_path) as one:
        await a_while_later(one)
        assert await replicas(one) == "1.0"
        async with open_house(tmp_path) as two:
            two.clock.now = one.clock.now
            await a_while_later(one, two)
            await a_while_later(one, two)
            assert [await replicas(house) for house in (one, two)] == ["2.0", "2.0"]
            assert caplog.text.count("counted by each process for itself") == 2  # by each, once
        await a_while_later(one)
        assert await replicas(one) == "1.0"


async def test_a_file_that_takes_no_more_writes_is_said_on_readyz(tmp_path: Path) -> None:
    """Reading goes on, so the feed does not notice."""
    async with open_house(tmp_path) as house:
        upkeep = house.gateway._upkeep
        await house.add("ana@example.com")
        ana = await house.log_in("ana@example.com")
        make_read_only(upkeep._database, "ON")
        await upkeep._presence.beat()
        await upkeep._look_around()
        told = house.gateway.health.degraded["database"]
        assert told == "can't be written; most of /auth answers 503"
        assert (await ana.renew()).status_code == 503
        assert (await ana.get("/orders")).status_code == 200
        make_read_only(upkeep._database, "OFF")
        await upkeep._presence.beat()
        await upkeep._look_around()
        assert house.gateway.health.degraded == {}
        assert (await ana.renew()).status_code == 200
