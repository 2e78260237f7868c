"""Reads logs back: our own decision lines, and the access logs of nginx and Apache.

Nothing in a log is trusted: half of it was written by strangers, files are cut off by
rotation, and other programs write to the same stream. So `read` never raises, whatever
the line; what it can't make sense of, it says so.

An access log is in the common or the combined format, with the virtual host in front or
without. It says less than a decision line: not who asked, and often not for which host.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import Enum, unique
from functools import lru_cache
from json import JSONDecoder
from math import isfinite
from typing import Any, NamedTuple

LONGEST = 1 << 20
"""Bytes of a line. The longest target that a server takes, every byte of it escaped, is far below."""


class Logged(NamedTuple):
    """One request of the past, as its line tells."""

    time: float
    """When it arrived, in Unix seconds."""
    client: str
    """The client's address, or what stands in its place."""
    method: str
    """As on the request line."""
    host: bytes | None
    """The Host header, empty if it had none; None if the log does not say."""
    path: bytes
    """The raw path, without a query."""
    status: int
    """As the client saw it."""
    user: str | None
    """Of a decision line the account's id; of an access log a name, which may be anybody's claim."""
    admin: bool | None
    """None without a user, and if the log does not say."""
    roles: tuple[str, ...] | None
    """Likewise."""
    verdict: str
    """`allow` or `deny`; empty in an access log."""
    reason: str
    """The code; empty in an access log."""
    would: str
    """Why a rule that only reports would have refused; empty if none would."""
    scopes: tuple[str, ...] | None = None
    """Of the API token that the caller came with; None for a login, and if the log does not say."""


class Account(NamedTuple):
    """What an audit event tells of an account, since decision lines hold no e-mail addresses."""

    user: str
    """Its id."""
    email: str
    """Its address from then on."""


@unique
class Other(Enum):
    """A line that is fine and holds no request to judge."""

    OWN = "own"
    """A request that the gateway answered itself, below its prefix."""
    RULELESS = "ruleless"
    """A request that no rule was looked for: malformed, of a refused method, a preflight."""
    EVENT = "event"
    """No request at all: an audit event, a message."""


def read(line: bytes) -> Logged | Account | Other | None:
    """What a line says; None if it can't be read. A prefix before our JSON, as collectors add, is skipped."""
    if len(line) > LONGEST:
        return None
    start = line.find(b'{"time"')
    return _read_access(line) if start < 0 else _read_ours(line[start:])


# -- our own -------------------------------------------------------------------------------------------------


def _read_ours(line: bytes) -> Logged | Account | Other | None:
    try:
        text = line.decode()
        fields, end = _decode(text)
    except (ValueError, RecursionError):  # RecursionError: a line of a million brackets
        return None
    if end != len(text) and not text[end:].isspace():
        return None
    try:
        return _decision(fields) if fields["event"] == "request" else _event(fields)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        return None  # a field is missing, or another thing than it is in a line of ours


_decode = JSONDecoder().raw_decode
"""Half of the time that `json.loads` takes for so short a text."""


def _decision(fields: dict[str, Any]) -> Logged | Other | None:
    route, reason = fields["route"], fields["reason"]
    if route is None or reason == "preflight":
        return Other.RULELESS
    if route.startswith("auth:"):
        return Other.OWN
    host, roles, admin = fields.get("host", _UNSAID), fields.get("roles"), fields.get("admin")
    scopes = fields.get("scopes")
    if any(each is not None and type(each) is not list for each in (roles, scopes)):
        return None
    logged = Logged(
        datetime.fromisoformat(fields["time"]).timestamp() - fields["durationMs"] / 1000.0,
        fields["client"],
        fields["method"],
        None if host is _UNSAID else (host or "").encode("latin-1"),
        fields["path"].encode("latin-1"),
        fields["status"],
        fields["user"],
        admin,
        None if roles is None else tuple(roles),
        fields["verdict"],
        reason,
        fields.get("would", ""),
        None if scopes is None else tuple(scopes),
    )
    return logged if _is_ours(logged) else None


_UNSAID = object()
_TEXT = (str, str, str, str, str)


def _is_ours(it: Logged) -> bool:
    """Whether the fields that nothing has been asked of yet are what they should be."""
    return (
        (type(it.client), type(it.method), type(it.verdict), type(it.reason), type(it.would)) == _TEXT
        and type(it.status) is int
        and (it.user is None or type(it.user) is str)
        and (it.admin is None or type(it.admin) is bool)
        and all(type(name) is str for names in (it.roles, it.scopes) if names is not None for name in names)
        and it.verdict in ("allow", "deny")
        and isfinite(it.time)
    )


def _event(fields: dict[str, Any]) -> Account | Other:
    if fields["event"] == "audit" and fields["name"] in ("login_succeeded", "user_created", "user_updated"):
        user, email = fields["user"], fields["email"]
        if type(user) is str and type(email) is str:
            return Account(user, email)
    return Other.EVENT


# -- of nginx and Apache -------------------------------------------------------------------------------------

_REST = re.compile(rb'((?:[^"\\]|\\.)*)" (\d{3}) (?:\d+|-)(?: .*)?', re.DOTALL)
_REQUEST = re.compile(rb"([A-Z][A-Z_-]{0,31}) (/[^ ?]*)(?:\?[^ ]*)? HTTP/[1-3](?:\.\d)?")
_REFUSED_METHODS = (b"TRACE", b"CONNECT")


def _read_access(line: bytes) -> Logged | Other | None:
    who, _, rest = line.rstrip(b"\r").partition(b" [")
    time, _, rest = rest.partition(b'] "')
    told, when, caller = _REST.fullmatch(rest), _moment(time), _caller(who.split(b" "))
    if told is None or when is None or caller is None:
        return None
    asked = _REQUEST.fullmatch(_unescaped(told[1]))
    if asked is None or asked[1] in _REFUSED_METHODS:
        return Other.RULELESS
    host, client, user = caller
    name = None if user in (b"-", b"", b'""') else user.decode("latin-1")
    return Logged(
        when, client.decode("latin-1"), asked[1].decode(), host, asked[2], int(told[2]), name,
        admin=None, roles=None, verdict="", reason="", would="",
    )  # fmt: skip


def _caller(words: list[bytes]) -> tuple[bytes | None, bytes, bytes] | None:
    """Host, client and user from `[host] client identity user`; a user's name may have spaces."""
    if len(words) < 3:
        return None
    if len(words) > 3 and (_ADDRESS.fullmatch(words[1]) or not _ADDRESS.fullmatch(words[0])):
        return words[0], words[1], b" ".join(words[3:])
    return None, words[0], b" ".join(words[2:])


_ADDRESS = re.compile(rb"\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]*:[0-9a-fA-F:.]*")
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_TIME = re.compile(rb"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d\d)(\d\d)")


@lru_cache(64)
def _moment(text: bytes) -> float | None:
    """`24/Nov/2026:10:00:00 +0100` in Unix seconds."""
    match = _TIME.fullmatch(text)
    if match is None or match[2] not in _MONTHS:
        return None
    day, month, year, clock, hours, minutes = match.groups()
    written = b"%b-%02d-%bT%b%b:%b" % (year, _MONTHS.index(month) + 1, day, clock, hours, minutes)
    try:
        return datetime.fromisoformat(written.decode()).timestamp()
    except (ValueError, OverflowError):
        return None


def _unescaped(text: bytes) -> bytes:
    r"""As it was sent: both write `\x1b` for what can't be shown, Apache also `\n` and the like."""
    return _ESCAPE.sub(_byte, text) if b"\\" in text else text


_ESCAPE = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_LETTERS = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"b": b"\b", b"v": b"\v", b"f": b"\f"}


def _byte(found: re.Match[bytes]) -> bytes:
    return bytes.fromhex(found[1].decode()) if found[1] else _LETTERS.get(found[2], found[2])
