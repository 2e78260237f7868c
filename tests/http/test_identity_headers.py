"""Nothing a client sends can be taken for what the gateway says."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.identity_headers import HeaderSieve, encode_value, fold, identity_lines
from gateway.identity.principal import Principal

ANA = Principal("u-1", "ana@example.com", True, ("analyst", "auditor"), "s-1", 1, 2_000_000_000)


def kept(*lines: tuple[bytes, bytes], sieve: HeaderSieve | None = None, trusted: bool = False) -> list[bytes]:
    return (sieve or HeaderSieve()).keep(list(lines), trusted=trusted)


def test_what_is_the_clients_own_goes_through_byte_for_byte() -> None:
    lines = [(b"Accept", b"*/*"), (b"Cookie", b"a=1"), (b"Cookie", b"b=2"), (b"X-Odd", b"\xff\xfe  x")]
    assert kept(*lines) == [b"%b: %b\r\n" % line for line in lines]


@pytest.mark.parametrize(
    "name",
    [
        b"X-User-Id",
        b"x_user_id",
        b"X.User.Id",
        b"x-user-anything",
        b"XUSER",
        b"X--User-Email",
        b"Remote-User",
        b"remote_groups",
        b"X-Forwarded-User",
        b"X_Forwarded_Email",
        b"X-Auth-Request-User",
        b"X_Forwarded_For",
        b"X-Forwarded-For",
        b"Forwarded",
        b"X-Real-IP",
        b"Client-IP",
        b"CLIENT_IP",
        b"X-Cluster-Client-Ip",
        b"Forwarded-For",
        b"CF-Connecting-IP",
        b"X-Request-Id",
        b"Traceparent",
        b"Proxy",
        b"Authorization",
        b"Content_Length",
        b"Transfer.Encoding",
        b"Host",
        b"X-Original-URL",
        b"X_HTTP_Method_Override",
        b"Connection",
        b"Keep-Alive",
        b"TE",
        b"Upgrade",
        b"Proxy-Authorization",
        b"Expect",
        b"X-Gateway-Error",
        b"---",
    ],
)
def test_a_header_that_could_speak_for_the_gateway_goes_no_further(name: bytes) -> None:
    assert kept((name, b"forged"), (b"Accept", b"*/*")) == [b"Accept: */*\r\n"]


def test_connection_removes_what_it_names_and_nothing_of_ours() -> None:
    lines = [(b"X-Debug", b"1"), (b"Connection", b"close, x-debug"), (b"Accept", b"*/*"), (b"X-DEBUG", b"2")]
    assert kept(*lines) == [b"Accept: */*\r\n"]


def test_a_trusted_proxys_word_is_kept_but_never_about_identity() -> None:
    lines = [(b"X-Forwarded-Port", b"443"), (b"X-Real-IP", b"1.1.1.1"), (b"X-Forwarded-User", b"root")]
    assert kept(*lines, trusted=True) == [b"X-Forwarded-Port: 443\r\n", b"X-Real-IP: 1.1.1.1\r\n"]
    assert kept((b"X_Forwarded_Port", b"1"), (b"X_Real_IP", b"1"), trusted=True) == []


def test_an_upstream_may_ask_for_the_token_and_for_override_headers() -> None:
    sieve = HeaderSieve(forward_authorization=True, keep_override_headers=True)
    lines = [(b"Authorization", b"Bearer x"), (b"X-HTTP-Method-Override", b"PUT"), (b"Authorization_", b"y")]
    assert kept(*lines, sieve=sieve) == [b"Authorization: Bearer x\r\n", b"X-HTTP-Method-Override: PUT\r\n"]


def test_a_client_that_invents_names_does_not_fill_the_memory() -> None:
    sieve = HeaderSieve()
    for i in range(10_000):
        sieve.keep([(b"X-%d" % i, b"1")])
    sieve.keep([(b"X-" + b"y" * 30_000, b"1")])
    assert len(sieve._verdicts) <= 4096
    assert max(map(len, sieve._verdicts)) < 100
    assert kept((b"X-User-Id", b"1"), sieve=sieve) == []


@given(st.binary(min_size=1, max_size=30))
def test_no_name_that_folds_to_an_identity_survives(noise: bytes) -> None:
    """Any mix of case and separators around the letters of a name the backend would trust."""
    separators = re.sub(rb"[0-9A-Za-z]", b"-", noise)
    letters = b"XUserRoles"
    name = b"".join(bytes([c]) + separators[i % len(separators) :][:1] for i, c in enumerate(letters))
    assert fold(name) == b"xuserroles"
    assert kept((name, b"admin")) == []


def test_the_backend_reads_who_asks() -> None:
    assert identity_lines("x-user")(ANA) == (
        b"X-User-Id: u-1\r\nX-User-Email: ana@example.com\r\nX-User-Admin: true\r\n"
        b"X-User-Roles: analyst,auditor\r\n"
    )


@pytest.mark.parametrize(
    ("preset", "names"),
    [
        ("remote-user", {b"Remote-User", b"Remote-Email", b"Remote-Name", b"Remote-Groups"}),
        (
            "x-forwarded",
            {
                b"X-Forwarded-User",
                b"X-Forwarded-Email",
                b"X-Forwarded-Preferred-Username",
                b"X-Forwarded-Groups",
            },
        ),
        (
            "x-auth-request",
            {
                b"X-Auth-Request-User",
                b"X-Auth-Request-Email",
                b"X-Auth-Request-Preferred-Username",
                b"X-Auth-Request-Groups",
            },
        ),
    ],
)
def test_presets_speak_the_names_their_backends_know_and_every_sieve_drops_them(
    preset: str, names: set[bytes]
) -> None:
    lines = [line.split(b": ", 1) for line in identity_lines(preset)(ANA).split(b"\r\n") if line]
    assert {name for name, _ in lines} == names
    assert kept(*[(name, value) for name, value in lines], trusted=True) == []


@given(st.text())
def test_no_value_can_leave_its_line(text: str) -> None:
    encoded = encode_value(text)
    assert re.fullmatch(rb"[\x21-\x7e]*", encoded)


@given(st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="%")))
def test_plain_values_are_sent_as_they_are(text: str) -> None:
    assert encode_value(text) == text.encode()
