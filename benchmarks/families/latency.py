"""One small GET at a time: what a single client feels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from benchmarks.families.rounds import median, ratio, start_all, take_turns, under
from benchmarks.load import P50_MS, P99_MS, Load, Measured, put
from benchmarks.peers import envoy, haproxy
from benchmarks.peers.gateway import gateway
from benchmarks.report import Cell, Effort, Found, Mark, Table
from benchmarks.stage import Stage

PEERS = [gateway(), haproxy.PEER, envoy.PEER]
_COLUMNS = {
    "program": "",
    "p50 µs": ".0f",
    "p99 µs": ".0f",
    "p50 to HAProxy's": ".2f",
    "p99 to HAProxy's": ".2f",
}
_MOST = 1.25
_US = 1000


def measure(stage: Stage, effort: Effort) -> Found:
    load = Load(stage.token(), connections=1, seconds=effort.brief)
    with contextlib.ExitStack() as stack:
        running, missing = start_all(stack, stage, PEERS)
        turns: dict[str, Callable[[], Measured]] = {
            name: partial(under, each, load, stage) for name, each in running.items()
        }
        turns["the backend itself"] = partial(put, load, stage.answers, pids=[], core=stage.load_core)
        rounds = take_turns(turns, effort.rounds)
    base = rounds.get("haproxy")
    rows: list[list[Cell]] = [
        [name, median(found, P50_MS) * _US, median(found, P99_MS) * _US, *_ratios(found, base)]
        for name, found in rounds.items()
    ]
    rows += [[f"{name}: {why}", None, None, None, None] for name, why in missing.items()]
    p50, p99 = _ratios(rounds["gateway"], base)
    why = missing.get("haproxy", "")
    marks = [
        Mark("one request at a time, p50 to HAProxy's", _MOST, p50, most=True, why=why),
        Mark("one request at a time, p99 to HAProxy's", _MOST, p99, most=True, why=why),
    ]
    return Found(
        f"{effort.rounds} rounds of {effort.brief} s",
        [Table(_COLUMNS, rows)],
        marks,
        {name: [*map(asdict, found)] for name, found in rounds.items()},
    )


def _ratios(found: list[Measured], base: list[Measured] | None) -> tuple[float | None, float | None]:
    return ratio(found, base, P50_MS), ratio(found, base, P99_MS)
