"""Whether a request stays as cheap with more connections, more routes, more users."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from pathlib import Path

from benchmarks.families.rounds import median, ratio, start_all, take_turns, under
from benchmarks.load import CPU_US, P99_MS, RATE, Load
from benchmarks.peers import haproxy
from benchmarks.peers.gateway import configure, gateway, path_of
from benchmarks.report import Cell, Effort, Found, Mark, Table
from benchmarks.stage import Stage
from gateway.config.load import load as load_config
from gateway.policy.compile import compile_policy
from gateway.policy.readings import read

_CONNECTIONS = (1, 32, 256, 1000)
_ROUTES = (1, 10, 10_000)
_USERS = (1, 1_000)
_USERS_FULL = (1, 1_000, 100_000)
_PATHS = 20_000
"""Different paths in turn: more than any memory of recent request lines holds."""
_MOST_ROUTES_COST = 3.0
_CHOICES = 5_000
_PROGRAMS = [gateway(), haproxy.PEER]


def measure(stage: Stage, effort: Effort) -> Found:
    routes, mark = _routes(stage, effort)
    return Found(effort.short, [_connections(stage, effort), routes, _users(stage, effort)], [mark])


def _connections(stage: Stage, effort: Effort) -> Table:
    rows: list[list[Cell]] = []
    with contextlib.ExitStack() as stack:
        running, _ = start_all(stack, stage, _PROGRAMS)
        for count in _CONNECTIONS:
            load = Load(stage.token(), connections=count, seconds=effort.brief)
            turns = {name: partial(under, each, load, stage) for name, each in running.items()}
            rounds = take_turns(turns, effort.few)
            own, base = rounds["gateway"], rounds.get("haproxy")
            cells = [median(own, RATE), ratio(own, base, RATE), median(own, CPU_US), median(own, P99_MS)]
            rows.append([float(count), *cells, sum(each.failed for each in own)])
    columns = {"connections": ",.0f", "req/s": ",.0f", "ratio to HAProxy": ".2f", "CPU µs": ".0f"}
    return Table(columns | {"p99 ms": ".2f", "failed": ".0f"}, rows, "More connections")


def _routes(stage: Stage, effort: Effort) -> tuple[Table, Mark]:
    choosing = {count: _choosing_us(stage, count) for count in _ROUTES}
    with contextlib.ExitStack() as stack:
        running, _ = start_all(stack, stage, [gateway(routes=count, name=str(count)) for count in _ROUTES])
        loads = {count: _different_paths(stage, effort, count) for count in _ROUTES}
        turns = {count: partial(under, running[str(count)], loads[count], stage) for count in _ROUTES}
        rounds = take_turns(turns, effort.few)
    rows: list[list[Cell]] = [
        [float(count), median(found, RATE), median(found, CPU_US), choosing[count]]
        for count, found in rounds.items()
    ]
    columns = {"routes": ",.0f", "req/s": ",.0f", "CPU µs": ".0f", "choosing the route, µs": ".2f"}
    title = f"More routes ({_PATHS:,} different paths in turn)"
    what = "choosing the route among 10,000, to among 10"
    return Table(columns, rows, title), Mark(
        what, _MOST_ROUTES_COST, choosing[_ROUTES[-1]] / choosing[_ROUTES[1]], most=True
    )


def _choosing_us(stage: Stage, count: int) -> float:
    """The quickest of several runs over paths of all shapes, without any memory of earlier ones."""
    place = stage.place(gateway(routes=count))
    loaded = load_config(Path(configure(place, routes=count)), environ=place.environ)
    assert loaded.config is not None, [str(problem) for problem in loaded.problems]
    policy, _ = compile_policy(loaded.config, loaded.places)
    assert policy is not None
    readings = [read(path_of(index, count).encode())[0] for index in range(_CHOICES)]
    runs = []
    for _ in range(5):
        begun = time.perf_counter()
        for reading in readings:
            policy.matcher.find("GET", b"localhost", reading)
        runs.append((time.perf_counter() - begun) / _CHOICES * 1e6)
    return min(runs)


def _different_paths(stage: Stage, effort: Effort, routes: int) -> Load:
    token = stage.token()
    lines = [f"{path_of(index, routes)}?n={index} {token}" for index in range(_PATHS)]
    return _in_turn(stage, effort, lines)


def _users(stage: Stage, effort: Effort) -> Table:
    rows: list[list[Cell]] = []
    with contextlib.ExitStack() as stack:
        running, _ = start_all(stack, stage, _PROGRAMS)
        for count in _USERS_FULL if effort.full else _USERS:
            lines = [f"/items?page=1 {stage.token(user=f'user-{index}')}" for index in range(count)]
            load = _in_turn(stage, effort, lines)
            turns = {name: partial(under, each, load, stage) for name, each in running.items()}
            rounds = take_turns(turns, effort.few)
            own, base = rounds["gateway"], rounds.get("haproxy")
            rows.append([float(count), median(own, RATE), ratio(own, base, RATE), median(own, CPU_US)])
    columns = {"users": ",.0f", "req/s": ",.0f", "ratio to HAProxy": ".2f", "CPU µs": ".0f"}
    return Table(columns, rows, "More users (each with a token of their own, in turn)")


def _in_turn(stage: Stage, effort: Effort, lines: list[str]) -> Load:
    file = stage.new_folder("requests") / "lines"
    file.write_text("\n".join(lines) + "\n")
    return Load("", seconds=effort.brief, script="many.lua", arguments=(str(file),))
