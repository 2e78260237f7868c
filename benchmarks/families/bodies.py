"""Bodies: many of 1 KB and 1 MB up, and single ones of 100 MB either way, with the memory they take."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

from benchmarks import machine, transfer
from benchmarks.families.rounds import median, ratio, say, start_all, take_turns, under
from benchmarks.load import CPU_US, RATE, Load
from benchmarks.peers import haproxy, nginx
from benchmarks.peers.gateway import gateway
from benchmarks.report import Cell, Effort, Found, Mark, Table
from benchmarks.stage import Running, Stage

PEERS = [gateway(), haproxy.PEER, nginx.PROXY_PASS]
_POSTED = {"1 KB": (1024, 32), "1 MB": (1024 * 1024, 8)}
"""Size of the body, and connections."""
_LARGE = 100 * 1024 * 1024
_MB = 1024 * 1024
_LEAST_SPEED = 0.5
_MOST_GROWTH_MB = 8.0
_WAYS: dict[str, Callable[[int, int, str], float]] = {"up": transfer.up, "down": transfer.down}


@dataclass(frozen=True, slots=True)
class Carried:
    """One large body."""

    mb_per_second: float
    grown_mb: float
    """How far the program's memory rose above what it had before."""
    cpu_ms: float
    """Processor time of the program."""


_SPEED, _CPU = attrgetter("mb_per_second"), attrgetter("cpu_ms")


def measure(stage: Stage, effort: Effort) -> Found:
    with contextlib.ExitStack() as stack:
        running, missing = start_all(stack, stage, PEERS, backend=stage.bodies)
        # The large ones first, into programs that have seen no body yet.
        large, marks = _large(stage, effort, running, missing)
        posts = _posts(stage, effort, running)
    how = f"100 MB {effort.rounds} times, POST {effort.short}"
    return Found(how, [large, posts], marks)


def _posts(stage: Stage, effort: Effort, running: dict[str, Running]) -> Table:
    rows: list[list[Cell]] = []
    for size, (count, connections) in _POSTED.items():
        load = Load(stage.token(), "/upload", connections, effort.brief, "post.lua", (str(count),))
        turns = {name: partial(under, each, load, stage) for name, each in running.items()}
        rounds = take_turns(turns, effort.few)
        for name, found in rounds.items():
            cells = [median(found, RATE), ratio(found, rounds.get("haproxy"), RATE), median(found, CPU_US)]
            rows.append([size, name, *cells, sum(each.failed for each in found)])
    columns = {"body": "", "program": "", "req/s": ",.0f", "ratio to HAProxy": ".2f", "CPU µs": ".0f"}
    return Table(columns | {"failed": ".0f"}, rows, "POST")


def _large(
    stage: Stage, effort: Effort, running: dict[str, Running], missing: dict[str, str]
) -> tuple[Table, list[Mark]]:
    rows: list[list[Cell]] = []
    marks: list[Mark] = []
    base = nginx.PROXY_PASS.name
    for way in _WAYS:
        turns = {name: partial(_carry, each, way, stage) for name, each in running.items()}
        rounds = take_turns(turns, effort.rounds)
        for name, found in rounds.items():
            cells = [median(found, _SPEED), ratio(found, rounds.get(base), _SPEED), median(found, _CPU)]
            rows.append([way, name, *cells, max(each.grown_mb for each in found)])
        own = rounds["gateway"]
        speed, grown = ratio(own, rounds.get(base), _SPEED), max(each.grown_mb for each in own)
        why = missing.get(base, "")
        marks.append(Mark(f"100 MB {way}, MB/s to nginx `proxy_pass`'s", _LEAST_SPEED, speed, why=why))
        marks.append(Mark(f"100 MB {way}, memory", _MOST_GROWTH_MB, grown, ".1f", " MB", most=True))
    columns = {"way": "", "program": "", "MB/s": ",.0f", "ratio to nginx": ".2f", "CPU ms": ".0f"}
    return Table(columns | {"grown by, MB": ".1f"}, rows, "One body of 100 MB"), marks


def _carry(running: Running, way: str, stage: Stage) -> Carried:
    pids, token = running.pids, stage.token()
    before, begun = machine.resident_mb(pids), machine.processor_seconds(pids)
    machine.forget_peak(pids)
    seconds = _WAYS[way](running.port, _LARGE, token)
    found = Carried(
        mb_per_second=_LARGE / _MB / seconds,
        grown_mb=max(0.0, machine.peak_mb(pids) - before),
        cpu_ms=(machine.processor_seconds(pids) - begun) * 1000,
    )
    say(f"{running.peer.name:<20} {way:<5}{found.mb_per_second:>8,.0f} MB/s, grown {found.grown_mb:.1f} MB")
    return found
