"""What a raw path may mean, reading by reading."""

from __future__ import annotations

import contextlib
import sys
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import AmbiguousPath, BadRequest, BadTarget, DotSegment
from gateway.policy.readings import MAX_READINGS, fold, is_plain, read, segments


def said(path: bytes) -> set[bytes]:
    """The readings, as people write them."""
    return {b"/".join((b"", *segments(reading))) for reading in read(path)}


@pytest.mark.parametrize(
    ("path", "readings"),
    [
        (b"/", {b""}),
        (b"/a", {b"/a"}),
        (b"/a/", {b"/a"}),
        (b"/a///", {b"/a"}),
        (b"/a.b/..c/d..e", {b"/a.b/..c/d..e"}),
        (b"/%61", {b"/a"}),
        (b"/100%25", {b"/100%"}),
        (b"/a%2541", {b"/a%41", b"/aA"}),
        (b"/a\\b", {b"/a\\b", b"/a/b"}),
        (b"/a;x/b;y", {b"/a;x/b;y", b"/a/b", b"/a;x/b", b"/a"}),
        (b"/a%3Bx;y", {b"/a;x;y", b"/a;x", b"/a"}),
        (b"/a//b", {b"/a//b", b"/a/b"}),
        (b"//a/b", {b"//a/b", b"/a/b", b"/b"}),
        (b"//a", {b"//a", b"/a", b""}),
        (b"/a%23b%3Fc", {b"/a#b?c", b"/a#b", b"/a"}),
        (b"/a. /b.", {b"/a. /b.", b"/a/b"}),
        (b"/a%20", {b"/a ", b"/a"}),
        (b"/a%20/b", {b"/a /b", b"/a/b"}),
        (b"/a./b", {b"/a./b", b"/a/b"}),
        (b"/%EF%BD%81", {"/ａ".encode(), b"/a"}),
        (b"/\xef\xbd\x81", {"/ａ".encode(), b"/a"}),
        (b"/%C1%A1", {b"/\xc1\xa1", b"/a"}),
        (b"/%FC%80%80%80%81%A1", {b"/\xfc\x80\x80\x80\x81\xa1", b"/a"}),
        (b"/%25u0061", {b"/%u0061", b"/a"}),
        (b"/%25U0061", {b"/%U0061", b"/a"}),
        (b"/%25ud83d%25ude00", {b"/%ud83d%ude00", "/😀".encode()}),
        (b"/%25ud83d", {b"/%ud83d", b"/\xed\xa0\xbd"}),
        (b"/caf%E9", {b"/caf\xe9"}),
        (b"/caf%C3%A9", {"/café".encode()}),
    ],
)
def test_the_readings_of(path: bytes, readings: set[bytes]) -> None:
    assert said(path) == readings


def test_a_slash_inside_a_segment_is_another_reading_than_one_between_segments() -> None:
    assert [segments(reading) for reading in read(b"/a%2Fb")] == [(b"a/b",), (b"a", b"b")]
    assert segments(read(b"/a%252fb")[0]) == (b"a%2fb",)
    assert (b"a", b"b") in [segments(reading) for reading in read(b"/a%252fb")]
    assert (b"a", b"b") in [segments(reading) for reading in read("/a／b".encode())]
    assert (b"a", b"b") in [segments(reading) for reading in read(b"/a%C0%AFb")]
    assert (b"a", b"b") in [segments(reading) for reading in read(b"/a%25u002fb")]
    assert segments(read(b"/a%2F")[0]) == (b"a/",)
    assert segments(read(b"/a%2F")[1]) == (b"a",)


def test_the_literal_reading_comes_first() -> None:
    assert read(b"/a;x/%2562//")[0] == b"/a;x/%62"


MALFORMED = (b"", b"a", b"*", b"http://x/", b"/a#b", b"/%", b"/%4", b"/%g1", b"/a%u0061")
CONTROLS = (
    b"/\0",
    b"/\n",
    b"/\x7f",
    b"/%00",
    b"/%1F",
    b"/%7f",
    b"/%250a",
    b"/%25u0000",
    b"/%25u007f",
    b"/%C0%80",
)
TWICE = (b"/%C0%8A", b"/%25u002500")


@pytest.mark.parametrize("path", MALFORMED + CONTROLS + TWICE)
def test_bad_targets(path: bytes) -> None:
    with pytest.raises(BadTarget):
        read(path)


DOTS = [
    "..",
    ".",
    "...",
    "%2e%2e",
    ".%2E",
    "%252e%252e",
    "..;",
    "..;x",
    "..%3Bx",
    "..%20",
    "%20..",
    "..%23",
    "..%3F",
    "..%2F",
    "..%5C",
    "..\\",
    "x%2F..",
    "x\\..",
]
LOOK_ALIKES = ["․․", "‥", "…", "．．", "%C0%AE%C0%AE", "%25u002e%25u002e", ".. ", ". ."]


@pytest.mark.parametrize("dots", DOTS + LOOK_ALIKES)
@pytest.mark.parametrize("frame", ["/{}", "/{}/b", "/a/{}", "/a/{}/b", "//{}//"])
def test_dots_are_refused_wherever_they_hide(frame: str, dots: str) -> None:
    with pytest.raises(DotSegment):
        read(frame.format(dots).encode())


def test_the_limit_of_readings() -> None:
    deep = b"/%" + b"25" * MAX_READINGS
    assert len(read(deep)) == MAX_READINGS
    with pytest.raises(AmbiguousPath):
        read(deep + b"25")
    with pytest.raises(AmbiguousPath):  # before anything is decoded
        read(b"/%41" + b";a\\b//c. \xc0\xaf\xef\xbc\x8f" * 3)


def test_the_limit_of_their_length_together() -> None:
    """A long path may have a few readings, since each is looked up."""
    long = b"/" + b"a" * 8000
    assert len(read(long + b"%25252541")) == 4
    with pytest.raises(AmbiguousPath):
        read(long + b"%2525252541")
    assert len(read(long * 10 + b"%41")) == 1  # how long a single one may be, whoever reads the head says


@pytest.mark.parametrize(
    "unit",
    [
        b".",
        b"/",
        b";",
        b"%20",
        b"a;b/",
        b"a./",
        b"%41",
        b"%25",
        b"25",
        b"%25u0041",
        b"%C0%AF",
        b"%EF%B7%BA",
        b"%2F%5c%3b//%23%3f%20%C0%AF%EF%BC%8F./y",
        b"\\",
        b" .a",
        b"\xcc\x80\xcc\xa3",
        b"a;b\\c//d /\xef\xbc\x8f\xc0\xaf",
    ],
)
def test_a_hostile_path_costs_little(unit: bytes) -> None:
    path = b"/%25" + unit * (8180 // len(unit)) + b"41"
    start = time.process_time()
    with contextlib.suppress(BadRequest):
        read(path)
    assert time.process_time() - start < 0.5  # milliseconds in truth; a square of the length would be seconds


@given(st.binary(max_size=40))
def test_nothing_but_readings_or_a_refusal_comes_out(path: bytes) -> None:
    try:
        readings = read(path)
    except BadRequest:
        return
    assert 1 <= len(readings) == len(set(readings)) <= MAX_READINGS
    for reading in readings:
        assert not reading.endswith(b"/")
        assert reading == b"" or reading.startswith(b"/")
        assert not {b".", b".."} & set(reading.split(b"/"))


@given(st.text("abcAB12-_~.!$&'()*+,=:@/", max_size=20).map(lambda text: "/" + text))
def test_a_plain_path_is_what_has_one_reading(path: str) -> None:
    raw = path.encode()
    try:
        readings = read(raw)
    except DotSegment:
        assert not is_plain(raw)
        return
    assert readings[0] == raw.rstrip(b"/")
    assert len(readings) == 1 or not is_plain(raw)


def test_fold_has_one_form_for_all_spellings() -> None:
    """Also: folding makes nothing that a step could still change, and NFKC makes no control byte."""
    signs = set("/\\%;#?. ") | {chr(code) for code in (*range(32), 127)}
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if unicodedata.category(character) in ("Cs", "Cn", "Co", "Lo"):
            continue
        folded = one_form(character)
        assert (
            one_form(character.lower())
            == one_form(character.upper())
            == one_form(character.casefold())
            == folded
        )
        assert one_form(folded) == folded
        composed = unicodedata.normalize("NFKC", character)
        assert one_form(unicodedata.normalize("NFKC", folded)) == one_form(composed)
        if code > 127:
            assert not signs & set(folded)
            assert all(" " <= each != "\x7f" for each in composed)


def one_form(text: str) -> str:
    return fold(text.encode()).decode()


def test_fold_of_odd_letters() -> None:
    assert fold("ADMİN".encode()) == fold("admın".encode()) == b"admin"
    assert fold("ſTRAẞE".encode()) == b"strasse"
    assert fold("\u212aelvin".encode()) == b"kelvin"
    assert fold(b"\xffADMIN") == b"\xffadmin"


@pytest.mark.parametrize(
    "path", [b"/a" + b"%EF%B7%BA" * 890, b"/a%2f" + (b"%EF%B7%BA" * 5 + b"a.//%20") * 150]
)
def test_a_path_that_swells_when_it_is_read_is_refused_before_it_costs_much(path: bytes) -> None:
    """U+FDFA is 3 bytes, and 33 after NFKC, in every reading."""
    with pytest.raises(AmbiguousPath):
        read(path)
