"""Small GETs, 32 connections: how many a second, beside everyone who does the same job."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from functools import partial

from benchmarks.families.rounds import median, ratio, start_all, take_turns, under
from benchmarks.load import CPU_US, P50_MS, P99_MS, RATE, Load, Measured
from benchmarks.peers import caddy, ceiling, envoy, gateway_asgi, haproxy, nginx, starlette_httpx
from benchmarks.peers.gateway import gateway
from benchmarks.peers.peer import Peer
from benchmarks.report import Cell, Effort, Found, Mark, Table
from benchmarks.stage import Stage

PEERS = [
    gateway(),
    gateway_asgi.PEER,
    haproxy.PEER,
    envoy.PEER,
    nginx.AUTH_REQUEST,
    caddy.PEER,
    starlette_httpx.PEER,
    ceiling.PEER,
    nginx.PROXY_PASS,
]
COLUMNS = {
    "program": "",
    "what": "",
    "req/s": ",.0f",
    "ratio to HAProxy": ".2f",
    "CPU µs": ".0f",
    "to HAProxy's": ".2f",
    "p50 ms": ".2f",
    "p99 ms": ".2f",
    "failed": ".0f",
}
_CONNECTIONS = 32
_WANTED = [
    ("`gateway run`, requests/s to HAProxy's", "gateway", "haproxy", 1.0),
    ("`gateway run`, requests/s to Envoy's", "gateway", "envoy", 2.0),
    ("the ASGI lane, requests/s to the ASGI ceiling's", "gateway-asgi", "asgi-ceiling", 0.5),
]


def measure(stage: Stage, effort: Effort) -> Found:
    load = Load(stage.token(), connections=_CONNECTIONS, seconds=effort.seconds)
    with contextlib.ExitStack() as stack:
        running, missing = start_all(stack, stage, PEERS)
        turns = {name: partial(under, each, load, stage) for name, each in running.items()}
        rounds = take_turns(turns, effort.rounds)
    base = rounds.get("haproxy")
    rows = [_row(peer, rounds.get(peer.name), base, missing.get(peer.name, "")) for peer in PEERS]
    rows.sort(key=lambda row: -float(row[2] or 0))
    marks = [_mark(rounds, *each) for each in _WANTED]
    raw = {name: [asdict(each) for each in found] for name, found in rounds.items()}
    return Found(effort.main, [Table(COLUMNS, rows)], marks, raw)


def _row(peer: Peer, found: list[Measured] | None, base: list[Measured] | None, why: str) -> list[Cell]:
    if found is None:
        return [peer.name, f"{peer.what}: {why}", *[None] * (len(COLUMNS) - 2)]
    speed = [median(found, RATE), ratio(found, base, RATE)]
    cost = [median(found, CPU_US), ratio(found, base, CPU_US)]
    waiting = [median(found, P50_MS), median(found, P99_MS)]
    return [peer.name, peer.what, *speed, *cost, *waiting, sum(each.failed for each in found)]


def _mark(rounds: dict[str, list[Measured]], what: str, name: str, base: str, target: float) -> Mark:
    for each in (name, base):
        if each not in rounds:
            return Mark(what, target, None, why=f"{each} did not run")
    return Mark(what, target, ratio(rounds[name], rounds[base], RATE))
