"""Migrations: from nothing to now, once, and never backwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Connection, text

from gateway.accounts import schema
from gateway.accounts.database import Database
from gateway.accounts.feed import Feed
from gateway.accounts.schema import SchemaMismatch
from gateway.accounts.trail import Wanted
from gateway.errors import Unavailable
from gateway.identity.principal import Reach
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


ANN, SESSION = "01890000-0000-7000-8000-000000000001", "01890000-0000-7000-8000-000000000002"
TOKEN, DIGEST = "01890000-0000-7000-8000-000000000003", bytes(range(32))
OLD_ROWS = {
    "0001": (
        """INSERT INTO users
        (id, email, password_hash, is_admin, roles, disabled, version, created_at, updated_at)
        VALUES (:ann, 'ann@example.com', :password_hash, true, '["a", "b"]', false, 3, 1, 1)""",
        """INSERT INTO sessions
        (id, user_id, generation, issued_at, expires_at, rotated_at, created_at, ends_at, last_used_at,
        address, user_agent)
        VALUES (:session, :ann, 7, :now, :later, :now, :now, :later, :now, '192.0.2.1', 'x')""",
        """INSERT INTO cutoffs (kind, id, version, until, recorded_at)
        VALUES ('session', 'gone', 0, :later, :now)""",
    ),
    "0002": (
        "UPDATE users SET limits_epoch = 5",
        """INSERT INTO api_tokens (id, user_id, name, digest, scopes, limits, created_at, created_by)
        VALUES
        (:token, :ann, 'deploys', :digest, '["deploy"]', '{"methods": ["GET"], "paths": null}', 1, 'cli')""",
        "INSERT INTO known_networks (user_id, network, last_login_at) VALUES (:ann, '192.0.2.1', :now)",
        """INSERT INTO audit_events (recorded_at, name, actor, user_id, email, details)
        VALUES (1, 'user_created', 'cli', :ann, 'ann@example.com', '{}')""",
    ),
}
"""What each schema added to those before it, in statements that know nothing of the tables of today."""


async def test_every_older_schema_has_its_rows_here(empty: Database) -> None:
    assert {*OLD_ROWS, schema.HEAD} == await empty.read(schema._revisions)


@pytest.mark.parametrize("made_by", OLD_ROWS)
async def test_what_an_older_gateway_stored_is_still_there_after_the_upgrade(
    empty: Database, made_by: str
) -> None:
    old, now = World(empty, time.time), int(time.time())
    words = {"ann": ANN, "session": SESSION, "token": TOKEN, "digest": DIGEST.hex(), "now": now}
    words |= {"later": now + 900, "password_hash": await old.passwords.hash(PASSWORD)}
    for revision in (each for each in OLD_ROWS if each <= made_by):
        await empty.write(partial(_as_of, revision, words))
    assert (await schema.state(empty)).current == made_by
    if not empty.is_sqlite:
        with pytest.raises(SchemaMismatch, match=f"at schema {made_by}, this gateway needs"):
            await schema.prepare(empty)
    await schema.upgrade(empty)
    assert await schema.drift(empty) == []

    ann = await old.accounts.users.find("ann@example.com")
    assert (ann.is_admin, ann.roles, ann.version) == (True, ("a", "b"), 3)
    token = old.refresh_tokens.issue(
        user_id=ann.id,
        session=SESSION,
        generation=7,
        issued_at=now,
        expires_at=now + 900,
    )
    assert (await old.accounts.sessions.refresh(token, HOME)).access_token
    feed = Feed(empty, old.cutoffs.apply)
    await feed.load()
    assert len(old.cutoffs) == 1
    standing = await old.accounts.regulation.standing("ann@example.com", "192.0.2.1")
    holder, trail = await old.accounts.api_tokens.read(DIGEST), await old.accounts.trail.page(Wanted())
    if made_by == "0001":
        assert (standing.epoch, standing.known, holder, trail.items) == (0, False, None, ())
    else:
        assert (standing.epoch, standing.known) == (5, True)
        assert holder is not None
        assert (holder.id, holder.scopes, holder.reach) == (ANN, ("deploy",), Reach(("GET",), None))
        assert [(entry.name, entry.user) for entry in trail.items] == [("user_created", ANN)]
    await old.log_in()
    await old.passwords.close()


def _as_of(revision: str, words: dict[str, object], connection: Connection) -> None:
    command.upgrade(schema._config(connection), revision)
    for statement in OLD_ROWS[revision]:
        connection.execute(text(statement), words)
