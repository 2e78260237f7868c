"""Runs the proofs that an owner writes beside the rules: `tests:` in `gateway.yaml`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gateway.identity.principal import Principal
from gateway.policy.decide import Decision, decide
from gateway.policy.model import Address, Policy, Route


@dataclass(frozen=True, slots=True)
class Test:
    """One request, and what must come of it."""

    __test__ = False
    """Nothing for pytest to collect."""
    place: str
    """Where it is written, `gateway.yaml:40:5`."""
    method: str
    """As on the request line."""
    target: str
    """Likewise: the raw path, with a query or without."""
    host: str
    """The Host header; empty for none."""
    principal: Principal | None
    """Who asks."""
    caller: str
    """The same, as the owner wrote it."""
    address: Address | None
    """The client's address; None if the test does not care."""
    at: float | None
    """When it is asked, in Unix seconds; None for now."""
    expect: int | Literal["allow"]
    """`allow`, or the status of the refusal."""
    route: str | None
    """The path or the label of the route that must be chosen, or None."""
    upstream: str | None
    """The backend that must be chosen, or None."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one test."""

    test: Test
    """Which."""
    decision: Decision
    """What the policy says."""

    @property
    def status(self) -> int | Literal["allow"]:
        """What the client would get, in the words of `expect`."""
        return "allow" if self.decision.error is None else self.decision.error.status

    @property
    def passed(self) -> bool:
        """Everything is as expected."""
        return self.complaint is None

    @property
    def complaint(self) -> str | None:
        """The sentence for the owner if something is not as expected."""
        test, route = self.test, self.decision.route
        if self.status != test.expect:
            wrong = f"expected {test.expect}, got {self.status}"
        elif test.route is not None and test.route not in _names(route):
            wrong = f"expected the route {test.route}, got {route.label}"
        elif test.upstream is not None and test.upstream != route.upstream:
            wrong = f"expected the upstream {test.upstream}, got {route.upstream}"
        else:
            return None
        asked = f"{test.method} {test.target} as {test.caller}"
        return f"{asked}: {wrong} ({self.decision.reason.value}, {route})"


def prove(policy: Policy, tests: Iterable[Test], now: float) -> list[Result]:
    """Ask the policy every question, in order. `now` (Unix seconds) is when, if a test doesn't say."""
    return [Result(test, _ask(policy, test, now)) for test in tests]


def untouched(policy: Policy, results: Iterable[Result]) -> list[Route]:
    """The routes that no test is decided by, in the order of the file."""
    touched = {result.decision.route for result in results}
    return [route for route in policy.routes if route not in touched]


def _ask(policy: Policy, test: Test, now: float) -> Decision:
    return decide(
        policy,
        method=test.method,
        host=test.host.encode(),
        path=test.target.partition("?")[0].encode(),
        principal=test.principal,
        address=test.address,
        now=now if test.at is None else test.at,
    )


def _names(route: Route) -> tuple[str, ...]:
    return (route.label,) if route.index < 0 else (route.label, route.pattern.text)
