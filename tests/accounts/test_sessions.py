"""Logging in, refreshing, logging out: the life of a session."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import product

import pytest

from gateway.accounts.passwords import Verified
from gateway.accounts.service import Changes, Client
from gateway.accounts.store import Account, Store
from gateway.errors import InvalidCredentials, InvalidField, InvalidRefreshToken, InvalidToken
from gateway.telemetry.audit import (
    GraceHit,
    LoggedOut,
    LoginFailed,
    LoginSucceeded,
    PasswordChanged,
    RefreshReused,
)
from tests.accounts.world import (
    ACCESS_TTL,
    ELSEWHERE,
    GRACE,
    HOME,
    LEEWAY,
    NEW_PASSWORD,
    PASSWORD,
    REFRESH_TTL,
    SESSION_MAX,
    Clock,
    World,
    execute,
)

pytestmark = pytest.mark.anyio


async def test_a_login_opens_a_session_and_says_who_it_is(world: World) -> None:
    ann = await world.ann(is_admin=True, roles=("auditor", "analyst", "auditor"))
    session = await world.log_in("  Ann@EXAMPLE.com ")
    assert session.user == ann
    principal = world.principal(session.access_token)
    assert (principal.id, principal.email, principal.is_admin) == (ann.id, "ann@example.com", True)
    assert principal.roles == ("analyst", "auditor")
    assert principal.version == ann.version
    claims = world.refresh_tokens.verify(session.refresh_token)
    assert (claims.user_id, claims.session, claims.generation) == (ann.id, principal.session, 0)
    assert claims.expires_at - claims.issued_at == REFRESH_TTL
    [row] = await world.rows(ann.id)
    assert (row.address, row.user_agent) == ("192.0.2.1", "Firefox")
    assert world.names() == ["UserCreated", "LoginSucceeded"]


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("ann@example.com", "wrong password"),
        ("ann@example.com", ""),
        ("ann@example.com", PASSWORD + "\0"),
        ("ann@example.com", "\ud800"),
        ("ann@example.com", "x" * 1025),
        ("ann@example.com", "x" * 1_000_000),
        ("nobody@example.com", PASSWORD),
        ("no address", PASSWORD),
        ("", ""),
        ("a\0@example.com", PASSWORD),
        ("\ud800@example.com", PASSWORD),
        ("a" * 1_000_000 + "@example.com", PASSWORD),
        ("off@example.com", PASSWORD),
    ],
)
async def test_every_failed_login_is_the_same(world: World, email: str, password: str) -> None:
    await world.ann()
    off = await world.accounts.users.create("off@example.com", PASSWORD)
    await world.accounts.users.update(off.id, Changes(disabled=True))
    world.events.clear()
    with pytest.raises(InvalidCredentials) as failure:
        await world.log_in(email, password)
    assert failure.value.detail == "Invalid credentials"
    assert world.names() == ["LoginFailed"]


async def test_what_a_client_says_of_itself_is_cut_and_cleaned(world: World) -> None:
    ann = await world.ann()
    await world.log_in(client=Client("fe80::1%\0", "\x1b[31m\ud800\0" + "é" * 300))
    [row] = await world.rows(ann.id)
    assert row.address == "fe80::1%"
    assert row.user_agent == "[31m" + "é" * 193


async def test_a_refresh_gives_two_new_tokens_and_reads_the_user_again(world: World, clock: Clock) -> None:
    ann = await world.ann()
    session = await world.log_in()
    clock.advance(60)
    await world.accounts.users.update(ann.id, Changes(roles=("auditor",), email="Ann@New.example"))
    fresh = await world.accounts.sessions.refresh(session.refresh_token, ELSEWHERE)
    principal = world.principal(fresh.access_token)
    assert (principal.roles, principal.email, principal.version) == (("auditor",), "ann@new.example", 2)
    assert principal.session == world.principal(session.access_token).session
    assert world.refresh_tokens.verify(fresh.refresh_token).generation == 1
    assert world.holds(fresh.access_token)
    [row] = await world.rows(ann.id)
    assert (row.address, row.last_used_at, row.generation) == (ELSEWHERE.address, clock.now, 1)


async def test_two_tabs_within_the_grace_get_the_same_successor(world: World, clock: Clock) -> None:
    await world.ann()
    session = await world.log_in()
    first = await world.accounts.sessions.refresh(session.refresh_token, HOME)
    clock.advance(GRACE)
    second = await world.accounts.sessions.refresh(session.refresh_token, HOME)
    assert second.refresh_token == first.refresh_token
    assert world.holds(second.access_token)
    assert "GraceHit" not in world.names()
    await world.accounts.sessions.refresh(first.refresh_token, HOME)


async def test_a_grace_hit_from_elsewhere_is_audited(world: World) -> None:
    await world.ann()
    session = await world.log_in()
    first = await world.accounts.sessions.refresh(session.refresh_token, HOME)
    second = await world.accounts.sessions.refresh(session.refresh_token, ELSEWHERE)
    assert second.refresh_token == first.refresh_token
    assert world.names()[-1] == "GraceHit"
    assert world.events[-1].address == ELSEWHERE.address


async def test_a_stolen_token_ends_the_session_for_both(world: World, clock: Clock) -> None:
    await world.ann()
    session = await world.log_in()
    fresh = await world.accounts.sessions.refresh(session.refresh_token, HOME)
    clock.advance(GRACE + 0.5)
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.refresh(session.refresh_token, ELSEWHERE)
    assert world.names()[-1] == "RefreshReused"
    assert not world.holds(fresh.access_token)
    assert not world.holds(session.access_token)
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.refresh(fresh.refresh_token, HOME)
    await world.log_in()


async def test_the_grace_is_for_the_last_generation_only(world: World) -> None:
    ann = await world.ann()
    session = await world.log_in()
    first = await world.accounts.sessions.refresh(session.refresh_token, HOME)
    second = await world.accounts.sessions.refresh(first.refresh_token, HOME)
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.refresh(session.refresh_token, HOME)
    assert not world.holds(second.access_token)
    [row] = await world.rows(ann.id)
    assert row.revoked_reason == "reuse"


@pytest.mark.parametrize("end", ["logged out", "ended", "disabled", "expired"])
async def test_the_grace_ends_with_the_session(world: World, clock: Clock, end: str) -> None:
    ann = await world.ann()
    first = await world.log_in()
    if end == "expired":
        clock.advance(REFRESH_TTL - 1)
    second = await world.accounts.sessions.refresh(first.refresh_token, HOME)
    if end == "logged out":
        await world.accounts.sessions.log_out(second.refresh_token)
    elif end == "ended":
        await world.accounts.sessions.end_all(ann.id)
    elif end == "disabled":
        await world.accounts.users.update(ann.id, Changes(disabled=True))
    else:
        clock.advance(SESSION_MAX)
    heard = len(world.events)
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.refresh(first.refresh_token, HOME)
    assert len(world.events) == heard


@pytest.mark.parametrize("since", ["deleted", "disabled"])
async def test_a_user_who_goes_while_the_swap_happens_gets_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, since: str
) -> None:
    ann = await world.ann()
    session = await world.log_in()
    gone = None if since == "deleted" else Account(replace(ann, disabled=True), "")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "account", lambda *_: gone)
        with pytest.raises(InvalidRefreshToken):
            await world.accounts.sessions.refresh(session.refresh_token, HOME)
    [row] = await world.rows(ann.id)
    assert row.generation == 0  # undone


async def test_who_comes_second_to_end_a_session_does_not_report_it(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.ann()
    session = await world.log_in()
    await world.accounts.sessions.refresh(session.refresh_token, HOME)
    clock.advance(GRACE + 1)
    monkeypatch.setattr(Store, "end_session", lambda *_, **__: False)
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.refresh(session.refresh_token, HOME)
    assert "RefreshReused" not in world.names()


async def test_a_signed_token_of_an_unknown_generation_is_refused_and_harms_nothing(world: World) -> None:
    ann = await world.ann()
    session = await world.log_in()
    claims = world.refresh_tokens.verify(session.refresh_token)
    for generation in (1, 2, 2**31, 2**63 - 1):
        future = world.refresh_tokens.issue(
            user_id=ann.id,
            session=claims.session,
            generation=generation,
            issued_at=claims.issued_at,
            expires_at=claims.expires_at,
        )
        with pytest.raises(InvalidRefreshToken):
            await world.accounts.sessions.refresh(future, HOME)
    await world.accounts.sessions.refresh(session.refresh_token, HOME)


async def test_a_signed_token_of_someone_elses_session_is_refused(world: World) -> None:
    await world.ann()
    bob = await world.accounts.users.create("bob@example.com", PASSWORD)
    login = await world.log_in()
    claims = world.refresh_tokens.verify(login.refresh_token)
    await world.accounts.sessions.refresh(login.refresh_token, HOME)
    sessions = (claims.session, "no-such-session", "x" * 255)
    for session, generation in product(sessions, (0, 1)):  # the one before, within the grace, and the present
        crossed = world.refresh_tokens.issue(
            user_id=bob.id,
            session=session,
            generation=generation,
            issued_at=claims.issued_at,
            expires_at=claims.expires_at,
        )
        with pytest.raises(InvalidRefreshToken):
            await world.accounts.sessions.refresh(crossed, HOME)
        await world.accounts.sessions.log_out(crossed)
    assert len(world.cutoffs) == 0


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "\ud800", "é" * 10, "." * 9000])
async def test_what_is_no_refresh_token_is_refused(world: World, token: str) -> None:
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.refresh(token, HOME)
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.log_out(token)


async def test_an_access_token_is_no_refresh_token(world: World) -> None:
    await world.ann()
    session = await world.log_in()
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.refresh(session.access_token, HOME)


async def test_a_refresh_token_expires(world: World, clock: Clock) -> None:
    await world.ann()
    session = await world.log_in()
    clock.advance(REFRESH_TTL)  # within the leeway for tokens, but the database's clock has no skew to itself
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.refresh(session.refresh_token, HOME)
    await world.log_in()


async def test_a_session_has_a_fixed_end_however_often_it_is_refreshed(world: World, clock: Clock) -> None:
    await world.ann()
    began = clock.now
    token = (await world.log_in()).refresh_token
    while clock.now + REFRESH_TTL - 1 < began + SESSION_MAX:
        clock.advance(REFRESH_TTL - 1)
        token = (await world.accounts.sessions.refresh(token, HOME)).refresh_token
    assert world.refresh_tokens.verify(token).expires_at == began + SESSION_MAX
    clock.now = began + SESSION_MAX - 1
    token = (await world.accounts.sessions.refresh(token, HOME)).refresh_token
    clock.advance(1)
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.refresh(token, HOME)


async def test_a_logout_ends_the_session_and_its_access_tokens(world: World) -> None:
    await world.ann()
    session, other = await world.log_in(), await world.log_in()
    await world.accounts.sessions.log_out(session.refresh_token, HOME)
    assert not world.holds(session.access_token)
    assert world.holds(other.access_token)
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.refresh(session.refresh_token, HOME)
    assert world.names()[-1] == "LoggedOut"
    await world.accounts.sessions.log_out(session.refresh_token, HOME)
    assert world.names().count("LoggedOut") == 1


async def test_a_session_ends_once_and_is_told_once(world: World) -> None:
    ann = await world.ann()
    session = await world.log_in()
    for _ in range(2):
        await world.accounts.sessions.log_out(session.refresh_token)
    assert world.names().count("LoggedOut") == 1
    assert await world.accounts.sessions.end_all(ann.id) == 0


async def test_a_spent_or_expired_refresh_token_logs_out_too(world: World, clock: Clock) -> None:
    await world.ann()
    spent = await world.log_in()
    fresh = await world.accounts.sessions.refresh(spent.refresh_token, HOME)
    await world.accounts.sessions.log_out(spent.refresh_token)
    assert not world.holds(fresh.access_token)
    expired = await world.log_in()
    clock.advance(2 * SESSION_MAX)
    await world.accounts.sessions.log_out(expired.refresh_token)


async def test_a_disabled_or_deleted_user_can_not_refresh(world: World) -> None:
    ann = await world.ann()
    session = await world.log_in()
    await world.accounts.users.update(ann.id, Changes(disabled=True))
    assert not world.holds(session.access_token)
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.refresh(session.refresh_token, HOME)
    await world.accounts.users.update(ann.id, Changes(disabled=False))
    with pytest.raises(InvalidRefreshToken):  # the session does not come back to life
        await world.accounts.sessions.refresh(session.refresh_token, HOME)
    again = await world.log_in()
    await world.accounts.users.delete(ann.id)
    assert not world.holds(again.access_token)
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.refresh(again.refresh_token, HOME)
    await world.accounts.sessions.log_out(again.refresh_token)


async def test_a_changed_password_ends_every_other_session(world: World) -> None:
    ann = await world.ann()
    mine, other, third = [await world.log_in() for _ in range(3)]
    await world.accounts.own.change_password(world.principal(mine.access_token), PASSWORD, NEW_PASSWORD)
    assert world.events[-1] == PasswordChanged(user=ann.id, actor=ann.id)
    assert world.holds(mine.access_token)
    assert not world.holds(other.access_token)
    assert not world.holds(third.access_token)
    await world.accounts.sessions.refresh(mine.refresh_token, HOME)
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.refresh(other.refresh_token, HOME)
    with pytest.raises(InvalidCredentials):
        await world.log_in()
    await world.log_in(password=NEW_PASSWORD)
    assert (await world.accounts.users.get(ann.id)).version == ann.version
    assert "PasswordChanged" in world.names()


async def test_a_session_that_just_expired_is_cut_off_too(world: World, clock: Clock) -> None:
    await world.ann()
    old = await world.log_in()
    clock.advance(REFRESH_TTL - 10)
    late = await world.accounts.sessions.refresh(old.refresh_token, HOME)
    clock.now = world.refresh_tokens.verify(late.refresh_token).expires_at - 5
    last = await world.accounts.sessions.refresh(late.refresh_token, HOME)
    await world.database.write(execute(f"UPDATE sessions SET expires_at = {int(clock.now)}"))
    mine = await world.log_in()
    await world.accounts.own.change_password(world.principal(mine.access_token), PASSWORD, NEW_PASSWORD)
    assert not world.holds(last.access_token)


async def test_who_can_not_change_a_password(world: World) -> None:
    ann = await world.ann()
    session, other = await world.log_in(), await world.log_in()
    me = world.principal(session.access_token)
    with pytest.raises(InvalidCredentials):
        await world.accounts.own.change_password(me, "wrong", NEW_PASSWORD)
    for unfit in ("short", "x" * 1025, " ANN@example.com "):
        with pytest.raises(InvalidField):
            await world.accounts.own.change_password(me, PASSWORD, unfit)
    await world.accounts.sessions.log_out(session.refresh_token)
    with pytest.raises(InvalidToken):  # logged out, though another process may not have heard of it yet
        await world.accounts.own.change_password(me, PASSWORD, NEW_PASSWORD)
    await world.accounts.users.delete(ann.id)
    with pytest.raises(InvalidCredentials):
        await world.accounts.own.change_password(world.principal(other.access_token), PASSWORD, NEW_PASSWORD)


async def test_a_user_who_is_disabled_while_the_password_is_checked_gets_no_session(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await world.ann()
    verify = world.passwords.verify

    async def slowly(password: str, password_hash: str | None) -> Verified:
        found = await verify(password, password_hash)
        await world.accounts.users.update(ann.id, Changes(disabled=True))
        return found

    monkeypatch.setattr(world.passwords, "verify", slowly)
    with pytest.raises(InvalidCredentials):
        await world.log_in()
    assert await world.rows(ann.id) == []


async def test_a_login_that_races_a_password_change_does_not_survive_it(world: World) -> None:
    await world.ann()
    mine = await world.log_in()
    logins = [asyncio.create_task(world.log_in()) for _ in range(8)]
    await world.accounts.own.change_password(world.principal(mine.access_token), PASSWORD, NEW_PASSWORD)
    for outcome in await asyncio.gather(*logins, return_exceptions=True):
        if isinstance(outcome, InvalidCredentials):
            continue
        assert not isinstance(outcome, BaseException)
        assert not world.holds(outcome.access_token)
        with pytest.raises(InvalidRefreshToken):
            await world.accounts.sessions.refresh(outcome.refresh_token, HOME)


async def test_a_cut_off_outlives_every_token_that_it_concerns(world: World, clock: Clock) -> None:
    await world.ann()
    session = await world.log_in()
    await world.accounts.sessions.log_out(session.refresh_token)
    clock.advance(ACCESS_TTL + LEEWAY)
    world.cutoffs.forget(clock.now)
    assert len(world.cutoffs) == 1
    clock.advance(120)
    world.cutoffs.forget(clock.now)
    assert len(world.cutoffs) == 0


async def test_a_caller_who_goes_away_changes_nothing(world: World) -> None:
    await world.ann()
    session = await world.log_in()
    logout = asyncio.create_task(world.accounts.sessions.log_out(session.refresh_token))
    await asyncio.sleep(0)  # it has begun
    logout.cancel()
    with pytest.raises(asyncio.CancelledError):
        await logout
    while world.holds(session.access_token):  # the transaction runs on, and is published
        await world.database.ping()
    assert world.names()[-1] == "LoggedOut"


async def test_the_trail_says_who_it_was_which_session_and_from_where(world: World, clock: Clock) -> None:
    ann = await world.ann()
    for email in ("ann@example.com", "nobody@example.com"):
        with pytest.raises(InvalidCredentials):
            await world.log_in(email, "wrong password", ELSEWHERE)
    first = await world.log_in()
    second = await world.accounts.sessions.refresh(first.refresh_token, HOME)
    await world.accounts.sessions.refresh(first.refresh_token, ELSEWHERE)
    await world.accounts.sessions.log_out(second.refresh_token, HOME)
    stolen = await world.log_in()
    await world.accounts.sessions.refresh(stolen.refresh_token, HOME)
    clock.advance(GRACE + 1)
    with pytest.raises(InvalidRefreshToken):
        await world.accounts.sessions.refresh(stolen.refresh_token, ELSEWHERE)
    one, two = (world.principal(each.access_token).session for each in (first, stolen))
    here, there = HOME.address, ELSEWHERE.address
    assert world.events[1:] == [
        LoginFailed(email="ann@example.com", user=ann.id, address=there),
        LoginFailed(email="nobody@example.com", user=None, address=there),
        LoginSucceeded(user=ann.id, email="ann@example.com", session=one, address=here),
        GraceHit(user=ann.id, session=one, address=there),
        LoggedOut(user=ann.id, session=one, address=here),
        LoginSucceeded(user=ann.id, email="ann@example.com", session=two, address=here),
        RefreshReused(user=ann.id, session=two, address=there),
    ]
