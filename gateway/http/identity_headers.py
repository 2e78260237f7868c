"""What the backend is told about the caller, and why it can believe it.

A backend trusts `X-User-Id` because only the gateway can have written it. That
holds if every header a backend could mistake for it is gone first, and backends
are generous: CGI and WSGI turn `X-User_Id`, `X.User.Id` and `x-user-id` into one
variable, and proxies have been caught out by each of these in turn (Traefik
CVE-2026-33433, CVE-2026-54763; oauth2-proxy CVE-2025-64484). So names are
compared by their letters and digits alone (`fold`), and the order is fixed:

1. read `Connection`, so that it can't later name a header of ours (CVE-2024-45410);
2. drop hop-by-hop headers, and those that `Connection` names (RFC 9110 §7.6.1);
3. drop everything that folds to a name the gateway sets, or to an identity name
   of *any* preset, or begins `xuser`, on public routes too (Caddy CVE-2026-30851);
4. set ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from urllib.parse import quote_from_bytes

from gateway.http.head import Headers
from gateway.identity.principal import Principal

IdentityLines = Callable[[Principal], bytes]
"""Renders a principal as complete header lines, each ended by CRLF."""


class HeaderSieve:
    """Keeps the request headers that may go upstream. One per upstream, built once."""

    def __init__(self, *, forward_authorization: bool = False, keep_override_headers: bool = False) -> None:
        self._verdicts: dict[bytes, _Fate] = {}
        self._keeps: frozenset[bytes] = frozenset([b"authorization"] if forward_authorization else [])
        self._drops = _ALWAYS_DROPPED if keep_override_headers else _ALWAYS_DROPPED | _OVERRIDE

    def keep(self, headers: Headers, *, trusted: bool = False) -> list[bytes]:
        """The lines to forward, each as `name: value CRLF` in the order and bytes of arrival.

        `trusted` says the peer is a trusted proxy, whose other `X-Forwarded-*`
        (port, prefix …) are kept.
        """
        fates = self._verdicts
        lines: list[bytes] = []
        nominated: set[bytes] = set()
        for name, value in headers:
            fate = fates.get(name)
            if fate is None:
                fate = self._decide(name)
            if fate is _Fate.KEEP or (fate is _Fate.TRUSTED and trusted):
                lines.append(b"%b: %b\r\n" % (name, value))
            elif fate is _Fate.CONNECTION:
                nominated.update(_tokens(value))
        if nominated - _ORDINARY_OPTIONS:
            lines = [line for line in lines if line.partition(b":")[0].lower() not in nominated]
        return lines

    def _decide(self, name: bytes) -> _Fate:
        fate = self._fate(name.lower())
        if len(name) > _MEMO_NAME:
            return fate
        if len(self._verdicts) >= _MEMO_SIZE:
            # Only a client that invents names gets here; it pays, and memory stays bounded.
            self._verdicts.clear()
        self._verdicts[name] = fate
        return fate

    def _fate(self, name: bytes) -> _Fate:
        if name == b"connection":
            return _Fate.CONNECTION
        if name in self._keeps:
            return _Fate.KEEP
        folded = fold(name)
        if not folded or folded in self._drops or folded.startswith(b"xuser"):
            return _Fate.DROP
        if folded.startswith(b"xforwarded") or folded in _ADDRESS_CLAIMS:
            # A trusted proxy writes the exact name; `X_Forwarded_Port` only passed through it.
            exact = name.startswith(b"x-forwarded-") or name in _ADDRESS_CLAIMS.values()
            return _Fate.TRUSTED if exact else _Fate.DROP
        return _Fate.KEEP


def fold(name: bytes) -> bytes:
    """A header name as the most generous backend reads it: its lower-case letters and digits.

    >>> fold(b"X_User.Id")
    b'xuserid'
    """
    return _NOT_ALPHANUMERIC.sub(b"", name.lower())


def is_ours(name: bytes) -> bool:
    """Whether the gateway itself sets or removes this header of a request, however it is spelt."""
    folded = fold(name)
    ours = _ALWAYS_DROPPED | _OVERRIDE | _ADDRESS_CLAIMS.keys()
    return folded in ours or folded.startswith((b"xuser", b"xforwarded"))


def identity_lines(preset: str) -> IdentityLines:
    """The renderer for a preset of `identity_headers.preset`."""
    return _RENDERERS[preset]


def encode_value(text: str) -> bytes:
    """A value no parser can break out of: bytes outside 0x21–0x7E, and `%`, percent-encoded.

    >>> encode_value("jo é@example.com")
    b'jo%20%C3%A9@example.com'
    """
    if _PLAIN.fullmatch(text):
        return text.encode()
    return quote_from_bytes(text.encode("utf-8", "surrogatepass"), safe=_VISIBLE).encode()


class _Fate(IntEnum):
    """What becomes of a header, by its name alone."""

    KEEP = 0
    DROP = 1
    TRUSTED = 2
    """Kept only if a trusted proxy sent it."""
    CONNECTION = 3
    """Dropped, after its value was read."""


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip().lower() for token in value.split(b",")]


def _x_user(principal: Principal) -> bytes:
    return b"X-User-Id: %b\r\nX-User-Email: %b\r\nX-User-Admin: %b\r\nX-User-Roles: %b\r\n" % (
        encode_value(principal.id),
        encode_value(principal.email),
        b"true" if principal.is_admin else b"false",
        _roles(principal),
    )


def _remote_user(principal: Principal) -> bytes:
    email = encode_value(principal.email)
    return b"Remote-User: %b\r\nRemote-Email: %b\r\nRemote-Name: %b\r\nRemote-Groups: %b\r\n" % (
        email,
        email,
        email,
        _roles(principal),
    )


def _prefixed(prefix: bytes) -> IdentityLines:
    """oauth2-proxy's names: the id as user, the e-mail also as preferred username, roles as groups."""

    def render(principal: Principal) -> bytes:
        email = encode_value(principal.email)
        values = {
            b"User": encode_value(principal.id),
            b"Email": email,
            b"Preferred-Username": email,
            b"Groups": _roles(principal),
        }
        return b"".join(b"%b-%b: %b\r\n" % (prefix, name, value) for name, value in values.items())

    return render


def _roles(principal: Principal) -> bytes:
    return b",".join(map(encode_value, principal.roles))


_RENDERERS: dict[str, IdentityLines] = {
    "x-user": _x_user,
    "remote-user": _remote_user,
    "x-forwarded": _prefixed(b"X-Forwarded"),
    "x-auth-request": _prefixed(b"X-Auth-Request"),
}

_NOT_ALPHANUMERIC = re.compile(rb"[^0-9a-z]")
_PLAIN = re.compile(r"[!-$&-~]*")
_VISIBLE = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) != "%")
_MEMO_SIZE = 4096
"""Header names remembered per upstream; real traffic has a few dozen."""
_MEMO_NAME = 64
"""Bytes of the longest name remembered."""

_ORDINARY_OPTIONS = frozenset([b"", b"close", b"keep-alive", b"te", b"upgrade"])
"""Connection options that name no header worth a second look: theirs are dropped anyway."""

_HOP_BY_HOP = frozenset(
    map(
        fold,
        [
            b"Connection",
            b"Keep-Alive",
            b"Proxy-Connection",
            b"Proxy-Authenticate",
            b"Proxy-Authorization",
            b"TE",
            b"Trailer",
            b"Transfer-Encoding",
            b"Upgrade",
            b"HTTP2-Settings",
        ],
    )
)
_SET_BY_US = frozenset(
    map(
        fold,
        [
            b"Host",
            b"Content-Length",
            b"X-Forwarded-For",
            b"X-Forwarded-Proto",
            b"X-Forwarded-Host",
            b"Forwarded",
            b"X-Request-Id",
            b"traceparent",
            b"tracestate",
            b"X-Gateway-Error",
        ],
    )
)
_IDENTITY = frozenset(
    fold(name + suffix)
    for name, suffixes in {
        b"X-User": (b"-Id", b"-Email", b"-Admin", b"-Roles"),
        b"Remote": (b"-User", b"-Email", b"-Name", b"-Groups"),
        b"X-Forwarded": (b"-User", b"-Email", b"-Preferred-Username", b"-Groups", b"-Access-Token"),
        b"X-Auth-Request": (b"-User", b"-Email", b"-Preferred-Username", b"-Groups", b"-Access-Token"),
    }.items()
    for suffix in suffixes
)
_OURS_TO_CONSUME = frozenset([b"authorization", b"expect", b"proxy"])
"""The token is not the backend's business; 100-continue is answered here; `Proxy` is httpoxy."""

_ALWAYS_DROPPED = _HOP_BY_HOP | _SET_BY_US | _IDENTITY | _OURS_TO_CONSUME

_OVERRIDE = frozenset(
    map(
        fold,
        [
            b"X-Original-URL",
            b"X-Rewrite-URL",
            b"X-HTTP-Method-Override",
            b"X-HTTP-Method",
            b"X-Method-Override",
        ],
    )
)
"""Frameworks that obey these would serve another path or method than the one that was judged."""

_ADDRESS_CLAIMS = {
    fold(name): name
    for name in (
        b"x-real-ip",
        b"x-client-ip",
        b"client-ip",
        b"true-client-ip",
        b"x-cluster-client-ip",
        b"forwarded-for",
        b"cf-connecting-ip",
        b"fastly-client-ip",
        b"x-original-forwarded-for",
    )
}
"""Other spellings of "my address is", all of them looked for by some old application: believed from trusted
proxies only."""
