"""The engine with nothing in front of it: a gate that forwards everything, a port that writes down what it is
told, and both lanes' ways of running them (in the test's own loop, or behind a real uvicorn in a thread)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from gateway.errors import GatewayError
from gateway.http.head import Head, Headers
from gateway.proxy.asgi import ProxyApp
from gateway.proxy.exchange import Exchange
from gateway.proxy.upstream.address import Address
from gateway.proxy.upstream.answer import Answer
from gateway.proxy.upstream.pool import Pool
from gateway.proxy.upstream.settings import Settings
from gateway.proxy.upstream.timers import Ticker
from gateway.proxy.verdict import Forward, Judgement, Refuse

PATIENCE = 30.0
"""Seconds a test waits for what must happen; only ever reached by a failing one."""


@dataclass
class Record:
    """The decision line's record, as far as the engine fills it in."""

    status: int = 0
    reason: str = "allowed"
    upstream: str | None = None
    upstream_ms: float | None = None
    bytes_in: int = 0
    bytes_out: int = 0


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that happens elsewhere: in another thread, or in the kernel."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float, pool: Pool) -> None:
        """So much later, and the pool's ticker has looked."""
        self.now += seconds
        pool.ticker.tick()


def pool_for(*urls: str, clock: Clock | None = None, **settings: Any) -> Pool:
    ticker = Ticker(clock=clock) if clock else Ticker()
    servers = tuple(Address.from_url(url) for url in urls)
    return Pool(name="app", settings=Settings(servers=servers, **settings), ticker=ticker)


class RecordingPort:
    """A client that takes everything and remembers it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.body = b""
        self.interims: list[int] = []
        self.trailers: Headers = []
        self.outcome = ""
        self.error: GatewayError | None = None
        self.holds = True
        self.ended = asyncio.Event()
        self.started = asyncio.Event()
        self.may_feed = asyncio.Event()
        self.ticks = self.pauses = 0

    def interim(self, answer: Answer) -> None:
        self.interims.append(answer.status)

    def start(self, answer: Answer, data: bytes) -> None:
        assert not self.started.is_set()
        self.status, self.headers = answer.status, answer.headers
        self.started.set()
        if data:
            self.write(data)

    def switched(self, answer: Answer) -> None:
        raise AssertionError("nobody asked for it")

    def write(self, data: bytes) -> None:
        assert self.started.is_set()
        assert not self.outcome
        self.body += data

    def finish(self, trailers: Headers) -> None:
        self.trailers = trailers
        self._over("finish")

    def fail(self, error: GatewayError) -> None:
        assert not self.started.is_set()
        self.error, self.status = error, error.status
        self._over("fail")

    def abort(self) -> None:
        assert self.started.is_set()
        self._over("abort")

    def pause_body(self) -> None:
        self.pauses += 1
        self.holds = True
        self.may_feed.clear()

    def resume_body(self) -> None:
        self.holds = False
        self.may_feed.set()

    def tick(self) -> None:
        self.ticks += 1

    def _over(self, outcome: str) -> None:
        assert not self.outcome, "it ended twice"
        self.outcome = outcome
        self.ended.set()


@dataclass
class Talk:
    """One exchange with its port and record."""

    exchange: Exchange
    port: RecordingPort
    record: Record
    done: list[Record] = field(default_factory=list)

    async def ended(self) -> RecordingPort:
        async with asyncio.timeout(PATIENCE):
            await self.port.ended.wait()
        assert self.done == [self.record], "on_done exactly once"
        return self.port


def talk(
    pool: Pool,
    method: bytes = b"GET",
    target: bytes = b"/",
    *,
    body: int | None = 0,
    body_limit: int = 10_000_000,
    body_idle: float = 30.0,
) -> Talk:
    """Begin an exchange."""
    record, port = Record(), RecordingPort()
    framing = b"Transfer-Encoding: chunked\r\n" if body is None else b"Content-Length: %d\r\n" % body
    head = b"%b %b HTTP/1.1\r\nHost: app\r\n%b\r\n" % (method, target, framing if body != 0 else b"")
    forward = Forward(
        request_id="r1",
        upstream=pool,
        head=head,
        body=body,
        body_limit=body_limit,
        no_response_body=method == b"HEAD",
        replayable=body == 0 and method in (b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"),
        decided=record,  # type: ignore[arg-type]
    )
    done: list[Record] = []
    exchange = Exchange(forward, port, on_done=done.append, body_idle=body_idle)  # type: ignore[arg-type]
    exchange.begin()
    return Talk(exchange, port, record, done)


class OpenGate:
    """Forwards everything as it is, without the hop-by-hop lines. `/refuse` and `/crash` do what they say."""

    def __init__(self, pool: Pool, *, body_limit: int = 10**9) -> None:
        self.pool, self.body_limit = pool, body_limit
        self.heads: list[Head] = []
        self.records: list[Record] = []
        self.refusal: GatewayError | None = None

    def judge(self, head: Head) -> Judgement:
        self.heads.append(head)
        record = Record()
        if self.refusal is not None:
            return Refuse(self.refusal, False, "r1", record)  # type: ignore[arg-type]
        lines = [(n, v) for n, v in head.headers if n.lower() not in (b"connection", b"expect")]
        names = {name.lower(): value for name, value in lines}
        body = None if b"transfer-encoding" in names else int(names.get(b"content-length", b"0"))
        raw = b"".join(b"%b: %b\r\n" % line for line in lines)
        return Forward(
            request_id="r1",
            upstream=self.pool,
            head=b"%b %b HTTP/1.1\r\n%b\r\n" % (head.method.encode(), head.target, raw),
            body=body,
            body_limit=self.body_limit,
            no_response_body=head.method == "HEAD",
            replayable=body == 0 and head.method in ("GET", "HEAD"),
            decided=record,  # type: ignore[arg-type]
        )


@dataclass
class Front:
    """A gateway on a real uvicorn."""

    port: int
    gate: OpenGate
    records: list[Record]
    loop: asyncio.AbstractEventLoop

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, *pieces: bytes) -> bytes:
        """Send these bytes on a new connection and read until the gateway closes it."""
        reader, writer = await self.connect()
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            async with asyncio.timeout(PATIENCE):
                return await reader.read()
        finally:
            writer.close()

    async def get(self, target: bytes = b"/", *, method: bytes = b"GET") -> bytes:
        return await self.say(b"%b %b HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n" % (method, target))

    async def settled(self, count: int = 1) -> list[Record]:
        """Wait until so many exchanges have ended."""
        await until(lambda: len(self.records) >= count)
        return self.records

    async def inside(self, look: Any) -> Any:
        """Call something in the gateway's own loop."""

        async def call() -> Any:
            return look()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), self.loop))


@contextlib.asynccontextmanager
async def front(
    *urls: str, body_limit: int = 10**9, body_idle: float = 30.0, http: str = "httptools", **settings: Any
) -> AsyncIterator[Front]:
    """uvicorn with httptools on uvloop in a thread of its own, in front of these servers."""
    records: list[Record] = []
    gate = OpenGate(pool_for(*urls, **settings), body_limit=body_limit)
    app = ProxyApp(gate, on_done=records.append, body_idle=body_idle)  # type: ignore[arg-type]
    with listening() as sock, serving(app, sock, http) as loop:
        front = Front(sock.getsockname()[1], gate, records, loop)
        yield front
        await front.inside(gate.pool.close)


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        sock.listen(2048)
        yield sock


@contextlib.contextmanager
def serving(app: Any, sock: socket.socket, http: str = "httptools") -> Iterator[asyncio.AbstractEventLoop]:
    config = uvicorn.Config(
        app, http=http, loop="uvloop", ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, date_header=False, proxy_headers=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    loops: list[asyncio.AbstractEventLoop] = []
    started = threading.Event()

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        started.set()
        await server.serve(sockets=[sock])

    def run() -> None:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(PATIENCE)
    try:
        yield loops[0]
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive(), "uvicorn did not stop"
