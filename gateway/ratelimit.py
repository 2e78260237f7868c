"""How often somebody may try: counting hits per key, over the `limits` library.

Theory of operation
-------------------
A limit of 5 per minute means that no stretch of sixty seconds, wherever it begins,
holds more than five allowed hits. Only a *moving window*, which remembers the
time of each hit, keeps that promise. Fixed windows let ten through in a second
around the turn of the minute; a sliding counter lets five through at the end of
one window and nearly five more, evenly, in the next. Remembering costs 8 bytes a hit,
and limits worth having here are small. Refused hits are not remembered, so
whoever keeps knocking gets in again when the oldest allowed hit has aged.

**Keys are hashed** before they reach a storage: a Redis that others can read then
holds no e-mail address and no IP address. With `secret` nobody can test guesses either.

**memory://** counts in this process, bounded in hits. When it is full, room is made
by the counters that say least: first those that used less than half of
their limit, least recently hit first. An attacker who wants a counter forgotten, on
the account being guessed or on the own address, has to fill the whole memory with
counters that are half used up, and the hits for that are themselves limited: with
5 a minute per account and address, 3 hits for each of some 25,000 pairs within
that minute. Counters of dead windows leave with the hits that follow.

**redis://** counts for all replicas in one atomic script. When Redis is away or
slow, `hit` raises Unavailable within `timeout`: closed, since a limit that opens when
its storage is attacked protects nothing. When Redis is back, so is this.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from math import floor
from typing import TYPE_CHECKING

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import MovingWindowSupport, RedisStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError

from gateway.errors import Unavailable

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool

MAX_HITS = 100_000
"""Hits remembered by memory:// for each length of window; if each has a key of its own, some 60 MB."""

STORAGE_TIMEOUT = 1.0
"""Seconds that a hit may wait for Redis before it is refused with 503."""

_REDIS_CONNECTIONS = 32
_PING = RateLimitItemPerSecond(1, 1, "ping")
_BURIALS_PER_HIT = 2
"""Dead counters dropped per new hit: more than one, so that they run out."""


@dataclass(frozen=True, slots=True)
class Rule:
    """At most `amount` hits in any `seconds`."""

    amount: int
    """Allowed hits."""
    seconds: int
    """Length of the window."""
    name: str
    """What is limited ("login-address"): rules of different names count apart."""


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
        clock: Callable[[], float] = time.time,
        timeout: float = STORAGE_TIMEOUT,
        max_hits: int = MAX_HITS,
    ) -> None:
        self._clock = clock
        self._secret = hashlib.sha256(secret).digest()
        self._timeout = timeout
        self._pool: ConnectionPool | None = None
        self._storage: Storage = self._open(storage, prefix, max_hits)
        self._strategy = MovingWindowRateLimiter(self._storage)

    async def hit(self, rule: Rule, *key: str) -> Verdict:
        """Count one hit of `key`. Raises Unavailable if the storage is away.

        Where several rules guard one act, hit the widest first (the address before
        the account): what it refuses then leaves no counters behind.
        """
        async with self._in_time():
            return await self._verdict(_item(rule), self._hidden(key))

    async def clear(self, rule: Rule, *key: str) -> None:
        """Forget the hits of `key`, say after a login that succeeded. Raises Unavailable like `hit`."""
        async with self._in_time():
            await self._strategy.clear(_item(rule), self._hidden(key))

    async def ping(self) -> bool:
        """Is the storage there?"""
        try:
            async with self._in_time():
                await self._strategy.test(_PING)
        except Unavailable:
            return False
        return True

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """The one door to the storage: whatever is wrong with it is Unavailable, and soon."""
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except (StorageError, TimeoutError, OSError) as error:
            raise Unavailable from error

    async def _verdict(self, item: RateLimitItem, key: str) -> Verdict:
        if await self._strategy.hit(item, key):
            return Verdict(allowed=True, retry_after=0)
        reset, _ = await self._strategy.get_window_stats(item, key)
        # A hit as old as the window still counts, so the second after is the first that helps.
        return Verdict(allowed=False, retry_after=max(1, floor(reset - self._clock()) + 1))

    def _hidden(self, key: tuple[str, ...]) -> str:
        text = json.dumps(key).encode()  # unambiguous, and ASCII whatever is in it
        return hashlib.blake2b(text, key=self._secret, digest_size=16).hexdigest()

    def _open(self, storage: str, prefix: str, max_hits: int) -> Storage:
        scheme = storage.partition(":")[0]
        if scheme == "memory":
            return MemoryStorage(clock=self._clock, max_hits=max_hits)
        if scheme not in ("redis", "rediss", "redis+unix"):
            raise ValueError(f"unknown storage for rate limits: {scheme}://, use memory:// or redis://")
        self._pool = _redis_pool(storage.replace("redis+unix:", "unix:"), self._timeout)
        return RedisStorage(
            f"async+{storage}",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix=f"{prefix}:moving-window",
            connection_pool=self._pool,  # type: ignore[arg-type]  # documented, but not in its annotations
        )


def _item(rule: Rule) -> RateLimitItem:
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
    return str(IPv6Network((int(address) >> 64 << 64, 64)))


class MemoryStorage(Storage, MovingWindowSupport):
    """Moving windows in this process, bounded; a hit costs the same however many keys there are.

    (The library's own memory storage walks every key on each hit: 0.9 ms at 10,000 keys.)
    """

    STORAGE_SCHEME = None

    def __init__(self, *, clock: Callable[[], float] = time.time, max_hits: int = MAX_HITS) -> None:
        super().__init__()
        self._clock = clock
        self._max_hits = max_hits
        self._windows: dict[int, _Window] = {}
        """One per length; any configuration has a handful. Counters of one length die in the order of use."""

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        return ()

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        window = self._windows.get(expiry)
        if window is None:
            window = self._windows[expiry] = _Window(expiry, self._max_hits)
        return window.acquire(key, limit, amount, self._clock())

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """(time of the oldest hit that counts, how many count)."""
        now = self._clock()
        window = self._windows.get(expiry)
        counting = window.counting(key, now) if window else None
        return (counting[0], len(counting)) if counting else (now, 0)

    async def check(self) -> bool:
        return True

    async def reset(self) -> int:
        count = sum(len(window) for window in self._windows.values())
        self._windows.clear()
        return count

    async def clear(self, key: str) -> None:
        for window in self._windows.values():
            window.take(key)

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        raise NotImplementedError(_NOT_FIXED)

    async def get(self, key: str) -> int:
        raise NotImplementedError(_NOT_FIXED)

    async def get_expiry(self, key: str) -> float:
        raise NotImplementedError(_NOT_FIXED)


_NOT_FIXED = "fixed windows let twice the limit through; this storage keeps moving ones only"


class _Window:
    """All counters of one length of window."""

    def __init__(self, seconds: int, max_hits: int) -> None:
        self._seconds = seconds
        self._fresh = _Counters(max_hits // 4)
        self._guarded = _Counters(max_hits - max_hits // 4)
        """Counters at half of their limit or above. No number of fresh ones pushes these out."""

    def __len__(self) -> int:
        return len(self._fresh) + len(self._guarded)

    def acquire(self, key: str, limit: int, amount: int, now: float) -> bool:
        alive_since = now - self._seconds
        hits = self._find(key)
        nth_newest = limit - amount + 1
        if nth_newest < 1 or (len(hits) >= nth_newest and hits[-nth_newest] >= alive_since):
            return False
        self.take(key)
        del hits[: bisect_left(hits, alive_since)]
        hits.extend([now] * amount)
        (self._guarded if 2 * len(hits) >= limit else self._fresh).put(key, hits)
        self._fresh.bury(alive_since)
        self._guarded.bury(alive_since)
        return True

    def counting(self, key: str, now: float) -> array[float]:
        hits = self._find(key)
        return hits[bisect_left(hits, now - self._seconds) :]

    def take(self, key: str) -> None:
        self._fresh.take(key)
        self._guarded.take(key)

    def _find(self, key: str) -> array[float]:
        return self._guarded.get(key) or self._fresh.get(key) or array("d")


class _Counters(OrderedDict[str, "array[float]"]):
    """Counters in the order of their last hit, bounded in hits."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity
        self._hits = 0

    def put(self, key: str, hits: array[float]) -> None:
        self[key] = hits
        self._hits += len(hits)
        while self._hits > self._capacity and len(self) > 1:  # one counter may be as large as its limit
            self._drop_oldest()

    def take(self, key: str) -> None:
        self._hits -= len(self.pop(key, ()))

    def bury(self, alive_since: float) -> None:
        """Drop dead counters: a few at a time, and more than come."""
        for _ in range(_BURIALS_PER_HIT):
            oldest = next(iter(self.values()), None)
            if oldest is None or oldest[-1] >= alive_since:
                return
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, hits = self.popitem(last=False)
        self._hits -= len(hits)
