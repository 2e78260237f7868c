"""How other processes hear of cut-offs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from gateway.accounts import feed as subject
from gateway.accounts.database import WATCH_DEADLINE_S, Database
from gateway.accounts.feed import Feed
from gateway.accounts.service import Changes
from gateway.accounts.store import Store
from gateway.errors import Unavailable
from gateway.identity.revocation import Cut
from tests.accounts.world import (
    ACCESS_TTL,
    HOME,
    LEEWAY,
    PASSWORD,
    REFRESH_TTL,
    SESSION_MAX,
    Clock,
    World,
    execute,
    opened,
)

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


async def test_a_commit_that_overtakes_another_hides_nothing(url: str) -> None:
    """By real clocks and transactions: one that was stamped and numbered first is committed last."""
    world, other = World(Database(url), time.time), World(Database(url), time.time)
    await world.ann()
    slow, quick = [await world.log_in() for _ in range(2)]
    feed = Feed(other.database, other.cutoffs.apply)
    await feed.load()
    begun, gate = threading.Event(), threading.Event()

    def held(connection: Connection) -> None:
        cut = Cut("session", world.principal(slow.access_token).session, 0, time.time() + 900)
        Store(connection).add_cut(cut, now=world.database.now(connection))
        begun.set()
        gate.wait()

    late = asyncio.create_task(world.database.write(held))
    await asyncio.to_thread(begun.wait)
    if not world.database.is_sqlite:  # which has one writer, so that nobody is overtaken
        await world.accounts.sessions.log_out(quick.refresh_token)
        await feed.catch_up()
        await feed.poll()
        assert [other.holds(session.access_token) for session in (slow, quick)] == [True, False]
    gate.set()
    await late
    await feed.poll()
    assert not other.holds(slow.access_token)
    await other.close()
    await world.close()


async def test_a_clock_that_is_set_back_hides_nothing(world: World, other: World, clock: Clock) -> None:
    await world.ann()
    session = await world.log_in()
    feed = Feed(other.database, other.cutoffs.apply)
    clock.advance(500)
    await feed.load()
    clock.advance(-500)
    await world.accounts.sessions.log_out(session.refresh_token)
    await feed.poll()
    assert not other.holds(session.access_token)


async def test_there_may_be_more_than_one_poll_has_time_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start, or a reading after an absence, must not fail for ever because there is much to read."""
    given: list[float] = []
    watch = world.database.watch

    async def slow(work: Any, *, deadline: float) -> Any:
        given.append(deadline)
        return await watch(work, deadline=deadline)

    monkeypatch.setattr(world.database, "watch", slow)
    feed = Feed(world.database, world.cutoffs.apply)
    await feed.load()
    await feed.poll()
    await feed.catch_up()
    feed.healthy = False
    await feed.poll()
    assert given == [subject.LOAD_DEADLINE_S, WATCH_DEADLINE_S, WATCH_DEADLINE_S, subject.LOAD_DEADLINE_S]


async def test_now_and_then_everything_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a restored backup, whose rows are both old and lowly numbered."""
    monkeypatch.setattr(subject, "FULL_LOAD_EVERY", 3)
    seen: list[Cut] = []
    feed = Feed(world.database, seen.append)
    await world.ann()
    for session in [await world.log_in() for _ in range(2)]:
        await world.accounts.sessions.log_out(session.refresh_token)
    await feed.load()
    await world.database.write(execute("UPDATE cutoffs SET recorded_at = 1, seq = -seq"))
    seen.clear()
    await feed.poll()
    await feed.poll()
    assert seen == []
    await feed.poll()
    assert len(seen) == 2


async def test_a_mass_is_not_read_again_and_again(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But now and then: some of it may have been committed late."""
    monkeypatch.setattr(subject, "CROWD", 10)
    monkeypatch.setattr(subject, "OVERLAP_ROWS", 0)
    seen: list[Cut] = []

    def add(first: int, count: int) -> Callable[[Connection], None]:
        def work(connection: Connection) -> None:
            for number in range(first, first + count):
                cut = Cut("session", str(number), 0, world.clock() + 900)
                Store(connection).add_cut(cut, now=world.clock())

        return work

    async def polled() -> int:
        seen.clear()
        await feed.poll()
        return len(seen)

    feed = Feed(world.database, seen.append)
    await feed.load()
    await world.database.write(add(0, 12))
    assert await polled() == 12
    assert [await polled() for _ in range(2)] == [0, 0]
    await world.database.write(add(12, 1))
    assert await polled() == 1  # what is new is never late
    assert await polled() == 13  # the fifth
    await world.database.write(
        execute(f"INSERT INTO cutoffs VALUES (-1, 'session', 'late', 0, {clock.now + 900}, {clock.now})")
    )
    assert await polled() == 14  # numbered before all of them, and committed after
    await world.database.write(add(13, 1))
    await feed.catch_up()
    assert [await polled() for _ in range(4)] == [0, 0, 0, 15]
    clock.advance(subject.OVERLAP_S + 1)
    await world.database.write(add(14, 1))
    assert [await polled() for _ in range(5)] == [1, 0, 0, 0, 1]
    assert not feed._crowded


async def test_a_file_that_nobody_changed_is_not_read(sqlite: str, clock: Clock) -> None:
    async with opened(sqlite, clock=clock) as database:
        world, asked = World(database, clock), []
        await world.ann()
        session = await world.log_in()
        feed = Feed(database, world.cutoffs.apply)
        await feed.load()

        @event.listens_for(database._watch_engine, "before_cursor_execute")
        def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
            words = statement.split()
            asked.append(words[words.index("FROM") + 1] if "FROM" in words else words[0])

        await feed.poll()
        assert asked == ["BEGIN", "PRAGMA", "sessions"]  # time passes for those all the same
        await world.accounts.sessions.log_out(session.refresh_token)
        await feed.poll()
        assert asked[3:] == ["BEGIN", "PRAGMA", "cutoffs", "sessions"]
        await feed.poll()
        assert asked[7:] == ["BEGIN", "PRAGMA", "sessions"]
        await world.passwords.close()


# -- sessions that run out -----------------------------------------------------------------------------------


async def test_a_session_that_runs_out_is_cut_off_for_what_outlives_its_tokens(
    world: World, other: World, clock: Clock
) -> None:
    """Streams and tunnels, in every process; one that is refreshed goes on to its fixed end."""
    await world.ann()
    idle, busy = [await world.log_in() for _ in range(2)]
    of_idle, of_busy = [world.principal(login.access_token) for login in (idle, busy)]
    feed = Feed(other.database, other.cutoffs.apply)
    await feed.load()
    begun, token = clock.now, busy.refresh_token
    for end, cut in (
        (REFRESH_TTL - 1, (False, False)),
        (REFRESH_TTL + 1, (True, False)),
        (SESSION_MAX - 1, (True, False)),
        (SESSION_MAX + 1, (True, True)),
    ):
        while clock.now < begun + end:
            clock.now = min(clock.now + REFRESH_TTL / 2, begun + end)
            if clock.now < begun + SESSION_MAX:
                token = (await world.accounts.sessions.refresh(token, HOME)).refresh_token
            await feed.poll()
        assert (other.cutoffs.cuts(of_idle), other.cutoffs.cuts(of_busy)) == cut, end
    other.cutoffs.forget(clock.now + subject.LEEWAY_S)
    assert len(other.cutoffs) == 0


async def test_a_session_that_runs_out_is_cut_off_within_two_seconds_and_never_before(
    world: World, clock: Clock
) -> None:
    await world.ann()
    principal = world.principal((await world.log_in()).access_token)
    feed = Feed(world.database, world.cutoffs.apply)
    clock.advance(REFRESH_TTL - 2)
    await feed.load()
    moments = []
    for moment in (-1.0, 0.0, 0.2, 0.3, 1.3):
        clock.now = 1_800_000_000.0 + REFRESH_TTL + moment
        await feed.poll()
        moments.append(world.cutoffs.cuts(principal))
    assert moments == [False, False, False, True, True]


async def test_who_refreshes_in_the_last_moment_goes_on(world: World, clock: Clock) -> None:
    await world.ann()
    login = await world.log_in()
    principal = world.principal(login.access_token)
    feed = Feed(world.database, world.cutoffs.apply)
    await feed.load()
    clock.advance(REFRESH_TTL - 0.1)
    await world.accounts.sessions.refresh(login.refresh_token, HOME)
    for _ in range(3):
        clock.advance(1)
        await feed.poll()
    assert not world.cutoffs.cuts(principal)


async def test_sessions_that_ran_out_unseen_are_made_up_for(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database was away, or just before the process began: the leeway lets a token in that long."""
    await world.ann()
    seen: list[Cut] = []
    feed = Feed(world.database, seen.append)
    await feed.load()
    principal = world.principal((await world.log_in()).access_token)
    clock.advance(REFRESH_TTL - 10)

    async def away(work: object, **settings: object) -> None:
        raise Unavailable

    with monkeypatch.context() as patch:
        patch.setattr(world.database, "watch", away)
        for _ in range(3):
            await feed.poll()
            clock.advance(3600)
    assert seen == []
    await feed.poll()
    assert {cut.id for cut in seen} == {principal.session}

    clock.now = 1_800_000_000.0 + REFRESH_TTL + LEEWAY
    late = Feed(world.database, world.cutoffs.apply)
    await late.load()
    assert world.cutoffs.cuts(principal)


async def test_one_that_was_ended_does_not_run_out_as_well(world: World, clock: Clock) -> None:
    await world.ann()
    await world.accounts.sessions.log_out((await world.log_in()).refresh_token)
    seen: list[Cut] = []
    feed = Feed(world.database, seen.append)
    clock.advance(REFRESH_TTL - 1)
    await feed.load()
    clock.advance(2)
    await feed.poll()
    assert seen == []


async def test_what_is_new_is_read_without_what_is_not(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "OVERLAP_ROWS", 0)
    seen: list[Cut] = []
    feed = Feed(world.database, seen.append)
    await world.ann()
    first, second = [await world.log_in() for _ in range(2)]
    await feed.load()
    await world.accounts.sessions.log_out(first.refresh_token)
    await feed.catch_up()
    await world.accounts.sessions.log_out(second.refresh_token)
    await feed.catch_up()
    await feed.catch_up()
    assert [cut.id for cut in seen] == [world.principal(s.access_token).session for s in (first, second)]


async def test_a_mass_of_cut_offs_leaves_requests_their_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "BREATH", 10)
    turns: list[int] = []

    async def request() -> None:
        while True:
            turns.append(len(seen))
            await asyncio.sleep(0)

    def mass(connection: Connection) -> None:
        for number in range(95):
            Store(connection).add_cut(Cut("session", str(number), 0, world.clock() + 900), now=world.clock())

    seen: list[Cut] = []
    await world.database.write(mass)
    task = asyncio.create_task(request())
    await Feed(world.database, seen.append).load()
    task.cancel()
    assert set(range(10, 91, 10)) <= set(turns)


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

    async def away(work: object, **settings: object) -> None:
        raise Unavailable

    with monkeypatch.context() as patch:
        patch.setattr(world.database, "watch", away)
        with pytest.raises(Unavailable):
            await feed.load()
        assert not feed.healthy
    await feed.load()
    with monkeypatch.context() as patch:
        patch.setattr(world.database, "watch", away)
        await feed.poll()
        await feed.poll()
    assert not feed.healthy
    assert caplog.text.count("cut-offs can't be read") == 1
    await world.accounts.sessions.log_out(session.refresh_token)
    await feed.poll()
    assert feed.healthy


async def test_its_age_counts_from_when_the_last_reading_that_worked_was_begun(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, heard = Clock(100.0), list[float]()
    watch_database = world.database.watch

    async def slow(*question: Any, **settings: Any) -> Any:
        watch.advance(2)
        return await watch_database(*question, **settings)

    async def away(*question: Any, **settings: Any) -> Any:
        raise Unavailable

    feed = Feed(world.database, world.cutoffs.apply, on_read=heard.append, stopwatch=watch)
    watch.advance(3)
    assert feed.age == 3
    monkeypatch.setattr(world.database, "watch", slow)
    await feed.load()
    assert (feed.age, heard) == (2, [103])
    watch.advance(5)
    monkeypatch.setattr(world.database, "watch", away)
    await feed.poll()
    assert (feed.age, heard) == (7, [103])


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
    living, ended = await world.log_in(), await world.log_in()
    await world.accounts.sessions.log_out(ended.refresh_token)
    monkeypatch.setattr("gateway.accounts.store.PRUNED_AT_ONCE", 1)
    monkeypatch.setattr(subject, "PRUNED_AT_ONCE", 1)
    await feed.poll()
    assert len(await world.rows(ann.id)) == 5  # not at every poll
    await feed.poll()
    assert len(await world.rows(ann.id)) == 2
    kept = text("SELECT id FROM cutoffs")
    cut = await world.database.read(lambda c: list(c.execute(kept).scalars()))
    assert cut == [world.principal(ended.access_token).session]  # it could still be met
    await world.accounts.sessions.refresh(living.refresh_token, HOME)


async def test_the_first_clean_up_comes_soon(world: World, clock: Clock) -> None:
    """A process that is started anew every few minutes would never come to its second hour."""
    ann = await world.ann()
    await world.log_in()
    clock.advance(SESSION_MAX)
    feed = Feed(world.database, world.cutoffs.apply)
    for _ in range(subject.PRUNE_FIRST):
        await feed.poll()
    assert await world.rows(ann.id) == []


async def test_a_session_stays_for_a_day_after_its_end(world: World, clock: Clock) -> None:
    ann = await world.ann()
    await world.log_in()
    feed, start = Feed(world.database, world.cutoffs.apply), clock.now
    for left, kept in ((1.0, 1), (-86_400.0, 1), (-86_401.0, 0)):
        clock.now = start + REFRESH_TTL - left
        await feed.prune()
        assert len(await world.rows(ann.id)) == kept
