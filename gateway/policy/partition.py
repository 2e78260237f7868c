"""The work behind `regions`: a walk over all policies at once, which cuts paths into classes.

At each place the next segment is one that some policy knows there, or such a one with
other capitals, or empty, or any other. Every choice leads to a state of each policy, and
where all states are settled a class begins. On the way back classes that say the same are
put into one around them (`_enclosed`), as in a file where the most specific rule wins.

A state is worked out once, however many paths lead to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass, replace
from enum import Enum, unique
from typing import NamedTuple
from urllib.parse import quote

from gateway.policy.decide import claims_of, claims_of_reading
from gateway.policy.match import ANY_METHOD
from gateway.policy.model import Claims, Decision, Policy
from gateway.policy.readings import fold, is_plain
from gateway.policy.signatures import Signatures
from gateway.policy.states import Reader, State, sample_host

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
            f"the rules cut all requests into more than {MOST_CLASSES:,} classes, too many to look at"
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


class Answer(NamedTuple):
    """What is said for each method, as numbers of `Partition.said`."""

    other: int
    """For a method that is not named."""
    named: tuple[tuple[str, int], ...]
    """For those for which it differs."""


ALIKE = Answer(-1, ())
"""What all policies say alike, and nobody has asked for."""


class PathClass(NamedTuple):
    """A class of paths: those that no more specific class fits."""

    parts: tuple[Part, ...]
    """From the place on at which it was found; in the end from the root."""
    below: bool
    """Also all paths below."""
    answer: Answer | None
    """None: a wider class of hosts has it."""
    inside: tuple[Part, ...] = ()
    """Leads to a path of it, where another class begins with the same parts and ends there."""

    @property
    def path(self) -> bytes:
        """One of its raw paths."""
        segments = [_escaped(part) for part in self.parts + self.inside]
        return b"/" + b"/".join(segments if not segments or segments[-1] else [*segments, b"="])


@dataclass(frozen=True, slots=True)
class Host:
    """A class of hosts."""

    name: str
    """`*.` in front for all below; empty for any."""
    sample: bytes
    """One of them."""
    parent: bytes | None
    """A sample of the next wider class."""


class Partition:
    """Walks all policies at once. With `signatures` it does not look into what they treat alike.

    `plain`: only into paths that are spelled as some rule has them, without `//`.
    """

    def __init__(
        self, policies: tuple[Policy, ...], signatures: Signatures | None, *, plain: bool = False
    ) -> None:
        self.said: list[tuple[Claims | Decision, ...]] = []
        """What each policy says, once for each difference. `granted` is that of some request."""
        self._policies = policies
        self._signatures = signatures
        self._plain = plain
        self._readers = tuple(Reader.of(policy) for policy in policies)
        self._numbers: dict[Hashable, int] = {}
        self._known: dict[Hashable, list[PathClass]] = {}
        self._left = MOST_CLASSES
        self._backends: tuple[frozenset[str], ...] = ()

    def classes(self, host: Host) -> list[PathClass]:
        """The classes that matter to these hosts. Raises TooManyClasses."""
        self._known.clear()
        self._backends = tuple(reader.own_backends(host.sample, host.parent) for reader in self._readers)
        start = tuple(reader.start(host.sample, host.parent) for reader in self._readers)
        return self._walk(host, start, _ROOT)

    def _walk(self, host: Host, states: tuple[State, ...], at: _Prefix) -> list[PathClass]:
        """The classes of all paths that begin so, from there on."""
        if not at.plain:  # what follows may change readings of what was
            return self._classes(host, states, at)
        key = tuple(state.key for state in states)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._classes(host, states, at)
        return found

    def _classes(self, host: Host, states: tuple[State, ...], at: _Prefix) -> list[PathClass]:
        if host.parent is not None and not self._is_own(states, at):
            return [_NOTHING]
        if self._signatures is not None and at.plain and self._signatures.alike(states):
            return [PathClass((), True, ALIKE)]
        if all(state.settled for state in states):
            return [PathClass((), True, self._answer(host, states, at))]
        known = {literal for state in states for literal in state.literals()}
        end = PathClass((), False, self._end(host, states, at))
        rest = self._below(host, states, at, _other(known))
        children = list(self._children(host, states, at, known, only_own=_says_nothing(host, rest)))
        return _enclosed(end, rest, children)

    def _children(
        self, host: Host, states: tuple[State, ...], at: _Prefix, known: set[bytes], *, only_own: bool
    ) -> Iterator[list[PathClass]]:
        families: dict[bytes, list[bytes]] = {}
        for literal in sorted(known):
            families.setdefault(fold(literal), []).append(literal)
        if only_own:
            own = {fold(literal) for literal in self._own_literals(states, at)}
            families = {name: families[name] for name in sorted(own)}
        elif not self._plain:
            yield self._below(host, states, at, Part(Kind.EMPTY, b"", b""))
        for literals in families.values():
            yield from self._family(host, states, at, literals, known)

    def _is_own(self, states: tuple[State, ...], at: _Prefix) -> bool:
        return any(
            reader.is_own(state, at.depth, backends)
            for reader, state, backends in zip(self._readers, states, self._backends, strict=True)
        )

    def _own_literals(self, states: tuple[State, ...], at: _Prefix) -> Iterator[bytes]:
        for reader, state, backends in zip(self._readers, states, self._backends, strict=True):
            yield from reader.own_literals(state, at.depth, backends)

    def _family(
        self, host: Host, states: tuple[State, ...], at: _Prefix, literals: list[bytes], known: set[bytes]
    ) -> Iterator[list[PathClass]]:
        """The spellings of one text that the policies have, and all others."""
        found = [self._below(host, states, at, Part(Kind.LITERAL, each, each)) for each in literals]
        sample = None if self._plain else _respelled(literals[0], known)
        if sample is not None:
            others = self._below(host, states, at, Part(Kind.RESPELLED, literals[0], sample))
            if len(found) == 1 and _inner(found[0]) == _inner(others):
                found = [[_any_case(each) for each in found[0]]]
            else:
                found.append(others)
        yield from found

    def _below(self, host: Host, states: tuple[State, ...], at: _Prefix, part: Part) -> list[PathClass]:
        at = at.then(part)
        if at.plain or part.kind in (Kind.OTHER, Kind.EMPTY):
            after = tuple(
                reader.step(state, part.sample, at.depth, host.sample, host.parent)
                for reader, state in zip(self._readers, states, strict=True)
            )
        else:
            after = tuple(reader.reread(at.path, host.sample, host.parent) for reader in self._readers)
        return [PathClass((part, *each[0]), *each[1:]) for each in self._walk(host, after, at)]

    def _end(self, host: Host, states: tuple[State, ...], at: _Prefix) -> Answer | None:
        if host.parent is not None and not any(any(state.slots(own=True)) for state in states):
            return None
        if self._signatures is not None and at.plain and self._signatures.alike_here(states):
            return ALIKE
        return self._answer(host, states, at)

    def _answer(self, host: Host, states: tuple[State, ...], at: _Prefix) -> Answer:
        self._left -= 1
        if self._left < 0:
            raise TooManyClasses
        named = {method for state in states for slot in state.slots() for method in slot} - {ANY_METHOD}
        claims, path = (claims_of_reading, at.path + b"/=") if at.gap else (claims_of, at.path or b"/")
        other = self._number(claims, sample_method(named), host.sample, path)
        numbers = [(method, self._number(claims, method, host.sample, path)) for method in sorted(named)]
        return Answer(other, tuple(each for each in numbers if each[1] != other))

    def _number(self, claims: _Claims, method: str, host: bytes, path: bytes) -> int:
        said = tuple(claims(policy, method, host, path) for policy in self._policies)
        key = tuple(each.reason if isinstance(each, Decision) else (each.route, each.others) for each in said)
        number = self._numbers.setdefault(key, len(self.said))
        if number == len(self.said):
            self.said.append(said)
        return number


def hosts_of(policies: Collection[Policy]) -> list[Host]:
    """Any host, then those that some policy names."""
    names = {name for policy in policies for name in policy.matcher.hosts}
    wildcards = {name[2:] for name in names if name.startswith("*.")}
    return [Host("", b"", None), *(_host(name, wildcards) for name in sorted(names, key=_by_domain))]


@dataclass(frozen=True, slots=True)
class _Prefix:
    """The beginning of a path."""

    depth: int
    """How many segments."""
    path: bytes
    """It, raw."""
    plain: bool
    """It has one reading, whatever follows. A gap is none here: it is judged by its literal reading."""
    gap: bool
    """Ends with an empty segment, after which nothing makes a difference."""

    def then(self, part: Part) -> _Prefix:
        text = _escaped(part)
        plain = self.plain and (not text or is_plain(b"/" + text) is not None)
        return _Prefix(self.depth + 1, self.path + b"/" + text, plain, not text)


_ROOT = _Prefix(0, b"", True, False)


def _escaped(part: Part) -> bytes:
    return quote(part.sample, safe=_SAFE).encode()


def sample_method(named: Collection[str]) -> str:
    """A method that is none of these."""
    return next((method for method in _METHODS if method not in named), ANY_METHOD)


_Claims = Callable[[Policy, str, bytes, bytes], Claims | Decision]
_NOTHING = PathClass((), True, None)
"""A wider class of hosts says it."""


def _enclosed(end: PathClass, rest: list[PathClass], children: list[list[PathClass]]) -> list[PathClass]:
    """One class around all the others, which need not say again what it says already.

    `rest` are the classes of paths that go on with any other segment. If they are several,
    a child that says nothing new still keeps their rules away from itself.
    """
    explicit = [end, *rest, *(each for child in children for each in child)]
    around = rest[0]
    holes = around.answer is not None and any(each.answer is None for each in explicit)
    if not around.below or holes:
        return explicit
    found = [PathClass((), True, around.answer)]
    if end.answer != around.answer:
        found = [found[0]._replace(inside=around.parts + around.inside), end]
    found += rest[1:]
    for child in children:
        said = child[0].below and child[0].answer == around.answer
        alone = len(rest) == 1 or (len(child) == 1 and child[0].parts[0].kind is Kind.EMPTY)
        found += child[1:] if said and alone else child
    return found


def _says_nothing(host: Host, rest: list[PathClass]) -> bool:
    """Only segments that these hosts name can make a difference to them."""
    return host.parent is not None and len(rest) == 1 and rest[0].answer is None


def _inner(found: list[PathClass]) -> list[PathClass]:
    return [each._replace(parts=each.parts[1:]) for each in found]


def _any_case(each: PathClass) -> PathClass:
    return each._replace(parts=(replace(each.parts[0], any_case=True), *each.parts[1:]))


def _by_domain(name: str) -> tuple[list[str], bool]:
    return name.removeprefix("*.").split(".")[::-1], not name.startswith("*.")


def _host(name: str, wildcards: set[str]) -> Host:
    above = name.removeprefix("*.")
    parent = ""
    while "." in above and not parent:
        above = above.partition(".")[2]
        parent = f"*.{above}" if above in wildcards else ""
    return Host(name, sample_host(name), sample_host(parent))


def _other(known: set[bytes]) -> Part:
    sample = b"="
    while sample in known:
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
