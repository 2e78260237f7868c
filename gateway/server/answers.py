"""The heads of answers, and whole answers the gateway makes by itself, as bytes."""

from __future__ import annotations

import http
from functools import lru_cache

from gateway.errors import GatewayError
from gateway.http.cors import Lines
from gateway.http.problem import render
from gateway.server.terms import http_date

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE_LINE = b"connection: close\r\n"


@lru_cache(maxsize=1024)
def status_line(status: int) -> bytes:
    """With the phrase of RFC 9110, if it has one, without a line end. ValueError unless it is final."""
    if not 200 <= status <= 599:
        raise ValueError(f"{status} is no status of an answer")
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}".encode()


def problem(
    error: GatewayError,
    *,
    request_id: str,
    token_sent: bool = False,
    headless: bool = False,
    keep_alive: bool = False,
    cors: Lines = (),
) -> tuple[bytes, int]:
    """A whole answer, and the length of its body. `headless` leaves the body out, for HEAD."""
    status, headers, body = render(error, request_id=request_id, token_sent=token_sent)
    lines = [line for line in headers if line[0] != b"connection"]
    if headless:
        body = b""
    return _head(status, (*lines, *cors), keep_alive) + body, len(body)


def preflight(cors: Lines, *, request_id: str, keep_alive: bool) -> bytes:
    """A browser's question is answered by the header alone."""
    return _head(204, (*cors, (b"x-request-id", request_id.encode())), keep_alive)


def _head(status: int, lines: Lines, keep_alive: bool) -> bytes:
    end = b"" if keep_alive else CLOSE_LINE
    beginning = [status_line(status), *(b"%b: %b" % line for line in lines), b"date: " + http_date()]
    return b"\r\n".join([*beginning, end + b"\r\n"])
