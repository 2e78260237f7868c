"""Whether files have changed, told by what they hold.

They are read at every look. Names, sizes and dates can all stay the same while the content
changes: Kubernetes swaps a symlink two folders up, an archive restores dates, and two writes
within one tick of the clock leave no trace. What is compared is small and in the page cache.

A change is taken up when two looks in a row agree on it: an editor that truncates and then
writes, or a copy that is under way, is half done in between. For the same reason a reading
stands between two looks that have to agree.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.cli.loading import Examined, examine
from gateway.config.source import MAX_BYTES

TRIES = 5
"""When the files change under the reading eye."""
TICK_S = 0.05
"""How far the date of a change may lie behind the clock: a file system's is coarser."""


@dataclass(frozen=True, slots=True)
class Sight:
    """One file at one moment."""

    content: bytes
    """A digest of what it holds, as far as it would be read; or why it can't be."""
    stamp: tuple[int, ...] = ()
    """Device, inode, size, and when it was written and changed in any way (ns); empty for no file."""

    def is_younger(self, moment: float) -> bool:
        """Whether it has changed since then (Unix seconds). Nobody can set the last of its dates back."""
        return bool(self.stamp) and self.stamp[-1] >= moment * 1e9


Sights = Mapping[Path, Sight]


def look(files: Iterable[Path]) -> Sights:
    """At each of them. Never raises, and waits for nothing but the file system."""
    return {file: _look(file) for file in files}


@dataclass(frozen=True, slots=True)
class Reading:
    """A configuration, and its files before and after it was read."""

    examined: Examined
    """What it says."""
    before: Sights
    """Of the files that were known."""
    after: Sights
    """Of those that it takes."""
    whole: bool
    """No file changed meanwhile, so that it is one configuration and not halves of two."""


def read(path: Path, known: Iterable[Path], *, calm: float = TICK_S, certificate: bool = True) -> Reading:
    """Examine `path` between two looks at its files. Those not `known` must have been `calm` (seconds)."""
    began, before = time.time(), look(known)
    examined = examine(path, certificate=certificate)
    after = look(examined.files)
    return Reading(examined, before, after, not _torn(before, after, began - calm))


def read_now(path: Path, known: Iterable[Path], *, certificate: bool = True) -> Reading:
    """Examine `path` as it is, again and again if it changes meanwhile; in the end it may not be whole."""
    reading = read(path, known, certificate=certificate)
    for _ in range(TRIES - 1):
        if reading.whole:
            break
        reading = read(path, reading.after, certificate=certificate)
    return reading


def _torn(before: Sights, after: Sights, since: float) -> bool:
    return any(
        sight != before[file] if file in before else sight.is_younger(since) for file, sight in after.items()
    )


class Watch:
    """What was tried last, and whether there is something new to try."""

    def __init__(self, sights: Sights, *, sure: bool = True) -> None:
        """`sights` are what is served."""
        self.settle(sights, sure=sure)

    @property
    def files(self) -> tuple[Path, ...]:
        """What to look at."""
        return tuple(self._seen)

    def settle(self, sights: Sights, *, sure: bool = True) -> None:
        """This was tried, whatever came of it; not `sure` if it may be newer than what was."""
        self._seen = self._tried = _contents(sights)
        if not sure:
            self.doubt()

    def doubt(self) -> None:
        """What was tried may be something else by now: it is tried again."""
        self._tried = {}

    def widen(self, sights: Sights) -> None:
        """Something untried is there, and these are its files. They are to be seen once more."""
        self._seen = _contents(sights)

    def is_due(self, sights: Sights) -> bool:
        """After one more look: whether it shows something untried, and the same as the look before."""
        before, self._seen = self._seen, _contents(sights)
        return self._seen != self._tried and self._seen == before


def same(one: Sights, other: Sights) -> bool:
    """Whether two looks show the same contents."""
    return _contents(one) == _contents(other)


def _contents(sights: Sights) -> dict[Path, bytes]:
    return {file: sight.content for file, sight in sights.items()}


def _look(file: Path) -> Sight:
    try:
        # Opening a device may do something, and opening a pipe wakes whoever waits at its other end.
        if not stat.S_ISREG(os.stat(file).st_mode):
            return Sight(b"no regular file")
        # It may be another one by now, so still nothing that waits.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        return Sight(_reason(error))
    try:
        return _read(descriptor)
    except OSError as error:
        return Sight(_reason(error))
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Sight:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        return Sight(b"no regular file")
    digest, left = hashlib.sha256(), MAX_BYTES + 1  # what is larger is refused, whatever follows
    while left and (chunk := os.read(descriptor, min(left, 1 << 16))):
        digest.update(chunk)
        left -= len(chunk)
    stamp = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return Sight(digest.digest(), stamp)


def _reason(error: OSError | ValueError) -> bytes:
    number = error.errno if isinstance(error, OSError) else None
    return errno.errorcode.get(number or 0, "unreadable").encode()
