"""All possible requests in finitely many classes, each of which every policy treats alike.

There are endless paths, but the tries know only some segments at each place: any other
one leads to the same state (`states`), and so does any other host and any other method.
So the classes are a product: of the hosts that some policy names and all others, of the
segments known to some policy, their other spellings, and all others, and of the methods
named there and all others.

**They are read like routes**: the most specific one that fits a request is its class.
That keeps them few, since a class need not be cut around those inside it, and lets them
be shown in the words of `gateway.yaml`: `/projects/{id}`, `/files/**`.

**The path of a class is a reading.** A path with several readings (`policy.readings`)
must satisfy the rules of each one's class. Case is the exception: `/Admin` is a class of
its own beside `/admin`, with the rules of both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.policy.model import Claims, Decision, Policy
from gateway.policy.partition import Answer, Host, Partition, PathClass, hosts_of, sample_method
from gateway.policy.partition import Kind as Kind
from gateway.policy.partition import Part as Part
from gateway.policy.partition import TooManyClasses as TooManyClasses
from gateway.policy.pattern import Segment
from gateway.policy.signatures import Signatures, Told


@dataclass(frozen=True, slots=True)
class Methods:
    """A set of methods, open or closed."""

    names: frozenset[str]
    """These."""
    all_but: bool
    """All except these."""

    def __contains__(self, method: str) -> bool:
        return (method in self.names) != self.all_but

    def __or__(self, other: Methods) -> Methods:
        """Those in either."""
        if self.all_but and other.all_but:
            return Methods(self.names & other.names, True)
        if self.all_but or other.all_but:
            closed, opened = (other, self) if self.all_but else (self, other)
            return Methods(opened.names - closed.names, True)
        return Methods(self.names | other.names, False)

    def __str__(self) -> str:
        """`GET, POST`; GET includes HEAD, as in routes. `any method`, `any method but DELETE`."""
        names = ", ".join(sorted(self.names - ({"HEAD"} if "GET" in self.names else set())))
        if not self.all_but:
            return names
        return f"any method but {names}" if names else "any method"


@dataclass(frozen=True, slots=True)
class Request:
    """A request line that belongs to a class, as `decide` takes it."""

    method: str
    """A method."""
    host: bytes
    """A Host header; empty where any host will do."""
    path: bytes
    """The raw path."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One class of requests. It is about those that no more specific one fits."""

    host: str
    """`*.` in front for all below; empty for any."""
    parts: tuple[Part, ...]
    """The path, segment by segment."""
    below: bool
    """Also all paths below."""
    path: str
    """The same as in a route, with the names that routes have for segments: `/projects/{id}`."""
    methods: Methods
    """Which methods."""
    request: Request
    """One of them."""
    claims: tuple[Claims | Decision, ...]
    """What each policy asks of all of them, or why it refuses them all. Only the routes: `granted` is
    that of some request."""
    wider: bool = False
    """Not for these hosts to say: the class of any host, or of the domain around, is meant."""

    @property
    def plain(self) -> bool:
        """Its paths are spelled as some rule has them, without `//`."""
        return all(part.kind in (Kind.LITERAL, Kind.OTHER) for part in self.parts)


def regions(*policies: Policy, told: Told | None = None, plain: bool = False) -> Iterator[Region]:
    """The classes, those of any host first, then what matters to some hosts only. Raises TooManyClasses.

    With `told`, which tells what matters about a rule, there are no claims where the policies differ
    in nothing that matters, and so only few classes. Then some are `wider`. `plain`: those of other
    spellings are left out, in half the time.
    """
    partition = Partition(policies, None if told is None else Signatures(policies, told), plain=plain)
    names = {segments: name for policy in policies for segments, name in _names(policy)}
    for host in hosts_of(policies):
        for each in partition.classes(host):
            if each.answer is not None:
                yield from _regions(host, each, each.answer, _path(each, names), partition.said)
            elif told is not None:
                request = Request(sample_method(()), host.sample, each.path)
                every = Methods(frozenset(), True)
                yield Region(host.name, each.parts, each.below, _path(each, names), every, request, (), True)


def _regions(
    host: Host, each: PathClass, answer: Answer, path: str, said: list[tuple[Claims | Decision, ...]]
) -> Iterator[Region]:
    named: dict[int, list[str]] = {}
    for method, number in answer.named:
        named.setdefault(number, []).append(method)
    differ = frozenset(method for method, _ in answer.named)
    groups = [(number, Methods(frozenset(names), False)) for number, names in named.items()]
    for number, methods in [*groups, (answer.other, Methods(differ, True))]:
        method = sample_method(differ) if methods.all_but else min(methods.names)
        request = Request(method, host.sample, each.path)
        claims = said[number] if number >= 0 else ()
        yield Region(host.name, each.parts, each.below, path, methods, request, claims)


def _path(each: PathClass, names: dict[tuple[Segment, ...], str]) -> str:
    segments = tuple(None if part.kind is Kind.OTHER else part.text for part in each.parts)
    texts = [
        names.get(segments[: index + 1], "{any}") if segment is None else str(each.parts[index])
        for index, segment in enumerate(segments)
    ]
    return "/" + "/".join([*texts, "**"] if each.below else texts)


def _names(policy: Policy) -> Iterator[tuple[tuple[Segment, ...], str]]:
    """What routes call the segments that can be any."""
    for route in policy.routes:
        texts = route.pattern.text.split("/")[1:]
        for index, segment in enumerate(route.pattern.segments):
            if segment is None:
                yield route.pattern.segments[: index + 1], texts[index]
