"""Two readers of the same tokens, PyJWT and ours: what one signs the other reads."""

from __future__ import annotations

import json

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.keys import SecretKey, Unreadable
from tests.support.tokens import ACCESS_SECRET, b64

KEY = SecretKey(ACCESS_SECRET)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CLAIMS = st.dictionaries(st.text(), VALUES, max_size=6)


def theirs(token: bytes) -> object:
    """What PyJWT reads of the claims, judging none of them."""
    return json.loads(jwt.PyJWS().decode(token, ACCESS_SECRET, algorithms=["HS256"]))


@given(CLAIMS)
def test_the_same_claims_are_the_same_text(claims: dict[str, object]) -> None:
    payload = json.dumps(claims, separators=(",", ":")).encode()
    token = KEY.sign(claims)
    assert token == jwt.PyJWS().encode(payload, ACCESS_SECRET, algorithm="HS256")
    assert KEY.read(token.encode()) == theirs(token.encode()) == claims


@given(CLAIMS, st.data())
def test_what_was_changed_is_refused(claims: dict[str, object], data: st.DataObject) -> None:
    token = bytearray(KEY.sign(claims).encode())
    place = data.draw(st.integers(0, len(token) - 1))
    token[place] = data.draw(
        st.sampled_from(b"Aa0_-.=+/ \n\x00\xff").filter(lambda byte: byte != token[place])
    )
    with pytest.raises(Unreadable):
        KEY.read(bytes(token))


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(token: bytes) -> None:
    with pytest.raises(Unreadable):
        KEY.read(token)


def signed(header: bytes, payload: bytes) -> bytes:
    start = b"%b.%b" % (b64(header), b64(payload))
    return b"%b.%b" % (start, KEY._signature(start))


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"none","typ":"JWT"}',
        b'{"alg":"HS512","typ":"JWT"}',
        b'{"alg":["HS256"]}',
        b'{"typ":"JWT"}',
        b'{"alg":"HS256","alg":"HS256"}',
        b'{"alg":"HS256","kid":null}',
        b'{"alg":"HS256","crit":["exp"]}',
        b'{"alg":"HS256","b64":false}',
        b'["HS256"]',
        b'"HS256"',
        b"",
        b"\xff",
    ],
)
def test_a_header_must_be_right_even_if_the_secret_signed_it(header: bytes) -> None:
    with pytest.raises(Unreadable):
        KEY.read(signed(header, b"{}"))


@pytest.mark.parametrize("header", [b'{"alg":"HS256"}', b'{ "typ" : "JWT", "alg" : "HS256" }'])
def test_a_header_may_be_written_otherwise(header: bytes) -> None:
    assert KEY.read(signed(header, b'{"sub":"1"}')) == {"sub": "1"}


@pytest.mark.parametrize(
    "payload", [b"[]", b"1", b'{"a":1,"a":1}', b'{"a":NaN}', b"[" * 5000, b'{"a":"\xff"}']
)
def test_claims_must_be_one_object(payload: bytes) -> None:
    with pytest.raises(Unreadable):
        KEY.read(signed(b'{"alg":"HS256"}', payload))


def test_a_signed_part_has_one_spelling() -> None:
    """The last letter of `e30` holds two bits that say nothing."""
    start = b"%b.%b" % (b64(b'{"alg":"HS256"}'), b"e31")
    with pytest.raises(Unreadable):
        KEY.read(b"%b.%b" % (start, KEY._signature(start)))
