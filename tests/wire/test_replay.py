"""The promise of `gateway replay`, kept: the rules then do to the same requests exactly what it said."""

from __future__ import annotations

import json
from collections import Counter
from itertools import product
from typing import Any

from tests.support.life import soon
from tests.support.process import Running, Site

LAX = """\
routes:
  - {path: /**, allow: public}
  - {path: /vault/**, allow: admin}
"""
STRICT = """\
default: nobody
routes:
  - {path: /open/**, allow: public}
  - {path: /vault/**, allow: authenticated}
  - {path: /admin/**, allow: admin}
  - {path: /reports/**, allow: {roles: {any: [analyst, auditor]}}}
  - {path: "/projects/{id}", allow: authenticated}
  - {path: "/projects/{id}", methods: [DELETE], allow: admin}
  - {path: /intern/**, hosts: [intern.test, "*.intern.test"], allow: authenticated}
  - {path: /ann, allow: {users: [ann@example.com]}}
  - {path: /office, allow: {networks: [127.0.0.0/8]}}
  - {path: /elsewhere, allow: {networks: [10.0.0.0/8]}}
  - {path: /over, allow: public, valid: {until: "2020-01-01"}}
  - {path: /trial, allow: admin, report_only: true}
"""
CALLERS = ("", "ann@example.com", "bob@example.com", "boss@example.com")
PATHS = (
    "/open/a?token=hidden", "/vault/a", "/admin/users", "/Admin/users", "/reports/q3", "/reports%2Fq3",
    "/projects/7",
    "/projects/a%2Fb", "/intern/x", "/ann", "/office", "/elsewhere", "/over", "/trial", "/nobody/knows",
    "/open/%2e%2e/admin", "/AUTH/login", "/open//a", "/caf%C3%A9",
)  # fmt: skip
HOSTS = ("app.test", "Deep.INTERN.test:80")


def send_all(gateway: Running, tokens: dict[str, str]) -> None:
    for path, caller, host in product(PATHS, CALLERS, HOSTS):
        for method in ("GET", "DELETE") if "projects" in path else ("GET",):
            gateway.request(method, path, token=tokens.get(caller, ""), headers={"Host": host})
    gateway.request("GET", "/vault/a", token="nonsense")


def decisions(gateway: Running) -> list[dict[str, Any]]:
    """The lines of what `send_all` sent."""
    return [line for line in gateway.lines if line["event"] == "request" and line["route"] != "auth:login"]


def live(site: Site) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All lines of a gateway to which everything was sent, and the requests among them."""
    with site.running() as gateway:
        tokens = {caller: gateway.log_in(caller)["accessToken"] for caller in CALLERS if caller}
        send_all(gateway, tokens)
        expected = (len(PATHS) + 2) * len(CALLERS) * len(HOSTS) + 1
        soon(lambda: len(decisions(gateway)) >= expected)
        assert len(decisions(gateway)) == expected
        assert gateway.stop() == 0
        return list(gateway.lines), decisions(gateway)


def caller_of(line: dict[str, Any]) -> str:
    if line["user"] is None:
        return "anonymous"
    return "admin" if line["admin"] else "user with roles" if line["roles"] else "user"


def said(line: dict[str, Any]) -> str:
    if line["verdict"] == "allow":
        return "allow (reported)" if "would" in line else "allow"
    # A token that does not hold is a credential that is none.
    reason = "no_credential" if line["reason"] == "invalid_token" else line["reason"]
    return f"{line['status']} {reason}"


def test_the_rules_do_what_replay_said_they_would(site: Site) -> None:
    begin = site.config.read_text().partition("routes:")[0]
    site.config.write_text(begin + LAX)
    for email, *options in (
        ("ann@example.com", "--role", "analyst"),
        ("bob@example.com",),
        ("boss@example.com", "--admin"),
    ):
        site.add(email, *options)
    lines, before = live(site)

    site.config.write_text(begin + STRICT)
    log = site.folder / "gateway.log"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = site.command("replay", str(log), "--format", "json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["logs"][0]["unreadable"] == 0
    assert told["judged"] == len(before)
    assert "hidden" not in done.stdout + done.stderr

    _, after = live(site)
    promised = Counter[tuple[str, ...]]()
    for group in told["groups"]:
        promised[group["method"], group["route"], group["caller"], group["now"]] += group["count"]
    assert promised == Counter((line["method"], line["route"], caller_of(line), said(line)) for line in after)

    pairs = Counter(
        (was["verdict"] == "allow", now["verdict"] == "allow") for was, now in zip(before, after, strict=True)
    )
    assert told["changes"]["refused"] == pairs[True, False] > 0
    assert told["changes"]["admitted"] == pairs[False, True] > 0
    assert told["changes"]["unknown"] == 0

    assert site.command("replay", str(log), "--fail-on", "refused").returncode == 1
    site.config.write_text(begin + LAX)
    assert site.command("replay", str(log), "--fail-on", "any").returncode == 0
