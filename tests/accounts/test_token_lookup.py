"""Unknown API tokens are looked up once, few at a time, and never on a guess."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.accounts import token_lookup as room
from gateway.accounts.token_lookup import AT_ONCE, WAITING, TokenLookup
from gateway.errors import GatewayTimeout, InvalidToken, Overloaded, Unavailable
from gateway.identity.known_tokens import KnownTokens
from gateway.identity.principal import Principal
from gateway.identity.revocation import Cutoffs
from tests.support.serving import until

pytestmark = pytest.mark.anyio

ANN = Principal("u", "ann@example.com", False, (), "t", 1, 253_402_300_799, (), None, "t")


class Slow:
    """A database that answers when it is let."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.at_once = self.most_at_once = 0
        self.let_go = asyncio.Event()
        self.failure: Exception | None = None

    async def read(self, digest: bytes) -> Principal | None:
        self.asked.append(digest)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.let_go.wait()
        finally:
            self.at_once -= 1
        if self.failure is not None:
            raise self.failure
        return ANN if digest == b"ann" else None


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def known() -> KnownTokens:
    return KnownTokens(Cutoffs())


@pytest.fixture
async def lookup(slow: Slow, known: KnownTokens, anyio_backend: str) -> AsyncIterator[TokenLookup]:
    lookup = TokenLookup(slow.read, known)
    yield lookup
    await lookup.close()
    assert lookup._flights == {}


async def test_a_hundred_who_ask_at_once_are_one_reading(
    lookup: TokenLookup, slow: Slow, known: KnownTokens
) -> None:
    asking = [asyncio.create_task(lookup.learn(b"ann")) for _ in range(100)]
    await until(lambda: slow.asked)
    slow.let_go.set()
    await asyncio.gather(*asking)
    assert slow.asked == [b"ann"]
    assert known.find(b"ann") == ANN


async def test_who_leaves_takes_nobodys_answer_away(
    lookup: TokenLookup, slow: Slow, known: KnownTokens
) -> None:
    first, second = (asyncio.create_task(lookup.learn(b"ann")) for _ in range(2))
    await until(lambda: slow.asked)
    first.cancel()
    slow.let_go.set()
    await second
    assert slow.asked == [b"ann"]
    assert known.find(b"ann") == ANN


async def test_a_storm_of_made_up_ones_waits_in_a_short_line(
    lookup: TokenLookup, slow: Slow, known: KnownTokens
) -> None:
    storm = [asyncio.create_task(lookup.learn(b"%d" % number)) for number in range(2000)]
    await until(lambda: sum(each.done() for each in storm) == 2000 - AT_ONCE - WAITING)
    assert slow.most_at_once == AT_ONCE
    refused = [each.exception() for each in storm if each.done()]
    assert all(isinstance(error, Overloaded) and error.retry_after == 1 for error in refused)
    slow.let_go.set()
    await asyncio.gather(*storm, return_exceptions=True)
    assert (len(slow.asked), slow.most_at_once) == (AT_ONCE + WAITING, AT_ONCE)
    with pytest.raises(InvalidToken):
        known.find(b"0")
    await lookup.learn(b"ann")
    assert known.find(b"ann") == ANN


@pytest.mark.parametrize("failure", [Unavailable(retry_after=1), GatewayTimeout(), Overloaded()])
async def test_when_the_database_fails_nobody_is_let_in_or_turned_away_for_good(
    lookup: TokenLookup, slow: Slow, known: KnownTokens, failure: Exception
) -> None:
    slow.let_go.set()
    slow.failure = failure
    for _ in range(2):
        with pytest.raises(Unavailable):
            await lookup.learn(b"ann")
    assert known.find(b"ann") is None
    slow.failure = None
    await lookup.learn(b"ann")
    assert known.find(b"ann") == ANN
    assert len(slow.asked) == 3


async def test_a_database_that_hangs_is_given_up(
    lookup: TokenLookup, slow: Slow, known: KnownTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "PATIENCE_S", 0.01)
    asking = [asyncio.create_task(lookup.learn(b"%d" % number)) for number in range(AT_ONCE + 3)]
    failed = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(error, Unavailable) for error in failed)
    assert len(slow.asked) == AT_ONCE, "who only waited never asked"
    assert known.find(b"0") is None
