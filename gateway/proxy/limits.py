"""How often the routes of a request may be asked.

Addresses are counted before anybody looks at the credential, so that guessing tokens
counts too. Callers are counted once it is known that they may pass: what is refused
anyway uses nothing up. A path that can be read in several ways counts in the limits of
every reading, so that no odd spelling is a way around one.

In memory all of this is answered at once. With Redis it has to be awaited, by the one
request that it is about.
"""

from __future__ import annotations

from gateway.errors import TooManyRequests
from gateway.identity.principal import Principal
from gateway.policy.model import Address, Route
from gateway.ratelimit import RateLimiter, Rule, Verdict, network_of

Hit = tuple[Rule, str, str]
"""What is counted: by which rule, of which route, of whom."""


class RouteLimits:
    """Counts, and raises TooManyRequests with the seconds to wait."""

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter

    def count(self, hits: list[Hit]) -> bool:
        """Stops at the first limit that is reached. False, and nothing is counted, where one has to wait."""
        for hit in hits:
            verdict = self._limiter.try_hit(*hit)
            if verdict is None:
                return False
            _check(verdict)
        return True

    async def wait_for(self, hits: list[Hit]) -> None:
        """`count`, wherever the counters are. Raises Unavailable if they can't be reached."""
        for hit in hits:
            _check(await self._limiter.hit(*hit))


def by_address(limited: tuple[Route, ...], address: Address | None) -> list[Hit]:
    """What a request from `address` counts for, whoever sends it."""
    hits: list[Hit] = []
    for route in limited:
        rule = route.rate_limit.per_address if route.rate_limit is not None else None
        if rule is not None:
            hits.append((rule, route.label, network_of(address)))
    return hits


def by_user(limited: tuple[Route, ...], principal: Principal | None) -> list[Hit]:
    """What the caller's request counts for; nothing for those without a login."""
    hits: list[Hit] = []
    for route in limited:
        rule = route.rate_limit.per_user if route.rate_limit is not None else None
        if rule is not None and principal is not None:
            hits.append((rule, route.label, principal.id))
    return hits


def _check(verdict: Verdict) -> None:
    if not verdict.allowed:
        raise TooManyRequests("Too many requests. Wait, then try again.", retry_after=verdict.retry_after)
