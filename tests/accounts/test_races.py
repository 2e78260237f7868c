"""Rotation by threads and by processes at once, and by processes that are killed: one chain lives."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import psycopg
import pytest

from gateway.accounts.database import Database
from gateway.accounts.service import Changes, LoggedIn, User
from gateway.accounts.store import Store
from gateway.errors import GatewayError, InvalidCredentials, InvalidRefreshToken
from tests.accounts import rotator
from tests.accounts.world import GRACE, HOME, NEW_PASSWORD, PASSWORD, Clock, World
from tests.support.databases import Postgres
from tests.support.serving import until

pytestmark = pytest.mark.anyio

ROUNDS = 100
KILLS = int(os.environ.get("GATEWAY_TEST_KILLS", "15"))

# A server process that has imported everything once forks each child in milliseconds.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    [
        "tests.accounts.rotator",
        "sqlalchemy.dialects.sqlite.pysqlite",
        "sqlalchemy.dialects.postgresql.psycopg",
        "psycopg",
    ]
)


@contextmanager
def child(work: Any, *arguments: str) -> Iterator[tuple[Any, Connection]]:
    ours, theirs = processes.Pipe()
    process = processes.Process(target=work, args=(*arguments, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        ours.close()
        process.join(10)
        process.close()


async def test_threads(world: World, url: str, clock: Clock) -> None:
    """Two processes' worth of threads spend each token twice at the same moment."""
    ann = await world.ann()
    token = (await world.log_in()).refresh_token
    other = World(Database(url, clock=clock), clock)
    for generation in range(1, ROUNDS + 1):
        won = await asyncio.gather(*(w.accounts.sessions.refresh(token, HOME) for w in (world, other)))
        [token] = {tokens.refresh_token for tokens in won}
        assert world.refresh_tokens.verify(token).generation == generation
        clock.advance(GRACE + 1)
    [row] = await world.rows(ann.id)
    assert (row.generation, row.revoked_at) == (ROUNDS, None)
    await other.close()


async def test_many_at_once(world: World) -> None:
    ann = await world.ann()
    token = (await world.log_in()).refresh_token
    won = await asyncio.gather(*(world.accounts.sessions.refresh(token, HOME) for _ in range(40)))
    assert len({tokens.refresh_token for tokens in won}) == 1
    [row] = await world.rows(ann.id)
    assert (row.generation, row.revoked_at) == (1, None)


async def test_reuse_racing_the_honest_client_kills_the_session_once(world: World, clock: Clock) -> None:
    ann = await world.ann()
    stolen = (await world.log_in()).refresh_token
    current = (await world.accounts.sessions.refresh(stolen, HOME)).refresh_token
    clock.advance(GRACE + 1)
    await asyncio.gather(
        *(world.accounts.sessions.refresh(token, HOME) for token in (stolen, current) * 5),
        return_exceptions=True,
    )
    assert world.names().count("RefreshReused") == 1
    [row] = await world.rows(ann.id)
    assert row.revoked_reason == "reuse"


async def test_a_logout_racing_refreshes_wins(world: World) -> None:
    ann = await world.ann()
    for _ in range(20):
        token = (await world.log_in()).refresh_token
        await asyncio.gather(
            world.accounts.sessions.refresh(token, HOME),
            world.accounts.sessions.log_out(token),
            world.accounts.sessions.refresh(token, HOME),
            return_exceptions=True,
        )
    assert all(row.revoked_reason == "logout" for row in await world.rows(ann.id))


@pytest.mark.parametrize("change", ["all sessions are ended", "an admin sets a password"])
async def test_who_comes_late_just_while_everything_ends_gets_nothing(
    postgres: Postgres, clock: Clock, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Only PostgreSQL shows a transaction what others commit meanwhile; SQLite has one writer at a time."""
    world = World(Database(postgres.clean(), clock=clock), clock)
    ann = await world.ann()
    spent = (await world.log_in()).refresh_token
    await world.accounts.sessions.refresh(spent, HOME)
    loop, begun = asyncio.get_running_loop(), list[str]()

    async def end_everything() -> None:
        if change == "all sessions are ended":
            await world.accounts.sessions.end_all(ann.id)
        else:
            await world.accounts.users.update(ann.id, Changes(password=NEW_PASSWORD))

    def then_everything_ends(read: Callable[..., Any]) -> Callable[..., Any]:
        def reading(*arguments: Any, **options: Any) -> Any:
            found = read(*arguments, **options)
            if not begun:
                begun.append("with the first thing that the late one reads")
                asyncio.run_coroutine_threadsafe(end_everything(), loop).result(20)
            return found

        return reading

    monkeypatch.setattr(Store, "session", then_everything_ends(Store.session))
    monkeypatch.setattr(Store, "account", then_everything_ends(Store.account))
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.refresh(spent, HOME)
    assert begun
    await world.close()


async def just_after(change: str, url: str, act: Callable[[], Awaitable[object]]) -> object:
    """What comes of `act` if it begins while `change` is made and not yet committed."""
    with psycopg.connect(url, autocommit=True) as watching, psycopg.connect(url) as changing:
        changing.execute(change)
        acting = asyncio.create_task(_settled(act))

        def waits() -> bool:
            waiting = "datname = current_database() AND wait_event_type = 'Lock'"
            query = f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}"
            return watching.execute(query).fetchone() == (1,)

        await until(lambda: acting.done() or waits())
        changing.commit()
        return await acting


async def _settled(act: Callable[[], Awaitable[object]]) -> object:
    try:
        return await act()
    except GatewayError as error:
        return error


ACTS: dict[str, Callable[[World, User, LoggedIn], Awaitable[object]]] = {
    "all sessions are ended": lambda world, ann, _: world.accounts.sessions.end_all(ann.id),
    "other roles are given": lambda world, ann, _: world.accounts.users.update(ann.id, Changes(roles=("b",))),
    "a password is set": lambda world, ann, _: world.accounts.users.update(
        ann.id, Changes(password=NEW_PASSWORD)
    ),
    "she moves": lambda world, _, login: world.accounts.own.change_email(
        world.principal(login.access_token), PASSWORD, "moved@example.com"
    ),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
async def test_what_is_done_to_a_user_undoes_no_change_that_comes_just_before(
    postgres: Postgres, clock: Clock, act: Callable[[World, User, LoggedIn], Awaitable[object]]
) -> None:
    """SQLite has one writer at a time; on PostgreSQL a row could be written back as it was read."""
    world = World(Database(url := postgres.clean(), clock=clock), clock)
    ann, login = await world.ann(is_admin=True), await world.log_in()
    await world.accounts.users.create("root@example.com", PASSWORD, is_admin=True)
    demotion = "UPDATE users SET is_admin = false, version = version + 1 WHERE email = 'ann@example.com'"
    outcome = await just_after(demotion, url, lambda: act(world, ann, login))
    assert not isinstance(outcome, GatewayError)
    after = await world.accounts.users.get(ann.id)
    assert (after.is_admin, after.version) == (False, ann.version + 2)
    await world.close()


async def test_who_is_disabled_just_before_gets_no_session(postgres: Postgres, clock: Clock) -> None:
    world = World(Database(url := postgres.clean(), clock=clock), clock)
    ann = await world.ann()
    outcome = await just_after("UPDATE users SET disabled = true, version = version + 1", url, world.log_in)
    assert isinstance(outcome, InvalidCredentials)
    assert await world.rows(ann.id) == []
    await world.close()


async def test_a_password_that_was_set_just_before_stays(postgres: Postgres, clock: Clock) -> None:
    world = World(Database(url := postgres.clean(), clock=clock), clock)
    ann = await world.ann()
    principal = world.principal((await world.log_in()).access_token)
    theirs = await world.passwords.hash("set by somebody else")

    def change() -> Awaitable[object]:
        return world.accounts.own.change_password(principal, PASSWORD, NEW_PASSWORD)

    outcome = await just_after(f"UPDATE users SET password_hash = '{theirs}'", url, change)
    assert isinstance(outcome, InvalidCredentials)
    assert (await world.log_in(password="set by somebody else")).user == ann
    await world.close()


async def test_processes(url: str) -> None:
    world = World(Database(url), time.time)
    ann = await world.ann()
    token = (await world.log_in()).refresh_token
    with child(rotator.answer, url) as (_, one), child(rotator.answer, url) as (_, two):
        pipes = (one, two)
        for pipe in pipes:
            assert pipe.recv() == "ready"
        for generation in range(1, ROUNDS + 1):
            for pipe in pipes:
                pipe.send(token)
            [token] = {pipe.recv() for pipe in pipes}
            assert world.refresh_tokens.verify(token).generation == generation
        for pipe in pipes:
            pipe.send(None)
    [row] = await world.rows(ann.id)
    assert (row.generation, row.revoked_at) == (ROUNDS, None)
    await world.close()


async def test_a_process_killed_while_rotating_loses_no_session(url: str) -> None:
    """The client has the last token it was told, or the one before if the answer was lost."""
    world = World(Database(url), time.time)
    ann = await world.ann()
    token = (await world.log_in()).refresh_token
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    rotations = 0
    for _ in range(KILLS):
        with child(rotator.run_on, url, token) as (process, pipe):
            for _ in range(chance.randrange(1, 6)):
                token = pipe.recv()
            time.sleep(chance.random() * 0.004)  # noqa: ASYNC251 a kill at any moment is the point
            process.kill()
            process.join()
            while pipe.poll():
                try:
                    token = pipe.recv()
                except EOFError:
                    break
        before = token
        token = (await world.accounts.sessions.refresh(token, HOME)).refresh_token
        generation = world.refresh_tokens.verify(token).generation
        assert generation > rotations, seed
        rotations = generation
        again = (await world.accounts.sessions.refresh(before, HOME)).refresh_token
        assert again == token, seed
    [row] = await world.rows(ann.id)
    assert (row.generation, row.revoked_at) == (rotations, None), seed
    await world.accounts.sessions.log_out(token)
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.refresh(token, HOME)
    await world.close()
