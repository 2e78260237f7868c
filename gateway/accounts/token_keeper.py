"""What is done for API tokens beside the requests: when they were used, and what may have been missed.

Requests only note in memory that a token was used. Once a minute that is written down,
many at a time, and never twice in a minute; if the database is away it waits.

Cut-offs are kept for as long as access tokens live. A process that could not read the
feed for longer may have missed one, and known tokens have no end that would save it: so
it forgets them, and each is read again when it is used.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.accounts.api_tokens import NOTED_EVERY_S, ApiTokens
from gateway.errors import GatewayError
from gateway.identity.known_tokens import KnownTokens

LOOK_EVERY_S: Final = 1.0
MISSED_AFTER_S: Final = 60.0
"""No cut-off is kept for less (see `ledger`)."""
PRUNE_EVERY_S: Final = 3600.0

_log = logging.getLogger(__name__)


class TokenKeeper:
    """`hears` tells whether cut-offs arrive; `clock` is in Unix seconds."""

    def __init__(
        self,
        tokens: ApiTokens,
        known: KnownTokens,
        *,
        hears: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tokens = tokens
        self._known = known
        self._hears = hears
        self._clock = clock
        self._heard_at = self._noted_at = self._pruned_at = clock()

    async def run(self, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Until cancelled."""
        while True:
            await sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """One round. Never raises."""
        now = self._clock()
        self._check_hearing(now)
        try:
            if now - self._noted_at >= NOTED_EVERY_S:
                self._noted_at = now
                await self.note_used()
            if now - self._pruned_at >= PRUNE_EVERY_S:
                self._pruned_at = now
                await self._tokens.prune()
        except GatewayError:
            return  # the database is away, and has said so itself
        except Exception:
            _log.exception("API tokens could not be looked after")

    async def note_used(self) -> None:
        """Write down what was used since the last time. Raises Unavailable, GatewayTimeout."""
        used = self._known.take_used()
        try:
            await self._tokens.note_used(used)
        except BaseException:
            self._known.put_back_used(used)
            raise

    def _check_hearing(self, now: float) -> None:
        if not self._hears():
            return
        if now - self._heard_at > MISSED_AFTER_S:
            self._known.forget_all()
        self._heard_at = now
