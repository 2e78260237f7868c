"""What the kernel knows of a program: its processor time, its memory, its open files. For Linux."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_KB_PER_MB = 1024


def cores() -> tuple[int, int]:
    """The core of the measured programs, and the one of load and backend (the same if there is only one)."""
    mine = sorted(os.sched_getaffinity(0))
    return mine[0], mine[-1]


def open_files() -> int:
    """Raise this process's limit of open files as far as it goes; what is started inherits it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def family(pid: int) -> list[int]:
    """A process and everything it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in family(int(child)))]


def processor_seconds(pids: list[int]) -> float:
    """User and system time so far (proc(5), fields 14 and 15 of stat), of all their threads."""
    return sum(_processor_ticks(pid) for pid in pids) / _TICKS


def _processor_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def resident_mb(pids: list[int]) -> float:
    """Memory in use now."""
    return _status(pids, "VmRSS")


def peak_mb(pids: list[int]) -> float:
    """The most that was in use since the start or `forget_peak`."""
    return _status(pids, "VmHWM")


def forget_peak(pids: list[int]) -> None:
    """Begin a new peak at what is in use now (proc(5), clear_refs)."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pids: list[int], key: str) -> float:
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / _KB_PER_MB
