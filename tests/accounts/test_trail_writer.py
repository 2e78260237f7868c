"""Events that belong to no transaction reach the table, and nobody waits for that."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from sqlalchemy import Connection

from gateway.accounts import trail
from gateway.accounts import trail_writer as subject
from gateway.accounts.trail import Wanted
from gateway.accounts.trail_writer import BURST, PER_SECOND, TrailWriter
from gateway.errors import Unavailable
from gateway.telemetry.audit import LoginFailed, LoginLimited, Recorded
from tests.accounts.world import Clock, World

pytestmark = pytest.mark.anyio


@pytest.fixture
def writer(world: World) -> TrailWriter:
    return TrailWriter(world.database)


def failures(world: World, count: int, name: str = "x") -> list[Recorded]:
    return [Recorded.here(LoginFailed(email=f"{name}{n}@example.com"), world.clock()) for n in range(count)]


async def kept(world: World) -> int:
    total, cursor = 0, None
    while True:
        page = await world.accounts.trail.page(Wanted(), limit=200, cursor=cursor)
        total += len(page.items)
        cursor = page.next_cursor
        if cursor is None:
            return total


def counting(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The transactions that are begun from now on."""
    begun: list[int] = []
    write = world.database.write

    async def counted(*args: Any, **kwargs: Any) -> Any:
        begun.append(1)
        return await write(*args, **kwargs)

    monkeypatch.setattr(world.database, "write", counted)
    return begun


def put_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any, **__: Any) -> None:
        raise Unavailable

    monkeypatch.setattr(world.database, "write", away)


async def test_a_storm_is_a_handful_of_transactions(
    world: World, writer: TrailWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = counting(world, monkeypatch)
    for recorded in failures(world, BURST):
        writer.put(recorded)
    assert begun == []
    await writer.flush()
    assert len(begun) == BURST / subject.BATCH
    assert await kept(world) == BURST
    await writer.flush()
    assert len(begun) == BURST / subject.BATCH


async def test_the_table_takes_no_more_than_so_many_whoever_tries(
    world: World, writer: TrailWriter, clock: Clock
) -> None:
    for _ in range(5):
        for recorded in failures(world, 2 * BURST):
            writer.put(recorded)
        await writer.flush()
        clock.advance(60)
    allowed = BURST + 4 * 60 * PER_SECOND
    assert await kept(world) == allowed
    assert writer.dropped == 5 * 2 * BURST - allowed


async def test_a_flood_of_one_kind_hides_no_other(world: World, writer: TrailWriter) -> None:
    for recorded in failures(world, 3 * BURST):
        writer.put(recorded)
    limited = LoginLimited(email="a@example.com", limit="per_account")
    writer.put(Recorded.here(limited, world.clock()))
    await writer.flush()
    page = await world.accounts.trail.page(Wanted(names=("login_limited",)))
    assert len(page.items) == 1


async def test_what_waits_is_bounded(
    world: World, writer: TrailWriter, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """The database is away for long, and the allowance fills up again and again."""
    monkeypatch.setattr(subject, "ROOM", BURST + 10)
    for _ in range(5):
        for recorded in failures(world, BURST):
            writer.put(recorded)
        clock.advance(2 * BURST / PER_SECOND)
    assert writer.dropped == 5 * BURST - (BURST + 10)


async def test_a_clock_that_is_set_back_takes_nothing_away(
    world: World, writer: TrailWriter, clock: Clock
) -> None:
    writer.put(*failures(world, 1))
    clock.advance(-5000)
    for recorded in failures(world, BURST - 1):
        writer.put(recorded)
    assert writer.dropped == 0


async def test_a_clock_that_is_set_back_brings_nothing_extra(
    world: World, writer: TrailWriter, clock: Clock
) -> None:
    for jump in (0, -5000, 5000, -5000):
        clock.advance(jump)
        for recorded in failures(world, BURST):
            writer.put(recorded)
        await writer.flush()
    assert await kept(world) <= 2 * BURST


async def test_while_the_database_is_away_they_wait_and_then_all_are_there(
    world: World, writer: TrailWriter
) -> None:
    for recorded in failures(world, 5):
        writer.put(recorded)
    with pytest.MonkeyPatch.context() as patch:
        put_away(world, patch)
        with pytest.raises(Unavailable):
            await writer.flush()
    writer.put(*failures(world, 1, "later"))
    await writer.flush()
    assert await kept(world) == 6
    assert writer.dropped == 0


async def test_an_event_that_can_not_be_written_holds_up_no_others(
    world: World, writer: TrailWriter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(subject, "BATCH", 1)
    add = trail.add

    def refuse_one(connection: Connection, events: tuple[Recorded, ...]) -> None:
        if events == tuple(broken):
            raise TypeError("a defect")
        add(connection, events)

    monkeypatch.setattr(trail, "add", refuse_one)
    broken = failures(world, 1, "broken")
    writer.put(*broken)
    writer.put(*failures(world, 1))
    await writer.flush()
    assert await kept(world) == 1
    assert writer.dropped == 1
    assert "only in the log" in caplog.text


async def test_a_process_that_stops_writes_what_waits(world: World, writer: TrailWriter) -> None:
    writer.start()
    for recorded in failures(world, 3):
        writer.put(recorded)
    await writer.close()
    assert await kept(world) == 3


async def test_a_process_that_stops_does_not_wait_for_its_database_for_long(
    world: World, writer: TrailWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines: list[float | None] = []

    async def write(work: object, *, deadline: float | None = None) -> None:
        deadlines.append(deadline)

    monkeypatch.setattr(world.database, "write", write)
    writer.start()
    writer.put(*failures(world, 1))
    await writer.close()
    assert deadlines == [subject.LAST_S]


async def test_after_a_failure_it_is_tried_again_later(
    world: World, writer: TrailWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def is_closing(pause: float) -> bool:
        pauses.append(pause)
        writer.put(*failures(world, 1))
        if len(pauses) == 2:
            put_away(world, monkeypatch)
        return len(pauses) == 4

    monkeypatch.setattr(writer, "_is_closing", is_closing)
    await writer._run()
    assert pauses == [subject.FLUSH_S, subject.FLUSH_S, subject.RETRY_S, subject.RETRY_S]


async def test_a_process_that_stops_without_its_database_says_what_is_missing(
    world: World, writer: TrailWriter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put_away(world, monkeypatch)
    writer.start()
    for recorded in failures(world, 3):
        writer.put(recorded)
    with caplog.at_level(logging.WARNING):
        await writer.close()
    assert writer.dropped == 3
    (record,) = [each for each in caplog.records if each.getMessage() == "audit events are only in the log"]
    assert record.__dict__["count"] == 3


async def test_what_is_missing_is_said_once_in_a_while(
    world: World, writer: TrailWriter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(subject, "FLUSH_S", 0.0)
    looks: list[int] = []

    async def flush(**_: object) -> None:
        looks.append(1)
        writer.put(*failures(world, 1))
        if len(looks) == 50:
            writer._closing.set()

    for recorded in failures(world, BURST):
        writer.put(recorded)
    monkeypatch.setattr(writer, "flush", flush)
    await writer._run()
    assert writer.dropped >= 50
    told = [record for record in caplog.records if record.message == "audit events are only in the log"]
    assert len(told) == 3, "the first, and the last two"
    assert sum(vars(record)["count"] for record in told) == writer.dropped
