"""The benchmarks read what wrk prints, write what they measured, and start a gateway that starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import people, report
from benchmarks.load import parse
from benchmarks.peers import caddy, envoy, haproxy, nginx
from benchmarks.peers.gateway import configure, path_of
from benchmarks.peers.peer import Peer, Place
from gateway.accounts.token_store import TokenStore
from gateway.config.load import load
from gateway.identity.api_tokens import digest_of, make_token
from gateway.policy.compile import compile_policy
from gateway.policy.readings import read
from tests.accounts.world import opened
from tests.support.databases import SqliteTemplate, shared_postgres

PRINTED = """
Running 1s test @ http://127.0.0.1:7001/items
  1 threads and 32 connections
  Latency Distribution
     50%  812.00us
     75%    1.02ms
     90%    1.51ms
     99%    1.10s
  20000 requests in 1.10s, 11.02MB read
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 7
Requests/sec:  18181.82
Transfer/sec:     10.02MB
"""
SECRETS = {
    "JWT_ACCESS_SECRET": "Qk3zXw9LtBn6MvCy0SgJhR8pDf2AeU7i",
    "JWT_REFRESH_SECRET": "fFZ0lq4mW8sTn2vKc7RbYx1GdHj5PuEa",
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(port=7001, backend=7002, helper=7003, folder=tmp_path, environ=dict(SECRETS))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with our schema and no rows."""
    if request.param == "sqlite":
        yield SqliteTemplate(tmp_path).migrated(tmp_path)
        return
    postgres = shared_postgres()
    url = postgres.migrated()
    yield url
    postgres.drop(url)
    postgres.close()


def test_what_wrk_prints_is_read() -> None:
    found = parse(PRINTED, processor_seconds=0.5)
    assert (found.requests_per_second, found.requests, found.cpu_us) == (18181.82, 20_000, 25.0)
    assert (found.p50_ms, found.p99_ms) == (0.812, 1100.0)
    assert found.failed == 17


def test_numbers_are_written_as_their_column_says() -> None:
    table = report.Table(
        {"program": "", "req/s": ",.0f", "ratio": ".2f"}, [["a", 12345.6, 1.0], ["b", None, None]]
    )
    written = report.text(report.Found("once", [table]))
    assert "| a | 12,346 | 1.00 |\n| b | – | – |" in written


def test_a_target_is_the_least_or_the_most() -> None:
    assert report.Mark("speed", 1.0, 1.0).reached
    assert not report.Mark("speed", 1.0, 0.99).reached
    assert report.Mark("memory", 8.0, 7.9, most=True).reached
    assert report.Mark("speed", 1.0, None, why="not installed").reached is None


@pytest.mark.parametrize("routes", [1, 10, 300])
def test_the_measured_gateway_has_a_right_configuration(place: Place, routes: int) -> None:
    loaded = load(Path(configure(place, routes=routes)), environ=place.environ)
    assert loaded.config is not None, [str(problem) for problem in loaded.problems]
    policy, problems = compile_policy(loaded.config, loaded.places)
    assert policy is not None, [str(problem) for problem in problems]
    assert len(policy.routes) == routes
    found = {policy.matcher.find("GET", b"x", read(path_of(i, routes).encode())[0]) for i in range(routes)}
    assert len(found - {None}) == routes - 1


@pytest.mark.anyio
async def test_measured_api_tokens_hold(url: str) -> None:
    tokens = [make_token() for _ in range(60)]
    digests = [digest_of(token.encode()) or b"" for token in tokens]
    people.fill_tokens(url, tokens=tokens)
    async with opened(url) as database:
        found = await database.read(lambda connection: list(map(TokenStore(connection).holder, digests)))
    assert [user.email for _, user in filter(None, found)] == [
        *["user-1@example.com"] * 50,
        *["user-2@example.com"] * 10,
    ]


@pytest.mark.parametrize(
    "peer",
    [haproxy.PEER, envoy.PEER, caddy.PEER, nginx.AUTH_REQUEST, nginx.PROXY_PASS],
    ids=lambda peer: peer.name,
)
def test_every_peer_is_told_its_ports(place: Place, peer: Peer) -> None:
    assert peer.start(place)
    written = "".join(file.read_text() for file in place.folder.iterdir())
    assert str(place.port) in written
    assert str(place.backend) in written
