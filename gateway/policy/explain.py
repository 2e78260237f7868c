"""Why one request gets its answer: every reading of its path with its rule, and the rules that came close.

`decide` says what happens; here is the way there, for people. It asks the same matchers
for the same readings, and a test holds that it finds the same rules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

from gateway.identity.principal import Principal
from gateway.policy.decide import decide, only_reports
from gateway.policy.match import Matcher, normal_host
from gateway.policy.model import Address, Decision, Policy, Reason, Route, Verdict
from gateway.policy.pattern import Pattern
from gateway.policy.readings import Reading, fold, read, strip

MOST_NEAR = 5
"""Of the routes that came close; more help nobody."""
_ALIKE = 0.75
"""Of two segments, by difflib: a slip of the pen, and not another word."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One rule that the request must satisfy, and the reading of the path that asks for it."""

    reading: Reading
    """Which."""
    literal: bool
    """The path as it stands, which chooses the backend."""
    caseless: bool
    """Found with other capitals."""
    behind: str
    """The backend that sees only this behind a stripped prefix; empty for the whole path."""
    route: Route
    """The rule."""
    refusal: Reason | None
    """Why the caller does not satisfy it, or None."""
    enforced: bool
    """It refuses, and does not only report."""

    @property
    def path(self) -> str:
        """The reading as a path; `%2F` is a slash inside a segment."""
        return self.reading.replace(b"\0", b"%2F").decode("utf-8", "surrogateescape") or "/"


@dataclass(frozen=True, slots=True)
class Near:
    """A route that did not decide, though one might have thought so."""

    route: Route
    """Which."""
    why: str
    """Why not: `takes DELETE, not GET`."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything about one request."""

    decision: Decision
    """What `decide` says."""
    asked: tuple[Asked, ...]
    """The rules of all readings, the literal one first; none if nobody may send such a path."""
    near: tuple[Near, ...]
    """The routes that came close, the closest first."""


def explain(
    policy: Policy,
    *,
    method: str,
    host: bytes,
    path: bytes,
    principal: Principal | None,
    address: Address | None,
    now: float,
) -> Explanation:
    """Judge one request as `decide` does, and say why. The arguments are those of `decide`."""
    decision = decide(
        policy, method=method, host=host, path=path, principal=principal, address=address, now=now
    )
    if decision.verdict is Verdict.REFUSED:
        return Explanation(decision, (), ())
    asked: dict[object, Asked] = {}
    for reading, behind, caseless, route in _rules(policy, method, host, path, decision.route):
        literal = not asked
        enforced = not (route is decision.route and only_reports(route))
        refusal = route.allow.refusal(principal, address, now)
        each = Asked(reading, literal, caseless, behind, route, refusal, enforced)
        asked.setdefault((reading, behind, route), each)
    literal_reading = next(iter(asked.values())).reading
    settled = {each.route for each in asked.values()}
    near = tuple(_near(policy, method, host, literal_reading, decision.route, settled))
    return Explanation(decision, tuple(asked.values()), near)


def _rules(
    policy: Policy, method: str, host: bytes, path: bytes, chosen: Route
) -> Iterator[tuple[Reading, str, bool, Route]]:
    """Readings, the backend that sees them so, whether other capitals were needed, and the rule."""
    for reading in read(path):
        for caseless, route in _routes(policy.matcher, method, host, reading):
            yield (fold(reading) if caseless else reading), "", caseless, route or policy.default
    if chosen.strip:
        for reading in read(strip(path, chosen.strip)):
            for caseless, route in _routes(policy.behind[chosen.upstream], method, host, reading):
                if route is not None:
                    yield (fold(reading) if caseless else reading), chosen.upstream, caseless, route


def _routes(
    matcher: Matcher[Route], method: str, host: bytes, reading: Reading
) -> Iterator[tuple[bool, Route | None]]:
    """The rule for this spelling, and the others for any, where they differ."""
    spelled = matcher.find(method, host, reading)
    yield False, spelled
    folded = fold(reading)
    if matcher.cased or folded != reading:
        others = matcher.find_folded(method, host, folded) - {spelled}
        yield from ((True, route) for route in sorted(others, key=_file_order))


def _file_order(route: Route | None) -> int:
    return -1 if route is None else route.index


def _near(
    policy: Policy, method: str, host: bytes, reading: Reading, chosen: Route, settled: Collection[Route]
) -> list[Near]:
    parts = reading.split(b"/")[1:]
    name = normal_host(host).decode()
    found: list[tuple[int, Near]] = []
    for route in policy.routes:
        if route not in settled:
            reasons = list(_differences(route, method, name, parts))
            if not reasons:
                found.append((0, Near(route, f"is less specific than {chosen.label}")))
            elif len(reasons) == 1 and reasons[0]:
                found.append((1, Near(route, reasons[0])))
    found.sort(key=lambda each: (each[0], -len(each[1].route.pattern.segments)))
    return [near for _, near in found[:MOST_NEAR]]


def _differences(route: Route, method: str, host: str, parts: list[bytes]) -> Iterator[str]:
    """Why the route does not take the request; empty where that is too far off to tell."""
    if route.hosts and not any(_takes_host(each, host) for each in route.hosts):
        yield f"is for {', '.join(route.hosts)}, not {host or 'a request without a host'}"
    methods = route.methods
    if methods is not None and method not in methods and not (method == "HEAD" and "GET" in methods):
        yield f"takes {', '.join(sorted(methods))}, not {method}"
    if not _takes_path(route.pattern, parts):
        yield _path_difference(route.pattern, parts)


def _takes_host(name: str, host: str) -> bool:
    if name.startswith("*."):
        return host.endswith("." + normal_host(name[2:].encode()).decode())
    return normal_host(name.encode()).decode() == host


def _takes_path(pattern: Pattern, parts: list[bytes]) -> bool:
    segments = pattern.segments
    if len(parts) < len(segments) or (len(parts) > len(segments) and not pattern.below):
        return False
    return all(
        bool(part) if segment is None else part == segment
        for segment, part in zip(segments, parts, strict=False)
    )


def _path_difference(pattern: Pattern, parts: list[bytes]) -> str:
    """What one would have to change for the pattern to match; empty if that is more than one thing."""
    segments = pattern.segments
    wrong = [
        (segment or b"", part)
        for segment, part in zip(segments, parts, strict=False)
        if (not part if segment is None else part != segment)
    ]
    missing = len(segments) - len(parts)
    if not wrong and missing == 1 and parts:
        return f"has one segment more: {pattern}"
    if not wrong and missing < 0 and segments:
        return f"ends where the path goes on; {pattern}/** would take it"
    if len(wrong) != 1 or missing > 0 or (missing < 0 and not pattern.below):
        return ""
    (segment, part), *_ = wrong
    if not segment or not _similar(segment, part):
        return ""
    return f'has "{_text(segment)}" where the path has "{_text(part)}"'


def _similar(one: bytes, other: bytes) -> bool:
    if fold(one) == fold(other):
        return True
    if abs(len(one) - len(other)) > 4 or len(one) > 64:
        return False
    return SequenceMatcher(None, one, other).ratio() >= _ALIKE


def _text(segment: bytes) -> str:
    return segment.replace(b"\0", b"%2F").decode("utf-8", "surrogateescape")


def why(reason: str) -> str:
    """A code of the decision log in words; empty for one that the rules don't know."""
    return _WHY.get(reason, "")


_WHY: dict[str, str] = {
    Reason.PUBLIC: "the route is open to everyone",
    Reason.LOGGED_IN: "the route asks for a login, and the caller has one",
    Reason.ADMIN: "the caller is an admin",
    Reason.ROLES: "the caller has the roles that the route asks for",
    Reason.USERS: "the caller is on the route's list of users",
    Reason.SCOPES: "the caller's credential has the scopes that the route asks for",
    Reason.NETWORKS: "the route asks for a network only, and the client's address is in it",
    Reason.DEFAULT: "no route names the path, and the caller is what `default` asks for",
    Reason.REPORT_ONLY: "the route would refuse the caller, and only reports it",
    Reason.NO_CREDENTIAL: "the route asks for a login, and the caller has none",
    Reason.NOT_ADMIN: "the caller is no admin",
    Reason.MISSING_ROLE: "the caller lacks a role that the route asks for",
    Reason.NOT_LISTED_USER: "the caller is not on the route's list of users",
    Reason.MISSING_SCOPE: "the caller's credential lacks a scope that the route asks for",
    Reason.OUT_OF_REACH: "the API token is not good for this method or path, whoever its user is",
    Reason.NETWORK: "the client's address is in none of the route's networks",
    Reason.NOT_YET_VALID: "the time for which the route holds has not begun; nobody gets in",
    Reason.EXPIRED: "the time for which the route holds is over; nobody gets in",
    Reason.NOBODY: "the route is closed to everyone",
    Reason.OTHER_READING: "a backend may read the path as another one, and the caller is not allowed that",
    Reason.AUTH_PREFIX: "the path reads like the gateway's own endpoints without being one",
    Reason.BAD_TARGET: "the path is malformed or holds a control byte",
    Reason.DOT_SEGMENT: "some reading of the path has a segment of dots",
    Reason.AMBIGUOUS_PATH: "the path has more readings than anyone can check",
}
"""In the words of docs/reference/log.md; a test holds them together."""
