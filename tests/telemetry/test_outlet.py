"""Lines arrive in time and in order, and whoever reads them can't stop us."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.telemetry.outlet import FLUSH_AFTER, FLUSH_LINES, MAX_PENDING, Outlet, Target, target_of

LINE = b"x" * 99 + b"\n"


@dataclass
class Timer:
    """`loop.call_later`, called by hand."""

    waiting: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def __call__(self, delay: float, callback: Callable[[], None]) -> None:
        self.waiting.append((delay, callback))

    def fire(self) -> None:
        waiting, self.waiting = self.waiting, []
        for _, callback in waiting:
            callback()


@dataclass
class Reader:
    """A target that takes `room` bytes and can fail."""

    room: int = 10**9
    error: Exception | None = None
    got: bytearray = field(default_factory=bytearray)
    asked: int = 0
    piece: int = 4096

    def writable(self) -> bool:
        self.asked += 1
        return self.room > 0 or self.error is not None

    def write(self, data: bytes) -> int:
        if self.error is not None:
            raise self.error
        taken = data[: self.room]
        self.got += taken
        self.room -= len(taken)
        return len(taken)


def outlet_to(target: Target) -> tuple[Outlet, Timer]:
    timer = Timer()
    outlet = Outlet(target, report=lambda count: b"lost %d\n" % count)
    outlet.attach(timer)
    return outlet, timer


def test_before_there_is_a_loop_lines_go_out_at_once() -> None:
    reader = Reader()
    Outlet(reader, report=lambda _: b"").write(LINE)
    assert reader.got == LINE


def test_with_a_loop_they_wait_for_each_other() -> None:
    reader = Reader()
    outlet, timer = outlet_to(reader)
    for _ in range(10):
        outlet.write(LINE)
    assert reader.got == b""
    assert [delay for delay, _ in timer.waiting] == [FLUSH_AFTER]
    timer.fire()
    assert reader.got == LINE * 10
    assert timer.waiting == []
    outlet.write(LINE)
    assert len(timer.waiting) == 1


def test_many_do_not_wait() -> None:
    reader = Reader()
    outlet, _ = outlet_to(reader)
    for _ in range(FLUSH_LINES):
        outlet.write(LINE)
    assert reader.got == LINE * FLUSH_LINES


def test_a_line_that_may_not_wait_takes_the_others_along() -> None:
    reader = Reader()
    outlet, _ = outlet_to(reader)
    outlet.write(b"first\n")
    outlet.write_at_once(b"second\n")
    assert reader.got == b"first\nsecond\n"


def test_closing_writes_what_waits() -> None:
    reader = Reader()
    outlet, _ = outlet_to(reader)
    outlet.write(LINE)
    outlet.close()
    assert reader.got == LINE


def test_detaching_ends_the_waiting() -> None:
    reader = Reader()
    outlet, timer = outlet_to(reader)
    outlet.write(b"a\n")
    outlet.attach(None)
    outlet.write(b"b\n")
    timer.fire()
    assert reader.got == b"a\nb\n"
    assert timer.waiting == []


# -- readers that are slow or gone --------------------------------------------------------------------------


def test_a_slow_reader_gets_the_rest_later_and_in_order() -> None:
    reader = Reader(room=150)
    outlet, timer = outlet_to(reader)
    for number in range(5):
        outlet.write(b"%099d\n" % number)
    timer.fire()
    assert len(reader.got) == 150
    assert len(timer.waiting) == 1
    reader.room = 10**9
    outlet.write(b"last\n")
    timer.fire()
    assert bytes(reader.got) == b"".join(b"%099d\n" % number for number in range(5)) + b"last\n"
    assert outlet.dropped == 0


def test_a_reader_that_stopped_costs_memory_up_to_a_bound_and_then_lines() -> None:
    reader = Reader(room=0)
    outlet, timer = outlet_to(reader)
    many = 2 * MAX_PENDING // len(LINE) // FLUSH_LINES * FLUSH_LINES
    for _ in range(many):
        outlet.write(LINE)
    kept = MAX_PENDING // len(LINE)
    assert outlet.dropped == many - kept
    assert reader.asked < 10, "there is no use in asking for every line"
    timer.fire()
    reader.room = 10**9
    timer.fire()
    assert bytes(reader.got) == LINE * kept + b"lost %d\n" % outlet.dropped
    outlet.write(LINE)
    timer.fire()
    assert reader.got.count(b"lost") == 1


@pytest.mark.parametrize(
    "error", [BrokenPipeError(errno.EPIPE, "gone"), OSError(errno.EBADF, "closed"), ValueError("closed file")]
)
def test_a_reader_that_is_gone_costs_the_lines_and_nothing_else(error: Exception) -> None:
    reader = Reader(error=error)
    outlet, timer = outlet_to(reader)
    for _ in range(3):
        outlet.write(LINE)
    timer.fire()
    outlet.write(LINE)
    outlet.write_at_once(LINE)
    assert timer.waiting == []
    assert outlet.dropped == 5
    outlet.close(patience=60)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "disk full"), BlockingIOError(errno.EAGAIN, "later")]
)
def test_a_full_disk_is_tried_again(error: Exception) -> None:
    reader = Reader(error=error)
    outlet, timer = outlet_to(reader)
    outlet.write(LINE)
    timer.fire()
    assert len(timer.waiting) == 1
    reader.error = None
    timer.fire()
    assert reader.got == LINE


def test_closing_waits_a_little_for_a_slow_reader_and_not_for_ever() -> None:
    outlet, _ = outlet_to(Reader(room=0))
    outlet.write(LINE)
    outlet.close(patience=0.02)


def test_a_line_that_may_not_wait_but_must_is_tried_again() -> None:
    reader = Reader(room=0)
    outlet, timer = outlet_to(reader)
    outlet.write_at_once(LINE)
    assert len(timer.waiting) == 1
    reader.room = 10**9
    timer.fire()
    assert reader.got == LINE


def test_another_thread_leaves_the_loop_alone() -> None:
    reader = Reader(room=0)
    outlet, timer = outlet_to(reader)
    thread = threading.Thread(target=outlet.write_at_once, args=(b"1\n",))
    thread.start()
    thread.join()
    assert timer.waiting == []
    reader.room = 10**9
    outlet.write_at_once(b"2\n")
    assert reader.got == b"1\n2\n"


def test_a_finalizer_that_logs_in_the_middle_of_a_write_is_heard() -> None:
    class Interrupted(Reader):
        def write(self, data: bytes) -> int:
            if b"finalizer" not in data and not self.got:
                outlet.write_at_once(b"from a finalizer\n")
            return super().write(data[:50])

    reader = Interrupted()
    outlet, _ = outlet_to(reader)
    outlet.write_at_once(LINE)
    assert reader.got == LINE + b"from a finalizer\n"
    assert outlet.dropped == 0


# -- real descriptors ---------------------------------------------------------------------------------------


@dataclass
class Pipe:
    reading: int
    writing: io.TextIOWrapper

    def drain(self) -> bytes:
        os.set_blocking(self.reading, False)
        pieces = []
        try:
            while piece := os.read(self.reading, 65536):
                pieces.append(piece)
        except BlockingIOError:
            pass
        return b"".join(pieces)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    yield Pipe(reading, stream)
    stream.close()
    try:
        os.close(reading)
    except OSError:
        return  # closed by the test


def test_a_full_pipe_blocks_nobody(pipe: Pipe) -> None:
    outlet, timer = outlet_to(target_of(pipe.writing))
    lines = [b"%099d\n" % number for number in range(2000)]  # three times what a pipe holds
    for line in lines:
        outlet.write(line)
    timer.fire()
    got = pipe.drain()
    assert 0 < len(got) < 200_000
    while timer.waiting:
        timer.fire()
        got += pipe.drain()
    assert got == b"".join(lines)


def test_a_pipe_whose_reader_left_stops_nobody(pipe: Pipe) -> None:
    outlet, timer = outlet_to(target_of(pipe.writing))
    os.close(pipe.reading)
    for _ in range(2000):
        outlet.write(LINE)
    timer.fire()
    outlet.close()
    assert outlet.dropped == 2000


def test_lines_of_two_writers_do_not_mix_in_one_pipe(pipe: Pipe) -> None:
    outlets = [outlet_to(target_of(pipe.writing)) for _ in range(2)]
    lines = [b'{"n":%d,"x":"%s"}\n' % (number, b"y" * (number * 7 % 900)) for number in range(100)]
    for line in lines:
        for outlet, _ in outlets:
            outlet.write(line)
    got = b""
    while any(timer.waiting for _, timer in outlets):
        for _, timer in outlets:
            timer.fire()
        got += pipe.drain()
    assert sorted(json.loads(line)["n"] for line in got.splitlines()) == sorted([*range(100), *range(100)])


def test_a_line_longer_than_a_piece_arrives_whole(pipe: Pipe) -> None:
    outlet, timer = outlet_to(target_of(pipe.writing))
    outlet.write(b"short\n" + b"z" * 9000 + b"\nshort\n")
    timer.fire()
    assert pipe.drain() == b"short\n" + b"z" * 9000 + b"\nshort\n"


def test_a_file_takes_everything(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        stream.write("before\n")
        outlet, _ = outlet_to(target_of(stream))
        outlet.write(LINE * 5000)
        outlet.close()
    assert (tmp_path / "log").read_bytes() == b"before\n" + LINE * 5000


def test_threads_lose_nothing() -> None:
    reader = Reader()
    outlet, _ = outlet_to(reader)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def talk(name: int) -> None:
        for number in range(300):
            outlet.write_at_once(b"%d %d\n" % (name, number))

    threads = [threading.Thread(target=talk, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for number in range(300):
        outlet.write(b"9 %d\n" % number)
    for thread in threads:
        thread.join()
    sys.setswitchinterval(before)
    outlet.close()
    got = bytes(reader.got).splitlines()
    assert len(got) == len(set(got)) == 1500
