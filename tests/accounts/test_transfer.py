"""Many accounts at once: all or none, with hashes from elsewhere, which their owners' logins replace."""

from __future__ import annotations

import string

import bcrypt
import pytest

from gateway.accounts.passwords import refuse_unreadable, verify
from gateway.accounts.transfer import Incoming, InTheWay
from gateway.errors import InvalidCredentials, InvalidField
from gateway.telemetry.audit import HashesExported
from tests.accounts.world import HOME, PASSWORD, World

PHP = "$2y$10$.vGA1O9wmRjrwAVXD98HNOgsNpDczlqm3Jq7KnEd1rVAGv3Fykk1a"
"""Of "rasmuslerdorf", from PHP's manual of password_verify()."""
BLOWFISH = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
"""Of "U*U", from the tests of Openwall's crypt_blowfish."""
BASE64 = "./" + string.ascii_uppercase + string.ascii_lowercase + string.digits


async def add(world: World, *incoming: Incoming, **settings: bool) -> tuple[int, int]:
    done = await world.accounts.transfer.add(lambda: incoming, actor="root", **settings)
    return done.added, done.skipped


async def stored_hashes(world: World) -> dict[str, str]:
    return {user.email: hash_ async for batch in world.accounts.transfer.all() for user, hash_ in batch}


@pytest.mark.anyio
@pytest.mark.parametrize(("foreign", "password"), [(PHP, "rasmuslerdorf"), (BLOWFISH, "U*U")])
async def test_a_hash_from_elsewhere_logs_in_and_is_replaced(
    world: World, foreign: str, password: str
) -> None:
    await add(world, Incoming(1, "ann@example.com", foreign, roles=("a",)))
    for wrong in ("", password + " ", foreign):
        with pytest.raises(InvalidCredentials):
            await world.log_in(password=wrong)
    assert (await stored_hashes(world))["ann@example.com"] == foreign
    assert (await world.log_in(password=password)).user.roles == ("a",)
    fresh = (await stored_hashes(world))["ann@example.com"]
    assert fresh.startswith("$gw1$2b$04$")
    assert verify(password, fresh, 4).right
    await world.log_in(password=password)


@pytest.mark.anyio
async def test_a_long_password_from_elsewhere_counts_whole_once_it_was_used(world: World) -> None:
    """bcrypt saw 72 bytes of it. What begins with these logs in, once, and is the password from then on."""
    long = "é" * 36 + " and the part that bcrypt never saw"
    await add(
        world, Incoming(1, "ann@example.com", bcrypt.hashpw(long.encode()[:72], bcrypt.gensalt(4)).decode())
    )
    await world.log_in(password=long)
    for other in (long[:36], long + "!", long[:-1]):
        with pytest.raises(InvalidCredentials):
            await world.log_in(password=other)
    await world.log_in(password=long)


@pytest.mark.anyio
async def test_without_a_hash_nobody_can_log_in(world: World) -> None:
    await add(world, Incoming(1, "ann@example.com"))
    for password in ("", " ", "\0", PASSWORD):
        with pytest.raises(InvalidCredentials):
            await world.log_in(password=password)


@pytest.mark.anyio
async def test_all_are_added_or_none_and_everything_in_the_way_is_named(world: World) -> None:
    ann = await world.ann()
    bob = Incoming(2, "bob@example.com", PHP)
    taken = Incoming(3, "ann@example.com", PHP)
    same_id = Incoming(4, "cleo@example.com", id=ann.id)
    with pytest.raises(InTheWay) as refused:
        await add(world, bob, taken, same_id)
    assert sorted(refused.value.problems) == [
        (3, "ann@example.com has an account already"),
        (4, f"another account has the id {ann.id}"),
    ]
    with pytest.raises(InTheWay):  # an id is in the way whatever one does about addresses
        await add(world, bob, same_id, skip_existing=True)
    assert list(await stored_hashes(world)) == ["ann@example.com"]
    assert "UsersImported" not in world.names()

    assert await add(world, bob, taken, skip_existing=True, only_try=True) == (1, 1)
    assert list(await stored_hashes(world)) == ["ann@example.com"]
    assert await add(world, bob, taken, skip_existing=True) == (1, 1)
    assert await add(world, bob, taken, skip_existing=True) == (0, 2)
    hashes = await stored_hashes(world)
    assert hashes["bob@example.com"] == PHP
    assert hashes["ann@example.com"] != PHP  # an account that exists is never changed
    (event,) = [event for event in world.events if event.name == "users_imported"]
    assert (event.count, event.admins, event.actor) == (1, 0, "root")


@pytest.mark.anyio
async def test_an_error_in_the_middle_of_many_leaves_nothing(world: World) -> None:
    def breaks() -> list[Incoming]:
        return [Incoming(n, f"u{n}@example.com") for n in range(1200)] + [Incoming(9, "u7@example.com")]

    with pytest.raises(InTheWay):  # the same address twice, batches apart
        await world.accounts.transfer.add(breaks)
    assert await stored_hashes(world) == {}


@pytest.mark.anyio
async def test_times_and_ids_are_kept_and_new_ids_sort_by_them(world: World) -> None:
    began = 1_500_000_000.0
    kept = "0190a0a0-0000-4000-8000-000000000000"
    await add(
        world,
        Incoming(1, "young@example.com", created_at=began + 9),
        Incoming(2, "old@example.com", created_at=began),
        Incoming(3, "kept@example.com", id=kept, created_at=began + 5, is_admin=True, disabled=True),
    )
    imported = world.events[-1]
    assert (imported.name, imported.count, imported.admins) == ("users_imported", 3, 1)
    await world.ann()
    found = (await world.accounts.users.list()).items
    assert [user.email for user in found if user.id != kept] == [
        "old@example.com",
        "young@example.com",
        "ann@example.com",
    ]
    user = await world.accounts.users.get(kept)
    assert (user.created_at, user.is_admin, user.disabled, user.version) == (began + 5, True, True, 1)


@pytest.mark.anyio
async def test_a_deleted_account_that_comes_back_gets_tokens_that_hold(world: World) -> None:
    ann = await world.ann()
    before = await world.log_in()
    hashes = await stored_hashes(world)
    await world.accounts.users.delete(ann.id)
    await add(world, Incoming(1, ann.email, hashes[ann.email], id=ann.id))
    after = await world.log_in()
    assert after.user.id == ann.id
    assert (world.holds(before.access_token), world.holds(after.access_token)) == (False, True)
    assert world.holds((await world.accounts.sessions.refresh(after.refresh_token, HOME)).access_token)


@pytest.mark.anyio
async def test_every_account_goes_out_once_and_in_again(world: World) -> None:
    await add(world, *(Incoming(n, f"u{n:04}@example.com", PHP, is_admin=n == 7) for n in range(1, 1203)))
    everyone = [each async for batch in world.accounts.transfer.all() for each in batch]
    assert len({user.id for user, _ in everyone}) == len(everyone) == 1202
    for user, _ in everyone:
        await world.accounts.users.delete(user.id) if not user.is_admin else None
    back = [
        Incoming(1, user.email, hash_, user.is_admin, user.roles, user.disabled, user.id, user.created_at)
        for user, hash_ in everyone
    ]
    assert await add(world, *back, skip_existing=True) == (1201, 1)
    again = [
        (user.id, user.email, hash_) async for batch in world.accounts.transfer.all() for user, hash_ in batch
    ]
    assert again == [(user.id, user.email, hash_) for user, hash_ in everyone]


@pytest.mark.anyio
async def test_that_hashes_were_handed_out_is_in_the_trail(world: World) -> None:
    await world.accounts.transfer.note_export(3, actor="cli:ops")
    assert world.events == [HashesExported(count=3, actor="cli:ops")]


# -- hashes that can be taken in -----------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [PHP, BLOWFISH, PHP.replace("$2y", "$2b"), "$gw1$2b$12" + PHP[6:]])
def test_a_hash_of_bcrypt_is_taken(stored: str) -> None:
    refuse_unreadable(stored)


@pytest.mark.parametrize(
    "stored",
    [
        "", "x", "password", "5f4dcc3b5aa765d61d8327deb882cf99", "$2x$10" + PHP[6:], "$2$10" + PHP[6:],
        PHP[:-1], PHP + "a", PHP + "\n", " " + PHP, "$2y$03" + PHP[6:], "$2y$17" + PHP[6:],
        "$gw2" + PHP, "$gw1$gw1" + PHP, "{BCRYPT}" + PHP, "$2y$1 " + PHP[6:], "$argon2id$v=19$m=65536,t=3",
    ],
)  # fmt: skip
def test_what_could_never_be_right_or_costs_too_much_is_not(stored: str) -> None:
    with pytest.raises(InvalidField):
        refuse_unreadable(stored)


def test_a_hash_is_taken_exactly_if_bcrypt_can_read_its_salt_and_could_have_written_its_end() -> None:
    for last in BASE64:
        salted, ended = PHP[:28] + last + PHP[29:], PHP[:-1] + last
        try:
            bcrypt.hashpw(b"", salted[:29].replace("$10$", "$04$").encode())
            readable = True
        except ValueError:
            readable = False
        assert taken(salted) == readable, last
        assert taken(ended) == (BASE64.index(last) % 4 == 0), last


def taken(stored: str) -> bool:
    try:
        refuse_unreadable(stored)
    except InvalidField:
        return False
    return True
