"""Streams and tunnels through rules that hold for a time. What hour it is, the test says."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from examples.upstream.app import serve_connection
from gateway.app import build
from gateway.config.load import load
from gateway.policy.compile import compile_policy
from gateway.telemetry.outlet import Outlet, target_of
from tests.support.house import Clock
from tests.support.lanes import asgi_lane, listening, run_lane
from tests.support.raw import RawClient, connect, request
from tests.support.tokens import ACCESS_SECRET, REFRESH_SECRET, Mint
from tests.support.tunnels import opened
from tests.support.websockets import handshake

pytestmark = pytest.mark.anyio

SOON = 2.0
"""Seconds in which a stream has to end when its time is over."""
END = 1_893_456_000.0
"""2030-01-01T00:00Z."""
ENVIRON = {"JWT_ACCESS_SECRET": ACCESS_SECRET.decode(), "JWT_REFRESH_SECRET": REFRESH_SECRET.decode()}
YAML = """
server: {{listen: "127.0.0.1:0", ops_listen: "off"}}
tokens: {{access: {{secret: "${{JWT_ACCESS_SECRET}}"}}, refresh: {{secret: "${{JWT_REFRESH_SECRET}}"}}}}
accounts: {{database: "sqlite:///{folder}/gateway.db", bcrypt_cost: 4}}
upstreams: {{default: {{url: "http://127.0.0.1:{port}"}}, other: {{url: "http://127.0.0.1:{port}"}}}}
routes:
  - {{path: /always/**, strip_prefix: /always, allow: public}}
  - {{path: /until/**, strip_prefix: /until, allow: public, valid: {{until: "2030-01-01"}}}}
  - {{path: /users/**, strip_prefix: /users, allow: authenticated, valid: {{until: "2030-01-01"}}}}
  - {{path: /trial/**, strip_prefix: /trial, report_only: true, allow: public, valid: {{until: 2030-01-01}}}}
  - {{path: /longer/**, strip_prefix: /longer, allow: public, valid: {{until: "2030-01-02"}}}}
  # The rule of what the backend gets to see is over, not the one of what the client asked for.
  - {{path: /behind/**, strip_prefix: /behind, allow: public, upstream: other}}
  - {{path: /sse, allow: public, valid: {{until: "2030-01-01"}}, upstream: other}}
"""
ENDING, STAYING = ("/until", "/users", "/behind"), ("/always", "/trial", "/longer")


class Place:
    """A gateway, its lanes, and its clock, which stands half a minute before the end."""

    def __init__(self) -> None:
        self.clock = Clock(END - 30)
        self.token = Mint(now=int(self.clock())).access().decode()
        self.lanes: dict[str, tuple[str, int]] = {}

    @contextlib.asynccontextmanager
    async def stream(self, lane: str, below: str) -> AsyncIterator[RawClient]:
        async with connect(self.lanes[lane]) as client:
            target = f"{below}/sse?events=10000&every=0.02"
            await client.send(request(target, authorization=f"Bearer {self.token}"))
            assert (await client.until(b"data: ")).startswith(b"HTTP/1.1 200 ")
            yield client

    @contextlib.asynccontextmanager
    async def tunnel(self, below: str) -> AsyncIterator[RawClient]:
        async with connect(self.lanes["run"]) as client:
            await opened(client, handshake(f"{below}/sse", token=self.token))
            yield client

    async def status(self, lane: str, path: str) -> int:
        async with connect(self.lanes[lane]) as client:
            return (await client.ask(request(path, authorization=f"Bearer {self.token}"))).status


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place()
    backend = await asyncio.start_server(serve_connection, "127.0.0.1", 0)
    file = tmp_path / "gateway.yaml"
    file.write_text(YAML.format(folder=tmp_path, port=backend.sockets[0].getsockname()[1]))
    loaded = load(file, environ=ENVIRON)
    assert loaded.config is not None, loaded.problems
    policy, problems = compile_policy(loaded.config, loaded.places)
    assert policy is not None, problems
    outlet = Outlet(target_of(io.StringIO()), report=lambda lost: b"")
    gateway = build(loaded.config, policy, outlet=outlet, clock=place.clock)
    await gateway.start()
    try:
        async with (
            listening(run_lane(gateway, loaded.config)) as (run, _),
            listening(asgi_lane(gateway, "httptools")) as (asgi, _),
        ):
            place.lanes = {"run": run, "asgi": asgi}
            yield place
    finally:
        await gateway.stop()
        backend.close()


@pytest.mark.parametrize("lane", ["run", "asgi"])
async def test_streams_end_with_their_rules_time(place: Place, lane: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        streams = {
            below: await stack.enter_async_context(place.stream(lane, below)) for below in ENDING + STAYING
        }
        place.clock.now = END - 0.001
        for client in streams.values():
            assert b"data: " in await client.read(500)
        place.clock.now = END
        async with asyncio.timeout(SOON):
            for below in ENDING:
                rest = await streams[below].closed()
                assert not rest.endswith(b"0\r\n\r\n"), "one that is cut must not look complete"
        for below in STAYING:
            assert b"data: " in await streams[below].read(500)
        assert [await place.status(lane, f"{below}/sse?events=1") for below in ENDING] == [403] * 3
        assert [await place.status(lane, f"{below}/sse?events=1") for below in STAYING] == [200] * 3


async def test_so_do_tunnels(place: Place) -> None:
    async with contextlib.AsyncExitStack() as stack:
        tunnels = {below: await stack.enter_async_context(place.tunnel(below)) for below in ENDING + STAYING}
        ending = [asyncio.create_task(tunnels[below].closed()) for below in ENDING]
        staying = [asyncio.create_task(tunnels[below].closed()) for below in STAYING]
        place.clock.now = END
        async with asyncio.timeout(SOON):
            await asyncio.gather(*ending)
        assert not any(task.done() for task in staying)
        place.clock.now = END + 86_400
        async with asyncio.timeout(SOON):
            await staying[STAYING.index("/longer")]
        assert [task.done() for task in staying] == [False, False, True]
        for task in staying:
            task.cancel()


async def test_a_request_that_is_under_way_is_answered(place: Place) -> None:
    """What was judged was judged; only what goes on and on is asked about again."""
    asked = asyncio.create_task(place.status("run", "/until/slow?seconds=0.5"))
    async with place.stream("run", "/until") as stream:
        place.clock.now = END
        async with asyncio.timeout(SOON):
            await stream.closed()
    assert not asked.done()
    assert await asked == 200
