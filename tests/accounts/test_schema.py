"""Migrations: from nothing to now, once, and never backwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.accounts import schema
from gateway.accounts.database import Database
from gateway.accounts.schema import SchemaMismatch
from gateway.errors import Unavailable
from tests.accounts.world import execute
from tests.support.databases import Postgres, sqlite_url

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield sqlite_url(tmp_path)
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.empty()
        yield url
        postgres.drop(url)


@pytest.fixture
async def empty(empty_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    database = Database(empty_url)
    yield database
    await database.close()


async def test_an_upgrade_makes_exactly_the_tables(empty: Database) -> None:
    before = await schema.state(empty)
    assert (before.current, before.known) == (None, True)
    assert await schema.drift(empty)
    await schema.upgrade(empty)
    after = await schema.state(empty)
    assert after.current == after.head == before.head
    assert await schema.drift(empty) == []
    await schema.upgrade(empty)


async def test_the_head_is_the_last_migration(empty: Database) -> None:
    await schema.upgrade(empty)
    assert (await schema.state(empty)).current == schema.HEAD


async def test_drift_is_found(empty: Database) -> None:
    await schema.upgrade(empty)
    await empty.write(execute("ALTER TABLE users ADD COLUMN shoe_size INTEGER"))
    [difference] = await schema.drift(empty)
    assert "shoe_size" in difference


async def test_many_may_upgrade_at_once(empty: Database, empty_url: str) -> None:
    others = [Database(empty_url) for _ in range(3)]
    await asyncio.gather(*(schema.upgrade(database) for database in others))
    assert await schema.drift(empty) == []
    for database in others:
        await database.close()


async def test_run_upgrades_sqlite_and_only_checks_postgres(empty: Database) -> None:
    if not empty.is_sqlite:
        with pytest.raises(SchemaMismatch, match="run `gateway db upgrade`"):
            await schema.prepare(empty)
        await schema.upgrade(empty)
    await schema.prepare(empty)
    await schema.prepare(empty)
    assert await schema.drift(empty) == []


async def test_a_newer_schema_is_left_alone(empty: Database) -> None:
    await schema.upgrade(empty)
    await empty.write(execute("UPDATE alembic_version SET version_num = '9999'"))
    for attempt in (schema.prepare, schema.upgrade):
        with pytest.raises(SchemaMismatch, match="newer"):
            await attempt(empty)
    assert (await schema.state(empty)).current == "9999"


async def test_an_upgrade_that_fails_never_happened(empty: Database) -> None:
    await empty.write(execute("CREATE TABLE users (id INTEGER)"))
    with pytest.raises(Unavailable):
        await schema.upgrade(empty)
    assert (await schema.state(empty)).current is None
    tables = [difference for difference in await schema.drift(empty) if "add_table" in difference]
    assert len(tables) == 4  # cutoffs was rolled back with the rest
    await empty.write(execute("DROP TABLE users"))
    await schema.upgrade(empty)
