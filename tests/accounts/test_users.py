"""Making, finding, changing and deleting users."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from gateway.accounts.database import Database
from gateway.accounts.service import Changes, User
from gateway.errors import (
    EmailTaken,
    InvalidCredentials,
    InvalidField,
    InvalidRefreshToken,
    LastAdmin,
    NotFound,
)
from gateway.telemetry.audit import PasswordChanged, UserCreated, UserDeleted, UserUpdated
from tests.accounts.world import HOME, NEW_PASSWORD, PASSWORD, REFRESH_TTL, Clock, World, execute

pytestmark = pytest.mark.anyio


async def test_a_new_user_is_plain_enabled_and_canonical(world: World, clock: Clock) -> None:
    made = await world.accounts.users.create("  ÄNN@Example.COM ", PASSWORD)
    assert made == User(made.id, "änn@example.com", False, (), False, clock.now, 1)
    assert await world.accounts.users.get(made.id) == made
    assert await world.accounts.users.find("Änn@EXAMPLE.com") == made


async def test_one_address_is_one_account_in_every_spelling(world: World) -> None:
    await world.accounts.users.create("ann@straße.example", PASSWORD)
    for spelling in ("ANN@STRASSE.example", " ann@straße.EXAMPLE", "\uff41nn@strasse.example"):
        with pytest.raises(EmailTaken):
            await world.accounts.users.create(spelling, PASSWORD)
    bob = await world.accounts.users.create("bob@example.com", PASSWORD)
    with pytest.raises(EmailTaken):
        await world.accounts.users.update(bob.id, Changes(email="Ann@STRASSE.example"))
    assert (await world.accounts.users.get(bob.id)).email == "bob@example.com"


async def test_two_at_once_can_not_take_one_address(world: World) -> None:
    made = await asyncio.gather(*(world.ann() for _ in range(6)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in made) == ["EmailTaken"] * 5 + ["User"]


@pytest.mark.parametrize(
    "email", ["", "ann", "ann@", "@example.com", "a@b@c", "a\r\nb@example.com", "a b@c.d"]
)
async def test_an_unfit_address_is_refused(world: World, email: str) -> None:
    with pytest.raises(InvalidField):
        await world.accounts.users.create(email, PASSWORD)
    with pytest.raises(NotFound):
        await world.accounts.users.find(email)


@pytest.mark.parametrize("password", ["", "ninechars", "é" * 513, "x" * 1025, "LONG.name@Example.com"])
async def test_an_unfit_password_is_refused(world: World, password: str) -> None:
    with pytest.raises(InvalidField):
        await world.accounts.users.create("long.name@example.com", password)
    ann = await world.accounts.users.create("other@example.com", PASSWORD)
    with pytest.raises(InvalidField):
        await world.accounts.users.update(ann.id, Changes(password=password, email="long.name@example.com"))
    assert await world.accounts.users.get(ann.id) == ann
    await world.log_in("other@example.com")


@pytest.mark.parametrize("roles", [("",), ("Admin",), ("a b",), ("a,b",), ("x" * 65,), ("ä",), ("a\n",)])
async def test_an_unfit_role_is_refused(world: World, roles: tuple[str, ...]) -> None:
    with pytest.raises(InvalidField):
        await world.ann(roles=roles)


async def test_roles_are_few_sorted_and_unique(world: World) -> None:
    with pytest.raises(InvalidField):
        await world.ann(roles=tuple(f"role{n}" for n in range(65)))
    ann = await world.ann(roles=("b", "a", "b"))
    assert ann.roles == ("a", "b")
    changed = await world.accounts.users.update(ann.id, Changes(roles=tuple(f"role{n}" for n in range(64))))
    assert len(changed.roles) == 64


@pytest.mark.parametrize("user_id", ["", "x", "0" * 36, "../etc", "a\0b", "\ud800", "é" * 500, "%"])
async def test_an_odd_id_is_nobody(world: World, user_id: str) -> None:
    with pytest.raises(NotFound):
        await world.accounts.users.get(user_id)
    with pytest.raises(NotFound):
        await world.accounts.users.update(user_id, Changes(disabled=True))
    with pytest.raises(NotFound):
        await world.accounts.users.delete(user_id)


async def test_nothing_else_about_a_user_can_be_changed() -> None:
    assert {field.name for field in dataclasses.fields(Changes)} == {
        "email",
        "password",
        "is_admin",
        "roles",
        "disabled",
    }


@pytest.mark.parametrize(
    "changes",
    [
        Changes(email="new@example.com"),
        Changes(roles=("auditor",)),
        Changes(is_admin=False),
        Changes(disabled=True),
        Changes(password="another long password"),
    ],
)
async def test_every_change_is_felt_at_once(world: World, changes: Changes) -> None:
    await world.accounts.users.create("root@example.com", PASSWORD, is_admin=True)
    ann = await world.ann(is_admin=True)
    session = await world.log_in()
    changed = await world.accounts.users.update(ann.id, changes, actor="root")
    assert changed.version == ann.version + 1
    assert changed == await world.accounts.users.get(ann.id)
    assert not world.holds(session.access_token)
    if changes.disabled or changes.password:
        with pytest.raises(InvalidRefreshToken):
            await world.accounts.sessions.refresh(session.refresh_token, HOME)
    else:
        fresh = await world.accounts.sessions.refresh(session.refresh_token, HOME)
        assert world.holds(fresh.access_token)
    assert world.events[3].actor == "root"


async def test_no_change_is_no_change(world: World) -> None:
    ann = await world.ann(roles=("a",))
    session = await world.log_in()
    for changes in (
        Changes(),
        Changes(email="ANN@example.com", roles=("a", "a"), is_admin=False, disabled=False),
    ):
        assert await world.accounts.users.update(ann.id, changes) == ann
    assert world.holds(session.access_token)
    assert world.names() == ["UserCreated", "LoginSucceeded"]


async def test_a_session_that_a_refresh_may_just_prolong_is_ended_with_the_others(
    world: World, clock: Clock
) -> None:
    ann = await world.ann()
    await world.log_in()
    clock.advance(REFRESH_TTL + 1)
    await world.accounts.users.update(ann.id, Changes(password=NEW_PASSWORD))
    [row] = await world.rows(ann.id)
    assert row.revoked_reason == "password_set"


async def test_a_password_set_by_an_admin_replaces_the_old_one(world: World) -> None:
    ann = await world.ann()
    await world.accounts.users.update(ann.id, Changes(password="another long password"))
    with pytest.raises(InvalidCredentials):
        await world.log_in()
    await world.log_in(password="another long password")
    assert world.names()[:2] == ["UserCreated", "PasswordChanged"]


async def test_a_deleted_user_is_gone_and_the_address_free(world: World) -> None:
    ann = await world.ann()
    session = await world.log_in()
    await world.accounts.users.delete(ann.id)
    assert not world.holds(session.access_token)
    assert await world.rows(ann.id) == []
    with pytest.raises(NotFound):
        await world.accounts.users.get(ann.id)
    assert (await world.ann()).id != ann.id


async def test_a_user_may_vanish_while_they_are_changed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await world.ann()

    async def deleted_since(_: str) -> User:
        await world.database.write(execute("DELETE FROM users"))
        return ann

    monkeypatch.setattr(world.accounts.users, "get", deleted_since)
    with pytest.raises(NotFound):
        await world.accounts.users.update(ann.id, Changes(disabled=True))
    with pytest.raises(NotFound):
        await world.accounts.users.delete(ann.id)


async def test_the_last_admin_stays(world: World) -> None:
    ann = await world.ann(is_admin=True)
    off = await world.accounts.users.create("off@example.com", PASSWORD, is_admin=True)
    await world.accounts.users.update(off.id, Changes(disabled=True))
    await world.accounts.users.create("user@example.com", PASSWORD)
    session = await world.log_in()
    for changes in (Changes(is_admin=False), Changes(disabled=True), Changes(is_admin=False, disabled=True)):
        with pytest.raises(LastAdmin):
            await world.accounts.users.update(ann.id, changes)
    with pytest.raises(LastAdmin):
        await world.accounts.users.delete(ann.id)
    assert await world.accounts.users.get(ann.id) == ann
    assert world.holds(session.access_token)
    await world.accounts.users.update(ann.id, Changes(roles=("still-changeable",)))
    await world.accounts.users.update(off.id, Changes(disabled=False))
    await world.accounts.users.delete(ann.id)
    await world.accounts.users.update(off.id, Changes(email="last@example.com"))


async def test_two_admins_can_not_remove_each_other_at_once(world: World, url: str, clock: Clock) -> None:
    other = World(Database(url, clock=clock), clock)
    try:
        for round_number in range(10):
            admins = [
                await world.accounts.users.create(f"{round_number}.{n}@example.com", PASSWORD, is_admin=True)
                for n in range(2)
            ]
            outcomes = await asyncio.gather(
                world.accounts.users.update(admins[0].id, Changes(is_admin=False)),
                other.accounts.users.delete(admins[1].id)
                if round_number % 2
                else other.accounts.users.update(admins[1].id, Changes(disabled=True)),
                return_exceptions=True,
            )
            assert [type(outcome) for outcome in outcomes].count(LastAdmin) == 1, outcomes
            everyone = (await world.accounts.users.list(limit=200)).items
            [left] = [user for user in everyone if user.is_admin and not user.disabled]
            await world.database.write(execute(f"DELETE FROM users WHERE id = '{left.id}'"))
    finally:
        await other.close()


async def test_pages_go_through_everyone_once_in_the_order_of_creation(world: World, clock: Clock) -> None:
    made = []
    for number in range(7):
        clock.advance(0.01)
        made.append(await world.accounts.users.create(f"u{9 - number}@example.com", PASSWORD))
    seen: list[User] = []
    page = await world.accounts.users.list(limit=3)
    while page.next_cursor:
        seen += page.items
        await world.accounts.users.delete(page.items[-1].id)  # even of the one the cursor names
        page = await world.accounts.users.list(limit=3, cursor=page.next_cursor)
    assert [*seen, *page.items] == made


async def test_an_exact_last_page_has_no_successor(world: World) -> None:
    await world.ann()
    assert (await world.accounts.users.list(limit=1)).next_cursor is None


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("ANN", ["a_nn@example.com", "ann%1@example.com", "ann@example.com"]),
        ("%", ["ann%1@example.com"]),
        ("_", ["a_nn@example.com"]),
        ("\\", []),
        ("'; DROP TABLE users", []),
        (" Example.com ", ["a_nn@example.com", "ann%1@example.com", "ann@example.com"]),
        ("a\0", []),
        ("\ud800", []),
        ("x" * 2000, []),
    ],
)
async def test_a_query_is_a_part_of_the_address_and_nothing_more(
    world: World, query: str, found: list[str]
) -> None:
    for email in ("ann@example.com", "ann%1@example.com", "a_nn@example.com"):
        await world.accounts.users.create(email, PASSWORD)
    page = await world.accounts.users.list(query=query.replace("ANN", "NN"))
    assert sorted(user.email for user in page.items) == found


async def test_a_page_has_limits(world: World) -> None:
    for limit in (0, -1, 201):
        with pytest.raises(InvalidField):
            await world.accounts.users.list(limit=limit)
    for cursor in ("", "x", "\0", "'"):
        with pytest.raises(InvalidField):
            await world.accounts.users.list(cursor=cursor)


async def test_the_trail_says_who_did_it_and_to_whom(world: World) -> None:
    users = world.accounts.users
    ann = await users.create("ann@example.com", PASSWORD, actor="root")
    await users.update(ann.id, Changes(disabled=True), actor="root")
    await users.update(
        ann.id, Changes(password=NEW_PASSWORD, roles=("auditor",), disabled=False), actor="root"
    )
    await users.delete(ann.id, actor="root")
    assert world.events == [
        UserCreated(user=ann.id, email="ann@example.com", admin=False, roles=(), actor="root"),
        UserUpdated(user=ann.id, email="ann@example.com", changed={"disabled": True}, actor="root"),
        UserUpdated(
            user=ann.id,
            email="ann@example.com",
            changed={"roles": ("auditor",), "disabled": False},
            actor="root",
        ),
        PasswordChanged(user=ann.id, actor="root"),
        UserDeleted(user=ann.id, email="ann@example.com", actor="root"),
    ]


async def test_what_is_done_to_one_is_not_done_to_others(world: World) -> None:
    ann = await world.ann()
    bob = await world.accounts.users.create("bob@example.com", PASSWORD)
    await world.accounts.users.update(ann.id, Changes(password=NEW_PASSWORD, roles=("auditor",)))
    assert (await world.log_in("bob@example.com")).user == bob
    with pytest.raises(InvalidCredentials):
        await world.log_in("bob@example.com", NEW_PASSWORD)
