"""What a route sets and removes, on lines as they go upstream and on a response's headers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.header_edits import (
    NO_EDITS,
    HeaderEdits,
    name_mistake,
    request_mistake,
    response_mistake,
    value_mistake,
)
from gateway.http.identity_headers import HeaderSieve, fold, identity_lines
from gateway.identity.principal import Principal

ANA = Principal("u-1", "ana@example.com", True, ("analyst",), "s-1", 1, 2_000_000_000)


class TestARequest:
    def test_gets_what_is_set_and_loses_what_is_removed(self) -> None:
        edits = HeaderEdits.of({"X-Tenant": "a", "X-New": "b c"}, ["Cookie"])
        lines = [b"Accept: */*\r\n", b"cookie: x:y\r\n", b"X-Tenant: evil\r\n", b"Cookie: 2\r\n"]
        assert edits.apply_to_request(lines) == [b"Accept: */*\r\n", b"X-Tenant: a\r\n", b"X-New: b c\r\n"]

    @pytest.mark.parametrize("name", [b"X_Tenant", b"x.tenant", b"XTENANT", b"X--Tenant-"])
    def test_has_no_other_spelling_of_what_is_set(self, name: bytes) -> None:
        edits = HeaderEdits.of({"X-Tenant": "a"}, [])
        assert edits.apply_to_request([name + b": evil\r\n"]) == [b"X-Tenant: a\r\n"]

    def test_keeps_all_else_byte_for_byte(self) -> None:
        lines = [b"X-Odd: \xff\xfe  x: y\r\n", b"x-tenants: a\r\n", b"Set-Tenant:b\r\n"]
        assert HeaderEdits.of({}, ["X-Tenant"]).apply_to_request(lines) == lines

    def test_names_that_clients_invent_do_not_pile_up(self) -> None:
        edits = HeaderEdits.of({}, ["X-Tenant"])
        for number in range(5000):
            edits.apply_to_request([b"X-%d: 1\r\n" % number])
        assert len(edits._memory) <= 1024


class TestAResponse:
    def test_gets_what_is_set_and_loses_what_is_removed(self) -> None:
        edits = HeaderEdits.of({"Cache-Control": "no-store"}, ["server"])
        headers = [
            (b"Server", b"x"),
            (b"cache-control", b"public"),
            (b"Set-Cookie", b"a"),
            (b"Set-Cookie", b"b"),
        ]
        expected = [(b"Set-Cookie", b"a"), (b"Set-Cookie", b"b"), (b"Cache-Control", b"no-store")]
        assert edits.apply(headers) == expected

    def test_loses_nothing_that_is_only_similar(self) -> None:
        headers = [(b"X_Powered_By", b"x")]
        assert HeaderEdits.of({}, ["X-Powered-By"]).apply(headers) == headers


def test_no_edits_change_nothing() -> None:
    assert not NO_EDITS
    assert HeaderEdits.of({}, ["X-A"])
    assert HeaderEdits.of({"X-A": "b"}, [])
    assert NO_EDITS.apply_to_request([b"A: b\r\n"]) == [b"A: b\r\n"]
    assert NO_EDITS.apply([(b"A", b"b")]) == [(b"A", b"b")]


@given(st.text(max_size=20), st.text(max_size=20))
def test_what_is_found_right_makes_one_line_and_no_more(name: str, value: str) -> None:
    if name_mistake(name) or value_mistake(value):
        return
    (line,) = HeaderEdits.of({name: value}, []).apply_to_request([])
    assert re.fullmatch(rb"[^\s:\x00]+: [^\r\n\x00]+\r\n", line)


@pytest.mark.parametrize("preset", ["x-user", "remote-user", "x-forwarded", "x-auth-request"])
def test_no_spelling_of_an_identity_header_can_be_set(preset: str) -> None:
    for line in identity_lines(preset)(ANA).splitlines():
        name = line.partition(b":")[0].decode()
        for spelt in (name, name.upper(), name.replace("-", "_"), name.replace("-", "."), f"-{name}"):
            assert request_mistake(spelt)


@given(st.from_regex(r"[A-Za-z._-]{1,24}", fullmatch=True).filter(lambda name: fold(name.encode())))
def test_whatever_a_route_may_set_a_client_may_send(name: str) -> None:
    """So a route can never set what the gateway vouches for."""
    if not request_mistake(name):
        assert HeaderSieve().keep([(name.encode(), b"x")])


@pytest.mark.parametrize("name", ["Content-Length", "transfer_encoding", "Connection", "X-Gateway-Error"])
def test_a_response_keeps_its_framing_and_our_errors_their_mark(name: str) -> None:
    assert response_mistake(name, add=True)
    assert response_mistake(name, add=False)


def test_cookies_may_be_taken_from_a_response_but_not_set() -> None:
    assert response_mistake("Set-Cookie", add=True)
    assert not response_mistake("Set-Cookie", add=False)
