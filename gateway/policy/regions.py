"""All possible requests in finitely many classes, each of which every policy treats alike.

There are endless paths, but the tries know only some segments at each place: any other
one leads to the same state (`states`), and so does any other host and any other method.
So the classes are a product: of the hosts that some policy names and all others, of the
segments known to some policy, their other spellings, and all others, and of the methods
named there and all others.

**They are read like routes**: the most specific one that fits a request is its class.
That keeps them few, since a class need not be cut around those inside it, and lets them
be shown in the words of `gateway.yaml`: `/projects/{any}`, `/files/**`.

**The path of a class is a reading.** A path with several readings (`policy.readings`)
must satisfy the rules of each one's class. Case is the exception: `/Admin` is a class of
its own beside `/admin`, with the rules of both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from enum import Enum, unique
from typing import NamedTuple
from urllib.parse import quote

from gateway.policy.decide import claims_of, claims_of_reading
from gateway.policy.match import ANY_METHOD
from gateway.policy.model import Claims, Decision, Policy
from gateway.policy.pattern import Segment
from gateway.policy.readings import fold
from gateway.policy.states import Reader, State

MOST_CLASSES = 500_000
"""Nobody writes such rules by hand, and more would take minutes and gigabytes."""
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
"""The first of them that is not named stands for all methods that are not."""
_SAFE = "=!$&'()*+,:@|~"
"""What a segment may hold without escapes."""


class TooManyClasses(ValueError):
    """The rules cut the requests into more classes than anyone can look at."""

    def __init__(self) -> None:
        super().__init__(
            f"the rules cut all possible requests into more than {MOST_CLASSES:,} classes,"
            " too many to look at each"
        )


@unique
class Kind(Enum):
    """What a segment of a class may be."""

    LITERAL = "literal"
    """Just this text."""
    RESPELLED = "respelled"
    """This text with other capitals than any rule has."""
    OTHER = "other"
    """Any but those that other classes name at this place."""
    EMPTY = "empty"
    """Nothing, as between the slashes of `//`."""


@dataclass(frozen=True, slots=True)
class Part:
    """One segment of a class of paths."""

    kind: Kind
    """What it may be."""
    text: bytes
    """Of a literal or respelled one, decoded."""
    sample: bytes
    """A segment that fits, decoded."""
    any_case: bool = False
    """A literal whose other spellings belong to the class too."""

    def __str__(self) -> str:
        return self.text.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Methods:
    """A set of methods, open or closed."""

    names: frozenset[str]
    """These."""
    all_but: bool
    """All except these."""

    def __contains__(self, method: str) -> bool:
        return (method in self.names) != self.all_but

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
    """What each policy asks of all of them, or why it refuses them all."""

    @property
    def shape(self) -> tuple[tuple[bytes | None, ...], bool]:
        """Equal to the `shape` of a pattern for the same paths."""
        return tuple(None if part.kind is Kind.OTHER else part.text for part in self.parts), self.below

    @property
    def plain(self) -> bool:
        """Its paths are spelled as some rule has them, without `//`."""
        return all(part.kind in (Kind.LITERAL, Kind.OTHER) for part in self.parts)


def regions(*policies: Policy) -> Iterator[Region]:
    """The classes, those of any host first, then what matters to some hosts only. Raises TooManyClasses."""
    yield from _Partition(policies).regions()


class _Answer(NamedTuple):
    """What is said for each method."""

    other: int
    """The number of what is said for a method that is not named."""
    named: tuple[tuple[str, int], ...]
    """Likewise, for those for which it differs."""


class _Class(NamedTuple):
    """A class of paths."""

    parts: tuple[Part, ...]
    below: bool
    answer: _Answer | None
    """None: the class belongs to a wider class of hosts."""
    below_path: bytes = b""
    """One of its raw paths, if a class of its own ends where this one begins."""

    @property
    def path(self) -> bytes:
        """One of its raw paths."""
        return self.below_path or _raw(self.parts)


@dataclass(frozen=True, slots=True)
class _Host:
    """A class of hosts."""

    name: str
    sample: bytes
    parent: bytes | None
    """A sample of the next wider class."""


class _Partition:
    """Walks all policies at once."""

    def __init__(self, policies: tuple[Policy, ...]) -> None:
        self._policies = policies
        self._readers = tuple(Reader.of(policy) for policy in policies)
        self._said: list[tuple[Claims | Decision, ...]] = []
        self._numbers: dict[object, int] = {}
        self._left = MOST_CLASSES
        self._names = {key: name for policy in policies for key, name in _names(policy)}

    def regions(self) -> Iterator[Region]:
        for host in _hosts(self._policies):
            start = tuple(reader.start(host.sample, host.parent) for reader in self._readers)
            classes = self._walk(host, start, ())
            for each in classes:
                if each.answer is not None:
                    yield from self._regions(host, each, each.answer)

    def _regions(self, host: _Host, each: _Class, answer: _Answer) -> Iterator[Region]:
        named: dict[int, list[str]] = {}
        for method, number in answer.named:
            named.setdefault(number, []).append(method)
        path = self._path(each)
        differ = frozenset(method for method, _ in answer.named)
        groups = [(number, Methods(frozenset(names), False)) for number, names in named.items()]
        for number, methods in [*groups, (answer.other, Methods(differ, True))]:
            method = _sample_method(differ) if methods.all_but else min(methods.names)
            request, said = Request(method, host.sample, each.path), self._said[number]
            yield Region(host.name, each.parts, each.below, path, methods, request, said)

    def _path(self, each: _Class) -> str:
        segments = tuple(None if part.kind is Kind.OTHER else part.text for part in each.parts)
        texts = [
            self._names.get(segments[: index + 1], "{any}") if segment is None else str(each.parts[index])
            for index, segment in enumerate(segments)
        ]
        return "/" + "/".join([*texts, "**"] if each.below else texts)

    def _walk(self, host: _Host, states: tuple[State, ...], parts: tuple[Part, ...]) -> list[_Class]:
        """The classes of all paths that begin so."""
        if host.parent is not None and not any(state.own for state in states):
            return [_Class(parts, True, None)]
        if all(state.settled for state in states):
            return [_Class(parts, True, self._answer(host, states, parts))]
        end = self._end(host, states, parts)
        rest = self._below(host, states, parts, _other(states))
        whole = rest[0].answer if rest[0].below else _NO_ANSWER
        children = list(self._children(host, states, parts, only_own=len(rest) == 1 and whole is None))
        explicit = [_Class(parts, False, end), *rest, *(each for child in children for each in child)]
        if whole is _NO_ANSWER or (whole is not None and any(each.answer is None for each in explicit)):
            return explicit
        return self._enclosed(parts, end, rest, children)

    def _enclosed(
        self, parts: tuple[Part, ...], end: _Answer | None, rest: list[_Class], children: list[list[_Class]]
    ) -> list[_Class]:
        """One class around all the others, which need not say again what it says already."""
        around = _Class(parts, True, rest[0].answer)
        found = [around]
        if end != around.answer:
            found = [around._replace(below_path=rest[0].path), _Class(parts, False, end)]
        found += rest[1:]
        for child in children:
            said = child[0].below and child[0].answer == around.answer
            alone = len(rest) == 1 or (len(child) == 1 and child[0].parts[-1].kind is Kind.EMPTY)
            found += child[1:] if said and alone else child
        return found

    def _children(
        self, host: _Host, states: tuple[State, ...], parts: tuple[Part, ...], *, only_own: bool
    ) -> Iterator[list[_Class]]:
        known = {literal for state in states for literal in state.literals(own=False)}
        families: dict[bytes, list[bytes]] = {}
        for literal in sorted(known):
            families.setdefault(fold(literal), []).append(literal)
        if only_own:
            own = {fold(literal) for state in states for literal in state.literals(own=True)}
            families = {name: literals for name, literals in families.items() if name in own}
        else:
            yield self._below(host, states, parts, Part(Kind.EMPTY, b"", b""))
        for literals in families.values():
            yield from self._family(host, states, parts, literals, known)

    def _family(
        self,
        host: _Host,
        states: tuple[State, ...],
        parts: tuple[Part, ...],
        literals: list[bytes],
        known: set[bytes],
    ) -> Iterator[list[_Class]]:
        """The spellings of one text that the policies have, and all others."""
        found = [
            self._below(host, states, parts, Part(Kind.LITERAL, literal, literal)) for literal in literals
        ]
        sample = _respelled(literals[0], known)
        if sample is not None:
            others = self._below(host, states, parts, Part(Kind.RESPELLED, literals[0], sample))
            if len(found) == 1 and _same(found[0], others, len(parts)):
                at = len(parts)
                found = [[_any_case(each, at) for each in found[0]]]
            else:
                found.append(others)
        yield from found

    def _below(
        self, host: _Host, states: tuple[State, ...], parts: tuple[Part, ...], part: Part
    ) -> list[_Class]:
        depth = len(parts) + 1
        after = tuple(
            reader.cut(reader.step(state, part.sample), depth, host.sample, host.parent)
            for reader, state in zip(self._readers, states, strict=True)
        )
        return self._walk(host, after, (*parts, part))

    def _end(self, host: _Host, states: tuple[State, ...], parts: tuple[Part, ...]) -> _Answer | None:
        if host.parent is not None and not any(any(state.slots(own=True)) for state in states):
            return None
        return self._answer(host, states, parts)

    def _answer(self, host: _Host, states: tuple[State, ...], parts: tuple[Part, ...]) -> _Answer:
        self._left -= 1
        if self._left < 0:
            raise TooManyClasses
        named = {method for state in states for slot in state.slots() for method in slot} - {ANY_METHOD}
        path = _raw(parts)
        claims = claims_of_reading if any(part.kind is Kind.EMPTY for part in parts) else claims_of
        other = self._number(claims, _sample_method(named), host.sample, path)
        numbers = [(method, self._number(claims, method, host.sample, path)) for method in sorted(named)]
        return _Answer(other, tuple(each for each in numbers if each[1] != other))

    def _number(self, claims: _Claims, method: str, host: bytes, path: bytes) -> int:
        said = tuple(claims(policy, method, host, path) for policy in self._policies)
        key = tuple(each.reason if isinstance(each, Decision) else (each.route, each.others) for each in said)
        number = self._numbers.setdefault(key, len(self._said))
        if number == len(self._said):
            self._said.append(said)
        return number


_Claims = Callable[[Policy, str, bytes, bytes], Claims | Decision]
_NO_ANSWER = _Answer(-1, ())


def _hosts(policies: tuple[Policy, ...]) -> list[_Host]:
    """Any host, then those that some policy names."""
    names = {name for policy in policies for name in policy.matcher.hosts}
    wildcards = {name[2:] for name in names if name.startswith("*.")}
    return [_Host("", b"", None), *(_host(name, wildcards) for name in sorted(names, key=_by_domain))]


def _by_domain(name: str) -> tuple[list[str], bool]:
    return name.removeprefix("*.").split(".")[::-1], not name.startswith("*.")


def _host(name: str, wildcards: set[str]) -> _Host:
    domain = name.removeprefix("*.")
    above = domain if domain != name else name
    parent = ""
    while "." in above and not parent:
        above = above.partition(".")[2]
        parent = f"=.{above}" if above in wildcards else ""
    return _Host(name, name.replace("*.", "=.", 1).encode(), parent.encode())


def _other(states: tuple[State, ...]) -> Part:
    sample = b"="
    while any(sample in state.literals(own=False) for state in states):
        sample += b"="
    return Part(Kind.OTHER, b"", sample)


def _respelled(literal: bytes, known: set[bytes]) -> bytes | None:
    """The same text with other capitals than anyone has written; None if there are none left."""
    text = literal.decode("utf-8", "surrogateescape")
    whole = (text.upper(), text.lower(), text.capitalize(), text.swapcase())
    single = (text[:index] + text[index:].swapcase() for index in range(1, len(text)))
    for candidate in (*whole, *single):
        sample = candidate.encode("utf-8", "surrogateescape")
        if sample not in known and fold(sample) == fold(literal):
            return sample
    return None


def _same(one: list[_Class], other: list[_Class], at: int) -> bool:
    """The classes differ in the part at this place only."""
    return [(*each.parts[:at], *each.parts[at + 1 :], each.below, each.answer) for each in one] == [
        (*each.parts[:at], *each.parts[at + 1 :], each.below, each.answer) for each in other
    ]


def _any_case(each: _Class, at: int) -> _Class:
    part = replace(each.parts[at], any_case=True)
    return each._replace(parts=(*each.parts[:at], part, *each.parts[at + 1 :]))


def _raw(parts: tuple[Part, ...]) -> bytes:
    """A raw path of this class."""
    segments = [quote(part.sample, safe=_SAFE) for part in parts]
    if segments and not segments[-1]:
        segments.append("=")
    return b"/" + "/".join(segments).encode()


def _sample_method(named: Collection[str]) -> str:
    return next((method for method in _METHODS if method not in named), ANY_METHOD)


def _names(policy: Policy) -> Iterator[tuple[tuple[Segment, ...], str]]:
    """What routes call the segments that can be any."""
    for route in policy.routes:
        texts = route.pattern.text.split("/")[1:]
        for index, segment in enumerate(route.pattern.segments):
            if segment is None:
                yield route.pattern.segments[: index + 1], texts[index]
