"""What the client reads when the backend does not answer as it should."""

from __future__ import annotations

from tests.support.backend import response
from tests.wire.lanes.rows import Gets, Reads, Reply, Row

GET = b"GET /public HTTP/1.1\r\nHost: gateway.test\r\n\r\n"
HASTY = b"GET /hasty HTTP/1.1\r\nHost: gateway.test\r\n\r\n"
HEAD = b"HEAD /public HTTP/1.1\r\nHost: gateway.test\r\n\r\n"
UP = (Gets(line=b"GET /public HTTP/1.1"),)
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
BROKEN = Reads(status=502, code="upstream_broken")
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def _row(name: str, reply: bytes | Reply, reads: Reads, *, send: bytes = GET, **more: object) -> Row:
    reply = reply if isinstance(reply, Reply) else Reply((reply,))
    gets = (Gets(line=send.partition(b"\r\n")[0]),)
    return Row(name=name, send=(send,), gets=gets, replies=(reply,), reads=(reads,), **more)  # type: ignore[arg-type]


_GARBAGE = {
    "nothing that looks like HTTP": b"hello, world\r\n\r\n",
    "a TLS alert": b"\x15\x03\x01\x00\x02\x02\x16",
    "a request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "a status above 599": b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nok",
    "a status below 100": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    "a status of letters": b"HTTP/1.1 2xx OK\r\nContent-Length: 2\r\n\r\nok",
    "a switch nobody asked for": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "a list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok!",
    "a length below zero": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "a length with a plus": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "a length in hexadecimal": b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
    "an empty length": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
    "a length past 64 bits": b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok",
    "a length and chunks": CHUNKS[:-2] + b"Content-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a length before chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nok\r\n0\r\n\r\n",
    "gzip, chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n",
    "identity": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
    "xchunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a NUL in the reason": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 2\r\n\r\nok",
    "a bare CR in the reason": b"HTTP/1.1 200 OK\rX: y\r\nContent-Length: 2\r\n\r\nok",
    "a bare LF in the reason": b"HTTP/1.1 200 O\nK\r\nContent-Length: 2\r\n\r\nok",
    "an escape in a line": b"HTTP/1.1 200 OK\r\nX: \x1b[31m\r\nContent-Length: 2\r\n\r\nok",
    "a length of other digits": b"HTTP/1.1 200 OK\r\nContent-Length: \xd9\xa3\r\n\r\nok!",
    "a length with an underscore": b"HTTP/1.1 200 OK\r\nContent-Length: 0_2\r\n\r\nok",
    "a length below a folded line": b"HTTP/1.1 200 OK\r\nX: a\r\n Content-Length: 2\r\n\r\nok",
    "a blank line before the answer": b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "a bare LF before the answer": b"\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "two CR before the answer": b"\r\rHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "RTSP": b"RTSP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "two spaces before the status": b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok",
    "a blank line first, and another": b"\r\n\r\n\r\nhello",
    "a folded line": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a line": b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok",
    "a bare CR in a line": b"HTTP/1.1 200 OK\r\nX: a\rX-Y: b\r\nContent-Length: 2\r\n\r\nok",
    "a bare LF": b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 2\r\n\r\nok",
    "only bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "a space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    "a line without a colon": b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 2\r\n\r\nok",
    "a line without a name": b"HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 2\r\n\r\nok",
    "a name with a space": b"HTTP/1.1 200 OK\r\nX Y: z\r\nContent-Length: 2\r\n\r\nok",
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"a" * 4000 + b"\r\n" + b"X: y\r\n" * 20_000,
    "an endless line": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
    "an endless status line": b"HTTP/1.1 200 " + b"y" * 200_000,
    "a head of too many lines": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"Content-Length: 2\r\n\r\nok",
    "interim answers without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    "an interim answer of garbage": b"HTTP/1.1 103 Early Hints\r\nX: \x00\r\n\r\n",
}
_CUT_HEAD = {
    "a head that breaks off": b"HTTP/1.1 200 OK\r\nContent-Le",
    "a status line that breaks off": b"HTTP/1.",
}
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
_GARBLED = [
    *(_row(name, Reply((raw,), end="hang"), BROKEN) for name, raw in _GARBAGE.items()),
    *(
        _row(f"{name}, {end}", Reply((raw,), end=end), BROKEN)
        for name, raw in _CUT_HEAD.items()
        for end in ("close", "reset")
    ),
    _row("only an interim answer", Reply((_INTERIM,), end="close"), BROKEN),
    _row("a close instead of an answer", Reply((), end="close"), BROKEN),
    _row("a reset instead of an answer", Reply((), end="reset"), BROKEN),
]  # fmt: skip

_LATE = Reads(status=504, code="upstream_timeout")
_SLOW = [
    _row("no answer at all", Reply((), end="hang"), _LATE, send=HASTY),
    _row("half a head, and no more", Reply((b"HTTP/1.1 200 OK\r\nX:",), end="hang"), _LATE, send=HASTY),
    _row("only interim answers", Reply((_INTERIM,), end="hang"), _LATE, send=HASTY),
    _row(
        "half a body, and no more",
        Reply((b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf",), end="hang"),
        Reads(status=200, body=b"half"),
        send=HASTY,
        then="cut",
    ),
]  # fmt: skip

_TORN = [
    *(
        _row(f"{name}: {end}", Reply((raw,), end=end), Reads(status=200, body=b"half"), then="cut")
        for name, raw in {
            "a length that is not reached": b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf",
            "chunks without the last": CHUNKS + b"4\r\nhalf\r\n",
            "half a chunk": CHUNKS + b"8\r\nhalf",
            "the last chunk without its end": CHUNKS + b"4\r\nhalf\r\n0\r\n",
        }.items()
        for end in ("close", "reset")
    ),
    _row("a reset is no end of a body", Reply((b"HTTP/1.1 200 OK\r\n\r\nhalf",), end="reset"),
         Reads(status=200), then="cut"),
    *(
        _row(name, Reply((CHUNKS + b"4\r\nhalf\r\n", bad), end="hang"), Reads(status=200), then="cut")
        for name, bad in {
            "a size that is no number": b"x\r\nabc\r\n0\r\n\r\n",
            "a size with 0x": b"0x3\r\nabc\r\n0\r\n\r\n",
            "a size below zero": b"-3\r\nabc\r\n0\r\n\r\n",
            "a size past 64 bits": b"10000000000000003\r\nabc\r\n0\r\n\r\n",
            "a chunk longer than its size": b"3\r\nabcd\r\n0\r\n\r\n",
            "a bare LF behind a size": b"3\nabc\r\n0\r\n\r\n",
            "a bare LF behind a chunk": b"3\r\nabc\n0\r\n\r\n",
            "no line end behind a chunk": b"3\r\nabc0\r\n\r\n",
            "an extension without end": b"3;" + b"x" * 200_000,
            "trailers without end": b"0\r\n" + b"X: y\r\n" * 40_000,
            "a trailer that is none": b"0\r\nX\r\n\r\n",
            "NUL in a trailer": b"0\r\nX: \x00\r\n\r\n",
        }.items()
    ),
]  # fmt: skip

_TOO_MUCH = [
    _row("a second answer at once", response(b"ok") + EVIL, Reads(status=200, body=b"ok")),
    _row("a second answer a moment later", Reply((response(b"ok"), EVIL)), Reads(status=200, body=b"ok")),
    _row("more than the length", response(b"ok") + b"!!", Reads(status=200, body=b"ok")),
    _row("bytes behind the last chunk", CHUNKS + b"2\r\nok\r\n0\r\n\r\nevil", Reads(status=200, body=b"ok")),
    _row("blank lines behind an answer", response(b"ok") + b"\r\n\r\n", Reads(status=200, body=b"ok")),
    _row("204 with a body", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", Reads(status=204)),
    _row("204 with chunks", b"HTTP/1.1 204 No Content\r\n\r\n4\r\nevil\r\n0\r\n\r\n", Reads(status=204)),
    _row("304 with a body", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil", Reads(status=304)),
    _row("HEAD with a body", EVIL, Reads(status=200, method="HEAD"), send=HEAD),
    _row("HEAD with chunks", CHUNKS + b"4\r\nevil\r\n0\r\n\r\n", Reads(status=200, method="HEAD"), send=HEAD),
    _row("HEAD with a body a moment later", Reply((EVIL[:-4], b"evil")),
         Reads(status=200, method="HEAD"), send=HEAD),
    _row("an interim answer behind the answer", response(b"ok") + b"HTTP/1.1 103 Early Hints\r\n\r\n",
         Reads(status=200, body=b"ok")),
]  # fmt: skip

ROWS = [*_GARBLED, *_SLOW, *_TORN, *_TOO_MUCH]
