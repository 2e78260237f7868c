"""Limits hold: the same stories in memory and in a real Redis."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from uuid import uuid4

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Unavailable
from gateway.ratelimit import Memory, RateLimiter, Rule, Verdict, network_of
from tests.support.redis import RedisServer, shared_redis

LOGIN = Rule(5, 60, "login-account")
YES = Verdict(allowed=True, retry_after=0)


@dataclass
class Watch:
    now: float = 1_800_000_000.25

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with shared_redis() as url:
        yield url


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Also for the library's Redis storage, which reads the time where hits are counted."""
    watch = Watch()
    monkeypatch.setattr("limits.aio.storage.redis.redispy.time", SimpleNamespace(time=watch))
    return watch


@pytest.fixture(params=["memory", "redis"])
async def limiter(request: pytest.FixtureRequest, clock: Watch) -> AsyncIterator[RateLimiter]:
    storage = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    limiter = RateLimiter(storage, prefix=f"test-{uuid4()}", clock=clock, timeout=30)
    yield limiter
    await limiter.close()


async def hits(limiter: RateLimiter, count: int, rule: Rule = LOGIN, *key: str) -> list[bool]:
    return [(await limiter.hit(rule, *(key or ("ada",)))).allowed for _ in range(count)]


# -- the same in memory and in Redis ------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_limit_is_the_limit(limiter: RateLimiter) -> None:
    assert await hits(limiter, 8) == [True] * 5 + [False] * 3


@pytest.mark.anyio
async def test_keys_and_rules_count_apart(limiter: RateLimiter) -> None:
    assert not all(await hits(limiter, 6, LOGIN, "ada", "192.0.2.1"))
    for key in (("ada", "192.0.2.2"), ("bob", "192.0.2.1"), ("ada",), ("ada192.0.2.1",), ("ada/192.0.2.1",)):
        assert all(await hits(limiter, 5, LOGIN, *key))
    assert all(await hits(limiter, 5, Rule(5, 60, "refresh-address"), "ada", "192.0.2.1"))


@pytest.mark.anyio
async def test_the_refused_hear_when_to_come_back_and_then_get_in(limiter: RateLimiter, clock: Watch) -> None:
    await hits(limiter, 1)
    clock.now += 20
    await hits(limiter, 4)
    assert await limiter.hit(LOGIN, "ada") == Verdict(allowed=False, retry_after=41)
    clock.now += 39.9
    assert await limiter.hit(LOGIN, "ada") == Verdict(allowed=False, retry_after=1)
    clock.now += 1
    assert await limiter.hit(LOGIN, "ada") == YES
    assert (await limiter.hit(LOGIN, "ada")).retry_after == 20


@pytest.mark.anyio
async def test_knocking_while_refused_does_not_lock_out_longer(limiter: RateLimiter, clock: Watch) -> None:
    await hits(limiter, 5)
    for _ in range(6):
        clock.now += 10
        assert await hits(limiter, 1) == [False]
    clock.now += 0.5
    assert await hits(limiter, 6) == [True] * 5 + [False]


@pytest.mark.anyio
@pytest.mark.parametrize("offset", [0, 15, 29.75, 30, 45, 59, 59.7])
async def test_a_burst_at_the_turn_of_a_window_can_not_double_the_rate(
    limiter: RateLimiter, clock: Watch, offset: float
) -> None:
    clock.now += offset
    await hits(limiter, 1)
    clock.now += 59
    assert sum(await hits(limiter, 10)) == 4
    clock.now += 2
    assert sum(await hits(limiter, 10)) == 1
    clock.now += 57
    assert sum(await hits(limiter, 10)) == 0


@pytest.mark.anyio
async def test_attempts_at_the_same_moment_are_all_counted(limiter: RateLimiter) -> None:
    verdicts = await asyncio.gather(*(limiter.hit(LOGIN, "ada") for _ in range(40)))
    assert sum(verdict.allowed for verdict in verdicts) == 5


@pytest.mark.anyio
async def test_a_limit_of_one(limiter: RateLimiter, clock: Watch) -> None:
    rule = Rule(1, 1, "once")
    assert await hits(limiter, 2, rule) == [True, False]
    clock.now += 1.01
    assert await hits(limiter, 1, rule) == [True]


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["", "a/b", "ä\ud800", "x" * 10_000, "{a}", "\0\r\n", "*"])
async def test_no_key_is_odd(limiter: RateLimiter, name: str) -> None:
    assert await hits(limiter, 6, LOGIN, name) == [True] * 5 + [False]


@pytest.mark.anyio
async def test_a_key_that_was_cleared_starts_again(limiter: RateLimiter) -> None:
    await hits(limiter, 6)
    await hits(limiter, 6, LOGIN, "bob")
    await limiter.clear(LOGIN, "ada")
    assert await hits(limiter, 6) == [True] * 5 + [False]
    assert await hits(limiter, 1, LOGIN, "bob") == [False]
    await limiter.clear(LOGIN, "nobody")


@pytest.mark.anyio
@pytest.mark.parametrize("amount", [2, 5, 100])
async def test_a_hit_that_is_taken_back_leaves_room_for_one(
    limiter: RateLimiter, clock: Watch, amount: int
) -> None:
    rule = Rule(amount, 60, f"forgiving-{amount}")
    await hits(limiter, amount + 1, rule)
    for _ in range(3):
        await limiter.forgive(rule, "ada")
        assert await hits(limiter, 2, rule) == [True, False]
    for _ in range(amount + 5):
        await limiter.forgive(rule, "ada")
    await limiter.forgive(rule, "nobody")
    assert await hits(limiter, amount + 1, rule) == [True] * amount + [False]
    clock.now += 61
    assert await hits(limiter, 1, rule) == [True]


@pytest.mark.anyio
async def test_a_storage_that_is_there_says_so(limiter: RateLimiter) -> None:
    assert await limiter.ping()


# -- Redis --------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_replicas_share_one_count(redis_url: str, clock: Watch) -> None:
    prefix = f"test-{uuid4()}"
    one, two = (RateLimiter(redis_url, prefix=prefix, clock=clock, timeout=30) for _ in range(2))
    allowed = await hits(one, 3) + await hits(two, 3) + await hits(one, 1)
    assert allowed == [True] * 5 + [False] * 2
    await one.close()
    await two.close()


@pytest.mark.anyio
async def test_no_personal_data_reaches_redis_and_all_of_it_expires(redis_url: str) -> None:
    prefix = f"test-{uuid4()}"
    limiter = RateLimiter(redis_url, prefix=prefix, secret=b"s", timeout=30)
    await limiter.hit(LOGIN, "zoe@example.com", "192.0.2.1")
    client = redis.asyncio.Redis.from_url(redis_url)
    keys = [key async for key in client.scan_iter(f"{prefix}*")]
    assert len(keys) == 1
    assert keys[0].startswith(f"{prefix}:moving-window:login-account/".encode())
    assert not any(part in keys[0] for part in (b"zoe", b"@", b"192.0"))  # no hash looks like that
    assert 0 < await client.ttl(keys[0]) <= 60
    await client.aclose()
    await limiter.close()


@pytest.mark.anyio
async def test_the_hash_depends_on_the_secret(redis_url: str) -> None:
    prefix = f"test-{uuid4()}"
    for secret in (b"one", b"two", b"x" * 500):
        limiter = RateLimiter(redis_url, prefix=prefix, secret=secret, timeout=30)
        assert await hits(limiter, 6) == [True] * 5 + [False]
        await limiter.close()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with TemporaryDirectory(prefix="redis-") as directory, RedisServer(Path(directory)) as server:
        yield server


@pytest.mark.anyio
async def test_when_redis_dies_the_door_closes_until_it_is_back(
    own_redis: RedisServer,
) -> None:
    limiter = RateLimiter(own_redis.url, timeout=30)
    assert await limiter.hit(LOGIN, "ada") == YES
    own_redis.stop()
    for _ in range(3):
        with pytest.raises(Unavailable):
            await limiter.hit(LOGIN, "ada")
    with pytest.raises(Unavailable):
        await limiter.clear(LOGIN, "ada")
    assert not await limiter.ping()
    own_redis.start()
    assert await limiter.ping()
    assert await hits(limiter, 6) == [True] * 5 + [False]
    await limiter.close()


@pytest.mark.anyio
async def test_a_redis_that_restarted_between_two_hits_is_not_noticed(own_redis: RedisServer) -> None:
    limiter = RateLimiter(own_redis.url, timeout=30)
    assert await limiter.hit(LOGIN, "ada") == YES
    own_redis.stop()
    own_redis.start()
    assert await limiter.hit(LOGIN, "ada") == YES
    await limiter.close()


@pytest.mark.anyio
async def test_a_redis_that_hangs_is_not_waited_for(own_redis: RedisServer) -> None:
    limiter = RateLimiter(own_redis.url, timeout=0.3)
    assert await limiter.ping()
    own_redis.freeze()
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(Unavailable):
        await limiter.hit(LOGIN, "ada")
    assert not await limiter.ping()
    assert loop.time() - started < 5
    own_redis.thaw()
    patient = RateLimiter(own_redis.url, timeout=30)
    assert await patient.hit(LOGIN, "eve") == YES
    assert await limiter.ping()
    await patient.close()
    await limiter.close()


@pytest.mark.anyio
async def test_a_redis_that_hangs_is_waited_for_by_one_and_not_by_all(own_redis: RedisServer) -> None:
    limiter = RateLimiter(own_redis.url, timeout=0.3)
    assert await limiter.ping()
    own_redis.freeze()
    loop = asyncio.get_running_loop()
    with pytest.raises(Unavailable):
        await limiter.hit(LOGIN, "ada")
    started = loop.time()
    for _ in range(200):
        with pytest.raises(Unavailable):
            await limiter.hit(LOGIN, "ada")
    assert loop.time() - started < 200 * 0.3 / 5
    own_redis.thaw()
    while not await limiter.ping():
        pass
    assert await limiter.hit(LOGIN, "bob") == YES
    await limiter.close()


@pytest.mark.anyio
async def test_a_rule_that_is_open_is_counted_here_while_redis_is_away(own_redis: RedisServer) -> None:
    limiter = RateLimiter(own_redis.url, timeout=30)
    opened = Rule(5, 60, "login-account", open=True)
    assert await hits(limiter, 3, opened) == [True] * 3
    own_redis.stop()
    assert await hits(limiter, 7, opened) == [True] * 5 + [False] * 2
    with pytest.raises(Unavailable):
        await limiter.hit(LOGIN, "ada")
    assert limiter.failures == {("login-account", "counted"): 7, ("login-account", "refused"): 1}
    with pytest.raises(Unavailable):
        await limiter.clear(opened, "ada")
    assert await hits(limiter, 1, opened) == [True], "what was counted here is cleared all the same"
    own_redis.start()
    assert await hits(limiter, 6, opened) == [True] * 5 + [False]
    await limiter.close()


@pytest.mark.anyio
async def test_a_caller_who_leaves_is_let_go(own_redis: RedisServer) -> None:
    limiter = RateLimiter(own_redis.url, timeout=60)
    assert await limiter.ping()
    own_redis.freeze()
    for waiting in (limiter.hit(LOGIN, "ada"), limiter.ping()):
        task = asyncio.ensure_future(waiting)
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    own_redis.thaw()
    assert (await limiter.hit(LOGIN, "bob")).allowed
    await limiter.close()


def test_a_limiter_may_be_made_before_there_is_a_loop(redis_url: str) -> None:
    limiter = RateLimiter(redis_url, prefix=f"test-{uuid4()}", timeout=30)

    async def story() -> None:
        assert await limiter.hit(LOGIN, "ada") == YES
        await asyncio.gather(*(limiter.hit(LOGIN, str(number)) for number in range(100)))
        await limiter.close()

    asyncio.run(story())


def test_an_unknown_storage_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown storage for rate limits: mongodb://"):
        RateLimiter("mongodb://user:password@host")


def test_redis_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ValueError, match=r"auth-gateway\[redis\]"):
        RateLimiter("redis://localhost")


# -- memory, and its bound ----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_flood_of_names_does_not_flush_a_counter_that_is_at_its_limit(clock: Watch) -> None:
    limiter = RateLimiter(clock=clock, max_entries=100)
    assert await hits(limiter, 6) == [True] * 5 + [False]
    for number in range(1000):
        assert (await limiter.hit(LOGIN, f"nobody-{number}")).allowed
    assert await hits(limiter, 1) == [False]


def test_memory_is_bounded_whatever_comes() -> None:
    memory, rule = Memory(max_entries=100), Rule(4, 60, "x")
    for number in range(500):
        for _ in range(number % 5):
            memory.hit(rule, (str(number),), 0.0)
    assert len(memory) <= 100


@pytest.mark.parametrize("amount", [21, 1000, 1_000_000])
def test_a_large_limit_takes_no_more_memory_than_a_small_one(amount: int) -> None:
    memory = Memory(max_entries=21 + 21 + 100)
    for second in range(600):
        for _ in range(20):
            memory.hit(Rule(amount, 60, "x"), ("ada",), second + 0.5)
            memory.hit(Rule(amount, 60, "x"), ("bob",), second + 0.5)
    assert len(memory) == 2  # neither pushed the other out


@pytest.mark.anyio
async def test_hits_that_are_taken_back_need_no_memory(clock: Watch) -> None:
    limiter = RateLimiter(clock=clock, max_entries=40)
    assert await hits(limiter, 6, LOGIN, "carl") == [True] * 5 + [False]
    await hits(limiter, 3, LOGIN, "ada")
    for _ in range(100):
        await limiter.hit(LOGIN, "ada")
        await limiter.forgive(LOGIN, "ada")
    assert await hits(limiter, 1, LOGIN, "carl") == [False], "nobody had to make room"


def test_the_rules_do_not_share_their_memory() -> None:
    memory, login = Memory(max_entries=40), Rule(2, 60, "login")
    assert [memory.hit(login, ("ada",), 0.0).allowed for _ in range(3)] == [True, True, False]
    for number in range(1000):
        memory.hit(Rule(1, 60, "route"), (str(number),), 0.0)
    assert not memory.hit(login, ("ada",), 0.0).allowed


@pytest.mark.anyio
async def test_new_names_are_counted_even_when_memory_is_full_of_guarded_ones(clock: Watch) -> None:
    limiter = RateLimiter(clock=clock, max_entries=100)
    for number in range(100):
        await hits(limiter, 5, LOGIN, str(number))
    assert await hits(limiter, 6) == [True] * 5 + [False]


@pytest.mark.anyio
async def test_a_limit_larger_than_the_memory_still_holds(clock: Watch) -> None:
    limiter = RateLimiter(clock=clock, max_entries=20)
    assert sum(await hits(limiter, 80, Rule(60, 60, "wide"))) == 60


def test_dead_counters_leave_as_new_ones_come() -> None:
    memory, rule = Memory(), Rule(5, 60, "x")
    for number in range(100):
        for _ in range(1 + number % 5):
            memory.hit(rule, (f"old-{number}",), 0.0)
    for number in range(100):
        memory.hit(rule, (f"new-{number}",), 61.0)
    assert len(memory) == 100


def test_names_of_any_length_are_counted_and_only_short_ones_kept() -> None:
    limiter = RateLimiter(clock=Watch())
    long = "x" * 1_000_000
    assert [limiter.try_hit(LOGIN, long, "y") == YES for _ in range(6)] == [True] * 5 + [False]
    assert limiter.try_hit(LOGIN, long + "y") == YES
    assert sys.getsizeof(next(iter(limiter._memory._windows.values()))._guarded.popitem()[0][0]) < 200


_STEPS = st.lists(st.tuples(st.floats(0, 30), st.sampled_from("ab")), max_size=60)


@given(steps=_STEPS, amount=st.integers(1, 4), seconds=st.integers(1, 60))
def test_no_stretch_of_time_holds_more_than_the_limit(
    steps: list[tuple[float, str]], amount: int, seconds: int
) -> None:
    clock = Watch(0)
    limiter = RateLimiter(clock=clock)
    allowed: dict[str, list[float]] = {"a": [], "b": []}
    for wait, key in steps:
        clock.now += wait
        verdict = limiter.try_hit(Rule(amount, seconds, "x"), key)
        assert verdict is not None
        recent = [at for at in allowed[key] if at >= clock.now - seconds]
        assert verdict.allowed == (len(recent) < amount)
        if verdict.allowed:
            allowed[key].append(clock.now)
        else:
            assert recent[0] + seconds <= clock.now + verdict.retry_after <= recent[0] + seconds + 1


@given(
    waits=st.lists(st.floats(0, 10), min_size=30, max_size=150),
    amount=st.integers(21, 40),
    seconds=st.integers(20, 100),
)
def test_a_large_limit_holds_too_and_makes_wait_at_most_a_twentieth_longer(
    waits: list[float], amount: int, seconds: int
) -> None:
    clock = Watch(0)
    limiter = RateLimiter(clock=clock)
    allowed: list[float] = []
    for wait in waits:
        clock.now += wait
        verdict = limiter.try_hit(Rule(amount, seconds, "x"), "ada")
        assert verdict is not None
        recent = [at for at in allowed if at >= clock.now - seconds]
        longer = [at for at in allowed if at >= clock.now - seconds * 1.05 - 1e-6]
        if verdict.allowed:
            assert len(recent) < amount
            allowed.append(clock.now)
        else:
            assert len(longer) >= amount
            assert 1 <= verdict.retry_after <= seconds + 1


@pytest.mark.anyio
async def test_what_is_counted_at_once_and_what_is_waited_for_is_one_count(clock: Watch) -> None:
    limiter = RateLimiter(clock=clock)
    assert limiter.try_hit(LOGIN, "ada") == YES
    assert await hits(limiter, 5) == [True] * 4 + [False]
    assert limiter.try_hit(LOGIN, "ada") == Verdict(allowed=False, retry_after=61)
    await limiter.clear(LOGIN, "ada")
    assert limiter.try_hit(LOGIN, "ada") == YES


def test_redis_can_not_answer_at_once(redis_url: str) -> None:
    assert RateLimiter(redis_url, timeout=30).try_hit(LOGIN, "ada") is None


# -- networks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
    ],
)
def test_the_network_that_is_counted(address: str, network: str) -> None:
    assert network_of(ip_address(address)) == network


def test_a_unix_socket_is_one_network() -> None:
    assert network_of(None) == "unix"
