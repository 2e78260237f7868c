"""Logs are read back as they were written, and whatever else is in them never breaks the reading."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.audit import LoginSucceeded, Recorded, UserDeleted, to_log
from gateway.telemetry.logged import LONGEST, Account, Logged, Other, read
from gateway.telemetry.logs import Decided, DecisionLog

NOW = 1_800_000_000.25


def written(**changes: Any) -> bytes:
    known: dict[str, Any] = {
        "request_id": "r-1", "client": "192.0.2.1", "method": "GET", "host": b"a.test", "path": b"/x?y=z",
        "status": 200, "user": "u", "admin": False, "roles": ("a", "b"), "route": "default",
        "verdict": "allow", "reason": "default", "duration_ms": 250.0,
    }  # fmt: skip
    lines: list[bytes] = []
    DecisionLog(lines.append, clock=lambda: NOW).write(Decided(**(known | changes)))
    return lines[0].rstrip(b"\n")


def read_back(**changes: Any) -> Logged:
    found = read(written(**changes))
    assert isinstance(found, Logged)
    return found


# -- our own -------------------------------------------------------------------------------------------------


def test_a_decision_line_is_read_back() -> None:
    expected = Logged(
        NOW - 0.25, "192.0.2.1", "GET", b"a.test", b"/x", 200, "u", False, ("a", "b"), "allow", "default", ""
    )
    assert read_back() == expected
    assert read_back(would="not_admin").would == "not_admin"
    anonymous = read_back(user=None, admin=None, roles=None, host=b"")
    assert (anonymous.user, anonymous.admin, anonymous.roles, anonymous.host) == (None, None, None, b"")


@given(st.binary(max_size=40), st.binary(max_size=40), st.text(max_size=20), st.lists(st.text(), max_size=3))
def test_every_byte_of_it(path: bytes, host: bytes, user: str, roles: list[str]) -> None:
    path = path.replace(b"eyJ", b"").partition(b"?")[0]
    found = read_back(path=path, host=host, user=user, roles=tuple(roles))
    assert (found.path, found.host, found.user, found.roles) == (path, host, user, tuple(roles))


def test_lines_of_an_earlier_version_say_less() -> None:
    fields = json.loads(written())
    for name in ("host", "admin", "roles"):
        del fields[name]
    found = read(json.dumps(fields).encode())
    assert isinstance(found, Logged)
    assert (found.host, found.admin, found.roles) == (None, None, None)


@pytest.mark.parametrize(
    "prefix", ["2026-11-24T10:00:00.1Z stdout F ", "Nov 24 web gateway[7]: ", "\0" * 9000]
)
def test_what_collectors_put_in_front_is_skipped(prefix: str) -> None:
    assert read(prefix.encode() + written()) == read(written())


def test_audit_events_tell_addresses() -> None:
    lines: list[bytes] = []
    to_log(lines.append)(Recorded(LoginSucceeded(user="u", email="a@b", session="s"), NOW, None))
    to_log(lines.append)(Recorded(UserDeleted(user="u", email="a@b"), NOW, None))
    assert [read(line.rstrip()) for line in lines] == [Account("u", "a@b"), Other.EVENT]


def test_what_no_rule_was_asked_about() -> None:
    assert read(written(route=None, verdict="deny", reason="bad_framing", status=400)) is Other.RULELESS
    assert read(written(route="auth:login", reason="served")) is Other.OWN
    message = {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "info",
        "event": "gateway",
        "message": "listening",
    }
    assert read(json.dumps(message).encode()) is Other.EVENT


@pytest.mark.parametrize(
    "change",
    [
        {"path": 7}, {"path": None}, {"path": "/\u20ac"}, {"method": None}, {"client": []},
        {"status": "200"}, {"status": True}, {"user": 7}, {"host": 3}, {"host": "\u20ac"}, {"would": None},
        {"roles": 7}, {"roles": [7]}, {"roles": [["a"]]}, {"roles": {"a": 1}}, {"roles": "ab"},
        {"admin": "yes"}, {"verdict": "perhaps"}, {"verdict": None}, {"reason": {}}, {"route": 3},
        {"time": 7}, {"time": "yesterday"}, {"durationMs": None}, {"durationMs": "1"},
        {"durationMs": float("nan")}, {"durationMs": float("inf")}, {"durationMs": 10**400},
        {"event": []}, {"event": None, "name": 3},
    ],
    ids=str,
)  # fmt: skip
def test_other_things_than_ours_are_none(change: dict[str, Any]) -> None:
    assert read(json.dumps(json.loads(written()) | change).encode()) in (None, Other.EVENT)


def test_two_lines_in_one_are_none() -> None:
    assert read(written() + written()) is None
    assert read(written() + b" x") is None
    assert read(written() + b" \r") == read(written())


@pytest.mark.parametrize("cut", [0, 1, 7, 50, 200, -1])
def test_a_torn_line_is_none(cut: int) -> None:
    assert read(written()[:cut]) is None


@pytest.mark.parametrize(
    "line",
    [
        b'{"time"' + b"[" * 500_000,
        b'{"time":' + b"[" * 500_000,
        b'{"time":' + b"9" * 100_000 + b"}",
        b'{"time":"\xff\xfe"}',
        b"\xff" * 1000,
        b"x" * (LONGEST + 1),
        b"[" * 100_000 + b"]" * 100_000,
        b'1 2 3 [24/Nov/2026:10:00:00 +0000] "' + b"\\" * 300_000,
        b'1 2 3 [24/Nov/2026:10:00:00 +0000] "' + b'\\"' * 300_000,
        b" [" * 300_000,
        b'] "' * 300_000,
        b"1 " * 300_000 + b'[24/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 1',
    ],
    ids=range(12),
)
def test_monsters_cost_little(line: bytes) -> None:
    found = read(line)
    assert found is None or isinstance(found, Logged)


# -- of nginx and Apache -------------------------------------------------------------------------------------

COMBINED = (
    '203.0.113.9 - {user} [24/Nov/2026:11:30:00 +0130] "{request}" {status} 17 "http://r/?a=[b]" "x \\"y\\""'
)


def combined(request: str = "GET /a HTTP/1.1", user: str = "-", status: int = 200) -> bytes:
    return COMBINED.format(request=request, user=user, status=status).encode("latin-1")


def test_an_access_log_is_read() -> None:
    ten = 1_795_514_400.0
    assert read(combined()) == Logged(
        ten, "203.0.113.9", "GET", None, b"/a", 200, None, None, None, "", "", ""
    )
    common = b'::1 - - [24/Nov/2026:10:00:00 +0000] "POST /b?secret=1 HTTP/2.0" 404 -'
    assert read(common) == Logged(ten, "::1", "POST", None, b"/b", 404, None, None, None, "", "", "")
    assert read(combined(user="ann lee")).user == "ann lee"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("start", "host", "client"),
    [
        ("a.test:443 ", b"a.test:443", "203.0.113.9"),
        ("a.test ", b"a.test", "203.0.113.9"),
        ("10.0.0.1 ", b"10.0.0.1", "203.0.113.9"),
        ("", None, "203.0.113.9"),
    ],
)
def test_with_the_virtual_host_in_front(start: str, host: bytes | None, client: str) -> None:
    found = read(start.encode() + combined())
    assert isinstance(found, Logged)
    assert (found.host, found.client) == (host, client)


@pytest.mark.parametrize(
    ("written", "path"),
    [
        (r"/a\x22b", b'/a"b'), (r"/a\"b", b'/a"b'), (r"/a\\b", b"/a\\b"), (r"/\xc3\xa9", b"/\xc3\xa9"),
        (r"/\n\t", b"/\n\t"), ("/a%20b", b"/a%20b"), ("/é", b"/\xe9"), ("/a?b?c", b"/a"),
    ],
)  # fmt: skip
def test_escapes_are_undone(written: str, path: bytes) -> None:
    assert read(combined(f"GET {written} HTTP/1.1")).path == path  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "request_line",
    ["-", "", r"\x16\x03\x01\x00", "GET", "GET /", "GET / x HTTP/1.1", "get / HTTP/1.1", "GET a HTTP/1.1",
     "GET http://a/ HTTP/1.1", "OPTIONS * HTTP/1.1", "CONNECT a:443 HTTP/1.1", "TRACE / HTTP/1.1",
     r"GET /\x20 HTTP/1.1"],
)  # fmt: skip
def test_requests_that_no_rule_is_asked_about(request_line: str) -> None:
    assert read(combined(request_line, status=400)) is Other.RULELESS


@pytest.mark.parametrize(
    "line",
    [
        "",
        "garbage",
        combined().decode()[:60],
        '1 - - [99/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 1',
        '1 - - [24/Nov/2026:10:00:00 +9900] "GET / HTTP/1.1" 200 1',
        '1 - [24/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 1',
        '1 - - [24/Xxx/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 1',
        '1 - - [24/Nov/0000:10:00:00 +0000] "GET / HTTP/1.1" 200 1',
        '1 - - [24/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1" 2000 1',
        '1 - - [24/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1 200 1',
    ],
)
def test_what_is_no_access_log_either(line: str) -> None:
    assert read(line.encode()) is None


# -- anything ------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def judgeable(found: object) -> bool:
    """What comes out can be judged, hashed and compared without another look."""
    if isinstance(found, Logged):
        hash(found)
        return bool(found.path is not None) and found.time == found.time
    return found is None or isinstance(found, Account | Other)


@given(st.binary(max_size=300))
def test_any_bytes(line: bytes) -> None:
    assert judgeable(read(line))


@given(st.dictionaries(st.sampled_from([*json.loads(written()), "would", "name", "email"]), VALUES))
def test_any_fields(changes: dict[str, Any]) -> None:
    assert judgeable(read(json.dumps(json.loads(written()) | changes).encode()))


@given(st.data())
def test_damaged_lines(data: st.DataObject) -> None:
    line = bytearray(data.draw(st.sampled_from([written(), combined(), b"a.test " + combined(user="ann")])))
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, len(line)))
        line[start : start + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    assert judgeable(read(bytes(line)))
