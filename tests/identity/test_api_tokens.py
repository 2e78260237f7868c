"""API tokens as text: what is made is sound, and no slip of a finger or of a knife is."""

from __future__ import annotations

import re
import string
from hashlib import sha256
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.identity import api_tokens as room
from gateway.identity.api_tokens import PATTERN, digest_of, is_sound, make_token

BASE62 = string.digits + string.ascii_letters
randoms = st.text(BASE62, min_size=43, max_size=43)


def formatted(random: str) -> str:
    """As the guide says how, without a look at the code."""
    alphabet = string.digits + string.ascii_uppercase + string.ascii_lowercase
    number, check = crc32(random.encode()), ""
    while number:
        number, digit = divmod(number, 62)
        check = alphabet[digit] + check
    return f"gwt_{random}{check.rjust(6, '0')}"


def test_what_is_made_is_sound_and_new_each_time() -> None:
    made = [make_token() for _ in range(200)]
    assert len(set(made)) == 200
    assert all(re.fullmatch(PATTERN, token) and is_sound(token.encode()) for token in made)
    assert {len(token) for token in made} == {53}
    used = {character for token in made for character in token[4:47]}
    assert used == set(BASE62)


@given(randoms)
def test_the_guide_tells_how_to_check_one(random: str) -> None:
    assert is_sound(formatted(random).encode())


@settings(max_examples=300)
@given(randoms, st.integers(0, 52), st.characters(codec="ascii"))
def test_one_wrong_character_is_always_noticed(random: str, at: int, wrong: str) -> None:
    token = formatted(random)
    mistyped = token[:at] + wrong + token[at + 1 :]
    assert is_sound(mistyped.encode()) is (mistyped == token)


@given(randoms, st.integers(0, 51))
def test_two_neighbours_that_changed_places_are_noticed(random: str, at: int) -> None:
    token = formatted(random)
    swapped = token[:at] + token[at + 1] + token[at] + token[at + 2 :]
    assert is_sound(swapped.encode()) is (swapped == token)


@given(randoms, st.integers(0, 52), st.text(BASE62, min_size=1, max_size=3))
def test_cut_off_and_padded_ones_are_noticed(random: str, cut: int, more: str) -> None:
    token = formatted(random)
    for wrong in (
        token[:cut],
        token[cut + 1 :],
        token + more,
        more + token,
        token + "=",
        token + "\n",
        f" {token}",
    ):
        assert not is_sound(wrong.encode())


@given(st.binary(max_size=80))
def test_bytes_of_any_kind_are_taken(token: bytes) -> None:
    assert not is_sound(token)
    assert not digest_of(b"gwt_" + token)


def test_the_digest_is_that_of_the_whole_text() -> None:
    token = make_token().encode()
    assert digest_of(token) == sha256(token).digest()


@pytest.mark.parametrize("token", [None, b"", b"eyJhbGciOiJIUzI1NiJ9.e30.x", b"GWT_x", b"gwt", b"xgwt_"])
def test_what_is_no_api_token_has_no_digest(token: bytes | None) -> None:
    assert digest_of(token) is None


@pytest.mark.parametrize("token", [b"gwt_", b"gwt_x", b"gwt_" + b"0" * 49, b"gwt_" + b"0" * 9000])
def test_one_that_was_never_made_here_has_an_empty_one(token: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "sha256", None)  # not even hashed
    assert digest_of(token) == b""
