"""Reads a request's body as one JSON object, and trusts nothing about it.

JSON parsers are generous: of two equal keys the last wins, NaN is a number, a
lone surrogate is text, deep nesting ends in a RecursionError. Each of these has
let two readers of one message disagree, or turned a request into a 500. Here
each is a 4xx that says what to send instead.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from starlette.requests import Request

from gateway.errors import BadJson, BodyTooLarge, UnsupportedMediaType
from gateway.web.fields import NONE, Readers, read_query, take

BODY_LIMIT = 16 * 1024
"""Bytes. The largest sensible body (an e-mail, two passwords, a few hundred roles) is well below."""


async def read_fields(request: Request, required: Readers = NONE, optional: Readers = NONE) -> dict[str, Any]:
    """The body's fields, each checked by its reader. An endpoint with a body takes no query."""
    read_query(request)
    _check_media_type(request)
    return take(parse_object(await _read(request)), required=required, optional=optional)


async def read_nothing(request: Request) -> None:
    """For a call that says all by its path: no query, and no body or an empty object."""
    read_query(request)
    if body := await _read(request):
        _check_media_type(request)
        take(parse_object(body))


def _check_media_type(request: Request) -> None:
    """Only `application/json`: a browser sends that to another site after a preflight only."""
    values = request.headers.getlist("content-type")
    media_type, *parameters = [part.strip().lower() for part in values[0].split(";")] if values else [""]
    wrong = set(parameters) - {"", "charset=utf-8", 'charset="utf-8"'}
    if len(values) != 1 or media_type != "application/json" or wrong:
        raise UnsupportedMediaType
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("Send the body without a Content-Encoding.")


async def _read(request: Request) -> bytes:
    """At most BODY_LIMIT bytes. The rest of a longer body stays unread, so the connection must close."""
    too_large = BodyTooLarge(f"Send at most {BODY_LIMIT} bytes.", close=True)
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced[:20]) > BODY_LIMIT:
        raise too_large
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_LIMIT:
            raise too_large
    return bytes(body)


def parse_object(body: bytes) -> dict[str, Any]:
    """JSON text to an object, or BadJson."""
    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadJson from None
    if not isinstance(value, dict):
        raise BadJson
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """RFC 8259 §4 leaves equal names to the reader; readers disagree, so they are refused."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise BadJson("The same key is there twice; send each once.")
    return value


def _no_constant(name: str) -> NoReturn:
    raise BadJson("NaN and Infinity are not JSON.")
