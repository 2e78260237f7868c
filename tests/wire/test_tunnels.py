"""Tunnels with real peers at both ends: what a WebSocket says directly, it says through the gateway.

Where a test takes `way`, it runs three times: without a gateway, which is the reference; through one; and
through one with TLS on both sides.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.backend import Backend, Peer
from tests.support.raw import PATIENCE, connect
from tests.support.tunnels import (
    TUNNELS,
    Tls,
    TunnelSite,
    accepting,
    listening,
    many_open_files,
    opened,
    tunnel_site,
    until,
)
from tests.support.websockets import BEARER, Door, Seen, WebSocketBackend, handshake

pytestmark = pytest.mark.anyio

MEGABYTE = 2**20
HOP = {"connection", "date", "keep-alive", "server", "transfer-encoding"}
"""Headers of an answer that belong to each hop, or to nobody."""


@dataclass(frozen=True, slots=True)
class Way:
    """From clients to the backend."""

    backend: WebSocketBackend
    door: Door

    async def seen(self) -> Seen:
        """The one connection, once the backend has done with it."""
        await until(lambda: self.backend.seen and self.backend.seen[0].ended.is_set())
        (seen,) = self.backend.seen
        return seen


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TunnelSite]:
    with tunnel_site(tmp_path_factory.mktemp("site")) as opened:
        yield opened


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls_site(tmp_path_factory: pytest.TempPathFactory, tls: Tls) -> Iterator[TunnelSite]:
    with tunnel_site(tmp_path_factory.mktemp("site"), tls=tls) as opened:
        yield opened


@pytest.fixture(params=["direct", "gateway", "tls"])
async def way(request: pytest.FixtureRequest) -> AsyncIterator[Way]:
    if request.param == "direct":
        with listening() as sock:
            async with WebSocketBackend(sock) as backend:
                yield Way(backend, Door(backend.address))
    elif request.param == "gateway":
        site: TunnelSite = request.getfixturevalue("site")
        async with WebSocketBackend(site.talk) as backend:
            yield Way(backend, site.door(site.root))
    else:
        site = request.getfixturevalue("tls_site")
        async with WebSocketBackend(site.talk, tls=request.getfixturevalue("tls").server) as backend:
            yield Way(backend, site.door(site.root))


# -- nothing changes on the way ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message", ["", "hello", "ä€😀", b"", b"\x00\xff\r\n\r\nGET / HTTP/1.1\r\n", "x" * 125, b"y" * 70_000]
)
async def test_a_message_comes_back_as_it_went(way: Way, message: str | bytes) -> None:
    async with way.door.connect("/echo") as client:
        await client.send(message)
        assert await client.recv() == message
    assert (await way.seen()).messages == [message]


@pytest.mark.parametrize("size", [MEGABYTE, 9 * MEGABYTE])
@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_long_messages(way: Way, size: int, compression: str | None) -> None:
    message = os.urandom(size)
    async with way.door.connect("/echo", compression=compression) as client:
        await client.send(message)
        assert await client.recv() == message


async def test_many_messages_keep_their_order(way: Way) -> None:
    async with way.door.connect("/echo") as client:
        sent = [f"{number} {'x' * (number * 37 % 3000)}" for number in range(500)]
        sending = asyncio.ensure_future(_send_all(client, sent))
        assert [await client.recv() for _ in sent] == sent
        await sending


async def _send_all(client: Any, messages: list[str]) -> None:
    for message in messages:
        await client.send(message)


async def test_fragments_arrive_as_fragments(way: Way) -> None:
    async with way.door.connect("/fragments", compression=None) as client:
        await client.send(["a", "bb", "c" * 70_000, ""])
        # The library ends every fragmented message with an empty fragment of its own.
        assert [piece async for piece in client.recv_streaming()] == ["1", "2", "70000", "0", "0", ""]


async def test_pings_and_pongs_of_either_side(way: Way) -> None:
    async with way.door.connect("/pings") as client:
        assert await client.recv() == "the pong came"
        async with asyncio.timeout(PATIENCE):
            assert await (await client.ping(b"are you there?")) < 10


async def test_compression_is_agreed_between_the_ends(way: Way) -> None:
    async with way.door.connect("/echo/compressed") as client:
        assert [each.name for each in client.protocol.extensions] == ["permessage-deflate"]
        for _ in range(3):  # with a context that lives from one message to the next
            await client.send("all the same " * 100_000)
            assert await client.recv() == "all the same " * 100_000
    assert (await way.seen()).extensions == ["permessage-deflate"]


async def test_without_compression_there_is_none(way: Way) -> None:
    async with way.door.connect("/echo", compression=None) as client:
        assert client.protocol.extensions == []
    assert (await way.seen()).extensions == []


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([], None),
        (["chat.v1"], "chat.v1"),
        (["chat.v1", "chat.v2"], "chat.v2"),
        (["unknown", "chat.v1"], "chat.v1"),
        (["unknown"], None),
    ],
)
async def test_the_backend_chooses_the_subprotocol(way: Way, offered: list[str], chosen: str | None) -> None:
    async with way.door.connect("/echo", subprotocols=offered) as client:
        assert client.subprotocol == chosen
    seen = await way.seen()
    assert seen.subprotocol == chosen
    assert seen.headers.get("Sec-WebSocket-Protocol") == (", ".join(offered) or None)


CLOSES = [(1000, ""), (1000, "bye"), (1001, "going"), (1011, "ä€"), (3000, "x" * 123), (4999, "why")]


@pytest.mark.parametrize(("code", "reason"), CLOSES)
async def test_the_clients_close_code_reaches_the_backend(way: Way, code: int, reason: str) -> None:
    async with way.door.connect("/echo") as client:
        await client.close(code, reason)
        assert (client.close_code, client.close_reason) == (code, reason)  # the backend's echo of it
    assert (await way.seen()).closed_with == (code, reason)


@pytest.mark.parametrize(("code", "reason"), CLOSES)
async def test_the_backends_close_code_reaches_the_client(way: Way, code: int, reason: str) -> None:
    async with way.door.connect(f"/closes?code={code}&reason={reason}") as client:
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, reason)
    assert closed.value.rcvd_then_sent is True


@pytest.mark.parametrize(
    "query",
    [
        "status=403",
        "status=404&reason=Not+Here&body=",
        "status=401&body=no",
        "status=302&location=ws://elsewhere.test/",
        "status=426&reason=Use+Another",
        "status=503&body=" + "x" * 5000,
        "status=200&reason=Fine",
    ],
)
async def test_a_denial_is_passed_on_whole(way: Way, query: str) -> None:
    with pytest.raises(InvalidStatus) as denied:
        async with way.door.connect(f"/denied?{query}"):
            pass
    told = dict(part.split("=") for part in query.replace("+", " ").split("&"))
    answer, body = denied.value.response, told.get("body", "No, thank you.\n").encode()
    assert (answer.status_code, answer.body) == (int(told["status"]), body)
    assert answer.reason_phrase == told.get("reason", "Because")
    location = [("location", told["location"])] if "location" in told else []
    assert [(k.lower(), v) for k, v in answer.headers.raw_items() if k.lower() not in HOP] == [
        ("content-type", "text/plain"),
        ("content-length", str(len(body))),
        ("x-why", "because"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        *location,
    ]


# -- who it is -----------------------------------------------------------------------------------------------


async def test_the_backend_is_told_who_it_is_and_never_the_token(site: TunnelSite) -> None:
    async with WebSocketBackend(site.talk):
        for as_subprotocol in (False, True):
            options: Any = {"as_subprotocol": as_subprotocol, "subprotocols": ["chat.v1"]}
            door = site.door(site.root)
            async with door.connect("/tells", origin="http://page.test", **options) as client:
                assert client.subprotocol == "chat.v1"
                lines = [(name.lower(), value) for name, value in json.loads(await client.recv())]
            told = dict(lines)
            assert len(told) == len(lines)
            assert told["x-user-email"] == "root@example.com"
            assert told["x-user-admin"] == "true"
            assert (told["upgrade"], told["connection"].lower()) == ("websocket", "upgrade")
            assert told["sec-websocket-version"] == "13"
            assert told["sec-websocket-protocol"] == "chat.v1"
            assert told["sec-websocket-extensions"].startswith("permessage-deflate")
            assert told["origin"] == "http://page.test"
            assert told["x-forwarded-for"] == "127.0.0.1"
            assert "authorization" not in told
            assert site.root.access not in str(lines)


@pytest.mark.parametrize("first", [True, False])
async def test_a_token_between_other_subprotocols_is_taken_out(site: TunnelSite, first: bool) -> None:
    token = BEARER + site.root.access
    offered = [token, "a", "chat.v1"] if first else ["a", token, "chat.v1"]
    async with WebSocketBackend(site.talk) as backend:
        async with site.door(None).connect("/echo", subprotocols=offered) as client:
            assert client.subprotocol == "chat.v1"
        assert backend.seen[0].headers["Sec-WebSocket-Protocol"] == "a, chat.v1"


async def test_a_token_that_was_the_only_subprotocol_is_named_back(site: TunnelSite) -> None:
    """A browser that offered a subprotocol fails when none is chosen (WHATWG WebSockets, §4)."""
    async with WebSocketBackend(site.talk) as backend:
        async with site.door(site.root).connect("/echo", as_subprotocol=True) as client:
            assert client.subprotocol == BEARER + site.root.access
            await client.send("hello")
            assert await client.recv() == "hello"
        assert "Sec-WebSocket-Protocol" not in backend.seen[0].headers


async def test_of_several_subprotocols_the_backend_may_choose_none(site: TunnelSite) -> None:
    async with WebSocketBackend(site.talk):
        options: Any = {"as_subprotocol": True, "subprotocols": ["unknown"]}
        async with site.door(site.root).connect("/echo", **options) as client:
            assert client.subprotocol is None


async def test_a_public_route_is_open_to_everyone(site: TunnelSite) -> None:
    async with WebSocketBackend(site.talk) as backend:
        for token in (None, site.root.access, "x.y.z"):
            for as_subprotocol in (False, True):
                options: Any = {"as_subprotocol": as_subprotocol}
                async with site.door(token).connect("/public/echo", **options) as client:
                    await client.send("hello")
                    assert await client.recv() == "hello"
        assert [("X-User-Email" in seen.headers) for seen in backend.seen] == [
            *(False, False),
            *(True, True),
            *(False, False),  # a token that does not hold counts as none
        ]
        assert not [seen for seen in backend.seen if "Sec-WebSocket-Protocol" in seen.headers]


# -- how much it holds ---------------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_stops_the_backend(site: TunnelSite) -> None:
    before = _memory(site)
    async with WebSocketBackend(site.talk) as backend:
        path = f"/pushes?count=300&size={MEGABYTE}"
        async with site.door(site.root).connect(path, compression=None, max_queue=1) as client:
            await _stands_still(lambda: backend.seen[0].sent if backend.seen else -1)
            assert backend.seen[0].sent < 40  # the rest waits: what is on the way is in the kernel's buffers
            assert _memory(site) - before < 16 * MEGABYTE
            for _ in range(300):
                assert len(await client.recv()) == MEGABYTE
    assert _memory(site) - before < 16 * MEGABYTE


async def test_a_backend_that_does_not_read_stops_the_client(site: TunnelSite) -> None:
    before = _memory(site)
    sent, message = [0], os.urandom(MEGABYTE)

    async def push(client: Any) -> None:
        for _ in range(100):
            await client.send(message)
            sent[0] += 1

    async with (
        WebSocketBackend(site.talk) as backend,
        site.door(site.root).connect("/deaf", compression=None) as client,
    ):
        pushing = asyncio.ensure_future(push(client))
        await _stands_still(lambda: sent[0])
        assert sent[0] < 60
        assert _memory(site) - before < 16 * MEGABYTE
        backend.seen[0].go_on.set()
        for _ in range(100):
            assert len(await client.recv()) == MEGABYTE
        await pushing
    assert _memory(site) - before < 16 * MEGABYTE


def _memory(site: TunnelSite) -> int:
    return int(psutil.Process(site.gateway.process.pid).memory_info().rss)


async def _stands_still(count: Any) -> None:
    """Wait until a number has stopped growing."""
    last, still = -1, 0
    async with asyncio.timeout(30):
        while still < 10:
            await asyncio.sleep(0.03)
            still = still + 1 if count() == last and last >= 0 else 0
            last = count()


async def test_both_directions_flow_at_once(site: TunnelSite) -> None:
    """Neither waits for the other, however full both are."""
    down, up = os.urandom(16 * MEGABYTE), os.urandom(16 * MEGABYTE)

    async def script(peer: Peer) -> None:
        sending = asyncio.ensure_future(peer.send(down))
        assert await peer.reader.readexactly(len(up)) == up
        await sending
        await peer.closed()

    async with (
        Backend(accepting(script), listening=site.raw),
        connect(site.gateway.address) as client,
    ):
        await opened(client, handshake("/raw/x", token=site.root.access))
        sending = asyncio.ensure_future(client.send(up))
        assert await client.read(len(down)) == down
        await sending


async def test_a_thousand_tunnels_at_once(site: TunnelSite) -> None:
    await site.quiet()
    with many_open_files(4 * TUNNELS + 500):
        async with WebSocketBackend(site.talk) as backend:
            door, gate = site.door(site.root), asyncio.Semaphore(100)

            async def come_in() -> Any:
                async with gate:
                    return await door.connect("/echo/thousand", open_timeout=60)

            clients = await asyncio.gather(*(come_in() for _ in range(TUNNELS)))
            assert await site.metric("gateway_requests_in_flight") == TUNNELS
            assert {name for seen in backend.seen for name in seen.extensions} == {"permessage-deflate"}

            await asyncio.gather(*(client.send(f"I am {number}") for number, client in enumerate(clients)))
            heard = await asyncio.gather(*(client.recv() for client in clients))
            assert heard == [f"I am {number}" for number in range(TUNNELS)]

            await asyncio.gather(*(client.close(4000, "enough") for client in clients))
            await until(lambda: all(seen.ended.is_set() for seen in backend.seen))
            assert {seen.closed_with for seen in backend.seen} == {(4000, "enough")}
            await site.quiet()
    await until(lambda: len(site.lines("/echo/thousand")) == TUNNELS)
