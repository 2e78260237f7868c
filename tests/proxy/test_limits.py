"""Who is counted in which route's limit, and when."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from gateway.errors import TooManyRequests, Unavailable
from gateway.policy.decide import Decision, claims_of
from gateway.policy.model import Route
from gateway.proxy.limits import RouteLimits, by_address, by_user
from gateway.ratelimit import RateLimiter
from tests.policy.rules import person, policy

RULES = """
    routes:
      - {path: /a/**, allow: public, rate_limit: {per_address: 2/minute}}
      - {path: /a/b, allow: authenticated, rate_limit: {per_user: 2/minute}}
      - {path: /open, allow: public, rate_limit: {per_address: 2/minute, on_error: allow}}
      - {path: /a/b/c, allow: authenticated, rate_limit: {per_user: 1/minute, per_address: 3/minute}}
"""
ADDRESS = ip_address("2001:db8::1")


def limited(path: bytes) -> tuple[Route, ...]:
    claims = claims_of(policy(RULES), "GET", b"", path)
    assert not isinstance(claims, Decision)
    return claims.limited


def test_each_kind_is_counted_for_itself_and_by_route() -> None:
    both = limited(b"/a/b;/c")
    assert [route.label for route in both] == ["/a/**", "/a/b", "/a/b/c"]
    assert [(rule.amount, *who) for rule, *who in by_address(both, ADDRESS)] == [
        (2, "/a/**", "2001:db8::/64"),
        (3, "/a/b/c", "2001:db8::/64"),
    ]
    assert [(rule.amount, *who) for rule, *who in by_user(both, person())] == [
        (2, "/a/b", "7"),
        (1, "/a/b/c", "7"),
    ]
    assert by_user(both, None) == []


def test_the_first_limit_that_is_reached_says_how_long_to_wait() -> None:
    now = [1000.0]
    limits = RouteLimits(RateLimiter(clock=lambda: now[0]))
    hits = by_user(limited(b"/a/b;/c"), person())
    assert limits.count(hits)
    now[0] += 20
    with pytest.raises(TooManyRequests) as raised:
        limits.count(hits)
    assert raised.value.retry_after == 41


@pytest.mark.anyio
async def test_waiting_for_it_counts_the_same() -> None:
    limits = RouteLimits(RateLimiter())
    hits = by_address(limited(b"/a/x"), None)
    await limits.wait_for(hits)
    assert limits.count(hits)
    with pytest.raises(TooManyRequests):
        await limits.wait_for(hits)


def test_where_it_has_to_be_awaited_nothing_is_counted_at_once() -> None:
    limits = RouteLimits(RateLimiter("redis://127.0.0.1:1"))
    assert not limits.count(by_address(limited(b"/a/x"), None))
    assert limits.count([])


@pytest.mark.anyio
async def test_without_redis_each_route_does_what_it_says() -> None:
    limiter = RateLimiter("redis://127.0.0.1:1")
    limits = RouteLimits(limiter)
    with pytest.raises(Unavailable):
        await limits.wait_for(by_address(limited(b"/a/x"), None))
    for _ in range(2):
        await limits.wait_for(by_address(limited(b"/open"), None))
    with pytest.raises(TooManyRequests):
        await limits.wait_for(by_address(limited(b"/open"), None))
    assert limiter.failures == {("route-address", "refused"): 1, ("route-address", "counted"): 3}
    await limiter.close()
