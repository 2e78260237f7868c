"""Rules with one slip each, as an owner makes them. Tests that a wrong rule passes too prove nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gateway.policy.model import Allow, Policy, Route

OPEN, CLOSED = Allow(everybody_without_login=True), Allow()
DEFAULTS = {"authenticated": Allow(logged_in=True), "admin": Allow(admin=True), "nobody": CLOSED}


def slips(policy: Policy) -> Iterator[tuple[str, Policy]]:
    """What slipped, and the rules as they are then."""
    for route in policy.routes:
        for slip, wrong in _of(route):
            others = tuple(each for each in policy.routes if each is not route)
            routes = others if wrong is None else (*others, wrong)
            yield f"{route.label}: {slip}", Policy.build(routes, policy.default, policy.auth_prefix.decode())
    for word, allow in DEFAULTS.items():
        if allow != policy.default.allow:
            default = replace(policy.default, allow=allow, upstream=policy.routes[0].upstream)
            yield f"default: {word}", Policy.build(policy.routes, default, policy.auth_prefix.decode())


def _of(route: Route) -> Iterator[tuple[str, Route | None]]:
    """A rule that only reports shows nobody whom it lets in, so only its absence does."""
    yield "forgotten", None
    if route.report_only:
        yield "enforced", replace(route, report_only=False)
        return
    if route.allow != OPEN:
        yield "opened", replace(route, allow=OPEN)
    if not route.allow.closed:
        yield "closed", replace(route, allow=CLOSED)
    if route.allow.valid is not None and not route.allow.closed:
        yield "for ever", replace(route, allow=replace(route.allow, valid=None))
    if route.methods is not None:
        yield "every method", replace(route, methods=None)
