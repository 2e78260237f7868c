"""Stories of time: who waits for whom, who may speak first, who leaves, and what is never held in memory."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.backend import PATIENCE, Peer, Truncated, echo, once, response
from tests.support.lanes import ASGI, H11, LANES, Yard
from tests.support.raw import Closed, request
from tests.support.serving import until
from tests.wire.lanes.rows import PROBE, final

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("lane", [*LANES, H11])]

GET = request("/public")
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def upload(*, length: int | None, target: str = "/public", expect: bool = False) -> bytes:
    """The head of a POST with a body of that length; None for chunks."""
    size = {"transfer_encoding": "chunked"} if length is None else {"content_length": str(length)}
    return request(target, method="POST", **size, **({"expect": "100-continue"} if expect else {}))


async def ended(yard: Yard) -> None:
    """The gateway has let go of the backend's first connection."""
    await until(lambda: yard.backend.peers)
    async with asyncio.timeout(PATIENCE):
        await yard.backend.peers[0].ended.wait()


# -- Expect: 100-continue ----------------------------------------------------------


async def test_the_100_comes_after_the_verdict_and_before_the_body(lane: str, yard: Yard) -> None:
    yard.plays(echo)
    async with yard.connect(lane) as client:
        await client.send(upload(length=5, expect=True))
        assert (await client.answer(informational=True)).status == 100
        answer = await client.ask(b"hello")
        assert answer.body.endswith(b"\r\n\r\nhello")
        assert b"expect" not in answer.body.lower()


async def test_the_100_waits_for_a_connection_to_the_backend(lane: str, yard: Yard) -> None:
    """The upstream `narrow` has one connection, and somebody holds it."""
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await go.wait()
            await peer.send(response(b"ok"))

    yard.plays(script)
    async with yard.connect(lane) as first, yard.connect(lane) as second:
        await first.send(request("/narrow/1"))
        await until(lambda: yard.backend.requests)
        await second.send(upload(length=2, target="/narrow/2", expect=True))
        await until(lambda: yard.held().get("waiting"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await second.answer(informational=True)
        go.set()
        assert (await first.answer()).body == b"ok"
        await second.send(b"hi")
        answer, _ = await final(second)
        assert answer.body == b"ok"


async def test_a_backend_that_refuses_before_the_body_is_heard(lane: str, yard: Yard) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(response(b"no", status=b"417 Expectation Failed"))
        await peer.closed()

    yard.plays(script)
    async with yard.connect(lane) as client:
        await client.send(upload(length=100, expect=True))
        assert (await client.answer(informational=True)).status == 100
        await client.send(b"x")
        assert (await client.answer()).body == b"no"
        await client.closed()
    await ended(yard)


# -- answers before the end of the request -----------------------------------------


@pytest.mark.parametrize("status", [b"413 Content Too Large", b"200 OK"])
@pytest.mark.parametrize("length", [1_000_000, None])
async def test_an_early_answer_arrives_and_closes_both_sides(
    length: int | None, status: bytes, lane: str, yard: Yard
) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(response(b"enough", status=status))
        await peer.closed()

    yard.plays(script)
    async with yard.connect(lane) as client:
        await client.send(upload(length=length) + b"5\r\nhello\r\n")
        answer = await client.answer()
        assert (answer.status, answer["connection"], answer.body) == (int(status[:3]), "close", b"enough")
        client.half_close()
        assert await client.closed() == b""
    await ended(yard)
    await until(lambda: not yard.held())


async def test_an_early_answer_is_read_by_a_client_that_sends_everything_first(lane: str, yard: Yard) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(response(b"no", status=b"413 Content Too Large"))
        await peer.closed()

    yard.plays(script)
    async with yard.connect(lane) as client:
        await client.send(upload(length=900_000) + b"x" * 900_000)
        assert (await client.answer()).body == b"no"


async def test_chunks_over_the_limit(lane: str, yard: Yard) -> None:
    async def script(peer: Peer) -> None:
        with pytest.raises(Truncated):
            await peer.request()

    yard.plays(script)
    async with yard.connect(lane) as client:
        await client.send(upload(length=None))
        for _ in range(20):
            await client.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        answer = await client.answer()
        assert (answer.status, answer["x-gateway-error"]) == (413, "body_too_large")
        assert answer["connection"] == "close"
        await client.send(b"0\r\n\r\n" + PROBE)
        assert await client.closed() == b""
    await ended(yard)
    assert [seen.method for seen in yard.backend.requests] == [b"POST"]


# -- who leaves --------------------------------------------------------------------


@pytest.mark.parametrize("how", ["reset", "half-close"])
@pytest.mark.parametrize("length", [10, None])
async def test_an_aborted_upload_is_never_finished(
    length: int | None, how: str, lane: str, yard: Yard
) -> None:
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        try:
            await peer.request()
            got.append(b"whole")
        except Truncated as error:
            got.append(error.got)

    yard.plays(script)
    async with yard.connect(lane) as client:
        await client.send(upload(length=length) + (b"half!" if length else b"5\r\nhalf!\r\n"))
        await until(lambda: yard.backend.requests)
        if how == "reset":
            client.reset()
        else:
            client.half_close()
        await ended(yard)
    assert got == [b"half!"]
    await until(lambda: not yard.held())


@pytest.mark.parametrize("how", ["reset", "half-close"])
async def test_a_client_that_leaves_an_answer(how: str, lane: str, yard: Yard) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EVENTS, b"data: 1\n\n")
        await peer.closed()

    yard.plays(script)
    async with yard.connect(lane) as client:
        await client.send(GET)
        await client.until(b"data: 1\n\n")
        if how == "reset":
            client.reset()
        else:
            client.half_close()
        await ended(yard)


@pytest.mark.parametrize("body", [0, 2])
async def test_a_client_that_leaves_before_the_answer(body: int, lane: str, yard: Yard) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.closed()

    yard.plays(script)
    async with yard.connect(lane) as client:
        await client.send(upload(length=body) + b"x" * body)
        await until(lambda: yard.backend.requests)
        client.reset()
        await ended(yard)
    await yard.quiet()
    [line] = yard.lines()
    assert (line["status"], line["reason"]) == (499, "client_gone")


async def test_a_client_that_leaves_the_queue(lane: str, yard: Yard) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.closed()

    yard.plays(script)
    async with yard.connect(lane) as first, yard.connect(lane) as second:
        await first.send(request("/narrow/1"))
        await until(lambda: yard.backend.requests)
        await second.send(request("/narrow/2"))
        await until(lambda: yard.held().get("waiting"))
        second.reset()
        await until(lambda: not yard.held().get("waiting"))
        first.reset()
        await ended(yard)
    assert len(yard.backend.requests) == 1


async def test_a_client_that_leaves_with_a_pipeline_behind_it(lane: str, yard: Yard) -> None:
    """What was pipelined is never asked on behalf of nobody."""
    if lane == ASGI:
        # uvicorn's httptools protocol stops reading while something is pipelined, and so can't notice that
        # the client leaves; its last request, not the first, hears of it.
        return

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.closed()

    yard.plays(script)
    async with yard.connect(lane) as client:
        await client.send(request("/public/1") + request("/public/2") + request("/auth/me"))
        await until(lambda: yard.backend.requests)
        client.reset()
        await ended(yard)
    await yard.quiet()
    assert [seen.target for seen in yard.backend.requests] == [b"/public/1"]


# -- streams -----------------------------------------------------------------------


@pytest.mark.parametrize("framing", [b"", b"Transfer-Encoding: chunked\r\n"])
async def test_an_event_stream_arrives_event_by_event(framing: bytes, lane: str, yard: Yard) -> None:
    """Each event is sent only when the one before it was read at the other end."""
    read = asyncio.Event()

    async def script(peer: Peer) -> None:
        if (await peer.request()).target == b"/probe":
            await peer.send(response(b"ok"))
            return
        await peer.send(EVENTS[:-2] + framing + b"\r\n")
        for number in range(5):
            event = b"data: %d\n\n" % number
            await peer.send(b"%x\r\n%b\r\n" % (len(event), event) if framing else event)
            await read.wait()
            read.clear()
        if framing:
            await peer.send(b"0\r\n\r\n")

    yard.plays(script)
    async with yard.connect(lane) as client:
        await client.send(GET)
        assert b"text/event-stream" in await client.until(b"\r\n\r\n")
        for number in range(5):
            await client.until(b"data: %d\n\n" % number)
            read.set()
        await client.until(b"\r\n0\r\n\r\n")
        assert (await client.ask(PROBE)).status == 200


async def test_a_head_does_not_wait_for_its_body(lane: str, yard: Yard) -> None:
    read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await read.wait()
        await peer.send(b"ok")

    yard.plays(script)
    async with yard.connect(lane) as client:
        await client.send(GET)
        await client.until(b"\r\n\r\n")
        read.set()
        assert await client.read(2) == b"ok"


async def test_an_upload_arrives_piece_by_piece_while_it_is_answered(lane: str, yard: Yard) -> None:
    """Both directions at once: each piece is answered before the next one is sent."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(EVENTS)
        while (piece := await peer.read()) and not piece.endswith(b"0\r\n\r\n"):
            await peer.send(piece)

    yard.plays(script)
    async with yard.connect(lane) as client:
        await client.send(upload(length=None))
        for number in range(5):
            await client.send(b"3\r\n<%d>\r\n" % number)
            await client.until(b"<%d>" % number)
        await client.send(b"0\r\n\r\n")
        await client.until(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("ending", ["close", "reset", "garbage"])
async def test_a_body_that_breaks_off_later_is_seen_to_break_off(ending: str, lane: str, yard: Yard) -> None:
    read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        await read.wait()
        if ending == "reset":
            await peer.reset()
        elif ending == "garbage":
            await peer.send(b"garbage\r\n")
            await peer.closed()

    yard.plays(script)
    async with yard.connect(lane) as client:
        await client.send(GET)
        await client.until(b"half\r\n")
        read.set()
        assert await client.closed() == b""  # no last chunk
    await yard.quiet()
    [line] = yard.lines()
    assert (line["status"], line["reason"]) == (200, "upstream_broken")


async def test_one_after_the_other_on_one_connection_to_the_backend(lane: str, yard: Yard) -> None:
    yard.plays(echo)
    async with yard.connect(lane) as client:
        for number in range(20):
            answer = await client.ask(request(f"/public/{number}", method="POST", body=b"%d" % number))
            assert answer.body.startswith(b"POST /public/%d " % number)
            assert answer.body.endswith(b"\r\n\r\n%d" % number)
    await yard.quiet()
    assert len(yard.backend.peers) == 1


async def test_a_stale_connection_is_no_failure(lane: str, yard: Yard) -> None:
    """The backend closes after each answer without saying so."""
    yard.plays(once(response(b"ok")))
    async with yard.connect(lane) as client:
        for _ in range(10):
            assert (await client.ask(GET)).body == b"ok"


async def test_helpers_notice_a_closed_connection(lane: str, yard: Yard) -> None:
    async with yard.connect(lane) as client:
        await client.send(b"\x16\x03\x01\r\n\r\n")
        await client.closed()
        with pytest.raises(Closed):
            await client.answer()
