"""What a request costs `gateway run` itself: no sockets, no kernel, no other program.

The lane of one process is fed bytes, and its transports only count what is written, so
nothing of this is the network's. Processor time is disturbed by neighbours, if less than
a clock's; how many instructions of the interpreter a request takes is not disturbed at all.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from uvicorn.server import ServerState

from benchmarks.backend import ANSWER
from benchmarks.families.rounds import say
from benchmarks.peers.gateway import configure, gateway
from benchmarks.report import Cell, Effort, Found, Table
from benchmarks.stage import Stage
from gateway import app as root
from gateway.cli.run import lane_of
from gateway.config.load import load
from gateway.policy.compile import compile_policy
from gateway.proxy.upstream.connection import Connection
from gateway.server.protocol import GatewayConfig, GatewayProtocol
from gateway.server.terms import Limits, Terms
from gateway.telemetry import logs

_CONNECTIONS = 32
_PATHS, _USERS = 20_000, 1_000
_AT_ONCE, _TRACED = 4_000, 200
"""Requests of one measurement, and of the count of instructions."""
_ANSWERED = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Fri, 27 Nov 2026 03:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n%b"
    % (len(ANSWER), ANSWER)
)


def measure(stage: Stage, effort: Effort) -> Found:
    """In a loop of its own; the gateway is built as `gateway run` builds it, and listens nowhere."""
    rows = asyncio.run(_rows(stage, effort))
    columns = {"requests": "", "CPU µs": ".1f", "instructions of the interpreter": ",.0f"}
    return Found(f"the least of {_tries(effort)} times {_AT_ONCE:,}", [Table(columns, rows)])


def _tries(effort: Effort) -> int:
    return 3 * effort.rounds


async def _rows(stage: Stage, effort: Effort) -> list[list[Cell]]:
    bench = _Bench(stage)
    rows: list[list[Cell]] = []
    for what, requests in _workloads(stage).items():
        bench.run(requests, max(len(requests), _AT_ONCE) if len(requests) < _PATHS else _AT_ONCE)
        count = bench.instructions(requests)
        least = min(bench.processor_us(requests) for _ in range(_tries(effort)))
        say(f"{what:<28}{least:>7.1f} us  {count:>7,.0f} instructions")
        rows.append([what, least, count])
    bench.close()
    return rows


def _workloads(stage: Stage) -> dict[str, list[bytes]]:
    token, body = stage.token(), b"x" * 1024
    return {
        "the same GET": [_get("/items?page=1", token)],
        f"GET, {_PATHS:,} paths in turn": [_get(f"/items/{index}", token) for index in range(_PATHS)],
        f"GET, {_USERS:,} users in turn": [
            _get("/items?page=1", stage.token(user=f"user-{index}")) for index in range(_USERS)
        ],
        "POST of 1 KB": [_get("/items", token, "POST", b"Content-Length: 1024\r\n") + body],
    }


def _get(target: str, token: str, method: str = "GET", more: bytes = b"") -> bytes:
    line = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAuthorization: Bearer {token}\r\n"
    return line.encode() + more + b"\r\n"


class _Bench:
    """One lane with its connections, and one connection to a backend."""

    def __init__(self, stage: Stage) -> None:
        place = stage.place(gateway())
        loaded = load(Path(configure(place)), environ=place.environ)
        assert loaded.config is not None, [str(problem) for problem in loaded.problems]
        policy, _ = compile_policy(loaded.config, loaded.places)
        assert policy is not None
        self._log = (place.folder / "log").open("w")
        self._outlet = logs.configure(self._log)
        built = root.build(loaded.config, policy, outlet=self._outlet)
        loop = asyncio.get_running_loop()
        self._outlet.attach(loop.call_later)
        limits = Limits(**loaded.config.server.limits.model_dump())
        config = GatewayConfig(built.asgi, Terms(limits), lane=lane_of(built, 30.0))
        config.load()
        self._socket, self._other_end = socket.socketpair()
        self._clients = [GatewayProtocol(config, ServerState(), {}, loop) for _ in range(_CONNECTIONS)]
        self._transports = [_Transport(self._socket) for _ in self._clients]
        for client, transport in zip(self._clients, self._transports, strict=True):
            client.connection_made(transport)
        self._upstream = self._connect(built)

    def _connect(self, built: root.Gateway) -> Connection:
        """As the pool does it, but for the socket."""
        pool = built.gate._rules.destinations["default"].pool
        connection = Connection(pool, pool.servers[0])
        connection.connection_made(_Transport(self._socket))
        connection.keep_alive = float("inf")
        pool.release(connection, True)
        return connection

    def run(self, requests: list[bytes], count: int) -> None:
        clients, upstream = self._clients, self._upstream
        for index in range(count):
            clients[index % _CONNECTIONS].data_received(requests[index % len(requests)])
            upstream.data_received(_ANSWERED)

    def processor_us(self, requests: list[bytes]) -> float:
        gc.collect()
        before = time.process_time()
        self.run(requests, _AT_ONCE)
        return (time.process_time() - before) / _AT_ONCE * 1e6

    def instructions(self, requests: list[bytes]) -> float:
        """What `sys.settrace` sees, per request, without this file's own."""
        seen = 0

        def look(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
            nonlocal seen
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            if event == "opcode" and frame.f_code.co_filename != __file__:
                seen += 1
            return look

        sys.settrace(look)
        try:
            self.run(requests, _TRACED)
        finally:
            sys.settrace(None)
        return seen / _TRACED

    def close(self) -> None:
        assert all(each.last.startswith(b"HTTP/1.1 200 ") for each in self._transports)
        self._outlet.close()
        self._log.close()
        self._socket.close()
        self._other_end.close()


class _Transport(asyncio.Transport):
    """A socket that takes everything at once."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__({"socket": connected, "peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.last = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.last = bytes(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.last = bytes(next(iter(list_of_data)))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...
