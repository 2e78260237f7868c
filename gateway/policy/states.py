"""What a policy knows of a path of which it has read the first segments.

The matcher walks its tries with branches and ways back. Here the same tries are read
segment by segment, with all branches at once: a `Lane` is the line of places that could
still answer, the preferred ones first. Two paths in the same state end the same way
whatever follows, which makes the infinitely many paths finitely many classes (`regions`).

A policy reads a path in several lanes, as `decide` does: as it is spelled, without case,
and, once a prefix is cut that some route strips, from there on among the routes of its
backend. Beside them runs the gateway's own prefix, which no route can have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.policy.match import ANY_METHOD, Matcher, Node
from gateway.policy.model import Policy, Route
from gateway.policy.readings import fold

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


class State(NamedTuple):
    """All lanes of one policy after the same segments."""

    spelled: Lane
    """The path as it stands."""
    folded: Lane
    """The path without case."""
    behind: tuple[tuple[Strip, Lane, Lane], ...]
    """The same two for what backends see of stripped paths."""
    own_prefix: tuple[bytes, ...] | None
    """What is missing to the gateway's own prefix; None if the path is not on its way there."""

    @property
    def lanes(self) -> Iterator[Lane]:
        yield self.spelled
        yield self.folded
        for _, spelled, folded in self.behind:
            yield spelled
            yield folded

    @property
    def settled(self) -> bool:
        """Nothing that follows can make a difference."""
        if self.own_prefix == ():
            return True
        return self.own_prefix is None and not any(any(nodes(lane)) for lane in self.lanes)

    @property
    def own(self) -> bool:
        """Some place belongs to this host alone."""
        return any(place.own for lane in self.lanes for place in lane)

    def literals(self, *, own: bool) -> set[bytes]:
        """The segments that can make a difference now, as they are written; `own`: only to this host."""
        known = {
            literal
            for lane in self.lanes
            for place in lane
            if place.own or not own
            for node in _nodes(place)
            for literal in node.literals
        }
        return known | set((self.own_prefix or ())[:1])

    def slots(self, *, own: bool = False) -> Iterator[Slot]:
        """The routes that could answer if the path ended here."""
        for lane in self.lanes:
            for place in lane:
                if place.own or not own:
                    yield from _ends(place)


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
                for trie in policy.matcher.tries(host.replace("*.", "=.").encode()):
                    reader._survey(trie, 0)
            for route in policy.routes:
                if route.strip:
                    reader._mark(route)
        return reader

    def start(self, host: bytes, parent: bytes | None) -> State:
        """Before the first segment. Places that `parent`, a wider class of hosts, has too are not its own."""
        spelled = _roots(self.policy.matcher, host, parent)
        return State(spelled, spelled, (), self.prefix)

    def step(self, state: State, part: bytes) -> State:
        """After one more segment."""
        folded = fold(part)
        spelled = _step(state.spelled, part, caseless=False)
        behind = tuple(
            (strip, _step(lane, part, caseless=False), _step(without_case, folded, caseless=True))
            for strip, lane, without_case in state.behind
        )
        return State(
            spelled,
            _step(state.folded, folded, caseless=True),
            self._alive(spelled, behind) if behind else (),
            _own_prefix(state.own_prefix, folded),
        )

    def cut(self, state: State, depth: int, host: bytes, parent: bytes | None) -> State:
        """The same, with lanes for the backends that see only what follows these `depth` segments."""
        if not self.stripping:
            return state
        names = {name for node in nodes(state.spelled) for name in self.stripping.get(id(node), ())}
        lanes = [(name, _roots(self.policy.behind[name], host, parent)) for name in sorted(names)]
        return state._replace(behind=(*state.behind, *(((name, depth), lane, lane) for name, lane in lanes)))

    def _alive(
        self, spelled: Lane, behind: tuple[tuple[Strip, Lane, Lane], ...]
    ) -> tuple[tuple[Strip, Lane, Lane], ...]:
        """Without the lanes that no route strips for any more."""
        wanted: set[Strip] = set()
        for place in spelled:
            if isinstance(place.thing, Node):
                wanted |= self.reach[id(place.thing)]
            elif isinstance(place.thing, dict):
                wanted |= {(route.upstream, route.strip) for route in place.thing.values()}
        return tuple(each for each in behind if each[0] in wanted)

    def _survey(self, node: Node[Route], depth: int) -> frozenset[Strip]:
        found = self.reach.get(id(node))
        if found is None:
            routes = (*node.exact.values(), *node.below.values())
            here = {(route.upstream, route.strip) for route in routes if route.strip}
            children = [*node.literals.values(), *([node.one] if node.one else [])]
            found = frozenset(here).union(*(self._survey(child, depth + 1) for child in children))
            self.reach[id(node)] = found
        return found

    def _mark(self, route: Route) -> None:
        for host in route.hosts or ("",):
            name = host.replace("*.", "=.", 1).encode()
            for trie in self.policy.matcher.tries(name):
                node: Node[Route] | None = trie
                for segment in route.pattern.segments[: route.strip]:
                    node = node.literals.get(segment) if node is not None and segment is not None else None
                if node is not None and (route.upstream, route.strip) in self.reach[id(node)]:
                    self.stripping.setdefault(id(node), set()).add(route.upstream)


def nodes(lane: Lane) -> Iterator[Node[Route]]:
    """The places of a lane from which paths go on."""
    for place in lane:
        yield from _nodes(place)


def total(lane: Lane) -> bool:
    """Some route answers, whatever the method and whatever follows."""
    return bool(lane) and _total(lane[-1])


def _nodes(place: Place) -> Iterator[Node[Route]]:
    if isinstance(place.thing, Node):
        yield place.thing
    elif isinstance(place.thing, tuple):
        for lane in place.thing:
            yield from nodes(lane)


def _ends(place: Place) -> Iterator[Slot]:
    thing = place.thing
    if isinstance(thing, Node):
        yield from (slot for slot in (thing.exact, thing.below) if slot)
    elif isinstance(thing, tuple):
        for lane in thing:
            for branch in lane:
                yield from _ends(branch)
    else:
        yield thing


def _total(place: Place) -> bool:
    if isinstance(place.thing, tuple):
        return all(total(lane) for lane in place.thing)
    return isinstance(place.thing, dict) and ANY_METHOD in place.thing


def _roots(matcher: Matcher[Route], host: bytes, parent: bytes | None) -> Lane:
    shared = () if parent is None else matcher.tries(parent)
    return tuple(
        Place(not any(trie is other for other in shared), trie)
        for trie in matcher.tries(host)
        if trie.literals or trie.one or trie.exact or trie.below
    )


def _step(lane: Lane, part: bytes, *, caseless: bool) -> Lane:
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
        lanes = tuple(_step(lane, part, caseless=caseless) for lane in thing)
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
