"""What the gate takes from a trusted proxy, and what it refuses by the head alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.house import House, open_house, seen_by_backend

pytestmark = pytest.mark.anyio

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_trusted_proxys_ids_go_on_and_a_strangers_do_not(tmp_path: Path, house: House) -> None:
    told = {
        "X-Request-Id": "from-the-edge-1",
        "traceparent": TRACE,
        "tracestate": "vendor=1",
        "X-Forwarded-For": "198.51.100.4",
        "X-Forwarded-Host": "shop.example",
    }
    (tmp_path / "behind").mkdir()
    async with open_house(tmp_path / "behind", trusted="192.0.2.0/24") as behind:
        answer = await behind.http.get("/health", headers=told)
        seen = seen_by_backend(answer)
        assert (seen["x-request-id"], seen["traceparent"]) == ("from-the-edge-1", TRACE)
        assert (seen["tracestate"], seen["x-forwarded-host"]) == ("vendor=1", "shop.example")
        assert seen["x-forwarded-for"] == "198.51.100.4, 192.0.2.7"
        assert behind.events()[-1]["requestId"] == "from-the-edge-1"
    seen = seen_by_backend(await house.http.get("/health", headers=told))
    assert seen["x-request-id"] != "from-the-edge-1"
    assert seen["traceparent"] != TRACE
    assert "tracestate" not in seen


@pytest.mark.parametrize("odd", ["short", "with space", "x" * 129])
async def test_an_odd_request_id_is_replaced_even_from_a_trusted_proxy(tmp_path: Path, odd: str) -> None:
    async with open_house(tmp_path, trusted="192.0.2.0/24") as behind:
        seen = seen_by_backend(await behind.http.get("/health", headers={"X-Request-Id": odd}))
        assert len(seen["x-request-id"]) == 32


async def test_a_body_goes_through_up_to_its_limit(house: House) -> None:
    await house.add("ana@example.com")
    ana = await house.log_in("ana@example.com")
    sent = await ana.send("POST", "/orders", content=b"x" * 1000)
    assert sent.json()["bodyLength"] == 1000
    empty = await ana.send("POST", "/orders", content=b"")
    assert seen_by_backend(empty)["content-length"] == "0"

    async def pieces() -> object:
        yield b"a" * 10
        yield b"b" * 10

    chunked = await ana.send("POST", "/orders", content=pieces())
    assert (chunked.json()["bodyLength"], seen_by_backend(chunked)["transfer-encoding"]) == (20, "chunked")
    large = await ana.send("POST", "/orders", content=b"x" * (2 << 20))
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(("method", "status"), [("TRACE", 405), ("CONNECT", 405), ("PROPFIND", 401)])
async def test_methods(house: House, method: str, status: int) -> None:
    answer = await house.http.request(method, "/orders")
    assert answer.status_code == status
    assert ("allow" in answer.headers) == (status == 405)


async def test_two_credentials_are_none(house: House) -> None:
    await house.add("ana@example.com")
    ana = await house.log_in("ana@example.com")
    twice = [("Authorization", f"Bearer {ana.access}")] * 2
    answer = await house.http.get("/orders", headers=twice)
    assert (answer.status_code, answer.json()["code"]) == (400, "duplicate_credential")
