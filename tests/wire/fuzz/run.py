"""One gateway in a loop of its own, through which storms are sent one after the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.lanes import Yard, open_yard
from tests.wire.fuzz import play, tunnels
from tests.wire.fuzz.storms import storms

T = TypeVar("T")
Play = Callable[[T, str, Yard], Awaitable[None]]


class Weather:
    """See the module."""

    def __init__(self, folder: Path, lane: str) -> None:
        self._lane = lane
        self._folder = folder
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._stack = contextlib.AsyncExitStack()
        self.played = 0
        """Storms and tunnels so far."""

    def __enter__(self) -> Weather:
        self._runner.__enter__()
        self._yard: Yard = self._runner.run(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.__exit__(kind, error, trace)

    def storms(self, count: int) -> None:
        """So many, others each time. Raises for the smallest one that shows a defect."""
        self._play(storms, play.play, count)

    def tunnels(self, count: int) -> None:
        """Likewise."""
        self._play(tunnels.tunnels, tunnels.play, count)

    def _play(self, strategy: st.SearchStrategy[T], play_one: Play[T], count: int) -> None:

        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        @given(storm=strategy)
        def each(storm: T) -> None:
            self.played += 1
            self._runner.run(self._one(storm, play_one))

        each()

    async def _one(self, storm: T, play_one: Play[T]) -> None:
        await self._yard.fresh()
        async with asyncio.timeout(20):
            await play_one(storm, self._lane, self._yard)

    async def _open(self) -> Yard:
        return await self._stack.enter_async_context(open_yard(self._folder))
