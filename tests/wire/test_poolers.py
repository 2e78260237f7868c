"""Two gateways on a PostgreSQL behind a real PgBouncer, in both modes that it can be used in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import pytest

from tests.support.databases import shared_postgres
from tests.support.life import soon
from tests.support.pgbouncer import PgBouncer, find_pgbouncer
from tests.support.process import PATIENCE, Running, Site

pytestmark = pytest.mark.skipif(find_pgbouncer() is None, reason="needs PgBouncer: apt-get install pgbouncer")
OFTEN = 8


@dataclass(slots=True)
class Pair:
    """Two gateways behind a pooler."""

    mode: str
    site: Site
    here: Running
    there: Running


@pytest.fixture(scope="module", params=["session", "transaction"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, backend: int
) -> Iterator[Pair]:
    postgres = shared_postgres()
    database = postgres.empty()
    with PgBouncer(database) as pgbouncer, ExitStack() as stack:
        pgbouncer.start(request.param)
        site = Site(tmp_path_factory.mktemp("pooled"), backend=backend, database=pgbouncer.url)
        upgraded = site.command("db", "upgrade")
        assert upgraded.returncode == 0, upgraded.stderr
        site.add("root@example.com", "--admin")
        running = [stack.enter_context(site.running()) for _ in range(2)]
        yield Pair(request.param, site, *running)
    postgres.drop(database)
    postgres.close()


def test_login_refresh_and_users(pair: Pair) -> None:
    root = pair.here.log_in("root@example.com")
    for number in range(OFTEN):
        gateway = (pair.here, pair.there)[number % 2]
        refreshed = gateway.refresh(root["refreshToken"])
        assert refreshed.status == 200, refreshed.body
        root |= refreshed.json
        body = {"email": f"user-{number}@example.com", "password": "a long enough password"}
        made = gateway.request("POST", "/auth/users", token=root["accessToken"], json_body=body)
        assert made.status == 201, made.body
    found = pair.there.request("GET", "/auth/users?query=user-", token=root["accessToken"])
    assert len(found.json["items"]) == OFTEN


def test_a_logout_here_is_felt_there(pair: Pair) -> None:
    for _ in range(3):
        root = pair.here.log_in("root@example.com")
        there = partial(pair.there.request, "GET", "/orders", token=root["accessToken"])
        assert there().status == 200
        out = pair.here.request("POST", "/auth/logout", json_body={"refreshToken": root["refreshToken"]})
        assert out.status == 204
        soon(lambda: there().status == 401, PATIENCE)  # noqa: B023


def test_who_is_not_told_at_once_says_so_where_operators_look(pair: Pair) -> None:
    """A pooler in transaction mode swallows notices; in session mode they come."""
    if pair.mode == "transaction":
        soon(lambda: notes(pair.here) == ["notices"] and notes(pair.there) == ["notices"], PATIENCE)
        assert len(warnings(pair.here)) == len(warnings(pair.there)) == 1
    else:
        assert notes(pair.here) == notes(pair.there) == []
        assert warnings(pair.here) == warnings(pair.there) == []
    for gateway in (pair.here, pair.there):
        assert gateway.request("GET", "/readyz", ops=True).status == 200


def notes(gateway: Running) -> list[str]:
    degraded = gateway.request("GET", "/readyz", ops=True).json["degraded"]
    return [each["name"] for each in degraded]


def warnings(gateway: Running) -> list[str]:
    return [line["message"] for line in gateway.lines if "not told of cut-offs" in line.get("message", "")]
