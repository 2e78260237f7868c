"""Guessing is slowed, and nobody is locked out of where they are known."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Unavailable
from gateway.ratelimit import RateLimiter, Rule
from gateway.telemetry.audit import LoginLimited
from gateway.web.attempts import Limits
from tests.support.redis import RedisServer
from tests.web.conftest import ADMIN, HOME, LIMITS, PASSWORD, USER, World, assert_problem, running

pytestmark = pytest.mark.anyio

DAILY = 8
"""Small, so that it is reached soon."""
SMALL = Limits(
    login_per_account=LIMITS.login_per_account,
    login_per_account_daily=Rule(DAILY, 86_400, "login-daily"),
    login_per_address=LIMITS.login_per_address,
    refresh_per_address=Rule(2, 60, "refresh-address"),
)


@pytest.fixture(scope="module")
def own_redis() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="redis-") as folder, RedisServer(Path(folder)) as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
async def guarded(world: World, request: pytest.FixtureRequest, anyio_backend: str) -> World:
    """A world with a small limit per day, counted in memory or in Redis."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("own_redis")
        await swap(world, server.url, prefix=uuid4().hex)
    await guard(world)
    return world


async def swap(world: World, url: str, *, prefix: str) -> None:
    await world.limiter.close()
    world.limiter = RateLimiter(url, prefix=prefix, timeout=30)  # Redis has a clock of its own


async def guard(world: World, limits: Limits = SMALL) -> None:
    """The running application, with these limits."""
    world.attempts._limiter, world.attempts.limits = world.limiter, limits


async def attempt(
    world: World, number: int | IPv4Address, email: str = USER, password: str = "wrong"
) -> httpx.Response:
    """From the network of that number."""
    world.address = number if isinstance(number, IPv4Address) else IPv4Address(0x0A000000 + number)
    return await world.http.post("/auth/login", json={"email": email, "password": password})


async def statuses(world: World, count: int, email: str = USER, start: int = 0) -> list[int]:
    """Each from a network of its own."""
    return [(await attempt(world, start + number, email)).status_code for number in range(count)]


class TestADay:
    @pytest.mark.parametrize("email", [USER, "nobody@example.com", "hunter2"])
    async def test_from_however_many_networks_an_account_is_tried_so_often(
        self, guarded: World, email: str
    ) -> None:
        assert await statuses(guarded, DAILY + 3, email) == [401] * DAILY + [429] * 3
        assert await statuses(guarded, 1, ADMIN) == [401], "others are others"
        refused = await attempt(guarded, 99, email, PASSWORD)
        assert_problem(refused, 429, "too_many_requests")
        assert 80_000 < int(refused.headers["retry-after"]) <= 86_401

    async def test_every_spelling_is_one_account(self, guarded: World) -> None:
        names = [USER, USER.upper(), f" {USER}\t", "ａda@example.com"] * 3
        told = [(await attempt(guarded, number, name)).status_code for number, name in enumerate(names)]
        assert told == [401] * DAILY + [429] * (len(names) - DAILY)

    async def test_the_owner_gets_in_from_where_the_account_is_known(self, guarded: World) -> None:
        assert (await attempt(guarded, HOME, USER, PASSWORD)).status_code == 200
        assert 429 in await statuses(guarded, 3 * DAILY)
        assert (await attempt(guarded, HOME)).status_code == 401, "one's own mistake"
        assert (await attempt(guarded, HOME, USER, PASSWORD)).status_code == 200
        assert (await attempt(guarded, 7_000, USER, PASSWORD)).status_code == 429, "a new network waits"

    async def test_the_owners_login_brings_the_guesser_nothing(self, guarded: World) -> None:
        await attempt(guarded, HOME, USER, PASSWORD)
        await statuses(guarded, DAILY)
        await attempt(guarded, HOME, USER, PASSWORD)
        assert await statuses(guarded, 3, start=500) == [429] * 3

    async def test_who_knows_the_password_is_no_guesser_wherever_they_are(self, guarded: World) -> None:
        """A job that logs in from another machine of a cloud each time."""
        for number in range(3 * DAILY):
            assert (await attempt(guarded, number, USER, PASSWORD)).status_code == 200
        assert await statuses(guarded, DAILY + 1, start=500) == [401] * DAILY + [429]

    async def test_it_is_over_after_a_day(self, world: World) -> None:
        await guard(world)
        await statuses(world, DAILY + 1)
        world.clock.now += 86_401
        assert (await attempt(world, 7_000, USER, PASSWORD)).status_code == 200


class TestClearing:
    async def test_an_admin_lets_somebody_in_again(self, guarded: World) -> None:
        admin = await guarded.bearer(ADMIN)
        for _ in range(6):
            await attempt(guarded, HOME)
        await statuses(guarded, DAILY)
        assert (await attempt(guarded, HOME, USER, PASSWORD)).status_code == 429
        cleared = await guarded.http.delete(f"/auth/users/{guarded.user.id}/limits", headers=admin)
        assert (cleared.status_code, cleared.content) == (204, b"")
        assert (await attempt(guarded, HOME, USER, PASSWORD)).status_code == 200
        assert await statuses(guarded, DAILY + 1) == [401] * DAILY + [429]
        (event,) = guarded.named("LimitsCleared")
        assert (event.actor, getattr(event, "user", None)) == (guarded.admin.id, guarded.user.id)

    async def test_only_admins_clear(self, world: World) -> None:
        path = f"/auth/users/{world.admin.id}/limits"
        assert_problem(await world.http.delete(path), 401, "not_logged_in")
        assert_problem(await world.http.delete(path, headers=await world.bearer()), 403, "forbidden")


class TestTelling:
    async def test_a_limit_is_told_once_in_its_window_with_whom_and_which(self, guarded: World) -> None:
        for _ in range(9):
            await attempt(guarded, HOME)
        await statuses(guarded, DAILY + 9, start=100)
        told = [event for event in guarded.events if isinstance(event, LoginLimited)]
        assert [(event.limit, event.user, event.email, event.address) for event in told] == [
            ("per_account", guarded.user.id, USER, str(HOME)),
            ("per_account_daily", guarded.user.id, USER, told[1].address),
        ]

    async def test_each_account_and_network_is_told(self, guarded: World) -> None:
        for email in (USER, ADMIN):
            for address in (HOME, IPv4Address("192.0.2.77")):
                for _ in range(7):
                    await attempt(guarded, address, email)
        told = [event for event in guarded.events if isinstance(event, LoginLimited)]
        assert len({(event.email, event.address) for event in told if event.limit == "per_account"}) == 4

    async def test_an_unknown_name_is_told_without_an_account(self, guarded: World) -> None:
        await statuses(guarded, DAILY + 5, "nobody@example.com")
        (told,) = guarded.named("LoginLimited")
        assert isinstance(told, LoginLimited)
        assert (told.user, told.email) == (None, "nobody@example.com")

    async def test_in_the_next_window_it_is_told_again(self, world: World) -> None:
        for _ in range(7):
            await attempt(world, HOME)
        world.clock.now += 61
        for _ in range(7):
            await attempt(world, HOME)
        assert len(world.named("LoginLimited")) == 2

    async def test_a_network_that_tries_many_names_is_told_once(self, guarded: World) -> None:
        for number in range(40):
            await attempt(guarded, HOME, f"n{number}@example.com")
        (told,) = guarded.named("LoginLimited")
        assert isinstance(told, LoginLimited)
        assert (told.limit, told.user) == ("per_address", None)

    async def test_refreshes_and_passwords_too(self, guarded: World) -> None:
        mine = await guarded.bearer()
        for _ in range(4):
            await guarded.http.post("/auth/refresh", json={"refreshToken": "x"})
        for _ in range(8):
            await guarded.http.post(
                "/auth/password", json={"currentPassword": "x", "newPassword": "y" * 12}, headers=mine
            )
        names = [type(event).__name__ for event in guarded.events]
        assert (names.count("RefreshLimited"), names.count("PasswordLimited")) == (1, 1)


@pytest.mark.parametrize("unknown", [False, True])
async def test_the_same_is_asked_and_counted_for_names_that_nobody_has(world: World, unknown: bool) -> None:
    asked: list[str] = []
    hit, read = world.limiter.hit, world.database.read

    async def noted_hit(rule: Rule, *key: str) -> Any:
        asked.append(rule.name)
        return await hit(rule, *key)

    async def noted_read(work: Any) -> Any:
        asked.append("read")
        return await read(work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.limiter, "hit", noted_hit)
        patch.setattr(world.database, "read", noted_read)
        await attempt(world, 1, "nobody@example.com" if unknown else USER)
    assert asked == ["login-address", "read", "login-account", "login-daily", "read"]


class TestRedisAway:
    @pytest.mark.parametrize("opens", [False, True])
    async def test_each_limit_says_what_holds_then(self, world: World, tmp_path: Path, opens: bool) -> None:
        with RedisServer(tmp_path) as server:
            await swap(world, server.url, prefix="away")
            await guard(world, opened(SMALL) if opens else SMALL)
            assert (await attempt(world, HOME, USER, PASSWORD)).status_code == 200
            server.stop()
            if not opens:
                answer = await attempt(world, HOME, USER, PASSWORD)
                assert_problem(answer, 503, "unavailable")
                return
            told = [(await attempt(world, HOME)).status_code for _ in range(7)]
            assert told == [401] * 5 + [429] * 2, "each process counts for itself meanwhile"
            assert (await attempt(world, 1, USER, PASSWORD)).status_code == 200
            server.start()
            assert (await attempt(world, HOME, USER, PASSWORD)).status_code == 200


def opened(limits: Limits) -> Limits:
    def as_open(rule: Rule) -> Rule:
        return Rule(rule.amount, rule.seconds, rule.name, open=True)

    return Limits(*(as_open(getattr(limits, name)) for name in Limits.__slots__))


# Whatever strangers do: from which networks, under which spelling, of which accounts, in which order.
STRANGERS = st.lists(
    st.tuples(
        st.integers(min_value=0, max_value=12),
        st.sampled_from([USER, USER.upper(), f" {USER}", ADMIN, "nobody@example.com", "ａda@example.com"]),
        st.integers(min_value=0, max_value=40),
    ),
    max_size=40,
)


@pytest.mark.parametrize("storage", ["memory", "redis"])
def test_whatever_strangers_do_the_owner_gets_in_from_a_known_network(
    storage: str, begun: Path, own_redis: RedisServer, anyio_backend: str
) -> None:
    """And they have no more guesses than the limit of the day says."""

    @settings(max_examples=25, deadline=None)
    @given(strangers=STRANGERS)
    def play(strangers: list[tuple[int, str, int]]) -> None:
        anyio.run(story, strangers)

    async def story(strangers: list[tuple[int, str, int]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(shutil.copy(begun, folder))
            async with running(path) as world:
                await tell(world, strangers)

    async def tell(world: World, strangers: list[tuple[int, str, int]]) -> None:
        if storage == "redis":
            await swap(world, own_redis.url, prefix=uuid4().hex)
        await guard(world)
        assert (await attempt(world, HOME, USER, PASSWORD)).status_code == 200
        guesses = 0
        for number, name, pause in strangers:
            answer = await attempt(world, number, name)
            assert answer.status_code in (401, 429)
            guesses += answer.status_code == 401 and name not in (ADMIN, "nobody@example.com")
            if storage == "memory":
                world.clock.now += pause
        assert guesses <= DAILY
        assert (await attempt(world, HOME, USER, PASSWORD)).status_code == 200

    play()


async def test_without_its_database_nothing_is_guessed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise Unavailable

    monkeypatch.setattr(world.database, "read", away)
    assert_problem(await attempt(world, HOME, USER, PASSWORD), 503, "unavailable")
