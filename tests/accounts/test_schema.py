"""Migrations: from nothing to now, once, and never backwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from alembic import command

from gateway.accounts import schema
from gateway.accounts.database import Database
from gateway.accounts.feed import Feed
from gateway.accounts.schema import SchemaMismatch
from gateway.errors import Unavailable
from tests.accounts.world import HOME, PASSWORD, World, execute
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
    assert len(tables) == 6  # cutoffs was rolled back with the rest
    await empty.write(execute("DROP TABLE users"))
    await schema.upgrade(empty)


async def test_what_an_older_gateway_stored_is_still_there_after_the_upgrade(empty: Database) -> None:
    """Made by the first schema, with people in it, by statements that know nothing of the tables of today."""
    await empty.write(lambda connection: command.upgrade(schema._config(connection), "0001"))
    old = World(empty, time.time)
    password_hash = await old.passwords.hash(PASSWORD)
    for statement in OLD_ROWS:
        await empty.write(execute(statement.format(password_hash=password_hash, now=int(time.time()))))
    assert (await schema.state(empty)).current == "0001"
    if not empty.is_sqlite:
        with pytest.raises(SchemaMismatch, match="at schema 0001, this gateway needs"):
            await schema.prepare(empty)
    await schema.upgrade(empty)
    assert await schema.drift(empty) == []

    ann = await old.accounts.users.find("ann@example.com")
    assert (ann.is_admin, ann.roles, ann.version) == (True, ("a", "b"), 3)
    token = old.refresh_tokens.issue(
        user_id=ann.id,
        session=SESSION,
        generation=7,
        issued_at=int(time.time()),
        expires_at=int(time.time()) + 900,
    )
    assert (await old.accounts.sessions.refresh(token, HOME)).access_token
    await old.log_in()
    feed = Feed(empty, old.cutoffs.apply)
    await feed.load()
    assert len(old.cutoffs) == 1
    await old.passwords.close()


ANN, SESSION = "01890000-0000-7000-8000-000000000001", "01890000-0000-7000-8000-000000000002"
OLD_ROWS = (
    "INSERT INTO users (id, email, password_hash, is_admin, roles, disabled, version, created_at, updated_at)"
    f" VALUES ('{ANN}', 'ann@example.com', '{{password_hash}}', true, '[\"a\", \"b\"]', false, 3, 1, 1)",
    "INSERT INTO sessions (id, user_id, generation, issued_at, expires_at, rotated_at, created_at, ends_at,"
    f" last_used_at, address, user_agent) VALUES ('{SESSION}', '{ANN}', 7,"
    " {now}, {now} + 900, {now}, {now}, {now} + 9000, {now}, '192.0.2.1', 'x')",
    "INSERT INTO cutoffs (kind, id, version, until, recorded_at)"
    " VALUES ('session', 'gone', 0, {now} + 900, {now})",
)
