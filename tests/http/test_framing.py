"""Host and body length have one meaning, or the request has none."""

from __future__ import annotations

import pytest

from gateway.errors import BadFraming, BadHost
from gateway.http.framing import CHUNKED, Framing, read_framing, valid_host
from gateway.http.head import Headers


def body_of(headers: Headers, *, http_version: str) -> int | None:
    return read_framing([(b"host", b"a"), *headers], http_version=http_version).body


def host_of(headers: Headers, *, http_version: str) -> bytes:
    return read_framing(headers, http_version=http_version).host


def test_a_request_without_framing_headers_has_no_body() -> None:
    assert body_of([(b"accept", b"*/*")], http_version="1.1") == 0


def test_an_announced_length_of_nothing_is_remembered() -> None:
    headers = [(b"Host", b"a"), (b"Content-Length", b"0")]
    assert read_framing(headers, http_version="1.1") == Framing(b"a", 0, True)


def test_a_length_is_taken_at_its_word() -> None:
    assert body_of([(b"Content-Length", b"17")], http_version="1.1") == 17


def test_chunked_is_a_body_of_unknown_length() -> None:
    assert body_of([(b"Transfer-Encoding", b" Chunked ")], http_version="1.1") is CHUNKED


@pytest.mark.parametrize(
    "length", [b"+1", b"-1", b"1,1", b" 1", b"0x1", b"", b"1e3", b"1" * 19, "١".encode()]
)
def test_an_odd_length_is_refused(length: bytes) -> None:
    with pytest.raises(BadFraming) as refused:
        body_of([(b"content-length", length)], http_version="1.1")
    assert refused.value.close


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"1"), (b"Content-Length", b"1")],
        [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"gzip, chunked")],
        [(b"transfer-encoding", b"identity")],
    ],
)
def test_two_ways_to_read_a_length_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(BadFraming):
        body_of(headers, http_version="1.1")


def test_http_1_0_knows_no_chunks() -> None:
    with pytest.raises(BadFraming):
        body_of([(b"transfer-encoding", b"chunked")], http_version="1.0")


def test_the_host_is_the_one_that_was_sent() -> None:
    assert host_of([(b"HOST", b"shop.example:8080")], http_version="1.1") == b"shop.example:8080"


def test_only_http_1_0_may_come_without_a_host() -> None:
    assert host_of([], http_version="1.0") == b""
    with pytest.raises(BadHost):
        host_of([], http_version="1.1")


def test_two_hosts_are_none() -> None:
    with pytest.raises(BadHost):
        host_of([(b"host", b"a"), (b"Host", b"a")], http_version="1.1")


@pytest.mark.parametrize(
    "host", [b"a", b"a.b:80", b"[::1]", b"[::1]:80", b"127.0.0.1", b"a:", b"xn--e1afmkfd", b"a_b"]
)
def test_hosts_that_are_hosts(host: bytes) -> None:
    assert valid_host(host)


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"a b",
        b"a/b",
        b"a@b",
        b"a:b",
        b"a:80:80",
        b"[::1",
        b"a#b",
        b"a?b",
        b"a\\b",
        b"\xc3\xa9",
        b"a\x00",
    ],
)
def test_hosts_that_are_not(host: bytes) -> None:
    assert not valid_host(host)
