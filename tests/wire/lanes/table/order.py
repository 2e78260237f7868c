"""Several requests on one connection, and what the gateway answers by itself among them."""

from __future__ import annotations

import json

from tests.support.backend import response
from tests.support.lanes import EMAIL, H11, PASSWORD
from tests.wire.lanes.rows import BOTH, WHOLE, Gets, Reads, Reply, Row

H = b" HTTP/1.1\r\nHost: gateway.test\r\n"


def _get(path: bytes, *lines: bytes) -> bytes:
    return b"GET " + path + H + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def _post(path: bytes, body: bytes, *lines: bytes) -> bytes:
    more = b"".join(line + b"\r\n" for line in lines)
    return b"POST " + path + H + b"Content-Length: %d\r\n" % len(body) + more + b"\r\n" + body


def _up(*paths: bytes) -> tuple[Gets, ...]:
    return tuple(Gets(line=b"GET %b HTTP/1.1" % path) for path in paths)


def _ok(*bodies: bytes) -> tuple[Reply, ...]:
    return tuple(Reply((response(body),)) for body in bodies)


JSON = b"Content-Type: application/json"
LOGIN = json.dumps({"email": EMAIL, "password": PASSWORD}).encode()
WRONG = json.dumps({"email": EMAIL, "password": "a wrong password"}).encode()
ME = Reads(status=401, code="not_logged_in")
BAD = b"GET /public/bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"

_PIPELINED = [
    Row(
        name="ten in one piece",
        send=(b"".join(_get(b"/public/%d" % n) for n in range(10)),),
        gets=_up(*(b"/public/%d" % n for n in range(10))),
        replies=_ok(*(b"%d" % n for n in range(10))),
        reads=tuple(Reads(status=200, body=b"%d" % n) for n in range(10)),
    ),
    Row(
        name="bodies in a row",
        send=(b"".join(_post(b"/public/%d" % n, b"GET / HTTP/1.1\r\n\r\n") for n in range(3)),),
        gets=tuple(
            Gets(line=b"POST /public/%d HTTP/1.1" % n, body=b"GET / HTTP/1.1\r\n\r\n") for n in range(3)
        ),
        replies=_ok(b"0", b"1", b"2"),
        reads=tuple(Reads(status=200, body=b"%d" % n) for n in range(3)),
    ),
    Row(
        name="proxied and own answers take turns",
        send=(
            _get(b"/public/1")
            + _get(b"/auth/me")
            + _get(b"/public/2")
            + _post(b"/auth/login", LOGIN, JSON)
            + _get(b"/private")
            + _get(b"/auth/nothing")
            + _get(b"/public/3"),
        ),
        gets=_up(b"/public/1", b"/public/2", b"/public/3"),
        replies=_ok(b"1", b"2", b"3"),
        reads=(
            Reads(status=200, body=b"1"),
            ME,
            Reads(status=200, body=b"2"),
            Reads(status=200, has=(b"cache-control: no-store",)),
            Reads(status=401, code="not_logged_in"),
            Reads(status=404, code="not_found"),
            Reads(status=200, body=b"3"),
        ),
    ),
    Row(
        name="an own answer first, and the rest in pieces",
        send=(_get(b"/auth/me") + _get(b"/public/1")[:20], _get(b"/public/1")[20:] + _get(b"/auth/me")),
        gets=_up(b"/public/1"),
        replies=_ok(b"1"),
        reads=(ME, Reads(status=200, body=b"1"), ME),
    ),
    Row(
        name="a slow answer is waited for",
        send=(_get(b"/public/1") + _get(b"/auth/me") + _get(b"/private"),),
        gets=_up(b"/public/1"),
        replies=(Reply((b"HTTP/1.1 200 OK\r\nContent-", b"Length: 2\r\n\r\n", b"o", b"k")),),
        reads=(Reads(status=200, body=b"ok"), ME, Reads(status=401, code="not_logged_in")),
    ),
    Row(
        name="a bad request hurts none before it, and ends the rest",
        send=(_get(b"/public/1") + _get(b"/auth/me") + BAD + _get(b"/public/2"),),
        gets=_up(b"/public/1"),
        replies=_ok(b"1"),
        reads=(Reads(status=200, body=b"1"), ME, Reads(status=400, code="bad_host")),
        then="close",
        lanes=WHOLE,
    ),
    Row(
        name="a bad first request ends all",
        send=(BAD + _get(b"/public/1") + _get(b"/auth/me"),),
        reads=(Reads(status=400, code="bad_host"),),
        then="close",
        lanes=WHOLE,
    ),
    Row(
        name="nothing is read behind a close",
        send=(_get(b"/public/1", b"Connection: close") + _get(b"/public/2"),),
        gets=_up(b"/public/1"),
        replies=_ok(b"1"),
        reads=(Reads(status=200, body=b"1"),),
        then="close",
    ),
    Row(
        name="nothing is read behind an own answer that closes",
        send=(_get(b"/auth/me", b"Connection: close") + _get(b"/public/2"),),
        reads=(ME,),
        then="close",
    ),
    Row(
        name="nothing is read behind a refused body",
        send=(_post(b"/private", b"x" * 10) + _get(b"/public/2"),),
        reads=(Reads(status=401, code="not_logged_in"),),
        then="close",
        lanes=WHOLE,
    ),
    Row(
        name="a backend's failure in the middle",
        send=(_get(b"/public/1") + _get(b"/public/2") + _get(b"/public/3"),),
        gets=_up(b"/public/1", b"/public/2", b"/public/3"),
        replies=(*_ok(b"1"), Reply((b"garbage\r\n\r\n",), end="close"), *_ok(b"3")),
        reads=(
            Reads(status=200, body=b"1"),
            Reads(status=502, code="upstream_broken"),
            Reads(status=200, body=b"3"),
        ),
    ),
    Row(
        name="an answer that is cut ends the rest",
        send=(_get(b"/public/1") + _get(b"/public/2"),),
        gets=_up(b"/public/1"),
        replies=(Reply((b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf",), end="close"),),
        reads=(Reads(status=200, body=b"half"),),
        then="cut",
    ),
    Row(
        name="HEAD between others",
        send=(b"HEAD /public/1" + H + b"\r\n" + _get(b"/auth/me"),),
        gets=(Gets(line=b"HEAD /public/1 HTTP/1.1"),),
        replies=(Reply((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",)),),
        reads=(Reads(status=200, method="HEAD"), ME),
    ),
    Row(
        name="a blank line between requests is forgiven",
        send=(_get(b"/public/1") + b"\r\n" + _get(b"/public/2"),),
        gets=_up(b"/public/1", b"/public/2"),
        replies=_ok(b"1", b"2"),
        reads=(Reads(status=200, body=b"1"), Reads(status=200, body=b"2")),
        lanes=BOTH - {H11},  # h11 does not forgive it
    ),
]

_OWN = [
    Row(
        name="a login",
        send=(_post(b"/auth/login", LOGIN, JSON),),
        reads=(Reads(status=200, has=(b"cache-control: no-store",), lacks=(b"server", b"connection")),),
    ),
    Row(
        name="a wrong password",
        send=(_post(b"/auth/login", WRONG, JSON),),
        reads=(Reads(status=401, code="invalid_credentials"),),
    ),
    Row(
        name="a login in chunks",
        send=(b"POST /auth/login" + H + JSON + b"\r\nTransfer-Encoding: chunked\r\n\r\n",
              b"%x\r\n" % len(LOGIN) + LOGIN + b"\r\n", b"0\r\nX: y\r\n\r\n"),
        reads=(Reads(status=200),),
    ),
    Row(
        name="a login that waits for the 100",
        send=(_post(b"/auth/login", LOGIN, JSON, b"Expect: 100-continue"),),
        reads=(Reads(status=200),),
        lanes=WHOLE,
    ),
    Row(name="the description", send=(_get(b"/auth/openapi.json"),), reads=(Reads(status=200),)),
    Row(
        name="the wrong method",
        send=(b"DELETE /auth/login" + H + b"\r\n",),
        reads=(Reads(status=405, code="method_not_allowed", has=(b"allow: POST",)),),
    ),
    Row(
        name="no such endpoint",
        send=(_get(b"/auth/../private"), _get(b"/auth/x")),
        reads=(Reads(status=404, code="not_found"), Reads(status=404, code="not_found")),
    ),
    Row(
        name="a spelling of the prefix",
        send=(_get(b"/Auth/me") + _get(b"/%61uth/me") + _get(b"//auth/me"),),
        reads=(Reads(status=404, code="not_found"),) * 3,
    ),
    Row(
        name="HEAD of an endpoint",
        send=(b"HEAD /auth/openapi.json" + H + b"\r\n",),
        reads=(Reads(status=200, method="HEAD"),),
    ),
    Row(
        name="an endpoint on HTTP/1.0",
        send=(b"GET /auth/me HTTP/1.0\r\n\r\n",),
        reads=(ME,),
        then="close",
    ),
]  # fmt: skip

ROWS = [*_PIPELINED, *_OWN]
