"""How often a password or a refresh token may be tried, asked before any costly work.

**Login** is counted three times. By network first, so nobody can fill the counters' memory
with invented names. Then by (account, network): a stranger elsewhere can't lock a victim out.
And by account alone, over a day, against one who guesses from thousands of networks: but not
from networks where this account has logged in lately. So its owner gets in from there, whatever
anybody does elsewhere; only from a network that is new to the account he may have to wait while
somebody guesses. All are kept under the e-mail's folded form, so every spelling of one address
is one counter, and names that no account has are counted, and looked up, like the others.

A successful login clears the counter of its account and network, and is taken back from that
of the day: a person, or a script, that knows the password is not guessing, and a sixth login
within a minute is no reason for a 429. It can't help a guesser, who would have to know the
password. The network's counter is never cleared: an attacker with one account of his own could
otherwise reset it between guesses. Nor is the rest of the day's, or the owner's daily login
would bring the guesser a hundred guesses more.

**Changing a password** is counted by network, since it costs as much as a login,
and by session. Who stole an access token can try a handful of current passwords
a minute, from however many networks, and still cannot stop the owner, who logs
in again and has a session of their own.

A limit that was reached is an audit event, once for each counter in the limit's window: who
knocks on fills neither the log nor the table.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

from gateway.accounts.emails import canonical_or_empty, fold
from gateway.accounts.values import NOBODYS, Standing
from gateway.errors import TooManyRequests, Unavailable
from gateway.http.client_address import Address
from gateway.identity.principal import Principal
from gateway.ratelimit import RateLimiter, Rule, network_of
from gateway.telemetry.audit import Event, LoginLimited, PasswordLimited, RefreshLimited

StandingOf = Callable[[str, str], Awaitable[Standing]]
"""(e-mail in any spelling, network) -> what is known of the account."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The rules, as configured under `rate_limits`."""

    login_per_account: Rule
    """Tries of one account's password from one network."""
    login_per_account_daily: Rule
    """Tries of one account's password from all networks that are new to it."""
    login_per_address: Rule
    """Tries of any password from one network."""
    refresh_per_address: Rule
    """Refreshes from one network."""


@dataclass(frozen=True, slots=True)
class Try:
    """A login that was counted."""

    name: tuple[str, str]
    """The account, in its counters' names: its address, and how often they were cleared."""
    network: str
    """Where from."""
    daily: bool
    """It counts in the limit of the day."""


class Attempts:
    """Counts tries; raises TooManyRequests with the seconds to wait, and tells the audit trail."""

    def __init__(
        self,
        limiter: RateLimiter,
        limits: Limits,
        *,
        standing: StandingOf,
        audit: Callable[[Event], None],
    ) -> None:
        self._limiter = limiter
        self._standing = standing
        self._audit = audit
        self.limits = limits
        """May be replaced: the next try is counted by the new ones."""

    async def login(self, email: str, address: Address | None) -> Try:
        """`email` as typed: every spelling of an address is one counter, and what is none counts the same."""
        limits, network = self.limits, network_of(address)
        await self._hit(limits.login_per_address, _limited_login(email, NOBODYS, address), network)
        standing = await self._standing(email, network)
        tell = _limited_login(email, standing, address)
        name = fold(email), str(standing.epoch)
        await self._hit(limits.login_per_account, tell, *name, network)
        if not standing.known:
            await self._hit(limits.login_per_account_daily, tell, *name)
        return Try(name, network, daily=not standing.known)

    async def login_succeeded(self, done: Try) -> None:
        with contextlib.suppress(Unavailable):  # what was asked for is done; a count too many does no harm
            await self._limiter.clear(self.limits.login_per_account, *done.name, done.network)
            if done.daily:
                await self._limiter.forgive(self.limits.login_per_account_daily, *done.name)

    async def refresh(self, address: Address | None) -> None:
        tell = partial(RefreshLimited, address=_shown(address))
        await self._hit(self.limits.refresh_per_address, tell, network_of(address))

    async def password(self, principal: Principal, address: Address | None) -> None:
        tell = partial(PasswordLimited, user=principal.id, session=principal.session, address=_shown(address))
        await self._hit(self.limits.login_per_address, tell, network_of(address))
        await self._hit(self.limits.login_per_account, tell, "session", principal.session)

    async def password_succeeded(self, principal: Principal) -> None:
        with contextlib.suppress(Unavailable):
            await self._limiter.clear(self.limits.login_per_account, "session", principal.session)

    async def _hit(self, rule: Rule, tell: Callable[..., Event], *key: str) -> None:
        verdict = await self._limiter.hit(rule, *key)
        if verdict.allowed:
            return
        told = replace(rule, amount=1, name=f"{rule.name}-told", open=True)
        if (await self._limiter.hit(told, *key)).allowed:
            self._audit(tell(limit=_NAMES[rule.name]))
        raise TooManyRequests(retry_after=verdict.retry_after)


LOGIN_PER_ACCOUNT, LOGIN_DAILY = "login-account", "login-daily"
LOGIN_PER_ADDRESS, REFRESH_PER_ADDRESS = "login-address", "refresh-address"
_NAMES = {
    LOGIN_PER_ACCOUNT: "per_account",
    LOGIN_DAILY: "per_account_daily",
    LOGIN_PER_ADDRESS: "per_address",
    REFRESH_PER_ADDRESS: "per_address",
}
"""Of a rule, and of its setting."""


def _limited_login(email: str, standing: Standing, address: Address | None) -> Callable[..., Event]:
    """People type passwords into the wrong field: what is no address is not told."""
    return partial(
        LoginLimited, email=canonical_or_empty(email), user=standing.user_id, address=_shown(address)
    )


def _shown(address: Address | None) -> str:
    return str(address or "unix")
