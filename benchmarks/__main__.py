"""`python -m benchmarks`: every program in turn, several rounds, medians and ratios.

The machine may be shared and noisy, so a number alone says little: programs take
turns within every round, and what counts is the ratio inside one run. Each
program has core 0 for itself; wrk and the backend share core 1. The processor
time per request is read from the kernel; it hardly feels the neighbours.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import backend
from benchmarks.load import Measured, put, wrk
from benchmarks.programs import Program, Setting, access_token, environment, free_port, programs, wait_for

PROGRAM_CORE, LOAD_CORE = 0, 1
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    options = _options()
    wrk()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        rounds = _measure(options, Path(folder), running)
    table = _table(rounds, options.connections)
    print(_render(table))
    if options.save:
        _save(table, options)


def _measure(
    options: argparse.Namespace, folder: Path, running: contextlib.ExitStack
) -> dict[tuple[str, int], list[Measured]]:
    environ = environment(folder)
    backend_port = free_port()
    _start(running, backend.command(backend_port, folder), backend_port, environ, LOAD_CORE)
    ports: dict[str, tuple[int, int]] = {}
    token = ""
    for program in programs():
        own = folder / program.name
        own.mkdir()
        setting = Setting(free_port(), backend_port, own, environ)
        pid = _start(running, program.command(setting), setting.port, environ, PROGRAM_CORE)
        ports[program.name] = setting.port, pid
        if program.name == "gateway":
            token = access_token(setting)
    rounds: dict[tuple[str, int], list[Measured]] = {}
    for name, connections in _turns(options, list(programs())):
        port, pid = ports[name]
        found = put(
            port,
            pid=pid,
            token=token,
            path="/items?page=1",
            connections=connections,
            seconds=options.seconds,
            core=LOAD_CORE,
        )
        rounds.setdefault((name, connections), []).append(found)
        print(
            f"  {name:<16} c={connections:<4} {found.requests_per_second:>9,.0f}/s {found.cpu_us:>7.1f} us",
            file=sys.stderr,
        )
    return rounds


def _turns(options: argparse.Namespace, competing: list[Program]) -> Iterator[tuple[str, int]]:
    for _ in range(options.rounds):
        for connections in options.connections:
            for program in competing:
                yield program.name, connections


def _start(
    running: contextlib.ExitStack, command: list[str], port: int, environ: dict[str, str], core: int
) -> int:
    """The process id: `taskset` becomes the program."""
    pinned = ["taskset", "-c", str(core), *command]
    process = subprocess.Popen(pinned, env=environ, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    running.callback(process.wait)
    running.callback(process.terminate)
    wait_for(port, process)
    return process.pid


def _table(rounds: dict[tuple[str, int], list[Measured]], connections: list[int]) -> list[dict[str, object]]:
    """One row per program and number of connections; ratios against the first program, same connections."""
    rows: list[dict[str, object]] = []
    for count in connections:
        base = _median(rounds[programs()[0].name, count], "requests_per_second")
        for program in programs():
            found = rounds[program.name, count]
            row = {key: _median(found, key) for key in ("requests_per_second", "cpu_us", "p50_ms", "p99_ms")}
            ratio = row["requests_per_second"] / base
            failed = sum(m.failed for m in found)
            rows.append(
                {"program": program.name, "what": program.what, "connections": count, "ratio": ratio}
                | row
                | {"failed": failed, "rounds": [asdict(m) for m in found]}
            )
    return rows


def _median(found: list[Measured], key: str) -> float:
    return statistics.median(getattr(m, key) for m in found)


def _render(rows: list[dict[str, object]]) -> str:
    lines = [
        "| program | connections | req/s | ratio | CPU µs | p50 ms | p99 ms | failed |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {r['program']} | {r['connections']} | {r['requests_per_second']:,.0f} | {r['ratio']:.2f} "
        f"| {r['cpu_us']:.0f} | {r['p50_ms']:.2f} | {r['p99_ms']:.2f} | {r['failed']} |"
        for r in rows
    ]
    return "\n".join(lines)


def _save(rows: list[dict[str, object]], options: argparse.Namespace) -> None:
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    measured = {
        "seconds": options.seconds,
        "rounds": options.rounds,
        "backend": "nginx" if _has_nginx() else "python",
    }
    document = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **machine, **measured, "rows": rows}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "throughput.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "throughput.md").write_text(_render(rows) + "\n")


def _has_nginx() -> bool:
    return "nginx" in backend.command(0, Path(tempfile.mkdtemp()))[0]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of every program (default 5)")
    parser.add_argument("--seconds", type=int, default=3, help="length of one turn (default 3)")
    parser.add_argument(
        "--connections", type=int, nargs="+", default=[32], help="numbers of connections (default 32)"
    )
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/throughput.{json,md}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
