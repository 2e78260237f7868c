"""Every line is one JSON object, whatever was in it, and no credential is."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.keyset import KeySet
from gateway.identity.tokens import AccessTokens
from gateway.telemetry.logs import REQUEST_ID, Decided, DecisionLog, JsonFormatter, configure, masked
from tests.support.tokens import Mint

NOW = 1_800_000_000.25


def decided(**changes: object) -> Decided:
    known: dict[str, object] = {
        "request_id": "r-1",
        "client": "192.0.2.1",
        "method": "GET",
        "host": b"app.example.com",
        "path": b"/projects/42",
        "status": 200,
        "user": "user-1",
        "admin": False,
        "roles": ("analyst", "auditor"),
        "route": "GET /projects/{id}",
        "verdict": "allow",
        "reason": "ok",
        "upstream": "http://127.0.0.1:9000",
        "duration_ms": 12.3456,
        "upstream_ms": 11.0,
        "bytes_in": 3,
        "bytes_out": 376,
    }
    return Decided(**(known | changes))  # type: ignore[arg-type]


def line_of(**changes: object) -> dict[str, object]:
    lines: list[bytes] = []
    DecisionLog(lines.append, clock=lambda: NOW).write(decided(**changes))
    assert len(lines) == 1
    assert lines[0].endswith(b"\n")
    assert lines[0].count(b"\n") == 1
    assert all(0x20 <= byte <= 0x7E for byte in lines[0][:-1])
    fields: dict[str, object] = json.loads(lines[0])
    return fields


# -- the decision line --------------------------------------------------------------------------------------


def test_a_decision_line_says_all_there_is_to_say() -> None:
    assert line_of() == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "info",
        "event": "request",
        "requestId": "r-1",
        "client": "192.0.2.1",
        "method": "GET",
        "host": "app.example.com",
        "path": "/projects/42",
        "status": 200,
        "user": "user-1",
        "admin": False,
        "roles": ["analyst", "auditor"],
        "route": "GET /projects/{id}",
        "verdict": "allow",
        "reason": "ok",
        "upstream": "http://127.0.0.1:9000",
        "durationMs": 12.346,
        "upstreamMs": 11.0,
        "bytesIn": 3,
        "bytesOut": 376,
    }


def test_what_is_not_known_is_null() -> None:
    line = line_of(host=b"", user=None, admin=None, roles=None, route=None, upstream=None, upstream_ms=None)
    unknown = ("host", "user", "admin", "roles", "route", "upstream", "upstreamMs")
    assert [line[name] for name in unknown] == [None] * len(unknown)


def test_no_roles_are_not_unknown_roles() -> None:
    assert line_of(roles=())["roles"] == []
    assert line_of(admin=True)["admin"] is True
    assert line_of(would="not_admin")["would"] == "not_admin"


def test_long_hosts_fill_no_memory() -> None:
    log = DecisionLog(lambda _: None)
    for number in range(100):
        log.write(decided(host=b"%d" % number * 200))
        log.write(decided(host=b"host-%d" % number))
    assert len(log._pieces) == 110


def test_a_record_just_begun_can_be_written() -> None:
    lines: list[bytes] = []
    record = Decided(request_id="r", client="unix", method="GET", path=b"/")
    DecisionLog(lines.append).write(record)
    assert json.loads(lines[0])["status"] == 0
    assert record.duration_ms is not None
    assert 0 <= record.duration_ms < 60_000


def test_the_query_is_never_shown() -> None:
    assert line_of(path=b"/a?token=secret")["path"] == "/a"


def test_a_token_in_a_path_is_masked() -> None:
    assert line_of(path=b"/verify/" + Mint().access() + b"/x")["path"] == "/verify/***/x"
    assert line_of(path=b"/keyJoin")["path"] == "/keyJoin"


HOSTILE = '/a"}\n{"x":1\r\\\0\x1b[31m\x7f  ￿é\t'


def test_no_field_breaks_out_of_its_line() -> None:
    line = line_of(
        path=HOSTILE.encode(), method=HOSTILE, client=HOSTILE, request_id=HOSTILE, user=HOSTILE,
        host=HOSTILE.encode(), roles=(HOSTILE, "x"),
    )  # fmt: skip
    assert line["path"] == line["host"] == HOSTILE.encode().decode("latin-1")
    assert line["roles"] == [HOSTILE, "x"]
    assert {line[name] for name in ("method", "client", "requestId", "user")} == {HOSTILE}


@given(path=st.binary(max_size=60), text=st.text(st.characters(), max_size=40), took=st.floats(0, 1e9))
def test_whatever_comes_it_is_one_ascii_line(path: bytes, text: str, took: float) -> None:
    line = line_of(path=path, user=text, client=text, route=text, upstream=text, duration_ms=took)
    assert line["user"] == text
    assert str(line["path"]).encode("latin-1") == path.partition(b"?")[0]


@pytest.mark.parametrize(
    ("now", "shown"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1.9999, "1970-01-01T00:00:01.999Z"),
        (1_800_000_000.125, "2027-01-15T08:00:00.125Z"),
    ],
)
def test_times_are_rfc_3339_utc(now: float, shown: str) -> None:
    lines: list[bytes] = []
    DecisionLog(lines.append, clock=lambda: now).write(decided())
    assert json.loads(lines[0])["time"] == shown


def test_the_clock_moves_the_time() -> None:
    lines: list[bytes] = []
    times = iter([10.0, 10.5, 11.25, 3.0])
    log = DecisionLog(lines.append, clock=lambda: next(times))
    for _ in range(4):
        log.write(decided())
    assert [json.loads(line)["time"][17:] for line in lines] == ["10.000Z", "10.500Z", "11.250Z", "03.000Z"]


# -- the standard library's logging -------------------------------------------------------------------------


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """Afterwards, all is as pytest wants it."""
    names = (None, "uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    raising = logging.raiseExceptions
    yield
    logging.captureWarnings(False)
    logging.raiseExceptions = raising
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def out(logging_restored: None) -> Iterator[io.StringIO]:
    """Logging configured as in a running gateway."""
    stream = io.StringIO()
    outlet = configure(stream, level="info")
    yield stream
    outlet.close()


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_record_is_a_line(out: io.StringIO) -> None:
    logging.getLogger("gateway.proxy.exchange").warning(
        "upstream %s is slow", "app", extra={"requestId": "r-9"}
    )
    (line,) = lines(out)
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "level": "warning",
        "event": "proxy",
        "logger": "gateway.proxy.exchange",
        "message": "upstream app is slow",
        "requestId": "r-9",
    }


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("uvicorn.error", "server"),
        ("uvicorn", "server"),
        ("gateway.accounts.feed", "accounts"),
        ("gateway", "gateway"),
        ("asyncio", "asyncio"),
        ("sqlalchemy.engine", "sqlalchemy"),
    ],
)
def test_every_record_is_named_by_the_room_it_comes_from(out: io.StringIO, name: str, event: str) -> None:
    logging.getLogger(name).error("hello")
    assert [line["event"] for line in lines(out)] == [event]


def test_an_event_may_name_itself(out: io.StringIO) -> None:
    logging.getLogger("gateway.server.run").info("listening", extra={"event": "started", "port": 8080})
    assert lines(out)[0]["event"] == "started"
    assert lines(out)[0]["port"] == 8080


def test_levels_are_obeyed_and_the_access_log_of_uvicorn_is_silent(out: io.StringIO) -> None:
    logging.getLogger("gateway.x").debug("nobody asked")
    logging.getLogger("uvicorn.access").info("GET / 200")
    assert lines(out) == []


def test_a_traceback_is_one_field_of_one_line(out: io.StringIO) -> None:
    try:
        raise ValueError("the Authorization: Bearer abc.def was odd")
    except ValueError:
        logging.getLogger("gateway.proxy").exception("the gate failed")
    (line,) = lines(out)
    assert line["message"] == "the gate failed"
    assert "Traceback" in str(line["exception"])
    assert "Bearer ***" in str(line["exception"])
    assert "abc.def" not in out.getvalue()


def test_warnings_are_lines_too(out: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("this is going away", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "this is going away" in str(lines(out)[0]["message"])


def test_the_request_at_hand_is_named(out: io.StringIO) -> None:
    token = REQUEST_ID.set("r-7")
    logging.getLogger("gateway.accounts").info("slow query")
    REQUEST_ID.reset(token)
    logging.getLogger("gateway.accounts").info("idle")
    assert [line.get("requestId") for line in lines(out)] == ["r-7", None]


class Nasty:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


def test_a_record_that_does_not_fit_its_message_is_still_a_line(out: io.StringIO) -> None:
    log = logging.getLogger("gateway.x")
    log.warning("%s and %s", "only one")
    log.warning("%d", "not a number")
    log.warning("it says %s", Nasty())
    assert [line["message"] for line in lines(out)] == ["%s and %s", "%d", "it says %s"]


def test_extras_of_any_kind_are_shown_plainly(out: io.StringIO) -> None:
    extras = {
        "none": None,
        "yes": True,
        "ratio": 0.5,
        "odd": float("nan"),
        "raw": b"\xff\n",
        "many": ("a", 1, float("inf")),
        "error": ValueError("password=hunter2"),
    }
    logging.getLogger("gateway.x").info("hello\nworld", extra=extras)
    (line,) = lines(out)
    assert {name: line[name] for name in extras} == {
        "none": None,
        "yes": True,
        "ratio": 0.5,
        "odd": "nan",
        "raw": "\xff\n",
        "many": ["a", 1, "inf"],
        "error": "password=***",
    }


def test_an_extra_whose_name_says_secret_is_masked(out: io.StringIO) -> None:
    secrets = {"password": "hunter2", "refreshToken": "abc", "JWT_SECRET": b"xyz", "tokens": ["a"]}
    logging.getLogger("gateway.x").info("hello", extra=secrets)
    assert [lines(out)[0][name] for name in secrets] == ["***"] * 4
    logging.getLogger("gateway.x").info("hello", extra={"changed": {"admin": True, "api_token": "abc"}})
    assert lines(out)[1]["changed"] == {"admin": True, "api_token": "***"}


def test_the_formatter_works_alone() -> None:
    record = logging.LogRecord("gateway.x", logging.INFO, __file__, 1, HOSTILE, None, None)
    text = JsonFormatter().format(record)
    assert json.loads(text)["message"] == HOSTILE
    assert text.isascii()


def test_lines_that_nobody_took_are_told_of(logging_restored: None) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as stream:
        outlet = configure(stream, level=logging.INFO)
        outlet.attach(lambda _, __: None)
        for _ in range(30):
            outlet.write(b'{"x":"' + b"x" * 50_000 + b'"}\n')
        outlet.flush()
        got = b""
        while piece := reader.read():
            got += piece
            outlet.flush()
        outlet.close()
    told = json.loads(got.splitlines()[-1])
    assert told["event"] == "log_lines_dropped"
    assert 0 < told["count"] == outlet.dropped


# -- the last net -------------------------------------------------------------------------------------------

HASH = "$2b$12$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abc.def-ghi_", "Authorization: Bearer ***"),
        ("b'authorization', b'bearer abc=='", "b'authorization', b'bearer ***'"),
        ("Basic dXNlcjpwYXNz", "Basic ***"),
        ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.sig_-1 instead", "got *** instead"),
        ("half of eyJhbGciOiJIUzI1NiJ9", "half of ***"),
        (f"stored {HASH}!", "stored ***!"),
        ("postgresql://gateway:hunter2@db/gateway", "postgresql://gateway:***@db/gateway"),
        ("redis://:hunter2@cache:6379", "redis://:***@cache:6379"),
        ('{"password": "hunter2", "email": "a@b"}', '{"password": "***", "email": "a@b"}'),
        ("refreshToken=abc&x=1", "refreshToken=***&x=1"),
        ("{'currentPassword': 'hunter2'}", "{'currentPassword': '***'}"),
        ("JWT_ACCESS_SECRET=0123456789", "JWT_ACCESS_SECRET=***"),
        ("nothing of that kind: http://a:80/x key=1", "nothing of that kind: http://a:80/x key=1"),
        ("the bearer of bad news", "the bearer *** bad news"),
    ],
)
def test_what_looks_like_a_credential_is_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


@given(st.text(max_size=30), st.text(max_size=30), st.booleans())
def test_no_token_of_ours_gets_through(before: str, after: str, refresh: bool) -> None:
    mint = Mint()
    token = (mint.refresh() if refresh else mint.access()).decode()
    assert token.rpartition(".")[2] not in masked(f"{before} {token} {after}")


@pytest.mark.parametrize(
    "text",
    ["a" * 200_000, "eyJ" * 60_000, "://" * 60_000, "password" + " " * 200_000, "token" * 40_000],
    ids=lambda text: text[:8],
)
def test_masking_takes_no_time_whatever_the_text(text: str) -> None:
    started = time.perf_counter()
    masked(text)
    assert time.perf_counter() - started < 5, "milliseconds, unless it is quadratic: then minutes"


def test_no_token_or_password_reaches_the_log_of_a_busy_process(out: io.StringIO) -> None:
    access = AccessTokens(keys=KeySet([b"k" * 32]), issuer="gateway", ttl=900, leeway=10)
    token = access.issue(
        user_id="u",
        email="ada@example.com",
        is_admin=False,
        roles=(),
        session="s",
        session_ends=2**33,
        version=0,
    )
    log = logging.getLogger("gateway.web")
    log.info("headers: %s", [(b"authorization", b"Bearer " + token.encode())])
    log.error(
        "body: %s", {"email": "a@b", "password": "hunter2"}, extra={"token": token, "body": f"x={token}"}
    )
    try:
        raise RuntimeError({"refreshToken": token, "newPassword": "hunter2"})
    except RuntimeError:
        log.exception("failed with %r", sys.exc_info()[1])
    text = out.getvalue()
    assert token not in text
    assert token.split(".")[1] not in text
    assert "hunter2" not in text
