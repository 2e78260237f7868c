"""Whether policies answer alike from a state on, told without a look at every path that follows.

Each node of every trie gets a number that stands for all that is in and below it. So two
files of ten thousand rules of which five differ are compared where they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from gateway.policy.match import Matcher, Node
from gateway.policy.model import Policy, Route
from gateway.policy.states import Lane, Place, Reading, Slot, State, ends, sample_host, total

Told = Callable[[Policy, Route], Hashable]
"""What matters about a rule."""


class Signatures:
    """Compares states of several policies. Rules are alike if `told` tells the same of them."""

    def __init__(self, policies: tuple[Policy, ...], told: Told) -> None:
        self._numbers: dict[Hashable, int] = {}
        """Of whatever has been seen; what is equal has the same."""
        self._things: dict[int, int] = {}
        """The numbers of nodes and slots, by identity."""
        self._defaults = [self._number(told(policy, policy.default)) for policy in policies]
        for policy in policies:
            self._learn(policy, told)

    def alike(self, states: tuple[State, ...]) -> bool:
        """All policies answer alike, whatever follows."""
        return self._all_equal(states, self._place)

    def alike_here(self, states: tuple[State, ...]) -> bool:
        """All policies answer alike if the path ends here."""
        return self._all_equal(states, self._end)

    def _learn(self, policy: Policy, told: Told) -> None:
        """What a backend does with stripped paths is part of the rule that strips them."""

        def alone(route: Route) -> Hashable:
            return told(policy, route)

        behind = {name: self._matcher(matcher, alone) for name, matcher in policy.behind.items()}
        self._matcher(
            policy.matcher, lambda route: (alone(route), behind[route.upstream] if route.strip else None)
        )

    def _matcher(self, matcher: Matcher[Route], rule: Callable[[Route], Hashable]) -> int:
        tries = [(host, matcher.tries(sample_host(host))) for host in ("", *matcher.hosts)]
        return self._number(
            tuple((host, *(self._node(trie, rule) for trie in found)) for host, found in tries)
        )

    def _node(self, node: Node[Route], rule: Callable[[Route], Hashable]) -> int:
        number = self._things.get(id(node))
        if number is None:
            literals = tuple(sorted((text, self._node(child, rule)) for text, child in node.literals.items()))
            one = None if node.one is None else self._node(node.one, rule)
            content = (literals, one, self._slot(node.exact, rule), self._slot(node.below, rule))
            number = self._things[id(node)] = self._number(content)
        return number

    def _slot(self, slot: Slot, rule: Callable[[Route], Hashable]) -> int:
        content = tuple(sorted((method, self._number(rule(route))) for method, route in slot.items()))
        number = self._things[id(slot)] = self._number(content)
        return number

    def _number(self, thing: Hashable) -> int:
        return self._numbers.setdefault(thing, len(self._numbers))

    def _all_equal(self, states: tuple[State, ...], sign: Callable[[Place], Hashable]) -> bool:
        signs = [
            self._state(state, default, sign) for state, default in zip(states, self._defaults, strict=True)
        ]
        return all(each == signs[0] for each in signs[1:])

    def _state(self, state: State, default: int, sign: Callable[[Place], Hashable]) -> Hashable:
        if state.refused:
            return None
        readings = tuple(_reading(reading, sign) for reading in state.readings)
        behind = tuple((strip, *(_reading(each, sign) for each in inner)) for strip, inner in state.behind)
        covered = all(total(each.spelled) and total(each.folded) for each in state.readings)
        return readings, behind, None if covered else default

    def _place(self, place: Place) -> Hashable:
        if isinstance(place.thing, tuple):
            return tuple(_lane(lane, self._place) for lane in place.thing)
        return self._things[id(place.thing)]

    def _end(self, place: Place) -> Hashable:
        if isinstance(place.thing, tuple):
            return tuple(_lane(lane, self._end) for lane in place.thing)
        return tuple(self._things[id(slot)] for slot in ends(place))


def _reading(reading: Reading, sign: Callable[[Place], Hashable]) -> Hashable:
    return _lane(reading.spelled, sign), _lane(reading.folded, sign), reading.own_prefix


def _lane(lane: Lane, sign: Callable[[Place], Hashable]) -> Hashable:
    return tuple(sign(place) for place in lane)
