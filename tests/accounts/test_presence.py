"""Processes on one database know of each other, and notice that it takes no more writes."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from gateway.accounts import presence as subject
from gateway.accounts.database import Database
from gateway.accounts.presence import Presence
from gateway.errors import Unavailable
from tests.accounts.world import Clock, World, make_read_only

pytestmark = pytest.mark.anyio


async def test_one_alone_and_then_another(world: World, clock: Clock) -> None:
    first, second = Presence(world.database), Presence(world.database)
    await first.beat()
    clock.advance(1)
    await second.beat()
    assert (first.others, second.others) == (0, 0)
    for _ in range(4):
        clock.advance(subject.BEAT_S)
        await first.beat()
        await second.beat()
    assert (first.others, second.others) == (1, 1)
    await second.leave()
    await first.beat()
    assert first.others == 0
    await second.beat()
    await first.beat()
    assert first.others == 1, "who only leaves takes no row but its own away"
    third = Presence(world.database)
    await third.beat()
    await third.leave()
    await first.beat()
    assert first.others == 1


async def test_it_is_well_until_a_renewal_fails_and_then_says_why(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    presence = Presence(world.database)
    assert (presence.healthy, presence.others) == (True, 0)
    failures: list[Exception] = [Unavailable(), Unavailable(), RuntimeError("a defect")]

    async def write(*_: object, **__: object) -> int:
        raise failures[0]

    monkeypatch.setattr(world.database, "write", write)
    await presence.beat()
    assert not presence.healthy
    failures.pop(0)
    await presence.beat()
    (said,) = caplog.records
    assert said.exc_info is None
    presence.healthy = True
    failures.pop(0)
    await presence.beat()
    defect = caplog.records[-1].exc_info
    assert defect is not None
    assert str(defect[1]) == "a defect"


async def test_a_process_that_was_killed_is_not_counted_by_the_next(world: World, clock: Clock) -> None:
    killed = Presence(world.database)
    await killed.beat()
    clock.advance(0.5)
    follower = Presence(world.database)
    for _ in range(4):
        await follower.beat()
        assert follower.others == 0
        clock.advance(subject.BEAT_S)
    count = text("SELECT count(*) FROM replicas")
    assert await world.database.read(lambda c: c.execute(count).scalar_one()) == 1


async def test_one_that_was_silent_for_long_counts_again(world: World, clock: Clock) -> None:
    first, second = Presence(world.database), Presence(world.database)
    await first.beat()
    await second.beat()
    clock.advance(subject.GONE_S + 1)
    await first.beat()
    assert first.others == 0
    clock.advance(1)
    await second.beat()
    await first.beat()
    assert first.others == 1


async def test_a_database_that_takes_no_writes_is_noticed_once_and_forgiven(
    sqlite: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(sqlite)
    presence = Presence(database)
    await presence.beat()
    make_read_only(database, "ON")
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            make_read_only(database, "OFF")
        if len(slept) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await presence.run(sleep=sleep)
    assert slept == [subject.RETRY_S, subject.RETRY_S, subject.BEAT_S]
    assert caplog.text.count("the database can't be written") == 1
    await database.close()


async def test_a_goodbye_that_can_not_be_said_keeps_nobody(world: World) -> None:
    presence = Presence(world.database)
    await presence.beat()
    await world.database.close()
    await presence.leave()
