"""What the client reads of an answer that is well formed."""

from __future__ import annotations

from tests.support.backend import response
from tests.wire.lanes.rows import WHOLE, Gets, Reads, Reply, Row

GET = b"GET /public HTTP/1.1\r\nHost: gateway.test\r\n\r\n"
GET_10 = b"GET /public HTTP/1.0\r\nHost: gateway.test\r\n\r\n"
HEAD = b"HEAD /public HTTP/1.1\r\nHost: gateway.test\r\n\r\n"
UP = (Gets(line=b"GET /public HTTP/1.1"),)
UP_HEAD = (Gets(line=b"HEAD /public HTTP/1.1"),)
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def _row(name: str, reply: bytes | Reply, reads: Reads, *, send: bytes = GET, **more: object) -> Row:
    reply = reply if isinstance(reply, Reply) else Reply((reply,))
    gets = UP_HEAD if send == HEAD else UP
    return Row(name=name, send=(send,), gets=gets, replies=(reply,), reads=(reads,), **more)  # type: ignore[arg-type]


_BODIES = [
    _row("a length", response(b"hello"), Reads(status=200, has=(b"content-length: 5",), body=b"hello")),
    _row("a length of 0", response(b""), Reads(status=200, has=(b"content-length: 0",), body=b"")),
    _row(
        "a body in pieces",
        Reply((b"HTTP/1.1 200 OK\r\nContent-", b"Length: 6\r\n", b"\r\n", b"hel", b"lo", b"!")),
        Reads(status=200, body=b"hello!"),
    ),
    _row(
        "chunks, framed anew, without extensions",
        Reply((CHUNKS + b"3;x=y\r\nabc\r", b"\n2\r\nde\r\n0;z\r\n\r\n")),
        Reads(status=200, has=(b"transfer-encoding: chunked",), lacks=(b"content-length",), body=b"abcde"),
    ),
    _row("no chunk but the last", CHUNKS + b"0\r\n\r\n", Reads(status=200, body=b"")),
    _row(
        "chunks for a client that knows none",
        CHUNKS + b"3\r\nabc\r\n0\r\n\r\n",
        Reads(status=200, lacks=(b"transfer-encoding", b"trailer"), body=b"abc"),
        send=GET_10,
        then="close",
        lanes=WHOLE,
    ),
    _row(
        "until the end of the connection",
        Reply((b"HTTP/1.1 200 OK\r\n\r\nsome", b"thing"), end="close"),
        Reads(status=200, has=(b"transfer-encoding: chunked",), body=b"something"),
    ),
    _row(
        "until the end, and there is nothing",
        Reply((b"HTTP/1.1 200 OK\r\n\r\n",), end="close"),
        Reads(status=200, body=b""),
    ),
    _row(
        "until the end, for a client of HTTP/1.0",
        Reply((b"HTTP/1.0 200 OK\r\n\r\nall",), end="close"),
        Reads(status=200, lacks=(b"transfer-encoding",), body=b"all"),
        send=GET_10,
        then="close",
        lanes=WHOLE,
    ),
    _row(
        "a backend of HTTP/1.0",
        Reply((b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",), end="close"),
        Reads(status=200, body=b"ok"),
    ),
    _row(
        "a backend that closes does not close our client",
        Reply((response(b"ok", (b"Connection", b"close")),), end="close"),
        Reads(status=200, lacks=(b"connection",), body=b"ok"),
    ),
    _row("HEAD with a length", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
         Reads(status=200, has=(b"content-length: 500",), method="HEAD"), send=HEAD),
    _row("HEAD of chunks", CHUNKS, Reads(status=200, method="HEAD"), send=HEAD),
    _row("HEAD of unknown length", b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n",
         Reads(status=200, has=(b"x: y",), method="HEAD"), send=HEAD),
    _row("HEAD that is answered with 304", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
         Reads(status=304, has=(b"etag: x",), method="HEAD"), send=HEAD),
    _row("204", b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
         Reads(status=204, has=(b"x: y",), lacks=(b"content-length", b"transfer-encoding"))),
    _row("204 with a length, which it may not have (RFC 9110 8.6)",
         b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
         Reads(status=204, lacks=(b"content-length", b"transfer-encoding"))),
    _row("304", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
         Reads(status=304, has=(b"etag: x",), lacks=(b"transfer-encoding",))),
    _row("304 with the length of another answer", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
         Reads(status=304, lacks=(b"transfer-encoding",))),
    _row("205 has a length", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", Reads(status=205)),
]  # fmt: skip

_LINES = [
    _row(
        "lines stay what and where they are",
        response(b"ok", (b"Set-Cookie", b"a=1"), (b"X-Odd", b"caf\xe9\xff"), (b"Set-Cookie", b"b=2"),
                 (b"Date", b"then"), (b"Server", b"theirs")),
        Reads(status=200, has=(b"set-cookie: a=1", b"set-cookie: b=2", b"x-odd: caf\xe9\xff", b"date: then",
                               b"server: theirs")),
    ),
    _row("no Server of ours", response(b"ok"), Reads(status=200, lacks=(b"server", b"via", b"connection"))),
    _row("names keep their case", response(b"ok", (b"X-MiXeD", b"y"), (b"ETag", b"z")),
         Reads(status=200, exact=(b"X-MiXeD: y", b"ETag: z", b"Content-Length: 2")), lanes=WHOLE),
    _row("the reason", response(b"ok", status=b"200 Very Well"),
         Reads(status=200, reason=b"Very Well"), lanes=WHOLE),
    _row("a reason of 8-bit bytes", response(b"ok", status=b"200 Tr\xe8s bien"),
         Reads(status=200, reason=b"Tr\xe8s bien"), lanes=WHOLE),
    _row("no reason", response(b"ok", status=b"200 "), Reads(status=200, reason=b""), lanes=WHOLE),
    _row("a status that nobody knows", response(b"ok", status=b"299 Odd"), Reads(status=299, body=b"ok")),
    _row("an error of the backend's own", response(b"no", status=b"503 Busy"), Reads(status=503, body=b"no")),
    _row(
        "the answer: what is between two neighbours stays there",
        response(b"ok", (b"Connection", b"keep-alive, X-Hop"), (b"X-Hop", b"1"), (b"Keep-Alive", b"max=5"),
                 (b"Upgrade", b"h2c"), (b"Proxy-Connection", b"x"), (b"X-End", b"1")),
        Reads(status=200, has=(b"x-end: 1",),
              lacks=(b"connection", b"x-hop", b"keep-alive", b"upgrade", b"proxy-connection")),
    ),
    _row("nobody speaks for the gateway", response(b"ok", (b"X-Gateway-Error", b"forbidden")),
         Reads(status=200, lacks=(b"x-gateway-error",))),
    _row("the client's wish to close", response(b"ok"), Reads(status=200, has=(b"connection: close",)),
         send=GET[:-2] + b"Connection: close\r\n\r\n", then="close"),
]  # fmt: skip

_MORE = [
    _row(
        "trailers",
        CHUNKS + b"2\r\nok\r\n0\r\nX-Sum: 1\r\nGrpc-Status: 0\r\n\r\n",
        Reads(status=200, body=b"ok", trailers=b"X-Sum: 1\r\nGrpc-Status: 0\r\n"),
        lanes=WHOLE,
    ),
    _row(
        "trailers that would frame or name something are no trailers (RFC 9110 6.5.1)",
        CHUNKS + b"2\r\nok\r\n0\r\nContent-Length: 7\r\nTransfer-Encoding: x\r\nX-Sum: 1\r\n\r\n",
        Reads(status=200, body=b"ok", trailers=b"X-Sum: 1\r\n"),
        lanes=WHOLE,
    ),
    _row(
        "trailers are not for HTTP/1.0",
        CHUNKS + b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n",
        Reads(status=200, body=b"ok"),
        send=GET_10,
        then="close",
        lanes=WHOLE,
    ),
    _row(
        "103 passes",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + response(b"ok"),
        Reads(status=200, body=b"ok", interim=(103,)),
        lanes=WHOLE,
    ),
    _row(
        "two 103 pass, in pieces",
        Reply(
            (
                b"HTTP/1.1 103 \r\nLink: </x>\r",
                b"\n\r\nHTTP/1.1 103 Early Hints\r\n\r",
                b"\n" + response(b"ok"),
            )
        ),
        Reads(status=200, body=b"ok", interim=(103, 103)),
        lanes=WHOLE,
    ),
    _row(
        "103 is not for HTTP/1.0 (RFC 9110 15.2)",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + response(b"ok"),
        Reads(status=200, body=b"ok"),
        send=GET_10,
        then="close",
    ),
]

ROWS = [*_BODIES, *_LINES, *_MORE]
