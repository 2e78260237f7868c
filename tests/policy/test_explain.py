"""Why a request gets its answer: the same rules as `decide` asks, and the routes that came close."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.decide import claims_of
from gateway.policy.explain import Explanation, explain, why
from gateway.policy.model import Claims, Policy, Reason
from tests.policy.rules import USER, policy
from tests.policy.worlds import ASKED_HOSTS, ASKED_METHODS, random_policy

PATHS = (
    "/", "/a", "/A/b", "/a;x/b", "/a%2Fb", "//a/b", "/a//b", "/a/b.", "/caf%C3%A9", "/CAF%C3%89/a", "/auth/x",
    "/a/../b", "/a/%", "/b/a/auth", "/a/x%252Fy",
)  # fmt: skip


def asked(one: Policy, request: str, host: bytes = b"") -> Explanation:
    method, path = request.split()
    return explain(one, method=method, host=host, path=path.encode(), principal=USER, address=None, now=1.0)


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False))
def test_it_names_exactly_the_rules_that_decide(rng: random.Random) -> None:
    one = random_policy(rng)
    for path in PATHS:
        host, method = rng.choice(ASKED_HOSTS), rng.choice(ASKED_METHODS)
        found = asked(one, f"{method} {path}", host)
        claims = claims_of(one, method, host, path.encode())
        rules = {claims.route, *claims.others} if isinstance(claims, Claims) else set()
        assert {each.route for each in found.asked} == rules, (path, host, method)
        refused = any(each.refusal and each.enforced for each in found.asked) or not found.asked
        assert refused is (found.decision.error is not None)
        if found.asked:
            assert (found.asked[0].literal, found.asked[0].route) == (True, found.decision.route)
        assert not {near.route for near in found.near} & rules


RULES = """
upstreams: {app: {}, reports: {}}
defaults: {upstream: app}
routes:
  - {path: /**, methods: [GET], allow: authenticated}
  - {path: /admin/**, allow: admin}
  - {path: "/projects/{id}", methods: [DELETE], allow: admin}
  - {path: /projects/archive, allow: admin}
  - {path: /reports/**, allow: {roles: {any: [analyst]}}, upstream: reports, strip_prefix: /reports}
  - {path: /secret, upstream: reports, allow: nobody}
  - {path: /office, hosts: ["*.example.com"], allow: public, trust_host: true}
"""


def readings(request: str, host: bytes = b"") -> list[tuple[str, str, str, str | None]]:
    found = asked(policy(RULES), request, host).asked
    return [(each.path, each.behind, each.route.label, each.refusal) for each in found]


def test_every_reading_is_shown_with_what_it_needs() -> None:
    assert readings("GET //x/admin") == [
        ("//x/admin", "", "GET /**", None),
        ("/admin", "", "/admin/**", "not_admin"),
        ("/x/admin", "", "GET /**", None),
    ]


def test_other_capitals_are_a_reading() -> None:
    assert readings("GET /Admin/x") == [
        ("/Admin/x", "", "GET /**", None),
        ("/admin/x", "", "/admin/**", "not_admin"),
    ]


def test_what_a_backend_sees_behind_a_stripped_prefix_is_a_reading() -> None:
    assert readings("GET /reports/secret") == [
        ("/reports/secret", "", "/reports/**", "missing_role"),
        ("/secret", "reports", "/secret", "nobody"),
    ]


@pytest.mark.parametrize(
    ("request_line", "host", "near"),
    [
        ("POST /projects/7", b"", ["DELETE /projects/{id}: takes DELETE, not POST"]),
        ("GET /project/7", b"", []),
        ("DELETE /project/7", b"", ['DELETE /projects/{id}: has "projects" where the path has "project"']),
        ("DELETE /projects/7/files", b"", [
            "DELETE /projects/{id}: ends where the path goes on; /projects/{id}/** would take it",
        ]),
        ("PUT /projects", b"", ["/projects/archive: has one segment more: /projects/archive"]),
        ("POST /office", b"www.example.org", [
            "*.example.com/office: is for *.example.com, not www.example.org",
        ]),
        ("POST /office", b"", ["*.example.com/office: is for *.example.com, not a request without a host"]),
        ("POST /entirely/else", b"", []),
    ],
)  # fmt: skip
def test_the_routes_that_came_close_say_why_they_did_not_match(
    request_line: str, host: bytes, near: list[str]
) -> None:
    found = asked(policy(RULES), request_line, host).near
    told = [f"{each.route.label}: {each.why}" for each in found if each.route.label != "GET /**"]
    assert told[: len(near)] == near
    assert near or not told


NEIGHBOURS = """
routes:
  - {path: "/projects/{id}", methods: [DELETE, PUT], allow: admin}
  - {path: "/projects/{id}/files/list", allow: admin}
  - {path: /office, hosts: ["*.example.com", intra.test], allow: admin}
  - {path: /health, methods: [GET], allow: public}
  - {path: /shop/basket/**, allow: admin}
"""


@pytest.mark.parametrize(
    ("request_line", "host", "near"),
    [
        ("GET /projects/7", b"", ["DELETE,PUT /projects/{id}: takes DELETE, PUT, not GET"]),
        ("PUT /project/7", b"", ['DELETE,PUT /projects/{id}: has "projects" where the path has "project"']),
        ("PUT /Projects/7", b"", []),
        ("PUT /projects/", b"", ["DELETE,PUT /projects/{id}: has one segment more: /projects/{id}"]),
        ("PUT /projects", b"", ["DELETE,PUT /projects/{id}: has one segment more: /projects/{id}"]),
        (
            "PUT /projects/7/x",
            b"",
            ["DELETE,PUT /projects/{id}: ends where the path goes on; /projects/{id}/** would take it"],
        ),
        (
            "GET /projects/7/files",
            b"",
            ["/projects/{id}/files/list: has one segment more: /projects/{id}/files/list"],
        ),
        (
            "GET /projects/7/file/list",
            b"",
            ['/projects/{id}/files/list: has "files" where the path has "file"'],
        ),
        (
            "GET /projects/7/files/list/x",
            b"",
            [
                "/projects/{id}/files/list: ends where the path goes on;"
                " /projects/{id}/files/list/** would take it"
            ],
        ),
        ("GET /office", b"a.example.com", []),
        ("GET /office", b"intra.test", []),
        (
            "GET /office",
            b"example.com",
            ["*.example.com,intra.test/office: is for *.example.com, intra.test, not example.com"],
        ),
        (
            "GET /office",
            b"xexample.com",
            ["*.example.com,intra.test/office: is for *.example.com, intra.test, not xexample.com"],
        ),
        (
            "GET /office",
            b"other.test",
            ["*.example.com,intra.test/office: is for *.example.com, intra.test, not other.test"],
        ),
        (
            "GET /office",
            b"",
            [
                "*.example.com,intra.test/office: is for *.example.com, intra.test,"
                " not a request without a host"
            ],
        ),
        (
            "GET /offise",
            b"intra.test",
            ['*.example.com,intra.test/office: has "office" where the path has "offise"'],
        ),
        ("HEAD /health", b"", []),
        ("POST /health", b"", ["GET /health: takes GET, not POST"]),
        ("POST /helth", b"", []),
        ("GET /healthcheck", b"", []),
        ("GET /shop/basked/x/y", b"", ['/shop/basket/**: has "basket" where the path has "basked"']),
        ("GET /shop/b/x", b"", []),
        ("GET /shop/cart", b"", []),
        ("GET /", b"", []),
        ("GET /health/xxx", b"", ["GET /health: ends where the path goes on; /health/** would take it"]),
    ],
)
def test_just_what_is_one_thing_away_comes_close(request_line: str, host: bytes, near: list[str]) -> None:
    found = asked(policy(NEIGHBOURS), request_line, host).near
    assert [f"{each.route.label}: {each.why}" for each in found] == near


def test_a_wider_route_is_less_specific() -> None:
    found = asked(policy(RULES), "GET /admin/x").near
    assert [(each.route.label, each.why) for each in found] == [
        ("GET /**", "is less specific than /admin/**")
    ]


def test_at_most_five_come_close() -> None:
    text = "\n".join(f"  - {{path: /area{number}, allow: admin}}" for number in range(50))
    assert len(asked(policy(f"routes:\n{text}"), "GET /area").near) == 5


def test_of_those_that_are_as_close_the_longest_comes_first() -> None:
    text = """
        routes:
          - {path: /**, allow: admin}
          - {path: /a/b, methods: [PUT], allow: admin}
          - {path: /a/**, allow: admin}
          - {path: "/a/{x}", allow: nobody}
          - {path: /a/b, methods: [GET], allow: public}
    """
    near = [each.route.label for each in asked(policy(text), "GET /a/b").near]
    assert near == ["/a/{x}", "/a/**", "/**", "PUT /a/b"]


def test_a_rule_on_trial_is_asked_and_not_enforced_where_it_was_chosen() -> None:
    text = "routes: [{path: /a, allow: admin, report_only: true}, {path: /b, allow: admin}]"
    tried, held = (asked(policy(text), f"GET {path}").asked[0] for path in ("/a", "/b"))
    assert (tried.enforced, tried.refusal, tried.literal) == (False, "not_admin", True)
    assert (held.enforced, held.refusal, held.literal) == (True, "not_admin", True)


def test_the_root_has_a_path_and_the_time_counts() -> None:
    assert [each.path for each in asked(policy("routes: [{path: /x, allow: admin}]"), "GET /").asked] == ["/"]
    timed = policy("routes: [{path: /x, allow: authenticated, valid: {until: 1970-01-02}}]")
    assert asked(timed, "GET /x").decision.error is None


def test_every_reason_is_in_the_words_of_the_reference() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "log.md").read_text()
    told = dict(re.findall(r"^\| `([a-z_]+)` \| (?:allow|deny) \| (.*?) \|$", text, re.MULTILINE))
    for reason in Reason:
        assert why(reason.value) == told[reason.value].partition(": `would`")[0], reason
    assert why("no such code") == ""
