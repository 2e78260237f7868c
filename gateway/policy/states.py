"""What a policy knows of a path of which it has read the first segments.

The matcher walks its tries with branches and ways back. Here the same tries are read
segment by segment, with all branches at once: a `Lane` is the line of places that could
still answer, the preferred ones first. Two paths in the same state end the same way
whatever follows, which makes the infinitely many paths finitely many classes (`regions`).

A policy reads a path in several lanes, as `decide` does: as it is spelled, without case,
and, once a prefix is cut that some route strips, from there on among the routes of its
backend. Beside them runs the gateway's own prefix, which no route can have. A literal of
some rule that can itself be read in several ways (`/a.`) opens lanes for each of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.errors import BadRequest
from gateway.policy.match import ANY_METHOD, Matcher, Node
from gateway.policy.model import Policy, Route
from gateway.policy.readings import fold, read

Slot = dict[str, Route]
"""Routes by method that have nothing left to compare."""


class Place(NamedTuple):
    """One place that could still answer."""

    own: bool
    """Of the tries that only this host asks."""
    thing: Node[Route] | Slot | tuple[Lane, ...]
    """A node to go on from; routes; or lanes that all answer, since they differ by case only."""


Lane = tuple[Place, ...]
"""In the order in which they are asked."""
Strip = tuple[str, int]
"""A backend, and how many segments are cut off before it sees a path."""


class Reading(NamedTuple):
    """The lanes of one reading."""

    spelled: Lane
    """As it stands."""
    folded: Lane
    """Without case."""
    own_prefix: tuple[bytes, ...] | None
    """What is missing to the gateway's own prefix; None if the path is not on its way there."""


class State(NamedTuple):
    """All lanes of one policy after the same segments."""

    readings: tuple[Reading, ...]
    """The literal one first. None at all if nobody may send such a path."""
    behind: tuple[tuple[Strip, tuple[Reading, ...]], ...] = ()
    """The same for what backends see of stripped paths."""

    @property
    def lanes(self) -> Iterator[Lane]:
        for reading in self.readings:
            yield reading.spelled
            yield reading.folded
        for _, readings in self.behind:
            for reading in readings:
                yield reading.spelled
                yield reading.folded

    @property
    def refused(self) -> bool:
        """Nobody may go on from here, whatever the rules say."""
        return not self.readings or any(reading.own_prefix == () for reading in self.readings)

    @property
    def settled(self) -> bool:
        """Nothing that follows can make a difference."""
        if self.refused:
            return True
        on_the_way = any(reading.own_prefix for reading in self.readings)
        return not on_the_way and not any(_goes_on(place) for lane in self.lanes for place in lane)

    @property
    def own(self) -> bool:
        """Some place belongs to this host alone."""
        return any(place.own for lane in self.lanes for place in lane)

    @property
    def key(self) -> Hashable:
        """Equal for equal states of one policy."""
        behind = tuple((strip, *map(_reading_key, readings)) for strip, readings in self.behind)
        return (*map(_reading_key, self.readings), behind)

    @property
    def nodes(self) -> Iterator[Node[Route]]:
        """Where routes that strip a prefix may still be found: in the literal reading, as it is spelled."""
        for place in self.readings[0].spelled if self.readings else ():
            if isinstance(place.thing, Node):
                yield place.thing

    def literals(self, *, own: bool = False) -> set[bytes]:
        """The segments that can make a difference now, as they are written; `own`: only to this host."""
        known = {reading.own_prefix[0] for reading in self.readings if reading.own_prefix}
        for lane in self.lanes:
            for place in lane:
                if place.own or not own:
                    for node in _nodes(place):
                        known.update(node.literals)
        return known

    def slots(self, *, own: bool = False) -> Iterator[Slot]:
        """The routes that could answer if the path ended here."""
        for lane in self.lanes:
            for place in lane:
                if place.own or not own:
                    yield from ends(place)


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """Reads paths as one policy does."""

    policy: Policy
    """Which."""
    prefix: tuple[bytes, ...]
    """The gateway's own, in segments."""
    stripping: dict[int, set[str]] = field(default_factory=dict)
    """The backends that see only what follows a node, by its identity."""
    reach: dict[int, frozenset[Strip]] = field(default_factory=dict)
    """What routes at and below a node strip, by its identity."""

    @classmethod
    def of(cls, policy: Policy) -> Reader:
        """The reader of this policy."""
        reader = cls(policy, tuple(policy.auth_prefix.split(b"/")[1:]))
        if policy.behind:
            for host in ("", *policy.matcher.hosts):
                for trie in policy.matcher.tries(sample_host(host)):
                    reader._survey(trie)
            for route in policy.routes:
                if route.strip:
                    reader._mark(route)
        return reader

    def start(self, host: bytes, parent: bytes | None) -> State:
        """Before the first segment. Places that `parent`, a wider class of hosts, has too are not its own."""
        lane = _roots(self.policy.matcher, host, parent)
        return State((Reading(lane, lane, self.prefix),))

    def own_backends(self, host: bytes, parent: bytes | None) -> frozenset[str]:
        """The backends that have rules for this host alone for what they see of stripped paths."""
        return frozenset(
            name
            for name, matcher in self.policy.behind.items()
            if any(place.own for place in _roots(matcher, host, parent))
        )

    def is_own(self, state: State, depth: int, backends: frozenset[str]) -> bool:
        """Something that follows may make a difference to this host alone."""
        return state.own or any(self._leads(node, depth, backends) for node in state.nodes)

    def own_literals(self, state: State, depth: int, backends: frozenset[str]) -> set[bytes]:
        """The segments that can make a difference to this host alone, now or behind a prefix."""
        found = state.literals(own=True)
        for node in state.nodes:
            found.update(text for text, child in node.literals.items() if self._leads(child, depth, backends))
        return found

    def _leads(self, node: Node[Route], depth: int, backends: frozenset[str]) -> bool:
        """Here or further on a prefix ends that a route strips for one of these backends."""
        return bool(backends) and any(
            name in backends and count > depth for name, count in self.reach[id(node)]
        )

    def step(self, state: State, part: bytes, depth: int, host: bytes, parent: bytes | None) -> State:
        """After one more segment, which is the `depth`th."""
        folded = fold(part)
        readings = tuple(_step(reading, part, folded) for reading in state.readings)
        if not self.stripping or not readings:
            return State(readings)
        behind = tuple(
            (strip, tuple(_step(reading, part, folded) for reading in inner)) for strip, inner in state.behind
        )
        behind = self._alive(readings[0].spelled, behind) if behind else ()
        return State(readings, behind + self._cut(readings[0].spelled, depth, host, parent))

    def reread(self, path: bytes, host: bytes, parent: bytes | None) -> State:
        """After this raw path, which may have several readings. Nothing may be known of what follows."""
        try:
            found = read(path)
        except BadRequest:
            return State(())
        state = self.start(host, parent)
        for depth, part in enumerate(_parts(found[0]), 1):
            state = self.step(state, part, depth, host, parent)
        others = tuple(_steps(self.start(host, parent).readings[0], reading) for reading in found[1:])
        behind = tuple(
            ((name, depth), self._reread_behind(name, depth, path, host, parent))
            for (name, depth), _ in state.behind
        )
        return State(state.readings + others, behind)

    def _reread_behind(
        self, name: str, depth: int, path: bytes, host: bytes, parent: bytes | None
    ) -> tuple[Reading, ...]:
        lane = _roots(self.policy.behind[name], host, parent)
        rest = b"/" + b"/".join(path.split(b"/")[depth + 1 :])
        try:
            return tuple(_steps(Reading(lane, lane, None), reading) for reading in read(rest))
        except BadRequest:
            return ()

    def _cut(
        self, spelled: Lane, depth: int, host: bytes, parent: bytes | None
    ) -> tuple[tuple[Strip, tuple[Reading, ...]], ...]:
        """The lanes of the backends that see only what follows."""
        nodes = [place.thing for place in spelled if isinstance(place.thing, Node)]
        names = sorted({name for node in nodes for name in self.stripping.get(id(node), ())})
        lanes = [(name, _roots(self.policy.behind[name], host, parent)) for name in names]
        return tuple(((name, depth), (Reading(lane, lane, None),)) for name, lane in lanes)

    def _alive(
        self, spelled: Lane, behind: tuple[tuple[Strip, tuple[Reading, ...]], ...]
    ) -> tuple[tuple[Strip, tuple[Reading, ...]], ...]:
        """Without the lanes that no route strips for any more."""
        wanted: set[Strip] = set()
        for place in spelled:
            if isinstance(place.thing, Node):
                wanted |= self.reach[id(place.thing)]
            elif isinstance(place.thing, dict):
                wanted |= {(route.upstream, route.strip) for route in place.thing.values()}
        return tuple(each for each in behind if each[0] in wanted)

    def _survey(self, node: Node[Route]) -> frozenset[Strip]:
        found = self.reach.get(id(node))
        if found is None:
            routes = (*node.exact.values(), *node.below.values())
            here = {(route.upstream, route.strip) for route in routes if route.strip}
            children = [*node.literals.values(), *([node.one] if node.one else [])]
            found = frozenset(here).union(*(self._survey(child) for child in children))
            self.reach[id(node)] = found
        return found

    def _mark(self, route: Route) -> None:
        for host in route.hosts or ("",):
            for trie in self.policy.matcher.tries(sample_host(host)):
                node: Node[Route] | None = trie
                for segment in route.pattern.segments[: route.strip]:
                    node = node.literals.get(segment) if node is not None and segment is not None else None
                if node is not None and (route.upstream, route.strip) in self.reach[id(node)]:
                    self.stripping.setdefault(id(node), set()).add(route.upstream)


def sample_host(name: str) -> bytes:
    """A Host header for a host as routes name it."""
    return name.replace("*.", "=.", 1).encode()


def ends(place: Place) -> Iterator[Slot]:
    """The routes of a place that could answer if the path ended there."""
    thing = place.thing
    if isinstance(thing, Node):
        yield from (slot for slot in (thing.exact, thing.below) if slot)
    elif isinstance(thing, tuple):
        for lane in thing:
            for branch in lane:
                yield from ends(branch)
    else:
        yield thing


def total(lane: Lane) -> bool:
    """Some route answers, whatever the method and whatever follows."""
    return bool(lane) and _total(lane[-1])


def _nodes(place: Place) -> Iterator[Node[Route]]:
    if isinstance(place.thing, Node):
        yield place.thing
    elif isinstance(place.thing, tuple):
        for lane in place.thing:
            for branch in lane:
                yield from _nodes(branch)


def _goes_on(place: Place) -> bool:
    return next(_nodes(place), None) is not None


def _total(place: Place) -> bool:
    if isinstance(place.thing, tuple):
        return all(total(lane) for lane in place.thing)
    return isinstance(place.thing, dict) and ANY_METHOD in place.thing


def _reading_key(reading: Reading) -> Hashable:
    return _lane_key(reading.spelled), _lane_key(reading.folded), reading.own_prefix


def _lane_key(lane: Lane) -> Hashable:
    return tuple(
        (own, tuple(map(_lane_key, thing)) if isinstance(thing, tuple) else id(thing)) for own, thing in lane
    )


def _roots(matcher: Matcher[Route], host: bytes, parent: bytes | None) -> Lane:
    shared = () if parent is None else matcher.tries(parent)
    return tuple(
        Place(not any(trie is other for other in shared), trie)
        for trie in matcher.tries(host)
        if trie.literals or trie.one or trie.exact or trie.below
    )


def _parts(path: bytes) -> list[bytes]:
    return path.split(b"/")[1:]


def _steps(reading: Reading, path: bytes) -> Reading:
    for part in _parts(path):
        reading = _step(reading, part, fold(part))
    return reading


def _step(reading: Reading, part: bytes, folded: bytes) -> Reading:
    return Reading(
        _next(reading.spelled, part, caseless=False),
        _next(reading.folded, folded, caseless=True),
        _own_prefix(reading.own_prefix, folded),
    )


def _next(lane: Lane, part: bytes, *, caseless: bool) -> Lane:
    """One segment further. What stands behind a route for all methods is never asked."""
    found: list[Place] = []
    for place in lane:
        for each in _successors(place, part, caseless):
            found.append(each)
            if _total(each):
                return tuple(found)
    return tuple(found)


def _successors(place: Place, part: bytes, caseless: bool) -> Iterator[Place]:
    own, thing = place
    if isinstance(thing, tuple):
        lanes = tuple(_next(lane, part, caseless=caseless) for lane in thing)
        if any(lanes):
            yield Place(own, lanes)
        return
    if not isinstance(thing, Node):
        yield place
        return
    child = thing.literals.get(part)
    children = thing.folds.get(part, []) if caseless else [child] if child is not None else []
    if len(children) == 1:
        yield Place(own, children[0])
    elif children:
        yield Place(own, tuple((Place(own, each),) for each in children))
    if thing.one is not None and part:
        yield Place(own, thing.one)
    if thing.below:
        yield Place(own, thing.below)


def _own_prefix(missing: tuple[bytes, ...] | None, folded: bytes) -> tuple[bytes, ...] | None:
    if missing:
        return missing[1:] if missing[0] == folded else None
    return missing
