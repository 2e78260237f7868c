"""Facts of a head that must have exactly one meaning: where its lines end, its Host and its body's length.

`gateway run` refuses worse on the wire already; the same rules stand here so
that the gateway is as strict behind any other ASGI server.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from gateway.errors import BadFraming, BadHost, BadTarget, NotImplementedHere
from gateway.http.head import Headers

MAX_HOST = 261
"""Bytes: a name of 255 and a port. Nothing longer is a host."""
CHUNKED = None
"""A body whose length is not known beforehand."""


class Framing(NamedTuple):
    """What the head says of where the request goes and where it ends."""

    host: bytes
    """The one Host header; b"" for an HTTP/1.0 request without it."""
    body: int | None
    """Bytes of the body: 0 for none, or CHUNKED."""
    announced: bool
    """There was a Content-Length, were it 0."""
    upgrade: bool = False
    """There was an Upgrade that `Connection` names: else it is none (RFC 9110 §7.8)."""


def check_lines(method: str, target: bytes, headers: Headers) -> None:
    """Raises for what would be more than one line, or another one, once it is written as HTTP/1.1.

    In HTTP/2 nothing ends a line, and servers have handed on CR and LF in names, values and paths: who
    writes those down again makes headers and whole requests of them (CVE-2025-57804).
    """
    if not _METHOD.fullmatch(method):
        raise NotImplementedHere("The gateway does not know this method.", close=True)
    if not _TARGET.fullmatch(target):
        raise BadTarget(close=True)
    if not all(map(_NAME.fullmatch, [name for name, _ in headers])):
        raise BadFraming("The name of a header is none.", close=True)
    if _LINE_ENDS.search(b"".join([value for _, value in headers])):
        raise BadFraming("A header holds a line end.", close=True)


def read_framing(headers: Headers, *, http_version: str) -> Framing:
    """One pass over the head. Raises BadHost (RFC 9112 §3.2) and BadFraming (§6.3)."""
    hosts: list[bytes] = []
    lengths: list[bytes] = []
    codings: list[bytes] = []
    upgrade = option = False
    for name, value in headers:
        # The length comes first because it is cheaper than folding every name of every request.
        size = len(name)
        if size == 4 and name.lower() == b"host":
            hosts.append(value)
        elif size == 14 and name.lower() == b"content-length":
            lengths.append(value)
        elif size == 17 and name.lower() == b"transfer-encoding":
            codings.append(value)
        elif size == 7 and name.lower() == b"upgrade":
            upgrade = True
        elif size == 10 and name.lower() == b"connection":
            option = option or b"upgrade" in map(bytes.strip, value.lower().split(b","))
    body = body_length(lengths, codings, http_version)
    return Framing(_host(hosts, http_version), body, bool(lengths), upgrade and option)


def body_length(lengths: list[bytes], codings: list[bytes], http_version: str) -> int | None:
    """From the values of Content-Length and Transfer-Encoding: bytes, or CHUNKED. Raises BadFraming."""
    if codings:
        _check_chunked(codings, lengths, http_version)
        return CHUNKED
    return _length(lengths) if lengths else 0


def _host(hosts: list[bytes], http_version: str) -> bytes:
    if not hosts and http_version == "1.0":
        return b""
    if len(hosts) != 1 or not valid_host(hosts[0]):
        raise BadHost(close=True)
    return hosts[0]


def _length(lengths: list[bytes]) -> int:
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise BadFraming("Send one Content-Length of decimal digits.", close=True)
    return int(lengths[0])


def valid_host(value: bytes) -> bool:
    """Whether `value` is uri-host [":" port] of RFC 3986 §3.2.2: a name, an IPv4 or a bracketed IPv6."""
    return len(value) <= MAX_HOST and _matches(value)  # what is remembered is bounded in length, too


@lru_cache(maxsize=1024)
def _matches(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def _check_chunked(codings: list[bytes], lengths: list[bytes], http_version: str) -> None:
    """Content-Length beside Transfer-Encoding is how requests are smuggled (RFC 9112 §6.1)."""
    if lengths or len(codings) > 1 or codings[0].strip().lower() != b"chunked" or http_version == "1.0":
        sentence = "Send either a Content-Length, or `Transfer-Encoding: chunked` on HTTP/1.1."
        raise BadFraming(sentence, close=True)


_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
"""A `get` is another method to the rules, and the same to some backends."""
_TARGET = re.compile(rb'/[!"$-~]*')
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LINE_ENDS = re.compile(rb"[\r\n\0]")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2}){1,255})(?::[0-9]{0,5})?"
)
