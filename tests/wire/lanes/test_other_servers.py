"""The application under hypercorn and granian: a login, a proxied GET, an upload, an event stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator

import granian.server.embed
import hypercorn.asyncio
import pytest

from tests.support.backend import PATIENCE, Peer, echo, response
from tests.support.lanes import EMAIL, PASSWORD, Yard
from tests.support.process import free_port
from tests.support.raw import RawClient, connect, request
from tests.support.serving import until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("server", ["hypercorn", "granian"])]

Address = tuple[str, int]


@contextlib.asynccontextmanager
async def under(server: str, yard: Yard) -> AsyncIterator[RawClient]:
    """A client of the yard's gateway under that server."""
    serve = {"hypercorn": _hypercorn, "granian": _granian}[server]
    async with serve(yard) as address:
        await _answers(address)
        async with connect(address) as client:
            yield client


@contextlib.asynccontextmanager
async def _hypercorn(yard: Yard) -> AsyncIterator[Address]:
    config = hypercorn.Config()
    config.errorlog = None
    config.graceful_timeout = 0.1
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config.bind = [f"fd://{listening.fileno()}"]
    stop = asyncio.Event()
    # A callable instance has to be wrapped: hypercorn looks for a coroutine function.
    serving = asyncio.create_task(
        hypercorn.asyncio.serve(yard.gateway.asgi, config, shutdown_trigger=stop.wait, mode="asgi")
    )
    try:
        yield listening.getsockname()
    finally:
        stop.set()
        await serving
        listening.detach()


@contextlib.asynccontextmanager
async def _granian(yard: Yard) -> AsyncIterator[Address]:
    async def app(scope, receive, send):  # type: ignore[no-untyped-def]  # granian takes functions only
        await yard.gateway.asgi(scope, receive, send)

    port = free_port()
    server = granian.server.embed.Server(
        app, port=port, interface=granian.constants.Interfaces.ASGINL, websockets=False, log_enabled=False
    )
    serving = asyncio.create_task(server.serve())
    try:
        yield ("127.0.0.1", port)
    finally:
        server.stop()
        await serving


async def _answers(address: Address) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                async with connect(address):
                    return
            except ConnectionError:
                await asyncio.sleep(0.01)


async def test_a_login_and_a_proxied_request(server: str, yard: Yard) -> None:
    yard.plays(echo)
    login = json.dumps({"email": EMAIL, "password": PASSWORD}).encode()
    async with under(server, yard) as client:
        answer = await client.ask(
            request("/auth/login", method="POST", body=login, content_type="application/json")
        )
        assert answer.status == 200
        token = json.loads(answer.body)["accessToken"]
        assert (await client.ask(request("/private"))).status == 401
        answer = await client.ask(request("/private/a%2Fb?c=d", authorization=f"Bearer {token}"))
        assert answer.status == 200
        assert answer.body.startswith(b"GET /private/a%2Fb?c=d HTTP/1.1\r\n")
        assert EMAIL.encode() in answer.body
        assert token.encode() not in answer.body


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_an_upload(framing: str, server: str, yard: Yard) -> None:
    yard.plays(echo)
    body = b"x" * 300_000
    async with under(server, yard) as client:
        if framing == "length":
            await client.send(request("/public", method="POST", body=body))
        else:
            await client.send(request("/public", method="POST", transfer_encoding="chunked"))
            await client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        answer = await client.answer()
        assert (answer.status, answer.body.endswith(b"\r\n\r\n" + body)) == (200, True)


async def test_an_event_stream(server: str, yard: Yard) -> None:
    read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(3):
            await peer.send(b"data: %d\n\n" % number)
            await read.wait()
            read.clear()

    yard.plays(script)
    async with under(server, yard) as client:
        await client.send(request("/public"))
        for number in range(3):
            await client.until(b"data: %d\n\n" % number)
            read.set()
        await client.until(b"0\r\n\r\n")


async def test_a_client_that_leaves(server: str, yard: Yard) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.closed()

    yard.plays(script)
    async with under(server, yard) as client:
        await client.send(request("/public"))
        await until(lambda: yard.backend.requests)
        client.reset()
        await until(lambda: yard.backend.peers[0].ended.is_set())


async def test_a_broken_backend(server: str, yard: Yard) -> None:
    async def script(peer: Peer) -> None:
        seen = await peer.request()
        await peer.send(response(b"ok") if seen.target.endswith(b"good") else b"garbage\r\n\r\n")

    yard.plays(script)
    async with under(server, yard) as client:
        assert (await client.ask(request("/public"))).status == 502
        assert (await client.ask(request("/public/good"))).body == b"ok"
