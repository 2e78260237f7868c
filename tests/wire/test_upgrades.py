"""What becomes of a request with `Upgrade`: who may open a tunnel, to what, what comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.backend import Backend, Peer, response
from tests.support.raw import connect, request
from tests.support.tunnels import TunnelSite, accepting, echo_bytes, opened, tunnel_site, until
from tests.support.websockets import ACCEPTED, BEARER, WebSocketBackend, handshake

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TunnelSite]:
    with tunnel_site(tmp_path_factory.mktemp("site")) as opened:
        yield opened


# -- who may -------------------------------------------------------------------------------------------------

REFUSED = {
    "anonymous": ("/echo", {}, 401, "not_logged_in"),
    "bad token": ("/echo", {"authorization": "Bearer x.y.z"}, 401, "invalid_token"),
    "bad subprotocol": ("/echo", {"sec_websocket_protocol": BEARER + "x.y.z"}, 401, "invalid_token"),
    "empty subprotocol": ("/echo", {"sec_websocket_protocol": BEARER}, 401, "invalid_token"),
    "another case": ("/echo", {"sec_websocket_protocol": "Gateway.Bearer.x.y.z"}, 401, "invalid_token"),
    "a short key": ("/echo", {"authorization": "Bearer {ana}", "sec_websocket_key": "A"}, 400, "bad_request"),
    "no key": ("/echo", {"authorization": "Bearer {ana}", "sec_websocket_key": ""}, 400, "bad_request"),
    "an old version": (
        "/echo",
        {"authorization": "Bearer {ana}", "sec_websocket_version": "8"},
        400,
        "bad_request",
    ),
    "no admin": ("/admin/echo", {"authorization": "Bearer {ana}"}, 403, "forbidden"),
    "no role": ("/analysts/echo", {"sec_websocket_protocol": BEARER + "{ana}"}, 403, "forbidden"),
    "two places": (
        "/echo",
        {"authorization": "Bearer {ana}", "sec_websocket_protocol": BEARER + "{ana}"},
        400,
        "duplicate_credential",
    ),
    "two subprotocols": (
        "/echo",
        {"sec_websocket_protocol": f"{BEARER}{{ana}}, {BEARER}{{ana}}"},
        400,
        "duplicate_credential",
    ),
    "dots": ("/public/../admin/echo", {"authorization": "Bearer {ana}"}, 400, "dot_segment"),
    "auth": ("/auth/me", {"authorization": "Bearer {ana}"}, 200, None),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_who_may_not_gets_an_answer_and_no_connection(site: TunnelSite, case: str) -> None:
    path, headers, status, code = REFUSED[case]
    ana = (await site.person()).access
    sent = handshake(path, **{name: value.format(ana=ana) for name, value in headers.items()})
    async with WebSocketBackend(site.talk) as backend, connect(site.gateway.address) as client:
        answer = await client.ask(sent + request("/public/echo"))
        assert (answer.status, answer.get("x-gateway-error")) == (status, code)
        assert await client.closed() == b""  # what followed was not read as a request
        assert backend.requests == []


# -- before there is a tunnel --------------------------------------------------------------------------------


async def test_what_is_sent_ahead_waits_for_the_101(site: TunnelSite) -> None:
    """And is never read as a request."""
    early = request("/raw/admin/x") + b"\x00more"
    accept = asyncio.Event()

    async def script(peer: Peer) -> None:
        if (await peer.head()).target == b"/raw/other":
            await peer.send(response(b"ok"))
            return
        ahead = asyncio.ensure_future(peer.read())
        await accept.wait()
        assert not ahead.done()
        await peer.send(ACCEPTED)
        await peer.send(await ahead)
        await echo_bytes(peer)

    async with Backend(script, listening=site.raw) as backend, connect(site.gateway.address) as client:
        await client.send(handshake("/raw/early", token=site.root.access) + early)
        await until(lambda: backend.requests)
        async with connect(site.gateway.address) as other:  # meanwhile the gateway had its chance
            assert (await other.ask(request("/raw/other", authorization=_bearer(site)))).status == 200
        accept.set()
        assert (await client.answer(informational=True)).status == 101
        assert await client.read(len(early)) == early
        assert [each.target for each in backend.requests] == [b"/raw/early", b"/raw/other"]


async def test_what_is_sent_ahead_of_a_denial_is_nobodys(site: TunnelSite) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(response(b"no", status=b"403 No"))
        assert await peer.closed() == b""

    async with Backend(script, listening=site.raw) as backend, connect(site.gateway.address) as client:
        answer = await client.ask(handshake("/raw/x", token=site.root.access) + request("/raw/public/x"))
        assert (answer.status, answer.body) == (403, b"no")
        assert await client.closed() == b""
        assert len(backend.requests) == 1


async def test_what_the_backend_says_right_behind_its_101_is_not_lost(site: TunnelSite) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ACCEPTED + b"\x81\x05hello")
        await echo_bytes(peer)

    async with Backend(script, listening=site.raw), connect(site.gateway.address) as client:
        await opened(client, handshake("/raw/x", token=site.root.access))
        assert await client.read(7) == b"\x81\x05hello"


async def test_a_handshake_in_small_pieces(site: TunnelSite) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.trickle(ACCEPTED + b"early")
        await echo_bytes(peer)

    async with Backend(script, listening=site.raw), connect(site.gateway.address) as client:
        await client.dribble(handshake("/raw/x", token=site.root.access), step=7)
        assert (await client.answer(informational=True)).status == 101
        assert await client.read(5) == b"early"


async def test_the_101_has_the_backends_own_lines(site: TunnelSite) -> None:
    lines = (b"X-Odd", b"caf\xe9"), (b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")
    more = b"".join(b"%b: %b\r\n" % line for line in lines)

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ACCEPTED[:-2] + more + b"\r\n")
        await echo_bytes(peer)

    async with Backend(script, listening=site.raw), connect(site.gateway.address) as client:
        answer = await opened(client, handshake("/raw/x", token=site.root.access))
        assert (answer["upgrade"], answer["connection"].lower()) == ("websocket", "upgrade")
        assert answer["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert (answer["x-odd"], answer.all("set-cookie")) == ("caf\xe9", ["a=1", "b=2"])
        assert answer.get("transfer-encoding") is answer.get("content-length") is None


async def test_hints_may_come_before_the_101(site: TunnelSite) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", ACCEPTED)
        await echo_bytes(peer)

    async with Backend(script, listening=site.raw), connect(site.gateway.address) as client:
        await client.send(handshake("/raw/x", token=site.root.access))
        assert (await client.answer(informational=True))["link"] == "</x>"
        assert (await client.answer(informational=True)).status == 101


UNASKED = {
    "an ordinary request": (request("/raw/public/x"), ACCEPTED),
    "a protocol that was not granted": (handshake("/raw/public/x", upgrade="other"), ACCEPTED),
    "h2c": (
        handshake("/raw/public/x", upgrade="h2c", connection="Upgrade, HTTP2-Settings", http2_settings="AA"),
        ACCEPTED.replace(b"websocket", b"h2c"),
    ),
    "another protocol": (handshake("/raw/public/x"), ACCEPTED.replace(b"websocket", b"other")),
    "no protocol": (handshake("/raw/public/x"), ACCEPTED.replace(b"Upgrade: websocket\r\n", b"")),
}


@pytest.mark.parametrize("case", UNASKED)
async def test_a_101_that_nobody_asked_for_is_a_broken_backend(site: TunnelSite, case: str) -> None:
    sent, answered = UNASKED[case]

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(answered + b"spoken as if there were a tunnel")
        assert await peer.closed() == b""

    async with Backend(script, listening=site.raw), connect(site.gateway.address) as client:
        answer = await client.ask(sent)
        assert (answer.status, answer["x-gateway-error"]) == (502, "upstream_broken")


# -- which protocols -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["x-counter", "X-Counter", "other", "websocket"])
async def test_a_route_may_name_a_protocol_of_its_own(site: TunnelSite, token: str) -> None:
    async def script(peer: Peer) -> None:
        asked = (await peer.head()).one(b"upgrade")
        await peer.send(b"HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: " + asked + b"\r\n\r\n")
        await echo_bytes(peer)

    async with Backend(script, listening=site.raw) as backend, connect(site.gateway.address) as client:
        answer = await opened(client, handshake("/raw/custom/x", token=site.root.access, upgrade=token))
        assert answer["upgrade"].lower() == token.lower()
        spoken = request("/raw/admin/x") + bytes(range(256)) * 100
        await client.send(spoken)
        assert await client.read(len(spoken)) == spoken
        assert len(backend.requests) == 1


@pytest.mark.parametrize("connection", ["upgrade", "Upgrade", "keep-alive, Upgrade", "UPGRADE,close"])
async def test_connection_may_name_more_than_the_upgrade(site: TunnelSite, connection: str) -> None:
    async with Backend(accepting(echo_bytes), listening=site.raw) as backend:
        async with connect(site.gateway.address) as client:
            await opened(client, handshake("/raw/x", token=site.root.access, connection=connection))
        assert backend.requests[0].one(b"connection").lower() == b"upgrade"


def _post(**headers: str) -> bytes:
    return handshake("/raw/public/x", **headers).replace(b"GET", b"POST", 1)


ORDINARY = {
    "not named": handshake("/raw/public/x", upgrade="other"),
    "named elsewhere": handshake("/raw/public/x", upgrade="x-counter"),
    "h2c": handshake(
        "/raw/public/x", upgrade="h2c", connection="Upgrade, HTTP2-Settings", http2_settings="AA"
    ),
    "no connection line": handshake("/raw/public/x", connection=""),
    "another connection line": handshake("/raw/public/x", connection="close"),
    "no protocol": handshake("/raw/public/x", upgrade=""),
    "HTTP/1.0": handshake("/raw/public/x").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "POST": _post(content_length="0"),
}


@pytest.mark.parametrize("case", ORDINARY)
async def test_what_is_not_granted_is_an_ordinary_request(site: TunnelSite, case: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(response(b"ordinary"))
        assert await peer.closed() == b""

    async with Backend(script, listening=site.raw) as backend, connect(site.gateway.address) as client:
        answer = await client.ask(ORDINARY[case])
        assert (answer.status, answer.body) == (200, b"ordinary")
        (seen,) = backend.requests
        names = {name.lower() for name, _ in seen.headers}
        assert not names & {b"upgrade", b"http2-settings"}
        assert b"upgrade" not in b",".join(seen.all(b"connection")).lower()


@pytest.mark.parametrize("case", ["not named", "h2c", "POST"])
async def test_the_connection_of_a_refused_upgrade_ends_with_its_answer(site: TunnelSite, case: str) -> None:
    """Its client may already speak another protocol."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(response(b"ordinary"))

    async with Backend(script, listening=site.raw) as backend, connect(site.gateway.address) as client:
        answer = await client.ask(ORDINARY[case] + request("/raw/public/smuggled"))
        assert answer["connection"] == "close"
        assert await client.closed() == b""
        assert len(backend.requests) == 1


@pytest.mark.parametrize("upgrade", ["websocket, h2c", "h2c, websocket", "h2c,other", "websocket,x-counter"])
async def test_of_a_list_of_protocols_h2c_is_never_passed_on(site: TunnelSite, upgrade: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(response(b"ordinary"))

    async with Backend(script, listening=site.raw) as backend, connect(site.gateway.address) as client:
        assert (await client.ask(handshake("/raw/public/x", upgrade=upgrade))).status in (200, 400)
        assert not [value for each in backend.requests for value in each.all(b"upgrade") if b"h2c" in value]


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"Content-Length: 5\r\n", b"hello"), (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n")],
)
async def test_an_upgrade_with_a_body_is_refused(
    site: TunnelSite, method: bytes, framing: bytes, body: bytes
) -> None:
    sent = handshake("/raw/public/x")[:-2].replace(b"GET", method, 1) + framing + b"\r\n" + body
    async with Backend(echo_bytes, listening=site.raw) as backend, connect(site.gateway.address) as client:
        answer = await client.ask(sent + request("/raw/public/smuggled"))
        assert (answer.status, answer["x-gateway-error"]) == (400, "bad_framing")
        assert await client.closed() == b""
        assert backend.requests == []


MALFORMED = {
    "two lines": handshake("/raw/public/x")[:-2] + b"upgrade: websocket\r\n\r\n",
    "two protocols in two lines": handshake("/raw/public/x")[:-2] + b"upgrade: other\r\n\r\n",
    "empty": handshake("/raw/public/x", upgrade=" "),
    "no token": handshake("/raw/public/x", upgrade="web socket"),
    "a version": handshake("/raw/public/x", upgrade="websocket/13"),
    "only commas": handshake("/raw/public/x", upgrade=",,"),
    "a control byte": handshake("/raw/public/x", upgrade="web\x01socket"),
    "two hosts": handshake("/raw/public/x")[:-2] + b"host: other\r\n\r\n",
    "folded": handshake("/raw/public/x").replace(b"upgrade: ", b"upgrade:\r\n "),
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_upgrade_opens_no_tunnel(site: TunnelSite, case: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(response(b"ordinary"))

    async with Backend(script, listening=site.raw) as backend, connect(site.gateway.address) as client:
        answer = await client.ask(MALFORMED[case] + request("/raw/public/smuggled"))
        assert answer.status in (200, 400)
        assert await client.closed() == b""
        assert not [each for each in backend.requests if each.all(b"upgrade")]
        assert len(backend.requests) <= 1


async def test_an_upgrade_waits_its_turn_behind_what_was_pipelined(site: TunnelSite) -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        while not (head := await peer.head()).all(b"upgrade"):
            await go_on.wait()
            await peer.send(response(head.target))
        await peer.send(ACCEPTED)
        await echo_bytes(peer)

    async with Backend(script, listening=site.raw) as backend, connect(site.gateway.address) as client:
        await client.send(
            request("/raw/public/1") + request("/raw/public/2") + handshake("/raw/public/3") + b"bytes"
        )
        await until(lambda: backend.requests)
        go_on.set()
        assert [(await client.answer()).body for _ in range(2)] == [b"/raw/public/1", b"/raw/public/2"]
        assert (await client.answer(informational=True)).status == 101
        assert await client.read(5) == b"bytes"
        assert [each.target for each in backend.requests] == [b"/raw/public/%d" % n for n in (1, 2, 3)]


def _bearer(site: TunnelSite) -> str:
    return f"Bearer {site.root.access}"
