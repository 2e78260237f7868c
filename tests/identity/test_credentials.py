"""One credential in one place, and everything else is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import DuplicateCredential
from gateway.identity.credentials import find_bearer


@pytest.mark.parametrize("name", [b"authorization", b"Authorization", b"AUTHORIZATION", b"aUtHoRiZaTiOn"])
@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER", b"bEaReR"])
def test_finds_a_token_whatever_the_case_of_name_and_scheme(name: bytes, scheme: bytes) -> None:
    headers = [(b"host", b"a"), (name, scheme + b" abc.def.ghi"), (b"accept", b"*/*")]
    assert find_bearer(headers) == b"abc.def.ghi"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"host", b"a")],
        [(b"authorization", b"")],
        [(b"authorization", b"   ")],
        [(b"authorization", b"Basic YTpi")],
        [(b"authorization", b"Bearertoken")],
        [(b"authorization", b"Bearer-Token abc")],
        [(b"authorization", b"Bearer,abc")],
        [(b"authorization", b"Digest username=Bearer abc")],
        [(b"proxy-authorization", b"Bearer abc")],
        [(b"x-authorization", b"Bearer abc")],
        [(b"author_zation", b"Bearer abc")],
        [(b"cookie", b"authorization=Bearer abc")],
    ],
)
def test_nothing_else_is_a_credential(headers: list[tuple[bytes, bytes]]) -> None:
    assert find_bearer(headers) is None


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"Bearer", b""),
        (b"Bearer ", b""),
        (b"bearer\t", b""),
        (b"Bearer    abc  ", b"abc"),
        (b"Bearer\tabc", b"abc"),
        (b"Bearer\tabc\t", b"abc"),
        (b"Bearer\ta b c", b"a b c"),
        (b" Bearer abc", b"abc"),
        (b"Bearer a b", b"a b"),
        (b"Bearer a, Bearer b", b"a, Bearer b"),
        (b"Bearer token=abc", b"token=abc"),
        (b'Bearer "abc"', b'"abc"'),
        (b"Bearer \xff\xfe", b"\xff\xfe"),
        (b"Bearer Bearer abc", b"Bearer abc"),
    ],
)
def test_an_odd_token_is_returned_so_that_it_fails_to_verify(value: bytes, token: bytes) -> None:
    assert find_bearer([(b"authorization", value)]) == token


@pytest.mark.parametrize("first", [b"Bearer a", b"Basic a", b"Bearer", b""])
@pytest.mark.parametrize("second", [b"Bearer a", b"Bearer b", b"Basic a", b""])
@pytest.mark.parametrize("name", [b"authorization", b"Authorization"])
def test_two_authorization_headers_are_two_credentials(first: bytes, second: bytes, name: bytes) -> None:
    with pytest.raises(DuplicateCredential):
        find_bearer([(b"authorization", first), (b"accept", b"*/*"), (name, second)])


@given(st.binary())
def test_no_value_is_an_accident(value: bytes) -> None:
    token = find_bearer([(b"authorization", value)])
    assert token is None or token in value
