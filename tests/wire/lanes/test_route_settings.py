"""What a route says of its traffic holds in every lane: limits, headers, body, patience.

Each lane has routes of its own, for they share one gateway and so its counters.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.backend import Peer, answering, echo, response
from tests.support.lanes import ASGI, H11, LANES, RUN, Yard, open_yard
from tests.support.raw import request
from tests.support.redis import RedisServer
from tests.support.serving import until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("lane", [*LANES, H11])]

_PER_LANE = """
  - {{path: "/{lane}/address/**", allow: public, rate_limit: {{per_address: 2/hour}}}}
  - {{path: "/{lane}/guess/**", allow: authenticated, rate_limit: {{per_address: 3/hour}}}}
  - {{path: "/{lane}/user/**", allow: authenticated, rate_limit: {{per_user: 2/hour}}}}
  - {{path: "/{lane}/admin/**", allow: admin, rate_limit: {{per_user: 1/hour}}}}
  - {{path: "/{lane}/public/**", allow: public, rate_limit: {{per_user: 1/hour}}}}
  - {{path: "/{lane}/readings/**", allow: public}}
  - {{path: "/{lane}/readings/slow/**", allow: public, rate_limit: {{per_address: 2/hour}}}}
  - {{path: "/{lane}/both/**", allow: authenticated, rate_limit: {{per_user: 1/hour, per_address: 3/hour}}}}
"""
ROUTES = """
default: authenticated
routes:
  - {path: /public/**, allow: public}
  - {path: /large/**, allow: public, body: 2MiB}
  - {path: /small/**, allow: public, body: 10B}
  - {path: /hasty/**, allow: public, timeout: 200ms}
  - {path: /patient/**, allow: public, upstream: hasty, timeout: 30s}
  - path: /edited/**
    allow: public
    headers:
      request: {add: {X-Tenant: acme}, remove: [Cookie, X-Debug]}
      response: {add: {Cache-Control: no-store}, remove: [Server, X-Powered-By]}
  - {path: /edited/closed, allow: admin, headers: {response: {add: {Cache-Control: no-store}}}}
""" + "".join(_PER_LANE.format(lane=lane) for lane in (RUN, ASGI, H11))


@pytest.fixture(scope="module")
async def the_yard(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Yard]:
    async with open_yard(tmp_path_factory.mktemp("yard"), routes=ROUTES) as yard:
        yield yard


async def ask(
    yard: Yard, lane: str, path: str, *, user: str | None = None, token: bytes | None = None
) -> int:
    """The status of one request on a connection of its own, by a user with a session of their own."""
    if user is not None:
        token = yard.mint.access(sub=user, sid=f"s-{user}-{len(yard.backend.requests)}")
    headers = {"authorization": f"Bearer {token.decode()}"} if token is not None else {}
    async with yard.connect(lane) as client:
        answer = await client.ask(request(path, **headers))
        return answer.status


# -- how often -----------------------------------------------------------------------------------------------


async def test_more_than_the_limit_of_an_address_is_429_and_goes_no_further(lane: str, yard: Yard) -> None:
    async with yard.connect(lane) as client:
        answers = [await client.ask(request(f"/{lane}/address/{number}")) for number in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 429, 429]
        assert (await client.ask(request("/public"))).status == 200
    refused = answers[2]
    assert refused["x-gateway-error"] == "too_many_requests"
    assert 3590 <= int(refused["retry-after"]) <= 3600
    assert len(yard.backend.requests) == 3
    line = next(line for line in yard.lines() if line["status"] == 429)
    assert (line["verdict"], line["reason"]) == ("deny", "too_many_requests")
    assert (line["route"], line["upstream"]) == (f"/{lane}/address/**", None)


async def test_a_refused_one_is_counted_once(lane: str, yard: Yard) -> None:
    """By the metrics and in the log; and by the limit not at all, or nobody would ever get in again."""
    label = f'gateway_requests_total{{route="/{lane}/address/**",status="429",verdict="deny"}} '
    before = _count(yard, label)
    statuses = [await ask(yard, lane, f"/{lane}/address/x") for _ in range(3)]
    assert statuses.count(429) >= 1
    assert _count(yard, label) - before == statuses.count(429)
    assert len(yard.lines()) == 3


def _count(yard: Yard, label: str) -> float:
    lines = yard.gateway._metrics.render().decode().splitlines()
    return sum(float(line.removeprefix(label)) for line in lines if line.startswith(label))


async def test_an_address_is_counted_before_its_credential_is_looked_at(lane: str, yard: Yard) -> None:
    path = f"/{lane}/guess/x"
    assert [await ask(yard, lane, path, token=b"a.b.c") for _ in range(2)] == [401, 401]
    assert await ask(yard, lane, path) == 401
    assert await ask(yard, lane, path, user="ada") == 429
    assert [line["user"] for line in yard.lines()] == [None] * 4


async def test_a_user_is_counted_over_all_sessions_and_apart_from_others(lane: str, yard: Yard) -> None:
    path = f"/{lane}/user/x"
    assert [await ask(yard, lane, path, user="ada") for _ in range(3)] == [200, 200, 429]
    assert await ask(yard, lane, path, user="bob") == 200
    assert await ask(yard, lane, path) == 401
    assert {line["user"] for line in yard.lines() if line["status"] == 429} == {"ada"}


async def test_what_is_refused_anyway_uses_nothing_up(lane: str, yard: Yard) -> None:
    path = f"/{lane}/admin/x"
    assert [await ask(yard, lane, path, user="ada") for _ in range(3)] == [403] * 3
    admin = yard.mint.access(sub="ada", isAdmin=True)
    assert [await ask(yard, lane, path, token=admin) for _ in range(2)] == [200, 429]


async def test_nobody_without_a_login_has_a_counter_of_a_user(lane: str, yard: Yard) -> None:
    path = f"/{lane}/public/x"
    assert [await ask(yard, lane, path) for _ in range(3)] == [200] * 3
    assert [await ask(yard, lane, path, user="ada") for _ in range(2)] == [200, 429]


async def test_no_spelling_is_a_way_around_a_limit(lane: str, yard: Yard) -> None:
    base = f"/{lane}/readings"
    assert await ask(yard, lane, f"{base}/x") == 200
    assert await ask(yard, lane, f"{base}//slow/x") == 200
    assert await ask(yard, lane, f"{base}/SLOW/x") == 200
    for path in ("/slow/x", "//slow", "/slow;a/x", "/%73low/x", "/%2573low/x", "/Slow"):
        assert await ask(yard, lane, base + path) == 429, path
    assert await ask(yard, lane, f"{base}/x") == 200


async def test_both_limits_hold(lane: str, yard: Yard) -> None:
    path = f"/{lane}/both/x"
    statuses = [await ask(yard, lane, path, user=user) for user in ("ada", "ada", "bob", "eve")]
    assert statuses == [200, 429, 200, 429]


# -- what is changed, how large, how long --------------------------------------------------------------------


async def test_what_is_removed_comes_no_other_way(lane: str, yard: Yard) -> None:
    """Neither ahead of the answer, among early hints, nor behind it, among its trailers."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-Powered-By: secret\r\n\r\n"
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"
    yard.plays(answering(hints + body + b"X-Sum: 1\r\nx-powered-by: secret\r\nCache-Control: public\r\n\r\n"))
    async with yard.connect(lane) as client:
        await client.send(request("/edited/trailers"))
        early = await client.answer(informational=True)
        answer = await client.answer() if early.status == 103 else early
    assert b"secret" not in early.head + answer.head + answer.trailers
    assert answer.all("cache-control") == ["no-store"]
    assert b"public" not in answer.trailers


async def test_headers_are_set_and_removed_both_ways(lane: str, yard: Yard) -> None:
    headers = [(b"Server", b"x"), (b"x-powered-by", b"y"), (b"cache-control", b"public"), (b"X-Z", b"1")]
    yard.plays(answering(response(b"ok", *headers)))
    sent = request("/edited", cookie="a=1", x_debug="1", accept="*/*")
    sent = sent.replace(b"accept:", b"X_Tenant: evil\r\nx-tenant: evil\r\naccept:")
    async with yard.connect(lane) as client:
        answer = await client.ask(sent)
    (seen,) = yard.backend.requests
    assert seen.one(b"x-tenant") == b"acme"
    names = {name.lower() for name, _ in seen.headers}
    assert not names & {b"x_tenant", b"cookie", b"x-debug"}
    assert b"accept" in names
    assert answer.all("cache-control") == ["no-store"]
    assert (answer.get("server"), answer.get("x-powered-by"), answer["x-z"]) == (None, None, "1")


async def test_our_own_errors_are_not_changed(lane: str, yard: Yard) -> None:
    async with yard.connect(lane) as client:
        answer = await client.ask(request("/edited/closed"))
    assert (answer.status, answer.get("x-gateway-error")) == (401, "not_logged_in")
    assert len(answer.all("cache-control")) <= 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_route_may_take_more_than_the_server_says(lane: str, yard: Yard, chunked: bool) -> None:
    """The server's limit is 1 MiB, this route's is 2."""
    yard.plays(answering(response(b"ok")))
    body = b"x" * ((1 << 20) + 1000)
    async with yard.connect(lane) as client:
        assert (await client.ask(post("/large", body, chunked=chunked))).status == 200
    assert yard.backend.requests[0].body == body
    async with yard.connect(lane) as client:
        assert (await client.ask(post("/public", b"", length=(1 << 20) + 1))).status == 413
    async with yard.connect(lane) as client:
        assert (await client.ask(post("/large", b"", length=(2 << 20) + 1))).status == 413


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_route_may_take_less_than_the_server_says(lane: str, yard: Yard, chunked: bool) -> None:
    yard.plays(answering(response(b"ok")))
    async with yard.connect(lane) as client:
        assert (await client.ask(post("/small", b"0123456789", chunked=chunked))).status == 200
    async with yard.connect(lane) as client:
        answer = await client.ask(post("/small", b"0123456789a", chunked=chunked))
        assert (answer.status, answer["x-gateway-error"]) == (413, "body_too_large")


async def test_a_route_may_be_less_patient_than_its_upstream(lane: str, yard: Yard) -> None:
    yard.plays(_silent)
    async with yard.connect(lane) as client:
        answer = await client.ask(request("/hasty"))
    assert (answer.status, answer["x-gateway-error"]) == (504, "upstream_timeout")


async def test_a_route_may_be_more_patient_than_its_upstream(lane: str, yard: Yard) -> None:
    """The upstream `hasty` waits 300 ms."""

    async def slow(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.8)
        await peer.send(response(b"at last"))

    yard.plays(slow)
    async with yard.connect(lane) as client:
        assert (await client.ask(request("/patient"))).body == b"at last"


async def _silent(peer: Peer) -> None:
    await peer.request()
    await peer.hang()


def post(target: str, body: bytes, *, chunked: bool = False, length: int | None = None) -> bytes:
    if chunked:
        chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        return request(target, method="POST", transfer_encoding="chunked") + chunk
    size = len(body) if length is None else length
    return request(target, method="POST", content_length=str(size)) + body


# -- with Redis ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def the_redis_yard(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> AsyncIterator[Yard]:
    folder = tmp_path_factory.mktemp("yard")
    async with open_yard(folder, routes=ROUTES, storage=redis.url) as yard:
        yield yard


@pytest.fixture
async def redis_yard(the_redis_yard: Yard, redis: RedisServer) -> AsyncIterator[Yard]:
    redis.stop()  # and forget everything
    redis.start()
    await the_redis_yard.counts_again()
    await the_redis_yard.fresh()
    yield the_redis_yard
    await the_redis_yard.quiet()


class TestWithRedis:
    async def test_the_limits_are_the_same(self, lane: str, redis_yard: Yard) -> None:
        path = f"/{lane}/both/x"
        callers = ("ada", "ada", "bob", "eve")
        assert [await ask(redis_yard, lane, path, user=user) for user in callers] == [200, 429, 200, 429]
        assert await ask(redis_yard, lane, "/public") == 200
        lines = [(line["status"], line["reason"]) for line in redis_yard.lines()]
        assert lines == [(200, "logged_in"), (429, "too_many_requests")] * 2 + [(200, "public")]

    async def test_a_body_waits_for_the_verdict(self, lane: str, redis_yard: Yard) -> None:
        redis_yard.plays(echo)
        async with redis_yard.connect(lane) as client:
            answer = await client.ask(post(f"/{lane}/address/x", b"hello " * 1000))
            assert answer.body.endswith(b"hello " * 1000)
            assert (await client.ask(request("/public"))).status == 200

    async def test_a_bad_token_is_refused_after_its_address_was_counted(
        self, lane: str, redis_yard: Yard
    ) -> None:
        path = f"/{lane}/guess/x"
        assert [await ask(redis_yard, lane, path, token=b"x.y.z") for _ in range(4)] == [401, 401, 401, 429]

    async def test_without_it_limited_routes_are_503_and_others_go_on(
        self, lane: str, redis_yard: Yard, redis: RedisServer
    ) -> None:
        redis.stop()
        try:
            async with redis_yard.connect(lane) as client:
                answer = await client.ask(request(f"/{lane}/address/x"))
                assert (answer.status, answer["x-gateway-error"]) == (503, "unavailable")
                assert (await client.ask(request("/public"))).status == 200
        finally:
            redis.start()
        assert await ask(redis_yard, lane, f"/{lane}/address/x") == 200

    async def test_while_it_hangs_nobody_else_waits(
        self, lane: str, redis_yard: Yard, redis: RedisServer
    ) -> None:
        """And what is pipelined behind the one that waits keeps its place."""
        assert await ask(redis_yard, lane, f"/{lane}/address/warm") == 200
        redis.freeze()
        try:
            async with redis_yard.connect(lane) as waiting, redis_yard.connect(lane) as other:
                await waiting.send(request(f"/{lane}/address/x") + request("/public/second"))
                await until(lambda: redis_yard.held().get("in flight"))
                assert (await other.ask(request("/public/other"))).status == 200
                redis.thaw()
                first, second = await waiting.answer(), await waiting.answer()
                assert (first.status, second.status) == (200, 200)
        finally:
            redis.thaw()
        targets = [request.target for request in redis_yard.backend.requests]
        assert targets.index(b"/public/other") < targets.index(f"/{lane}/address/x".encode())
        assert targets.index(f"/{lane}/address/x".encode()) < targets.index(b"/public/second")

    async def test_a_client_who_leaves_meanwhile_is_not_forwarded(
        self, lane: str, redis_yard: Yard, redis: RedisServer
    ) -> None:
        redis.freeze()
        try:
            async with redis_yard.connect(lane) as client:
                await client.send(request(f"/{lane}/address/x"))
                await until(lambda: redis_yard.held().get("in flight"))
                client.reset()
            await until(lambda: not redis_yard.held().get("in flight"))
        finally:
            redis.thaw()
        await redis_yard.quiet()
        assert redis_yard.backend.requests == []
