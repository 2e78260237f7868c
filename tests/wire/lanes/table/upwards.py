"""What the backend gets: lines, heads and bodies."""

from __future__ import annotations

from tests.support.lanes import ASGI
from tests.wire.lanes.rows import BOTH, WHOLE, Gets, Reads, Row

H = b" HTTP/1.1\r\nHost: gateway.test\r\n"
OK = (Reads(status=200, body=b"ok"),)

_LINES = [
    Row(
        name="a plain GET",
        send=(b"GET /public" + H + b"Accept: */*\r\n\r\n",),
        gets=(
            Gets(
                line=b"GET /public HTTP/1.1",
                has=(
                    b"accept: */*",
                    b"x-forwarded-proto: http",
                    b"x-forwarded-host: gateway.test",
                    b"x-forwarded-for: 127.0.0.1",
                ),
                lacks=(b"content-length", b"transfer-encoding", b"connection", b"x-user-id"),
            ),
        ),
        reads=OK,
    ),
    Row(
        name="the target's bytes",
        send=(b"GET /public/a%2fb//c;d=(e)?x=%00&y=http://z/&&" + H + b"\r\n",),
        gets=(Gets(line=b"GET /public/a%2fb//c;d=(e)?x=%00&y=http://z/&& HTTP/1.1"),),
        reads=OK,
    ),
    Row(
        name="an empty query keeps its question mark",
        send=(b"GET /public?" + H + b"\r\n",),
        gets=(Gets(line=b"GET /public? HTTP/1.1"),),
        reads=OK,
        lanes=WHOLE,
    ),
    Row(
        name="two question marks",
        send=(b"GET /public??a" + H + b"\r\n",),
        gets=(Gets(line=b"GET /public??a HTTP/1.1"),),
        reads=OK,
    ),
    *(
        Row(
            name=f"the method {method}",
            send=(method.encode() + b" /public" + H + b"\r\n",),
            gets=(Gets(line=method.encode() + b" /public HTTP/1.1"),),
            reads=OK,
        )
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT")
    ),
    Row(
        name="header values are bytes, and double lines stay double",
        send=(b"GET /public" + H + b"X-A: caf\xe9\xff\r\nX-B:1\r\nx-b:\t2\r\nX-C:\r\n\r\n",),
        gets=(Gets(line=b"GET /public HTTP/1.1", has=(b"x-a: caf\xe9\xff", b"x-b: 1", b"x-b: 2", b"x-c: ")),),
        reads=OK,
    ),
    Row(
        name="white space around a value is none of it",
        send=(b"GET /public" + H + b"X-A:  \t 1 2 \t \r\n\r\n",),
        gets=(Gets(line=b"GET /public HTTP/1.1", has=(b"x-a: 1 2",)),),
        reads=OK,
        lanes=WHOLE,
    ),
    Row(
        name="what is between two neighbours stays there",
        send=(
            b"GET /public" + H + b"Connection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
            b"Proxy-Connection: x\r\nProxy-Authorization: x\r\nTrailer: x\r\nUpgrade: x\r\nX-End: 1\r\n\r\n",
        ),
        gets=(
            Gets(
                line=b"GET /public HTTP/1.1",
                has=(b"x-end: 1",),
                lacks=(
                    b"connection",
                    b"x-hop",
                    b"keep-alive",
                    b"te",
                    b"proxy-connection",
                    b"proxy-authorization",
                    b"trailer",
                    b"upgrade",
                ),
            ),
        ),
        reads=OK,
        then="close",
    ),
    Row(
        name="nobody names themselves",
        send=(
            b"GET /public" + H + b"X-User-Id: 1\r\nX_User_Id: 1\r\nx.user.admin: true\r\nRemote-User: x\r\n"
            b"X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nProxy: x\r\nX-Original-URL: /admin\r\n"
            b"X-HTTP-Method-Override: DELETE\r\nX-Request-Id: mine-mine-mine\r\n\r\n",
        ),
        gets=(
            Gets(
                line=b"GET /public HTTP/1.1",
                has=(b"x-forwarded-for: 127.0.0.1",),
                lacks=(
                    b"x-user-id",
                    b"x_user_id",
                    b"x.user.admin",
                    b"remote-user",
                    b"forwarded",
                    b"proxy",
                    b"x-original-url",
                    b"x-http-method-override",
                ),
            ),
        ),
        reads=OK,
    ),
    Row(
        name="HTTP/1.0 without a Host, and its one answer",
        send=(b"GET /public HTTP/1.0\r\n\r\n",),
        gets=(Gets(line=b"GET /public HTTP/1.1", lacks=(b"x-forwarded-host",)),),
        reads=OK,
        then="close",
    ),
    Row(
        name="HTTP/1.0 that would like to go on",
        send=(b"GET /public HTTP/1.0\r\nHost: gateway.test\r\nConnection: keep-alive\r\n\r\n",),
        gets=(Gets(line=b"GET /public HTTP/1.1", lacks=(b"connection",)),),
        reads=OK,
        then="close",
        lanes=WHOLE,  # other servers may go on
    ),
]


def _post(*lines: bytes, body: bytes = b"", target: bytes = b"/public") -> bytes:
    return b"POST " + target + H + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


_CHUNKED = b"Transfer-Encoding: chunked"
_POST = b"POST /public HTTP/1.1"

_BODIES = [
    Row(
        name="a body with its length",
        send=(_post(b"Content-Length: 5", body=b"hello"),),
        gets=(Gets(line=_POST, has=(b"content-length: 5",), lacks=(b"transfer-encoding",), body=b"hello"),),
        reads=OK,
    ),
    Row(
        name="a body of any bytes in pieces",
        send=(_post(b"Content-Length: 8"), b"\x00\r\n\r", b"\n0\r\n"),
        gets=(Gets(line=_POST, body=b"\x00\r\n\r\n0\r\n"),),
        reads=OK,
    ),
    Row(
        name="a length of 0 is passed on",
        send=(_post(b"Content-Length: 0"),),
        gets=(Gets(line=_POST, has=(b"content-length: 0",)),),
        reads=OK,
    ),
    Row(
        name="GET with a body",
        send=(b"GET /public" + H + b"Content-Length: 2\r\n\r\nhi",),
        gets=(Gets(line=b"GET /public HTTP/1.1", has=(b"content-length: 2",), body=b"hi"),),
        reads=OK,
    ),
    Row(
        name="chunks are framed anew, without their extensions",
        send=(_post(_CHUNKED, body=b'3;x=y\r\nabc\r\n0000A;q="z"\r\n0123456789\r\n0;last\r\n\r\n'),),
        gets=(
            Gets(
                line=_POST,
                has=(b"transfer-encoding: chunked",),
                lacks=(b"content-length",),
                body=b"abc0123456789",
            ),
        ),
        reads=OK,
    ),
    Row(
        name="chunks cut anywhere",
        send=(_post(_CHUNKED), b"5", b"\r\nhel", b"lo\r", b"\n6\r\n world", b"\r\n0\r\n", b"\r\n"),
        gets=(Gets(line=_POST, body=b"hello world"),),
        reads=OK,
    ),
    Row(
        name="a body that is no chunk but the last",
        send=(_post(_CHUNKED, body=b"0\r\n\r\n"),),
        gets=(Gets(line=_POST, has=(b"transfer-encoding: chunked",)),),
        reads=OK,
    ),
    Row(
        name="a request's trailers go no further",
        send=(_post(_CHUNKED, b"Trailer: X-T", body=b"1\r\na\r\n0\r\nX-T: 1\r\nX-User-Id: 1\r\n\r\n"),),
        gets=(Gets(line=_POST, lacks=(b"trailer", b"x-t", b"x-user-id"), body=b"a"),),
        reads=OK,
        lanes=BOTH - {ASGI},  # uvicorn adds trailers to the headers before the application sees them
    ),
    Row(
        name="HTTP/1.0 with a body",
        send=(b"POST /public HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi",),
        gets=(Gets(line=_POST, has=(b"content-length: 2",), body=b"hi"),),
        reads=OK,
        then="close",
    ),
    Row(
        name="a body that did not wait for the 100",
        send=(_post(b"Expect: 100-continue", b"Content-Length: 2", body=b"hi"),),
        gets=(Gets(line=_POST, lacks=(b"expect",), body=b"hi"),),
        reads=OK,
        lanes=WHOLE,  # h11 says 100 nevertheless, and so may others
    ),
    Row(
        name="an Expect without a body is answered without a 100",
        send=(b"GET /public" + H + b"Expect: 100-continue\r\n\r\n",),
        gets=(Gets(line=b"GET /public HTTP/1.1", lacks=(b"expect",)),),
        reads=OK,
    ),
]

_REFUSED = [
    Row(
        name="an announced body over the limit",
        send=(_post(b"Content-Length: 1048577", body=b"a" * 1000),),
        reads=(Reads(status=413, code="body_too_large"),),
        then="close",
    ),
    Row(
        name="a body at the limit",
        send=(_post(b"Content-Length: 1048576", body=b"a" * 1_048_576),),
        gets=(Gets(line=_POST, body=b"a" * 1_048_576),),
        reads=OK,
    ),
    Row(
        name="a refusal leaves a connection without a body alone",
        send=(b"GET /private" + H + b"\r\n",),
        reads=(Reads(status=401, code="not_logged_in", has=(b'www-authenticate: Bearer realm="gateway"',)),),
    ),
    Row(
        name="a refusal with an unread body closes",
        send=(_post(b"Content-Length: 5", body=b"hello", target=b"/private"),),
        reads=(Reads(status=401, code="not_logged_in"),),
        then="close",
        lanes=WHOLE,
    ),
    Row(
        name="a refusal of a body that is still to come closes",
        send=(_post(b"Content-Length: 5", target=b"/private"),),
        reads=(Reads(status=401, code="not_logged_in"),),
        then="close",
    ),
    Row(
        name="a refusal of chunks closes",
        send=(_post(_CHUNKED, target=b"/private", body=b"5\r\nhello\r\n0\r\n\r\n"),),
        reads=(Reads(status=401, code="not_logged_in"),),
        then="close",
        lanes=WHOLE,
    ),
    Row(
        name="a refusal does not say 100",
        send=(_post(b"Expect: 100-continue", b"Content-Length: 5", target=b"/private"),),
        reads=(Reads(status=401, code="not_logged_in"),),
        then="close",
    ),
    Row(
        name="a refusal of HEAD has no body",
        send=(b"HEAD /private" + H + b"\r\n",),
        reads=(Reads(status=401, code="not_logged_in", method="HEAD"),),
    ),
    Row(
        name="a refusal on HTTP/1.0",
        send=(b"GET /private HTTP/1.0\r\n\r\n",),
        reads=(Reads(status=401, code="not_logged_in"),),
        then="close",
    ),
    Row(
        name="a token that does not hold",
        send=(b"GET /private" + H + b"Authorization: Bearer x.y.z\r\n\r\n",),
        reads=(Reads(status=401, code="invalid_token"),),
    ),
    Row(
        name="two credentials",
        send=(b"GET /public" + H + b"Authorization: Bearer x\r\nAuthorization: Bearer y\r\n\r\n",),
        reads=(Reads(status=400, code="duplicate_credential"),),
    ),
]

ROWS = [*_LINES, *_BODIES, *_REFUSED]
