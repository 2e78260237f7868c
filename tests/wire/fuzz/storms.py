"""Storms: two clients at once and a backend in every mood, made up by hypothesis.

An honest client's requests are good and its backend may do anything; a hostile one
sends mutated cases of the tables and soup of HTTP's pieces. Every answer carries the id
of the request it belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hypothesis import strategies as st

from tests.wire.hostile.table import requests


@dataclass(frozen=True, slots=True)
class Mood:
    """How the backend answers one request."""

    framing: Literal["length", "chunked", "end"] = "length"
    """Of the body."""
    body: bytes = b""
    """Behind the id."""
    interims: int = 0
    """How many 1xx come first."""
    early: bool = False
    """It answers when it has the head, and closes."""
    cut: float = 1.0
    """What part of the answer is sent; below 1 the connection ends there."""
    rough: bool = False
    """It ends by a reset."""
    silent: bool = False
    """It does not end there but says nothing more."""
    surplus: bytes = b""
    """What follows the answer in the same breath."""
    changes: tuple[tuple[float, bytes], ...] = ()
    """Bytes that are put over others, by their place in the answer."""
    pieces: tuple[int, ...] = ()
    """Sizes of the first writes; the rest is one."""

    @property
    def good(self) -> bool:
        """The client must get the whole answer."""
        return not (self.early or self.changes or self.cut < 1)


@dataclass(frozen=True, slots=True)
class Ask:
    """One good request."""

    method: str = "GET"
    """HEAD too."""
    place: Literal["public", "narrow", "hasty", "private", "auth"] = "public"
    """Whose routes it takes; the last two are answered by the gateway."""
    body: bytes | None = None
    """What it carries."""
    chunks: tuple[int, ...] = ()
    """Sizes of its chunks; without them it has a length."""
    mood: Mood = Mood()
    """What comes back."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One client's connection."""

    asks: tuple[Ask, ...]
    """In order."""
    pipelined: bool = False
    """All at once instead of one after the other."""
    pieces: tuple[int, ...] = ()
    """Sizes of the first writes."""
    leaves: float = 1.0
    """Below 1: it sends that part of everything and resets its connection."""
    rubbish: bytes | None = None
    """A hostile client sends this behind its requests."""


Storm = tuple[Visit, ...]

SIZES = st.lists(st.integers(1, 40), max_size=6).map(tuple)
_BODIES = st.one_of(
    st.binary(max_size=60), st.sampled_from([b"x" * 70_000, b"\r\n0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
)
_PIECES = [
    *(b"", b" ", b"\t", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b"\x7f", b"\xff", b":", b",", b";"),
    *(b"0", b"5", b"#", b"/", b"abc", b"GET ", b"POST / ", b"HTTP/1.1\r\n", b"HTTP/1.0\r\n"),
    *(b"Host", b"Host: a\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Connection: close\r\n", b"Connection: upgrade\r\n", b"Upgrade: x\r\n", b"Expect: 100-continue\r\n"),
    *(b"3\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n"),
]  # fmt: skip
_CASES = [case.data for case in requests() if len(case.data) < 600]


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    """A case of the tables with a few bytes changed, and perhaps another one behind it."""
    raw = bytearray(draw(st.sampled_from(_CASES)) + draw(st.sampled_from([b"", *_CASES])))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.integers(0, 3))] = draw(st.sampled_from(_PIECES))
    return bytes(raw)


_RUBBISH = st.one_of(
    _mutated(), st.lists(st.sampled_from(_PIECES), max_size=30).map(b"".join), st.binary(max_size=300)
)
CHANGES = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.one_of(st.sampled_from(_PIECES), st.binary(max_size=3))),
    max_size=4,
).map(tuple)
_EVIL = b"HTTP/1.1 200 OK\r\nX-Id: evil\r\nContent-Length: 4\r\n\r\nevil"

_good_moods = st.builds(
    Mood,
    framing=st.sampled_from(["length", "chunked", "end"]),
    body=_BODIES,
    interims=st.integers(0, 2),
    surplus=st.sampled_from([b"", b"", b"\r\n", b"!", _EVIL]),
    pieces=SIZES,
)
_bad_moods = st.builds(
    Mood,
    framing=st.sampled_from(["length", "chunked", "end"]),
    body=_BODIES,
    interims=st.integers(0, 2),
    early=st.booleans(),
    cut=st.one_of(st.just(1.0), st.floats(0, 1)),
    rough=st.booleans(),
    silent=st.sampled_from([False] * 9 + [True]),
    surplus=st.sampled_from([b"", b"\r\n", _EVIL]),
    changes=CHANGES,
    pieces=SIZES,
)
_asks = st.builds(
    Ask,
    method=st.sampled_from(["GET", "GET", "GET", "POST", "PUT", "HEAD", "DELETE"]),
    place=st.sampled_from(["public"] * 6 + ["narrow", "narrow", "hasty", "private", "auth"]),
    body=st.one_of(st.none(), _BODIES),
    chunks=SIZES,
    mood=st.one_of(_good_moods, _good_moods, _bad_moods),
)
_honest = st.builds(
    Visit,
    asks=st.lists(_asks, min_size=1, max_size=5).map(tuple),
    pipelined=st.booleans(),
    pieces=SIZES,
    leaves=st.one_of(st.just(1.0), st.just(1.0), st.floats(0, 1)),
)
_hostile = st.builds(
    Visit,
    asks=st.lists(_asks, max_size=2).map(tuple),
    pipelined=st.just(True),
    pieces=SIZES,
    rubbish=_RUBBISH,
)
storms = st.tuples(st.one_of(_honest, _hostile), _honest)


def cut(data: bytes, sizes: tuple[int, ...]) -> list[bytes]:
    """The same bytes in pieces; the last one is all the rest."""
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in [*pieces, data] if piece]


def change(data: bytes, changes: tuple[tuple[float, bytes], ...]) -> bytes:
    """With these bytes put over others, by their place."""
    changed = bytearray(data)
    for place, piece in changes:
        at = int(place * len(changed))
        changed[at : at + len(piece)] = piece
    return bytes(changed)
