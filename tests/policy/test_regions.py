"""The classes of requests against the matcher itself: each request gets what its class says."""

from __future__ import annotations

import random
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.decide import claims_of, claims_of_reading
from gateway.policy.model import Claims, Decision
from gateway.policy.readings import read
from gateway.policy.regions import regions
from tests.policy.rules import policy
from tests.policy.worlds import ASKED_HOSTS, ASKED_METHODS, random_policy, region_of, universe


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
