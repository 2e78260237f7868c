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
    assert told == near or (not near and not told) or told[: len(near)] == near


def test_a_wider_route_is_less_specific() -> None:
    found = asked(policy(RULES), "GET /admin/x").near
    assert [(each.route.label, each.why) for each in found] == [
        ("GET /**", "is less specific than /admin/**")
    ]


def test_at_most_five_come_close() -> None:
    text = "\n".join(f"  - {{path: /area{number}, allow: admin}}" for number in range(50))
    assert len(asked(policy(f"routes:\n{text}"), "GET /area").near) == 5


def test_every_reason_is_in_the_words_of_the_reference() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "log.md").read_text()
    told = dict(re.findall(r"^\| `([a-z_]+)` \| (?:allow|deny) \| (.*?) \|$", text, re.MULTILINE))
    for reason in Reason:
        assert why(reason.value) == told[reason.value].partition(": `would`")[0], reason
    assert why("no such code") == ""
