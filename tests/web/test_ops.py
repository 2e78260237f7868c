"""The ops listener: alive, ready, degraded, draining, and numbers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from gateway.web.ops import Health, Reload, build_ops

pytestmark = pytest.mark.anyio


class Numbers:
    def render(self) -> bytes:
        return b"# HELP gateway_ready\n# TYPE gateway_ready gauge\ngateway_ready 1.0\n"


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def ops(health: Health) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(build_ops(health, Numbers())), base_url="http://ops.test"
    )


async def test_a_process_lives_from_the_first_moment_but_takes_traffic_only_when_ready(
    health: Health, ops: httpx.AsyncClient
) -> None:
    assert (await ops.get("/healthz")).json() == {"status": "alive"}
    early = await ops.get("/readyz")
    assert (early.status_code, early.json()) == (503, {"status": "starting", "degraded": []})

    health.start()
    ready = await ops.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "degraded": []})

    health.drain()
    late = await ops.get("/readyz")
    assert (late.status_code, late.json()["status"]) == (503, "draining")
    assert (await ops.get("/healthz")).status_code == 200


async def test_what_came_of_the_last_reload(health: Health, ops: httpx.AsyncClient) -> None:
    health.start()
    health.last_reload = Reload("mistakes", "2026-01-01T00:00:00Z", "2 mistakes", ("a.yaml:1:1 x",))
    answer = await ops.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["reload"] == {
        "outcome": "mistakes",
        "at": "2026-01-01T00:00:00Z",
        "reason": "2 mistakes",
        "problems": ["a.yaml:1:1 x"],
    }


async def test_without_its_database_it_is_degraded_and_says_why_but_stays_in_service(
    health: Health, ops: httpx.AsyncClient
) -> None:
    health.start()
    health.degrade("redis", "timed out")
    health.degrade("database", "connection refused")
    health.degrade("database", "still refused")
    answer = await ops.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["degraded"] == [
        {"name": "database", "reason": "still refused"},
        {"name": "redis", "reason": "timed out"},
    ]
    health.restore("redis")
    health.restore("database")
    health.restore("never away")
    assert (await ops.get("/readyz")).json()["degraded"] == []


async def test_a_process_told_to_stop_while_starting_never_becomes_ready(health: Health) -> None:
    health.drain()
    health.start()
    assert not health.ready
    assert repr(health) == "<Health draining degraded={}>"


async def test_metrics_come_in_the_format_prometheus_reads(ops: httpx.AsyncClient) -> None:
    answer = await ops.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert "gateway_ready 1.0" in answer.text


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_head_is_get_without_the_body(ops: httpx.AsyncClient, path: str) -> None:
    got, head = await ops.get(path), await ops.head(path)
    assert head.status_code == got.status_code
    assert head.headers == got.headers
    assert head.content == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
async def test_nothing_here_can_be_changed(ops: httpx.AsyncClient, method: str) -> None:
    answer = await ops.request(method, "/readyz")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "path", ["/", "/healthz/", "/HEALTHZ", "/%68ealthz", "//healthz", "/auth/login", "/x"]
)
async def test_everything_else_is_not_here(ops: httpx.AsyncClient, path: str) -> None:
    answer = await ops.get(f"http://ops.test{path}")
    assert answer.status_code == 404
    assert answer.headers["x-gateway-error"] == "not_found"


async def test_only_http_is_spoken() -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError

    with pytest.raises(NotImplementedError):
        await build_ops(Health(), Numbers())({"type": "websocket"}, never, never)
