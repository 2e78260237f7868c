"""`gateway routes`: who may do what, and nothing public that is not listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import MINIMAL, Command

RULES = (
    MINIMAL
    + """\
routes:
  - {path: /health, methods: [GET], allow: public}
  - {path: /admin/**, allow: admin}
  - {path: "/projects/{id}", methods: [DELETE], allow: admin}
  - {path: /reports/**, allow: {roles: {any: [analyst]}}}
  - {path: /office, allow: {networks: [10.0.0.0/8]}}
"""
)


@pytest.fixture(autouse=True)
def rules(folder: Path) -> Path:
    """No secret is set."""
    (folder / "gateway.yaml").write_text(RULES)
    return folder


def rows(out: str) -> list[list[str]]:
    return [line.split("\t") for line in out.splitlines()]


def test_everyone_and_everything(gateway: Command) -> None:
    result = gateway("routes")
    assert (result.code, result.err) == (0, "")
    allowed = ["allow"] * 3
    assert rows(result.out) == [
        ["/admin/**, any method, any host", "401", "403", "403", "allow", "admin", "gateway.yaml:7"],
        ["/auth/**, any method, any host", "own", "own", "own", "own", "the gateway itself", ""],
        ["GET /health, any host", "allow", *allowed, "anyone", "gateway.yaml:6"],
        ["/health, any method but GET, any host", "401", *allowed, "authenticated", "default"],
        [
            "/office, any method, any host", "some", "some", "some", "some",
            "anyone, from 10.0.0.0/8", "gateway.yaml:10",
        ],
        ["DELETE /projects/{id}, any host", "401", "403", "403", "allow", "admin", "gateway.yaml:8"],
        [
            "/projects/{id}, any method but DELETE, any host",
            "401", *allowed, "authenticated", "default",
        ],
        [
            "/reports/**, any method, any host", "401", "403", "allow", "403",
            "role analyst", "gateway.yaml:9",
        ],
        ["/**, any method, any host", "401", *allowed, "authenticated", "default"],
    ]  # fmt: skip


def test_json(gateway: Command) -> None:
    told = json.loads(gateway("routes", "--format", "json").out)
    assert told["callers"] == ["anonymous", "user", "role analyst", "admin"]
    health = next(row for row in told["rows"] if row["path"] == "/health")
    assert health["access"] == dict.fromkeys(told["callers"], "allow")
    assert (health["public"], health["upstream"], health["host"]) == (True, "default", None)
    assert health["route"] == {
        "label": "GET /health", "path": "/health", "file": "gateway.yaml", "line": 6,
    }  # fmt: skip
    public = json.loads(gateway("routes", "--public", "--format", "json").out)
    assert [row["path"] for row in public["rows"]] == ["/health", "/office"]


def test_what_is_public_can_be_listed_and_held(gateway: Command, rules: Path) -> None:
    listed = gateway("routes", "--public").out
    assert listed == (
        "GET /health, any host\tanyone\tgateway.yaml:6\n"
        "/office, any method, any host\tanyone, from 10.0.0.0/8\tgateway.yaml:10\n"
    )
    (rules / "public.txt").write_text(listed)
    result = gateway("routes", "--allow-public", "public.txt")
    assert (result.code, result.out) == (0, "")
    assert result.err == "nothing is public that public.txt does not list\n"


def test_what_is_not_listed_is_named_with_its_place(gateway: Command, rules: Path) -> None:
    (rules / "public.txt").write_text("# signed by ann\n\n  GET /health\n/office\n")
    (rules / "gateway.yaml").write_text(RULES + '  - {path: "/{page}", methods: [GET], allow: public}\n')
    result = gateway("routes", "--allow-public", "public.txt")
    assert result.code == 1
    assert result.out == (
        "gateway.yaml:11  GET /{page}, any host: anyone may use it without a login, "
        "and public.txt does not list it\n"
    )
    assert result.err == "1 request public and not in public.txt\n"
    told = json.loads(gateway("routes", "--allow-public", "public.txt", "--format", "json").out)
    assert told["unlisted"] == ["GET /{page}, any host"]


def test_a_rule_on_trial_is_open_meanwhile(gateway: Command, rules: Path) -> None:
    (rules / "gateway.yaml").write_text(RULES + "  - {path: /trial, allow: admin, report_only: true}\n")
    assert "/trial, any method, any host\tanyone (reports only: admin)" in gateway("routes", "--public").out


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("/**", 0),
        ("/**, any method", 0),
        ("GET /health, any host\n/office, any method but DELETE, any host", 1),
        ("GET /health, www.example.com\n/office", 1),
        ("GET /{any}\n/office, any method", 0),
        ("GET, POST /health\n/office", 0),
        ("/health, any method but GET\n/office", 1),
        ("", 1),
    ],
)
def test_a_line_covers_what_is_more_specific(gateway: Command, rules: Path, line: str, code: int) -> None:
    (rules / "public.txt").write_text(f"{line}\n")
    assert gateway("routes", "--allow-public", "public.txt").code == code


@pytest.mark.parametrize(
    "line", ["health", "GET health", "GET /health, any method", "/a/../b", "/x%20", "get /x"]
)
def test_a_line_that_is_none_has_its_place(gateway: Command, rules: Path, line: str) -> None:
    (rules / "public.txt").write_text(f"/office\n{line}\n")
    result = gateway("routes", "--allow-public", "public.txt")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("Error: public.txt:2: ")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("name", ["gone", "binary", "folder", "large", "/dev/zero"])
def test_a_list_that_can_not_be_read(gateway: Command, rules: Path, name: str) -> None:
    (rules / "folder").mkdir()
    (rules / "binary").write_bytes(b"\xff\xfe\x00")
    (rules / "large").write_bytes(b"/x\n" * (17 << 20))
    result = gateway("routes", "--allow-public", name)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"Error: {name}: ")
    assert result.err.count("\n") == 1


def test_a_file_with_mistakes(gateway: Command, rules: Path) -> None:
    (rules / "gateway.yaml").write_text(RULES.replace("allow: admin", "allow: admins"))
    result = gateway("routes")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("gateway.yaml:7:")
