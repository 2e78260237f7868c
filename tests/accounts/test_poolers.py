"""A PgBouncer in between, which refuses or drops what a connection asks for, and swallows notices."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, make_url, text

from gateway.accounts import schema
from gateway.accounts.listen import Listener
from gateway.errors import GatewayTimeout
from tests.accounts.world import execute, opened
from tests.support.databases import Postgres
from tests.support.pgbouncer import PgBouncer, find_pgbouncer
from tests.support.serving import until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(find_pgbouncer() is None, reason="needs PgBouncer: apt-get install pgbouncer"),
]
OFTEN = 8
"""Times after which a driver that prepares statements would have."""
LOOK_UP = text("SELECT email FROM users WHERE id = 'x'")
LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """A database of its own: a test sets something for all of it."""
    url = postgres.migrated()
    yield url
    postgres.drop(url)


@pytest.fixture
def pgbouncer(database_url: str) -> Iterator[PgBouncer]:
    with PgBouncer(database_url) as pgbouncer:
        yield pgbouncer


def limits(connection: Connection) -> list[str]:
    return [str(connection.execute(text(f"SHOW {name}")).scalar_one()) for name in LIMITS]


@pytest.mark.parametrize("mode", ["session", "transaction"])
@pytest.mark.parametrize("ignored", ["", "options"])
async def test_a_slow_statement_is_ended_all_the_same(pgbouncer: PgBouncer, mode: str, ignored: str) -> None:
    pgbouncer.start(mode, ignored=ignored)
    async with opened(pgbouncer.url) as database:
        for _ in range(2):
            assert await database.read(limits) == ["5s", "5s", "10s"]
            assert await database.write(limits) == ["5s", "5s", "10s"]


async def test_what_the_operator_has_set_holds(pgbouncer: PgBouncer, database_url: str) -> None:
    async with opened(database_url) as database:
        name = make_url(database_url).database
        await database.write(execute(f"ALTER DATABASE \"{name}\" SET statement_timeout = '50ms'"))
    pgbouncer.start("transaction", ignored="options")
    async with opened(pgbouncer.url) as database:
        assert await database.read(limits) == ["50ms", "0", "0"]
        with pytest.raises(GatewayTimeout):
            await database.read(execute("SELECT pg_sleep(5)"))


async def test_two_that_upgrade_at_once_wait_for_each_other(postgres: Postgres) -> None:
    """The lock is that of a transaction, which is all that a pooler lends a connection for."""
    url = postgres.empty()
    with PgBouncer(url) as pgbouncer:
        pgbouncer.start("transaction")
        async with opened(pgbouncer.url) as one, opened(pgbouncer.url) as other:
            await asyncio.gather(schema.upgrade(one), schema.upgrade(other))
            assert (await schema.state(other)).current == schema.HEAD
            assert await schema.drift(one) == []
    postgres.drop(url)


async def test_what_one_connection_ran_often_is_no_other_ones(pgbouncer: PgBouncer) -> None:
    """Two processes take turns on one connection; a driver that prepares statements fails there."""
    pgbouncer.start("transaction")
    async with opened(pgbouncer.url, threads=1) as one, opened(pgbouncer.url, threads=1) as other:
        for _ in range(OFTEN):
            for database in (one, other):
                assert await database.read(lambda c: list(c.execute(LOOK_UP))) == []


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_statements_are_prepared_where_nobody_stands_in_between(
    pgbouncer: PgBouncer, database_url: str, mode: str
) -> None:
    def prepared(connection: Connection) -> list[str]:
        said = connection.execute(text("SELECT statement FROM pg_prepared_statements")).scalars()
        return [statement for statement in said if statement == str(LOOK_UP)]

    pgbouncer.start(mode)
    for url, expected in ((database_url, [str(LOOK_UP)]), (pgbouncer.url, [])):
        async with opened(url, threads=1) as database:
            for _ in range(OFTEN):
                await database.read(lambda c: list(c.execute(LOOK_UP)))
            assert await database.read(prepared) == expected


async def test_notices_for_somebody_else_are_not_kept(postgres: Postgres) -> None:
    """One who listened may have had the connection before."""

    def kept(connection: Connection) -> list[object]:
        driver = connection.connection.dbapi_connection
        assert driver is not None
        with pytest.warns(RuntimeWarning, match="handlers"):
            return list(driver.notifies(timeout=0))

    async with opened(postgres.clean(), threads=1) as database:
        await database.write(execute("LISTEN gateway_cutoffs"))
        await database.write(execute("NOTIFY gateway_cutoffs"))
        assert await database.read(kept) == []


async def test_who_is_not_told_says_so_once_and_again_when_it_is(
    pgbouncer: PgBouncer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    looks: list[None] = []

    async def hear() -> None:
        looks.append(None)

    pgbouncer.start("transaction")
    async with opened(pgbouncer.url) as database:
        listener = Listener(database, hear, echo=0.5)
        task = asyncio.create_task(listener.run(sleep=lambda seconds: asyncio.sleep(0.001)))
        await until(lambda: listener.deaf)
        assert looks == []
        pgbouncer.stop()
        pgbouncer.start("session")
        await until(listener.connected.is_set)
        await until(lambda: looks)
        assert not listener.deaf
        before = len(looks)
        await database.write(execute("NOTIFY gateway_cutoffs"))
        await until(lambda: len(looks) > before)
        task.cancel()
        await asyncio.wait([task])
    told = [record.getMessage() for record in caplog.records if "told of cut-offs" in record.getMessage()]
    assert [line.partition(":")[0] for line in told] == [
        "not told of cut-offs at once",
        "told of cut-offs at once again",
    ]
