"""How often a password or a refresh token may be tried, asked before any costly work.

**Login** is counted twice: by network, and by (account, network). The network
comes first, so nobody can fill the counters' memory with invented names. The
account's counter has the network in its key, so a stranger elsewhere cannot
lock a victim out; and it is kept under the e-mail's canonical form, so every
spelling of one address is one counter.

A successful login clears its account's counter: a person, or a script, that
knows the password is not guessing, and a sixth login within a minute is no
reason for a 429. It can't help a guesser, who would have to know the password
to clear the counter. The network's counter is never cleared: an attacker with
one account of his own could otherwise reset it between guesses.

**Changing a password** is counted by network, since it costs as much as a login,
and by session. Who stole an access token can try a handful of current passwords
a minute, from however many networks, and still cannot stop the owner, who logs
in again and has a session of their own.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from gateway.accounts.emails import fold
from gateway.errors import TooManyRequests, Unavailable
from gateway.http.client_address import Address
from gateway.identity.principal import Principal
from gateway.ratelimit import RateLimiter, Rule, network_of


@dataclass(frozen=True, slots=True)
class Limits:
    """The rules, as configured under `rate_limits`."""

    login_per_account: Rule
    """Tries of one account's password from one network."""
    login_per_address: Rule
    """Tries of any password from one network."""
    refresh_per_address: Rule
    """Refreshes from one network."""


class Attempts:
    """Counts tries; raises TooManyRequests with the seconds to wait."""

    def __init__(self, limiter: RateLimiter, limits: Limits) -> None:
        self._limiter = limiter
        self.limits = limits
        """May be replaced: the next try is counted by the new ones."""

    async def login(self, email: str, address: Address | None) -> None:
        """`email` as typed: every spelling of an address is one counter, and what is none counts the same."""
        await self._hit(self.limits.login_per_address, network_of(address))
        await self._hit(self.limits.login_per_account, fold(email), network_of(address))

    async def login_succeeded(self, email: str, address: Address | None) -> None:
        await self._clear(self.limits.login_per_account, fold(email), network_of(address))

    async def refresh(self, address: Address | None) -> None:
        await self._hit(self.limits.refresh_per_address, network_of(address))

    async def password(self, principal: Principal, address: Address | None) -> None:
        await self._hit(self.limits.login_per_address, network_of(address))
        await self._hit(self.limits.login_per_account, "session", principal.session)

    async def password_succeeded(self, principal: Principal) -> None:
        await self._clear(self.limits.login_per_account, "session", principal.session)

    async def _hit(self, rule: Rule, *key: str) -> None:
        verdict = await self._limiter.hit(rule, *key)
        if not verdict.allowed:
            raise TooManyRequests(retry_after=verdict.retry_after)

    async def _clear(self, rule: Rule, *key: str) -> None:
        with contextlib.suppress(Unavailable):  # what was asked for is done; a count too many does no harm
            await self._limiter.clear(rule, *key)
