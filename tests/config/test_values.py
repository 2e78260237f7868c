"""Sizes, durations, rates, addresses: what is understood, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config import values
from gateway.config.filled import Filled, show
from gateway.config.values import Listen, Rate, UpstreamUrl


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512B", 512),
        ("8KiB", 8192),
        ("10 MiB", 10 << 20),
        ("1GiB", 1 << 30),
        ("2kB", 2000),
        ("2MB", 2_000_000),
        ("2GB", 2 * 10**9),
        (77, 77),
        ("77", 77),
    ],
)
def test_sizes(text: Any, size: int) -> None:
    assert values.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "8", "KiB", "8K", "8kib", "-8KiB", "1.5MiB", True, -1, 1.5, None, {}, ()]
)
def test_no_sizes(text: Any) -> None:
    if text == "8":
        assert values.parse_size(text) == 8
        return
    with pytest.raises(ValueError, match="must be a size like"):
        values.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10),
        ("15m", 900),
        ("12h", 43200),
        ("7d", 604800),
        ("1h30m", 5400),
        ("1.5s", 1.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert values.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "10 s", "10", "-1s", "1w", "1e3s", "10S", True, None, ()])
def test_no_durations(text: Any) -> None:
    with pytest.raises(ValueError, match="must be a duration like"):
        values.parse_duration(text)


@pytest.mark.parametrize("number", [10, 1.5, 0])
def test_a_duration_needs_its_unit(number: float) -> None:
    with pytest.raises(ValueError, match=f"write {number}s for seconds"):
        values.parse_duration(number)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("5/minute", Rate(5, 60)),
        ("5 / minutes", Rate(5, 60)),
        ("100/10s", Rate(100, 10)),
        ("1/2hours", Rate(1, 7200)),
        ("1/day", Rate(1, 86400)),
        ("7/h", Rate(7, 3600)),
    ],
)
def test_rates(text: str, rate: Rate) -> None:
    assert values.parse_rate(text) == rate
    assert str(rate) == f"{rate.amount}/{rate.seconds}s"


@pytest.mark.parametrize("text", ["", "5", "0/minute", "5/0s", "5/week", "/minute", "-1/s", 5, None, ()])
def test_no_rates(text: Any) -> None:
    with pytest.raises(ValueError, match="must be a rate like"):
        values.parse_rate(text)


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("127.0.0.1:8080", Listen("127.0.0.1", 8080, "")),
        ("localhost:0", Listen("localhost", 0, "")),
        ("[::1]:80", Listen("::1", 80, "")),
        ("[0:0::1]:80", Listen("::1", 80, "")),
        ("unix:/run/a.sock", Listen("", 0, "/run/a.sock")),
        ("unix:///run/a.sock", Listen("", 0, "/run/a.sock")),
    ],
)
def test_listeners(text: str, listen: Listen) -> None:
    assert values.parse_listen(text) == listen
    assert values.parse_listen(str(listen)) == listen


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://a", UpstreamUrl("http", "a", 80, "")),
        ("https://A.example/", UpstreamUrl("https", "a.example", 443, "")),
        ("http://[::1]", UpstreamUrl("http", "::1", 80, "")),
        ("http://[::1]:9000", UpstreamUrl("http", "::1", 9000, "")),
        ("http://my_app-1:9000", UpstreamUrl("http", "my_app-1", 9000, "")),
        ("unix:/run/a.sock", UpstreamUrl("unix", "", 0, "/run/a.sock")),
    ],
)
def test_upstream_urls(text: str, url: UpstreamUrl) -> None:
    assert values.parse_upstream_url(text) == url
    assert values.parse_upstream_url(str(url)) == url


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://", "must begin with http://"),
        ("http:///x", "must begin with http://"),
        ("http://[::1", "is not a URL"),
        ("http://a:x", "is not a URL"),
        ("http://a?", "can't have a query"),
        ("http://a\n", "can't hold blanks"),
        ("http://-a", "has a bad host name"),
        ("http://0177.0.0.1", "has a bad host name"),
        ("http://bücher.example", "has a bad host name"),
        ("unix:", "needs the socket's absolute path"),
        ("unix:/a\0b", "needs the socket's absolute path"),
    ],
)
def test_no_upstream_urls(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        values.parse_upstream_url(text)


@pytest.mark.parametrize(
    "url", ["https://user:hunter2@h", "http://hunter2@h/x?y", "ftp://u:hunter2@h", "x hunter2@h"]
)
def test_a_url_with_a_password_is_never_quoted(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        values.parse_upstream_url(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("https://App.Example.com/", "https://app.example.com"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_public_urls(text: str, url: str) -> None:
    assert values.parse_public_url(text) == url


@pytest.mark.parametrize("text", [None, 7, "https://a/b", "https://a..b", "a"])
def test_no_public_urls(text: Any) -> None:
    with pytest.raises(ValueError, match=r"URL|path|host|begin"):
        values.parse_public_url(text)


@pytest.mark.parametrize(
    "text", ["[::1]:80", "*.a:80", "*", "a..b", "[::g]", "", "xn--bcher-kva.example", "ü", 1]
)
def test_host_patterns(text: Any) -> None:
    if text == "xn--bcher-kva.example":
        assert values.parse_host_pattern(text) == text
        return
    with pytest.raises(ValueError, match=r"host|port|xn--"):
        values.parse_host_pattern(text)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://a", "a"),
        ("http://a:443", "a:443"),
        ("https://[::1]", "[::1]"),
        ("https://[::1]:80", "[::1]:80"),
        ("unix:/run/a.sock", "localhost"),
    ],
)
def test_what_a_host_header_says_of_an_upstream(url: str, authority: str) -> None:
    assert values.parse_upstream_url(url).authority == authority


def test_one_email_has_one_form() -> None:
    assert values.parse_email(" Ａnn@Example.COM ") == "ann@example.com"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x", '"x"'),
        (True, "true"),
        (None, "nothing"),
        ({}, "a mapping"),
        ((), "a list"),
        (1.5, "1.5"),
        ("x" * 61, f'"{"x" * 60}…"'),
        (Filled("hunter2", "${PW}"), '"${PW}"'),
    ],
)
def test_how_a_message_quotes_a_value(value: Any, shown: str) -> None:
    assert show(value) == shown


def test_integers_and_switches_from_variables() -> None:
    assert values.parse_integer("+12") == 12
    assert values.parse_switch("TRUE") is True
    assert values.parse_switch(False) is False
    for parse in (values.parse_integer, values.parse_switch, values.parse_text, values.parse_address):
        with pytest.raises(ValueError, match="must be"):
            parse(None)
