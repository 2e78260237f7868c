"""API tokens in numbers, a part of the family `accounts`: what they cost the first time, and once known.

Each is made known as a client does it, by one request. They are put into the database
directly, fifty of each person's: nobody may make more.
"""

from __future__ import annotations

import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial

from benchmarks import machine, people
from benchmarks.families.rounds import median, ratio, say, take_turns, under
from benchmarks.load import CPU_US, RATE, Load
from benchmarks.peers.gateway import gateway
from benchmarks.report import Cell, Effort, Mark, Table
from benchmarks.stage import Running, Stage, Unfit
from gateway.identity.api_tokens import make_token
from tests.support.databases import Postgres

_MANY, _MANY_FULL = 10_000, 100_000
_ON_POSTGRES = 10_000
"""Tokens that are met for the first time on PostgreSQL: the next ones cost what these do."""
_CLIENTS = 8
"""Who send tokens for the first time, each with a kept connection."""
_FLAT = 1.25
"""Times as much as with one is still the same, with the noise of a shared machine."""
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Meeting:
    """Tokens that a gateway met for the first time."""

    rate: float
    """In a second."""
    cpu_us: float
    """Processor time of the gateway for each, reading it from the database included."""


def measure(stage: Stage, effort: Effort, postgres: Postgres) -> tuple[list[Table], Mark]:
    tokens = [make_token() for _ in range(_MANY_FULL if effort.full else _MANY)]
    fewer = tokens[:_ON_POSTGRES]
    with _started(stage, tokens[:1]) as few, _started(stage, tokens) as many:
        _meet(few, tokens[:1])
        met = [_row("SQLite", tokens, _meet(many, tokens))]
        known, mark = _known(stage, effort, few, many, tokens)
    with _started(stage, fewer, postgres.empty()) as running:
        met.append(_row("PostgreSQL", fewer, _meet(running, fewer)))
    columns = {"database": "", "tokens": ",.0f", "req/s": ",.0f", "CPU µs": ",.0f"}
    return [known, Table(columns, met, "API tokens, each for the first time")], mark


def _started(stage: Stage, tokens: list[str], database: str = "") -> AbstractContextManager[Running]:
    fill = partial(people.fill_tokens, tokens=tokens)
    return stage.started(gateway(name=f"tokens-{len(tokens)}", database=database, fill=fill))


# -- for the first time -----------------------------------------------------------------------------------


def _meet(running: Running, tokens: list[str]) -> Meeting:
    """One request with each token. Raises Unfit if one is refused."""
    shares = [tokens[number::_CLIENTS] for number in range(_CLIENTS)]
    used, begun = machine.processor_seconds(running.pids), time.perf_counter()
    with ThreadPoolExecutor(_CLIENTS) as threads:
        refused = sum(threads.map(partial(_send, running.port), shares))
    took, used = time.perf_counter() - begun, machine.processor_seconds(running.pids) - used
    running.tidy()
    if refused:
        raise Unfit(f"{refused} API tokens were refused")
    found = Meeting(len(tokens) / took, used / len(tokens) * 1e6)
    say(f"{running.peer.name:<20} {found.rate:>9,.0f}/s {found.cpu_us:>7.0f} us  for the first time")
    return found


def _send(port: int, tokens: list[str]) -> int:
    """How many were refused."""
    refused = 0
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)) as connection:
        for token in tokens:
            connection.request("GET", "/items?page=1", headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            answer.read()
            refused += answer.status != 200
    return refused


def _row(database: str, tokens: list[str], met: Meeting) -> list[Cell]:
    return [database, float(len(tokens)), met.rate, met.cpu_us]


# -- known ------------------------------------------------------------------------------------------------


def _known(
    stage: Stage, effort: Effort, few: Running, many: Running, tokens: list[str]
) -> tuple[Table, Mark]:
    """Both processes have met their tokens; nothing asks the database now."""
    count, seconds = len(tokens), effort.brief
    one, in_turn = "one of them", "all of them in turn"
    turns = {
        (1, one): partial(under, few, Load(tokens[0], seconds=seconds), stage),
        (count, one): partial(under, many, Load(tokens[0], seconds=seconds), stage),
    }
    rounds = take_turns(turns, effort.few)
    memory = {(1, one): machine.resident_mb(few.pids), (count, one): machine.resident_mb(many.pids)}
    flat = ratio(rounds[count, one], rounds[1, one], CPU_US)
    varied = partial(under, many, _varied(stage, seconds, tokens), stage)
    rounds |= take_turns({(count, in_turn): varied}, effort.few)
    memory[count, in_turn] = machine.resident_mb(many.pids)
    if failed := sum(each.failed for found in rounds.values() for each in found):
        raise Unfit(f"{failed} requests with known API tokens failed")
    rows: list[list[Cell]] = [
        [float(which[0]), which[1], median(found, RATE), median(found, CPU_US), memory[which]]
        for which, found in rounds.items()
    ]
    mark = Mark(f"a proxied request with {count:,} API tokens known to one with 1", _FLAT, flat, most=True)
    columns = {
        "API tokens known": ",.0f",
        "asked with": "",
        "proxied req/s": ",.0f",
        "CPU µs": ".1f",
        "memory MB": ".1f",
    }
    return Table(columns, rows, "API tokens that are known"), mark


def _varied(stage: Stage, seconds: int, tokens: list[str]) -> Load:
    file = stage.new_folder("requests") / "lines"
    file.write_text("".join(f"/items?page=1 {token}\n" for token in tokens))
    return Load("", seconds=seconds, script="many.lua", arguments=(str(file),))
