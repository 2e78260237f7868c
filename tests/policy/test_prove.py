"""The file's own tests: what is asked, and what is said when the answer is another one."""

from __future__ import annotations

import yaml

from gateway.policy.compile import compile_policy, compile_tests
from gateway.policy.prove import Result, prove, untouched
from tests.policy.rules import loaded

RULES = """
upstreams: {default: {url: "http://a"}, reports: {url: "http://b"}}
routes:
  - {path: /admin/**, allow: admin}
  - {path: /r/**, methods: [GET], allow: {roles: {any: [reader]}}, upstream: reports}
  - {path: /office, hosts: [h.x], allow: {networks: [10.0.0.0/8]}}
  - {path: /deploy, allow: {scopes: {all: [deploy, notify]}}}
  - {path: /people, allow: {scopes: {any: [login]}}}
  - {path: /sale, allow: authenticated, valid: {from: 2027-01-01, until: 2027-02-01}}
tests:
"""


def results(*tests: str) -> list[Result]:
    read = loaded(yaml.safe_load(RULES + "".join(f"  - {test}\n" for test in tests)))
    assert read.config is not None
    policy, _ = compile_policy(read.config, read.places)
    assert policy is not None
    return prove(policy, compile_tests(read.config, read.places), now=0.0)


def test_proofs_that_hold() -> None:
    held = results(
        "{request: GET /admin, as: anonymous, expect: 401}",
        "{request: GET /admin, as: user, expect: 403}",
        "{request: 'GET /admin?x=/r', as: admin, expect: allow, route: /admin/**, upstream: default}",
        "{request: GET /r/x, as: {roles: [reader]}, expect: allow, route: GET /r/**, upstream: reports}",
        "{request: POST /r/x, as: {email: Ann@x}, expect: allow, route: default}",
        "{request: GET /office, as: anonymous, host: h.x, from: 10.0.0.1, expect: allow}",
        "{request: GET /office, as: anonymous, host: h.x, expect: 403}",
        "{request: GET /a/.., as: admin, expect: 400}",
        "{request: GET /Auth/me, as: admin, expect: 404}",
    )
    assert [result.complaint for result in held] == [None] * 9
    assert all(result.passed for result in held)


def test_proofs_may_be_about_api_tokens_and_about_a_time() -> None:
    held = results(
        "{request: GET /deploy, as: {scopes: [notify, deploy]}, expect: allow}",
        "{request: GET /deploy, as: {scopes: [deploy]}, expect: 403}",
        "{request: GET /deploy, as: {admin: true}, expect: 403}",
        "{request: GET /people, as: user, expect: allow}",
        "{request: GET /people, as: {admin: true}, expect: allow}",
        "{request: GET /people, as: {scopes: []}, expect: 403}",
        "{request: GET /sale, as: user, at: 2027-01-31, expect: allow}",
        "{request: GET /sale, as: user, at: 2027-02-01, expect: 403}",
        "{request: GET /sale, as: user, expect: 403}",
    )
    assert [result.complaint for result in held] == [None] * 9


def test_a_route_is_named_by_its_path_alone_and_those_without_a_proof_are_told() -> None:
    rules = """
upstream: http://a
routes:
  - {path: /x/**, methods: [GET], allow: public}
  - {path: /y/**, allow: admin}
tests:
  - {request: GET /x, as: anonymous, expect: allow, route: /x/**}
"""
    read = loaded(yaml.safe_load(rules))
    assert read.config is not None
    policy, _ = compile_policy(read.config, read.places)
    assert policy is not None
    (result,) = prove(policy, compile_tests(read.config, read.places), now=0.0)
    assert result.complaint is None
    assert untouched(policy, [result]) == [policy.routes[1]]
    assert untouched(policy, []) == list(policy.routes)


def test_a_proof_that_fails_says_what_came_instead() -> None:
    failed = results(
        "{request: GET /admin, as: {admin: true, email: ann@x, roles: [b, a]}, expect: 403}",
        "{request: GET /admin, as: {admin: true}, expect: allow, route: /r/**}",
        "{request: GET /r/x, as: {roles: [reader]}, expect: allow, upstream: default}",
        "{request: GET /other, as: {}, expect: 401, route: /**}",
        "{request: GET /other, as: user, expect: allow, route: /**}",
        "{request: GET /deploy, as: {scopes: [read, write]}, expect: allow}",
        "{request: GET /people, as: {roles: [ci], scopes: []}, expect: allow}",
    )
    assert [result.complaint for result in failed] == [
        "GET /admin as ann@x (admin; roles b, a): expected 403, got allow (admin, routes[0] on line 12)",
        "GET /admin as user (admin): expected the route /r/**, got /admin/** (admin, routes[0] on line 12)",
        "GET /r/x as user (roles reader): expected the upstream default, got reports"
        " (roles, routes[1] on line 14)",
        "GET /other as user: expected 401, got allow (default, the default)",
        "GET /other as user: expected the route /**, got default (default, the default)",
        "GET /deploy as user (API token with read, write): expected allow, got 403"
        " (missing_scope, routes[3] on line 28)",
        "GET /people as user (roles ci; API token with no scope): expected allow, got 403"
        " (missing_scope, routes[4] on line 34)",
    ]
    assert not any(result.passed for result in failed)
    assert failed[0].test.place.rpartition("/")[2].startswith("gateway.yaml:")
