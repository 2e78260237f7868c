"""The complete gateway on real sockets, once for each lane, before a backend that does what a test says.

    async with open_yard(folder) as yard:
        yard.plays(answering(response(b"hi")))
        async with yard.connect("run") as client:
            answer = await client.ask(request("/public"))
        await yard.quiet()                   # nothing is held any more, and nothing went up unjudged

Both lanes lead to one and the same gateway: *run* as `gateway run` serves it, the
others as an ASGI application under uvicorn's own protocols. Everything lives in
the test's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from gateway.app import Gateway, build
from gateway.cli.run import lane_of
from gateway.config.load import load
from gateway.config.schema import Config
from gateway.policy.compile import compile_policy
from gateway.server.protocol import GatewayConfig
from gateway.server.terms import Limits, Terms, Timeouts
from gateway.telemetry.outlet import Outlet, target_of
from tests.support.backend import Backend, Script, answering, response
from tests.support.raw import RawClient, connect
from tests.support.serving import until
from tests.support.tokens import ACCESS_SECRET, REFRESH_SECRET, Mint

RUN, ASGI, H11 = "run", "asgi", "asgi-h11"
LANES = (RUN, ASGI)
"""The lanes of the table. H11 is the second one under a server that checks every byte it is asked to send."""
PASSWORD = "a long enough password"
EMAIL = "ada@example.com"
ROUTES = """
default: authenticated
routes:
  - {path: /public/**, allow: public}
  - {path: /probe, allow: public}
  - {path: /hasty/**, allow: public, upstream: hasty}
  - {path: /narrow/**, allow: public, upstream: narrow}
  - {path: /admin/**, allow: admin}
"""
_YAML = """
server: {{listen: "127.0.0.1:0", ops_listen: "off", limits: {{body: {body}}}}}
tokens:
  access: {{secret: "${{JWT_ACCESS_SECRET}}"}}
  refresh: {{secret: "${{JWT_REFRESH_SECRET}}"}}
accounts: {{database: "sqlite:///{folder}/gateway.db", bcrypt_cost: 4}}
rate_limits:
  storage: "{storage}"
  login: {{per_account: 100000/minute, per_address: 100000/minute}}
upstreams:
  default: {{url: "{url}"}}
  hasty: {{url: "{url}", timeouts: {{response: 300ms, idle: 300ms}}}}
  narrow: {{url: "{url}", connections: 1}}
"""
_ENVIRON = {"JWT_ACCESS_SECRET": ACCESS_SECRET.decode(), "JWT_REFRESH_SECRET": REFRESH_SECRET.decode()}


def run_lane(gateway: Gateway, config: Config) -> uvicorn.Config:
    """The listener of `gateway run`: the line that says what serves there."""
    settings = config.server
    limits, timeouts = Limits(**settings.limits.model_dump()), Timeouts(**settings.timeouts.model_dump())
    lane = lane_of(gateway, timeouts.body_idle)
    return GatewayConfig(gateway.asgi, Terms(limits, timeouts, gateway.refused), lane=lane)


def asgi_lane(gateway: Gateway, http: str) -> uvicorn.Config:
    """Somebody else's server."""
    return uvicorn.Config(
        gateway.asgi, http=http, ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, date_header=False, proxy_headers=False,
    )  # fmt: skip


@dataclass(slots=True)
class Yard:
    """See the module."""

    gateway: Gateway
    backend: Backend
    addresses: dict[str, tuple[str, int]]
    """Where each lane listens."""
    states: dict[str, ServerState]
    """Each listener's open connections and running tasks."""
    log: io.StringIO
    outlet: Outlet
    mint: Mint = field(default_factory=lambda: Mint(now=int(time.time())))
    """Of tokens that hold just now."""
    crashes: list[BaseException] = field(default_factory=list)
    """What was raised into the event loop: nothing that comes over the wire may do that."""
    lax: bool = False
    """The server lets through methods, control bytes and a # that `gateway run` refuses, as h11 does."""

    def plays(self, script: Script) -> None:
        """What the backend does on every connection that is opened from now on."""
        self.backend.script = script

    @contextlib.asynccontextmanager
    async def connect(self, lane: str) -> AsyncIterator[RawClient]:
        async with connect(self.addresses[lane]) as client:
            yield client

    async def fresh(self) -> None:
        """As if nothing had happened: no connection to the backend, nothing recorded, nothing logged."""
        for peer in self.backend.peers:
            peer.abort()
        await until(lambda: not self.held())
        self.backend.peers.clear()
        self.backend.requests.clear()
        self.backend.failures.clear()
        self.crashes.clear()
        self.backend.script = answering(response(b"ok"))
        self.lax = False
        self.outlet.flush()
        self.log.seek(0)
        self.log.truncate()

    async def quiet(self) -> None:
        """No storm leaves anything behind, and the backend has seen nothing that was not judged.

        Returns when no client is connected, no application runs, no request is in flight, and no
        connection to the backend is busy, being opened or waited for. Idle ones may stay.
        """
        try:
            await until(lambda: not {name: n for name, n in self.held().items() if name != "idle"})
        except TimeoutError:
            raise AssertionError(f"still held: {self.held()}") from None
        self.check_judged()
        for failure in (*self.crashes, *self.backend.failures):
            raise failure

    def crashed(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.crashes.append(context.get("exception") or AssertionError(context["message"]))

    def held(self) -> dict[str, int]:
        """What the gateway holds just now, by name; nothing that is 0."""
        metrics = self.gateway._metrics
        held = {"clients": 0, "tasks": 0, "in flight": metrics.in_flight}
        for state in self.states.values():
            held["clients"] += len(state.connections)
            held["tasks"] += len(state.tasks)
        pools = metrics._pools.values()
        held["idle"] = sum(pool.idle_count for pool in pools)
        held["busy"] = sum(pool.busy_count for pool in pools)
        held["opening"] = sum(pool.opening_count for pool in pools)
        held["waiting"] = sum(pool.waiting_count for pool in pools)
        return {name: count for name, count in held.items() if count}

    async def counts_again(self) -> None:
        """Redis is back. Where it was slow, it would be asked only after a while."""
        assert await self.gateway.gate._limits._limiter.ping()

    def lines(self) -> list[dict[str, Any]]:
        """The decision lines since the beginning of the test."""
        self.outlet.flush()
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if "verdict" in line]

    def check_judged(self) -> None:
        """Each request at the backend is well formed and has its own line that allowed it."""
        lines = {line["requestId"]: line for line in self.lines()}
        for request in self.backend.requests:
            _check_form(request.raw_head, lax=self.lax)
            line = lines[request.one(b"x-request-id").decode()]
            path = request.target.partition(b"?")[0].decode()
            assert (line["verdict"], line["method"]) == ("allow", request.method.decode()), line
            assert line["path"] == path, line
        again = Counter(request.one(b"x-request-id") for request in self.backend.requests)
        for request in self.backend.requests:
            may = 2 if request.method in _REPLAYABLE and not request.body else 1
            assert again[request.one(b"x-request-id")] <= may, "a request was sent twice"


@contextlib.asynccontextmanager
async def open_yard(
    folder: Path, *, routes: str = ROUTES, body: str = "1MiB", storage: str = "memory://"
) -> AsyncIterator[Yard]:
    """A gateway with one user, listening in every lane."""
    log = io.StringIO()
    outlet = Outlet(target_of(log), report=lambda lost: b"")
    async with Backend(answering(response(b"ok"))) as backend:
        text = _YAML.format(folder=folder, url=backend.url, body=body, storage=storage) + routes
        config, gateway = build_gateway(folder, text, outlet)
        await gateway.start()
        try:
            await gateway.accounts.users.create(EMAIL, PASSWORD, is_admin=False, roles=())
            servers = {
                RUN: run_lane(gateway, config),
                ASGI: asgi_lane(gateway, "httptools"),
                H11: asgi_lane(gateway, "h11"),
            }
            async with contextlib.AsyncExitStack() as stack:
                doors = {
                    name: await stack.enter_async_context(listening(server))
                    for name, server in servers.items()
                }
                addresses = {name: address for name, (address, _) in doors.items()}
                states = {name: state for name, (_, state) in doors.items()}
                yard = Yard(gateway, backend, addresses, states, log, outlet)
                asyncio.get_running_loop().set_exception_handler(yard.crashed)
                yield yard
        finally:
            await gateway.stop()


def build_gateway(
    folder: Path, text: str, outlet: Outlet, environ: Mapping[str, str] = _ENVIRON
) -> tuple[Config, Gateway]:
    """Of the text of a gateway.yaml."""
    file = folder / "gateway.yaml"
    file.write_text(text)
    loaded = load(file, environ=dict(environ))
    assert loaded.config is not None, loaded.problems
    policy, problems = compile_policy(loaded.config, loaded.places)
    assert policy is not None, problems
    return loaded.config, build(loaded.config, policy, outlet=outlet)


@contextlib.asynccontextmanager
async def listening(config: uvicorn.Config) -> AsyncIterator[tuple[tuple[str, int], ServerState]]:
    """Serve until the block ends: where, and what is open there."""
    config.load()
    state, loop = ServerState(), asyncio.get_running_loop()
    make: Callable[..., Any] = config.http_protocol_class
    server = await loop.create_server(lambda: make(config, state, {}), "127.0.0.1", 0, backlog=2048)
    try:
        yield server.sockets[0].getsockname()[:2], state
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        tasks = list(state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: not state.connections)


def _check_form(head: bytes, *, lax: bool) -> None:
    """What goes up has one meaning for every parser."""
    line, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert (_LAX_REQUEST_LINE if lax else _REQUEST_LINE).fullmatch(line), line
    names = []
    for each in lines:
        assert (_LAX_HEADER_LINE if lax else _HEADER_LINE).fullmatch(each), each
        names.append(each.partition(b":")[0].lower())
    lengths, codings = names.count(b"content-length"), names.count(b"transfer-encoding")
    assert names.count(b"host") == 1, names
    assert lengths + codings <= 1, names
    assert not codings or b"\r\ntransfer-encoding: chunked\r\n" in head.lower() + b"\r\n"


_REPLAYABLE = (b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE")
"""May be sent once more, without a body, if a connection that was used before turned out stale."""
_REQUEST_LINE = re.compile(rb"[A-Z-]+ /[!\x22\x24-\x7e]* HTTP/1\.1")
_LAX_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ /[!-~]* HTTP/1\.1")
_HEADER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: ?[\t\x20-\x7e\x80-\xff]*")
_LAX_HEADER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: ?[^\r\n\0]*")
