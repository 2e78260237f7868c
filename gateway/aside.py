"""Work in a thread of its own, for which nobody waits at the end.

A thread of a pool is joined when the process ends, so one that reads from a file system that
no longer answers would keep the process alive for ever.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


def aside(work: Callable[[], T]) -> asyncio.Future[T]:
    """Begin it now; the future has what comes of it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    threading.Thread(target=_run, args=(work, future, loop), name="gateway-aside", daemon=True).start()
    return future


def _run(work: Callable[[], T], future: asyncio.Future[T], loop: asyncio.AbstractEventLoop) -> None:
    try:
        result = work()
    except BaseException as error:
        _tell(loop, _fail, future, error)
    else:
        _tell(loop, _finish, future, result)


def _tell(loop: asyncio.AbstractEventLoop, how: Callable[..., None], *told: object) -> None:
    with suppress(RuntimeError):  # the loop is closed: the process is ending
        loop.call_soon_threadsafe(how, *told)


def _finish(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
