"""One gateway in a loop of its own, through which storms are sent one after the other."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType

import uvloop
from hypothesis import HealthCheck, given, settings

from tests.support.lanes import Yard, open_yard
from tests.wire.fuzz.play import play
from tests.wire.fuzz.storms import Storm, storms


class Weather:
    """See the module."""

    def __init__(self, folder: Path, lane: str) -> None:
        self._lane = lane
        self._folder = folder
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._stack = contextlib.AsyncExitStack()
        self.played = 0
        """Storms so far."""

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

        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        @given(storm=storms)
        def each(storm: Storm) -> None:
            self.played += 1
            self._runner.run(self._one(storm))

        each()

    async def _one(self, storm: Storm) -> None:
        await self._yard.fresh()
        async with asyncio.timeout(20):
            await play(storm, self._lane, self._yard)

    async def _open(self) -> Yard:
        return await self._stack.enter_async_context(open_yard(self._folder))
