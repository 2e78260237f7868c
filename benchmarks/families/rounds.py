"""Programs that take turns, and what is made of their rounds."""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from benchmarks.load import Load, Measured, put
from benchmarks.peers.peer import Peer
from benchmarks.stage import Running, Stage, Unfit

K = TypeVar("K")
T = TypeVar("T")


def say(line: str) -> None:
    """Progress, beside the tables."""
    print(f"  {line}", file=sys.stderr, flush=True)


def start_all(
    stack: contextlib.ExitStack, stage: Stage, peers: Iterable[Peer], *, backend: int | None = None
) -> tuple[dict[str, Running], dict[str, str]]:
    """Those that run, and why the others don't, by name. Raises Unfit if this gateway itself doesn't."""
    running: dict[str, Running] = {}
    missing: dict[str, str] = {}
    for peer in peers:
        try:
            if why := peer.missing():
                raise Unfit(why)
            running[peer.name] = stack.enter_context(stage.started(peer, backend=backend))
        except Unfit as error:
            if peer.program == "gateway":
                raise
            missing[peer.name] = str(error)
            say(f"{peer.name}: {error}")
    return running, missing


def take_turns(contestants: Mapping[K, Callable[[], T]], rounds: int) -> dict[K, list[T]]:
    """Everyone once per round, every second round backwards: a neighbour's load hits all of them alike."""
    found: dict[K, list[T]] = {name: [] for name in contestants}
    for number in range(rounds):
        names = list(contestants)
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(contestants[name]())
    return found


def under(running: Running, load: Load, stage: Stage) -> Measured:
    """One program under load."""
    found = put(load, running.port, pids=running.pids, core=stage.load_core)
    running.tidy()
    rate, cpu = f"{found.requests_per_second:>9,.0f}/s", f"{found.cpu_us:>7.1f} us"
    say(f"{running.peer.name:<20} c={load.connections:<5}{rate} {cpu}  failed {found.failed}")
    return found


def median(found: Iterable[T], number: Callable[[T], float]) -> float:
    return statistics.median(number(each) for each in found)


def ratio(found: Iterable[T], base: Iterable[T] | None, number: Callable[[T], float]) -> float | None:
    """The median of each round's own ratio; None without a base."""
    if base is None:
        return None
    return statistics.median(number(a) / number(b) for a, b in zip(found, base, strict=True))
