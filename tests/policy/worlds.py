"""Random policies over few words, the requests that tell them apart, and which class a request is in."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import product

from gateway.policy.match import normal_host
from gateway.policy.model import Allow, Policy, Route
from gateway.policy.pattern import parse
from gateway.policy.readings import fold
from gateway.policy.regions import Kind, Part, Region

ALLOWS = (
    Allow(everybody_without_login=True),
    Allow(logged_in=True),
    Allow(admin=True),
    Allow(any_role=frozenset({"a", "b"})),
    Allow(),
)
WORDS = ("a", "A", "b", "{n}", "auth", "café")
SEGMENTS = ("a", "A", "b", "B", "x", "auth", "café", "CAFÉ", "")
HOSTS = ((), (), ("a.test",), ("*.test",), ("*.b.test", "a.test"))
ASKED_HOSTS = (b"", b"a.test:80", b"c.test", b"x.b.test", b"elsewhere")
METHODS = (None, None, frozenset({"GET"}), frozenset({"POST", "HEAD"}))
ASKED_METHODS = ("GET", "HEAD", "POST", "PUT")


def random_policy(rng: random.Random) -> Policy:
    """A few routes over few words, some of which differ by case only. No two take the same requests."""
    kept: list[Route] = []
    taken: set[object] = set()
    for index in range(rng.randrange(6)):
        parts = [rng.choice(WORDS) for _ in range(rng.randrange(4))]
        text = "/" + "/".join(parts + ["**"] * (rng.random() < 0.4))
        hosts, methods = rng.choice(HOSTS), rng.choice(METHODS)
        pattern = parse(text)
        strip = 1 if rng.random() < 0.3 and pattern.segments[:1] not in ((), (None,)) else 0
        upstream = rng.choice(("app", "behind"))
        route = Route(
            index, text, pattern, methods, hosts, rng.choice(ALLOWS), upstream, strip, "a.yaml", index
        )  # fmt: skip
        claimed = {(pattern.shape, methods, host) for host in hosts or ("",)}
        if taken.isdisjoint(claimed):
            taken |= claimed
            kept.append(route)
    default = Route(
        -1, "default", parse("/**"), None, (), rng.choice(ALLOWS[1:]), "app", 0, "gateway.yaml", 1
    )
    return Policy.build(tuple(kept), default, rng.choice(("/auth", "/auth", "/a/auth")))


def region_of(found: Iterable[Region], method: str, host: bytes, segments: list[bytes]) -> Region:
    """The most specific class that fits: hosts first, then segment by segment."""
    fitting = [
        (_host_rank(each, host), ranks, each)
        for each in found
        if method in each.methods and _fits_host(each, host)
        for ranks in _ranks(each, segments)
    ]
    best: dict[int, Region] = {}
    for rank, _, each in sorted(fitting, key=lambda fit: fit[:2]):
        best.setdefault(rank, each)
    return next(each for each in best.values() if not each.wider)


def _fits_host(each: Region, host: bytes) -> bool:
    name = normal_host(host).decode()
    if each.host.startswith("*."):
        return name.endswith(each.host[1:])
    return each.host in ("", name)


def _host_rank(each: Region, host: bytes) -> int:
    if not each.host:
        return 10_000
    return 1000 - len(each.host) if each.host.startswith("*.") else 0


def _ranks(each: Region, segments: list[bytes]) -> Iterator[tuple[int, ...]]:
    if len(segments) < len(each.parts) or (len(segments) > len(each.parts) and not each.below):
        return
    ranks = [_rank(part, segment) for part, segment in zip(each.parts, segments, strict=False)]
    if all(rank is not None for rank in ranks):
        yield (*(rank or 0 for rank in ranks), *((9,) if each.below else ()))


def _rank(part: Part, segment: bytes) -> int | None:
    if part.kind is Kind.EMPTY or not segment:
        return 0 if part.kind is Kind.EMPTY and not segment else None
    if part.kind is Kind.OTHER:
        return 5
    if part.kind is Kind.LITERAL and segment == part.text:
        return 0
    caseless = part.kind is Kind.RESPELLED or part.any_case
    return 1 if caseless and fold(part.text) == fold(segment) else None


def universe() -> Iterator[list[str]]:
    for length in range(4):
        for segments in product(SEGMENTS, repeat=length):
            if not segments or segments[-1]:
                yield list(segments)
