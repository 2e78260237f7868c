"""The real-world files under examples/: right, proven to the last rule, and serving as they say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from gateway.config.load import load
from gateway.policy.compile import compile_policy, compile_tests
from gateway.policy.prove import prove
from tests.support.decisions import NOW
from tests.support.process import COMMAND, PATIENCE, Answer, Running, Site, free_port
from tests.support.slips import slips

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ["dashboard", "php-shop", "rest-api"]
"""Those of real applications; the others show how to run a gateway."""


@pytest.mark.parametrize("name", NAMES)
def test_it_is_right_and_every_rule_is_proven(name: str) -> None:
    """As CI runs it: the real command, without secrets, and not a single remark."""
    words = [*COMMAND, "check", "--allow-unset", "--cover", "--format", "json"]
    done = subprocess.run(words, cwd=EXAMPLES / name, env=bare(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    told = json.loads(done.stdout)
    assert (told["ok"], told["problems"]) == (True, [])
    assert len(told["tests"]) >= 30
    assert told["uncovered"] == []


@pytest.mark.parametrize("name", NAMES)
def test_it_is_explained(name: str) -> None:
    readme = (EXAMPLES / name / "README.md").read_text()
    for file in EXAMPLES.joinpath(name).glob("rules/*.yaml"):
        assert f"(rules/{file.name})" in readme
    assert "gateway check --cover" in readme


@pytest.mark.parametrize("name", NAMES)
def test_no_slip_in_the_rules_passes_the_tests(name: str) -> None:
    """Tests that a wrong rule passes too would prove nothing."""
    loaded = load(EXAMPLES / name / "gateway.yaml", environ={}, allow_unset=True)
    assert loaded.config is not None, [str(problem) for problem in loaded.problems]
    policy, _ = compile_policy(loaded.config, loaded.places)
    assert policy is not None
    tests = compile_tests(loaded.config, loaded.places)
    unseen = [
        slip for slip, wrong in slips(policy) if all(result.passed for result in prove(wrong, tests, NOW))
    ]
    assert unseen == []


# -- alive ---------------------------------------------------------------------------------------------------


def bare() -> dict[str, str]:
    """The environment without a setting of this machine."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "JWT_"))}


class Example(Site):
    """A copy of an example's folder, set up as its README says, in front of an example backend."""

    def __init__(self, name: str, folder: Path, **backends: int) -> None:
        self.folder = folder / name
        shutil.copytree(EXAMPLES / name, self.folder, ignore=shutil.ignore_patterns(".env", "*.db*"))
        self.config = self.folder / "gateway.yaml"
        urls = {variable: f"http://127.0.0.1:{port}" for variable, port in backends.items()}
        listen = {"GATEWAY_LISTEN": "127.0.0.1:0", "GATEWAY_OPS_LISTEN": "127.0.0.1:0"}
        self.environ = bare() | urls | listen
        assert self.command("init").returncode == 0


@pytest.fixture(scope="module")
def backends() -> Iterator[list[int]]:
    """Two backends without authentication, each as a process of its own; their ports."""
    ports = [free_port(), free_port()]
    app = str(EXAMPLES / "upstream" / "app.py")
    with ExitStack() as stack:
        for port in ports:
            command = [sys.executable, app, "--port", str(port)]
            process = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            )
            stack.callback(process.terminate)
            assert process.stdout is not None
            process.stdout.readline()  # it says where it listens
        yield ports


def seen(answer: Answer) -> tuple[str, dict[str, str]]:
    """The target and the headers that reached the backend."""
    assert answer.status == 200, answer.body
    return answer.json["target"], {name.lower(): value for name, value in answer.json["headers"]}


def access(gateway: Running, email: str) -> str:
    return str(gateway.log_in(email)["accessToken"])


def line(gateway: Running, path: str) -> dict[str, Any]:
    """The decision line about a path, which is written a moment after the answer."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for each in gateway.lines:
            if each.get("path") == path:
                return each
        time.sleep(0.01)
    raise AssertionError(f"no line about {path}")


def test_the_dashboard_is_looked_at_changed_and_live(tmp_path: Path, backends: list[int]) -> None:
    site = Example("dashboard", tmp_path, DASHBOARD_URL=backends[0])
    site.add("viewer@example.com")
    site.add("editor@example.com", "--role", "editor")
    with site.running() as gateway:
        assert gateway.request("GET", "/api/health").status == 200
        assert gateway.request("GET", "/d/abc").status == 401
        viewer, editor = access(gateway, "viewer@example.com"), access(gateway, "editor@example.com")
        _, headers = seen(gateway.request("GET", "/d/abc", token=viewer))
        assert headers["x-user-email"] == "viewer@example.com"
        assert gateway.request("POST", "/api/dashboards/db", token=viewer).status == 403
        assert gateway.request("POST", "/api/dashboards/db", token=editor).status == 200
        assert gateway.request("GET", "/API/admin/stats", token=editor).status == 403
        assert gateway.request("GET", "/metrics").status == 403
        url = f"ws://{gateway.address[0]}:{gateway.address[1]}/api/live/ws"
        with connect(url, additional_headers={"Authorization": f"Bearer {viewer}"}) as live:
            assert ["X-User-Email", "viewer@example.com"] in json.loads(live.recv(PATIENCE))["headers"]
            live.send("cpu")
            assert live.recv(PATIENCE) == "cpu"


def test_the_shop_is_open_where_it_shall_be_and_says_whom_the_trial_would_refuse(
    tmp_path: Path, backends: list[int]
) -> None:
    site = Example("php-shop", tmp_path, SHOP_URL=backends[0])
    site.add("staff@example.com", "--role", "staff")
    with site.running() as gateway:
        target, headers = seen(gateway.request("GET", "/index.php?route=product/7"))
        assert target == "/index.php?route=product/7"
        assert not any(name.startswith("x-user") for name in headers)
        closed = ("/install", "/.env", "/Admin.php", "/admin.php%20", "/ADMIN/orders", "/phpinfo.php/x")
        assert {gateway.request("GET", path).status for path in closed} == {403}
        assert gateway.request("GET", "/admin.php/x.css").status == 401
        assert gateway.request("GET", "/catalog/..%2Fadmin.php").status == 400
        staff = access(gateway, "staff@example.com")
        assert seen(gateway.request("GET", "/admin.php", token=staff))[1]["x-user-roles"] == "staff"
        assert gateway.request("GET", "/admin/config", token=staff).status == 403
        assert gateway.request("GET", "/export.php").status == 200
        assert line(gateway, "/export.php")["would"] == "no_credential"


def test_the_api_speaks_to_pages_and_services(tmp_path: Path, backends: list[int]) -> None:
    site = Example("rest-api", tmp_path, V1_URL=backends[0], V2_URL=backends[1])
    site.add("reader@example.com", "--role", "orders:read")
    page = "https://app.example.com"
    with site.running() as gateway:
        reader = access(gateway, "reader@example.com")
        preflight = asked_by_a_page(gateway, "OPTIONS", "/v2/orders/7", page, wants="DELETE")
        assert preflight.status == 204
        assert preflight.headers["access-control-allow-origin"] == page
        refused = asked_by_a_page(gateway, "GET", "/v2/orders/7", page)
        assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, page)
        elsewhere = asked_by_a_page(gateway, "GET", "/v2/orders/7", "https://evil.example")
        assert "access-control-allow-origin" not in elsewhere.headers
        assert seen(gateway.request("GET", "/v2/orders/7", token=reader))[0] == "/v2/orders/7"
        assert gateway.request("DELETE", "/v2/orders/7", token=reader).status == 403
        assert seen(gateway.request("GET", "/status"))[0] == "/status"
        assert gateway.request("GET", "/internal/stock", token=reader).status == 403


def asked_by_a_page(gateway: Running, method: str, path: str, origin: str, wants: str = "") -> Answer:
    headers = {"Origin": origin} | ({"Access-Control-Request-Method": wants} if wants else {})
    return gateway.request(method, path, headers=headers)
