"""For work that makes much and leaves little garbage: ten thousand rules, read and compiled.

Python's collector walks all that lives each time as much again was made; while the trees of a
large configuration grow, and hold no circle, that is a third of the time and finds nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Nothing is collected within. Reference counts work on."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
