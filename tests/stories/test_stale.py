"""Nobody can say whether logins still hold: who goes on, who does not, and what operators see."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.support.house import House, open_house

pytestmark = pytest.mark.anyio

ROUTES = """
sessions: {{max_staleness: 30s, on_stale: {}}}
routes:
  - {{path: /health, methods: [GET], allow: public}}
  - {{path: "/admin/**", allow: admin}}
  - {{path: "/trial/**", allow: authenticated, report_only: true}}
"""


async def fall_silent(house: House, folder: Path) -> None:
    """The database can't be read, and half a minute passes."""
    (folder / "gateway.db").rename(folder / "away.db")
    await house.gateway._upkeep._feed.poll()  # once a second by itself
    house.clock.advance(seconds=31)


async def speak_again(house: House, folder: Path) -> None:
    (folder / "away.db").rename(folder / "gateway.db")
    await house.gateway._upkeep._feed.poll()


async def degraded(house: House) -> dict[str, str]:
    await house.gateway._upkeep._look_around()  # likewise
    transport = httpx.ASGITransport(house.gateway.ops)
    async with httpx.AsyncClient(transport=transport, base_url="http://ops.test") as operator:
        ready = await operator.get("/readyz")
        metrics = (await operator.get("/metrics")).text
    assert ready.status_code == 200
    age = next(line for line in metrics.splitlines() if line.startswith("gateway_cutoffs_age_seconds"))
    told = {each["name"]: each["reason"] for each in ready.json()["degraded"]}
    assert (float(age.split()[1]) > 30) == ("cutoffs" in told)
    return told


async def test_allow_lets_those_go_on_whose_tokens_were_good(tmp_path: Path) -> None:
    async with open_house(tmp_path, routes=ROUTES.format("allow")) as house:
        await house.add("ana@example.com")
        ana = await house.log_in("ana@example.com")
        assert "cutoffs" not in await degraded(house)
        await fall_silent(house, tmp_path)
        assert (await ana.get("/orders")).status_code == 200
        assert (await degraded(house))["cutoffs"] == "not read for 31 s; requests with a login go on"
        await speak_again(house, tmp_path)
        assert await degraded(house) == {}


async def test_deny_believes_nobody_until_it_can_be_told_again(tmp_path: Path) -> None:
    async with open_house(tmp_path, routes=ROUTES.format("deny")) as house:
        await house.add("ana@example.com")
        ana = await house.log_in("ana@example.com")
        assert (await ana.get("/orders")).status_code == 200
        await fall_silent(house, tmp_path)

        refused = await ana.get("/orders")
        assert (refused.status_code, refused.json()["code"]) == (503, "cutoffs_stale")
        assert refused.headers["retry-after"] == "1"
        assert (await ana.get("/admin/x")).status_code == 503
        # Nobody is anybody: who needs no login passes as a stranger, who has none is asked for one.
        health = await ana.get("/health")
        assert health.status_code == 200
        assert "X-User-Id" not in dict(health.json()["headers"])
        assert (await house.http.get("/orders")).status_code == 401
        assert (await ana.get("/trial/x")).status_code == 200
        forged = await ana.get("/orders", headers={"Authorization": f"Bearer {ana.access[:-4]}AAAA"})
        assert forged.status_code == 401
        assert (await degraded(house))["cutoffs"] == "not read for 31 s; requests with a login answer 503"
        lines = {
            (line["path"], line["reason"], line.get("would")) for line in house.events() if "path" in line
        }
        assert {("/orders", "cutoffs_stale", None), ("/trial/x", "report_only", "cutoffs_stale")} <= lines

        await speak_again(house, tmp_path)
        assert (await ana.get("/orders")).status_code == 200
        assert await degraded(house) == {}
