"""Memory: of an idle worker, of idle connections, and after very many requests."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from benchmarks import machine
from benchmarks.families.rounds import say, under
from benchmarks.load import Load
from benchmarks.peers.gateway import gateway
from benchmarks.report import Cell, Effort, Found, Mark, Table
from benchmarks.stage import Running, Stage, Unfit

_MOST_IDLE_MB = 70.0
_MOST_CONNECTION_KB = 15.0
_IDLE_CONNECTIONS = 10_000
_FILES_BESIDES = 200
"""Open files of this process that are no connection."""
_WARMING_UP = 200
"""Connections before those that count: what is made once is no connection's."""
_USERS, _PATHS = 1_000, 20_000
_TIMEOUT = 10.0


def measure(stage: Stage, effort: Effort) -> Found:
    # With an account there is a database already: a start that makes it loads the migrations for good.
    with stage.started(gateway(account=True)) as running:
        idle = machine.resident_mb(running.pids)
        say(f"idle {idle:.1f} MB")
        count = min(_IDLE_CONNECTIONS, stage.open_files - _FILES_BESIDES)
        each_kb = _per_connection(running, stage.token(), count)
        before, after = _after_many(running, stage, effort)
    marks = [
        Mark("memory of an idle worker", _MOST_IDLE_MB, idle, ".0f", " MB", most=True),
        Mark(f"{count:,} idle connections, each", _MOST_CONNECTION_KB, each_kb, ".1f", " KB", most=True),
    ]
    rows: list[list[Cell]] = [
        ["an idle worker", f"{idle:.1f} MB"],
        [f"each of {count:,} idle keep-alive connections", f"{each_kb:.1f} KB"],
        [
            f"after {effort.requests:,} requests ({_USERS:,} users, {_PATHS:,} paths, in turn)",
            f"{after - before:+.1f} MB",
        ],
    ]
    return Found(
        f"{effort.requests:,} requests", [Table({"memory of the process": "", "": " "}, rows)], marks
    )


def _per_connection(running: Running, token: str, count: int) -> float:
    """Each connection has made a request, and waits for the next one."""
    pids = running.pids
    with _connected(running.port, token, _WARMING_UP):
        pass
    before = machine.resident_mb(pids)
    with _connected(running.port, token, count):
        found = (machine.resident_mb(pids) - before) * 1024 / count
    say(f"{count:,} idle connections, {found:.1f} KB each")
    return found


@contextlib.contextmanager
def _connected(port: int, token: str, count: int) -> Iterator[None]:
    request = f"GET /items HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    with contextlib.ExitStack() as closing:
        for _ in range(count):
            connection = closing.enter_context(socket.create_connection(("127.0.0.1", port), _TIMEOUT))
            connection.sendall(request)
            if b" 200 " not in connection.recv(65_536)[:20]:
                raise Unfit("a connection was not served")
        yield


def _after_many(running: Running, stage: Stage, effort: Effort) -> tuple[float, float]:
    """Memory after a tenth of the requests, and after all."""
    load = _varied(stage, effort)
    _ask_for(effort.requests // 10, running, load, stage)
    before = machine.resident_mb(running.pids)
    _ask_for(effort.requests, running, load, stage)
    return before, machine.resident_mb(running.pids)


def _varied(stage: Stage, effort: Effort) -> Load:
    tokens = [stage.token(user=f"user-{index}") for index in range(_USERS)]
    lines = [f"/items/{index}?page={index} {tokens[index % _USERS]}" for index in range(_PATHS)]
    file = stage.new_folder("requests") / "lines"
    file.write_text("\n".join(lines) + "\n")
    return Load("", seconds=effort.brief, script="many.lua", arguments=(str(file),))


def _ask_for(requests: int, running: Running, load: Load, stage: Stage) -> None:
    while requests > 0:
        requests -= under(running, load, stage).requests
