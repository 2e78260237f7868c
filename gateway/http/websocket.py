"""The opening of a WebSocket, and of every other `Upgrade` (RFC 9110 §7.8, RFC 6455 §4).

Pure: it reads header lines and says what they ask for. Whether that is granted is the
gate's business, and what is tunnelled afterwards is nobody's.

Browsers can't set `Authorization` on a WebSocket, but they can offer subprotocols. So
`gateway.bearer.<token>` among those counts as the credential. It is for the gateway
alone and is taken out before a backend sees it.
"""

from __future__ import annotations

import re

from gateway.errors import BadRequest, DuplicateCredential
from gateway.http.head import Headers

WEBSOCKET = b"websocket"
BEARER = b"gateway.bearer."
"""What the subprotocol begins with that carries an access token; its case doesn't matter."""

_PROTOCOL = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:/[!#$%&'*+.^_`|~0-9A-Za-z-]+)?")
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
"""16 bytes in base64."""
_BLANKS = b" \t"


def read_upgrade(headers: Headers) -> bytes | None:
    """The one protocol that the client asks for, in small letters, or None.

    None also where the wish is not plain: several Upgrade lines, several protocols, an
    odd one, or no `upgrade` in `Connection`. A server may ignore any of them (RFC 9110
    §7.8), and one that two readers take in two ways is best ignored.
    """
    wishes = [value.strip(_BLANKS) for name, value in headers if name.lower() == b"upgrade"]
    if len(wishes) != 1 or not _PROTOCOL.fullmatch(wishes[0]):
        return None
    return wishes[0].lower() if b"upgrade" in map(bytes.lower, _items(headers, b"connection")) else None


def check_handshake(method: str, http_version: str, headers: Headers) -> None:
    """Raises BadRequest unless this is how a WebSocket begins (RFC 6455 §4.2.1)."""
    if method != "GET" or http_version != "1.1":
        raise BadRequest("A WebSocket begins with GET over HTTP/1.1.", close=True)
    if not _KEY.fullmatch(_only(headers, b"sec-websocket-key")):
        raise BadRequest("Send one Sec-WebSocket-Key of 16 bytes in base64.", close=True)
    if _only(headers, b"sec-websocket-version") != b"13":
        raise BadRequest("Send `Sec-WebSocket-Version: 13`.", close=True)


def take_bearer(headers: Headers) -> tuple[bytes | None, Headers]:
    """The token that is offered as a subprotocol, and the headers without it.

    Lines that don't hold it stay as they are; one that held nothing else is gone.
    Raises DuplicateCredential if there are two.
    """
    tokens: list[bytes] = []
    left: Headers = []
    for line in headers:
        offers = _split(line[1]) if line[0].lower() == _OFFERS else []
        others = [offer for offer in offers if not _is_bearer(offer)]
        if len(others) == len(offers):
            left.append(line)
            continue
        tokens += [offer[len(BEARER) :] for offer in offers if _is_bearer(offer)]
        if others:
            left.append((line[0], b", ".join(others)))
    if len(tokens) > 1:
        raise DuplicateCredential("Offer one gateway.bearer subprotocol.", close=True)
    return (tokens[0] if tokens else None), left


def lone_bearer(headers: Headers) -> bytes | None:
    """The subprotocol with the token, as it was sent, if the client offered no other one.

    A browser closes a WebSocket if it offered something and the answer selects nothing,
    but the backend can't select what it never saw.
    """
    offers = _items(headers, _OFFERS)
    return offers[0] if len(offers) == 1 and _is_bearer(offers[0]) else None


_OFFERS = b"sec-websocket-protocol"


def _is_bearer(offer: bytes) -> bool:
    return offer[: len(BEARER)].lower() == BEARER


def _items(headers: Headers, name: bytes) -> list[bytes]:
    """The items of a list that may stand on several lines (RFC 9110 §5.6.1)."""
    return [item for each, value in headers if each.lower() == name for item in _split(value)]


def _split(value: bytes) -> list[bytes]:
    return [item for item in map(_bare, value.split(b",")) if item]


def _bare(item: bytes) -> bytes:
    return item.strip(_BLANKS)


def _only(headers: Headers, name: bytes) -> bytes:
    """The value of a header that stands there once; else nothing."""
    values = [value.strip(_BLANKS) for each, value in headers if each.lower() == name]
    return values[0] if len(values) == 1 else b""
