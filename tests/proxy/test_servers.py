"""Several servers behind one upstream: uneven, silent, dying, coming back. Time passes when told to."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import BadGateway, Overloaded, UpstreamUnavailable
from gateway.proxy.upstream import pool as pool_module
from gateway.proxy.upstream.address import Address
from gateway.proxy.upstream.connection import Connection
from gateway.proxy.upstream.pool import Pool
from gateway.proxy.upstream.settings import Ejection, HealthCheck, Settings
from tests.support.backend import Backend, Peer, answering, response
from tests.support.forwarding import Clock, Talk, pool_for, talk, until

pytestmark = pytest.mark.anyio

AT_REST = "0 busy, 0 idle, 0 opening, 0 waiting>"
OK = answering(response(b"ok"))


class Held:
    """A backend that answers only when it is told to, and one request at a time at that."""

    def __init__(self) -> None:
        self.permits = asyncio.Semaphore(0)

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.request()
            await self.permits.acquire()
            await peer.send(response(b"held"))

    def answer(self, count: int = 1) -> None:
        for _ in range(count):
            self.permits.release()


async def ask(pool: Pool, times: int = 1) -> list[bytes]:
    """One after the other; the bodies that came."""
    return [(await talk(pool).ended()).body for _ in range(times)]


def fail(pool: Pool, index: int, times: int = 5) -> None:
    """As an exchange does whose server broke off or was too slow."""
    for _ in range(times):
        pool.report(pool.servers[index], False, "reset")


# -- sharing -----------------------------------------------------------------------


async def test_one_that_is_slow_gets_less() -> None:
    held = Held()
    async with Backend(held) as slow, Backend(OK) as one, Backend(OK) as two:
        pool = pool_for(slow.url, one.url, two.url)
        waiting = talk(pool)
        await until(lambda: slow.requests)
        assert await ask(pool, 20) == [b"ok"] * 20
        assert len(slow.requests) == 1
        assert 9 <= len(one.requests) <= 11
        held.answer()
        assert (await waiting.ended()).body == b"held"
        pool.close()


async def test_three_with_uneven_load_end_up_level() -> None:
    backends = [Held(), Held(), Held()]
    async with Backend(backends[0]) as a, Backend(backends[1]) as b, Backend(backends[2]) as c:
        pool = pool_for(a.url, b.url, c.url)
        talks = [talk(pool) for _ in range(12)]
        await until(lambda: all(len(each.requests) == 4 for each in (a, b, c)))
        backends[0].answer(4)
        await until(lambda: pool.idle_count == 4)
        talks += [talk(pool) for _ in range(4)]
        await until(lambda: len(a.requests) == 8)
        assert [server.outstanding for server in pool.servers] == [4, 4, 4]
        for each in backends:
            each.answer(100)
        for one in talks:
            assert (await one.ended()).outcome == "finish"
        pool.close()


async def test_without_kept_connections_they_take_turns_too() -> None:
    closing = answering(response(b"ok", (b"Connection", b"close")))
    async with Backend(closing) as one, Backend(closing) as two, Backend(closing) as three:
        pool = pool_for(one.url, two.url, three.url)
        await ask(pool, 12)
        assert [len(each.requests) for each in (one, two, three)] == [4, 4, 4]
        pool.close()


async def test_one_that_has_no_connection_yet_makes_nobody_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its turn goes to the other while its connection is opened; a silent one is never waited for."""
    opening: list[Address] = []
    let = asyncio.Event()
    really = Address.open

    async def slowly(
        self: Address, protocol: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext
    ) -> object:
        if opening:
            opening.append(self)
            await let.wait()
        opening.append(self)
        return await really(self, protocol, context)

    monkeypatch.setattr(Address, "open", slowly)
    async with Backend(OK) as one, Backend(OK) as two:
        pool = pool_for(one.url, two.url)
        assert await ask(pool, 10) == [b"ok"] * 10
        assert (len(one.requests), len(two.requests), pool.opening_count) == (10, 0, 1)
        let.set()
        await until(lambda: pool.idle_count == 2)
        await ask(pool, 10)
        assert (len(one.requests), len(two.requests)) == (15, 5)
        assert len(one.peers) == len(two.peers) == 1
        pool.close()


async def test_a_silent_one_is_not_waited_for_by_the_first_request_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silent, really = asyncio.Event(), Address.open

    async def into_the_void(self: Address, *options: Any) -> object:
        if self.host == "192.0.2.1":
            await silent.wait()
        return await really(self, *options)

    monkeypatch.setattr(Address, "open", into_the_void)
    monkeypatch.setattr(pool_module, "HEAD_START", 0.01)
    async with Backend(OK) as backend:
        pool = pool_for("http://192.0.2.1:80", "http://192.0.2.1:81", backend.url, connect=60.0)
        assert await ask(pool) == [b"ok"]
        assert (pool.opening_count, pool.waiting_count) == (2, 0)
        pool.close()
        assert repr(pool).endswith(AT_REST)


async def test_one_that_is_back_gets_room_although_all_of_it_is_taken() -> None:
    held, clock = Held(), Clock()
    async with Backend(held) as one, Backend(OK) as two:
        pool = pool_for(
            one.url,
            two.url,
            clock=clock,
            connections=4,
            queue_timeout=60.0,
            ejection=Ejection(slow_start=0.0),
        )
        fail(pool, 1)
        talks = [talk(pool) for _ in range(10)]
        await until(lambda: len(one.requests) == 4)
        assert (pool.waiting_count, len(two.requests)) == (6, 0)
        clock.pass_by(10, pool)
        held.answer(1)
        await until(lambda: len(two.requests) >= 5)
        held.answer(100)
        for each in talks:
            assert (await each.ended()).outcome == "finish"
        pool.close()


async def test_room_held_by_one_that_went_out_is_given_to_another() -> None:
    held, clock = Held(), Clock()
    async with Backend(held) as one, Backend(OK) as two:
        pool = pool_for(one.url, two.url, clock=clock, connections=2, queue_timeout=60.0)
        fail(pool, 1)
        talks = [talk(pool) for _ in range(3)]
        await until(lambda: len(one.requests) == 2)
        clock.pass_by(9, pool)
        fail(pool, 0)
        clock.pass_by(1, pool)
        assert [up for _, up in pool.standing] == [False, True]
        held.answer()
        assert (await talks[2].ended()).body == b"ok"
        held.answer()
        for each in talks:
            await each.ended()
        assert len(one.requests) == 2
        pool.close()


async def test_a_closed_idle_connection_of_another_is_not_borrowed() -> None:
    async with Backend(OK) as one, Backend(OK) as two:
        pool = pool_for(one.url, two.url)
        await ask(pool)
        one.peers[0].writer.get_extra_info("socket").shutdown(1)
        asked = talk(pool, b"POST", body=0)
        assert (await asked.ended()).body == b"ok"
        pool.close()


async def test_a_connection_that_waited_unused_is_looked_at_before_its_first_request() -> None:
    async with Backend(OK) as one, Backend(OK) as two:
        pool = pool_for(one.url, two.url)
        await ask(pool, 2)
        await until(lambda: pool.idle_count == 2)
        assert two.requests == []
        two.peers[0].writer.get_extra_info("socket").shutdown(1)
        assert await ask(pool, 4) == [b"ok"] * 4
        pool.close()


# -- in and out --------------------------------------------------------------------


async def test_a_server_that_dies_and_returns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    clock = Clock()
    mortal = Backend(OK, unix=tmp_path / "mortal")
    async with Backend(OK) as steady, mortal:
        pool = pool_for(mortal.url, steady.url, clock=clock, keep_alive=60.0)
        await ask(pool, 10)
        await mortal.stop()
        await until(lambda: not pool.servers[0].open)
        assert await ask(pool, 40) == [b"ok"] * 40
        await until(lambda: pool.servers[0].out)
        assert (pool.up, pool.standing) == (True, [(mortal.url, False), (str(pool.servers[1]), True)])
        seen = len(steady.requests)
        await ask(pool, 10)
        assert len(steady.requests) == seen + 10, "it is left alone"

        await mortal.__aenter__()
        before = len(mortal.requests)
        clock.pass_by(10, pool)
        await ask(pool, 22)
        await until(lambda: not pool.opening_count)
        assert 1 <= len(mortal.requests) - before <= 3, "a tenth of a share to begin with"
        for _ in range(51):
            clock.pass_by(0.2, pool)
        await ask(pool, 10)  # the last of its smaller turns
        before = len(mortal.requests)
        await ask(pool, 20)
        assert len(mortal.requests) - before == 10
        pool.close()
    changes = [record.getMessage() for record in caplog.records if " is " in record.getMessage()]
    assert len(changes) == 2
    assert changes[0].startswith(
        f"upstream app: {mortal.url} is out for 10 s after 5 failures in a row, the last: "
    )
    assert changes[1] == f"upstream app: {mortal.url} is back: its time is over"


async def resetting(peer: Peer) -> None:
    await peer.request()
    await peer.reset()


async def test_one_that_resets_is_left_alone_after_a_few() -> None:
    async with Backend(resetting) as bad, Backend(OK) as good:
        pool = pool_for(bad.url, good.url, clock=Clock())
        statuses = [(await talk(pool).ended()).status for _ in range(30)]
        assert (statuses.count(502), statuses.count(200)) == (5, 25)
        assert len(bad.requests) == 5
        pool.close()


async def test_one_that_is_too_slow_is_left_alone_after_a_few() -> None:
    held, clock = Held(), Clock()
    async with Backend(held) as slow, Backend(OK) as good:
        pool = pool_for(slow.url, good.url, clock=clock, response=10.0)
        talks = [talk(pool) for _ in range(10)]
        await until(lambda: len(slow.requests) == 5 and sum(bool(each.done) for each in talks) == 5)
        clock.pass_by(11, pool)
        statuses = [(await each.ended()).status for each in talks]
        assert (statuses.count(504), statuses.count(200)) == (5, 5)
        assert await ask(pool, 10) == [b"ok"] * 10
        assert len(slow.requests) == 5
        pool.close()


async def test_whatever_it_answers_it_answers() -> None:
    failing = answering(response(b"no", status=b"503 Service Unavailable"))
    async with Backend(failing) as one, Backend(OK) as two:
        pool = pool_for(one.url, two.url)
        assert (await ask(pool, 40)).count(b"no") >= 19
        assert pool.servers[0].failures == 0
        pool.close()


async def test_the_last_one_is_tried_although_it_is_out() -> None:
    async with Backend(OK) as backend:
        pool = pool_for(backend.url, clock=Clock())
        fail(pool, 0)
        assert (pool.up, pool.standing) == (False, [(f"127.0.0.1:{backend.port}", False)])
        assert await ask(pool) == [b"ok"]
        assert pool.up, "its answer brings it back"
        pool.close()


async def test_all_are_tried_if_all_are_out_and_an_answer_brings_one_back() -> None:
    async with Backend(resetting) as bad, Backend(OK) as good:
        pool = pool_for(bad.url, good.url, clock=Clock())
        fail(pool, 0)
        fail(pool, 1)
        assert [(await talk(pool).ended()).status for _ in range(4)] == [502, 200, 200, 200]
        assert [up for _, up in pool.standing] == [False, True]
        pool.report(pool.servers[0], True)
        assert [up for _, up in pool.standing] == [False, True], "asked before, so it waits for its time"
        pool.close()


async def test_those_still_out_keep_no_room_from_one_that_is_back() -> None:
    held = Held()
    async with Backend(held) as one, Backend(held) as two, Backend(held) as three:
        pool = pool_for(one.url, two.url, three.url, clock=Clock())
        for index in range(3):
            fail(pool, index)
        talks = [talk(pool) for _ in range(3)]
        await until(lambda: one.requests and two.requests and three.requests)
        held.answer(3)
        for each in talks:
            await each.ended()
        assert sum(up for _, up in pool.standing) == 1, "the first that answers"
        assert [len(server.idle) for server in pool.servers] == [up for _, up in pool.standing]
        pool.close()


async def test_what_is_left_of_one_that_is_out_is_not_used_again() -> None:
    held = Held()
    async with Backend(held) as one, Backend(OK) as two:
        pool = pool_for(one.url, two.url, clock=Clock())
        talks = [talk(pool) for _ in range(4)]
        await until(lambda: len(one.requests) == 2 and pool.idle_count == 2)
        held.answer()
        await until(lambda: pool.idle_count == 3)
        fail(pool, 0)
        assert pool.idle_count == 2, "its idle one is closed"
        held.answer()
        for each in talks:
            await each.ended()
        assert pool.servers[0].open == 0, "and the busy one after its answer"
        pool.close()
        assert repr(pool).endswith(AT_REST)


async def test_the_clock_runs_as_long_as_one_is_out() -> None:
    clock = Clock()
    pool = pool_for("http://127.0.0.1:1", "http://127.0.0.1:2", clock=clock)
    assert len(pool.ticker) == 0
    fail(pool, 0)
    assert len(pool.ticker) == 1
    clock.pass_by(10, pool)
    assert (len(pool.ticker), pool.servers[0].weight) == (1, 0.1)
    clock.pass_by(10, pool)
    assert (len(pool.ticker), pool.servers[0].weight) == (0, 1.0)


# -- connecting --------------------------------------------------------------------


async def test_a_connect_that_fails_is_tried_at_every_other(tmp_path: Path) -> None:
    async with Backend(OK) as backend:
        pool = pool_for(f"unix:{tmp_path}/a", f"unix:{tmp_path}/b", backend.url)
        assert await ask(pool) == [b"ok"]
        assert [server.failures for server in pool.servers] == [1, 1, 0]
        assert [server.opening for server in pool.servers] == [0, 0, 0]
        pool.close()


async def test_each_dead_one_is_tried_once(tmp_path: Path) -> None:
    pool = pool_for(f"unix:{tmp_path}/a", f"unix:{tmp_path}/b")
    port = await talk(pool).ended()
    assert isinstance(port.error, UpstreamUnavailable)
    assert port.error.retry_after
    assert [server.failures for server in pool.servers] == [1, 1]
    assert repr(pool).endswith(AT_REST)


async def test_nobody_who_waits_is_forgotten_when_a_connect_fails(tmp_path: Path) -> None:
    """One connection at a time, three who wait, and nothing listens: each hears it, and at once."""
    pool = pool_for(f"unix:{tmp_path}/a", connections=1, clock=Clock())
    talks = [talk(pool) for _ in range(3)]
    for each in talks:
        assert isinstance((await each.ended()).error, UpstreamUnavailable)
    assert repr(pool).endswith(AT_REST)
    pool.ticker.stop()


async def test_one_that_hangs_up_at_once_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(asyncio.Transport):
        def abort(self) -> None:
            pass

    async def hang_up(self: Address, protocol: Callable[[], asyncio.Protocol], _context: object) -> None:
        connection = protocol()
        connection.connection_made(Gone())
        connection.connection_lost(None)

    monkeypatch.setattr(Address, "open", hang_up)
    pool = pool_for("http://127.0.0.1:9", "http://127.0.0.1:10")
    port = await talk(pool).ended()
    assert isinstance(port.error, BadGateway)
    assert [server.failures for server in pool.servers] == [1, 1]
    assert repr(pool).endswith(AT_REST)
    pool.ticker.stop()


async def test_one_that_closes_before_it_is_asked_is_not_tried_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a port forwarder does with nothing behind it, so fast that the kernel knows it before the loop."""
    monkeypatch.setattr(Connection, "is_stale", lambda self: True)
    async with Backend(OK) as one, Backend(OK) as two:
        pool = pool_for(one.url, two.url, clock=Clock())
        assert isinstance((await talk(pool).ended()).error, BadGateway)
        await until(lambda: one.open == two.open == 0)
        assert len(one.peers) == len(two.peers) == 1
        assert repr(pool).endswith(AT_REST)


async def test_a_dead_one_is_logged_until_it_is_out_and_then_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = pool_for(f"unix:{tmp_path}/a", clock=Clock())
    for _ in range(9):
        await talk(pool).ended()
    told = [each.getMessage() for each in caplog.records if each.name == "gateway.proxy.upstream.pool"]
    assert len([line for line in told if "can't connect" in line]) == 5
    assert len([line for line in told if "is out" in line]) == 1
    pool.ticker.stop()


# -- the queue ---------------------------------------------------------------------


async def test_without_a_queue_nobody_waits() -> None:
    async with Backend(Held()) as backend:
        pool = pool_for(backend.url, connections=2, queue=0)
        held = [talk(pool) for _ in range(2)]
        port = await talk(pool).ended()
        assert isinstance(port.error, Overloaded)
        assert port.error.retry_after
        for each in held:
            each.exchange.client_gone()
        assert repr(pool).endswith(AT_REST)


async def test_two_race_for_the_last_connection() -> None:
    held = Held()
    async with Backend(held) as backend:
        pool = pool_for(backend.url, connections=1, queue=1)
        first, second, third = talk(pool), talk(pool), talk(pool)
        assert isinstance((await third.ended()).error, Overloaded)
        await until(lambda: backend.requests)
        held.answer(2)
        assert (await first.ended()).body == (await second.ended()).body == b"held"
        assert len(backend.peers) == 1
        pool.close()


# -- its end -----------------------------------------------------------------------


async def test_a_retired_pool_serves_who_is_there_and_keeps_nothing() -> None:
    held = Held()
    async with Backend(held) as backend:
        pool = pool_for(backend.url, connections=1)
        held.answer()
        await ask(pool)
        pool.retire()
        assert pool.idle_count == 0
        running, waiting = talk(pool), talk(pool)
        await until(lambda: len(backend.requests) == 2)
        held.answer(2)
        assert (await running.ended()).body == (await waiting.ended()).body == b"held"
        await until(lambda: backend.open == 0)
        assert repr(pool).endswith(AT_REST)
        clock = pool.ticker
        clock.tick()
        assert len(clock) == 0


def test_settings_are_equal_if_all_is_equal() -> None:
    def settings(path: str = "/up", port: int = 80) -> Settings:
        return Settings(servers=(Address("a", port), Address("b", 80)), health=HealthCheck(path))

    assert settings() == settings()
    assert len({settings(), settings(), settings("/down"), settings(port=81)}) == 3


# -- everything at once ------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
async def test_after_the_storm_nothing_is_left(seed: int, tmp_path: Path) -> None:
    """Servers that hang up, reset and dawdle; clients that leave; and every count ends at zero."""
    dice, down = random.Random(seed), False

    async def moody(peer: Peer) -> None:
        while True:
            await peer.request()
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
            if dice.random() < 0.05:
                await peer.reset()
                return
            closing = [(b"Connection", b"close")] if dice.random() < 0.2 else []
            await peer.send(response(b"ok", *closing))

    async def mortal(peer: Peer) -> None:
        if down:
            await peer.reset()
        else:
            await moody(peer)

    clock = Clock()
    async with Backend(moody) as one, Backend(moody, unix=tmp_path / "two") as two, Backend(mortal) as three:
        pool = pool_for(
            one.url, two.url, three.url, f"unix:{tmp_path}/none", connections=5, queue=20, clock=clock
        )
        talks: list[Talk] = []
        for step in range(300):
            down = step % 60 > 30
            talks.append(talk(pool))
            if dice.random() < 0.1:
                dice.choice(talks[-10:]).exchange.client_gone()
            if dice.random() < 0.5:
                await asyncio.sleep(0)
            if dice.random() < 0.05:
                pool.report(dice.choice(pool.servers), dice.random() < 0.5, "moody")
            if step % 25 == 0:
                clock.pass_by(3, pool)
            assert pool.busy_count + pool.idle_count + pool.opening_count <= 5
        await until(lambda: all(each.done for each in talks))
        assert sum(each.port.body == b"ok" for each in talks) > 50
        pool.close()
        await until(lambda: repr(pool).endswith(AT_REST))
        assert [server.outstanding for server in pool.servers] == [0, 0, 0, 0]
        pool.ticker.stop()
