"""Sessions in numbers: refreshes, what is remembered of them and of API tokens, logouts felt elsewhere.

The database server shares the core of the load. Refreshes wait for its disk, so their rate is that of the
machine; the processor time of the gateway per refresh says more.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import math
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path

from benchmarks import machine, people
from benchmarks.families import api_tokens
from benchmarks.families.rounds import median, ratio, say, take_turns, under
from benchmarks.load import CPU_US, RATE, Load
from benchmarks.peers.gateway import gateway
from benchmarks.people import Person
from benchmarks.report import Cell, Effort, Found, Mark, Table
from benchmarks.stage import Running, Stage, Unfit, ask
from tests.support.databases import Postgres, Server

_PEOPLE, _PEOPLE_FULL = (10, 100_000), (10, 1_000_000)
_CUT_OFFS = (0, 100_000)
_CLIENTS = 4
"""Who refresh, over and over, each with a kept connection."""
_LOGOUTS, _LOGOUTS_FULL = 20, 100
_POLLED = 2
"""Times fewer of them where the replica is told nothing and asks every second."""
_MOST_DELAY_S = 2.0
_FLAT = 1.25
"""Times as much as with few is still the same, with the noise of a shared machine."""
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Refreshes:
    """One turn."""

    rate: float
    cpu_us: float
    failed: int


_RATE, _CPU = attrgetter("rate"), attrgetter("cpu_us")


def measure(stage: Stage, effort: Effort) -> Found:
    with _postgres() as postgres:
        refreshes, flat = _refreshes(stage, effort, postgres)
        cut_offs, cost = _cut_offs(stage, effort)
        tokens, known = api_tokens.measure(stage, effort, postgres)
        delays, delay = _delays(stage, effort, postgres)
    return Found(effort.short, [refreshes, cut_offs, *tokens, delays], [*flat, cost, known, delay])


@contextlib.contextmanager
def _postgres() -> Iterator[Postgres]:
    """`$GATEWAY_TEST_POSTGRES`, or a server of our own on the load's core."""
    given = os.environ.get("GATEWAY_TEST_POSTGRES")
    if given:
        yield Postgres(given)
        return
    server = Server(Path(tempfile.mkdtemp(prefix="benchmarks-postgres-")))
    try:
        yield Postgres(server.url)
    finally:
        server.remove()


# -- refreshes --------------------------------------------------------------------------------------------


def _refreshes(stage: Stage, effort: Effort, postgres: Postgres) -> tuple[Table, list[Mark]]:
    counts = _PEOPLE_FULL if effort.full else _PEOPLE
    rows: list[list[Cell]] = []
    marks = []
    for kind in ("SQLite", "PostgreSQL"):
        with contextlib.ExitStack() as stack:
            turns = {}
            for count in counts:
                url = "" if kind == "SQLite" else postgres.empty()
                peer = gateway(name=f"{kind}-{count}", database=url, fill=partial(people.fill, people=count))
                running = stack.enter_context(stage.started(peer))
                clients = [_Client(running, count, number) for number in range(_CLIENTS)]
                turns[count] = partial(_refresh, running, clients, effort.brief)
            rounds = take_turns(turns, effort.few)
        for count, found in rounds.items():
            failed = float(sum(each.failed for each in found))
            rows.append([kind, float(count), median(found, _RATE), median(found, _CPU), failed])
        few, many = (rounds[count] for count in counts)
        what = f"refreshes on {kind}, processor time with {counts[1]:,} people to that with {counts[0]}"
        marks.append(Mark(what, _FLAT, ratio(many, few, _CPU), most=True))
    columns = {"database": "", "people": ",.0f", "refreshes/s": ",.0f", "CPU µs": ",.0f", "failed": ".0f"}
    return Table(columns, rows, "Refreshes"), marks


class _Client:
    """Refreshes the sessions of some people in turn, each with the token that it got last."""

    def __init__(self, running: Running, count: int, number: int) -> None:
        own = range(number + 1, count + 1, _CLIENTS)
        chosen = random.Random(number).sample(own, min(len(own), 200))
        self._tokens = [Person(each, running.place).refresh_token() for each in chosen]
        self._turn = itertools.cycle(range(len(chosen)))
        self._connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=_PATIENCE)
        self.done = self.failed = 0

    def run_until(self, deadline: float) -> None:
        while time.perf_counter() < deadline:
            turn = next(self._turn)
            answer = self._post({"refreshToken": self._tokens[turn]})
            if answer is None:
                self.failed += 1
            else:
                self.done += 1
                self._tokens[turn] = answer["refreshToken"]

    def _post(self, body: dict[str, str]) -> dict[str, str] | None:
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/auth/refresh", json.dumps(body), headers)
        answer = self._connection.getresponse()
        text = answer.read()
        return dict(json.loads(text)) if answer.status == 200 else None


def _refresh(running: Running, clients: list[_Client], seconds: int) -> Refreshes:
    done, failed = sum(each.done for each in clients), sum(each.failed for each in clients)
    used, begun = machine.processor_seconds(running.pids), time.perf_counter()
    threads = [threading.Thread(target=each.run_until, args=(begun + seconds,)) for each in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took, used = time.perf_counter() - begun, machine.processor_seconds(running.pids) - used
    done, failed = sum(each.done for each in clients) - done, sum(each.failed for each in clients) - failed
    running.tidy()
    if not done:
        raise Unfit("no refresh was answered")
    found = Refreshes(done / took, used / done * 1e6, failed)
    say(f"{running.peer.name:<20} {found.rate:>9,.0f}/s {found.cpu_us:>7.0f} us  failed {failed}")
    return found


# -- cut-offs ---------------------------------------------------------------------------------------------


def _cut_offs(stage: Stage, effort: Effort) -> tuple[Table, Mark]:
    with contextlib.ExitStack() as stack:
        turns, memory = {}, {}
        for count in _CUT_OFFS:
            peer = gateway(name=f"cut-offs-{count}", fill=partial(people.fill, cut_offs=count))
            running = stack.enter_context(stage.started(peer))
            load = Load(stage.token(), seconds=effort.brief)
            turns[count], memory[count] = partial(under, running, load, stage), running
        rounds = take_turns(turns, effort.few)
        resident = {count: machine.resident_mb(running.pids) for count, running in memory.items()}
    rows: list[list[Cell]] = [
        [float(count), median(found, RATE), median(found, CPU_US), resident[count]]
        for count, found in rounds.items()
    ]
    none, many = (rounds[count] for count in _CUT_OFFS)
    mark = Mark(
        "a proxied request with 100,000 cut-offs to one without", _FLAT, ratio(many, none, CPU_US), most=True
    )
    columns = {"cut-offs": ",.0f", "proxied req/s": ",.0f", "CPU µs": ".1f", "memory MB": ".1f"}
    return Table(columns, rows, "Cut-offs that are remembered"), mark


# -- how soon a logout is felt elsewhere ------------------------------------------------------------------


def _delays(stage: Stage, effort: Effort, postgres: Postgres) -> tuple[Table, Mark]:
    count = _LOGOUTS_FULL if effort.full else _LOGOUTS
    folder = stage.new_folder("shared")
    kinds = {
        "PostgreSQL, told": (postgres.empty(), count),
        "SQLite, asked every second": (f"sqlite:///{folder}/gateway.db", max(1, count // _POLLED)),
    }
    rows: list[list[Cell]] = []
    worst = 0.0
    for kind, (url, logouts) in kinds.items():
        found = _logouts(stage, url, logouts)
        p99 = found[math.ceil(len(found) * 0.99) - 1]
        worst = max(worst, p99)
        rows.append([kind, float(logouts), statistics.median(found) * 1e3, p99 * 1e3, found[-1] * 1e3])
    mark = Mark("a logout is felt by another replica, p99", _MOST_DELAY_S, worst, ".2f", " s", most=True)
    columns = {"database": "", "logouts": ",.0f", "p50 ms": ",.0f", "p99 ms": ",.0f", "most ms": ",.0f"}
    return Table(columns, rows, "From a logout's answer to the first refusal by another replica"), mark


def _logouts(stage: Stage, url: str, count: int) -> list[float]:
    """Seconds each, the shortest first."""
    fill = partial(people.fill, people=count)
    with (
        stage.started(gateway(name="here", database=url, fill=fill)) as here,
        stage.started(gateway(name="there", database=url)) as there,
    ):
        return sorted(_logout(Person(number, here.place), here, there) for number in range(1, count + 1))


def _logout(person: Person, here: Running, there: Running) -> float:
    token = person.access_token()
    status, said = ask(there.port, "/seen", token)
    if status != 200:
        raise Unfit(f"it answers {status} {said!r} before the logout")
    time.sleep(random.Random(person.number).random())  # at any moment of the second between two polls
    connection = http.client.HTTPConnection("127.0.0.1", here.port, timeout=_PATIENCE)
    body = json.dumps({"refreshToken": person.refresh_token()})
    connection.request("POST", "/auth/logout", body, {"Content-Type": "application/json"})
    if (status := connection.getresponse().status) != 204:
        raise Unfit(f"the logout is answered with {status}")
    begun = time.perf_counter()
    connection.close()
    while ask(there.port, "/seen", token)[0] == 200:
        if time.perf_counter() - begun > _PATIENCE:
            raise Unfit("a logout was never felt")
    return time.perf_counter() - begun
