"""How other processes hear of cut-offs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from gateway.accounts import feed as subject
from gateway.accounts.database import Database
from gateway.accounts.feed import Feed
from gateway.accounts.service import Changes
from gateway.errors import Unavailable
from gateway.identity.revocation import Cut
from tests.accounts.world import ACCESS_TTL, HOME, LEEWAY, PASSWORD, SESSION_MAX, Clock, World

pytestmark = pytest.mark.anyio


@pytest.fixture
async def other(url: str, clock: Clock, world: World) -> AsyncIterator[World]:
    """A second process on the same database."""
    other = World(Database(url, clock=clock), clock)
    yield other
    await other.close()


async def test_every_kind_of_end_reaches_the_other_process(world: World, other: World) -> None:
    feed = Feed(other.database, other.cutoffs.apply)
    await feed.load()
    assert feed.healthy
    ann = await world.ann()
    first, second, third = [await world.log_in() for _ in range(3)]
    await world.accounts.sessions.log_out(first.refresh_token)
    await feed.poll()
    assert [other.holds(s.access_token) for s in (first, second, third)] == [False, True, True]
    await world.accounts.own.change_password(world.principal(second.access_token), PASSWORD, "x" * 12)
    await feed.poll()
    assert [other.holds(s.access_token) for s in (second, third)] == [True, False]
    await world.accounts.users.update(ann.id, Changes(roles=("a",)))
    await feed.poll()
    assert not other.holds(second.access_token)
    assert other.holds((await world.accounts.sessions.refresh(second.refresh_token, HOME)).access_token)


async def test_a_process_that_starts_later_knows_what_still_matters(
    world: World, other: World, clock: Clock
) -> None:
    await world.ann()
    old, session = await world.log_in(), await world.log_in()
    await world.accounts.sessions.log_out(old.refresh_token)
    clock.advance(ACCESS_TTL + LEEWAY + 61)
    await world.accounts.sessions.log_out(session.refresh_token)
    await Feed(other.database, other.cutoffs.apply).load()
    assert len(other.cutoffs) == 1
    assert not other.cutoffs.cuts(world.principal((await world.log_in()).access_token))


async def test_a_commit_that_comes_late_is_seen(world: World, other: World, clock: Clock) -> None:
    await world.ann()
    session = await world.log_in()
    feed = Feed(other.database, other.cutoffs.apply)
    await feed.load()
    for _ in range(10):
        clock.advance(1)
        await feed.poll()
    clock.advance(-9)  # a transaction that began before the last polls
    await world.accounts.sessions.log_out(session.refresh_token)
    clock.advance(10)
    await feed.poll()
    assert not other.holds(session.access_token)


async def test_a_clock_that_is_set_back_delays_for_a_minute_at_most(
    world: World, other: World, clock: Clock
) -> None:
    await world.ann()
    session = await world.log_in()
    feed = Feed(other.database, other.cutoffs.apply)
    clock.advance(500)
    await feed.load()
    clock.advance(-500)
    await world.accounts.sessions.log_out(session.refresh_token)
    for _ in range(subject.FULL_LOAD_EVERY):
        await feed.poll()
    assert not other.holds(session.access_token)


async def test_most_polls_read_only_what_is_new(world: World, clock: Clock) -> None:
    seen: list[Cut] = []
    feed = Feed(world.database, seen.append)
    await world.ann()
    await world.accounts.sessions.log_out((await world.log_in()).refresh_token)
    await feed.load()
    assert len(seen) == 1
    clock.advance(subject.OVERLAP_S + 1)
    await feed.poll()
    seen.clear()
    clock.advance(1)
    await feed.poll()
    assert seen == []


async def test_an_absent_database_is_unhealthy_and_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await world.ann()
    session = await world.log_in()
    feed = Feed(world.database, world.cutoffs.apply)

    async def away(work: object) -> None:
        raise Unavailable

    with monkeypatch.context() as patch:
        patch.setattr(world.database, "read", away)
        with pytest.raises(Unavailable):
            await feed.load()
        assert not feed.healthy
    await feed.load()
    with monkeypatch.context() as patch:
        patch.setattr(world.database, "read", away)
        await feed.poll()
        await feed.poll()
    assert not feed.healthy
    assert caplog.text.count("cut-offs can't be read") == 1
    await world.accounts.sessions.log_out(session.refresh_token)
    await feed.poll()
    assert feed.healthy


async def test_a_defect_does_not_end_the_feed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def broken(cut: Cut) -> None:
        raise LookupError("a defect")

    feed = Feed(world.database, broken)
    await feed.load()
    await world.ann()
    await world.accounts.sessions.log_out((await world.log_in()).refresh_token)
    await feed.poll()
    assert not feed.healthy
    assert "LookupError" in caplog.text


async def test_it_polls_every_second_until_cancelled(world: World) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 4:
            raise asyncio.CancelledError

    feed = Feed(world.database, world.cutoffs.apply)
    with pytest.raises(asyncio.CancelledError):
        await feed.run(sleep=sleep)
    assert slept == [1.0] * 4
    assert feed.healthy


async def test_what_is_long_dead_is_pruned(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "PRUNE_EVERY", 2)
    ann = await world.ann()
    for _ in range(3):
        session = await world.log_in()
    await world.accounts.sessions.log_out(session.refresh_token)
    feed = Feed(world.database, world.cutoffs.apply)
    await feed.prune()
    assert len(await world.rows(ann.id)) == 3
    clock.advance(SESSION_MAX)
    living = await world.log_in()
    monkeypatch.setattr("gateway.accounts.store.PRUNED_AT_ONCE", 1)
    monkeypatch.setattr(subject, "PRUNED_AT_ONCE", 1)
    await feed.poll()
    await feed.poll()
    assert len(await world.rows(ann.id)) == 1
    count = text("SELECT count(*) FROM cutoffs")
    assert await world.database.read(lambda c: c.execute(count).scalar_one()) == 0
    await world.accounts.sessions.refresh(living.refresh_token, HOME)
