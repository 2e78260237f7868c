"""What the reader of heads remembers: bounded, and only what is worth it. All else of it is in tests/wire."""

from __future__ import annotations

import tracemalloc

from gateway.http.client_address import parse_address
from gateway.http.framing import valid_host
from gateway.http.header_edits import HeaderEdits
from gateway.server.heads import HeadReader, Memory, sound_host
from gateway.server.terms import Limits


def _head(*lines: bytes, version: bytes = b"1.1") -> bytes:
    return b"GET / HTTP/%b\r\nHost: a\r\n%b\r\n" % (version, b"".join(line + b"\r\n" for line in lines))


def test_the_memory_is_bounded() -> None:
    memory = Memory()
    reader, most = HeadReader(Limits(), memory), 0
    for number in range(3000):
        reader.read(_head(b"X: %d" % number))
        most = max(most, len(memory.heads), len(memory.lines))
    assert most == 1024
    for number in range(3000):
        reader.read(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
        most = max(most, len(memory.heads))
    assert most == 1024


def test_long_and_old_ones_are_not_remembered() -> None:
    memory = Memory()
    reader = HeadReader(Limits(), memory)
    reader.read(_head(b"X: " + b"y" * 2048))
    reader.read(_head(version=b"1.0"))
    assert (memory.heads, memory.lines) == ({}, {})


def test_the_request_line_is_read_each_time() -> None:
    memory = Memory()
    reader = HeadReader(Limits(), memory)
    for method, target in ((b"GET", b"/a"), (b"DELETE", b"/b?c"), (b"HEAD", b"/")):
        read = reader.read(b"%b %b HTTP/1.1\r\nHost: a\r\n\r\n" % (method, target))
        assert (read.method.encode(), read.target) == (method, target)
    assert (len(memory.heads), len(memory.lines)) == (3, 1)


def test_the_same_bytes_are_the_same_head() -> None:
    reader = HeadReader(Limits(), Memory())
    once, again, other = (reader.read(_head(b"X: " + value)) for value in (b"1", b"1", b"2"))
    assert once is again
    assert other is not once


def test_no_cache_holds_what_is_too_long_to_be_right() -> None:
    """A thousand Hosts, addresses or names of 30 KB would be 30 MB that no client needs to keep up."""
    edits = HeaderEdits.of({}, ["Cookie"])
    tracemalloc.start()
    try:
        for number in range(300):
            value = b"%d" % number + b"a" * 30_000
            assert not sound_host(value)
            assert not valid_host(value)
            assert parse_address(value.decode()) is None
            assert edits.apply_to_request([value + b": x"]) == [value + b": x"]
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
