"""A page of another origin in a real browser: what the gateway says of pages is what a browser goes by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Origin, find_browser, look
from tests.support.life import soon
from tests.support.process import PASSWORD, Running, Site, free_port

pytestmark = pytest.mark.skipif(find_browser() is None, reason="needs a browser: apt-get install chromium")

RULES = """\
upstreams:
  default: {{url: "http://127.0.0.1:{backend}"}}
  away: {{url: "http://127.0.0.1:{nowhere}"}}
auth: {{cors: {{origins: "{page}"}}}}
routes:
  - path: /api/**
    allow: authenticated
    headers: {{response: {{add: {{X-Total-Count: "3", X-Inner: "secret"}}}}}}
    cors: {{origins: "{page}", headers: [Authorization, If-Match], expose: [X-Total-Count]}}
  - {{path: /api/away, allow: public, upstream: away, cors: {{origins: "{page}"}}}}
  - {{path: /other/**, allow: public}}
"""
SCRIPT = """
const gateway = "%s", user = %s;
async function ask(path, options = {}) {
  try {
    const answer = await fetch(gateway + path, options);
    return {status: answer.status, count: answer.headers.get("X-Total-Count"),
            inner: answer.headers.get("X-Inner"), body: await answer.json()};
  } catch (error) { return error.name; }
}
const json = {"Content-Type": "application/json"};
const login = await ask("/auth/login", {method: "POST", headers: json, body: JSON.stringify(user)});
const token = {"Authorization": "Bearer " + (login.body?.accessToken ?? "x.y.z")};
return {
  login,
  me: await ask("/auth/me", {headers: token}),
  nothing: await ask("/auth/nothing"),
  get: await ask("/api/get", {headers: token}),
  patch: await ask("/api/patch", {method: "PATCH", headers: {...token, "If-Match": "1"}, body: "new"}),
  header: await ask("/api/header", {headers: {...token, "X-Odd": "1"}}),
  anonymous: await ask("/api/anonymous"),
  away: await ask("/api/away"),
  other: await ask("/other"),
};
"""


@pytest.fixture
def page() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture
def gateway(site: Site, backend: int, page: Origin) -> Iterator[Running]:
    site.add("ana@example.com")
    before = site.config.read_text().partition("upstream:")[0]
    rules = RULES.format(backend=backend, nowhere=free_port(), page=page.url)
    site.config.write_text(before + rules)
    with site.running() as running:
        yield running


def visit(origin: Origin, gateway: Running, folder: Path) -> dict[str, Any]:
    user = {"email": "ana@example.com", "password": PASSWORD}
    where = "http://{}:{}".format(*gateway.address)
    told = look(origin, SCRIPT % (where, json.dumps(user)), folder)
    assert isinstance(told, dict), told
    return told


def test_a_page_that_is_named_logs_in_and_reads_what_it_may(
    page: Origin, gateway: Running, tmp_path: Path
) -> None:
    told = visit(page, gateway, tmp_path / "profile")
    assert (told["login"]["status"], told["me"]["body"]["email"]) == (200, "ana@example.com"), told
    assert (told["nothing"]["status"], told["nothing"]["body"]["code"]) == (404, "not_found")
    assert (told["get"]["status"], told["get"]["count"], told["get"]["inner"]) == (200, "3", None)
    assert (told["patch"]["body"]["method"], told["patch"]["body"]["body"]) == ("PATCH", "new")
    assert told["header"] == "TypeError", "the browser sent a header that the rule does not name"
    assert (told["anonymous"]["status"], told["anonymous"]["body"]["code"]) == (401, "not_logged_in")
    assert (told["away"]["status"], told["away"]["body"]["code"]) == (503, "upstream_unavailable")
    assert told["other"] == "TypeError"


def test_a_page_that_is_not_named_reads_nothing(page: Origin, gateway: Running, tmp_path: Path) -> None:
    with Origin() as stranger:
        told = visit(stranger, gateway, tmp_path / "profile")
    assert set(map(str, told.values())) == {"TypeError"}, told
    soon(lambda: any(line.get("path") == "/other" for line in gateway.lines))  # the last one
    sent = {(line["method"], line["path"]) for line in gateway.lines if "verdict" in line}
    assert ("POST", "/auth/login") not in sent, "a preflight should have kept it from being sent"
    assert ("PATCH", "/api/patch") not in sent
