"""SIGHUP with the real command: what is taken up, what is refused and why, and that nothing is lost."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from signal import SIGHUP
from typing import Any

import pytest

from tests.support import process
from tests.support.life import soon
from tests.support.process import PATIENCE, Running, Site, looking_every

CLIENTS = 6


class Editor:
    """Changes the file of a running gateway, and waits for what comes of it."""

    def __init__(self, site: Site, gateway: Running) -> None:
        self.site, self.gateway = site, gateway
        self.original = site.config.read_text()

    def write(self, old: str, new: str) -> None:
        """The original with one change."""
        assert old in self.original
        self.site.config.write_text(self.original.replace(old, new, 1))

    def reload(self) -> dict[str, Any]:
        """SIGHUP; what /readyz says of it."""
        before = self.count()
        self.gateway.process.send_signal(SIGHUP)
        soon(lambda: self.count() == before + 1)
        return dict(self.gateway.request("GET", "/readyz", ops=True).json["reload"])

    def outcome(self, old: str, new: str) -> str:
        self.write(old, new)
        return str(self.reload()["outcome"])

    def count(self) -> float:
        lines = self.gateway.request("GET", "/metrics", ops=True).body.decode().splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith("gateway_reloads_total{"))

    def told(self, **fields: object) -> list[dict[str, Any]]:
        """Log lines with these fields."""
        return [line for line in self.gateway.lines if fields.items() <= line.items()]

    def status(self, path: str = "/health", token: str = "") -> int:
        return self.gateway.request("GET", path, token=token).status


@pytest.fixture
def editor(site: Site) -> Iterator[Editor]:
    with site.running() as gateway:
        yield Editor(site, gateway)


HEALTH = "{path: /health, allow: public}"


def test_rules_are_taken_up(editor: Editor) -> None:
    assert (editor.status(), editor.status("/open")) == (200, 401)
    assert editor.outcome(HEALTH, "{path: /open/**, allow: public}") == "applied"
    assert (editor.status(), editor.status("/open")) == (401, 200)
    assert editor.outcome(HEALTH, HEALTH) == "applied"
    assert (editor.status(), editor.status("/open")) == (200, 401)
    soon(lambda: len(editor.told(message="reloaded")) == 2)


def test_identity_headers_and_limits_on_logins_are_taken_up(editor: Editor) -> None:
    editor.site.add("ana@example.com")
    token = editor.gateway.log_in("ana@example.com")["accessToken"]
    preset = "identity_headers: {preset: remote-user}\nrate_limits:"
    assert editor.outcome("rate_limits:", preset) == "applied"
    seen = dict(editor.gateway.request("GET", "/x", token=token).json["headers"])
    assert seen["Remote-Email"] == "ana@example.com"
    assert "X-User-Email" not in seen
    assert editor.outcome("per_account: 1000/minute", "per_account: 1/day") == "applied"
    wrong = {"email": "ana@example.com", "password": "nonsense nonsense"}
    statuses = [editor.gateway.request("POST", "/auth/login", json_body=wrong).status for _ in range(3)]
    assert statuses[-1] == 429


def test_upstreams_are_taken_up_and_unchanged_ones_keep_their_connections(editor: Editor) -> None:
    editor.status()
    assert editor.outcome(HEALTH, "{path: /health, allow: public, upstream: default}") == "applied"
    assert b'gateway_upstream_connections{state="idle",upstream="default"} 1.0' in metrics(editor)
    upstream = next(line for line in editor.original.splitlines() if line.startswith("upstream: "))
    nowhere = "upstreams: {elsewhere: {url: 'http://127.0.0.1:1'}}"
    assert editor.outcome(upstream, nowhere) == "applied"
    assert editor.status() == 503
    assert b'upstream="default"} ' not in metrics(editor)
    assert editor.outcome(upstream, upstream) == "applied"
    assert editor.status() == 200


def metrics(editor: Editor) -> bytes:
    return editor.gateway.request("GET", "/metrics", ops=True).body


def test_mistakes_change_nothing_and_are_logged_with_their_places(editor: Editor) -> None:
    editor.write(HEALTH, "{path: /open, alow: public}\n  - {path: health, allow: nobody}")
    told = editor.reload()
    assert (told["outcome"], told["reason"]) == ("mistakes", "2 mistakes")
    assert (editor.status(), editor.status("/open")) == (200, 401)
    soon(lambda: len(editor.told(message="reload refused: 2 mistakes")) == 2)
    refused = editor.told(message="reload refused: 2 mistakes", level="error")
    assert [line["place"].rpartition("gateway.yaml")[2] for line in refused] == [":12:19", ":13:12"]
    assert [line["setting"] for line in refused] == ["routes[0].alow", "routes[1].path"]
    assert refused[0]["problem"] == 'unknown setting, did you mean "allow"?'
    assert b"gateway_reload_successful 0.0" in metrics(editor)
    assert editor.outcome(HEALTH, HEALTH) == "applied"
    assert b"gateway_reload_successful 1.0" in metrics(editor)


def test_a_file_whose_own_tests_fail_changes_nothing(editor: Editor) -> None:
    tests = "tests: [{request: GET /open, as: anonymous, expect: 401}]\nroutes:"
    editor.write("routes:", tests)
    assert editor.reload()["outcome"] == "applied"
    opened = tests + "\n  - {path: /open, allow: public}"
    editor.write("routes:", opened)
    told = editor.reload()
    assert (told["outcome"], told["reason"]) == ("tests_failed", "1 test failed")
    assert editor.status("/open") == 401
    soon(lambda: editor.told(message="reload refused: 1 test failed"))
    (line,) = editor.told(message="reload refused: 1 test failed")
    assert "expected 401, got allow" in line["problem"]


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("drain: 10s", "drain: 11s", "server.timeouts.drain"),
        ("bcrypt_cost: 4", "bcrypt_cost: 5", "accounts.bcrypt_cost"),
        ("rate_limits:", "auth: {prefix: /login}\nrate_limits:", "auth.prefix"),
        ("tokens:", "tokens:\n  leeway: 1s", "tokens.leeway"),
        ("rate_limits:", "rate_limits:\n  storage: redis://localhost", "rate_limits.storage"),
    ],
)
def test_what_needs_a_restart_refuses_the_whole_file(editor: Editor, old: str, new: str, key: str) -> None:
    editor.original = editor.original.replace(HEALTH, "{path: /open, allow: public}")
    editor.write(old, new)
    told = editor.reload()
    assert (told["outcome"], told["reason"]) == ("restart_needed", f"restart needed for {key}")
    assert (editor.status(), editor.status("/open")) == (200, 401)


def test_a_file_that_is_gone_changes_nothing(editor: Editor) -> None:
    editor.site.config.unlink()
    assert editor.reload()["outcome"] == "mistakes"
    assert editor.status() == 200


def test_a_request_in_flight_keeps_the_rule_and_the_backend_it_was_given(editor: Editor) -> None:
    editor.original = editor.original.replace(HEALTH, "{path: /slow, allow: public}")
    editor.site.config.write_text(editor.original)
    assert editor.reload()["outcome"] == "applied"
    with closing(http.client.HTTPConnection(*editor.gateway.address, timeout=PATIENCE)) as client:
        client.request("GET", "/slow?seconds=1")
        soon(lambda: b"gateway_requests_in_flight 1.0" in metrics(editor))
        upstream = next(line for line in editor.original.splitlines() if line.startswith("upstream: "))
        nowhere = "upstreams: {elsewhere: {url: 'http://127.0.0.1:1'}}"
        editor.original = editor.original.replace("/slow, allow: public", "/slow, allow: admin")
        assert editor.outcome(upstream, nowhere) == "applied"
        answer = client.getresponse()
        assert answer.status == 200
        assert json.loads(answer.read())["target"] == "/slow?seconds=1"
        client.request("GET", "/slow?seconds=0")
        assert client.getresponse().status == 401


@pytest.mark.parametrize(("allow", "goes_on"), [("authenticated", False), ("public", True)])
def test_a_stream_is_judged_again(editor: Editor, allow: str, goes_on: bool) -> None:
    editor.original = editor.original.replace(HEALTH, "{path: /sse, allow: public}")
    editor.site.config.write_text(editor.original)
    assert editor.reload()["outcome"] == "applied"
    with socket.create_connection(editor.gateway.address, PATIENCE) as client:
        client.sendall(b"GET /sse?events=60&every=0.05 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert client.recv(65536)
        assert editor.outcome("/sse, allow: public", f"/**, allow: {allow}") == "applied"
        seen = b""
        with suppress(ConnectionResetError):
            while data := client.recv(65536):
                seen += data
    assert (b"id: 60\n" in seen) is goes_on


# -- under load ----------------------------------------------------------------------------------------------

VERSIONS = (
    """
identity_headers: {preset: x-user}
routes:
  - {path: /health, allow: public}
  - {path: /a, allow: public}
  - {path: /b, allow: nobody}
  - {path: /who, allow: authenticated, headers: {request: {add: {X-Version: "0"}}}}
""",
    """
identity_headers: {preset: remote-user}
routes:
  - {path: /health, allow: public}
  - {path: /a, allow: nobody}
  - {path: /b, allow: public}
  - {path: /who, allow: authenticated, headers: {request: {add: {X-Version: "1"}}}}
""",
)
"""Two files; whatever one of them says of a path, the other one says the contrary."""
IDENTITY = ("X-User-Email", "Remote-Email")


@dataclass(frozen=True, slots=True)
class Seen:
    """One request: by which version it was judged, and between which moments that was."""

    version: int
    begin: float
    end: float


class Client(threading.Thread):
    """Asks again and again on one connection, and writes down by which version it was judged."""

    def __init__(self, address: tuple[str, int], token: str, stop: threading.Event) -> None:
        super().__init__()
        self.address, self.token, self.stop = address, token, stop
        self.seen: list[Seen] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with closing(http.client.HTTPConnection(*self.address, timeout=PATIENCE)) as connection:
                while not self.stop.is_set():
                    self.ask(connection, "/a", lambda status, _: {200: 0, 403: 1}[status])
                    self.ask(connection, "/b", lambda status, _: {200: 1, 403: 0}[status])
                    self.ask(connection, "/who", _version_told, Authorization=f"Bearer {self.token}")
                    for path, expected in (("/health", 200), ("/closed", 401)):
                        self.ask(connection, path, lambda status, _, right=expected: {right: -1}[status])
        except BaseException as failure:
            self.failure = failure

    def ask(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        version: Callable[[int, Any], int],
        **headers: str,
    ) -> None:
        begin = time.monotonic()
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        assert answer.status != 200 or body["target"] == path
        self.seen.append(Seen(version(answer.status, body), begin, time.monotonic()))


def _version_told(status: int, body: Any) -> int:
    """That of the route, which has to be that of the identity headers."""
    assert status == 200
    headers = dict(body["headers"])
    version = int(headers["X-Version"])
    assert headers[IDENTITY[version]] == "ana@example.com"
    assert IDENTITY[1 - version] not in headers
    return version


def misjudged(seen: list[Seen], told: list[float], known: list[float]) -> list[Seen]:
    """Requests judged by a version that could not hold meanwhile.

    The n-th file was written at `told[n]`, and known to hold at `known[n]`.
    """
    wrong = []
    for each in seen:
        oldest = bisect_right(known, each.begin) - 1
        newest = bisect_right(told, each.end) - 1
        if each.version >= 0 and each.version not in {number % 2 for number in range(oldest, newest + 1)}:
            wrong.append(each)
    return wrong


@pytest.mark.parametrize(("way", "reloads"), [("signal", 100), ("auto", 40)])
def test_a_hundred_reloads_under_load_lose_and_misjudge_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, way: str, reloads: int
) -> None:
    monkeypatch.setattr(process, "COMMAND", looking_every(0.01))
    base = site.config.read_text().partition("routes:")[0].replace("server: {", f"server: {{reload: {way}, ")
    files = [base + version for version in VERSIONS]
    site.config.write_text(files[0])
    site.add("ana@example.com")
    stop = threading.Event()
    with site.running() as gateway:
        editor = Editor(site, gateway)
        token = gateway.log_in("ana@example.com")["accessToken"]
        clients = [Client(gateway.address, token, stop) for _ in range(CLIENTS)]
        told, known = [time.monotonic()], [time.monotonic()]
        for client in clients:
            client.start()
        try:
            for number in range(1, reloads + 1):
                told.append(time.monotonic())
                written = site.folder / "new.yaml"
                written.write_text(files[number % 2])
                written.replace(site.config)
                if way == "signal":
                    gateway.process.send_signal(SIGHUP)
                soon(lambda number=number: editor.count() == number)
                known.append(time.monotonic())
        finally:
            stop.set()
            for client in clients:
                client.join(PATIENCE)
        assert [client.failure for client in clients] == [None] * CLIENTS
        seen = [each for client in clients for each in client.seen]
        assert len(seen) > 10 * reloads
        assert misjudged(seen, told, known) == []
        assert gateway.stop() == 0
        assert editor.told(level="error") == []


def test_a_misjudged_request_would_be_found() -> None:
    told, known = [0.0, 10.0, 20.0], [1.0, 11.0, 21.0]
    right = [
        Seen(0, 5, 6),
        Seen(0, 9, 10.5),
        Seen(1, 9, 10.5),
        Seen(1, 12, 13),
        Seen(0, 22, 23),
        Seen(-1, 5, 6),
    ]
    wrong = [Seen(1, 5, 6), Seen(0, 12, 13), Seen(1, 22, 23)]
    assert misjudged([*right, *wrong], told, known) == wrong
