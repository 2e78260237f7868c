"""Databases and a world for every test; each test that asks for one runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.accounts.database import Database
from tests.accounts.world import Clock, World
from tests.support.databases import Postgres, SqliteTemplate, shared_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = shared_postgres()
    yield server
    server.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> SqliteTemplate:
    return SqliteTemplate(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with our schema and no rows."""
    if request.param == "sqlite":
        template: SqliteTemplate = request.getfixturevalue("sqlite_template")
        return template.migrated(tmp_path)
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.clean()


@pytest.fixture
def sqlite(sqlite_template: SqliteTemplate, tmp_path: Path) -> str:
    return sqlite_template.migrated(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def world(url: str, clock: Clock, anyio_backend: str) -> AsyncIterator[World]:
    world = World(Database(url, clock=clock), clock)
    yield world
    await world.close()
