"""The `tests:` of a gateway.yaml, run against its own compiled rules: no server, no database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gateway.identity.principal import Principal
from gateway.policy.decide import Decision, decide

if TYPE_CHECKING:
    from gateway.config.schema import Config, Person, Test
    from gateway.config.source import Place, Places
    from gateway.policy.model import Policy

FAR_FUTURE = 2**40
"""The callers of these tests are logged in for ever."""


@dataclass(frozen=True, slots=True)
class Proof:
    """One test of the file, and how it came out."""

    place: Place
    """Where it stands."""
    number: int
    """Its place in the list, from 0."""
    request: str
    """`GET /admin/users as user`."""
    failures: tuple[str, ...]
    """What is not as expected, a sentence each; empty if it holds."""


def prove(config: Config, policy: Policy, places: Places) -> list[Proof]:
    """Run every test of the configuration."""
    return [
        Proof(places.of("tests", number), number, _story(test), _failures(test, policy))
        for number, test in enumerate(config.tests)
    ]


def _decision(test: Test, policy: Policy) -> Decision:
    return decide(
        policy,
        method=test.request.method,
        host=(test.host or "").encode(),
        path=test.request.target.partition("?")[0].encode(),
        principal=_principal(test),
        address=test.from_,
    )


def _principal(test: Test) -> Principal | None:
    if test.as_ == "anonymous":
        return None
    if isinstance(test.as_, str):
        return _caller(f"{test.as_}@example.com", test.as_ == "admin", ())
    return _caller(test.as_.user, test.as_.admin, tuple(sorted(test.as_.roles)))


def _caller(email: str, is_admin: bool, roles: tuple[str, ...]) -> Principal:
    return Principal("test", email, is_admin, roles, session="test", version=1, expires_at=FAR_FUTURE)


def _failures(test: Test, policy: Policy) -> tuple[str, ...]:
    failures = []
    decision = _decision(test, policy)
    rule, upstream = _rule(decision, policy), decision.route.upstream
    if (got := _outcome(decision)) != test.expect:
        failures.append(f"expected {test.expect}, got {got} ({decision.reason.value}, {rule})")
    if test.route is not None and test.route != _route(decision, policy):
        failures.append(f"expected the route {test.route}, got {rule}")
    if test.upstream is not None and test.upstream != upstream:
        failures.append(f"expected the upstream {test.upstream}, got {upstream or 'none'}")
    return tuple(failures)


def _outcome(decision: Decision) -> int | Literal["allow"]:
    return "allow" if decision.error is None else decision.error.status


def _route(decision: Decision, policy: Policy) -> str:
    return "default" if decision.route is policy.default else decision.route.pattern.text


def _rule(decision: Decision, policy: Policy) -> str:
    """The rule as a person finds it: its label and its line."""
    if decision.route is policy.default:
        return "default"
    return f"{decision.route.label} on line {decision.route.line}"


def _story(test: Test) -> str:
    caller = test.as_ if isinstance(test.as_, str) else _person(test.as_)
    address = f" from {test.from_}" if test.from_ else ""
    host = f" at {test.host}" if test.host else ""
    return f"{test.request.method} {test.request.target}{host} as {caller}{address}"


def _person(person: Person) -> str:
    kind = f"{person.user} (admin)" if person.admin else person.user
    return f"{kind} with {', '.join(person.roles)}" if person.roles else kind
