"""From where an account is known, and how its limits are cleared."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from gateway.accounts.feed import Feed
from gateway.accounts.service import Changes, Client
from gateway.accounts.store import NETWORK_KNOWN_S
from gateway.accounts.tables import known_networks
from gateway.accounts.values import NOBODYS, Standing
from gateway.errors import InvalidCredentials, NotFound
from tests.accounts.world import ELSEWHERE, HOME, PASSWORD, Clock, World

pytestmark = pytest.mark.anyio


async def is_known(world: World, network: str, email: str = "ann@example.com") -> bool:
    return (await world.accounts.regulation.standing(email, network)).known


async def test_a_login_makes_its_network_known_for_that_account_alone(world: World) -> None:
    ann = await world.ann()
    await world.accounts.users.create("bob@example.com", PASSWORD)
    assert await world.accounts.regulation.standing("ann@example.com", HOME.address) == Standing(
        ann.id, 0, False
    )
    await world.log_in()
    assert await is_known(world, HOME.address)
    assert await is_known(world, HOME.address, " ANN@Example.COM ")
    assert not await is_known(world, ELSEWHERE.address)
    assert not await is_known(world, HOME.address, "bob@example.com")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.9", "192.0.2.9"),
        ("192.0.2.9", "192.0.2.9"),
        ("unix", "unix"),
    ],
)
async def test_it_is_the_network_that_limits_count_by(world: World, address: str, network: str) -> None:
    await world.ann()
    await world.log_in(client=Client(address, ""))
    assert await is_known(world, network)


async def test_only_a_right_password_makes_known(world: World) -> None:
    ann = await world.ann()
    with pytest.raises(InvalidCredentials):
        await world.log_in(password="wrong", client=ELSEWHERE)
    await world.accounts.users.update(ann.id, Changes(disabled=True))
    with pytest.raises(InvalidCredentials):
        await world.log_in(client=ELSEWHERE)
    assert not await is_known(world, ELSEWHERE.address)


async def test_a_network_is_forgotten_thirty_days_after_the_last_login(world: World, clock: Clock) -> None:
    await world.ann()
    await world.log_in()
    clock.advance(NETWORK_KNOWN_S - 1)
    await world.log_in()
    clock.advance(NETWORK_KNOWN_S)
    assert await is_known(world, HOME.address)
    clock.advance(1)
    assert not await is_known(world, HOME.address)


async def test_the_clean_up_takes_what_is_forgotten_and_a_deletion_the_rest(
    world: World, clock: Clock
) -> None:
    ann = await world.ann()
    await world.log_in()
    clock.advance(NETWORK_KNOWN_S + 1)
    await world.log_in(client=ELSEWHERE)
    clock.advance(NETWORK_KNOWN_S)
    await Feed(world.database, world.cutoffs.apply).prune()
    assert await rows(world) == 1
    assert await is_known(world, ELSEWHERE.address)
    await world.accounts.users.delete(ann.id)
    assert await rows(world) == 0


async def test_names_that_nobody_has_are_looked_up_like_others(world: World) -> None:
    for name in ("nobody@example.com", "", "hunter2", "x" * 5000, "a@b@c", "\ud800@x"):
        assert await world.accounts.regulation.standing(name, HOME.address) == NOBODYS


async def test_clearing_is_felt_by_every_process_and_is_audited(world: World) -> None:
    ann = await world.ann()
    await world.accounts.users.create("bob@example.com", PASSWORD)
    assert (await world.accounts.regulation.clear(ann.id, actor="cli:ops")).email == ann.email
    await world.accounts.regulation.clear(ann.id, actor="cli:ops")
    assert (await world.accounts.regulation.standing("ann@example.com", "x")).epoch == 2
    assert (await world.accounts.regulation.standing("bob@example.com", "x")).epoch == 0
    assert world.names()[-1] == "LimitsCleared"
    assert (world.events[-1].user, world.events[-1].email, world.events[-1].actor) == (
        ann.id, "ann@example.com", "cli:ops",
    )  # fmt: skip
    assert world.holds((await world.log_in()).access_token)


@pytest.mark.parametrize("user_id", ["", "x", "00000000-0000-0000-0000-000000000000"])
async def test_only_what_is_there_is_cleared(world: World, user_id: str) -> None:
    with pytest.raises(NotFound):
        await world.accounts.regulation.clear(user_id)


async def rows(world: World) -> int:
    query = select(func.count()).select_from(known_networks)
    return await world.database.read(lambda connection: connection.execute(query).scalar_one())
