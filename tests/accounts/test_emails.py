"""One canonical form per address."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounts.emails import MAX_EMAIL_BYTES, canonical_email, fold
from gateway.accounts.ids import is_id, new_id
from gateway.errors import InvalidField


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        ("ann@example.com", "ann@example.com"),
        ("\t Ann@EXAMPLE.Com\n", "ann@example.com"),
        ("root@localhost", "root@localhost"),
        ("a+b,c@example.com", "a+b,c@example.com"),
        ("ﬁsh@example.com", "fish@example.com"),
        ("mıke@example.org", "mıke@example.org"),  # CVE-2019-19844: a dotless i is not an i
        ("K@example.com", "k@example.com"),  # the Kelvin sign
        ("straße@example.com", "strasse@example.com"),
        ("a\u0308@example.com", "\u00e4@example.com"),
        ("ann＠example.com", "ann@example.com"),
    ],
)
def test_spellings(typed: str, canonical: str) -> None:
    assert canonical_email(typed) == canonical


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "@",
        "ann",
        "ann@",
        "@example.com",
        "a@b@c",
        "a b@example.com",
        "a\u00a0b@example.com",
        "a\r\nX-Admin: 1@example.com",
        "a\0@example.com",
        "a\u200b@example.com",  # zero width space
        "a\u202e@example.com",  # right-to-left override
        "a\ud800@example.com",
        "a\ue000@example.com",
        "x" * MAX_EMAIL_BYTES + "@x",
        "é" * 200 + "@example.com",
        "x" * 10_000_000,
    ],
)
def test_what_is_no_address(typed: str) -> None:
    with pytest.raises(InvalidField):
        canonical_email(typed)


@given(st.text(max_size=60))
def test_folding_ends_and_is_stable(typed: str) -> None:
    assert fold(fold(typed)) == fold(typed)


@given(st.text(min_size=1, max_size=40), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_normal_forms_and_case_are_one_address(local: str, form: str) -> None:
    try:
        canonical = canonical_email(f"{local}@example.com")
    except InvalidField:
        return
    assert canonical_email(canonical) == canonical
    assert canonical_email(unicodedata.normalize(form, f" {local}@EXAMPLE.com")) == canonical
    canonical.encode()


def test_ids_sort_by_time_and_look_like_ids() -> None:
    ids = [new_id(now) for now in (0.0, 1_000_000_000.0, 1_800_000_000.0, 1_800_000_000.001)]
    assert ids == sorted(ids)
    assert all(is_id(id) and id[14] == "7" and id[19] in "89ab" for id in ids)
    assert not is_id(ids[0] + "\n")
