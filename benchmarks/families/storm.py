"""A storm of logins beside proxied traffic: what it costs the traffic, and what is left for the logins.

The gateway has every core here, and its hashing one less than that, as it decides
itself. The traffic is steady (each client waits between two requests), for a client
that asks as fast as it can measures the load generator's share of the core as well.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from operator import attrgetter

import bcrypt

from benchmarks.families.rounds import median, ratio, say, under
from benchmarks.load import P50_MS, P99_MS, RATE, Load, Measured
from benchmarks.peers.gateway import EMAIL, PASSWORD, gateway
from benchmarks.report import Cell, Effort, Found, Mark, Table
from benchmarks.stage import Running, Stage

_CONNECTIONS = 32
_CLIENTS = 8
"""Who log in, over and over, each waiting for its answer: fewer than may wait in the gateway's queue."""
_COST = 12
"""bcrypt's cost, the gateway's default."""
_MOST_P99, _LEAST_LOGINS = 2.0, 0.9
_SETTLING_S = 0.5
_LONGER = 4
"""Times the length of a brief turn: a few logins a second need it to be counted."""
_TIMEOUT = 60.0


@dataclass(slots=True)
class Storm:
    """How many logins came through."""

    logins: int = 0
    others: Counter[str] = field(default_factory=Counter)
    """What else was answered, by status."""
    rate: float = 0.0
    """Logins a second while it was measured; those on their way at its end don't count."""


@dataclass(frozen=True, slots=True)
class Round:
    """One after the other, so that a neighbour's load hits all three."""

    raw: float
    """Comparisons of bcrypt a second, alone."""
    calm: Measured
    stormy: Measured
    logins: float
    """A second, during `stormy`."""


_LOGINS, _RAW = attrgetter("logins"), attrgetter("raw")


def measure(stage: Stage, effort: Effort) -> Found:
    cores = sorted({stage.program_core, stage.load_core})
    with stage.started(gateway(account=True), cores=cores) as running:
        rounds = [_round(running, stage, cores, effort.brief * _LONGER) for _ in range(effort.few)]
    calm, stormy = [each.calm for each in rounds], [each.stormy for each in rounds]
    logins, raw = median(rounds, _LOGINS), median(rounds, _RAW)
    rows: list[list[Cell]] = [
        ["calm", median(calm, P50_MS), median(calm, P99_MS), median(calm, RATE), None],
        ["storm", median(stormy, P50_MS), median(stormy, P99_MS), median(stormy, RATE), logins],
        ["bcrypt alone", None, None, None, raw],
    ]
    columns = {"": "", "p50 ms": ".2f", "p99 ms": ".2f", "proxied req/s": ",.0f", "logins/s": ".2f"}
    worse, left = ratio(stormy, calm, P99_MS), median(rounds, lambda each: each.logins / each.raw)
    marks = [
        Mark("p99 of proxied requests in a storm of logins, to that without", _MOST_P99, worse, most=True),
        Mark("logins/s in it, to bcrypt alone", _LEAST_LOGINS, left),
    ]
    how = f"{effort.few} times {effort.brief * _LONGER} s"
    return Found(how, [Table(columns, rows)], marks)


def _round(running: Running, stage: Stage, cores: list[int], seconds: int) -> Round:
    load = Load(stage.token(), connections=_CONNECTIONS, seconds=seconds, script="paced.lua")
    raw = _raw(cores, max(1, len(cores) - 1), seconds)
    calm = under(running, load, stage)
    with _storm(running) as storm:
        stormy = under(running, load, stage)
    say(f"bcrypt alone {raw:.2f}/s, logins {storm.rate:.2f}/s, other answers {dict(storm.others)}")
    return Round(raw, calm, stormy, storm.rate)


def _raw(cores: list[int], threads: int, seconds: int) -> float:
    """Comparisons a second, in as many threads as the gateway hashes in, with nothing beside."""
    stored = bcrypt.hashpw(b"x", bcrypt.gensalt(_COST))
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        begun = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            counts = pool.map(lambda _: _compare_until(stored, begun + seconds), range(threads))
            return sum(counts) / (time.perf_counter() - begun)
    finally:
        os.sched_setaffinity(0, before)


def _compare_until(stored: bytes, deadline: float) -> int:
    count = 0
    while time.perf_counter() < deadline:
        bcrypt.checkpw(b"x", stored)
        count += 1
    return count


@contextlib.contextmanager
def _storm(running: Running) -> Iterator[Storm]:
    storm, over = Storm(), threading.Event()
    clients = [threading.Thread(target=_log_in, args=(running.port, storm, over)) for _ in range(_CLIENTS)]
    for client in clients:
        client.start()
    time.sleep(_SETTLING_S)
    begun, logins = time.perf_counter(), storm.logins
    try:
        yield storm
    finally:
        storm.rate = (storm.logins - logins) / (time.perf_counter() - begun)
        over.set()
        for client in clients:
            client.join()


def _log_in(port: int, storm: Storm, over: threading.Event) -> None:
    body = json.dumps({"email": EMAIL, "password": PASSWORD})
    while not over.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
        connection.request("POST", "/auth/login", body, {"Content-Type": "application/json"})
        status = connection.getresponse().status
        connection.close()
        if status == 200:
            storm.logins += 1
        else:
            storm.others[str(status)] += 1
