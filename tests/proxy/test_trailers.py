"""Which trailers of an answer may go on: all but those that frame, route, or speak for the gateway."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.proxy.upstream.answer import sound_trailers

DECISION = Path(__file__).parents[2] / "docs" / "decisions" / "0024-trailers.md"
NAMED = re.findall(r"`([^`]+)`", DECISION.read_text().partition("**Never passed:**")[2].partition("\n\n")[0])


@pytest.mark.parametrize("name", NAMED)
def test_what_never_passes(name: str) -> None:
    for spelled in (name, name.lower(), name.upper()):
        assert sound_trailers([(spelled.encode(), b"x"), (b"X-Sum", b"1")]) == [(b"X-Sum", b"1")]


def test_all_of_them_are_named() -> None:
    assert len(NAMED) == 15
