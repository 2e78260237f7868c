"""PostgreSQL tells of cut-offs at once; what it tells is believed as far as the table bears it out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import Connection

from gateway.accounts.database import Database
from gateway.accounts.feed import Feed
from gateway.accounts.listen import Listener
from gateway.accounts.store import Store
from gateway.errors import InvalidField
from gateway.identity.revocation import Cut
from tests.accounts.world import NEW_PASSWORD, PASSWORD, TERMINATE_OTHERS, Clock, World, execute
from tests.support.databases import Postgres
from tests.support.serving import until

pytestmark = pytest.mark.anyio
PATIENCE = 20.0


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.clean()


@asynccontextmanager
async def listening(world: World) -> AsyncIterator[Listener]:
    """A second process as far as it listens; it never polls."""
    feed = Feed(world.database, world.cutoffs.apply)
    await feed.load()
    async with told(world.database, feed.catch_up) as listener:
        yield listener


@asynccontextmanager
async def told(database: Database, hear: Callable[[], Awaitable[None]]) -> AsyncIterator[Listener]:
    listener = Listener(database, hear)
    task = asyncio.create_task(listener.run(sleep=lambda seconds: asyncio.sleep(0.001)))
    async with asyncio.timeout(PATIENCE):
        await listener.connected.wait()
    yield listener
    task.cancel()
    await asyncio.wait([task])


@pytest.fixture
async def other(url: str, clock: Clock, world: World) -> AsyncIterator[World]:
    other = World(Database(url, clock=clock), clock)
    yield other
    await other.close()


async def test_the_others_hear_of_it_without_asking(world: World, other: World) -> None:
    await world.ann()
    async with listening(other):
        for _ in range(3):
            session = await world.log_in()
            assert other.holds(session.access_token)
            await world.accounts.sessions.log_out(session.refresh_token)
            await until(lambda token=session.access_token: not other.holds(token))  # type: ignore[misc]


async def test_what_was_said_before_anybody_listened_is_known(world: World, other: World) -> None:
    await world.ann()
    session = await world.log_in()
    feed = Feed(other.database, other.cutoffs.apply)
    await feed.load()
    await world.accounts.sessions.log_out(session.refresh_token)
    async with told(other.database, feed.catch_up):
        await until(lambda: not other.holds(session.access_token))


async def test_what_was_rolled_back_is_not_told(world: World, other: World) -> None:
    looks: list[None] = []

    async def hear() -> None:
        looks.append(None)

    def undone(connection: Connection) -> None:
        Store(connection).add_cut(Cut("session", "x", 0, world.clock() + 900), now=world.clock())
        raise InvalidField

    await world.ann()
    session = await world.log_in()
    async with told(other.database, hear):
        await until(lambda: len(looks) == 1)  # at the start
        with pytest.raises(InvalidField):
            await world.database.write(undone)
        await world.accounts.sessions.log_out(session.refresh_token)
        await until(lambda: len(looks) == 2)


async def test_a_notice_proves_nothing(world: World, other: World) -> None:
    """Whoever may connect to the database may NOTIFY."""
    ann = await world.ann()
    session = await world.log_in()
    async with listening(other):
        for payload in ("", "{", ann.id, "session " + world.principal(session.access_token).session):
            await world.database.write(execute(f"NOTIFY gateway_cutoffs, '{payload}'"))
        gone = await world.log_in()
        await world.accounts.sessions.log_out(gone.refresh_token)
        await until(lambda: not other.holds(gone.access_token))
        assert other.holds(session.access_token)


async def test_a_connection_that_is_lost_is_made_again(world: World, other: World) -> None:
    await world.ann()
    async with listening(other) as listener:
        session = await world.log_in()
        listener.connected.clear()
        await world.database.write(execute(TERMINATE_OTHERS))
        await world.accounts.sessions.log_out(session.refresh_token)
        async with asyncio.timeout(PATIENCE):
            await listener.connected.wait()
        later = await world.log_in()
        await world.accounts.sessions.log_out(later.refresh_token)
        await until(lambda: not other.holds(session.access_token) and not other.holds(later.access_token))


async def test_many_at_once_are_one_look(world: World, other: World) -> None:
    looks: list[None] = []

    async def hear() -> None:
        looks.append(None)

    await world.ann()
    sessions = [await world.log_in() for _ in range(5)]
    async with told(other.database, hear):
        principal = world.principal(sessions[0].access_token)
        await world.accounts.own.change_password(principal, PASSWORD, NEW_PASSWORD)  # ends the four others
        await until(lambda: len(looks) == 2)
