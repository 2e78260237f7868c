"""The classes of requests against the matcher itself: each request gets what its class says."""

from __future__ import annotations

import random
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy import partition
from gateway.policy.decide import claims_of, claims_of_reading
from gateway.policy.model import Claims, Decision, Route
from gateway.policy.readings import read
from gateway.policy.regions import Kind, Methods, Part, TooManyClasses, regions
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
          - {path: "/a/{b}/c/{d}/{e}", allow: admin}
        """
    )
    assert found == [
        "any method any host /**",
        "any method any host /a/{b}/c/{d}/{e}",
        "any method any host /admin/**",
        "any method any host /auth/**",
        "GET any host /health",
        "any method but GET any host /health",
        "DELETE any host /projects/{id}",
        "any method but DELETE any host /projects/{id}",
        "any method *.example.com /shop/**",
    ]


SETS = [Methods(frozenset(names), all_but) for names in ("", "A", "B", "AB") for all_but in (False, True)]


@pytest.mark.parametrize("one", SETS, ids=str)
@pytest.mark.parametrize("other", SETS, ids=str)
def test_methods_are_put_together(one: Methods, other: Methods) -> None:
    for method in "ABC":
        assert (method in one | other) is (method in one or method in other)


def told(text: str) -> list[str]:
    """Every class with its rules, and the request that stands for it. `~` is before other capitals than are
    written, and behind what may have any; `{}` is any other segment."""
    found = []
    for each in regions(policy(text)):
        path = "/" + "/".join([*map(segment, each.parts), *(["**"] if each.below else [])])
        (said,) = each.claims
        by = said.reason.value if isinstance(said, Decision) else " + ".join(map(label, rules_of(said)))
        sample = f"{each.request.method} {each.request.host.decode()}{each.request.path.decode()}"
        found.append(f"{each.methods} {each.host}{path}: {by} <- {sample}")
    return found


def segment(part: Part) -> str:
    if part.kind is Kind.OTHER:
        return "{}"
    return ("~" if part.kind is Kind.RESPELLED else "") + str(part) + ("~" if part.any_case else "")


def rules_of(claims: Claims) -> tuple[Route, ...]:
    return claims.route, *claims.others


def label(route: Route) -> str:
    return route.label


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        (
            """
            routes:
            - {path: /admin, allow: admin}
            - {path: /Admin/x, allow: nobody}
            """,
            [
                "any method /**: default <- GET /",
                "any method /Admin: default + /admin <- GET /Admin",
                "any method /Admin/x: /Admin/x + default <- GET /Admin/x",
                "any method /Admin/~x: default + /Admin/x <- GET /Admin/X",
                "any method /admin: /admin + default <- GET /admin",
                "any method /admin/x~: default + /Admin/x <- GET /admin/x",
                "any method /~Admin: default + /admin <- GET /ADMIN",
                "any method /~Admin/x~: default + /Admin/x <- GET /ADMIN/x",
                "any method /auth~/**: auth_prefix <- GET /auth",
            ],
        ),
        (
            """
            routes:
            - {path: /a., allow: admin}
            - {path: /a./x, allow: admin}
            - {path: /a, methods: [GET], allow: nobody}
            """,
            [
                "any method /**: default <- GET /",
                "GET /a: GET /a <- GET /a",
                "any method but GET /a: default <- POST /a",
                "GET /~a: default + GET /a <- GET /A",
                "any method but GET /~a: default <- POST /A",
                "GET /a.: /a. + GET /a <- GET /a.",
                "any method but GET /a.: /a. + default <- POST /a.",
                "any method /a./x: /a./x + default <- GET /a./x",
                "any method /a./~x: default + /a./x <- GET /a./X",
                "GET /~a.: default + /a. + GET /a <- GET /A.",
                "any method but GET /~a.: default + /a. <- POST /A.",
                "any method /~a./x~: default + /a./x <- GET /A./x",
                "any method /auth~/**: auth_prefix <- GET /auth",
            ],
        ),
        (
            """
            upstreams: [app, default]
            routes:
            - {path: /api/**, strip_prefix: /api, upstream: app, allow: authenticated}
            - {path: /secret, upstream: app, allow: admin}
            - {path: "/{any}/x", upstream: app, allow: nobody}
            """,
            [
                "any method /**: default <- GET /",
                "any method /{}/x: /{any}/x <- GET /=/x",
                "any method /{}/~x: default + /{any}/x <- GET /=/X",
                "any method /api/**: /api/** <- GET /api",
                "any method /api/{}/x~: /api/** + /{any}/x <- GET /api/=/x",
                "any method /api/api/**: /api/** <- GET /api/api",
                "any method /api/~api/**: /api/** <- GET /api/API",
                "any method /api/~api/x: /api/** + /{any}/x <- GET /api/API/x",
                "any method /api/secret~/**: /api/** <- GET /api/secret/=",
                "any method /api/secret~: /api/** + /secret <- GET /api/secret",
                "any method /api/secret~/x~: /api/** + /{any}/x <- GET /api/secret/x",
                "any method /api/x~/**: /api/** <- GET /api/x",
                "any method /api/x~/x~: /api/** + /{any}/x <- GET /api/x/x",
                "any method /~api/**: default + /api/** <- GET /API",
                "any method /~api/x: /{any}/x + /api/** <- GET /API/x",
                "any method /auth~/**: auth_prefix <- GET /auth",
                "any method /secret/**: default <- GET /secret/=",
                "any method /secret: /secret <- GET /secret",
                "any method /secret/x: /{any}/x <- GET /secret/x",
                "any method /secret/~x: default + /{any}/x <- GET /secret/X",
                "any method /~secret/**: default <- GET /SECRET/=",
                "any method /~secret: default + /secret <- GET /SECRET",
                "any method /~secret/x: /{any}/x <- GET /SECRET/x",
                "any method /~secret/~x: default + /{any}/x <- GET /SECRET/X",
            ],
        ),
        (
            """
            routes:
            - {path: /x, hosts: ["*.a.test"], allow: admin}
            - {path: /x, hosts: [b.a.test], allow: nobody}
            - {path: "/{n}/y", hosts: ["*.b.a.test", z.test], allow: admin}
            - {path: /x/y, allow: admin}
            """,
            [
                "any method /**: default <- GET /",
                "any method /auth~/**: auth_prefix <- GET /auth",
                "any method /x/y: /x/y <- GET /x/y",
                "any method /x/~y: default + /x/y <- GET /x/Y",
                "any method /~x/y~: default + /x/y <- GET /X/y",
                "any method *.a.test/x: *.a.test/x <- GET =.a.test/x",
                "any method *.a.test/~x: default + *.a.test/x <- GET =.a.test/X",
                "any method *.b.a.test/{}/y: *.b.a.test,z.test/{n}/y <- GET =.b.a.test/=/y",
                "any method *.b.a.test/{}/~y: default + *.b.a.test,z.test/{n}/y <- GET =.b.a.test/=/Y",
                "any method *.b.a.test/auth~/**: auth_prefix <- GET =.b.a.test/auth",
                "any method *.b.a.test/x~/y: *.b.a.test,z.test/{n}/y <- GET =.b.a.test/x/y",
                "any method *.b.a.test/x~/~y: default + *.b.a.test,z.test/{n}/y <- GET =.b.a.test/x/Y",
                "any method b.a.test/x: b.a.test/x <- GET b.a.test/x",
                "any method b.a.test/~x: default + b.a.test/x <- GET b.a.test/X",
                "any method z.test/{}/y: *.b.a.test,z.test/{n}/y <- GET z.test/=/y",
                "any method z.test/{}/~y: default + *.b.a.test,z.test/{n}/y <- GET z.test/=/Y",
                "any method z.test/auth~/**: auth_prefix <- GET z.test/auth",
                "any method z.test/x~/y: *.b.a.test,z.test/{n}/y <- GET z.test/x/y",
                "any method z.test/x~/~y: default + *.b.a.test,z.test/{n}/y <- GET z.test/x/Y",
            ],
        ),
        (
            """
            routes:
            - {path: /=, allow: admin}
            - {path: /b/**, allow: admin}
            - {path: "/b/{n}", methods: [PUT, DELETE], allow: nobody}
            """,
            [
                "any method /**: default <- GET /",
                "any method /=: /= <- GET /=",
                "any method /auth~/**: auth_prefix <- GET /auth",
                "any method /b/**: /b/** <- GET /b",
                "DELETE, PUT /b/{}: DELETE,PUT /b/{n} <- DELETE /b/=",
                "any method but DELETE, PUT /b/{}: /b/** <- GET /b/=",
                "any method /~b/**: default + /b/** <- GET /B",
                "DELETE, PUT /~b/{}: default + DELETE,PUT /b/{n} <- DELETE /B/=",
                "any method but DELETE, PUT /~b/{}: default + /b/** <- GET /B/=",
            ],
        ),
        (
            """
            auth: {prefix: /a/auth}
            routes:
            - {path: /a, allow: admin}
            - {path: "/{x}/auth", methods: [GET], allow: nobody}
            """,
            [
                "any method /**: default <- GET /",
                "GET /{}/auth: GET /{x}/auth <- GET /=/auth",
                "any method but GET /{}/auth: default <- POST /=/auth",
                "GET /{}/~auth: default + GET /{x}/auth <- GET /=/AUTH",
                "any method but GET /{}/~auth: default <- POST /=/AUTH",
                "any method /a/**: default <- GET /a/=",
                "any method /a: /a <- GET /a",
                "any method /a/auth~/**: auth_prefix <- GET /a/auth",
                "any method /~a/**: default <- GET /A/=",
                "any method /~a: default + /a <- GET /A",
                "any method /~a/auth~/**: auth_prefix <- GET /A/auth",
            ],
        ),
        (
            """
            routes:
            - {path: "/a/**", methods: [GET], allow: admin}
            - {path: "/**", methods: [POST], allow: nobody}
            """,
            [
                "POST /**: POST /** <- POST /",
                "any method but POST /**: default <- GET /",
                "GET /a/**: GET /a/** <- GET /a",
                "POST /a/**: POST /** <- POST /a",
                "any method but GET, POST /a/**: default <- PUT /a",
                "GET /~a/**: default + GET /a/** <- GET /A",
                "POST /~a/**: POST /** <- POST /A",
                "any method but GET, POST /~a/**: default <- PUT /A",
                "any method /auth~/**: auth_prefix <- GET /auth",
            ],
        ),
        (
            """
            routes:
            - {path: "/a/**", allow: admin}
            - {path: "/A/**", methods: [GET], allow: nobody}
            - {path: "/**", methods: [POST], allow: authenticated}
            """,
            [
                "POST /**: POST /** <- POST /",
                "any method but POST /**: default <- GET /",
                "GET /A/**: GET /A/** + /a/** <- GET /A",
                "POST /A/**: POST /** + /a/** <- POST /A",
                "any method but GET, POST /A/**: default + /a/** <- PUT /A",
                "GET /a/**: /a/** + GET /A/** <- GET /a",
                "POST /a/**: /a/** + POST /** <- POST /a",
                "any method but GET, POST /a/**: /a/** + default <- PUT /a",
                "any method /auth~/**: auth_prefix <- GET /auth",
            ],
        ),
        (
            """
            routes:
            - {path: /a/B, methods: [GET], allow: nobody}
            - {path: /A/x, allow: admin}
            """,
            [
                "any method /**: default <- GET /",
                "GET /A/B~: default + GET /a/B <- GET /A/B",
                "any method but GET /A/B~: default <- POST /A/B",
                "any method /A/x: /A/x + default <- GET /A/x",
                "any method /A/~x: default + /A/x <- GET /A/X",
                "GET /a/B: GET /a/B + default <- GET /a/B",
                "any method but GET /a/B: default <- POST /a/B",
                "GET /a/~B: default + GET /a/B <- GET /a/b",
                "any method but GET /a/~B: default <- POST /a/b",
                "any method /a/x~: default + /A/x <- GET /a/x",
                "any method /auth~/**: auth_prefix <- GET /auth",
            ],
        ),
        (
            """
            routes:
            - {path: /x, methods: [GET], hosts: [h.test], allow: admin}
            - {path: /, methods: [PUT], hosts: [g.test], allow: admin}
            - {path: /x, methods: [POST], allow: nobody}
            """,
            [
                "any method /**: default <- GET /",
                "any method /auth~/**: auth_prefix <- GET /auth",
                "POST /x: POST /x <- POST /x",
                "any method but POST /x: default <- GET /x",
                "POST /~x: default + POST /x <- POST /X",
                "any method but POST /~x: default <- GET /X",
                "PUT g.test/: PUT g.test/ <- PUT g.test/",
                "any method but PUT g.test/: default <- GET g.test/",
                "GET h.test/x: GET h.test/x <- GET h.test/x",
                "POST h.test/x: POST /x <- POST h.test/x",
                "any method but GET, POST h.test/x: default <- PUT h.test/x",
                "GET h.test/~x: default + GET h.test/x <- GET h.test/X",
                "POST h.test/~x: default + POST /x <- POST h.test/X",
                "any method but GET, POST h.test/~x: default <- PUT h.test/X",
            ],
        ),
        (
            """
            upstreams: [app, default]
            routes:
            - {path: "/v/1/x/**", hosts: [h.x], strip_prefix: /v/1, upstream: app, allow: authenticated}
            - {path: /x/y, upstream: app, allow: admin}
            """,
            [
                "any method /**: default <- GET /",
                "any method /auth~/**: auth_prefix <- GET /auth",
                "any method /x/y: /x/y <- GET /x/y",
                "any method /x/~y: default + /x/y <- GET /x/Y",
                "any method /~x/y~: default + /x/y <- GET /X/y",
                "any method h.x/v/1/x/**: h.x/v/1/x/** <- GET h.x/v/1/x",
                "any method h.x/v/1/x/y~: h.x/v/1/x/** + /x/y <- GET h.x/v/1/x/y",
                "any method h.x/v/1/~x/**: default + h.x/v/1/x/** <- GET h.x/v/1/X",
                "any method h.x/~v/1/x~/**: default + h.x/v/1/x/** <- GET h.x/V/1/x",
            ],
        ),
        (
            """
            upstreams: [app, default]
            routes:
            - {path: "/api/**", strip_prefix: /api, upstream: app, allow: authenticated}
            - {path: /api/b., strip_prefix: /api, upstream: app, allow: admin}
            - {path: /b, upstream: app, allow: nobody}
            """,
            [
                "any method /**: default <- GET /",
                "any method /api/**: /api/** <- GET /api",
                "any method /api/api~/b.~: /api/** + /api/b. <- GET /api/api/b.",
                "any method /api/b~: /api/** + /b <- GET /api/b",
                "any method /api/b.: /api/b. + /api/** + /b <- GET /api/b.",
                "any method /api/~b.: /api/** + /api/b. + /b <- GET /api/B.",
                "any method /~api/**: default + /api/** <- GET /API",
                "any method /~api/b.~: default + /api/** + /api/b. <- GET /API/b.",
                "any method /auth~/**: auth_prefix <- GET /auth",
                "any method /b: /b <- GET /b",
                "any method /~b: default + /b <- GET /B",
            ],
        ),
        (
            """
            auth: {prefix: /a/auth}
            routes:
            - {path: "/a./**", allow: admin}
            """,
            [
                "any method /**: default <- GET /",
                "any method /a~/auth~/**: auth_prefix <- GET /a/auth",
                "any method /a./**: /a./** + default <- GET /a.",
                "any method /a.//**: /a./** <- GET /a.//=",
                "any method /a./auth~/**: auth_prefix <- GET /a./auth",
                "any method /~a./**: default + /a./** <- GET /A.",
                "any method /~a./auth~/**: auth_prefix <- GET /A./auth",
            ],
        ),
    ],
)  # fmt: skip
def test_each_class_names_the_rules_of_its_requests(text: str, classes: list[str]) -> None:
    assert told(text) == classes


def test_too_many_are_refused_and_as_many_as_may_be_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = policy("routes: [{path: /a/b, allow: admin}, {path: /c, allow: public}]")
    monkeypatch.setattr(partition, "MOST_CLASSES", 9)
    assert len(list(regions(rules))) > 5
    monkeypatch.setattr(partition, "MOST_CLASSES", 8)
    with pytest.raises(TooManyClasses, match="more than 8 classes, too many to look at"):
        list(regions(rules))


@pytest.mark.parametrize("count", [2000])
def test_their_number_grows_with_the_rules(count: int) -> None:
    text = "\n".join(f"  - {{path: /r{index}/**, allow: admin}}" for index in range(count))
    found = list(regions(policy(f"routes:\n{text}")))
    assert len(found) < 3 * count
