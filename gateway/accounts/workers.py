"""A few threads of our own behind a bounded queue, for work that must not block the event loop.

asyncio's default executor is shared with whoever else uses it and queues without
limit; here each kind of work has its own threads, and a full queue says so at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from gateway.errors import Overloaded, Unavailable

T = TypeVar("T")


class Workers:
    """`threads` threads; at most `queue` pieces of work wait for one of them."""

    def __init__(self, name: str, *, threads: int, queue: int) -> None:
        self._name = name
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._room = threading.BoundedSemaphore(threads + queue)

    def __repr__(self) -> str:
        return f"<Workers {self._name}>"

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, done in one of the threads; Overloaded at once if the queue is full.

        A cancelled caller leaves work that has begun to finish on its own; work
        that still waits is never begun.
        """
        return await asyncio.wrap_future(self._submit(work))

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        if not self._room.acquire(blocking=False):
            raise Overloaded(retry_after=1)
        try:
            future = self._executor.submit(work)
        except RuntimeError as error:  # the executor was shut down
            self._room.release()
            raise Unavailable from error
        future.add_done_callback(lambda _: self._room.release())
        return future

    async def close(self) -> None:
        """Drop what waits, let what runs finish, and join the threads."""
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)
