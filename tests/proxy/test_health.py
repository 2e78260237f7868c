"""Active checks, of backends that are well, ill, silent and mad."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from gateway.proxy.upstream import health
from gateway.proxy.upstream.address import Address, Tls
from gateway.proxy.upstream.health import failing
from gateway.proxy.upstream.pool import Pool
from gateway.proxy.upstream.settings import HealthCheck, Settings
from tests.support.backend import Backend, Peer, Script, answering, once, response
from tests.support.forwarding import talk, until

pytestmark = pytest.mark.anyio


def check(**settings: object) -> HealthCheck:
    return HealthCheck("/up?deep=1", host="app.example", **settings)  # type: ignore[arg-type]


async def outcome(script: Script, **settings: object) -> str:
    async with Backend(script) as backend:
        return await failing(Address.from_url(backend.url), check(**settings), None)


async def test_what_is_asked() -> None:
    async with Backend(once(response(b"fine"))) as backend:
        assert await failing(Address.from_url(backend.url), check(), None) == ""
        assert backend.requests[0].raw_head == (
            b"GET /up?deep=1 HTTP/1.1\r\nHost: app.example\r\nUser-Agent: gateway-health-check\r\n"
            b"Accept: */*\r\nConnection: close\r\n\r\n"
        )


@pytest.mark.parametrize(
    ("status", "expect", "passes"),
    [
        (b"200 OK", (200, 399), True),
        (b"204 No Content", (200, 399), True),
        (b"302 Found", (200, 399), True),
        (b"401 Unauthorized", (200, 399), False),
        (b"503 Service Unavailable", (200, 399), False),
        (b"200 OK", (204, 204), False),
        (b"401", (401, 401), True),
    ],
)
async def test_the_status_decides(status: bytes, expect: tuple[int, int], passes: bool) -> None:
    why = await outcome(once(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"), expect=expect)
    assert why == ("" if passes else f"/up?deep=1 answered {status[:3].decode()}")


async def test_interim_answers_are_none() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    assert await outcome(once(early + early + response(b"ok"))) == ""
    assert "answered 500" in await outcome(once(early + response(status=b"500 No")))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "no HTTP answer to /up?deep=1"),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n", "no HTTP answer to /up?deep=1"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not an HTTP/1.1 answer: b'SSH-2.0-OpenSSH_9.2\\r\\n\\r\\n'"),
        (b"HTTP/2 200\r\n\r\n", "not an HTTP/1.1 answer: b'HTTP/2 200\\r\\n\\r\\n'"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "not an HTTP/1.1 answer: b'HTTP/1.1 2000 OK\\r\\n\\r\\n'"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000, "no HTTP answer to /up?deep=1"),
    ],
    ids=["nothing", "cut", "ssh", "http2", "status", "endless"],
)
async def test_what_is_no_answer(raw: bytes, why: str) -> None:
    assert await outcome(once(raw)) == why


async def test_a_reset_and_a_refusal() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.reset()

    assert "reset by peer" in await outcome(script)
    async with Backend(script) as backend:
        pass
    assert "Connect" in await failing(Address.from_url(backend.url), check(), None)
    assert await failing(Address.from_url(f"http://{'a' * 70}.invalid"), check(), None)


async def test_silence_is_a_failure_when_the_time_is_over() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n")
        await peer.hang()

    assert await outcome(script, timeout=0.05) == "no answer to /up?deep=1 within 0.05 s"


async def test_a_backend_that_keeps_the_connection_passes_and_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "GOODBYE", 0.01)
    async with Backend(answering(response(b"ok"))) as backend:
        assert await failing(Address.from_url(backend.url), check(), None) == ""
        await until(lambda: backend.open == 0)


async def test_over_tls_and_over_a_unix_socket(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trust = Tls.read(str(tmp_path / "ca.pem")).context()
    async with Backend(answering(response(b"ok")), tls=context, host="localhost") as backend:
        assert await failing(Address.from_url(backend.url), check(), trust) == ""
        stranger = Tls().context()
        assert "certificate verify failed" in await failing(Address.from_url(backend.url), check(), stranger)
    async with Backend(once(response(b"ok")), unix=tmp_path / "s") as backend:
        assert await failing(Address.from_url(backend.url), check(), None) == ""


class Patient:
    """A backend whose health is what the test says."""

    def __init__(self) -> None:
        self.well = True
        self.checks = 0

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.target == b"/up?deep=1":
                self.checks += 1
                await peer.send(response(status=b"200 OK" if self.well else b"503 Ill"))
                return
            await peer.send(response(b"served"))


async def test_a_server_that_fails_its_checks_gets_no_requests_until_it_passes_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    one, two = Patient(), Patient()
    async with Backend(one) as first, Backend(two) as second:
        settings = Settings(
            servers=(Address.from_url(first.url), Address.from_url(second.url)),
            health=check(interval=0.005, healthy=2, unhealthy=3),
        )
        pool = Pool(name="app", settings=settings)
        pool.start()
        await until(lambda: one.checks and two.checks)
        one.well = False
        await until(lambda: pool.servers[0].out)
        assert (pool.up, pool.standing[0][1], pool.standing[1][1]) == (True, False, True)
        asked = len(first.requests) - one.checks
        for _ in range(5):
            assert (await talk(pool).ended()).body == b"served"
        assert len(first.requests) - one.checks == asked

        two.well = False
        await until(lambda: not pool.up)
        assert (await talk(pool).ended()).body == b"served", "nobody is refused because checks fail"

        one.well = two.well = True
        await until(lambda: all(up for _, up in pool.standing))
        pool.close()
        pool.ticker.stop()
    told = [record.getMessage() for record in caplog.records if "health checks" in record.getMessage()]
    address = str(pool.servers[0])
    assert [line for line in told if address in line] == [
        f"upstream app: {address} is out until its health checks pass again: /up?deep=1 answered 503",
        f"upstream app: {address} is back: its health checks pass",
    ]


async def test_a_pool_that_is_retired_or_closed_checks_no_more() -> None:
    patient = Patient()
    async with Backend(patient) as backend:
        for end in (Pool.retire, Pool.close):
            settings = Settings(servers=(Address.from_url(backend.url),), health=check(interval=0.001))
            pool = Pool(name="app", settings=settings)
            pool.start()
            seen = patient.checks
            await until(lambda seen=seen: patient.checks > seen + 2)  # type: ignore[misc]
            end(pool)
            await until(lambda: backend.open == 0)
            seen = patient.checks
            await asyncio.sleep(0.02)
            assert patient.checks == seen
            pool.ticker.stop()


async def test_nothing_is_asked_without_a_check() -> None:
    patient = Patient()
    async with Backend(patient) as backend:
        pool = Pool(name="app", settings=Settings(servers=(Address.from_url(backend.url),)))
        pool.start()
        assert (await talk(pool).ended()).body == b"served"
        assert patient.checks == 0
        pool.close()
