"""Where log lines leave the process: collected, written in time, and never at the cost of a request.

Lines wait at most 0.2 seconds, or until there are 128; a log record goes
out at once and takes what waits along. A kill -9 loses those 0.2 seconds.

Nobody who reads our output may stop us. The descriptor may be shared with other programs,
so it is not made non-blocking; it is asked (`poll`) before each piece of at most
4096 bytes, and a pipe that says yes takes that much whole (PIPE_BUF, pipe(7)). A file
takes all at once.

- The reader is slow, or the disk is full: up to 1 MiB waits and is tried again
  every 0.2 seconds. Further lines are dropped and counted; when writing works
  again, a line says how many are missing.
- The reader is gone (EPIPE): lines are dropped and counted, and requests go on.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TextIO

FLUSH_AFTER = 0.2
"""Seconds a line may wait."""
FLUSH_LINES = 128
"""Lines that may wait for the next flush: some 50 KB."""
MAX_PENDING = 1024 * 1024
"""Bytes that may wait for a slow reader."""
PIECE = 4096
"""PIPE_BUF on Linux: a writable pipe takes this much without blocking, and in one piece."""

Schedule = Callable[[float, Callable[[], None]], object]
"""Call this in so many seconds, on the loop: `loop.call_later`."""


class Target(Protocol):
    """Where bytes end up."""

    piece: int
    """Bytes that it may be handed at once."""

    def writable(self) -> bool:
        """Would `write` return at once?"""

    def write(self, data: bytes) -> int:
        """Takes some of it and says how much. Raises OSError, or ValueError when closed."""


class Outlet:
    """Takes whole lines. Never blocks and never raises."""

    def __init__(self, target: Target, *, report: Callable[[int], bytes]) -> None:
        self._target = target
        self._report = report
        self._schedule: Schedule | None = None
        self._home = 0
        """The thread that may call `schedule`."""
        # Reentrant: a finalizer that runs in the middle of a write may log as well.
        self._lock = threading.RLock()
        self._writing = False
        self._fresh: deque[bytes] = deque()
        """What came since the last flush: a line a request, and a deque takes it without the lock."""
        self._lines: list[bytes] = []
        self._size = 0
        self._due = False
        """A flush is scheduled."""
        self._stalled = False
        """The target did not take everything; until the scheduled flush there is no use in asking again."""
        self._gone = False
        self._unreported = 0
        self.dropped = 0
        """Lines lost since the start because nobody took them."""

    def attach(self, schedule: Schedule | None) -> None:
        """From now on lines of `write` may wait and `schedule` says when they go out; None ends that."""
        self._schedule, self._home = schedule, threading.get_ident()

    def write(self, line: bytes) -> None:
        """A line that may wait. To be called on the loop that `attach` was given."""
        self._fresh.append(line)
        if self._schedule is None or len(self._fresh) >= FLUSH_LINES:
            self._pass_on()
        elif not self._due:
            self._flush_later()

    def write_at_once(self, line: bytes) -> None:
        """A line that may not wait, from any thread; the waiting ones go before it."""
        self._fresh.append(line)
        self.flush()
        if self._lines and threading.get_ident() == self._home:
            self._flush_later()

    def _pass_on(self) -> None:
        """While the target takes nothing, lines are only kept: the scheduled flush tries again."""
        if self._stalled and self._schedule is not None:
            with self._lock:
                self._collect()
        else:
            self.flush()
        if self._lines:
            self._flush_later()

    def flush(self) -> None:
        """Write what can be written now."""
        with self._lock:
            if self._writing:
                return
            self._writing = True
            try:
                self._stalled = not self._write_out()
            except OSError as error:
                self._stalled = True
                if error.errno in (errno.EPIPE, errno.EBADF, errno.ECONNRESET):
                    self._give_up()
            except ValueError:  # a closed stream
                self._give_up()
            finally:
                self._writing = False

    def close(self, *, patience: float = 1.0) -> None:
        """The last flush. A slow reader gets `patience` seconds, one that is gone none."""
        self._schedule = None
        deadline = time.monotonic() + patience
        self.flush()
        while self._lines and time.monotonic() < deadline:
            time.sleep(0.01)
            self.flush()

    def _flush_later(self) -> None:
        if self._schedule is not None and not self._due and not self._gone:
            self._due = True
            self._schedule(FLUSH_AFTER, self._on_time)

    def _on_time(self) -> None:
        self._due = False
        self.flush()
        if self._lines:
            self._flush_later()

    def _collect(self) -> None:
        """Until there is none: a finalizer or another thread may add to them, or take them meanwhile."""
        with suppress(IndexError):
            while True:
                self._keep(self._fresh.popleft())

    def _keep(self, line: bytes) -> None:
        if self._gone or self._size + len(line) > MAX_PENDING:
            self.dropped += 1
            self._unreported += 1
        else:
            self._lines.append(line)
            self._size += len(line)

    def _write_out(self) -> bool:
        """True if nothing is left."""
        self._collect()
        while self._lines:
            if not self._target.writable():
                return False
            self._write_lines()
            self._collect()
            if self._unreported and not self._lines:
                lost, self._unreported = self._unreported, 0
                self._keep(self._report(lost))
        return True

    def _write_lines(self) -> None:
        """As much as the target takes; the rest stays, whatever ends this."""
        waiting, self._lines = self._lines, []
        data, done = b"".join(waiting), 0
        try:
            while done < len(data) and self._target.writable():
                done += self._target.write(data[done : _end_of_piece(data, done, self._target.piece)])
        finally:
            if done < len(data):
                self._lines.insert(0, data[done:])
            self._size -= done

    def _give_up(self) -> None:
        self._gone = True
        self.dropped += b"".join(self._lines).count(b"\n")
        self._lines, self._size = [], 0


def _end_of_piece(data: bytes, start: int, size: int) -> int:
    """Whole lines if one fits, so that lines of several processes don't mix in one pipe."""
    end = start + size
    if end >= len(data):
        return len(data)
    return data.rfind(b"\n", start, end) + 1 or end


def target_of(stream: TextIO) -> Target:
    """The stream's descriptor; the stream itself if it has none, as io.StringIO."""
    try:
        fd = stream.fileno()
    except OSError:  # io.UnsupportedOperation
        return StreamTarget(stream)
    stream.flush()
    return DescriptorTarget(fd)


class DescriptorTarget:
    """A pipe, a socket, a terminal, a file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.piece = MAX_PENDING if stat.S_ISREG(os.fstat(fd).st_mode) else PIECE
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def writable(self) -> bool:
        return bool(self._poll.poll(0))  # an error counts as well: the write will name it

    def write(self, data: bytes) -> int:
        return os.write(self._fd, data)


class StreamTarget:
    """For streams that live in memory."""

    piece = PIECE

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        self._stream.write(data.decode("ascii"))
        return len(data)
