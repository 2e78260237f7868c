"""Pages of other origins, in every lane: what browsers are told, and that nobody else notices."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.backend import Peer, answering, once, response
from tests.support.lanes import ASGI, EMAIL, H11, LANES, PASSWORD, RUN, Yard, open_yard
from tests.support.raw import Answer, request
from tests.support.redis import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("lane", [*LANES, H11])]

APP, ADMIN, EVIL = "https://app.example.com", "https://admin.example.com", "https://evil.test"
PARTNER = "https://shop.partner.example"
_APP = f"cors: {{origins: {APP}}}"
ROUTES = f"""
auth: {{{_APP}}}
default: authenticated
routes:
  - {{path: /probe, allow: public}}
  - path: /api/**
    allow: authenticated
    cors:
      origins: [{APP}, "https://*.partner.example"]
      headers: [Authorization, Content-Type, If-Match]
      expose: [ETag]
  - {{path: "/api/{{id}}", methods: [DELETE], allow: admin, cors: {{origins: {ADMIN}, max_age: 0s}}}}
  - {{path: /api/inner/**, allow: public}}
  - {{path: /open/**, allow: public, cors: {{origins: "*", headers: ["*"]}}}}
  - {{path: /cookies/**, allow: public, cors: {{origins: {APP}, credentials: true}}}}
  - {{path: /own/**, allow: public}}
  - {{path: /host/**, hosts: [api.example.com], allow: authenticated, {_APP}}}
  - {{path: /stripped/**, allow: public, strip_prefix: /stripped, upstream: hasty, {_APP}}}
  - {{path: /closed/**, allow: nobody, {_APP}}}
  - {{path: /over/**, allow: public, valid: {{until: "2020-01-01"}}, {_APP}}}
  - {{path: /inside/**, allow: {{networks: [10.0.0.0/8]}}, {_APP}}}
  - {{path: /trial/**, allow: admin, report_only: true, {_APP}}}
  - {{path: /hasty/**, allow: public, upstream: hasty, {_APP}}}
  - {{path: /small/**, allow: public, body: 4B, {_APP}}}
  - path: /edited/**
    allow: public
    headers: {{response: {{add: {{Vary: Accept}}, remove: [Server]}}}}
    {_APP}
""" + "".join(
    f"  - {{path: /{lane}/limited/**, allow: public, rate_limit: {{per_address: 2/hour}}, {_APP}}}\n"
    for lane in (RUN, ASGI, H11)
)


@pytest.fixture(scope="module")
async def the_silent_yard(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Yard]:
    async with open_yard(tmp_path_factory.mktemp("yard")) as yard:
        yield yard


@pytest.fixture
async def silent_yard(the_silent_yard: Yard) -> AsyncIterator[Yard]:
    """A gateway without any `cors`."""
    await the_silent_yard.fresh()
    yield the_silent_yard
    await the_silent_yard.quiet()


@pytest.fixture(scope="module")
async def the_yard(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Yard]:
    async with open_yard(tmp_path_factory.mktemp("yard"), routes=ROUTES) as yard:
        yield yard


def preflight(path: str, *, method: str = "GET", origin: str = APP, **headers: str) -> bytes:
    asks = {"origin": origin, "access_control_request_method": method} | headers
    return request(path, method="OPTIONS", **asks)


def told(answer: Answer) -> dict[str, str]:
    """What the answer says of pages, and what it varies by. Fails if it says anything twice."""
    lines = [(n, v) for n, v in answer.headers if n.startswith("access-control-") or n == "vary"]
    assert len(dict(lines)) == len(lines), lines
    return {name.removeprefix("access-control-"): value for name, value in lines}


def shared(origin: str = APP, **more: str) -> dict[str, str]:
    """What an answer says that a page may read."""
    return {"vary": "Origin", "allow-origin": origin} | {n.replace("_", "-"): v for n, v in more.items()}


# -- preflights ----------------------------------------------------------------------------------------------

VARY = {"vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}


def granted(
    method: str, headers: str = "authorization, content-type", age: int = 600, **more: str
) -> dict[str, str]:
    lines = {"allow-methods": method, "allow-headers": headers, "max-age": str(age)}
    return VARY | {"allow-origin": APP} | lines | {n.replace("_", "-"): v for n, v in more.items()}


API = granted("GET", "authorization, content-type, if-match")
PREFLIGHTS = {
    "a page that is named": (preflight("/api/1"), API),
    "no token is needed, none is looked at": (preflight("/api/1", authorization="Bearer a.b.c"), API),
    "a page below a name": (preflight("/api/1", origin=PARTNER), API | {"allow-origin": PARTNER}),
    "a page that is not named": (preflight("/api/1", origin=EVIL), VARY),
    "a page that hides": (preflight("/api/1", origin="null"), VARY),
    "any page, and any header": (
        preflight("/open", origin="null", access_control_request_headers="X-A,authorization"),
        granted("GET", "x-a, authorization") | {"allow-origin": "*"},
    ),
    "cookies": (preflight("/cookies", method="PUT"), granted("PUT", allow_credentials="true")),
    "a header that may not be set": (preflight("/api/1", access_control_request_headers="x-a"), API),
    "by the method it asks for": (preflight("/api/1", method="DELETE"), VARY),
    "by the method it asks for, from the other page": (
        preflight("/api/1", method="DELETE", origin=ADMIN),
        granted("DELETE", age=0) | {"allow-origin": ADMIN},
    ),
    "a method that no rule names": (
        preflight("/api/1", method="PROPFIND"),
        API | {"allow-methods": "PROPFIND"},
    ),
    "the host's rule": (
        preflight("/host").replace(b"gateway.test", b"API.example.com:80"),
        granted("GET"),
    ),
    "a query says nothing": (preflight("/api/1?a=/own&b=//"), API),
    "a path that nobody may use": (preflight("/closed"), granted("GET")),
    "a rule whose time is over": (preflight("/over"), granted("GET")),
    "from outside the rule's networks": (preflight("/inside"), granted("GET")),
    "on trial": (preflight("/trial"), granted("GET")),
    "a private network is not asked for": (
        preflight("/cookies", access_control_request_private_network="true"),
        granted("GET", allow_credentials="true"),
    ),
    "behind a stripped prefix": (preflight("/stripped/own"), granted("GET")),
}  # fmt: skip
STOPPED = {
    "a page that is not named",
    "a page that hides",
    "a header that may not be set",
    "by the method it asks for",
}
"""Those that no browser sends the real request for."""


@pytest.mark.parametrize("name", PREFLIGHTS)
async def test_a_preflight_is_answered_here_and_goes_no_further(lane: str, name: str, yard: Yard) -> None:
    sent, lines = PREFLIGHTS[name]
    async with yard.connect(lane) as client:
        answer = await client.ask(sent)
        assert (answer.status, answer.body, answer.get("content-length")) == (204, b"", None)
        assert (told(answer), answer.get("x-gateway-error")) == (lines, None)
        assert (await client.ask(request("/probe"))).status == 200
    assert [seen.target for seen in yard.backend.requests] == [b"/probe"]
    line = yard.lines()[0]
    assert (line["reason"], line["status"], line["user"], line["upstream"]) == ("preflight", 204, None, None)
    assert line["verdict"] == ("deny" if name in STOPPED else "allow")
    assert line["requestId"] == answer["x-request-id"]


ORDINARY = {
    "without an origin": (request("/api/1", method="OPTIONS", access_control_request_method="GET"), 401),
    "without a method": (request("/api/1", method="OPTIONS", origin=APP), 401),
    "with two origins": (preflight("/api/1").replace(b"\r\norigin", b"\r\nORIGIN: x\r\norigin"), 401),
    "with two methods": (preflight("/api/1", Access_Control_Request_Method="PUT"), 401),
    "that asks for what is no method": (preflight("/api/1", method="patch"), 401),
    "that asks for TRACE": (preflight("/api/1", method="TRACE"), 401),
    "that is a GET": (preflight("/api/1").replace(b"OPTIONS", b"GET"), 401),
    "of a rule without cors": (preflight("/not/named"), 401),
    "of a rule without cors below one with": (preflight("/api/inner"), 200),
    "that the backend answers": (preflight("/own"), 200),
    "of another host": (preflight("/host"), 401),
    "of a path with dots": (preflight("/api/%2e%2e/x"), 400),
    "of a path that reads like auth": (preflight("/Auth/login"), 404),
}


@pytest.mark.parametrize("name", ORDINARY)
async def test_what_is_no_preflight_is_a_request_like_any_other(lane: str, name: str, yard: Yard) -> None:
    sent, status = ORDINARY[name]
    async with yard.connect(lane) as client:
        assert (await client.ask(sent)).status == status
    assert len(yard.backend.requests) == (status == 200)
    assert yard.lines()[0]["reason"] != "preflight"


async def test_a_backend_that_speaks_for_itself_is_not_interrupted(lane: str, yard: Yard) -> None:
    own = [(b"Access-Control-Allow-Origin", b"https://evil.test"), (b"Vary", b"Accept")]
    yard.plays(answering(response(b"", *own, status=b"204 No Content", length=False)))
    async with yard.connect(lane) as client:
        answer = await client.ask(preflight("/own", origin=EVIL))
    assert told(answer) == {"vary": "Accept", "allow-origin": EVIL}
    assert yard.backend.requests[0].one(b"access-control-request-method") == b"GET"


async def test_preflights_keep_their_place_and_their_connection(lane: str, yard: Yard) -> None:
    async with yard.connect(lane) as client:
        await client.send(
            request("/probe") + preflight("/api/1") + request("/auth/me") + preflight("/auth/me")
        )
        answers = [await client.answer() for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 204, 401, 204]
        assert (await client.ask(request("/probe"))).status == 200


async def test_a_preflight_with_a_body_ends_its_connection(lane: str, yard: Yard) -> None:
    """Nobody reads that body, so what follows it can't be told from it."""
    body = request("/probe")
    sent = preflight("/api/1", content_length=str(len(body))) + body
    async with yard.connect(lane) as client:
        await client.send(sent)
        answer = await client.answer()
        assert answer.status == 204
        assert await client.closed() == b"" or lane != RUN
    assert yard.backend.requests == []


async def test_a_preflight_counts_in_no_limit_and_needs_none(lane: str, yard: Yard) -> None:
    path = f"/{lane}/limited/x"
    async with yard.connect(lane) as client:
        asked = [await client.ask(preflight(path)) for _ in range(5)]
        answers = [await client.ask(request(path, origin=APP)) for _ in range(3)]
        assert (await client.ask(preflight(path))).status == 204
    assert {answer.status for answer in asked} == {204}
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert [told(answer) for answer in answers] == [shared()] * 3


# -- answers of the backend ----------------------------------------------------------------------------------

LOOSE = [(b"Access-Control-Allow-Origin", b"*"), (b"access-control-allow-credentials", b"true")]
ANSWERS = {
    "a page that is named": ("/cookies", APP, [], shared(allow_credentials="true")),
    "a page that is not named": ("/cookies", EVIL, [], {"vary": "Origin"}),
    "a page that hides": ("/cookies", "null", [], {"vary": "Origin"}),
    "nobody of that kind": ("/cookies", None, [], {"vary": "Origin"}),
    "any page": ("/open", EVIL, [], {"allow-origin": "*"}),
    "nobody, where any page may": ("/open", None, [], {"allow-origin": "*"}),
    "a backend that lets everybody": ("/cookies", EVIL, LOOSE, {"vary": "Origin"}),
    "a backend that varies": (
        "/cookies", APP, [*LOOSE, (b"VARY", b"A")], shared(vary="A, Origin", allow_credentials="true")
    ),
    "a backend that varies already": ("/hasty", APP, [(b"vary", b"origin")], shared(vary="origin")),
    "a route that edits": ("/edited", APP, [(b"Server", b"x")], shared(vary="Accept, Origin")),
    "a route without cors": ("/own", APP, LOOSE, {"allow-origin": "*", "allow-credentials": "true"}),
    "on trial": ("/trial", APP, [], shared()),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found", b"304 Not Modified"])
async def test_every_answer_says_which_page_may_read_it(
    lane: str, name: str, status: bytes, yard: Yard
) -> None:
    path, origin, headers, lines = ANSWERS[name]
    body = b"" if status.startswith(b"304") else b"hello"
    yard.plays(answering(response(body, *headers, status=status, length=body != b"")))
    async with yard.connect(lane) as client:
        sent = request(path, **({} if origin is None else {"origin": origin}))
        for _ in range(2):  # the second time from what was remembered
            answer = await client.ask(sent)
            assert (str(answer.status).encode(), answer.body) == (status[:3], body)
            assert (told(answer), answer.get("server")) == (lines, None)
    assert [seen.all(b"origin") for seen in yard.backend.requests] == [
        [origin.encode()] if origin else []
    ] * 2


async def test_two_origins_are_nobodys(lane: str, yard: Yard) -> None:
    async with yard.connect(lane) as client:
        answer = await client.ask(request("/cookies", origin=APP, Origin=APP))
    assert told(answer) == {"vary": "Origin"}


async def test_the_same_lines_mean_something_else_on_another_route(lane: str, yard: Yard) -> None:
    """What was worked out from header lines is remembered; what a route says of pages is not."""
    paths = {
        "/cookies": shared(allow_credentials="true"),
        "/open": {"allow-origin": "*"},
        "/own": {},
        "/hasty": shared(),
    }
    async with yard.connect(lane) as client:
        for path in [*paths, *reversed(paths), *paths]:
            assert told(await client.ask(request(path, origin=APP))) == paths[path], path


async def test_nothing_of_it_comes_before_or_behind(lane: str, yard: Yard) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nAccess-Control-Allow-Origin: *\r\n\r\n"
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"
    yard.plays(answering(hints + body + b"X-Sum: 1\r\nAccess-Control-Allow-Origin: *\r\n\r\n"))
    async with yard.connect(lane) as client:
        await client.send(request("/cookies", origin=APP))
        early = await client.answer(informational=True)
        answer = await client.answer() if early.status == 103 else early
    assert early is answer or told(early) == {}
    assert (told(answer), answer.body) == (shared(allow_credentials="true"), b"hi")
    assert b"ccess-" not in answer.trailers


async def test_a_tunnel_is_opened_and_declined_as_ever(lane: str, yard: Yard) -> None:
    """Browsers ask nothing before a WebSocket, and read nothing of its answer."""
    lines = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    lines["sec-websocket-key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    yard.plays(once(switching + b"Access-Control-Allow-Origin: *\r\n\r\nbytes"))
    async with yard.connect(lane) as client:
        await client.send(request("/hasty", origin=APP, **lines))
        answer = await client.answer(informational=True)
        assert (answer.status, told(answer)) == (101 if lane == RUN else 501, shared())
        assert lane != RUN or await client.read(5) == b"bytes"
    async with yard.connect(lane) as client:
        answer = await client.ask(request("/api/1", origin=APP, **lines))
        assert (answer.status, told(answer)) == (401, shared(expose_headers="ETag"))


# -- odd paths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/INNER/x", "/api//inner/x", "/api%2Fx", "//api/x", "/API/x"])
async def test_what_could_be_several_routes_is_no_pages(lane: str, path: str, yard: Yard) -> None:
    """One of them says nothing of pages, or something else; and the backend does not get to say."""
    yard.plays(answering(response(b"secret", *LOOSE)))
    token = yard.mint.access().decode()
    async with yard.connect(lane) as client:
        asked = await client.ask(preflight(path))
        assert (asked.status, told(asked)) == (204, VARY)
        answer = await client.ask(request(path, origin=APP, authorization=f"Bearer {token}"))
        assert (answer.status, told(answer)) == (200, {"vary": "Origin"})


@pytest.mark.parametrize("path", ["/api/a%2Fb", "/api//a", "/api/A;b", "/api/a.", "/api/caf%C3%A9"])
async def test_what_can_only_be_one_route_is_that_routes(lane: str, path: str, yard: Yard) -> None:
    async with yard.connect(lane) as client:
        assert told(await client.ask(preflight(path))) == API


# -- answers of the gateway ----------------------------------------------------------------------------------


async def _reset(peer: Peer) -> None:
    await peer.request()
    await peer.reset()


async def _silent(peer: Peer) -> None:
    await peer.request()
    await peer.hang()


async def test_a_page_can_read_why_it_was_refused(lane: str, yard: Yard) -> None:
    token = yard.mint.access().decode()
    refused = {
        401: request("/api/1", origin=APP),
        403: request("/closed", origin=APP),
        413: request("/small", method="POST", origin=APP, body=b"12345"),
        400: request("/small", origin=APP, connection="upgrade", upgrade="websocket"),
    }
    for status, sent in refused.items():
        async with yard.connect(lane) as client:
            answer = await client.ask(sent)
        expected = 501 if status == 400 and lane != RUN else status
        lines = shared(expose_headers="ETag") if status == 401 else shared()
        assert (answer.status, told(answer)) == (expected, lines)
        assert json.loads(answer.body)["status"] == expected
    async with yard.connect(lane) as client:
        answer = await client.ask(
            request("/api/1", method="DELETE", origin=ADMIN, authorization=f"Bearer {token}")
        )
        assert (answer.status, told(answer)) == (403, shared(ADMIN))
        answer = await client.ask(request("/api/1", origin=EVIL))
        assert (answer.status, told(answer)) == (401, {"vary": "Origin"})
        answer = await client.ask(request("/open/%2e", origin=APP))
        assert (answer.status, told(answer)) == (400, {})


async def test_a_page_can_read_what_became_of_it_behind_the_gateway(lane: str, yard: Yard) -> None:
    yard.plays(once(b"garbage\r\n\r\n"))
    async with yard.connect(lane) as client:
        answer = await client.ask(request("/hasty", origin=APP))
        assert (answer.status, told(answer)) == (502, shared())
        yard.plays(_silent)
        answer = await client.ask(request("/hasty", origin=APP))
        assert (answer.status, told(answer)) == (504, shared())
    chunked = request("/small", method="POST", origin=APP, transfer_encoding="chunked")
    async with yard.connect(lane) as client:
        answer = await client.ask(chunked + b"5\r\n12345\r\n0\r\n\r\n")
        assert (answer.status, told(answer)) == (413, shared())
    if lane == RUN:  # elsewhere that server answers
        async with yard.connect(lane) as client:
            answer = await client.ask(chunked + b"zz\r\n")
            assert (answer.status, told(answer)) == (400, shared())


# -- /auth ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/auth/login", "/auth/me", "/auth/nothing", "/auth", "/auth/%6cogin"])
async def test_auth_answers_preflights_alike(lane: str, path: str, yard: Yard) -> None:
    async with yard.connect(lane) as client:
        answer = await client.ask(preflight(path, method="POST"))
        assert (answer.status, told(answer)) == (204, granted("POST"))
        answer = await client.ask(preflight(path, origin=EVIL))
        assert (answer.status, told(answer)) == (204, VARY)
    assert yard.backend.requests == []
    assert [(line["route"], line["reason"]) for line in yard.lines()] == [("auth:preflight", "served")] * 2


async def test_a_page_can_log_its_users_in(lane: str, yard: Yard) -> None:
    login = json.dumps({"email": EMAIL, "password": PASSWORD}).encode()
    wrong = json.dumps({"email": EMAIL, "password": "a wrong password"}).encode()
    async with yard.connect(lane) as client:
        for body, status in ((login, 200), (wrong, 401), (b"{", 400)):
            sent = request(
                "/auth/login", method="POST", body=body, origin=APP, content_type="application/json"
            )
            answer = await client.ask(sent)
            assert (answer.status, told(answer)) == (status, shared())
        for path, status in (
            ("/auth/me", 401),
            ("/auth/login", 405),
            ("/auth/nothing", 404),
            ("/auth/users", 401),
        ):
            answer = await client.ask(request(path, origin=APP))
            assert (answer.status, told(answer)) == (status, shared())
        assert told(await client.ask(request("/auth/me"))) == {"vary": "Origin"}
        assert told(await client.ask(request("/auth/me", origin=EVIL))) == {"vary": "Origin"}
        answer = await client.ask(request("/auth/me", method="OPTIONS", origin=APP))
        assert (answer.status, told(answer)) == (405, shared())


async def test_a_page_can_read_what_the_listener_says_of_its_body(lane: str, yard: Yard) -> None:
    if lane == RUN:  # elsewhere that server answers
        sent = request(
            "/auth/login",
            method="POST",
            origin=APP,
            content_type="application/json",
            transfer_encoding="chunked",
        )
        async with yard.connect(lane) as client:
            answer = await client.ask(sent + b"zz\r\n")
        assert (answer.status, told(answer)) == (400, shared())


async def test_auth_without_cors_lets_no_page_in(lane: str, silent_yard: Yard) -> None:
    async with silent_yard.connect(lane) as client:
        answer = await client.ask(preflight("/auth/login", method="POST"))
        assert (answer.status, told(answer)) == (405, {})
        answer = await client.ask(request("/auth/me", origin=APP))
        assert (answer.status, told(answer)) == (401, {})


# -- with Redis ----------------------------------------------------------------------------------------------


async def test_while_the_counters_hang_preflights_do_not(
    lane: str, tmp_path: Path, redis: RedisServer
) -> None:
    async with open_yard(tmp_path, routes=ROUTES, storage=redis.url) as yard:
        path = f"/{lane}/limited/x"
        redis.freeze()
        try:
            async with yard.connect(lane) as client:
                assert (await client.ask(preflight(path))).status == 204
        finally:
            redis.thaw()
        await yard.counts_again()
        async with yard.connect(lane) as client:
            answers = [await client.ask(request(path, origin=APP)) for _ in range(3)]
            redis.stop()
            answers.append(await client.ask(request(path, origin=APP)))
            redis.start()
        assert [answer.status for answer in answers] == [200, 200, 429, 503]
        assert [told(answer) for answer in answers] == [shared()] * 4
