"""Many at once, and what is left when they are done: nothing but idle connections."""

from __future__ import annotations

import asyncio
import gc
import random

import pytest

from tests.support.backend import Backend, Peer, echo, response
from tests.support.forwarding import Front, front, until

pytestmark = pytest.mark.anyio

ASK = b"GET /%d HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"


async def _tasks(gateway: Front) -> int:
    """Tasks in the gateway's loop besides uvicorn's own and this question."""
    await asyncio.sleep(0)
    return int(await gateway.inside(lambda: len(asyncio.all_tasks())))


async def test_a_thousand_at_once_over_a_few_connections() -> None:
    async with Backend(echo) as backend, front(backend.url, connections=20, queue=2000) as gateway:
        before = await _tasks(gateway)
        answers = await asyncio.gather(*[gateway.say(ASK % number) for number in range(1000)])
        for number, answer in enumerate(answers):
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"GET /%d HTTP/1.1\r\n" % number in answer, "someone else's answer"
        pool = gateway.gate.pool
        await gateway.settled(1000)
        assert len(backend.peers) <= 20
        assert await gateway.inside(lambda: (pool.busy_count, pool.waiting_count, pool.opening_count)) == (
            0,
            0,
            0,
        )
        await until(lambda: len(pool.ticker) <= 1)
        assert await _tasks(gateway) == before
        await gateway.inside(pool.close)
        await until(lambda: backend.open == 0)
        assert (pool.idle_count, len(pool.ticker)) == (0, 0)


async def test_a_full_house_says_so_quickly_and_recovers() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await go.wait()
            await peer.send(response(b"ok"))

    async with Backend(script) as backend, front(backend.url, connections=2, queue=3) as gateway:
        first = [asyncio.create_task(gateway.say(ASK % number)) for number in range(5)]
        pool = gateway.gate.pool
        await until(lambda: pool.busy_count == 2 and pool.waiting_count == 3)
        answer = await gateway.get()
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"x-gateway-error: overloaded" in answer
        assert b"retry-after: 1" in answer
        go.set()
        assert all(answer.endswith(b"ok") for answer in await asyncio.gather(*first))
        assert (await gateway.get()).endswith(b"ok")


async def test_chaos_leaves_nothing_behind() -> None:
    """Backends that break in every way and clients that leave at any moment, together."""
    chance = random.Random(7)

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.head()
            mood = chance.random()
            if mood < 0.6:
                await peer.send(response(request.target))
            elif mood < 0.7:
                return
            elif mood < 0.8:
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                await peer.reset()
            elif mood < 0.9:
                await peer.send(response(request.target) + response(b"/evil"))
            else:
                await peer.hang()

    async def client(gateway: Front, number: int) -> None:
        reader, writer = await gateway.connect()
        writer.write(ASK % number)
        try:
            async with asyncio.timeout(chance.choice([0.02, 0.1, 0.3])):
                answer = await reader.read()
        except (TimeoutError, ConnectionError):
            pass
        else:
            assert b"evil" not in answer
            if answer.startswith(b"HTTP/1.1 200") and b"content-length: 100" not in answer:
                assert answer.endswith(b"/%d" % number), "someone else's answer"
        finally:
            writer.transport.abort()

    async with Backend(script) as backend, front(backend.url, connections=10, queue=1000) as gateway:
        before = await _tasks(gateway)
        for start in range(0, 300, 50):
            await asyncio.gather(*[client(gateway, number) for number in range(start, start + 50)])
        pool = gateway.gate.pool
        await until(lambda: not (pool.busy_count or pool.waiting_count or pool.opening_count))
        await until(lambda: len(pool.ticker) <= 1)
        gc.collect()
        assert await _tasks(gateway) == before
        assert len(gateway.records) == len(gateway.gate.heads), "each request has exactly one end"
