"""`gateway explain`, and the whole table of decisions asked through it."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.explain import SOMEWHERE, Request, Told, answer
from gateway.config.load import load
from gateway.config.schema import Config
from gateway.policy.compile import compile_policy, compile_tests
from gateway.policy.model import Policy
from tests.cli.conftest import MINIMAL, Command
from tests.policy.rules import TOKENS
from tests.policy.test_decisions import as_test, asked
from tests.support.decisions import Row, World, worlds

RULES = (
    MINIMAL.replace("upstream: http://127.0.0.1:9000\n", "")
    + """\
server: {public_url: "https://app.example.com"}
upstreams:
  app: {url: "http://127.0.0.1:9000"}
  reports: {urls: ["http://127.0.0.1:9001", "http://127.0.0.1:9002"], preserve_host: true}
defaults: {upstream: app}
routes:
  - {path: /health, methods: [GET], allow: public}
  - {path: /admin/**, allow: admin}
  - {path: "/projects/{id}", methods: [DELETE], allow: admin}
  - path: /reports/**
    allow: {roles: {any: [analyst, auditor]}}
    upstream: reports
    strip_prefix: /reports
    headers: {request: {add: {X-Tenant: blue}}}
  - {path: /office, allow: {networks: [10.0.0.0/8]}}
  - {path: /deploy, allow: {scopes: {any: [deploy]}}}
  - {path: /sale, allow: public, valid: {from: "2027-01-01", until: "2027-02-01"}}
  - {path: /trial, allow: admin, report_only: true}
"""
)


@pytest.fixture
def ask(gateway: Command, folder: Path) -> Any:
    """What it says as JSON; no secret is set."""
    (folder / "gateway.yaml").write_text(RULES)

    def asked(*words: str) -> dict[str, Any]:
        result = gateway("explain", *words, "--format", "json")
        assert (result.code, result.err) == (0, "")
        return dict(json.loads(result.out))

    return asked


def test_a_refusal_names_the_rule_and_its_place(ask: Any) -> None:
    told = ask("DELETE", "/projects/7", "--as", "user")
    assert (told["verdict"], told["status"], told["reason"]) == ("deny", 403, "not_admin")
    assert told["route"] == {
        "label": "DELETE /projects/{id}", "path": "/projects/{id}", "file": "gateway.yaml", "line": 12,
    }  # fmt: skip
    assert told["forward"] is None
    (reading,) = told["readings"]
    assert (reading["path"], reading["literal"], reading["refusal"]) == ("/projects/7", True, "not_admin")
    assert reading["needs"]["text"] == "admin"


def test_what_is_allowed_shows_the_bytes_and_where_they_go(ask: Any) -> None:
    told = ask("GET", "/reports/q3?page=2", "--as", "Ann@Example.com", "--as", "role:analyst")
    assert (told["verdict"], told["status"], told["reason"]) == ("allow", None, "roles")
    forward = told["forward"]
    assert (forward["upstream"], forward["servers"]) == (
        "reports", ["http://127.0.0.1:9001", "http://127.0.0.1:9002"],
    )  # fmt: skip
    lines = forward["head"].split("\r\n")
    assert lines[:2] == ["GET /q3?page=2 HTTP/1.1", "Host: app.example.com"]
    assert {"X-Tenant: blue", "X-Forwarded-Proto: https", f"X-Forwarded-For: {SOMEWHERE}"} <= {*lines}
    assert "authorization" not in forward["head"].lower()
    assert forward["identityHeaders"] == {
        "X-User-Id": "the-callers-id",
        "X-User-Email": "ann@example.com",
        "X-User-Admin": "false",
        "X-User-Roles": "analyst",
    }
    assert lines[-2:] == ["", ""]


def test_a_whole_url_names_host_and_scheme(ask: Any) -> None:
    told = ask("GET", "HTTP://Admin.example.com:81", "--as", "user")
    assert told["request"]["host"] == "Admin.example.com:81"
    assert told["request"]["target"] == "/"
    assert "X-Forwarded-Proto: http\r\n" in told["forward"]["head"]
    assert ask("GET", "https://x/y", "--host", "other", "--as", "user")["request"]["host"] == "other"
    assert ask("GET", "/y", "--as", "user")["request"]["host"] == "app.example.com"


def test_from_and_at(ask: Any) -> None:
    assert ask("GET", "/office", "--as", "anonymous")["reason"] == "network"
    assert ask("GET", "/office", "--as", "anonymous", "--from", "10.1.2.3")["verdict"] == "allow"
    assert ask("GET", "/sale", "--as", "anonymous", "--at", "2026-12-31")["reason"] == "not_yet_valid"
    assert ask("GET", "/sale", "--as", "anonymous", "--at", "2027-01-31T23:59:59Z")["reason"] == "public"
    assert ask("GET", "/sale", "--as", "admin", "--at", "2027-02-01")["reason"] == "expired"


def test_a_rule_on_trial_says_what_it_would(ask: Any) -> None:
    told = ask("GET", "/trial", "--as", "user")
    assert (told["verdict"], told["reason"], told["would"]) == ("allow", "report_only", "not_admin")
    assert told["readings"][0]["enforced"] is False


def test_the_gateways_own_paths(ask: Any) -> None:
    told = ask("POST", "/auth/login", "--as", "anonymous")
    assert (told["verdict"], told["status"], told["reason"]) == ("allow", None, "served")
    assert (told["route"], told["readings"], told["forward"]) == (None, [], None)
    told = ask("POST", "/Auth/login", "--as", "anonymous")
    assert (told["verdict"], told["status"], told["reason"]) == ("deny", 404, "auth_prefix")


def test_what_the_gate_refuses_without_a_rule(ask: Any) -> None:
    assert ask("TRACE", "/", "--as", "admin")["reason"] == "method_not_allowed"
    assert ask("GET", "/", "--host", "a b", "--as", "admin")["status"] == 400
    assert ask("GET", "/a/..", "--as", "admin")["reason"] == "dot_segment"


def test_for_people(gateway: Command, folder: Path) -> None:
    (folder / "gateway.yaml").write_text(RULES)
    lines = gateway("explain", "GET", "/Admin/x", "--as", "user").out.splitlines()
    assert lines[0] == (
        "deny 403 other_reading: "
        "a backend may read the path as another one, and the caller is not allowed that"
    )
    assert lines[1].startswith(
        f"GET /Admin/x, host app.example.com, from {SOMEWHERE}, as user@example.com, at "
    )
    assert lines[3:5] == [
        "reading\t/Admin/x\tas it stands\tauthenticated\tdefault\tmay",
        "reading\t/admin/x\twith other capitals\tadmin\t/admin/** (gateway.yaml:11)\tnot_admin",
    ]
    lines = gateway("explain", "POST", "/projects/7", "--as", "role:a", "--as", "admin").out.splitlines()
    assert lines[0].startswith("allow default: ")
    assert "as admin@example.com (admin, role a)" in lines[1]
    assert "close\tDELETE /projects/{id}\tgateway.yaml:12\ttakes DELETE, not POST" in lines
    assert "to app: http://127.0.0.1:9000" in lines
    assert "  X-User-Roles: a" in lines


@pytest.mark.parametrize(
    "words",
    [
        ("GET", "/x"),
        ("G T", "/x", "--as", "user"),
        ("GET", "x", "--as", "user"),
        ("GET", "/a b", "--as", "user"),
        ("GET", "/a\r\nX-User-Id: 1", "--as", "user"),
        ("GET", "/x", "--as", "root"),
        ("GET", "/x", "--as", "role:"),
        ("GET", "/x", "--as", "role:Analyst"),
        ("GET", "/x", "--as", "anonymous", "--as", "admin"),
        ("GET", "/x", "--as", "a@x", "--as", "b@x"),
        ("GET", "/x", "--as", "user", "--from", "localhost"),
        ("GET", "/x", "--as", "user", "--at", "tomorrow"),
    ],
)
def test_wrong_usage(gateway: Command, folder: Path, words: tuple[str, ...]) -> None:
    (folder / "gateway.yaml").write_text(RULES)
    result = gateway("explain", *words)
    assert (result.code, result.out) == (2, "")


def test_text_of_a_stranger_drives_no_terminal(gateway: Command, folder: Path) -> None:
    (folder / "gateway.yaml").write_text(RULES)
    told = gateway("explain", "GET", "/\u202eadmin", "--as", "user").out
    assert "\u202e" not in told


# -- the table of decisions ----------------------------------------------------------------------------------

WORLDS = worlds()


@pytest.mark.parametrize("world", WORLDS, ids=[world.name for world in WORLDS])
def test_the_table_of_decisions_is_explained_as_it_is_decided(world: World, tmp_path: Path) -> None:
    file = world.write(
        tmp_path,
        TOKENS,
        lambda name: f"http://{name}.internal:9000",
        tests=[as_test(row) for row in asked(world)],
    )
    loaded = load(file, environ={})
    assert loaded.config is not None
    policy, _ = compile_policy(loaded.config, loaded.places)
    assert policy is not None
    people = [test.principal for test in compile_tests(loaded.config, loaded.places)]
    for row, principal in zip(asked(world), people, strict=True):
        request = Request(
            row.method, row.target.encode(), (row.host or "gateway.test").encode(), "http", principal,
            ip_address(row.address or SOMEWHERE), row.now,
        )  # fmt: skip
        check(row, loaded.config, policy, request)


def check(row: Row, config: Config, policy: Policy, request: Request) -> None:
    told: Told = answer(config, policy, request)
    if told.judgement is None:
        assert row.target.startswith("/auth"), str(row)
        return
    decision = told.explanation.decision
    assert ("allow" if told.allowed else told.status) == row.expect, str(row)
    assert row.reports(decision.would and decision.would.reason.value), str(row)
    if row.reason is not None:
        assert told.reason == row.reason, str(row)
    if told.allowed:
        path = told.head.split(b" ")[1].partition(b"?")[0].decode()
        as_sent = path if decision.route.strip else row.target.partition("?")[0]
        assert path == (row.forward or as_sent), str(row)
        assert decision.route.upstream == (row.upstream or decision.route.upstream), str(row)
        assert (b"X-User-Id" in told.head) is (row.caller != "anonymous"), str(row)


def test_somebody_with_an_api_token(ask: Any) -> None:
    told = ask("GET", "/deploy", "--as", "scope:deploy")
    assert (told["verdict"], told["reason"]) == ("allow", "scopes")
    told = ask("GET", "/deploy", "--as", "admin")
    assert (told["verdict"], told["reason"]) == ("deny", "missing_scope")
