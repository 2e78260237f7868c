"""WebSocket messages a second, there and back, through a tunnel and without one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

from benchmarks import echo, machine
from benchmarks.families.rounds import median, ratio, say, start_all, take_turns
from benchmarks.peers import envoy, haproxy
from benchmarks.peers.gateway import gateway
from benchmarks.report import Cell, Effort, Found, Table
from benchmarks.stage import Stage, Unfit

PEERS = [gateway(), haproxy.PEER, envoy.PEER]
_CONNECTIONS = (1, 32)
_DIRECT = "without a proxy"
_COLUMNS = {
    "program": "",
    "connections": ".0f",
    "messages/s": ",.0f",
    "ratio to none": ".2f",
    "CPU µs": ".1f",
}


@dataclass(frozen=True, slots=True)
class Talked:
    """One round."""

    rate: float
    """Messages of 64 bytes that came back, a second."""
    cpu_us: float
    """Processor time of the proxy per message, both ways together."""


_RATE, _CPU_US = attrgetter("rate"), attrgetter("cpu_us")


def measure(stage: Stage, effort: Effort) -> Found:
    rows: list[list[Cell]] = []
    with contextlib.ExitStack() as stack:
        running, missing = start_all(stack, stage, PEERS, backend=stage.echo)
        ports = {_DIRECT: (stage.echo, list[int]())}
        ports |= {name: (each.port, each.pids) for name, each in running.items()}
        missing |= _unable(ports, stage)
        for count in _CONNECTIONS:
            turns: dict[str, Callable[[], Talked]] = {
                name: partial(_talk, name, *each, stage, count, effort.brief)
                for name, each in ports.items()
                if name not in missing
            }
            rounds = take_turns(turns, effort.few)
            for name, found in rounds.items():
                cells = [median(found, _RATE), ratio(found, rounds[_DIRECT], _RATE)]
                rows.append([name, float(count), *cells, median(found, _CPU_US) or None])
    rows += [[f"{name}: {why}", None, None, None, None] for name, why in missing.items()]
    return Found(effort.short, [Table(_COLUMNS, rows)])


def _unable(ports: dict[str, tuple[int, list[int]]], stage: Stage) -> dict[str, str]:
    """Who opens no WebSocket, and what happens instead."""
    unable: dict[str, str] = {}
    for name, (port, _) in ports.items():
        try:
            echo.messages(port, stage.token(), connections=1, seconds=0.1)
        except Unfit as error:
            unable[name] = str(error)
            say(f"{name}: {error}")
    return unable


def _talk(name: str, port: int, pids: list[int], stage: Stage, connections: int, seconds: int) -> Talked:
    before = machine.processor_seconds(pids)
    count = echo.messages(port, stage.token(), connections=connections, seconds=seconds)
    spent = machine.processor_seconds(pids) - before
    say(f"{name:<20} c={connections:<5}{count / seconds:>9,.0f} messages/s")
    return Talked(count / seconds, spent / max(count, 1) * 1e6)
