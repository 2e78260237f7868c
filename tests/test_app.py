"""What the composition root does by itself."""

from __future__ import annotations

import asyncio

import pytest

from gateway.upkeep import end


@pytest.mark.anyio
async def test_a_loop_whose_library_swallows_a_cancellation_ends_all_the_same() -> None:
    swallowed = 0

    async def deaf_once() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed += 1

    tasks = [asyncio.create_task(deaf_once()), asyncio.create_task(asyncio.sleep(3600))]
    await asyncio.sleep(0)
    await asyncio.wait_for(end(tasks), timeout=30)
    assert swallowed == 1
    assert all(task.done() for task in tasks)
