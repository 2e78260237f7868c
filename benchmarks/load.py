"""Puts load on a port with wrk and reads what it measured."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """One round of wrk."""

    requests_per_second: float
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


def put(port: int, *, token: str, path: str, connections: int, seconds: int, core: int) -> Measured:
    """Load on `port` from `core` for `seconds`, as many requests as are answered."""
    command = ["taskset", "-c", str(core), wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += ["-H", f"Authorization: Bearer {token}", f"http://127.0.0.1:{port}{path}"]
    return parse(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def parse(text: str) -> Measured:
    """What wrk prints with --latency, as numbers."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if rate is None:
        raise SystemExit(f"wrk printed no rate:\n{text}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    failed = int(bad[1]) if bad else 0
    failed += sum(map(int, errors.groups())) if errors else 0
    return Measured(float(rate[1]), _milliseconds(text, 50), _milliseconds(text, 99), failed)


def _milliseconds(text: str, percentile: int) -> float:
    found = re.search(rf"\b{percentile}%\s+([\d.]+)(us|ms|s)\b", text)
    if found is None:
        return float("nan")
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]
