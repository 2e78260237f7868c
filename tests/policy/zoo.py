"""Backends that read paths in every way that backends do, written without a look at `readings`.

A reader takes the raw path that was forwarded and gives the segments of the resource
it serves. Nothing here resolves `..`: whoever gets that far has been let in wrongly.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

Text = Callable[[bytes], bytes]
HEX = b"0123456789abcdefABCDEF"


def decode(path: bytes) -> bytes:
    return unquote_to_bytes(path)


def decode_u(path: bytes) -> bytes:
    out, at = b"", 0
    while at < len(path):
        digits = path[at + 2 : at + 6]
        if path[at : at + 2] in (b"%u", b"%U") and len(digits) == 4 and all(digit in HEX for digit in digits):
            out += chr(int(digits, 16)).encode("utf-8", "surrogatepass")
            at += 6
        else:
            out += path[at : at + 1]
            at += 1
    return out


def backslash(path: bytes) -> bytes:
    return path.translate(bytes.maketrans(b"\\", b"/"))


def merge(path: bytes) -> bytes:
    while b"//" in path:
        path = path.replace(b"//", b"/")
    return path


def parameters(path: bytes) -> bytes:
    return b"/".join(part.split(b";")[0] for part in path.split(b"/"))


def last_parameters(path: bytes) -> bytes:
    *parts, last = path.split(b"/")
    return b"/".join([*parts, last.split(b";")[0]])


def until(sign: bytes) -> Text:
    return lambda path: path.split(sign)[0]


def trail(path: bytes) -> bytes:
    return b"/".join(part.rstrip(b". ") for part in path.split(b"/"))


def nfkc(path: bytes) -> bytes:
    return unicodedata.normalize("NFKC", path.decode("utf-8", "surrogateescape")).encode(
        "utf-8", "surrogateescape"
    )


def lax_utf8(path: bytes) -> bytes:
    """A decoder that does not mind overlong forms."""
    out, at = b"", 0
    while at < len(path):
        size = next((n for n, low, high in _LEADS if low <= path[at] <= high), 1)
        tail = path[at + 1 : at + size]
        if size > 1 and len(tail) == size - 1 and all(0x80 <= byte < 0xC0 for byte in tail):
            code = path[at] & (0x7F >> size)
            for byte in tail:
                code = code << 6 | byte & 0x3F
            out += bytes([code]) if code < 0x80 else path[at : at + size]
            at += size
        else:
            out += path[at : at + 1]
            at += 1
    return out


_LEADS = ((2, 0xC0, 0xDF), (3, 0xE0, 0xEF), (4, 0xF0, 0xF7), (5, 0xF8, 0xFB), (6, 0xFC, 0xFD))


def authority(path: bytes) -> bytes:
    if not path.startswith(b"//"):
        return path
    return b"/" + b"/".join(path.lstrip(b"/").split(b"/")[1:])


def lower(path: bytes) -> bytes:
    return path.decode("utf-8", "surrogateescape").lower().encode("utf-8", "surrogateescape")


def upper(path: bytes) -> bytes:
    return path.upper()


PER_SEGMENT: tuple[Text, ...] = (decode, decode, decode_u, parameters, trail, nfkc, lax_utf8, lower, upper)
HABITS: tuple[Text, ...] = (
    *PER_SEGMENT, backslash, merge, last_parameters, until(b"#"), until(b"?"), until(b";"), authority,
)  # fmt: skip


@dataclass(frozen=True)
class Backend:
    """A chain of habits. The first decoding comes anywhere in it, but it comes."""

    name: str
    habits: tuple[Text, ...]
    by_segment: bool = False
    """Splits before anything else, so that a decoded slash stays inside its segment."""

    @property
    def knows_no_case(self) -> bool:
        return lower in self.habits or upper in self.habits

    def segments(self, raw: bytes) -> list[bytes]:
        parts = [raw]
        if self.by_segment:
            parts = raw.split(b"/")
        for habit in self.habits:
            parts = [habit(part) for part in parts]
        if not self.by_segment:
            parts = parts[0].split(b"/")
        parts = parts[1:]
        while parts and not parts[-1]:
            parts.pop()
        return parts


SPECIES = (
    Backend("Rails", (decode,), by_segment=True),
    Backend("Go", (decode,)),
    Backend("nginx", (decode, merge)),
    Backend("Tomcat", (parameters, decode, merge)),
    Backend("old Tomcat", (decode, parameters, backslash, merge)),
    Backend("Shiro", (until(b";"), decode)),
    Backend("Jetty", (parameters, decode, decode)),
    Backend("Express", (decode, lower), by_segment=True),
    Backend("PHP", (authority, decode)),
    Backend("WHATWG URL", (backslash, authority, decode)),
    Backend("urlparse", (authority, last_parameters, decode)),
    Backend("IIS", (decode, decode_u, backslash, lower)),
    Backend("IIS 4", (decode, decode_u, lax_utf8, decode, decode_u, backslash, trail, lower)),
    Backend("Windows", (decode, backslash, merge, trail, upper)),
    Backend("NTFS behind PHP", (authority, decode, trail, lower)),
    Backend("a reader of look-alikes", (decode, nfkc)),
    Backend("a builder of URLs", (decode, until(b"#"), until(b"?"), decode)),
    Backend("old Java", (parameters, decode, lax_utf8)),
    Backend("two proxies", (decode, merge, decode, parameters, decode)),
)


def mongrel(rng: random.Random) -> Backend:
    """Any chain of habits."""
    by_segment = rng.random() < 0.2
    habits = [rng.choice(PER_SEGMENT if by_segment else HABITS) for _ in range(rng.randrange(6))]
    habits.insert(rng.randrange(len(habits) + 1), decode)
    names = " ".join(getattr(habit, "__name__", "?") for habit in habits)
    return Backend(f"a mongrel: {names}", tuple(habits), by_segment)


def disguise(rng: random.Random, path: bytes) -> bytes:
    """`path` written in another way, which some reader undoes."""
    for _ in range(rng.randrange(5)):
        path = path or b"/"
        at = rng.randrange(len(path))
        byte = path[at : at + 1]
        path = path[:at] + rng.choice(DISGUISES)(byte) + path[at + 1 :]
    return b"/" + path.lstrip(b"/") if rng.random() < 0.7 else b"/" + path


def _escape(byte: bytes) -> bytes:
    return b"%%%02X" % byte[0]


def _overlong(byte: bytes) -> bytes:
    return bytes([0xC0 | byte[0] >> 6, 0x80 | byte[0] & 0x3F]) if byte < b"\x80" else byte


def _wide(byte: bytes) -> bytes:
    return chr(byte[0] - 0x20 + 0xFF00).encode() if b"!" <= byte <= b"~" else byte


def _escaped(text: bytes) -> bytes:
    return b"".join(map(_escape, (bytes([byte]) for byte in text)))


DISGUISES: tuple[Text, ...] = (
    _escape,
    lambda byte: _escape(byte).replace(b"%", b"%25"),
    lambda byte: b"%%25u%04x" % byte[0],
    lambda byte: _escaped(_overlong(byte)),
    lambda byte: _escaped(_wide(byte)),
    lambda byte: _wide(byte),
    lambda byte: byte.swapcase(),
    lambda byte: byte + b";x",
    lambda byte: byte + b"%3Bx",
    lambda byte: byte + b"/",
    lambda byte: byte + b"%2F",
    lambda byte: b"\\" if byte == b"/" else byte,
    lambda byte: b"%5C" if byte == b"/" else byte,
    lambda byte: byte + b".",
    lambda byte: byte + b"%20",
    lambda byte: byte + b"%23",
    lambda byte: byte + b"%3F",
    lambda byte: byte + b"/x",
    lambda byte: byte + b"/..;/",
    lambda byte: byte + b"%2e%2e",
    lambda byte: b";" + byte,
    lambda byte: b"\xc4\xb1" if byte in b"iI" else byte,
    lambda byte: bytes([byte[0] ^ 1]),
    lambda byte: b"",
)
