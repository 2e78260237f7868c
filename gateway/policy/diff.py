"""What a change of the rules changes: which requests, and for whom. Exactly, not by samples.

Both policies cut all requests into classes (`regions`), and in each class the set of those
who pass (`audience`) is compared as a set. What is left is to say it in few lines: the
classes in which the same two routes decide are one change, named as the requests that
both are about. As in the file, a line is about what no more specific rule takes.

A path with several readings (`/a;x`) changes only where one of them does. A rule that
only reports is still enforced for such paths where it is not the one that chose the
backend; what changes there opens nothing, since `/a` itself is open meanwhile.

One thing has no class, and so is not seen: a rule of a backend that gets stripped paths, where
more specific rules of other backends take all that it is about. Only odd spellings still ask for
it: with `/a/{n}` stripped of `/a`, the request `/a/x%2Fb` asks for `/x/**` of that backend.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique

from gateway.policy.audience import NOBODY, Audience, Step, demanded, passing, who_passes
from gateway.policy.decide import only_reports
from gateway.policy.model import Claims, Decision, Policy, Reason, Route
from gateway.policy.pattern import Pattern
from gateway.policy.readings import fold
from gateway.policy.regions import Kind as PartKind
from gateway.policy.regions import Methods, Region, regions
from gateway.policy.signatures import Told

Servers = Mapping[str, tuple[str, ...]]
"""The servers of each upstream, by its name."""

_SHOWN = 3
"""Of paths in one line; the rest is counted."""


@unique
class Kind(StrEnum):
    """What became of some requests. The order is that of worry."""

    WIDENED = "widened"
    """More callers pass."""
    SHIFTED = "shifted"
    """Some pass who did not, and some do not who did."""
    NARROWED = "narrowed"
    """Fewer callers pass."""
    MOVED = "moved"
    """The same callers pass, to another backend or another path there."""
    REPORTED = "reported"
    """The same callers pass, but another rule is tried in the log."""

    @property
    def widens(self) -> bool:
        """Someone gained access."""
        return self in (Kind.WIDENED, Kind.SHIFTED)


@dataclass(frozen=True, slots=True)
class Said:
    """What one policy says of a class of requests."""

    audience: Audience
    """Who passes."""
    demanded: Audience
    """Who would pass if no rule only reported."""
    servers: tuple[str, ...]
    """Where those who pass get."""
    cut: tuple[bytes, ...]
    """The segments that are cut off before."""
    own: bool
    """The gateway serves it itself, and no rule is asked."""

    @property
    def destination(self) -> Hashable:
        """Equal if those who pass get to the same place."""
        return None if self.audience == NOBODY else (self.servers, self.cut)

    def __str__(self) -> str:
        """`admin`, `anyone (reports only: admin)`. In full: the one who was added may be the last of many."""
        if self.own:
            return "the gateway itself"
        if self.demanded != self.audience:
            return f"{self.audience.full} (reports only: {self.demanded.full})"
        return self.audience.full


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """Requests for which the new policy says something else than the old one."""

    kind: Kind
    """In short."""
    path: str
    """Which paths, in the words of routes."""
    hosts: tuple[str, ...]
    """Which hosts; empty for any."""
    methods: Methods
    """Which methods."""
    before: Said
    """What was said."""
    after: Said
    """What is said now."""
    old: Route
    """The rule that chose the backend."""
    new: Route
    """The rule that chooses it now."""
    regions: tuple[Region, ...]
    """Just which requests these are, each class as `regions` describes it."""
    echoes: tuple[Region, ...]
    """The same paths with other capitals or `//`, for which the same callers come and go."""

    @property
    def respelled(self) -> bool:
        """Only about paths with other capitals than the rules have, or with `//`.

        Those must satisfy several rules, so this follows from what is said of each of them alone.
        """
        return not any(region.plain for region in self.regions)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two files."""

    policy: Policy
    """Its rules."""
    servers: Servers
    """Its backends."""


def diff(old: Side, new: Side) -> list[Change]:
    """All changes, the worrying ones first. Raises TooManyClasses."""
    groups: dict[Hashable, _Group] = {}
    for region in regions(old.policy, new.policy, told=telling(old, new)):
        if region.claims:
            was, will = region.claims
            before, after = _said(old, was), _said(new, will)
            if _differ(before, after):
                group = groups.setdefault(
                    (before, after, was.route, will.route), _Group(before, after, was, will)
                )
                group.regions.append(region)
    return sorted(map(_change, _with_echoes(groups.values())), key=_order)


def telling(old: Side, new: Side) -> Told:
    """All that matters about a rule here."""
    servers = {id(side.policy): side.servers for side in (old, new)}

    def told(policy: Policy, route: Route) -> Hashable:
        return route.allow, only_reports(route), servers[id(policy)].get(route.upstream, ()), _cut(route)

    return told


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Classes in which the same routes decide, and so the same is said."""

    before: Said
    after: Said
    old: Claims | Decision
    new: Claims | Decision
    regions: list[Region] = field(default_factory=list)
    echoes: list[Region] = field(default_factory=list)

    @property
    def natural(self) -> bool:
        """Nothing but the two routes matters, and so they name the paths best."""
        return all(
            isinstance(claims, Claims) and who_passes(claims.route) == passing(claims)
            for claims in (self.old, self.new)
        )


def _said(side: Side, claims: Claims | Decision) -> Said:
    if isinstance(claims, Decision):
        return Said(NOBODY, NOBODY, (), (), claims.reason is Reason.AUTH_PREFIX)
    servers = side.servers.get(claims.route.upstream, ())
    return Said(passing(claims), demanded(claims), servers, _cut(claims.route), False)


def _cut(route: Route) -> tuple[bytes, ...]:
    return tuple(segment or b"" for segment in route.pattern.segments[: route.strip])


def _differ(before: Said, after: Said) -> bool:
    return (before.audience, before.demanded, before.destination, before.own) != (
        after.audience,
        after.demanded,
        after.destination,
        after.own,
    )


def _with_echoes(groups: Iterable[_Group]) -> list[_Group]:
    """`/Admin` and `/admin//x` are no news where `/admin` changes in the same way."""
    ordered = sorted(groups, key=lambda group: not any(region.plain for region in group.regions))
    voices: dict[Hashable, _Group] = {}
    for group in ordered:
        fresh: list[Region] = []
        for region in group.regions:
            voice = None if region.plain else voices.get(_sound(group, region))
            (fresh if voice is None else voice.echoes).append(region)
        group.regions[:] = fresh
        for region in group.regions:
            voices.setdefault(_sound(group, region), group)
    return [group for group in ordered if group.regions]


def _sound(group: _Group, region: Region) -> Hashable:
    path = tuple(fold(part.text) for part in region.parts if part.kind is not PartKind.EMPTY)
    said = [(said.audience, said.demanded) for said in (group.before, group.after)]
    return *said, path, region.below, region.host, region.methods


def _change(group: _Group) -> Change:
    methods = group.regions[0].methods
    for region in group.regions[1:]:
        methods |= region.methods
    return Change(
        kind=_kind(group.before, group.after),
        path=_path(group),
        hosts=_hosts({region.host for region in group.regions}),
        methods=methods,
        before=group.before,
        after=group.after,
        old=group.old.route,
        new=group.new.route,
        regions=tuple(group.regions),
        echoes=tuple(group.echoes),
    )


def _kind(before: Said, after: Said) -> Kind:
    step = before.audience.step_to(after.audience)
    if step is not Step.SAME:
        return Kind(step.value)
    moved = before.destination != after.destination or before.own != after.own
    return Kind.MOVED if moved else Kind.REPORTED


def _path(group: _Group) -> str:
    if group.natural:
        if group.old.route.index < 0 and group.new.route.index < 0:
            return "any path that no route names"
        return _common(group.old.route.pattern, group.new.route.pattern)
    plain = [region for region in group.regions if region.plain]
    paths = sorted({region.path for region in plain or group.regions}, key=lambda path: (len(path), path))
    more = len(paths) - _SHOWN
    shown = ", ".join(paths[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return shown if plain else f"{shown} (in other spellings)"


def _common(one: Pattern, other: Pattern) -> str:
    """The pattern of the paths that both match; there are some."""
    long, short = (one, other) if len(one.segments) >= len(other.segments) else (other, one)
    parts = long.text.rstrip("/").split("/")[1 : len(long.segments) + 1]
    for index, segment in enumerate(short.segments):
        if segment is not None:
            parts[index] = segment.decode()
    return "/" + "/".join([*parts, "**"] if one.below and other.below else parts)


def _hosts(names: set[str]) -> tuple[str, ...]:
    if "" in names:
        return ()
    wider = [name[1:] for name in names if name.startswith("*.")]
    return tuple(sorted(name for name in names if not any(_inside(name, above) for above in wider)))


def _inside(name: str, above: str) -> bool:
    return name.endswith(above) and name != f"*{above}"


def _order(change: Change) -> tuple[int, str, tuple[str, ...], str]:
    return list(Kind).index(change.kind), change.path, change.hosts, str(change.methods)
