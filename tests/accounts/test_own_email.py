"""One's own address: proved by the password, felt everywhere at once, and no way around the other rules."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.accounts.database import Database
from gateway.accounts.feed import Feed
from gateway.accounts.passwords import Verified
from gateway.accounts.service import Changes
from gateway.errors import EmailTaken, InvalidCredentials, InvalidField, InvalidToken, Unavailable
from gateway.telemetry.audit import UserUpdated
from tests.accounts.world import HOME, NEW_PASSWORD, PASSWORD, Clock, World

pytestmark = pytest.mark.anyio
NEW = "ann@new.example"


async def test_every_access_token_that_says_the_old_one_is_dead_on_every_replica(world: World) -> None:
    ann = await world.ann()
    mine, other = await world.log_in(), await world.log_in()
    moved = await world.accounts.own.change_email(
        world.principal(mine.access_token), PASSWORD, " Ann@NEW.example"
    )
    assert (moved.email, moved.version) == (NEW, ann.version + 1)
    replica = World(world.database, world.clock)
    await Feed(world.database, replica.cutoffs.apply).load()
    for process in (world, replica):
        assert not process.holds(mine.access_token)
        assert not process.holds(other.access_token)
    for login in (mine, other):
        fresh = await world.accounts.sessions.refresh(login.refresh_token, HOME)
        assert world.holds(fresh.access_token)
        assert world.principal(fresh.access_token).email == NEW
    event = world.events[-1]
    assert event == UserUpdated(user=ann.id, email=NEW, changed={"email": NEW}, actor=ann.id)


async def test_ones_own_address_again_changes_nothing(world: World) -> None:
    ann = await world.ann()
    mine = await world.log_in()
    heard = len(world.events)
    me = world.principal(mine.access_token)
    assert await world.accounts.own.change_email(me, PASSWORD, "ANN@example.com") == ann
    assert world.holds(mine.access_token)
    assert len(world.events) == heard


async def test_the_password_must_not_be_the_new_address(world: World) -> None:
    await world.accounts.users.create("ann@example.com", "ann.at.home@new.example")
    session = await world.log_in(password="ann.at.home@new.example")
    me = world.principal(session.access_token)
    for email in ("Ann.At.Home@new.example", "ann.at.home@new.example@x.example"):
        with pytest.raises(InvalidField):
            await world.accounts.own.change_email(me, "ann.at.home@new.example", email)
    assert world.holds(session.access_token)


async def test_whoever_does_not_know_the_password_learns_nothing_about_the_address(world: World) -> None:
    """A taken address answers like a free one, until the password is right."""
    await world.ann()
    await world.accounts.users.create("bob@example.com", PASSWORD)
    me = world.principal((await world.log_in()).access_token)
    for email in (NEW, "bob@example.com"):
        with pytest.raises(InvalidCredentials):
            await world.accounts.own.change_email(me, "wrong", email)
    with pytest.raises(EmailTaken):
        await world.accounts.own.change_email(me, PASSWORD, "BOB@example.com")


async def test_whose_session_or_account_is_over_changes_nothing(world: World) -> None:
    ann = await world.ann()
    session = await world.log_in()
    me = world.principal(session.access_token)
    await world.accounts.sessions.log_out(session.refresh_token)
    with pytest.raises(InvalidToken):
        await world.accounts.own.change_email(me, PASSWORD, NEW)
    other = world.principal((await world.log_in()).access_token)
    await world.accounts.users.update(ann.id, Changes(disabled=True))
    with pytest.raises(InvalidToken):
        await world.accounts.own.change_email(other, PASSWORD, NEW)
    assert (await world.accounts.users.get(ann.id)).email == "ann@example.com"


async def test_a_password_that_was_replaced_meanwhile_proves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await world.ann()
    me = world.principal((await world.log_in()).access_token)
    compare = world.passwords.verify
    passwords = iter([NEW_PASSWORD, PASSWORD, NEW_PASSWORD])

    async def replaced_meanwhile(password: str, stored: str | None) -> Verified:
        found = await compare(password, stored)
        fresh = await world.passwords.hash(next(passwords))
        await world.database.write(
            lambda c: c.exec_driver_sql(f"UPDATE users SET password_hash = '{fresh}'").close()
        )
        return Verified(True) if found.right or stored else found

    monkeypatch.setattr(world.passwords, "verify", replaced_meanwhile)
    with pytest.raises(Unavailable):
        await world.accounts.own.change_email(me, PASSWORD, NEW)
    assert (await world.accounts.users.get(ann.id)).email == "ann@example.com"


async def test_of_two_who_want_one_address_one_gets_it(world: World, url: str, clock: Clock) -> None:
    await world.ann()
    await world.accounts.users.create("bob@example.com", PASSWORD)
    other = World(Database(url, clock=clock), clock)
    ann, bob = await world.log_in(), await other.log_in("bob@example.com")
    got: list[Any] = await asyncio.gather(
        world.accounts.own.change_email(world.principal(ann.access_token), PASSWORD, NEW),
        other.accounts.own.change_email(other.principal(bob.access_token), PASSWORD, NEW),
        return_exceptions=True,
    )
    assert sorted(type(each).__name__ for each in got) == ["EmailTaken", "User"]
    await other.close()
