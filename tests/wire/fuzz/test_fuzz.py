"""A few hundred storms a run; `python -m tests.wire.fuzz MINUTES` goes on for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.lanes import ASGI, RUN
from tests.wire.fuzz.run import Weather


@pytest.mark.parametrize("lane", [RUN, ASGI])
def test_storms(lane: str, tmp_path: Path) -> None:
    """Nobody gets another's answer, nothing is invented, nothing hangs, and nothing is held afterwards."""
    with Weather(tmp_path, lane) as weather:
        weather.storms(200)


def test_tunnels(tmp_path: Path) -> None:
    """What the ends say arrives, in order and from the 101 on; nothing hangs or is held afterwards."""
    with Weather(tmp_path, RUN) as weather:
        weather.tunnels(200)
