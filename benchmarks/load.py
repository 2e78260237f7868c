"""Puts load on a port with wrk and reads what it measured."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from benchmarks import machine

_SCRIPTS = Path(__file__).parent / "lua"


@dataclass(frozen=True, slots=True)
class Load:
    """What to ask for, and how."""

    token: str
    path: str = "/items?page=1"
    connections: int = 32
    seconds: int = 3
    script: str = ""
    """One in `lua/`: other methods, bodies, pauses."""
    arguments: tuple[str, ...] = ()
    """For the script."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One round of wrk."""

    requests_per_second: float
    requests: int
    cpu_us: float
    """Processor time of the measured processes per request, microseconds, user and system."""
    p50_ms: float
    p99_ms: float
    failed: int
    """Answers that were not 2xx or 3xx, and socket errors."""


RATE, CPU_US = attrgetter("requests_per_second"), attrgetter("cpu_us")
P50_MS, P99_MS = attrgetter("p50_ms"), attrgetter("p99_ms")


def wrk() -> str:
    """The path of wrk; ends the run with a sentence if it is not installed."""
    path = shutil.which("wrk")
    if path is None:
        raise SystemExit("The benchmark needs wrk: apt-get install wrk")
    return path


def put(load: Load, port: int, *, pids: list[int], core: int) -> Measured:
    """The load on `port`, from `core`; `pids` are those whose processor time counts."""
    command = ["taskset", "-c", str(core), wrk(), "-t1", f"-c{load.connections}", f"-d{load.seconds}s"]
    command += ["--latency", "--timeout", "10s", "-H", f"Authorization: Bearer {load.token}"]
    command += ["-s", str(_SCRIPTS / load.script)] if load.script else []
    command += [f"http://127.0.0.1:{port}{load.path}", "--", *load.arguments]
    before = machine.processor_seconds(pids)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"wrk failed: {done.stderr or done.stdout}")
    return parse(done.stdout, machine.processor_seconds(pids) - before)


def parse(text: str, processor_seconds: float) -> Measured:
    """What wrk prints with --latency, as numbers."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    requests = re.search(r"(\d+) requests in", text)
    if rate is None or requests is None:
        raise SystemExit(f"wrk printed no rate:\n{text}")
    count = int(requests[1])
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    failed = int(bad[1]) if bad else 0
    failed += sum(map(int, errors.groups())) if errors else 0
    cpu_us = processor_seconds / max(count, 1) * 1e6
    return Measured(float(rate[1]), count, cpu_us, _milliseconds(text, 50), _milliseconds(text, 99), failed)


def _milliseconds(text: str, percentile: int) -> float:
    found = re.search(rf"\b{percentile}%\s+([\d.]+)(us|ms|s)\b", text)
    if found is None:
        return 0.0
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]
