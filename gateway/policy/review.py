"""What is wrong, or worth a look, between rules that are each fine by themselves.

The questions are put to the policy itself wherever possible: a sample path of a pattern
is matched, and the answer is compared with what the owner may have had in mind.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from gateway.errors import BadRequest
from gateway.policy.audience import who_passes
from gateway.policy.match import ANY_METHOD
from gateway.policy.model import Policy, Route
from gateway.policy.pattern import Pattern
from gateway.policy.readings import fold, read

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""Those that every backend may know, and so those that may fall through unnoticed."""
_SAMPLE = b"="
"""A segment for `{name}` and `**` that no pattern is likely to name and no auth prefix can hold."""

_SAFE = "/=!$&'()*+,:@|~"
"""What a path may hold without escapes."""


@dataclass(frozen=True, slots=True)
class Remark:
    """One mistake or warning."""

    route: Route
    """The rule that it is about."""
    sentence: str
    """For the owner."""
    warning: bool = False
    """The rules are valid all the same."""


def review(policy: Policy, trusting: Collection[int]) -> Iterator[Remark]:
    """Everything there is to say. `trusting`: indexes of the routes with `trust_host: true`."""
    yield from _same_requests(policy)
    some_are_public = any(who_passes(route).open for route in policy.routes)
    for route in policy.routes:
        unreachable = _unreachable(policy, route)
        if unreachable:
            yield Remark(route, unreachable)
            continue
        if route.hosts and route.index not in trusting:
            yield from _laxer_by_host(policy, route)
        if some_are_public:
            yield from _fall_through(policy, route)
        yield from _laxer_below(policy, route)
        if who_passes(route).open and route.pattern.shape == ((), True):
            yield Remark(route, "opens every path that no other route names to everyone", warning=True)


def _same_requests(policy: Policy) -> Iterator[Remark]:
    """Two routes that take the very same requests."""
    seen: dict[object, Route] = {}
    for route in policy.routes:
        clashes: dict[Route, set[str]] = {}
        for host in route.hosts or ("",):
            for method in route.methods or (ANY_METHOD,):
                first = seen.setdefault((host, route.pattern.shape, method), route)
                if first is not route:
                    clashes.setdefault(first, set()).add(method)
        for first, methods in clashes.items():
            yield Remark(route, _clash(route, first, methods))


def _clash(route: Route, first: Route, methods: set[str]) -> str:
    if route.methods == first.methods and route.hosts == first.hosts:
        return f"the same requests as {first}; remove one"
    what = "the same requests" if route.methods is None else ", ".join(sorted(methods))
    hosts = sorted(set(route.hosts) & set(first.hosts))
    at = f" for {', '.join(hosts)}" if hosts else ""
    return f"takes {what}{at} as {first} does; leave them to one"


def _unreachable(policy: Policy, route: Route) -> str | None:
    """Why no request can ever get this route, or None."""
    try:
        readings = read(quote(_sample(route.pattern) or b"/", safe=_SAFE).encode())
    except BadRequest as error:
        return f"can never match, for the gateway refuses such a path: {error.detail}"
    if any((fold(reading) + b"/").startswith(policy.auth_prefix + b"/") for reading in readings):
        return f"can never match: {policy.auth_prefix.decode()} belongs to the gateway itself"
    return None


def _laxer_by_host(policy: Policy, route: Route) -> Iterator[Remark]:
    """Any client can send any Host, so such a route must not open what the others close."""
    for other in policy.matcher.overlapping(route.pattern):
        laxer = other.upstream == route.upstream and not who_passes(route) <= who_passes(other)
        if laxer and any(_meet(policy, route, other, host) for host in route.hosts):
            sentence = (
                f"is laxer than {other}, which has no hosts, for the same paths, and any client"
                " can send any Host; write trust_host: true if something in front checks it"
            )
            yield Remark(route, sentence)
            return


def _meet(policy: Policy, route: Route, other: Route, host: str) -> bool:
    """Some request gets `route`, and would get `other` with another Host."""
    name = host.replace("*", "=").encode()
    return any(
        policy.matcher.find(method, name, path) is route and policy.matcher.find(method, b"", path) is other
        for method in _common(route.methods, other.methods)
        for path in _common_paths(route.pattern, other.pattern)
    )


def _common(one: frozenset[str] | None, other: frozenset[str] | None) -> Collection[str]:
    if one is None or other is None:
        return one or other or (ANY_METHOD, *_METHODS)
    return one & other


def _common_paths(one: Pattern, other: Pattern) -> list[bytes]:
    """Samples of the paths that two overlapping patterns share."""
    long, short = sorted((one.segments, other.segments), key=len, reverse=True)
    pairs = [*zip(long, short, strict=False), *((segment, None) for segment in long[len(short) :])]
    base = b"".join(b"/" + (mine or theirs or _SAMPLE) for mine, theirs in pairs)
    return [base, base + b"/" + _SAMPLE] if one.below and other.below else [base]


def _fall_through(policy: Policy, route: Route) -> Iterator[Remark]:
    """Methods that the route does not name, and that everyone may then use."""
    if route.methods is None or who_passes(route).open:
        return
    fallen: dict[Route, list[str]] = {}
    host, path = _host(route), _sample(route.pattern)
    for method in _METHODS:
        other = policy.matcher.find(method, host, path)
        if other is None or other is route or not who_passes(other).open:
            continue
        if other.methods is None or other.pattern.shape != route.pattern.shape:
            fallen.setdefault(other, []).append(method)
    for other, methods in fallen.items():
        names = f"{', '.join(methods)} {'falls' if len(methods) == 1 else 'fall'}"
        yield Remark(route, f"{names} through to {other}, which is public", warning=True)


def _laxer_below(policy: Policy, route: Route) -> Iterator[Remark]:
    """Many backends serve /admin.php/anything by /admin.php (RFC 3875 calls it PATH_INFO)."""
    if not route.pattern.literal or not route.pattern.segments:
        return
    path = _sample(route.pattern) + b"/" + _SAMPLE
    for method in sorted(route.methods or (ANY_METHOD, *_METHODS)):
        other = policy.matcher.find(method, _host(route), path) or policy.default
        if other.upstream == route.upstream and not who_passes(other) <= who_passes(route):
            text = route.pattern.text.rstrip("/")
            gets = f"{text}/… gets {other}; write {text}/** for both"
            yield Remark(route, f"is stricter than what lies below it: {gets}", warning=True)
            return


def _sample(pattern: Pattern) -> bytes:
    """A path that the pattern matches, as a reading."""
    segments = pattern.segments + ((None,) if pattern.below else ())
    return b"".join(b"/" + (segment or _SAMPLE) for segment in segments)


def _host(route: Route) -> bytes:
    return route.hosts[0].replace("*", "=").encode() if route.hosts else b""
