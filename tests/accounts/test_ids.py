"""Ids: version 7 of RFC 9562, bit by bit, in the order of time."""

from __future__ import annotations

import secrets
from uuid import RFC_4122, UUID

import pytest

from gateway.accounts.ids import is_id, new_id

NOW = 1_800_000_000.123


@pytest.mark.parametrize(
    ("random", "id_"),
    [
        (0, "01a3185c-507b-7000-8000-000000000000"),
        ((1 << 80) - 1, "01a3185c-507b-7fff-bfff-ffffffffffff"),
    ],
)
def test_its_bits_are_those_of_the_rfc(monkeypatch: pytest.MonkeyPatch, random: int, id_: str) -> None:
    asked: list[int] = []
    monkeypatch.setattr(secrets, "randbits", lambda bits: asked.append(bits) or random)
    assert new_id(NOW) == id_
    assert asked == [80]
    assert (UUID(id_).version, UUID(id_).variant) == (7, RFC_4122)
    assert int(id_.replace("-", "")[:12], 16) == int(NOW * 1000)


def test_they_sort_by_time_and_differ_within_a_moment() -> None:
    assert new_id(NOW) < new_id(NOW + 0.002) < new_id(NOW + 1) < new_id(2.0**38)
    assert len({new_id(NOW) for _ in range(1000)}) == 1000


def test_a_time_too_late_for_it_leaves_an_id() -> None:
    """48 bits of milliseconds last until the year 10889."""
    assert is_id(new_id((1 << 48) / 1000 + 1))


@pytest.mark.parametrize(
    "text", ["", "x", "01a3185c-507b-7000-8000-00000000000", "01A3185C-507B-7000-8000-" + "0" * 12]
)
def test_what_can_be_none(text: str) -> None:
    assert not is_id(text)
