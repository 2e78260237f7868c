"""What a decision says, beyond the table."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from gateway.errors import Forbidden, NotFound, Unauthorized
from gateway.http.cors import NO_PAGES
from gateway.identity.principal import Principal
from gateway.policy import decide as room
from gateway.policy.compile import compile_policy
from gateway.policy.decide import Decision, Verdict, claims_of, decide
from gateway.policy.model import Address, Allow, Claims, Policy, Reason
from gateway.policy.readings import strip
from tests.policy.rules import ADMIN, USER, loaded, person, policy

RULES = """
    default: authenticated
    routes:
      - {path: /public/**, allow: public}
      - {path: /public/office/**, allow: {networks: [10.0.0.0/8]}}
      - {path: /public/admin/**, allow: admin}
      - {path: /closed/**, allow: nobody}
"""


def ask(
    path: bytes,
    principal: Principal | None = None,
    *,
    rules: Policy | None = None,
    method: str = "GET",
    host: bytes = b"app.example.com",
    address: Address | None = None,
) -> Decision:
    return decide(
        rules or policy(RULES),
        method=method,
        host=host,
        path=path,
        principal=principal,
        address=address,
        now=0.0,
    )


def test_an_allowed_request() -> None:
    decision = ask(b"/public/x")
    assert decision.verdict is Verdict.ALLOW
    assert (decision.reason, decision.path, decision.error) == (Reason.PUBLIC, b"/public/x", None)
    assert decision.route is policy(RULES).routes[0]


def test_each_refusal_has_its_error() -> None:
    assert isinstance(ask(b"/x").error, Unauthorized)
    assert ask(b"/x").verdict is Verdict.UNAUTHENTICATED
    assert isinstance(ask(b"/public/admin", USER).error, Forbidden)
    assert ask(b"/closed").verdict is Verdict.FORBIDDEN
    look_alike = ask(b"/AUTH/login", ADMIN)
    assert (look_alike.verdict, look_alike.reason) == (Verdict.REFUSED, Reason.AUTH_PREFIX)
    assert isinstance(look_alike.error, NotFound)
    assert look_alike.route is policy(RULES).default


def test_the_literal_reading_is_reported_first() -> None:
    assert ask(b"/x%2F..%2Fy").reason is Reason.DOT_SEGMENT
    assert ask(b"/public%2Fadmin").reason is Reason.NO_CREDENTIAL
    assert ask(b"/public%2Fadmin", USER).reason is Reason.OTHER_READING
    assert ask(b"/public//admin").reason is Reason.OTHER_READING
    assert ask(b"/public//admin").verdict is Verdict.UNAUTHENTICATED


def test_no_login_is_asked_for_where_none_would_help() -> None:
    """/public;/admin/..: one reading wants an admin, another is closed to this network."""
    path = b"/public//office%3b%2f..x"
    assert ask(path).verdict is Verdict.FORBIDDEN
    assert ask(b"/public//office", address=ip_address("10.0.0.1")).verdict is Verdict.ALLOW
    both = policy("""
        routes:
          - {path: /a/**, allow: public}
          - {path: /a/b, allow: admin}
          - {path: /a/b/c, allow: nobody}
    """)
    assert ask(b"/a//b;/c", rules=both).reason is Reason.OTHER_READING
    assert ask(b"/a//b;/c", rules=both).verdict is Verdict.FORBIDDEN
    assert ask(b"/a//b;/d", rules=both).verdict is Verdict.UNAUTHENTICATED


class TestRateLimits:
    """Of every reading: `/x//api` must not be a way around the limits of `/x/api`."""

    RULES = """
        routes:
          - {path: /x/**, allow: authenticated}
          - {path: /x/api/**, allow: authenticated, rate_limit: {per_user: 5/minute}}
          - {path: /x/api/slow, allow: authenticated, rate_limit: {per_address: 1/minute}}
    """

    def limits(self, path: bytes, rules: Policy) -> list[str]:
        claims = claims_of(rules, "GET", b"a", path)
        assert not isinstance(claims, Decision)
        return [route.label for route in claims.limited]

    def test_of_every_reading_count(self) -> None:
        rules = policy(self.RULES)
        assert self.limits(b"/x/y", rules) == []
        assert self.limits(b"/x/api/y", rules) == ["/x/api/**"]
        assert self.limits(b"/x//api/y", rules) == ["/x/api/**"]
        assert self.limits(b"/X/API/y", rules) == ["/x/api/**"]
        assert self.limits(b"/x/api;/slow", rules) == ["/x/api/**", "/x/api/slow"]
        assert self.limits(b"/x/api/slow", rules) == ["/x/api/slow"]

    def test_of_what_is_behind_a_stripped_prefix_count_too(self) -> None:
        rules = policy("""
            routes:
              - {path: /v1/**, allow: authenticated, strip_prefix: /v1}
              - {path: /api/**, allow: authenticated, rate_limit: {per_user: 5/minute}}
        """)
        assert self.limits(b"/v1/api/x", rules) == ["/api/**"]

    def test_of_a_path_that_nobody_may_send_are_not_asked(self) -> None:
        refusal = claims_of(policy(self.RULES), "GET", b"a", b"/x/api/../slow")
        assert isinstance(refusal, Decision)
        assert refusal.reason is Reason.DOT_SEGMENT


class TestSeveralReadings:
    """What depends on more than the caller is gathered from every reading as well."""

    RULES = """
        routes:
          - {path: /shop/**, allow: public, cors: {origins: ["https://app.example.com"]}}
          - {path: /shop/sale/**, allow: public, valid: {until: 2030-01-01}}
          - {path: /shop/same/**, allow: public, cors: {origins: ["https://app.example.com"]}}
          - {path: /club/**, allow: public}
    """

    def claims(self, path: bytes) -> Claims:
        claims = claims_of(policy(self.RULES), "GET", b"a", path)
        assert isinstance(claims, Claims)
        return claims

    def test_the_clock_is_looked_at_if_any_of_them_holds_for_a_time(self) -> None:
        assert self.claims(b"/shop/sale/x").timed
        assert self.claims(b"/shop//sale/x").timed
        assert not self.claims(b"/shop//x").timed

    def test_a_page_of_another_origin_may_use_only_what_all_of_them_open_to_it(self) -> None:
        app = b"https://app.example.com"
        shop = self.claims(b"/shop/x").cors
        assert shop is not None
        assert shop.admits(app)
        assert self.claims(b"/shop//sale/x").cors is NO_PAGES
        assert self.claims(b"/shop//same/x").cors == shop
        assert self.claims(b"/club/x").cors is None


def test_on_trial_what_has_no_backend_is_refused_all_the_same() -> None:
    """`--report-only` lets pass what rules refuse; the default of this file has nowhere to send it."""
    read = loaded(
        {
            "upstreams": {name: {"url": "http://127.0.0.1:9000"} for name in ("shop", "blog")},
            "default": "nobody",
            "routes": [{"path": "/shop/**", "allow": "nobody", "upstream": "shop"}],
        }
    )
    assert read.config is not None
    trial, _ = compile_policy(read.config, read.places, report_only=True)
    assert trial is not None
    assert ask(b"/shop", rules=trial).reason is Reason.REPORT_ONLY
    assert ask(b"/else", rules=trial).reason is Reason.NOBODY
    assert ask(b"/else", rules=trial).verdict is Verdict.FORBIDDEN


def test_what_is_remembered_is_the_request_line_and_not_the_caller() -> None:
    rules = policy("routes: [{path: /m/admin, allow: admin}]")
    for _ in range(3):
        assert ask(b"/m/admin", ADMIN, rules=rules).verdict is Verdict.ALLOW
        assert ask(b"/m/admin", USER, rules=rules).verdict is Verdict.FORBIDDEN
        assert ask(b"/m/admin", rules=rules).verdict is Verdict.UNAUTHENTICATED
    assert len(rules.memory) == 1
    assert ask(b"/m/admin", ADMIN, rules=rules) is ask(b"/m/admin", ADMIN, rules=rules)
    ask(b"/m/other", rules=rules)
    assert len(rules.memory) == 2


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_REMEMBERED", 10)
    rules = policy("routes: [{path: /n/**, allow: public}]")
    for number in range(95):
        ask(b"/n/%d" % number, rules=rules)
        assert len(rules.memory) <= 10
    rules.memory.clear()
    ask(b"/n/" + b"x" * 1000, rules=rules)
    ask(b"/n/..", rules=rules)
    assert not rules.memory


@pytest.mark.parametrize(
    ("path", "count", "left"),
    [
        (b"/a", 1, b"/"),
        (b"/a/", 1, b"/"),
        (b"/a/b", 1, b"/b"),
        (b"/a/b/", 1, b"/b/"),
        (b"/a//b", 1, b"//b"),
        (b"/%61/b%2Fc", 1, b"/b%2Fc"),
        (b"/a/b/c", 2, b"/c"),
        (b"/a/b", 2, b"/"),
    ],
)
def test_stripping_leaves_the_rest_untouched(path: bytes, count: int, left: bytes) -> None:
    assert strip(path, count) == left


class TestAllow:
    def test_an_allow_that_names_nothing_lets_nobody_in(self) -> None:
        for caller in (None, USER, ADMIN):
            assert Allow().refusal(caller, ip_address("127.0.0.1")) is Reason.NOBODY

    def test_a_named_list_without_entries_lets_nobody_in(self) -> None:
        for empty in (Allow(any_role=frozenset()), Allow(users=frozenset())):
            assert empty.refusal(ADMIN, None) in (Reason.MISSING_ROLE, Reason.NOT_LISTED_USER)
        assert Allow(networks=()).refusal(ADMIN, ip_address("::1")) is Reason.NETWORK

    def test_all_named_kinds_must_hold(self) -> None:
        allow = Allow(
            admin=True,
            any_role=frozenset({"a"}),
            all_roles=frozenset({"b", "c"}),
            users=frozenset({"x@y"}),
            networks=(ip_network("10.0.0.0/8"),),
        )
        here = ip_address("10.9.9.9")
        right = person(admin=True, roles=("a", "b", "c"), email="x@y")
        assert allow.refusal(right, here) is None
        assert allow.refusal(right, None) is Reason.NETWORK
        assert allow.refusal(None, here) is Reason.NO_CREDENTIAL
        assert allow.refusal(person(roles=("a", "b", "c"), email="x@y"), here) is Reason.NOT_ADMIN
        assert allow.refusal(person(admin=True, roles=("b", "c"), email="x@y"), here) is Reason.MISSING_ROLE
        assert allow.refusal(person(admin=True, roles=("a", "b"), email="x@y"), here) is Reason.MISSING_ROLE
        assert allow.refusal(person(admin=True, roles=("a", "b", "c")), here) is Reason.NOT_LISTED_USER

    def test_only_true_is_an_admin(self) -> None:
        odd = Principal("1", "a@b", 1, (), "s", 1, 1)  # type: ignore[arg-type]  # as if a token's check had failed
        assert Allow(admin=True).refusal(odd, None) is Reason.NOT_ADMIN

    def test_an_ipv4_client_on_an_ipv6_socket(self) -> None:
        allow = Allow(networks=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")))
        assert allow.refusal(None, ip_address("::ffff:10.1.2.3")) is None
        assert allow.refusal(None, ip_address("2001:db8::1")) is None
        assert allow.refusal(None, ip_address("::ffff:11.1.2.3")) is Reason.NETWORK

    def test_public_is_what_asks_nothing_of_anybody(self) -> None:
        assert Allow(everybody_without_login=True).public is True
        assert not Allow(everybody_without_login=True, logged_in=True).public
        assert not Allow().public

    def test_everybody_with_a_network_is_not_public(self) -> None:
        allow = Allow(everybody_without_login=True, networks=(ip_network("10.0.0.0/8"),))
        assert not allow.public
        assert allow.refusal(None, ip_address("10.0.0.1")) is None
        assert allow.refusal(None, ip_address("11.0.0.1")) is Reason.NETWORK


def test_the_reasons_are_stable() -> None:
    assert [str(reason) for reason in Reason] == [
        "public",
        "logged_in",
        "admin",
        "roles",
        "users",
        "scopes",
        "networks",
        "default",
        "report_only",
        "no_credential",
        "not_admin",
        "missing_role",
        "not_listed_user",
        "missing_scope",
        "out_of_reach",
        "network",
        "not_yet_valid",
        "expired",
        "nobody",
        "other_reading",
        "auth_prefix",
        "bad_target",
        "dot_segment",
        "ambiguous_path",
    ]
