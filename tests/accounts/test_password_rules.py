"""A new password is long enough and none of those that guessers try first; nothing else is asked of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounts.emails import fold
from gateway.accounts.password_rules import PasswordRules, common_passwords
from gateway.accounts.service import Changes
from gateway.errors import InvalidField
from tests.accounts.world import PASSWORD, World

RULES = PasswordRules(min_length=8)
ANN = "ann.example@example.com"
COMMON = sorted(word for word in common_passwords() if len(word) >= 8)


def refusal(password: str, email: str = ANN, *, rules: PasswordRules = RULES) -> str:
    with pytest.raises(InvalidField) as refused:
        rules.refuse_unfit(password, email)
    return refused.value.detail


def test_the_list_is_there_whole_and_clean() -> None:
    assert len(common_passwords()) >= 10_000
    assert {"123456", "password", "iloveyou", "1q2w3e4r5t", "пароль"} <= common_passwords()
    assert all(word and word == fold(word) for word in common_passwords())


@pytest.mark.parametrize(
    "password",
    [
        "password123",
        "PASSWORD123",
        "  Password123 ",
        "ｐａｓｓｗｏｒｄ１２３",
        "qwertyuiop",
        "1234567890",
    ],
)
def test_a_common_password_is_refused_in_every_spelling(password: str) -> None:
    assert refusal(password) == (
        "The password is among the most common ones, which are tried first. Choose another one."
    )


@pytest.mark.parametrize(
    "password", [ANN, "Ann.Example", "ANN.EXAMPLE@example.com", " ann.example ", "ａｎｎ.example"]
)
def test_the_own_address_and_its_first_part_are_refused(password: str) -> None:
    assert refusal(password) == (
        "The password must not be the e-mail address, nor the part of it before the @."
    )
    RULES.refuse_unfit(password, "bob@example.com")


def test_a_short_one_is_told_how_long_it_must_be() -> None:
    assert refusal("1234567") == "The password must have at least 8 characters."
    assert refusal("password123", rules=PasswordRules(min_length=15)) == (
        "The password must have at least 15 characters."
    )


@pytest.mark.parametrize(
    "password",
    [
        "zzzzzzzzzzzzzzzzz",
        "a passphrase of small letters",
        "73019482650",
        "😀" * 8,
        "ÄÖÜäöüß-",
        "\0" * 8,
        "x" * 1024,
    ],
)
def test_no_kind_of_character_is_asked_for_or_forbidden(password: str) -> None:
    RULES.refuse_unfit(password, ANN)


@given(word=st.sampled_from(COMMON), data=st.data())
def test_whatever_changes_only_the_look_of_a_common_one_does_not_help(word: str, data: st.DataObject) -> None:
    looks = [word, word.upper(), word.title(), f" {word}\t", word.translate(FULL_WIDTH)]
    assert "most common" in refusal(data.draw(st.sampled_from(looks)))


FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
"""ASCII as East Asian full-width characters."""


@given(password=st.text(min_size=8, max_size=60))
def test_nothing_but_length_the_list_and_the_address_is_judged(password: str) -> None:
    if fold(password) in common_passwords() | {ANN, "ann.example"}:
        assert refusal(password)
    else:
        RULES.refuse_unfit(password, ANN)


@pytest.mark.anyio
async def test_every_way_to_a_new_password_is_held_to_it(world: World) -> None:
    with pytest.raises(InvalidField, match="most common"):
        await world.accounts.users.create("bob@example.com", "Password123")
    ann = await world.ann()
    with pytest.raises(InvalidField, match="most common"):
        await world.accounts.users.update(ann.id, Changes(password="Password123"))
    session = await world.log_in()
    with pytest.raises(InvalidField, match="most common"):
        await world.accounts.own.change_password(
            world.principal(session.access_token), PASSWORD, "Password123"
        )
    long_name = await world.accounts.users.create("quite.a.long.name@example.com", PASSWORD)
    with pytest.raises(InvalidField, match="before the @"):
        await world.accounts.users.update(long_name.id, Changes(password="quite.a.long.NAME"))
    with pytest.raises(InvalidField, match="before the @"):  # the address that it will have
        await world.accounts.users.update(
            ann.id, Changes(email="another.name@example.com", password="another.name")
        )


@pytest.mark.anyio
async def test_an_address_that_moves_while_the_password_is_hashed_is_compared_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await world.ann()
    make = world.passwords.hash

    async def slowly(password: str) -> str:
        await world.accounts.users.update(ann.id, Changes(email="another.name@example.com"))
        return await make(password)

    monkeypatch.setattr(world.passwords, "hash", slowly)
    with pytest.raises(InvalidField, match="before the @"):
        await world.accounts.users.update(ann.id, Changes(password="another.name"))


@pytest.mark.anyio
async def test_a_password_that_exists_is_not_judged(world: World) -> None:
    """The rules may have been others then; who knows it is still its owner."""
    lax = World(world.database, world.clock, min_length=8)
    with pytest.raises(InvalidField):
        await lax.accounts.users.create("bob@example.com", "password1")
    await lax.accounts.users.create("bob@example.com", "eight 88")
    await world.log_in("bob@example.com", "eight 88")
