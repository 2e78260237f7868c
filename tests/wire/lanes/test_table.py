"""The table of cases, row by row, through every lane it holds for."""

from __future__ import annotations

import pytest

from tests.support.lanes import H11, LANES, Yard
from tests.wire.lanes.rows import Row, play
from tests.wire.lanes.table import downwards, failures, order, upwards

pytestmark = pytest.mark.anyio

ROWS = [*upwards.ROWS, *downwards.ROWS, *failures.ROWS, *order.ROWS]
PLAYED = [(lane, row) for row in ROWS for lane in (*LANES, H11) if lane in row.lanes]


@pytest.mark.parametrize(("lane", "row"), PLAYED, ids=str)
async def test_the_table(lane: str, row: Row, yard: Yard) -> None:
    await play(row, lane, yard)


def test_every_row_has_a_name_of_its_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
