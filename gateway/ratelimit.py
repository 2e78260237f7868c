"""How often somebody may try: counting hits per key, in this process or in Redis.

Theory of operation
-------------------
A limit of 5 per minute means that no stretch of sixty seconds, wherever it begins,
holds more than five allowed hits. Only a *moving window*, which remembers the
time of each hit, keeps that promise. Fixed windows let ten through in a second
around the turn of the minute; a sliding counter lets five through at the end of
one window and nearly five more, evenly, in the next. Refused hits are not
remembered, so whoever keeps knocking gets in again when the oldest allowed hit has aged.

**memory://** answers at once, in a time that does not grow with keys or limits. Up to 20
hits per window are remembered one by one; of larger limits, those of each twentieth of the
window together, as if all had come at its last one. So the promise holds, a counter stays
small, and the wait is at most a twentieth of the window longer than it need be. All counters
of a rule are bounded. When there is no room, it is made by the counters that say least: first
those that used less than half of their limit, least recently hit first. An attacker who
wants a counter forgotten, on the account being guessed or on the own address, has to
fill that rule's memory with counters that are half used up, and the hits for that are
themselves limited: with 5 a minute per account and address, 3 hits for each of
some 50,000 pairs within that minute. Dead counters leave as new ones come.

**redis://** counts for all replicas, over the `limits` library, in one atomic script. Keys
are hashed before they get there: a Redis that others can read then holds no e-mail
address and no IP address. With `secret` nobody can test guesses either. When Redis
is away or slow, `hit` raises Unavailable within `timeout`: closed, since a limit that
opens when its storage is attacked protects nothing. A rule with `open` goes on instead, and
each process counts in its own memory as long as that lasts. Whoever found Redis slow has
waited for all: for the next seconds nobody waits, but one at a time who finds out whether
it is better. When Redis is back, so is this.
"""

from __future__ import annotations

import hashlib
import json
import time
from array import array
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from math import floor
from typing import TYPE_CHECKING, Final

from gateway.errors import Unavailable

if TYPE_CHECKING:
    from limits import RateLimitItem
    from redis.asyncio import ConnectionPool

Key = tuple[str, ...]
Clock = Callable[[], float]

MAX_ENTRIES = 200_000
"""Entries that memory:// remembers for each rule; if each has a key of its own, some 120 MB."""

STORAGE_TIMEOUT = 1.0
"""Seconds that a hit may wait for Redis before it is refused with 503."""

SLOW_PAUSE = 2.0
"""Seconds for which a Redis that was too slow is asked by nobody."""

_STEPS = 20
"""Hits of one key that are remembered one by one, and parts of a window in which larger limits count."""
_PLAIN_KEY = 128
"""Characters of the longest key that memory:// keeps as it is."""
_REDIS_CONNECTIONS = 32
_BURIALS = 2
"""Dead counters dropped per new one: more than one, so that they run out."""


@dataclass(frozen=True, slots=True)
class Rule:
    """At most `amount` hits in any `seconds`."""

    amount: int
    """Allowed hits."""
    seconds: int
    """Length of the window."""
    name: str
    """What is limited ("login-address"): rules of different names count apart."""
    open: bool = False
    """While Redis is away, each process counts for itself; otherwise hits are refused with Unavailable."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a limit says to one hit."""

    allowed: bool
    """This one counts and may go on."""
    retry_after: int
    """0 if allowed, else whole seconds (at least 1) after which a hit will be allowed again."""


class RateLimiter:
    """Counts hits in memory or in Redis. Raises ValueError for a storage it does not know."""

    def __init__(
        self,
        storage: str = "memory://",
        *,
        prefix: str = "gateway",
        secret: bytes = b"",
        clock: Clock = time.time,
        timeout: float = STORAGE_TIMEOUT,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self._clock = clock
        self._secret = hashlib.sha256(secret).digest()
        self._memory = Memory(max_entries)
        self._remote = _remote(storage, prefix, clock, timeout)
        self.failures: Counter[tuple[str, str]] = Counter()
        """Hits that Redis did not count, by the rule's name and what became of them: `refused`, `counted`."""

    def try_hit(self, rule: Rule, *key: str) -> Verdict | None:
        """`hit`, if it can answer at once; None, and nothing is counted, where it would have to wait."""
        if self._remote is not None:
            return None
        return self._memory.hit(rule, self._short(key), self._clock())

    async def hit(self, rule: Rule, *key: str) -> Verdict:
        """Count one hit of `key`. Raises Unavailable if the storage is away.

        Where several rules guard one act, hit the widest first (the address before
        the account): what it refuses then leaves no counters behind.
        """
        if self._remote is not None:
            try:
                return await self._remote.hit(rule, self._hidden(key))
            except Unavailable:
                self.failures[rule.name, "counted" if rule.open else "refused"] += 1
                if not rule.open:
                    raise
        return self._memory.hit(rule, self._short(key), self._clock())

    async def forgive(self, rule: Rule, *key: str) -> None:
        """Take the latest hit of `key` back. Raises Unavailable like `hit`."""
        self._memory.forgive(rule, self._short(key))
        if self._remote is not None:
            await self._remote.forgive(rule, self._hidden(key))

    async def clear(self, rule: Rule, *key: str) -> None:
        """Forget the hits of `key`, say after a login that succeeded. Raises Unavailable like `hit`."""
        self._memory.clear(rule, self._short(key))
        if self._remote is not None:
            await self._remote.clear(rule, self._hidden(key))

    @property
    def shared(self) -> bool:
        """Whether other processes count in the same place."""
        return self._remote is not None

    async def ping(self) -> bool:
        """Is the storage there?"""
        return self._remote is None or await self._remote.ping()

    async def close(self) -> None:
        if self._remote is not None:
            await self._remote.close()

    def _short(self, key: Key) -> Key:
        """Nobody's long names fill the memory."""
        return key if sum(map(len, key)) <= _PLAIN_KEY else (self._hidden(key),)

    def _hidden(self, key: Key) -> str:
        text = json.dumps(key).encode()  # unambiguous, and ASCII whatever is in it
        return hashlib.blake2b(text, key=self._secret, digest_size=16).hexdigest()


def network_of(address: IPv4Address | IPv6Address | None) -> str:
    """What limits per address count by: one IPv4 address, or the /64 that a customer gets of IPv6.

    "unix" for the peers of a unix socket, which have none.
    """
    if address is None:
        return "unix"
    if isinstance(address, IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return _network_of_64(int(address) >> 64)


@lru_cache(maxsize=4096)
def _network_of_64(prefix: int) -> str:
    """Writing an IPv6 address takes longer than all the rest of a hit."""
    return f"{IPv6Address(prefix << 64)}/64"


def _remote(storage: str, prefix: str, clock: Clock, timeout: float) -> _Redis | None:
    scheme = storage.partition(":")[0]
    if scheme == "memory":
        return None
    if scheme not in ("redis", "rediss", "redis+unix"):
        raise ValueError(f"unknown storage for rate limits: {scheme}://, use memory:// or redis://")
    return _Redis(storage, prefix, clock, timeout)


class _Redis:
    """Moving windows in Redis, by the library."""

    def __init__(self, storage: str, prefix: str, clock: Clock, timeout: float) -> None:
        from limits.aio.storage import (
            RedisStorage,  # all late: most gateways, and all checks, need none of it
        )
        from limits.aio.strategies import MovingWindowRateLimiter

        self._clock = clock
        self._timeout = timeout
        self._prefix = f"{prefix}:moving-window"
        self._slow = False
        self._asked_again_at = 0.0
        self._pool = _redis_pool(storage.replace("redis+unix:", "unix:"), timeout)
        self._strategy = MovingWindowRateLimiter(
            RedisStorage(
                f"async+{storage}",
                wrap_exceptions=True,
                implementation="redispy",
                key_prefix=self._prefix,
                connection_pool=self._pool,  # type: ignore[arg-type]  # documented, but not in its annotations
            )
        )

    async def hit(self, rule: Rule, key: str) -> Verdict:
        async with self._in_time():
            item = _item(rule)
            if await self._strategy.hit(item, key):
                return _ALLOWED
            reset, _ = await self._strategy.get_window_stats(item, key)
            return _refused(reset - self._clock())

    async def forgive(self, rule: Rule, key: str) -> None:
        """The library keeps a list of times, the latest first."""
        from redis.asyncio import Redis

        async with self._in_time():
            await Redis(connection_pool=self._pool).lpop(f"{self._prefix}:{_item(rule).key_for(key)}")

    async def clear(self, rule: Rule, key: str) -> None:
        async with self._in_time():
            await self._strategy.clear(_item(rule), key)

    async def ping(self) -> bool:
        try:
            async with self._in_time(always=True):
                await self._strategy.test(_item(_PING))
        except Unavailable:
            return False
        return True

    async def close(self) -> None:
        await self._pool.aclose()

    @asynccontextmanager
    async def _in_time(self, *, always: bool = False) -> AsyncIterator[None]:
        """The one door to the storage: whatever is wrong with it is Unavailable, and soon."""
        from asyncio import timeout

        from limits.errors import StorageError
        from redis.exceptions import RedisError

        if not (self._may_ask() or always):
            raise Unavailable
        began = time.monotonic()
        try:
            async with timeout(self._timeout):
                yield
        except (StorageError, RedisError, TimeoutError, OSError) as error:
            if time.monotonic() - began >= self._timeout / 2:
                self._slow, self._asked_again_at = True, time.monotonic() + SLOW_PAUSE
            raise Unavailable from error
        self._slow = False

    def _may_ask(self) -> bool:
        """Always, unless it is slow; then one at a time, after a while."""
        now = time.monotonic()
        if self._slow and now < self._asked_again_at:
            return False
        self._asked_again_at = now + self._timeout
        return True


def _item(rule: Rule) -> RateLimitItem:
    from limits import RateLimitItemPerSecond

    return RateLimitItemPerSecond(rule.amount, rule.seconds, rule.name)


def _redis_pool(url: str, timeout: float) -> ConnectionPool:
    """Bounded, impatient, and with one retry at once for a pooled connection that had died."""
    try:
        from redis.asyncio import BlockingConnectionPool
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise ValueError("rate limits in Redis need `pip install auth-gateway[redis]`") from None
    return BlockingConnectionPool.from_url(
        url,
        max_connections=_REDIS_CONNECTIONS,
        timeout=timeout,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 1),
    )


class Memory:
    """Moving windows in this process. A hit costs the same however many keys there are.

    (The library's own memory storage walks every key on each hit: 0.9 ms at 10,000 keys.)
    """

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._windows: dict[tuple[str, int], _Window] = {}
        """By a rule's name and length. Counters of one length die in the order of use."""

    def __len__(self) -> int:
        """Counters that are kept, dead ones included."""
        return sum(len(window) for window in self._windows.values())

    def hit(self, rule: Rule, key: Key, now: float) -> Verdict:
        kind = (rule.name, rule.seconds)
        window = self._windows.get(kind)
        if window is None:
            window = self._windows[kind] = _Window(rule.seconds, self._max_entries)
        wait = window.hit(key, rule.amount, now)
        return _ALLOWED if wait is None else _refused(wait)

    def forgive(self, rule: Rule, key: Key) -> None:
        window = self._windows.get((rule.name, rule.seconds))
        if window is not None:
            window.forgive(key)

    def clear(self, rule: Rule, key: Key) -> None:
        window = self._windows.get((rule.name, rule.seconds))
        if window is not None:
            window.forget(key)


class _Window:
    """All counters of one rule."""

    def __init__(self, seconds: int, max_entries: int) -> None:
        self._seconds = seconds
        self._fresh = _Counters(max_entries // 4)
        self._guarded = _Counters(max_entries - max_entries // 4)
        """Counters at half of their limit or above. No number of fresh ones pushes these out."""

    def __len__(self) -> int:
        return len(self._fresh) + len(self._guarded)

    def hit(self, key: Key, limit: int, now: float) -> float | None:
        """None if it counts; else the seconds until one will."""
        alive_since = now - self._seconds
        home = self._guarded if key in self._guarded else self._fresh
        counter = home.get(key)
        if counter is None:
            counter = self._open(key, alive_since)
        elif counter.times[0] < alive_since:
            home.entries -= counter.drop(alive_since)
        if counter.total >= limit:
            return counter.times[0] - alive_since
        home.entries += counter.add(now, self._seconds / _STEPS if limit > _STEPS else 0)
        rightful = self._guarded if 2 * counter.total >= limit else self._fresh
        if rightful is not home:
            home.take(key)
            rightful.put(key, counter)
        rightful.move_to_end(key)
        rightful.shrink()
        return None

    def _open(self, key: Key, alive_since: float) -> _Counter:
        """A new counter; and dead ones leave, so that none are kept for nothing."""
        self._fresh.bury(alive_since)
        self._guarded.bury(alive_since)
        counter = self._fresh[key] = _Counter()
        return counter

    def forgive(self, key: Key) -> None:
        for home in (self._fresh, self._guarded):
            counter = home.get(key)
            if counter is not None and counter.total > 1:
                home.entries -= counter.take_back()
            elif counter is not None:
                home.take(key)

    def forget(self, key: Key) -> None:
        self._fresh.take(key)
        self._guarded.take(key)


class _Counter:
    """The hits of one key, the oldest first."""

    __slots__ = ("hits", "times", "total")

    def __init__(self) -> None:
        self.times = array("d")
        """When the last hit of each entry came."""
        self.hits = array("L")
        """How many each entry stands for."""
        self.total = 0

    def add(self, now: float, step: float) -> int:
        """One more hit: in an entry of its own, or in that of its step. The number of new entries."""
        self.total += 1
        if step and self.times and self.times[-1] // step == now // step:
            self.times[-1] = now
            self.hits[-1] += 1
            return 0
        self.times.append(now)
        self.hits.append(1)
        return 1

    def take_back(self) -> int:
        """Forget the latest hit, and say how many entries that were. Another one must be left."""
        self.total -= 1
        self.hits[-1] -= 1
        if self.hits[-1]:
            return 0
        del self.times[-1], self.hits[-1]
        return 1

    def drop(self, alive_since: float) -> int:
        """Forget the dead entries, and say how many they were. A hit as old as the window still counts."""
        dead = bisect_left(self.times, alive_since)
        self.total -= sum(self.hits[:dead])
        del self.times[:dead], self.hits[:dead]
        return dead


class _Counters(OrderedDict[Key, _Counter]):
    """Counters in the order of their last hit, bounded in entries."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.entries = 0
        self._capacity = capacity

    def put(self, key: Key, counter: _Counter) -> None:
        self[key] = counter
        self.entries += len(counter.times)

    def shrink(self) -> None:
        """Drop the least recent ones until the rest fits. One counter may be as large as it must."""
        while self.entries > self._capacity and len(self) > 1:
            self._drop_oldest()

    def take(self, key: Key) -> None:
        counter = self.pop(key, None)
        if counter is not None:
            self.entries -= len(counter.times)

    def bury(self, alive_since: float) -> None:
        """Drop dead counters: a few at a time, and more than come."""
        for _ in range(_BURIALS):
            oldest = next(iter(self.values()), None)
            if oldest is None or oldest.times[-1] >= alive_since:
                return
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, counter = self.popitem(last=False)
        self.entries -= len(counter.times)


def _refused(wait: float) -> Verdict:
    """A hit as old as the window still counts, so the second after is the first that helps."""
    return Verdict(allowed=False, retry_after=max(1, floor(wait) + 1))


_ALLOWED: Final = Verdict(allowed=True, retry_after=0)
_PING: Final = Rule(1, 1, "ping")
