"""The most specific route for a request, in time that does not grow with the routes.

One trie per host. A node's children are literal segments and one for `{name}`; at a
node stand the routes that end there and those that go on below (`/**`), each by method.
Walking down prefers literal to `{name}` to `**`, then a method that is named to any,
and goes back wherever a branch has nothing for the method. A request asks its own host,
then wildcards from long to short, then the routes of every host.

`find` takes a path as it stands. `find_folded` takes it without case: where routes
differ only by case (`/Admin`, `/admin`) it answers with all that any spelling could
have chosen, for nobody can know which one the backend means.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from ipaddress import IPv6Address
from typing import Generic, Protocol, TypeVar

from gateway.policy.pattern import Pattern, Segment
from gateway.policy.readings import Reading, fold

ANY_METHOD = "*"
"""Key of the routes that name no method; no method of HTTP is called so."""

_MAX_HOST = 261
"""Bytes: a DNS name (253, RFC 1035 §2.3.4), a closing dot and a port. Nothing longer is a host."""
_HOSTS_REMEMBERED = 1024
"""Host headers whose tries are looked up once; bounded, since clients choose them."""


class Matchable(Protocol):
    """What a route must tell about itself."""

    @property
    def pattern(self) -> Pattern: ...
    @property
    def methods(self) -> frozenset[str] | None: ...
    @property
    def hosts(self) -> tuple[str, ...]: ...


R = TypeVar("R", bound=Matchable)


class Matcher(Generic[R]):
    """Finds routes. Built once; nothing changes afterwards but a bounded memory of hosts."""

    def __init__(self, routes: Iterable[R]) -> None:
        self._hosts: dict[bytes, Node[R]] = {}
        self._wildcards: dict[bytes, Node[R]] = {}
        self._every_host: Node[R] = Node()
        self.cased = False
        """Some pattern has letters that `fold` changes, so even a folded path needs `find_folded`."""
        for route in routes:
            for trie in [self._trie(host) for host in route.hosts] or [self._every_host]:
                self._plant(trie, route)
        # Not of a method: a circle would keep a policy that was replaced until garbage is collected.
        look_up = partial(_look_up, self._hosts, self._wildcards, self._every_host)
        self._tries = lru_cache(_HOSTS_REMEMBERED)(look_up)

    def find(self, method: str, host: bytes, reading: Reading) -> R | None:
        """The route for a path exactly as it is spelled, or None."""
        parts = reading.split(b"/")
        for trie in self._tries(host):
            found = _walk(trie, parts, 1, method)
            if found is not None:
                return found
        return None

    def find_folded(self, method: str, host: bytes, folded: Reading) -> set[R | None]:
        """The routes for all spellings of a path that `fold` made; None if some spelling has no route."""
        if not self.cased:
            return {self.find(method, host, folded)}
        parts = folded.split(b"/")
        found: set[R | None] = {None}
        for trie in self._tries(host):
            if None in found:
                found.discard(None)
                found |= _walk_folded(trie, parts, 1, method)
        return found

    @property
    def hosts(self) -> list[str]:
        """The hosts that some route names, `*.` in front for all below, in their normal form."""
        wildcards = [f"*.{name.decode()}" for name in self._wildcards]
        return sorted([*(name.decode() for name in self._hosts), *wildcards])

    def tries(self, host: bytes) -> tuple[Node[R], ...]:
        """Where a request with this Host header looks, in this order."""
        return self._tries(host)

    def overlapping(self, pattern: Pattern) -> Iterator[R]:
        """The routes of every host that share some path with `pattern`, whatever the method."""
        return _overlaps(self._every_host, pattern, 0)

    def _plant(self, node: Node[R], route: R) -> None:
        for segment in route.pattern.segments:
            node = self._child(node, segment)
        slot = node.below if route.pattern.below else node.exact
        for method in route.methods or (ANY_METHOD,):
            slot[method] = route
        if route.methods is not None and "GET" in route.methods:
            slot.setdefault("HEAD", route)  # a route that names HEAD itself overwrites it, or came first

    def _child(self, node: Node[R], segment: Segment) -> Node[R]:
        if segment is None:
            node.one = node.one or Node()
            return node.one
        child = node.literals.get(segment)
        if child is None:
            child = node.literals[segment] = Node()
            folded = fold(segment)
            node.folds.setdefault(folded, []).append(child)
            self.cased = self.cased or folded != segment
        return child

    def _trie(self, host: str) -> Node[R]:
        if host.startswith("*."):
            return self._wildcards.setdefault(normal_host(host[2:].encode()), Node())
        return self._hosts.setdefault(normal_host(host.encode()), Node())


def _look_up(
    hosts: Mapping[bytes, Node[R]], wildcards: Mapping[bytes, Node[R]], every_host: Node[R], host: bytes
) -> tuple[Node[R], ...]:
    name = normal_host(host)
    tries = [hosts.get(name)]
    while b"." in name:
        name = name.partition(b".")[2]
        tries.append(wildcards.get(name))
    return (*(trie for trie in tries if trie is not None), every_host)


class Node(Generic[R]):
    """A place in the trie, one segment deeper than its parent."""

    __slots__ = ("below", "exact", "folds", "literals", "one")

    def __init__(self) -> None:
        self.literals: dict[bytes, Node[R]] = {}
        """Children by segment."""
        self.folds: dict[bytes, list[Node[R]]] = {}
        """The same children by segment without case."""
        self.one: Node[R] | None = None
        """The child for `{name}`."""
        self.exact: dict[str, R] = {}
        """Routes that end here, by method."""
        self.below: dict[str, R] = {}
        """Routes with `/**` here, by method."""


def normal_host(host: bytes) -> bytes:
    """A Host header without case, port and trailing dot, IPv6 in its shortest form; empty if it is none."""
    match = _HOST.fullmatch(host) if len(host) <= _MAX_HOST else None
    if match is None:
        return b""
    name: bytes = match[1].lower().removesuffix(b".")
    if not name.startswith(b"["):
        return name
    try:
        return b"[%b]" % IPv6Address(name[1:-1].decode()).compressed.encode()
    except ValueError:
        return b""


_HOST = re.compile(rb"(\[[^\]]*\]|[^:\[\]]*)(?::[0-9]*)?")


def _walk(node: Node[R], parts: list[bytes], index: int, method: str) -> R | None:
    found: R | None = None
    if index == len(parts):
        if node.exact:
            found = _take(node.exact, method)
    else:
        part = parts[index]
        child = node.literals.get(part)
        if child is not None:
            found = _walk(child, parts, index + 1, method)
        if found is None and node.one is not None and part:
            found = _walk(node.one, parts, index + 1, method)
    if found is None and node.below:
        found = _take(node.below, method)
    return found


def _walk_folded(node: Node[R], parts: list[bytes], index: int, method: str) -> set[R | None]:
    """`_walk` for every spelling at once; one that finds nothing falls back by itself."""
    found: set[R | None] = set()
    if index == len(parts):
        found.add(_take(node.exact, method))
    else:
        for child in node.folds.get(parts[index], ()):
            found |= _walk_folded(child, parts, index + 1, method)
        if (not found or None in found) and node.one is not None and parts[index]:
            found.discard(None)
            found |= _walk_folded(node.one, parts, index + 1, method)
    if not found or None in found:
        found.discard(None)
        found.add(_take(node.below, method))
    return found


def _overlaps(node: Node[R], pattern: Pattern, index: int) -> Iterator[R]:
    yield from node.below.values()
    ended = index >= len(pattern.segments)
    if ended:
        yield from node.exact.values()
        if not pattern.below:
            return
    segment = None if ended else pattern.segments[index]
    literals = node.literals.values() if segment is None else [node.literals.get(segment)]
    for child in (*literals, node.one):
        if child is not None:
            yield from _overlaps(child, pattern, index + 1)


def _take(slot: dict[str, R], method: str) -> R | None:
    return slot.get(method) or slot.get(ANY_METHOD)
