"""Puts load on a port with wrk and reads what it measured."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Measured:
    """One round of wrk."""

    requests_per_second: float
    cpu_us: float
    """Processor time of the measured process per request, microseconds, user and system."""
    p50_ms: float
    p99_ms: float
    failed: int
    """Answers that were not 2xx or 3xx, and socket errors."""


def wrk() -> str:
    """The path of wrk; ends the run with a sentence if it is not installed."""
    path = shutil.which("wrk")
    if path is None:
        raise SystemExit("The benchmark needs wrk: apt-get install wrk")
    return path


def put(port: int, *, pid: int, token: str, path: str, connections: int, seconds: int, core: int) -> Measured:
    """Load on `port` from `core` for `seconds`, as many requests as process `pid` answers."""
    command = ["taskset", "-c", str(core), wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += ["-H", f"Authorization: Bearer {token}", f"http://127.0.0.1:{port}{path}"]
    before = _processor_seconds(pid)
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return parse(printed, _processor_seconds(pid) - before)


def _processor_seconds(pid: int) -> float:
    """User and system time so far (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def parse(text: str, processor_seconds: float) -> Measured:
    """What wrk prints with --latency, as numbers."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    requests = re.search(r"(\d+) requests in", text)
    if rate is None or requests is None:
        raise SystemExit(f"wrk printed no rate:\n{text}")
    cpu_us = processor_seconds / max(int(requests[1]), 1) * 1e6
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    failed = int(bad[1]) if bad else 0
    failed += sum(map(int, errors.groups())) if errors else 0
    return Measured(float(rate[1]), cpu_us, _milliseconds(text, 50), _milliseconds(text, 99), failed)


def _milliseconds(text: str, percentile: int) -> float:
    found = re.search(rf"\b{percentile}%\s+([\d.]+)(us|ms|s)\b", text)
    if found is None:
        return float("nan")
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]
