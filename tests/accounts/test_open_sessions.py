"""Sessions that are open: listed, ended one by one or all at once, idle for too long, too many of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.accounts.database import Database
from gateway.accounts.feed import Feed
from gateway.accounts.service import Changes, Client, LoggedIn, OpenSession
from gateway.accounts.values import Page
from gateway.errors import GatewayError, InvalidField, InvalidRefreshToken, NotFound
from tests.accounts.world import (
    ACCESS_TTL,
    ELSEWHERE,
    HOME,
    LEEWAY,
    NEW_PASSWORD,
    PASSWORD,
    REFRESH_TTL,
    Clock,
    World,
)

pytestmark = pytest.mark.anyio

IDLE = 3600
CAP = 3


@pytest.fixture
async def strict(url: str, clock: Clock, anyio_backend: str) -> AsyncIterator[World]:
    """With an idle limit and a cap."""
    world = World(Database(url, clock=clock), clock, rules={"idle_max": IDLE, "max_per_user": CAP})
    yield world
    await world.close()


def sid(world: World, login: LoggedIn) -> str:
    return world.principal(login.access_token).session


async def open_ids(world: World, user_id: str | None = None) -> list[str]:
    return [session.id for session in (await world.accounts.sessions.list(user_id)).items]


# -- the list ------------------------------------------------------------------------------------------------


async def test_each_login_is_listed_with_where_and_when_it_was_last_used(world: World, clock: Clock) -> None:
    ann = await world.ann()
    began = clock.now
    first = await world.log_in()
    clock.advance(60)
    second = await world.log_in(client=ELSEWHERE)
    clock.advance(60)
    await world.accounts.sessions.refresh(first.refresh_token, Client("203.0.113.5", "Firefox 2"))

    found = (await world.accounts.sessions.list(ann.id)).items
    assert found == (
        OpenSession(
            id=sid(world, second),
            user_id=ann.id,
            email=ann.email,
            created_at=began + 60,
            last_used_at=began + 60,
            expires_at=int(began) + 60 + REFRESH_TTL,
            address=ELSEWHERE.address,
            user_agent=ELSEWHERE.user_agent,
        ),
        OpenSession(
            id=sid(world, first),
            user_id=ann.id,
            email=ann.email,
            created_at=began,
            last_used_at=began + 120,
            expires_at=int(began) + 120 + REFRESH_TTL,
            address="203.0.113.5",
            user_agent="Firefox 2",
        ),
    )


async def test_what_is_over_is_not_listed(world: World, clock: Clock) -> None:
    ann = await world.ann()
    await world.log_in()
    clock.advance(REFRESH_TTL)
    assert await open_ids(world, ann.id) == []
    out, stays = await world.log_in(), await world.log_in()
    await world.accounts.sessions.log_out(out.refresh_token)
    assert await open_ids(world, ann.id) == [sid(world, stays)]
    await world.accounts.users.update(ann.id, Changes(disabled=True))
    assert await open_ids(world, ann.id) == []


async def test_pages_show_each_session_once_though_others_begin_and_end(world: World, clock: Clock) -> None:
    ann = await world.ann()
    await world.accounts.users.create("bob@example.com", PASSWORD)
    made = []
    for _ in range(7):
        made.append(await world.log_in())
        await world.log_in("bob@example.com")
        clock.advance(1)
    shown: list[str] = []
    page: Page[OpenSession] = await world.accounts.sessions.list(ann.id, limit=3)
    while True:
        shown += [session.id for session in page.items]
        await world.log_in()  # a new one belongs before the first page
        await world.accounts.sessions.end_these((shown[-1],))  # even the one that the cursor names
        if page.next_cursor is None:
            break
        page = await world.accounts.sessions.list(ann.id, limit=3, cursor=page.next_cursor)
    assert shown == [sid(world, login) for login in reversed(made)]
    assert len(await open_ids(world)) == 7 + 7 + 3 - 3


async def test_a_page_begins_behind_the_last_of_the_one_before(world: World, clock: Clock) -> None:
    ann = await world.ann()
    oldest, *others = [await later(world, clock) for _ in range(3)]
    page = await world.accounts.sessions.list(ann.id, limit=2)
    assert [session.id for session in page.items] == [sid(world, each) for each in reversed(others)]
    page = await world.accounts.sessions.list(ann.id, limit=2, cursor=page.next_cursor)
    assert [session.id for session in page.items] == [sid(world, oldest)]


async def test_odd_requests_for_a_list_are_refused(world: World) -> None:
    ann = await world.ann()
    for settings in ({"limit": 0}, {"limit": 201}, {"cursor": "x"}, {"cursor": ""}):
        with pytest.raises(InvalidField):
            await world.accounts.sessions.list(ann.id, **settings)  # type: ignore[arg-type]
    for nobody in ("", "x", "\0", ann.id.upper(), "0190a0a0-0000-7000-8000-000000000000"):
        with pytest.raises(NotFound):
            await world.accounts.sessions.list(nobody)
        with pytest.raises(NotFound):
            await world.accounts.sessions.end_all(nobody)
        with pytest.raises(NotFound):
            await world.accounts.sessions.end_these((nobody,))


# -- ending --------------------------------------------------------------------------------------------------


async def test_a_session_that_is_ended_is_over_for_its_tokens_and_for_the_other_replicas(
    world: World,
) -> None:
    ann = await world.ann()
    mine, other = await world.log_in(), await world.log_in()
    await world.accounts.sessions.end(sid(world, mine), user_id=ann.id, actor=ann.id)
    assert (world.holds(mine.access_token), world.holds(other.access_token)) == (False, True)
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.refresh(mine.refresh_token, HOME)
    await world.accounts.sessions.refresh(other.refresh_token, HOME)

    replica = World(world.database, world.clock)
    await Feed(world.database, replica.cutoffs.apply).load()
    assert (replica.holds(mine.access_token), replica.holds(other.access_token)) == (False, True)
    ended = [event for event in world.events if type(event).__name__ == "SessionEnded"]
    assert [(event.user, event.session, event.reason, event.actor) for event in ended] == [
        (ann.id, sid(world, mine), "ended", ann.id)
    ]


async def test_the_table_says_why_each_session_ended(world: World) -> None:
    ann = await world.ann()
    left, ended, other, last = [await world.log_in() for _ in range(4)]
    await world.accounts.sessions.log_out(left.refresh_token)
    await world.accounts.sessions.end(sid(world, ended), user_id=ann.id)
    await world.accounts.own.change_password(world.principal(last.access_token), PASSWORD, NEW_PASSWORD)
    await world.accounts.sessions.end_all(ann.id)
    again = await world.log_in(password=NEW_PASSWORD)
    await world.accounts.users.update(ann.id, Changes(password=PASSWORD))
    once_more = await world.log_in()
    await world.accounts.users.update(ann.id, Changes(disabled=True))
    why = {row.id: row.revoked_reason for row in await world.rows(ann.id)}
    assert why == {
        sid(world, left): "logout",
        sid(world, ended): "ended",
        sid(world, other): "password_changed",
        sid(world, last): "all_ended",
        sid(world, again): "password_set",
        sid(world, once_more): "disabled",
    }


async def test_a_strangers_session_and_one_that_is_over_do_not_exist(world: World, clock: Clock) -> None:
    ann = await world.ann()
    bob = await world.accounts.users.create("bob@example.com", PASSWORD)
    mine, theirs = await world.log_in(), await world.log_in("bob@example.com")
    over = await world.log_in()
    await world.accounts.sessions.log_out(over.refresh_token)
    for session, owner in ((mine, bob), (theirs, ann), (over, ann)):
        with pytest.raises(NotFound) as refused:
            await world.accounts.sessions.end(sid(world, session), user_id=owner.id)
        assert str(refused.value) == "There is no such session, or it is over."
    assert world.holds(mine.access_token)
    assert world.holds(theirs.access_token)
    expired = sid(world, mine)
    clock.advance(REFRESH_TTL)
    with pytest.raises(NotFound):
        await world.accounts.sessions.end_these((expired,))


async def test_ending_all_is_one_cut_off_however_many_there_are(world: World, clock: Clock) -> None:
    ann = await world.ann()
    await world.accounts.users.create("bob@example.com", PASSWORD)
    logins = [await world.log_in() for _ in range(5)]
    bobs = await world.log_in("bob@example.com")
    logins[0] = await in_place(world, logins[0])
    assert await world.accounts.sessions.end_all(ann.id, actor="root") == 5
    assert not any(world.holds(login.access_token) for login in logins)
    assert world.holds(bobs.access_token)
    assert len(world.cutoffs) == 1
    for login in logins:
        with pytest.raises(InvalidRefreshToken):
            await world.accounts.sessions.refresh(login.refresh_token, HOME)
    event = world.events[-1]
    assert (event.name, event.user, event.count, event.actor) == ("sessions_ended", ann.id, 5, "root")

    again = await world.log_in()
    assert world.holds(again.access_token)
    assert await world.accounts.sessions.end_all(ann.id) == 1
    heard = len(world.events)
    assert await world.accounts.sessions.end_all(ann.id) == 0  # nothing to end, nothing to tell
    assert len(world.events) == heard


async def test_ending_all_reaches_a_token_that_only_the_leeway_keeps_alive(
    strict: World, clock: Clock
) -> None:
    """Its session ran out a moment ago, and is on no list any more."""
    ann = await strict.ann()
    login = await strict.log_in()
    clock.advance(IDLE - ACCESS_TTL)
    late = await in_place(strict, login)
    clock.advance(IDLE - 5)
    last = World(strict.database, clock, rules={"idle_max": 10})
    tokens = await last.accounts.sessions.refresh(late.refresh_token, HOME)
    clock.advance(12)
    assert last.holds(tokens.access_token)
    assert await open_ids(last, ann.id) == []
    await last.accounts.sessions.end_all(ann.id)
    assert not last.holds(tokens.access_token)


async def in_place(world: World, login: LoggedIn) -> LoggedIn:
    """The same login, refreshed."""
    tokens = await world.accounts.sessions.refresh(login.refresh_token, HOME)
    return LoggedIn(tokens.access_token, tokens.refresh_token, login.user)


async def test_who_refreshes_or_logs_in_while_all_is_ended_ends_too_or_came_after(world: World) -> None:
    """No token is left that nobody would ever end."""
    ann = await world.ann()
    for _ in range(10):
        login = await world.log_in()
        won: list[Any] = await asyncio.gather(
            world.accounts.sessions.refresh(login.refresh_token, HOME),
            world.accounts.sessions.end_all(ann.id),
            world.log_in(),
            return_exceptions=True,
        )
        assert all(not isinstance(each, Exception) or isinstance(each, GatewayError) for each in won), won
        still_open = await open_ids(world, ann.id)
        for each in (won[0], won[2]):
            if not isinstance(each, Exception) and world.holds(each.access_token):
                assert sid(world, each) in still_open
        assert sid(world, login) not in still_open
        await world.accounts.sessions.end_all(ann.id)


# -- an idle limit -------------------------------------------------------------------------------------------


async def test_a_session_that_is_refreshed_in_time_goes_on_and_an_idle_one_is_over(
    strict: World, clock: Clock
) -> None:
    ann = await strict.ann()
    token = (await strict.log_in()).refresh_token
    for _ in range(5):
        clock.advance(IDLE - 1)
        token = (await strict.accounts.sessions.refresh(token, HOME)).refresh_token
    assert len(await open_ids(strict, ann.id)) == 1
    clock.advance(IDLE)
    with pytest.raises(InvalidRefreshToken):
        await strict.accounts.sessions.refresh(token, HOME)
    assert await open_ids(strict, ann.id) == []


async def test_an_idle_limit_longer_than_the_refresh_token_changes_nothing(sqlite: str, clock: Clock) -> None:
    world = World(Database(sqlite, clock=clock), clock, rules={"idle_max": 2 * REFRESH_TTL})
    ann = await world.ann()
    await world.log_in()
    (session,) = (await world.accounts.sessions.list(ann.id)).items
    assert session.expires_at == int(clock.now) + REFRESH_TTL
    await world.close()


async def test_no_access_token_outlives_its_session(world: World, clock: Clock) -> None:
    """Neither the fixed end, nor one that idles sooner than its access token would end."""
    ann = await world.ann()
    token = (await world.log_in()).refresh_token
    (session,) = await world.rows(ann.id)
    while clock.now < session.ends_at - REFRESH_TTL / 2:
        clock.advance(REFRESH_TTL / 2)
        token = (await world.accounts.sessions.refresh(token, HOME)).refresh_token
    clock.now = session.ends_at - ACCESS_TTL / 3
    last = await world.accounts.sessions.refresh(token, HOME)
    assert world.principal(last.access_token).expires_at == session.ends_at
    clock.now = session.ends_at + LEEWAY
    with pytest.raises(GatewayError):
        world.principal(last.access_token)

    rules = {"idle_max": 60}
    short = World(world.database, clock, rules=rules)
    login = await short.log_in()
    assert short.principal(login.access_token).expires_at == int(clock.now) + 60


# -- a cap ---------------------------------------------------------------------------------------------------


async def test_a_login_beyond_the_cap_ends_the_session_that_was_used_least_recently(
    strict: World, clock: Clock
) -> None:
    ann = await strict.ann()
    await strict.accounts.users.create("bob@example.com", PASSWORD)
    bobs = await strict.log_in("bob@example.com")
    first, second, third = [await later(strict, clock) for _ in range(CAP)]
    clock.advance(1)
    first = await in_place(strict, first)  # so the second is the one that idles now
    clock.advance(1)
    fourth = await strict.log_in()
    assert sorted(await open_ids(strict, ann.id)) == sorted(
        sid(strict, each) for each in (first, third, fourth)
    )
    assert not strict.holds(second.access_token)
    assert all(strict.holds(each.access_token) for each in (first, third, fourth, bobs))
    with pytest.raises(InvalidRefreshToken):
        await strict.accounts.sessions.refresh(second.refresh_token, HOME)
    events = [event for event in strict.events if event.name == "session_ended"]
    assert [(event.user, event.session, event.reason) for event in events] == [
        (ann.id, sid(strict, second), "too_many")
    ]
    why = {row.id: row.revoked_reason for row in await strict.rows(ann.id) if row.revoked_reason}
    assert why == {sid(strict, second): "too_many"}


async def test_sessions_of_others_take_no_room(strict: World, clock: Clock) -> None:
    ann = await strict.ann()
    await strict.accounts.users.create("bob@example.com", PASSWORD)
    first = await strict.log_in()
    for _ in range(CAP):
        clock.advance(1)
        await strict.log_in("bob@example.com")
    second = await strict.log_in()
    assert set(await open_ids(strict, ann.id)) == {sid(strict, first), sid(strict, second)}


async def later(world: World, clock: Clock) -> LoggedIn:
    clock.advance(1)
    return await world.log_in()


async def test_what_is_over_takes_no_room_and_a_clock_set_back_never_ends_the_new_login(
    strict: World, clock: Clock
) -> None:
    ann = await strict.ann()
    for _ in range(CAP):
        await strict.log_in()
    clock.advance(IDLE)
    kept = [await later(strict, clock) for _ in range(CAP)]
    assert all(strict.holds(each.access_token) for each in kept)
    assert "SessionEnded" not in strict.names()  # what was over already is not ended once more
    clock.advance(-5)
    newest = await strict.log_in()
    assert sid(strict, newest) in await open_ids(strict, ann.id)
    assert len(await open_ids(strict, ann.id)) == CAP


async def test_logins_at_the_same_moment_do_not_exceed_the_cap(strict: World, url: str, clock: Clock) -> None:
    ann = await strict.ann()
    other = World(Database(url, clock=clock), clock, rules=strict.rules)
    await asyncio.gather(*(world.log_in() for world in (strict, other) * 6))
    assert len(await open_ids(strict, ann.id)) == CAP
    await other.close()


async def test_a_cap_that_was_lowered_is_reached_at_the_next_login(world: World, clock: Clock) -> None:
    ann = await world.ann()
    for _ in range(5):
        await world.log_in()
    strict = World(world.database, clock, rules={"max_per_user": 2})
    await strict.log_in()
    assert len(await open_ids(world, ann.id)) == 2


async def test_of_several_all_are_ended_or_none(world: World) -> None:
    await world.ann()
    one, two = await world.log_in(), await world.log_in()
    with pytest.raises(NotFound, match="no session 0190a0a0"):
        await world.accounts.sessions.end_these((sid(world, one), "0190a0a0-0000-7000-8000-000000000000"))
    assert world.holds(one.access_token)
    await world.accounts.sessions.end_these((sid(world, one), sid(world, two), sid(world, one)))
    assert not world.holds(one.access_token)
    assert not world.holds(two.access_token)
