"""Whether an API token is good for a request: its own limits, besides what its user may.

They are written like routes and compared like them: every reading of the path must fit,
in every spelling, and behind a stripped prefix also every reading of what the backend
gets to see. A limit that can't be understood fits nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from gateway.errors import BadRequest
from gateway.identity.principal import Reach
from gateway.policy.match import Matcher
from gateway.policy.model import Route
from gateway.policy.pattern import Pattern, parse
from gateway.policy.readings import Reading, fold, read, strip

_REMEMBERED = 4096
"""Sets of limits whose patterns are ready; most tokens that have some were made with the same."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """One path, as `Matcher` takes it."""

    pattern: Pattern
    methods: frozenset[str] | None
    hosts: tuple[str, ...] = ()


def mistake(reach: Reach) -> str | None:
    """What is wrong with these limits, as a sentence; or None."""
    for path in reach.paths or ():
        try:
            parse(path)
        except ValueError as error:
            return f"{path} {error}"
    return None


def reaches(reach: Reach, method: str, path: bytes, route: Route) -> bool:
    """Whether a token so limited is good for this request. `route` is that of the literal reading."""
    try:
        readings = [*read(path), *_behind(path, route)]
    except BadRequest:
        return False
    limits = _limits(reach)
    return all(_fits(limits, method, reading) for reading in readings)


def _fits(limits: Matcher[_Limit], method: str, reading: Reading) -> bool:
    spelled = limits.find(method, b"", reading)
    return spelled is not None and None not in limits.find_folded(method, b"", fold(reading))


def _behind(path: bytes, route: Route) -> list[Reading]:
    """What the backend may read behind a stripped prefix, as clients would have to write it."""
    if not route.strip:
        return []
    prefix = b"".join(b"/" + (segment or b"") for segment in route.pattern.segments[: route.strip])
    return [prefix + reading for reading in read(strip(path, route.strip))]


@lru_cache(_REMEMBERED)
def _limits(reach: Reach) -> Matcher[_Limit]:
    methods = None if reach.methods is None else frozenset(reach.methods)
    paths = ("/**",) if reach.paths is None else reach.paths
    if reach.methods == ():  # to `Matcher` that would be every method
        paths = ()
    patterns = {pattern.shape: pattern for pattern in map(_pattern, paths) if pattern is not None}
    return Matcher(_Limit(pattern, methods) for pattern in patterns.values())


def _pattern(path: str) -> Pattern | None:
    try:
        return parse(path)
    except ValueError:
        return None
