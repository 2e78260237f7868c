"""Clients that are gone before they are read, and what came too early: in the lane of `gateway run`."""

from __future__ import annotations

import asyncio
import socket
import struct
import time

import pytest

from tests.support.backend import Peer
from tests.support.lanes import RUN, Yard
from tests.support.raw import Closed, request
from tests.support.serving import until

pytestmark = pytest.mark.anyio

UPGRADE = request(
    "/public/x",
    connection="Upgrade",
    upgrade="websocket",
    sec_websocket_version="13",
    sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==",
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


async def test_a_client_without_an_address_is_nobody(yard: Yard) -> None:
    """What it has sent can still be read; but without an address it would pass for a unix socket."""
    gone = socket.create_connection(yard.addresses[RUN])
    gone.sendall(request("/public"))
    reset(gone)
    async with yard.connect(RUN) as client:
        assert (await client.ask(request("/public/after"))).status == 200
    await yard.quiet()
    assert [line["path"] for line in yard.lines()] == ["/public/after"]


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked", b"Content-Length: 10", b"X: y"])
async def test_a_client_of_http_1_0_sees_that_its_answer_was_cut(framing: bytes, yard: Yard) -> None:
    """It knows no chunks, so the connection's end is the answer's: an ordinary one would make it whole."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n3\r\nabc\r\n" % framing)
        await sent.wait()
        await peer.reset()

    sent = asyncio.Event()
    yard.plays(script)
    async with yard.connect(RUN) as client:
        await client.send(b"GET /public HTTP/1.0\r\nHost: gateway.test\r\n\r\n")
        await client.until(b"abc")
        sent.set()
        with pytest.raises(Closed) as closed:
            await client.until(b"whatever else")
    assert closed.value.reset


async def test_nothing_is_begun_for_a_client_that_turned_out_to_be_gone(yard: Yard) -> None:
    gone = socket.create_connection(yard.addresses[RUN])
    await until(lambda: yard.states[RUN].connections)
    gone.sendall(request("/private") + 3 * request("/private", method="POST", body=b"x" * 100))
    reset(gone)
    await yard.quiet()
    assert {line["status"] for line in yard.lines()} == {401}


async def test_what_is_pipelined_is_not_read_faster_than_it_is_answered(yard: Yard) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_connection(yard.addresses[RUN]) as client:
        client.setblocking(False)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await loop.sock_sendall(client, request("/private") * 1_000_000)
        (connection,) = yard.states[RUN].connections
        assert len(connection._buffer) < 2**20  # type: ignore[union-attr]
        reset(client)


async def test_a_train_of_tiny_chunks_arrives_whole_while_others_are_answered(yard: Yard) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_connection(yard.addresses[RUN]) as client:
        client.setblocking(False)
        body = b"1\r\nA\r\n" * 500_000 + b"0\r\n\r\n"
        await loop.sock_sendall(client, request("/public", method="POST", transfer_encoding="chunked"))
        sending = asyncio.ensure_future(loop.sock_sendall(client, body))
        answered = asyncio.ensure_future(loop.sock_recv(client, 15))
        async with yard.connect(RUN) as other:
            while not answered.done():
                assert (await other.ask(request("/private"))).status == 401
        await sending
        assert await answered == b"HTTP/1.1 200 OK"
        reset(client)
    await yard.quiet()
    assert [len(each.body) for each in yard.backend.requests if each.method == b"POST"] == [500_000]


async def test_what_came_before_a_tunnel_does_not_open_the_gates(yard: Yard) -> None:
    """A backend that does not read stops its client, however much was sent ahead of the 101."""

    async def deaf(peer: Peer) -> None:
        await peer.head()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await told.wait()
        await peer.send(SWITCHED)
        await asyncio.Event().wait()

    told = asyncio.Event()
    yard.plays(deaf)
    loop = asyncio.get_running_loop()
    with socket.create_connection(yard.addresses[RUN]) as client:
        client.setblocking(False)
        await loop.sock_sendall(client, UPGRADE + bytes(400_000))
        await until(lambda: yard.backend.requests)
        (connection,) = yard.states[RUN].connections
        upstream = connection.current._exchange._connection._transport  # type: ignore[union-attr]
        upstream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        told.set()
        assert await loop.sock_recv(client, 65536)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await loop.sock_sendall(client, bytes(64 * 2**20))
        reset(client)
    await yard.fresh()


async def test_who_stops_reading_is_not_taken_for_one_who_left(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the log, that is: both are cut."""
    size = 32 * 1024 * 1024

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, bytes(size))

    yard.plays(script)
    connections = yard.states[RUN].connections
    async with yard.connect(RUN) as client:
        await client.send(request("/public"))
        await until(lambda: any(one.flow is not None and one.flow.write_paused for one in connections))
        (one,) = connections
        for minutes in range(1, 10):  # what the kernel takes meanwhile is progress
            monkeypatch.setattr(one.watch, "clock", lambda later=60 * minutes: time.monotonic() + later)
            one.watch.look()
            await asyncio.sleep(0)
        await until(lambda: not connections)
    (line,) = yard.lines()
    assert (line["status"], line["reason"]) == (200, "request_timeout")


async def test_what_a_client_says_last_arrives_although_the_backend_still_speaks(yard: Yard) -> None:
    """To close a connection with something unread in it is a reset, which takes along what was written."""
    said, heard = bytes(600_000), bytearray()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCHED)
        speaking = asyncio.create_task(peer.send(bytes(20_000_000)))
        while data := await peer.read():
            heard.extend(data)
        await speaking

    yard.plays(script)
    async with yard.connect(RUN) as client:
        await client.send(UPGRADE)
        await client.until(b"\r\n\r\n")
        await client.send(said)
        client.half_close()
        await client.closed()
        await until(lambda: all(peer.ended.is_set() for peer in yard.backend.peers))
    assert heard == said
