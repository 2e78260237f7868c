"""`gateway run --report-only` with the real command: what it softens, what it never does, who is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.life import soon
from tests.support.process import Running, Site
from tests.wire.test_reload import Editor

RULES = """\
default: admin
routes:
  - {path: /health, allow: public}
  - {path: /admin/**, allow: admin}
  - {path: /once, allow: admin, rate_limit: {per_address: 1/hour}}
  - {path: /small, methods: [POST], allow: admin, body: 4B}
  - {path: /closed, allow: nobody}
  - {path: /over, allow: public, valid: {until: "2020-01-01"}}
"""


@pytest.fixture
def trial(site: Site) -> Iterator[Running]:
    site.config.write_text(site.config.read_text().partition("routes:")[0] + RULES)
    site.add("ana@example.com", "--role", "analyst")
    with site.running("--report-only") as gateway:
        yield gateway


def identity(gateway: Running, path: str, token: str = "") -> dict[str, str]:
    answer = gateway.request("GET", path, token=token)
    assert answer.status == 200, answer.body
    return {name: value for name, value in answer.json["headers"] if name.lower().startswith("x-user")}


def decision(gateway: Running, path: str, number: int = 0) -> dict[str, object]:
    def found() -> list[dict[str, object]]:
        return [line for line in gateway.lines if line.get("path") == path]

    soon(lambda: len(found()) > number)
    return found()[number]


def test_a_would_be_401_passes_without_identity_and_a_would_be_403_with_it(trial: Running) -> None:
    token = trial.log_in("ana@example.com")["accessToken"]
    assert identity(trial, "/admin/a") == {}
    assert identity(trial, "/admin/b", "nonsense.of.tokens") == {}
    assert identity(trial, "/admin/c", token)["X-User-Email"] == "ana@example.com"
    assert identity(trial, "/not/named", token)["X-User-Roles"] == "analyst"
    assert identity(trial, "/closed") == identity(trial, "/over") == {}
    would = {
        "/admin/a": "no_credential", "/admin/b": "invalid_token", "/admin/c": "not_admin",
        "/not/named": "not_admin", "/closed": "nobody", "/over": "expired",
    }  # fmt: skip
    for path, reason in would.items():
        line = decision(trial, path)
        assert (line["verdict"], line["reason"], line["would"]) == ("allow", "report_only", reason)
    assert decision(trial, "/admin/c")["roles"] == ["analyst"]
    assert identity(trial, "/health") == {}
    assert "would" not in decision(trial, "/health")


def test_nothing_else_is_softened(trial: Running) -> None:
    token = trial.log_in("ana@example.com")["accessToken"]
    assert trial.request("GET", "/auth/me").status == 401
    assert trial.request("GET", "/auth/users", token=token).status == 403
    assert trial.request("GET", "/AUTH/me").status == 404
    assert trial.request("GET", "/admin/..%2fhealth").status == 400
    assert trial.request("GET", "/a%zz").status == 400
    # /Admin is the default, which reports; a backend may read it as /admin, whose rule is not its own.
    assert trial.request("GET", "/Admin/x", token=token).status == 403
    assert decision(trial, "/Admin/x")["reason"] == "other_reading"
    assert [trial.request("GET", "/once").status for _ in range(2)] == [200, 429]
    assert trial.request("POST", "/small", json_body="too much").status == 413


def test_operators_can_not_overlook_it(trial: Running) -> None:
    identity(trial, "/admin/a")
    assert trial.request("GET", "/readyz", ops=True).json["reportOnly"] is True
    decision(trial, "/admin/a")
    told = trial.request("GET", "/metrics", ops=True).body.decode().splitlines()
    assert "gateway_enforcing 0.0" in told
    assert 'gateway_report_only_total{reason="no_credential",route="/admin/**"} 1.0' in told
    (line,) = [line for line in trial.lines if "--report-only" in str(line.get("message"))]
    assert line["level"] == "warning"
    assert trial.stop() == 0
    assert trial.process.stderr is not None
    assert b"warning: --report-only: no rule is enforced" in trial.process.stderr.read()


def test_without_it_nothing_is_said(site: Site) -> None:
    with site.running() as gateway:
        assert "reportOnly" not in gateway.request("GET", "/readyz", ops=True).json
        assert b"gateway_enforcing 1.0" in gateway.request("GET", "/metrics", ops=True).body
        assert gateway.request("GET", "/admin/x").status == 401


def test_it_outlives_reloads_whose_tests_are_about_the_rules_as_written(site: Site) -> None:
    with site.running("--report-only") as gateway:
        editor = Editor(site, gateway)
        tests = "tests: [{request: GET /new, as: anonymous, expect: 401}]\n"
        tests += "routes:\n  - {path: /new, allow: admin}"
        assert editor.outcome("routes:", tests) == "applied"
        assert (editor.status("/new"), editor.status("/admin/x")) == (200, 200)
        assert gateway.request("GET", "/readyz", ops=True).json["reportOnly"] is True
        assert b"gateway_enforcing 0.0" in gateway.request("GET", "/metrics", ops=True).body
        assert editor.outcome("routes:", tests.replace("expect: 401", "expect: allow")) == "tests_failed"
        assert editor.status("/new") == 200


def test_a_default_without_a_backend_has_nothing_to_soften(site: Site, tmp_path: Path) -> None:
    text = site.config.read_text()
    upstream = next(line for line in text.splitlines() if line.startswith("upstream: "))
    url = json.dumps(upstream.partition(" ")[2])
    several = f"default: nobody\nupstreams: {{a: {{url: {url}}}, b: {{url: {url}}}}}"
    text = text.replace(upstream, several).replace("allow:", "upstream: a, allow:")
    site.config.write_text(text)
    with site.running("--report-only") as gateway:
        assert gateway.request("GET", "/admin/x").status == 200
        assert gateway.request("GET", "/nowhere").status == 403
