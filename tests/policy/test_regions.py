"""The classes of requests against the matcher itself: each request gets what its class says."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import product
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.decide import claims_of, claims_of_reading
from gateway.policy.match import normal_host
from gateway.policy.model import Allow, Claims, Decision, Policy, Route
from gateway.policy.pattern import parse
from gateway.policy.readings import fold, read
from gateway.policy.regions import Kind, Part, Region, regions
from tests.policy.rules import policy

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
    """A few routes over few words, some of which differ by case only."""
    kept: dict[object, Route] = {}
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
        kept.setdefault((pattern.shape, methods, hosts), route)
    default = Route(
        -1, "default", parse("/**"), None, (), rng.choice(ALLOWS[1:]), "app", 0, "gateway.yaml", 1
    )
    return Policy.build(tuple(kept.values()), default, rng.choice(("/auth", "/a/auth")))


def region_of(found: Iterable[Region], method: str, host: bytes, segments: list[bytes]) -> Region:
    """The most specific class that fits: hosts first, then segment by segment."""
    fitting = [
        (_host_rank(each, host), ranks, each)
        for each in found
        if method in each.methods and _fits_host(each, host)
        for ranks in _ranks(each, segments)
    ]
    assert fitting, (method, host, segments)
    return min(fitting, key=lambda fit: fit[:2])[2]


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


def rules(claims: Claims | Decision) -> object:
    return claims.reason if isinstance(claims, Decision) else (claims.route, set(claims.others))


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_every_request_gets_what_its_class_says(rng: random.Random) -> None:
    policies = [random_policy(rng) for _ in range(rng.choice((1, 2)))]
    found = list(regions(*policies))
    paths = list(universe())
    for segments in rng.sample(paths, 60):
        host, method = rng.choice(ASKED_HOSTS), rng.choice(ASKED_METHODS)
        raw = "/" + "/".join(map(quote, segments))
        region = region_of(found, method, host, [segment.encode() for segment in segments])
        asked = claims_of_reading if "" in segments else claims_of
        for each, said in zip(policies, region.claims, strict=True):
            true = asked(each, method, host, raw.encode())
            assert rules(said) == rules(true), (
                method,
                host,
                raw,
                region,
                [str(r.label) for r in each.routes],
            )


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_its_sample_request_is_of_the_class(rng: random.Random) -> None:
    policies = [random_policy(rng), random_policy(rng)]
    found = list(regions(*policies))
    for region in found:
        reading, *_ = read(region.request.path)
        segments = reading.split(b"/")[1:]
        assert region_of(found, region.request.method, region.request.host, segments) is region


def shown(text: str) -> list[str]:
    return [
        f"{each.methods} {each.host or 'any host'} {each.path}"
        for each in regions(policy(text))
        if each.plain
    ]


def test_it_reads_like_the_file() -> None:
    found = shown(
        """
        routes:
          - {path: /health, methods: [GET], allow: public}
          - {path: /admin/**, allow: admin}
          - {path: "/projects/{id}", methods: [DELETE], allow: admin}
          - {path: /shop/**, hosts: ["*.example.com"], allow: public, trust_host: true}
        """
    )
    assert found == [
        "any method any host /**",
        "any method any host /admin/**",
        "any method any host /auth/**",
        "GET any host /health",
        "any method but GET any host /health",
        "DELETE any host /projects/{id}",
        "any method but DELETE any host /projects/{id}",
        "any method *.example.com /shop/**",
    ]


@pytest.mark.parametrize("count", [2000])
def test_their_number_grows_with_the_rules(count: int) -> None:
    text = "\n".join(f"  - {{path: /r{index}/**, allow: admin}}" for index in range(count))
    found = list(regions(policy(f"routes:\n{text}")))
    assert len(found) < 3 * count
