"""From `gateway.yaml` to rules: mistakes to the letter, warnings, and what is compiled."""

from __future__ import annotations

import shutil
import time
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml

from gateway.config.load import load
from gateway.http.cors import Cors
from gateway.http.header_edits import NO_EDITS, HeaderEdits
from gateway.policy.audience import who_passes
from gateway.policy.compile import canonical_email, compile_policy
from gateway.policy.model import Allow, Policy, RateLimit, Route
from gateway.policy.pattern import parse
from gateway.ratelimit import Rule
from tests.policy.rules import TOKENS, compiled, loaded, policy

MISTAKES = Path(__file__).parents[1] / "data" / "mistakes"
ENVIRON = {f"JWT_{kind.upper()}_SECRET": token["secret"] for kind, token in TOKENS.items()}


@pytest.mark.parametrize("name", sorted(path.stem for path in MISTAKES.glob("policy-*.yaml")))
def test_each_mistake_is_named_with_its_place(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(MISTAKES / f"{name}.yaml", "gateway.yaml")
    loaded = load(Path("gateway.yaml"), environ=ENVIRON)
    assert loaded.config is not None
    built, problems = compile_policy(loaded.config, loaded.places)
    assert built is None
    assert [str(problem) for problem in problems] == (MISTAKES / f"{name}.txt").read_text().splitlines()


def warnings(routes: str, **settings: object) -> list[str]:
    """What is said about rules that are valid."""
    built, problems = compiled({"upstream": "http://a", "routes": yaml.safe_load(routes), **settings})
    assert built is not None, problems
    assert all(problem.warning for problem in problems)
    return [f"{problem.path}: {problem.sentence}" for problem in problems]


def mistakes(routes: str, **settings: object) -> list[str]:
    built, problems = compiled({"upstream": "http://a", "routes": yaml.safe_load(routes), **settings})
    assert (built is None) == any(not problem.warning for problem in problems)
    return [problem.path for problem in problems if not problem.warning]


@pytest.mark.parametrize("segment", [":id", "<id>", "<int:id>", "[id]", "^a$", "(a|b)"])
def test_a_pattern_of_another_program_is_named(segment: str) -> None:
    assert warnings(f'- {{path: "/x/{segment}/**", allow: admin}}') == [
        f'routes[0].path: takes the segment "{segment}" as it stands; write {{name}} for any one segment'
    ]


@pytest.mark.parametrize("segment", ["v1:batch", "a:", ":", "$metadata", "Orders(1)", "~me", "c++", "a=b"])
def test_signs_that_clients_send_are_no_patterns(segment: str) -> None:
    assert warnings(f'- {{path: "/x/{segment}/**", allow: admin}}') == []


class TestMethodsThatFallThroughToAPublicRoute:
    def test_are_named(self) -> None:
        assert warnings("""
            - {path: /**, allow: admin}
            - {path: /blog/**, allow: public}
            - {path: "/blog/{id}", methods: [DELETE, PUT], allow: admin}
            - {path: /blog/drafts/**, methods: [GET, POST, PUT, PATCH, DELETE], allow: admin}
        """) == [
            "routes[2]: GET, HEAD, POST, PATCH, OPTIONS fall through"
            " to routes[1] on line 10, which is public",
            "routes[3]: OPTIONS falls through to routes[1] on line 10, which is public",
        ]

    def test_unless_a_route_for_the_same_paths_names_them(self) -> None:
        assert (
            warnings("""
            - {path: "/blog/{id}", methods: [DELETE], allow: admin}
            - {path: "/blog/{name}", methods: [GET], allow: public}
        """)
            == []
        )

    def test_also_where_a_less_specific_route_names_them(self) -> None:
        assert (
            len(
                warnings("""
            - {path: "/blog/{id}", methods: [DELETE], allow: admin}
            - {path: /blog/**, methods: [GET], allow: public}
        """)
            )
            == 1
        )

    def test_also_where_the_same_paths_are_public_for_all_others(self) -> None:
        assert warnings("""
            - {path: "/blog/{id}", methods: [DELETE], allow: admin}
            - {path: "/blog/{name}", allow: public}
        """) == [
            "routes[0]: GET, HEAD, POST, PUT, PATCH, OPTIONS fall through"
            " to routes[1] on line 12, which is public"
        ]

    def test_what_falls_to_a_login_or_to_a_more_specific_route_is_nobodys_surprise(self) -> None:
        assert (
            warnings("""
            - {path: /pub, allow: public}
            - {path: "/a/{id}", methods: [DELETE], allow: admin}
            - {path: /a/**, allow: authenticated}
            - {path: /b/**, allow: admin}
            - {path: "/b/{id}", methods: [GET], allow: public}
        """)
            == []
        )

    def test_a_public_route_may_fall_through(self) -> None:
        assert (
            warnings("""
            - {path: /a, methods: [GET], allow: public}
            - {path: /a/**, allow: public}
        """)
            == []
        )


class TestALiteralPathThatIsStricterThanWhatLiesBelow:
    def test_is_named(self) -> None:
        assert warnings("""
            - {path: /admin.php, allow: admin}
            - {path: /health, methods: [GET], allow: public}
            - {path: /me, allow: authenticated}
            - {path: "/things/{id}", allow: admin}
            - {path: /, allow: admin}
        """) == [
            "routes[0]: is stricter than what lies below it: /admin.php/… gets the default;"
            " write /admin.php/** for both"
        ]

    def test_with_what_answers_there(self) -> None:
        assert warnings(
            """
            - {path: /a/, allow: admin}
            - {path: /a/**, allow: authenticated}
            - {path: /b, methods: [DELETE], allow: admin}
            - {path: /b/**, methods: [DELETE], allow: admin}
            - {path: /c, methods: [PROPFIND], allow: admin}
            - {path: /c/**, methods: [PROPFIND], allow: authenticated}
        """,
            default="nobody",
        ) == [
            "routes[0]: is stricter than what lies below it: /a/… gets routes[1] on line 10;"
            " write /a/** for both",
            "routes[4]: is stricter than what lies below it: /c/… gets routes[5] on line 24;"
            " write /c/** for both",
        ]
        assert (
            warnings("""
            - {path: /b, methods: [DELETE], allow: admin}
            - {path: /b/**, methods: [DELETE], allow: admin}
        """)
            == []
        )

    def test_only_for_its_own_methods_host_and_backend(self) -> None:
        assert (
            warnings(
                """
            - {path: /a, methods: [DELETE], allow: admin, upstream: a}
            - {path: /a/**, methods: [DELETE], allow: admin, upstream: a}
            - {path: /b, allow: admin, upstream: b}
            - {path: /b/**, allow: public, upstream: a}
            - {path: /c, hosts: ["*.example.com"], allow: admin, upstream: a}
            - {path: /c/**, hosts: [x.example.com, "*.example.com"], allow: nobody, upstream: a}
        """,
                upstream="http://a",
                upstreams={"a": {"url": "http://b"}, "b": {"url": "http://c"}},
            )
            == []
        )


def test_a_public_rest_is_worth_a_warning() -> None:
    assert warnings("- {path: /**, allow: public}") == [
        "routes[0]: opens every path that no other route names to everyone"
    ]


class TestARouteWithHosts:
    def test_must_not_be_laxer_than_the_one_without(self) -> None:
        assert mistakes("""
            - {path: /a/**, allow: admin}
            - {path: "/{x}/b", hosts: [h.x], allow: authenticated}
        """) == ["routes[1]"]
        assert mistakes("""
            - {path: "/a/{x}", methods: [POST], allow: admin}
            - {path: /**, hosts: ["*.x"], allow: public}
        """) == ["routes[1]"]
        assert mistakes("""
            - {path: /**, methods: [POST], hosts: [h.x], allow: public}
            - {path: /**, methods: [PUT, POST], allow: nobody}
        """) == ["routes[0]"]

    @pytest.mark.parametrize(
        "routes",
        [
            # a method that few know, named by the one or by the other
            """
            - {path: /a/**, allow: admin}
            - {path: /a/**, methods: [PROPFIND], hosts: [h.x], allow: public}
            """,
            """
            - {path: /a/**, methods: [PROPFIND], allow: admin}
            - {path: /a/**, hosts: [h.x], allow: public}
            """,
            # only below the path itself, which the host has closed
            """
            - {path: /a/**, allow: admin}
            - {path: /a/**, hosts: [h.x], allow: public}
            - {path: /a, hosts: [h.x], allow: nobody}
            """,
            # for one of its hosts
            """
            - {path: /a/**, allow: admin}
            - {path: "/{s}/b", hosts: [h.x, g.x], allow: authenticated}
            - {path: /a/b, hosts: [g.x], allow: admin}
            """,
            """
            - {path: /a/**, allow: admin}
            - {path: "/{s}/b", hosts: [g.x, h.x], allow: authenticated}
            - {path: /a/b, hosts: [g.x], allow: admin}
            """,
        ],
    )
    def test_must_not_be_laxer_anywhere(self, routes: str) -> None:
        assert mistakes(routes) == ["routes[1]"]

    def test_may_be_laxer_where_they_do_not_meet(self) -> None:
        assert (
            mistakes("""
            - {path: /a/**, allow: admin}
            - {path: /b/**, hosts: [h.x], allow: public}
            - {path: /c, methods: [PUT], hosts: [h.x], allow: public}
            - {path: /c, methods: [POST], allow: admin}
            - {path: /d/e, hosts: [h.x], allow: public}
            - {path: /d/**, allow: admin}
            - {path: /d/e, allow: public}
        """)
            == []
        )

    def test_may_be_laxer_elsewhere_if_a_stricter_one_of_the_host_stands_before_it(self) -> None:
        assert (
            mistakes("""
            - {path: /a/**, allow: admin}
            - {path: /**, hosts: [h.x], allow: authenticated}
            - {path: /a/**, hosts: [h.x], allow: admin}
        """)
            == []
        )

    def test_may_be_laxer_on_another_backend_or_if_the_host_can_be_trusted(self) -> None:
        assert (
            mistakes(
                """
            - {path: /**, allow: admin}
            - {path: /x/**, hosts: [h.x], allow: public, trust_host: true}
            - {path: /y/**, hosts: [h.x], allow: public, upstream: b}
        """,
                upstreams={"b": {"url": "http://b"}},
            )
            == []
        )


@pytest.mark.parametrize(
    ("one", "other", "follows"),
    [
        ("nobody", "admin", True),
        ("admin", "nobody", False),
        ("admin", "public", True),
        ("admin", "authenticated", True),
        ("authenticated", "admin", False),
        ("public", "authenticated", False),
        ("admin", {"roles": {"any": ["a"]}}, False),
        ({"roles": {"any": ["a"]}}, "authenticated", True),
        ({"roles": {"any": ["a"]}}, {"roles": {"any": ["a", "b"]}}, True),
        ({"roles": {"any": ["a", "b"]}}, {"roles": {"any": ["a"]}}, False),
        ({"roles": {"all": ["a", "b"]}}, {"roles": {"any": ["b", "c"]}}, True),
        ({"roles": {"all": ["a", "b"]}}, {"roles": {"all": ["a"]}}, True),
        ({"roles": {"any": ["a"]}}, {"roles": {"all": ["a"]}}, True),
        ({"roles": {"any": ["a", "b"]}}, {"roles": {"all": ["a"]}}, False),
        ({"users": ["a@x"]}, {"users": ["a@x", "b@x"]}, True),
        ({"users": ["a@x", "b@x"]}, {"users": ["a@x"]}, False),
        ("authenticated", {"users": ["a@x"]}, False),
        ({"networks": ["10.1.0.0/16"]}, {"networks": ["10.0.0.0/8"]}, True),
        ({"networks": ["10.0.0.0/8"]}, {"networks": ["10.1.0.0/16"]}, False),
        ({"networks": ["::/0"]}, {"networks": ["10.0.0.0/8"]}, False),
        ({"networks": ["10.0.0.0/8"]}, "public", True),
        ({"networks": ["10.0.0.0/8"]}, "authenticated", False),
        ("admin", {"networks": ["10.0.0.0/8"]}, False),
    ],
)
def test_who_passes_one_rule_passes_the_other(one: object, other: object, follows: bool) -> None:
    settings = {"upstream": "http://a", "default": "nobody"}
    routes = [{"path": "/a/**", "allow": one}, {"path": "/b/**", "allow": other}]
    built, _ = compiled({**settings, "routes": routes})
    assert built is not None
    assert (who_passes(built.routes[0]) <= who_passes(built.routes[1])) is follows


def test_what_is_compiled() -> None:
    built = policy("""
        upstreams: [app, default]
        default: admin
        routes:
          - path: /reports/{id}/**
            methods: [POST, GET]
            hosts: [Example.com., "*.example.com"]
            allow: {roles: {all: [b, a]}, users: [" Ann@Example.com "], networks: [10.0.0.0/8]}
            upstream: app
            strip_prefix: /reports/
          - {path: /x/, allow: authenticated}
    """)
    first, second = built.routes
    assert (first.index, first.label) == (0, "GET,POST example.com,*.example.com/reports/{id}/**")
    assert first.methods == {"GET", "POST"}
    assert first.hosts == ("example.com", "*.example.com")
    assert (first.upstream, first.strip) == ("app", 1)
    assert first.allow == Allow(
        all_roles=frozenset({"a", "b"}),
        users=frozenset({"ann@example.com"}),
        networks=(ip_network("10.0.0.0/8"),),
    )
    assert (second.label, second.upstream, second.strip) == ("/x/", "default", 0)
    assert (second.methods, second.hosts) == (None, ())
    assert Path(first.file).name == "gateway.yaml"
    assert first.line < second.line
    assert (built.default.index, built.default.label, built.default.upstream) == (-1, "default", "default")
    assert built.default.allow == Allow(admin=True)
    assert "memory" not in repr(built)


def test_what_a_route_says_of_its_traffic() -> None:
    built = policy("""
        routes:
          - path: /up/**
            allow: authenticated
            upgrade: [WebSocket, SPDY/3.1]
            timeout: 5m
            body: 1GiB
            rate_limit: {per_user: 100/minute, per_address: 20/second}
            headers:
              request: {add: {X-Tenant: a}, remove: [Cookie]}
              response: {add: {Cache-Control: no-store}, remove: [Server]}
          - {path: /half/**, allow: public, rate_limit: {per_address: 5/10s}}
          - {path: /plain/**, allow: public, rate_limit: {}, headers: {response: {}}, upgrade: []}
    """)
    route, half, plain = built.routes
    assert route.upgrade == frozenset({b"websocket", b"spdy/3.1"})
    assert (route.timeout, route.body) == (300.0, 1 << 30)
    assert route.rate_limit == RateLimit(Rule(100, 60, "route-user"), Rule(20, 1, "route-address"))
    assert route.request_headers == HeaderEdits(((b"X-Tenant", b"a"),), (b"Cookie",))
    assert route.response_headers == HeaderEdits(((b"Cache-Control", b"no-store"),), (b"Server",))
    assert half.rate_limit == RateLimit(None, Rule(5, 10, "route-address"))
    for nothing in (plain, built.default):
        assert (nothing.upgrade, nothing.timeout, nothing.body) == (frozenset(), None, None)
        assert (nothing.rate_limit, nothing.request_headers) == (None, NO_EDITS)
        assert nothing.response_headers == NO_EDITS


def test_which_pages_may_call() -> None:
    """An exact origin must not become the beginning of others, nor a domain a name of its own."""
    built = policy("""
        routes:
          - path: /api/**
            allow: authenticated
            cors:
              origins: [https://app.example.com, https://*.example.org]
              headers: [X-Requested-With]
              expose: [X-Total-Count]
              credentials: true
              max_age: 5m
          - {path: /plain/**, allow: authenticated}
    """)
    route, plain = built.routes
    assert route.cors == Cors(
        origins=frozenset({b"https://app.example.com"}),
        origin_suffixes=((b"https://", b".example.org"),),
        headers=frozenset({b"x-requested-with"}),
        expose=(b"X-Total-Count",),
        credentials=True,
        max_age=300,
    )
    assert (plain.cors, built.default.cors) == (None, None)


def test_what_holds_for_every_route_holds_for_the_default() -> None:
    built = policy("""
        default: authenticated
        defaults:
          timeout: 5m
          body: 1MiB
          upgrade: [WebSocket]
          rate_limit: {per_user: 100/minute}
          headers: {request: {remove: [Cookie]}, response: {add: {X-Frame-Options: DENY}}}
          cors: {origins: ["*"]}
        routes: [{path: /a, allow: public}]
    """)
    default = built.default
    assert (default.timeout, default.body, default.upgrade) == (300.0, 1 << 20, frozenset({b"websocket"}))
    assert default.rate_limit == RateLimit(Rule(100, 60, "route-user"), None)
    assert (default.request_headers, default.response_headers) == (
        HeaderEdits((), (b"Cookie",)),
        HeaderEdits(((b"X-Frame-Options", b"DENY"),), ()),
    )
    assert default.cors is not None
    assert (default.hosts, default.methods, default.strip, default.report_only) == ((), None, 0, False)
    assert (Path(default.file).name, default.line) == ("gateway.yaml", 7)


def test_a_file_on_trial_refuses_nothing_not_even_by_its_default() -> None:
    result = loaded({"upstream": "http://a", "routes": [{"path": "/a", "allow": "admin"}]})
    assert result.config is not None
    for report_only in (True, False):
        built, _ = compile_policy(result.config, result.places, report_only=report_only)
        assert built is not None
        assert [route.report_only for route in (*built.routes, built.default)] == [report_only] * 2


def test_a_limit_per_user_does_not_guard_a_public_route() -> None:
    text = "- {{path: /a, allow: {allow}, rate_limit: {{{limits}}}}}".format
    assert said(text(allow="public", limits="per_user: 5/s")) == [
        "routes[0].rate_limit.per_user: limits nobody who has no login, "
        "and a public route asks for none; add per_address"
    ]
    assert said(text(allow="public", limits="per_user: 5/s, per_address: 9/s")) == []
    assert said(text(allow="authenticated", limits="per_user: 5/s")) == []


def said(routes: str) -> list[str]:
    result = loaded({"upstream": "http://a", "routes": yaml.safe_load(routes)})
    assert all(problem.warning for problem in result.problems)
    return [
        f"{problem.path}: {problem.sentence}" for problem in result.problems if problem.path[:6] == "routes"
    ]


def test_an_email_is_folded_until_nothing_changes() -> None:
    assert canonical_email(" Ann@Example.com") == "ann@example.com"
    folded = canonical_email("\u1fb7\u0300@x")  # once is not enough for this one
    assert canonical_email(folded) == folded
    built = policy('{routes: [{path: /a, allow: {users: ["\\u1fb7\\u0300@x"]}}]}')
    assert built.routes[0].allow.users == {folded}


def test_with_nothing_to_forward_the_default_needs_no_backend() -> None:
    built = policy("{upstreams: [a, b], default: nobody, routes: [{path: /**, allow: admin, upstream: b}]}")
    assert (built.default.upstream, built.routes[0].upstream) == ("", "b")


def test_ten_thousand_routes_match_as_ten_do() -> None:
    """Generous bounds: this shows growth, not speed."""
    small, large = many(10), many(10_000)
    start = time.process_time()
    Policy.build(large.routes, large.default, "/auth")
    assert time.process_time() - start < 5
    assert cost(large, 5_000) < 20 * cost(small, 5)


def many(count: int) -> Policy:
    routes = [
        Route(n, "", parse(f"/api/s{n}/items/{{id}}"), None, (), Allow(admin=True), "app", 0, "", 0)
        for n in range(count)
    ]
    return Policy.build(tuple(routes), routes[0], "/auth")


def cost(built: Policy, number: int) -> float:
    path = f"/api/s{number}/items/42".encode()
    assert built.matcher.find("DELETE", b"", path) is built.routes[number]
    runs = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(500):
            built.matcher.find("DELETE", b"", path)
        runs.append(time.perf_counter() - start)
    return min(runs)
