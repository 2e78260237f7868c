"""Password hashes: what counts, what is accepted from elsewhere, and what it costs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.accounts import passwords
from gateway.accounts.passwords import MAX_PASSWORD_BYTES, Passwords, Verified, make_hash, spare_cores, verify
from gateway.accounts.service import Changes
from gateway.errors import InvalidCredentials, Overloaded, Unavailable
from tests.accounts.world import NEW_PASSWORD, PASSWORD, World, execute

COST = 5


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The rounds of every bcrypt made; bcrypt itself stays real."""
    made: list[int] = []
    hashpw, checkpw = bcrypt.hashpw, bcrypt.checkpw

    def count(salt: bytes) -> None:
        made.append(2 ** int(salt[4:6]))

    def counted_hashpw(secret: bytes, salt: bytes) -> bytes:
        count(salt)
        return hashpw(secret, salt)

    def counted_checkpw(secret: bytes, stored: bytes) -> bool:
        right = checkpw(secret, stored)  # raises before it works
        count(stored)
        return right

    monkeypatch.setattr(passwords.bcrypt, "hashpw", counted_hashpw)
    monkeypatch.setattr(passwords.bcrypt, "checkpw", counted_checkpw)
    return made


def plain(secret: bytes, cost: int = COST, prefix: bytes = b"2b") -> str:
    return bcrypt.hashpw(secret[:72], bcrypt.gensalt(cost)).replace(b"2b", prefix, 1).decode()


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=100), st.text(max_size=100))
def test_a_hash_holds_for_its_password_alone(one: str, other: str) -> None:
    stored = make_hash(one, 4)
    assert verify(one, stored, 4) == Verified(True)
    assert verify(other, stored, 4).right == (one == other)


@pytest.mark.parametrize(
    "password",
    ["", "\0", "a\0b", "\ud800", "x" * 72 + "y", "x" * MAX_PASSWORD_BYTES, "é" * 512, "🙂" * 200],
)
def test_every_byte_counts(password: str) -> None:
    stored = make_hash(password, 4)
    assert verify(password, stored, 4).right
    for near in (password + "\0", password[:-1] + "?", password[:-1], "\0" + password):
        assert near == password or not verify(near, stored, 4).right
    assert make_hash(password, 4) != stored


def test_the_shape_of_a_hash() -> None:
    assert make_hash("x", 4).startswith("$gw1$2b$04$")
    assert len(make_hash("x" * 1000, 4)) == 64


@pytest.mark.parametrize("prefix", [b"2a", b"2b", b"2y"])
def test_plain_bcrypt_from_elsewhere_verifies_and_is_outdated(prefix: bytes) -> None:
    stored = plain(b"secret word", prefix=prefix)
    assert verify("secret word", stored, COST) == Verified(True, outdated=True)
    assert verify("secret worm", stored, COST) == Verified(False)


def test_a_long_password_from_elsewhere_was_cut_there() -> None:
    stored = plain(b"x" * 100)
    assert verify("x" * 100, stored, COST).right


def test_a_plain_hash_of_a_digest_is_not_taken_for_ours() -> None:
    ours = make_hash("secret word", 4)
    assert not verify("secret word", ours.removeprefix("$gw1"), 4).right
    assert not verify("secret word", "$gw1" + plain(b"secret word"), COST).right


def test_another_cost_is_outdated() -> None:
    assert verify("x", make_hash("x", 4), 5) == Verified(True, outdated=True)
    assert verify("x", make_hash("x", 5), 4) == Verified(True, outdated=True)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "",
        "!",
        "plaintext",
        "$gw1",
        "$gw1$2b$04$",
        "$gw2$2b$04$" + "a" * 53,
        "$2b$05$" + "a" * 53,  # letters of the alphabet, yet no base64 of 16 bytes
        "$2b$05$" + "a" * 54,
        "$2b$03$" + "." * 53,
        "$2b$31$" + "." * 53,  # would take hours
        "$2b$99$" + "." * 53,
        "$2x$05$" + "." * 53,
        "$2b$05$" + "\ud800" * 53,
        "$2b$05$" + "." * 53 + "\n",
        "$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA",
    ],
)
def test_a_malformed_hash_is_false_after_the_same_work(stored: str | None, rounds: list[int]) -> None:
    assert verify("x", stored, COST) == Verified(False)
    assert sum(rounds) == 2**COST


@pytest.mark.parametrize("password", ["x", "", "x" * 5000, "\ud800", "a\0b"])
@pytest.mark.parametrize("cost", [4, 5, None])
def test_every_wrong_password_costs_the_same(password: str, cost: int | None, rounds: list[int]) -> None:
    for stored in (make_hash("right", cost), plain(b"right", cost)) if cost else (None,):
        rounds.clear()
        assert not verify(password, stored, COST).right
        assert sum(rounds) == 2**COST


def test_a_long_password_is_not_even_digested() -> None:
    stored = make_hash("x" * (MAX_PASSWORD_BYTES + 1), 4)
    assert not verify("x" * (MAX_PASSWORD_BYTES + 1), stored, 4).right


@pytest.mark.anyio
async def test_a_login_does_the_same_work_whoever_it_names(world: World, rounds: list[int]) -> None:
    ann = await world.ann()
    off = await world.accounts.users.create("off@example.com", PASSWORD)
    old = await world.accounts.users.create("old@example.com", PASSWORD)
    await world.accounts.users.update(off.id, Changes(disabled=True))
    await set_hash(world, off.id, plain(PASSWORD.encode(), 4))
    await set_hash(world, old.id, "$2b$malformed")
    for email, password in [
        (ann.email, "wrong password"),
        (ann.email, "x" * 2000),
        (off.email, PASSWORD),
        (off.email, "wrong password"),
        (old.email, PASSWORD),
        ("nobody@example.com", PASSWORD),
        ("no address", PASSWORD),
    ]:
        rounds.clear()
        with pytest.raises(InvalidCredentials):
            await world.log_in(email, password)
        assert rounds == [2**4]


@pytest.mark.anyio
@pytest.mark.parametrize("foreign", [True, False])
async def test_a_login_brings_an_outdated_hash_up_to_date(world: World, foreign: bool) -> None:
    ann = await world.ann()
    stored = plain(PASSWORD.encode(), 4, b"2y") if foreign else make_hash(PASSWORD, 5)
    await set_hash(world, ann.id, stored)
    session = await world.log_in()
    assert (await get_hash(world, ann.id)).startswith("$gw1$2b$04$")
    await world.log_in()
    assert world.holds(session.access_token)
    assert (await world.accounts.users.get(ann.id)).version == ann.version


@pytest.mark.anyio
async def test_many_logins_may_bring_one_hash_up_to_date(world: World) -> None:
    ann = await world.ann()
    await set_hash(world, ann.id, plain(PASSWORD.encode(), 4))
    await asyncio.gather(*(world.log_in() for _ in range(2)))
    assert (await get_hash(world, ann.id)).startswith("$gw1$")


@pytest.mark.anyio
async def test_a_login_gives_up_when_the_hash_never_rests(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await world.ann()
    session = await world.log_in()
    compare = world.passwords.verify

    async def replaced_meanwhile(password: str, stored: str | None) -> Verified:
        found = await compare(password, stored)
        await set_hash(world, ann.id, make_hash(PASSWORD, 4))
        return found

    monkeypatch.setattr(world.passwords, "verify", replaced_meanwhile)
    with pytest.raises(Unavailable):
        await world.log_in()
    with pytest.raises(Unavailable):
        await world.accounts.own.change_password(
            world.principal(session.access_token), PASSWORD, NEW_PASSWORD
        )


@pytest.mark.anyio
async def test_a_user_may_vanish_while_the_password_is_compared(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await world.ann()
    compare = world.passwords.verify

    async def deleted_meanwhile(password: str, stored: str | None) -> Verified:
        found = await compare(password, stored)
        await world.accounts.users.delete(ann.id)
        return found

    monkeypatch.setattr(world.passwords, "verify", deleted_meanwhile)
    with pytest.raises(InvalidCredentials):
        await world.log_in()


@pytest.mark.anyio
async def test_a_full_queue_says_so_at_once_and_empties() -> None:
    pool = Passwords(cost=4, threads=1, queue=2)
    gate = threading.Event()
    blocked = [asyncio.ensure_future(pool._workers.run(gate.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refusal:
        await pool.verify("x", None)
    assert refusal.value.retry_after == 1
    blocked[2].cancel()  # one that waits gives its place back
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(pool.hash("x"))
    gate.set()
    assert verify("x", await waiting, 4).right
    await asyncio.gather(*blocked[:2])
    await pool.close()
    with pytest.raises(Unavailable):
        await pool.hash("x")
    assert repr(pool._workers) == "<Workers gateway-bcrypt>"


def test_one_core_is_left_for_proxying(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, spare in ((1, 1), (2, 1), (8, 7)):
        monkeypatch.setattr(passwords.os, "sched_getaffinity", lambda _, n=cores: set(range(n)))
        assert spare_cores() == spare
    monkeypatch.delattr(passwords.os, "sched_getaffinity")
    monkeypatch.setattr(passwords.os, "cpu_count", lambda: 4)
    assert spare_cores() == 3


async def set_hash(world: World, user_id: str, stored: str) -> None:
    await world.database.write(execute(f"UPDATE users SET password_hash = '{stored}' WHERE id = '{user_id}'"))


async def get_hash(world: World, user_id: str) -> str:
    query = f"SELECT password_hash FROM users WHERE id = '{user_id}'"
    return str(await world.database.read(lambda c: c.exec_driver_sql(query).scalar_one()))
