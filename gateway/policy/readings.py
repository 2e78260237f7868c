"""Every plausible way in which a backend may read one raw path.

The bytes that are judged are the bytes that are forwarded, but the backend decides
what they mean. One drops `;params`, the next decodes twice, a third takes `\\` for
`/` or keeps its files on a disk that knows no case. A rule that looks at only one of
these readings can be walked around (Oathkeeper CVE-2026-33494, Traefik CVE-2025-66490,
oauth2-proxy CVE-2025-54576), and refusing every odd path breaks honest applications
(GitLab's `group%2Fproject`). So nothing is refused for being odd: the caller must be
allowed in *every* reading.

**A reading** is kept as bytes in which `/` stands between segments and NUL stands for
a slash *inside* a segment (a decoded `%2F`). NUL is free for this because a path with
control bytes is refused. Trailing slashes are cut off: they mean nothing in rules.

**The literal reading** is the raw path split at `/`, each segment percent-decoded once.
It alone chooses the route. For nearly every request it is the only one, and one regular
expression finds that out.

**The others** are what can be reached from the raw path by any chain of `_STEPS`, in
which every percent-decoding counts as one more step. Steps also run *before* the first
decoding, since Tomcat drops `;params` then, and `%3B` survives it. Whatever chain a
backend applies, its result is among the readings; more than `MAX_READINGS` are refused.

**Case** is no step. It would double the readings and could not know which spelling the
backend has on its disk. `fold` gives one form to every spelling, and `match` compares
patterns in that form too.

**Refused** is what has no honest use: a segment of dots (and blanks) in any reading on
the way, for it climbs in some backend; control bytes; a malformed `%`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from gateway.errors import AmbiguousPath, BadTarget, DotSegment

MAX_READINGS = 32
"""The literal one included. Honest paths have fewer than ten."""

MAX_BYTES = 32 * 1024
"""Of all readings together, if there are several. Four times the longest target."""
_GROWTH = 3
"""How many times longer than it was sent a reading may be: NFKC makes 33 bytes of the 3 of U+FDFA."""

Reading = bytes
"""`/` between segments, NUL for a slash inside one, no trailing slash; the root is empty."""


def read(path: bytes) -> tuple[Reading, ...]:
    """All readings of a raw path, the literal one first. Raises BadTarget, DotSegment, AmbiguousPath."""
    if is_plain(path):
        return (path.rstrip(b"/"),)
    if not path.startswith(b"/") or _FORBIDDEN_RAW(path):
        raise BadTarget
    undecoded = [path.rstrip(b"/")]
    if b"%" in path:
        undecoded = list(_closure(undecoded, _STEPS))
    return tuple(_closure([_decode(reading) for reading in undecoded], _STEPS + _DECODERS))


def fold(reading: bytes) -> bytes:
    """One form for every way to write the same letters in capitals or not.

    Unicode case folding, coarsened by the dotless and the dotted i: Java's
    equalsIgnoreCase and Python's re.IGNORECASE take both for an i.
    """
    if reading.isascii():
        return reading.lower()
    text = reading.decode("utf-8", "surrogateescape")
    return text.upper().casefold().replace("i\u0307", "i").encode("utf-8", "surrogateescape")


def strip(path: bytes, count: int) -> bytes:
    """The raw path without its first `count` segments; what is left stays untouched."""
    return b"/" + b"".join(path.split(b"/", count + 1)[count + 1 :])


def segments(reading: Reading) -> tuple[bytes, ...]:
    """The reading as people think of it, for explanations."""
    return tuple(part.replace(b"\0", b"/") for part in reading.split(b"/")[1:])


Step = tuple[Callable[[Reading], bool], Callable[[Reading], Reading]]
"""Whether it may change anything, and how."""

is_plain = re.compile(rb"/|(?:/[A-Za-z0-9_.~!$&'()*+,=:@|^\"<>{}`\[\]-]++(?<!\.))++/?").fullmatch
"""Nothing a step would change: no escapes, empty segments, `;`, `\\`, blanks, trailing dots, non-ASCII."""

_FORBIDDEN_RAW = re.compile(rb"[\0-\x1f\x7f#]|%(?![0-9A-Fa-f]{2})").search
_FORBIDDEN_ESCAPE = re.compile(rb"%(?:[01][0-9A-Fa-f]|7[Ff])").search
_DOTS = re.compile(rb"/(?= *\.)[. ]++(?:/|\Z)").search
"""A segment of dots and blanks: `..`, and `.. ` or `...`, which Windows shortens to it."""


def _closure(start: list[Reading], steps: tuple[Step, ...]) -> dict[Reading, None]:
    """Everything that any chain of steps makes of `start`, whose first stays in front."""
    found: dict[Reading, None] = {}
    waiting = start[::-1]
    longest = _GROWTH * len(start[0]) + 256
    size = 0
    while waiting:
        reading = waiting.pop()
        if reading in found:
            continue
        if b"." in reading and _DOTS(reading):
            raise DotSegment
        found[reading] = None
        size += len(reading)
        if len(found) > MAX_READINGS or len(reading) > longest or (size > MAX_BYTES and len(found) > 1):
            raise AmbiguousPath
        waiting.extend(step(reading).rstrip(b"/") for applies, step in steps if applies(reading))
    return found


def _decode(reading: Reading) -> Reading:
    """Percent-decoding. A `%` without two hexadecimal digits stays, as lax decoders have it."""
    if _FORBIDDEN_ESCAPE(reading):
        raise BadTarget
    return unquote_to_bytes(reading.replace(b"%2F", b"\0").replace(b"%2f", b"\0"))


def _decode_unicode(reading: Reading) -> Reading:
    """`%u0041`, as IIS and old JavaScript have it."""
    return _UNICODE_ESCAPES.sub(_utf8, reading)


_UNICODE_ESCAPES = re.compile(rb"(?:%[uU][0-9A-Fa-f]{4})+")


def _utf8(escapes: re.Match[bytes]) -> bytes:
    units = bytes.fromhex(escapes[0].upper().replace(b"%U", b"").decode())
    return _inside(units.decode("utf-16-be", "surrogatepass").encode("utf-8", "surrogatepass"))


def _inside(piece: bytes) -> bytes:
    """What a decoder made: its slashes are inside a segment, and it may hold no control byte."""
    if _CONTROL(piece):
        raise BadTarget
    return piece.replace(b"/", b"\0")


_CONTROL = re.compile(rb"[\0-\x1f\x7f]").search


def _shorten(reading: Reading) -> Reading:
    """Overlong UTF-8 (RFC 3629 §10) to the ASCII it stands for, as old decoders do."""
    return _OVERLONG.sub(_shortened, reading)


_OVERLONG = re.compile(
    rb"[\xc0\xc1][\x80-\xbf]|(?:\xe0|\xf0\x80|\xf8\x80\x80|\xfc\x80\x80\x80)[\x80\x81][\x80-\xbf]"
)


def _shortened(match: re.Match[bytes]) -> bytes:
    last_but_one, last = match[0][-2:]
    return _inside(bytes([(last_but_one & 1) << 6 | last & 0x3F]))


def _compose(reading: Reading) -> Reading:
    """NFKC, which turns fullwidth and other look-alikes into ASCII."""
    parts = reading.decode("utf-8", "surrogateescape").split("/")
    composed = (unicodedata.normalize("NFKC", part).replace("/", "\0") for part in parts)
    return "/".join(composed).encode("utf-8", "surrogateescape")


def _merge(reading: Reading) -> Reading:
    """Empty segments away."""
    return _SLASHES.sub(b"/", reading)


_SLASHES = re.compile(rb"//+")


def _drop_authority(reading: Reading) -> Reading:
    """`//name/path` as URL parsers read it (PHP's parse_url, WHATWG's URL): a host, then the path."""
    return b"/" + reading.lstrip(b"/").partition(b"/")[2]


def _split(reading: Reading) -> Reading:
    return reading.replace(b"\0", b"/")


def _backslashes(reading: Reading) -> Reading:
    return reading.replace(b"\\", b"/")


_PARAMETERS = re.compile(rb";[^/]*")
_TRAIL = re.compile(rb"(?<![. ])[. ]++(?=/|\Z)")


def _drop_parameters(reading: Reading) -> Reading:
    return _PARAMETERS.sub(b"", reading)


def _drop_last_parameters(reading: Reading) -> Reading:
    """RFC 1808, and Python's urlparse still: only the last segment has parameters."""
    before, slash, last = reading.rpartition(b"/")
    return before + slash + last.partition(b";")[0]


def _drop_trail(reading: Reading) -> Reading:
    """Trailing dots and blanks of every segment, as Windows does."""
    return _TRAIL.sub(b"", reading)


def _cut_at(sign: bytes) -> Callable[[Reading], Reading]:
    return lambda reading: reading.partition(sign)[0]


def _has(sign: bytes) -> Callable[[Reading], bool]:
    return lambda reading: sign in reading


def _has_trail(reading: Reading) -> bool:
    return b"./" in reading or b" /" in reading or reading.endswith((b".", b" "))


def _has_overlong(reading: Reading) -> bool:
    return not reading.isascii() and _OVERLONG.search(reading) is not None


_STEPS: tuple[Step, ...] = (
    (_has(b"\0"), _split),
    (_has(b"\\"), _backslashes),
    (_has(b"//"), _merge),
    (lambda reading: reading.startswith(b"//"), _drop_authority),
    (_has(b";"), _drop_parameters),
    (_has(b";"), _drop_last_parameters),
    (_has(b";"), _cut_at(b";")),  # Shiro CVE-2020-1957, and every `uri.indexOf(';')`
    (_has(b"?"), _cut_at(b"?")),
    (_has(b"#"), _cut_at(b"#")),
    (_has_trail, _drop_trail),
    (_has_overlong, _shorten),
    (lambda reading: not reading.isascii(), _compose),
)
"""When a step may change something, and what it does. The order only decides what is found first.

The tests are plain searches, since a hostile path may be 8 KiB long and have 32 readings.
"""

_DECODERS: tuple[Step, ...] = (
    (_has(b"%"), _decode),
    (lambda reading: b"%u" in reading or b"%U" in reading, _decode_unicode),
)
"""More steps, once the escapes of the raw path itself are decoded."""
