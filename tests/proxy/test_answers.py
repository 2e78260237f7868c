"""Every way in which a backend can answer, well and badly, seen from the client's side of the engine."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import BadGateway
from gateway.proxy.upstream.connection import Connection
from tests.support.backend import Backend, Peer, answering, echo, once, response
from tests.support.forwarding import pool_for, talk

pytestmark = pytest.mark.anyio

OK = response(b"ok")


async def test_a_plain_get_goes_there_and_back() -> None:
    async with Backend(echo) as backend:
        pool = pool_for(backend.url)
        asked = talk(pool, target=b"/a%2Fb?x=1")
        port = await asked.ended()
        assert (port.status, port.outcome) == (200, "finish")
        assert port.body == b"GET /a%2Fb?x=1 HTTP/1.1\r\nHost: app\r\n\r\n"
        record = asked.record
        assert (record.status, record.reason, record.bytes_out) == (200, "allowed", len(port.body))
        assert record.upstream == backend.url.removeprefix("http://")
        assert record.upstream_ms is not None
        assert record.upstream_ms > 0
        assert (pool.idle_count, pool.busy_count, len(pool.ticker)) == (1, 0, 1)
        pool.close()


async def test_connections_are_reused() -> None:
    async with Backend(echo) as backend:
        pool = pool_for(backend.url)
        for _ in range(5):
            await talk(pool).ended()
        assert len(backend.peers) == 1
        assert repr(pool) == "<Pool 'app': 0 busy, 1 idle, 0 opening, 0 waiting>"
        pool.close()


CLEAN = {
    "in one piece": ([OK], b"ok"),
    "byte by byte": ([bytes([byte]) for byte in OK], b"ok"),
    "no body": ([response()], b""),
    "chunked": (
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3\r\n...\r\n0\r\n\r\n"],
        b"ok...",
    ),
    "chunk extensions and trailers": (
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nX-User: admin\r\n\r\n"],
        b"ok",
    ),
    "interim answers first": (
        [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", OK],
        b"ok",
    ),
    "a promise without a time": ([response(b"ok", (b"Keep-Alive", b"max=5"))], b"ok"),
    "no reason phrase": ([b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"], b"ok"),
    "HTTP/1.0 with keep-alive": (
        [b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"],
        b"ok",
    ),
}


@pytest.mark.parametrize("case", CLEAN)
async def test_a_clean_answer_leaves_a_clean_connection(case: str) -> None:
    raw, body = CLEAN[case]
    async with Backend(answering(*raw)) as backend:
        pool = pool_for(backend.url)
        for _ in range(2):
            port = await talk(pool).ended()
            assert (port.status, port.outcome, port.body) == (200, "finish", body)
            assert not {name.lower() for name, _ in port.headers} & {b"x-user", b"link", b"transfer-encoding"}
        assert (len(backend.peers), pool.idle_count) == (1, 1)
        pool.close()


async def test_interim_answers_reach_the_port() -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with Backend(once(early, OK)) as backend:
        port = await talk(pool_for(backend.url)).ended()
        assert port.interims == [100, 103]


CLOSING = {
    "connection: close": (response(b"ok", (b"Connection", b"close")), b"ok"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "a next answer nobody asked for": (OK + OK, b"ok"),
    "half of one": (OK + b"H", b"ok"),
    "garbage behind it": (OK + b"\0garbage", b"ok"),
    "a promise of no time at all": (response(b"ok", (b"Keep-Alive", b"timeout=1, max=5")), b"ok"),
}


@pytest.mark.parametrize("case", CLOSING)
async def test_after_this_the_connection_is_not_used_again(case: str) -> None:
    raw, body = CLOSING[case]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(raw)
        await peer.closed()

    async with Backend(script) as backend:
        pool = pool_for(backend.url)
        for _ in range(2):
            port = await talk(pool).ended()
            assert (port.status, port.outcome, port.body) == (200, "finish", body)
            assert pool.idle_count == 0
        assert len(backend.peers) == 2
        assert all(len(peer.requests) == 1 for peer in backend.peers)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X: y"])
async def test_a_body_where_none_can_be_is_no_answer_to_the_next_request(
    status: bytes, framing: bytes
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 %b\r\n%b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil" % (status, framing)
        )
        await peer.closed()

    async with Backend(script) as backend:
        pool = pool_for(backend.url)
        for _ in range(2):
            port = await talk(pool).ended()
            assert (port.status, port.body, port.outcome) == (int(status[:3]), b"", "finish")
            assert pool.idle_count == 0


@pytest.mark.parametrize(
    ("status", "framing"),
    [
        (b"204 No Content", b"Content-Length: 5"),
        (b"204 No Content", b"Transfer-Encoding: chunked"),
        (b"304 Not Modified", b"Transfer-Encoding: chunked"),
    ],
)
async def test_a_body_that_is_announced_where_none_can_be_is_not_waited_for(
    status: bytes, framing: bytes
) -> None:
    """It may come a moment later, when the connection is somebody else's."""
    async with Backend(answering(b"HTTP/1.1 %b\r\n%b\r\n\r\n" % (status, framing))) as backend:
        pool = pool_for(backend.url)
        port = await talk(pool).ended()
        assert (port.status, port.outcome, pool.idle_count) == (int(status[:3]), "finish", 0)
        pool.close()


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ((b"WWW-Authenticate", b"NTLM"), False),
        ((b"www-authenticate", b"negotiate YII="), False),
        ((b"WWW-Authenticate", b'Basic realm="a", Negotiate'), False),
        ((b"Persistent-Auth", b"true"), False),
        ((b"Persistent-Auth", b"false"), True),
        ((b"WWW-Authenticate", b'Basic realm="NTLM"'), True),
        ((b"WWW-Authenticate", b'Bearer realm="negotiate"'), True),
    ],
)
async def test_a_backend_that_logs_connections_in_gets_a_new_one_each_time(
    line: tuple[bytes, bytes], kept: bool
) -> None:
    """Else the next caller on the connection would be the last one, to the backend."""
    async with Backend(answering(response(b"who?", line, status=b"401 Unauthorized"))) as backend:
        pool = pool_for(backend.url)
        port = await talk(pool).ended()
        assert (port.status, line in port.headers, pool.idle_count) == (401, True, int(kept))
        pool.close()


async def test_a_204_has_no_length_and_a_304_keeps_its() -> None:
    for status, kept in ((b"204 No Content", 0), (b"304 Not Modified", 1)):
        async with Backend(answering(response(b"", status=status))) as backend:
            pool = pool_for(backend.url)
            port = await talk(pool).ended()
            assert len(port.headers) == kept
            assert pool.idle_count == 1
            pool.close()


HEADS = {
    "with a length": b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
    "with length nought": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "without either": b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n",
    "with a body after all": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "with chunks after all": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "with an empty chunked body": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "with the beginning of a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5",
    "with another answer": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + OK,
}


@pytest.mark.parametrize("case", HEADS)
async def test_the_answer_to_head_ends_with_its_head(case: str) -> None:
    raw = HEADS[case]

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(raw)

    async with Backend(script) as backend:
        pool = pool_for(backend.url)
        for _ in range(2):
            port = await talk(pool, b"HEAD").ended()
            assert (port.status, port.outcome, port.body) == (200, "finish", b"")
            assert (b"Content-Length" in dict(port.headers)) == (b"Content-Length" in raw)
            assert pool.idle_count == 0
        pool.close()


async def test_a_late_body_of_head_answers_nobody_else() -> None:
    """A backend that sends the body of its GET also to HEAD, in a segment of its own."""

    async def script(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        if request.line.startswith(b"HEAD"):
            await asyncio.sleep(0.005)
        await peer.send(b"mine!")

    async with Backend(script) as backend:
        pool = pool_for(backend.url)
        for _ in range(5):
            await talk(pool, b"HEAD").ended()
            port = await talk(pool).ended()
            assert (port.status, port.body) == (200, b"mine!")
        pool.close()


async def test_a_body_that_ends_with_the_connection() -> None:
    async with Backend(once(b"HTTP/1.1 200 OK\r\n\r\nall ", b"of it")) as backend:
        pool = pool_for(backend.url)
        port = await talk(pool).ended()
        assert (port.body, port.outcome) == (b"all of it", "finish")
        assert pool.idle_count == 0


BROKEN = {
    "closed without a word": b"",
    "garbage": b"\x16\x03\x01 this is no HTTP\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "a switch of protocols": b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello",
    "a bare 101": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "only interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
    "a flood of interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    "length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "gzip, chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "gzip alone": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx",
    "chunked twice": b"HTTP/1.1 200 OK\r\n" + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "status 099": b"HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\nok",
    "status 999": b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok",
    "a bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "a folded line": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "a control byte in a value": b"HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 2\r\n\r\nok",
    "a NUL in a value": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
    "a space in a name": b"HTTP/1.1 200 OK\r\nX y: a\r\nContent-Length: 2\r\n\r\nok",
    "too many lines": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 201 + b"Content-Length: 2\r\n\r\nok",
    "a head too long": b"HTTP/1.1 200 OK\r\n"
    + (b"X: " + b"y" * 1000 + b"\r\n") * 70
    + b"Content-Length: 2\r\n\r\nok",
    "one line too long": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
}


@pytest.mark.parametrize("case", BROKEN)
async def test_what_cannot_be_passed_on_is_a_502(case: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Backend(once(BROKEN[case])) as backend:
        pool = pool_for(backend.url)
        asked = talk(pool)
        port = await asked.ended()
        assert port.outcome == "fail"
        assert isinstance(port.error, BadGateway)
        assert port.error.detail == BadGateway.sentence, "nothing of the inside"
        assert (asked.record.status, asked.record.reason) == (502, "upstream_broken")
        assert (pool.idle_count, pool.busy_count, len(pool.ticker)) == (0, 0, 0)
        assert [r.levelname for r in caplog.records if r.name == "gateway.proxy.exchange"] == ["WARNING"]


async def test_an_endless_head_is_cut_off() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n")
        while not peer.writer.transport.is_closing():
            await peer.send(b"X-More: " + b"y" * 4000 + b"\r\n")
            await asyncio.sleep(0)

    async with Backend(script) as backend:
        port = await talk(pool_for(backend.url)).ended()
        assert (port.outcome, port.status) == ("fail", 502)


@pytest.mark.parametrize("kind", ["trailers", "chunk extensions", "one trailer"])
async def test_endless_framing_is_cut_off(kind: str) -> None:
    pieces = {"trailers": (b"0\r\n", b"X: y\r\n" * 500), "chunk extensions": (b"2", b";x=y" * 500)}
    first, more = pieces.get(kind, (b"0\r\nX: ", b"y" * 3000))

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + first)
        while not peer.writer.transport.is_closing():
            await peer.send(more)
            await asyncio.sleep(0)

    async with Backend(script) as backend:
        asked = talk(pool_for(backend.url))
        port = await asked.ended()
        assert (port.outcome, port.body) == ("abort", b"ok")
        assert (asked.record.status, asked.record.reason) == (200, "upstream_broken")


TRUNCATED = {
    "by length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "inside a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    "no last CRLF": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    "bad chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
}


@pytest.mark.parametrize("case", TRUNCATED)
async def test_a_truncated_body_is_seen_as_truncated(case: str) -> None:
    async with Backend(once(TRUNCATED[case])) as backend:
        pool = pool_for(backend.url)
        asked = talk(pool)
        port = await asked.ended()
        assert (port.status, port.outcome, port.body) == (200, "abort", b"half")
        assert (asked.record.status, asked.record.reason, asked.record.bytes_out) == (
            200,
            "upstream_broken",
            4,
        )
        assert pool.idle_count == 0


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\n\r\nhalf", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]
)
async def test_a_reset_is_never_a_good_end(said: bytes) -> None:
    seen = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(said)
        if said:
            await seen.wait()
        await peer.reset()

    async with Backend(script) as backend:
        asked = talk(pool_for(backend.url))
        if said:
            await asked.port.started.wait()
            seen.set()
        port = await asked.ended()
        assert port.outcome == ("abort" if said else "fail")


async def test_headers_go_through_byte_for_byte_except_those_of_the_hop() -> None:
    lines = [
        (b"Set-Cookie", b"a=1; Path=/"),
        (b"X-Latin", b"caf\xe9 \xff\x80"),
        (b"set-cookie", b"b=2"),
        (b"X-Tab", b"a\tb"),
        (b"X_Under.Score", b""),
        (b"Connection", b"keep-alive, X-Secret-Hop"),
        (b"x-secret-hop", b"1"),
        (b"Keep-Alive", b"timeout=60"),
        (b"Proxy-Authenticate", b"Basic"),
        (b"Proxy-Connection", b"x"),
        (b"TE", b"x"),
        (b"Trailer", b"x"),
        (b"Upgrade", b"h2c"),
        (b"X-Gateway-Error", b"forged"),
        (b"x-gateway-error", b"forged"),
        (b"Date", b"then"),
        (b"Server", b"old"),
    ]
    async with Backend(answering(response(b"ok", *lines))) as backend:
        pool = pool_for(backend.url)
        port = await talk(pool).ended()
        assert port.headers == [*lines[:5], *lines[-2:], (b"Content-Length", b"2")]
        assert pool.idle_count == 1
        pool.close()


async def test_connection_cannot_take_the_framing_away() -> None:
    raw = response(b"ok", (b"Connection", b"Content-Length, close"))
    async with Backend(once(raw)) as backend:
        port = await talk(pool_for(backend.url)).ended()
        assert (port.headers, port.body) == ([(b"Content-Length", b"2")], b"ok")


async def test_a_long_body_behind_a_short_head_is_no_long_head() -> None:
    body = b"x" * 300_000
    async with Backend(answering(response(body))) as backend:
        pool = pool_for(backend.url)
        assert (await talk(pool).ended()).body == body
        assert pool.idle_count == 1
        pool.close()


HTTP_ISH = st.lists(
    st.one_of(
        st.sampled_from(
            [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 204 X\r\n", b"HTTP/1.1 100 C\r\n", b"HTTP/1.0 200 OK\r\n",
             b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
             b"\r\n", b"3\r\nabc\r\n",
             b"0\r\n", b"abc", b"\r", b"\n", b"X: y\r\n", b"HTTP/1.1 101 S\r\nUpgrade: x\r\n"]
        ),
        st.binary(max_size=20),
    ),
    max_size=12,
)  # fmt: skip


class Wire(asyncio.Transport):
    """A transport with nobody at the other end."""

    def __init__(self, quiet: socket.socket) -> None:
        super().__init__({"socket": quiet})
        self.written: list[bytes] = []
        self.gone = False

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.gone = True


@given(data=st.data(), pieces=HTTP_ISH, method=st.sampled_from([b"GET", b"HEAD"]), valid=st.booleans())
@settings(max_examples=400, deadline=None)
def test_whatever_comes_back_one_answer_is_one_answer(
    data: st.DataObject, pieces: list[bytes], method: bytes, valid: bool
) -> None:
    """In memory, cut into reads anywhere: it ends, and a connection that is kept has nothing left in it."""
    raw = (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" if valid else b"") + b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=4)))

    async def story() -> None:
        pool = pool_for("http://127.0.0.1:9")
        connection = Connection(pool, pool.servers[0])
        wire = Wire(quiet)
        connection.connection_made(wire)
        connection.keep_alive = 60.0
        pool.release(connection, reusable=True)
        asked = talk(pool, method)
        for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
            if raw[start:end] and not wire.gone:
                connection.data_received(raw[start:end])
        if not wire.gone:
            connection.eof_received()
        connection.connection_lost(None)
        assert asked.port.outcome in ("finish", "fail", "abort")
        assert asked.done == [asked.record]
        assert (pool.idle_count, pool.busy_count) == (0, 0)
        pool.close()
        pool.ticker.stop()

    quiet, silent = socket.socketpair()
    with quiet, silent:
        asyncio.run(story())


@given(pieces=HTTP_ISH, method=st.sampled_from([b"GET", b"HEAD"]))
@settings(max_examples=25, deadline=None)
def test_whatever_comes_back_it_soils_nothing(pieces: list[bytes], method: bytes) -> None:
    async def story() -> None:
        async def script(peer: Peer) -> None:
            if len(backend.peers) == 1:
                await peer.request()
                await peer.send(*pieces)
            else:
                await echo(peer)

        async with Backend(script) as backend:
            pool = pool_for(backend.url)
            port = await talk(pool, method).ended()
            assert port.outcome in ("finish", "fail", "abort")
            assert port.status == 502 if port.outcome == "fail" else 200 <= port.status <= 599
            port = await talk(pool, target=b"/mine").ended()
            assert (port.status, port.body) == (200, b"GET /mine HTTP/1.1\r\nHost: app\r\n\r\n")
            pool.close()

    asyncio.run(story())
