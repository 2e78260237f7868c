"""Every request under /auth ends in one record: who, what, how it went, under which id."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import Any

import httpx
import pytest
from starlette.types import Scope

from gateway.errors import Unavailable
from gateway.telemetry.logs import REQUEST_ID, Decided, DecisionLog
from gateway.web.observer import Observer
from tests.web.conftest import ADMIN, PASSWORD, USER, World, assert_problem

pytestmark = pytest.mark.anyio


def begin(scope: Scope) -> Decided:
    return Decided("request-1", "192.0.2.1", scope["method"], scope["raw_path"])


class Watched:
    """A client in front of an observed application."""

    def __init__(self, app: Any) -> None:
        self.records: list[Decided] = []
        self.app = Observer(app, begin=begin, on_done=self.records.append)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://gateway.test")

    def last(self) -> Decided:
        return self.records[-1]


@pytest.fixture
def watched(world: World) -> Watched:
    return Watched(world.app)


async def test_a_login_is_recorded_with_who_it_was(world: World, watched: Watched) -> None:
    answer = await watched.http.post("/auth/login", json={"email": USER, "password": PASSWORD})
    assert answer.headers["x-request-id"] == "request-1"
    (record,) = watched.records
    assert (record.status, record.route, record.user) == (200, "auth:login", world.user.id)
    assert (record.verdict, record.reason, record.upstream) == ("allow", "served", None)
    assert record.bytes_in == len(answer.request.content)
    assert record.bytes_out == len(answer.content)


async def test_a_refusal_is_recorded_with_its_code_and_the_id_the_client_sees(
    world: World, watched: Watched
) -> None:
    answer = await watched.http.get("/auth/users", headers=await world.bearer())
    assert assert_problem(answer, 403, "forbidden")["requestId"] == "request-1"
    record = watched.last()
    assert (record.status, record.route, record.user) == (403, "auth:users", world.user.id)
    assert (record.verdict, record.reason) == ("deny", "forbidden")


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/auth/refresh", "auth:refresh"),
        ("POST", "/auth/logout", "auth:logout"),
        ("POST", "/auth/password", "auth:password"),
        ("GET", "/auth/me", "auth:me"),
        ("PUT", "/auth/me", "auth:me"),
        ("GET", "/auth/sessions", "auth:sessions"),
        ("DELETE", "/auth/sessions/made-up-by-the-client", "auth:session"),
        ("POST", "/auth/logout-all", "auth:logout_all"),
        ("GET", "/auth/users/made-up-by-the-client", "auth:user"),
        ("GET", "/auth/users/made-up-by-the-client/sessions", "auth:user_sessions"),
        ("DELETE", "/auth/users/made-up/sessions/by-the-client", "auth:user_session"),
        ("GET", "/auth/openapi.json", "auth:openapi"),
        ("GET", "/auth/made-up-by-the-client", "auth:unknown"),
        ("GET", "/auth/%6de", "auth:unknown"),
    ],
)
async def test_routes_have_labels_that_no_client_can_make_up(
    watched: Watched, method: str, path: str, route: str
) -> None:
    await watched.http.request(method, path)
    assert watched.last().route == route


async def test_the_line_in_the_log_is_complete_and_holds_no_secret(world: World, watched: Watched) -> None:
    answer = await watched.http.post("/auth/login?token=abc", json={"email": USER, "password": PASSWORD})
    assert answer.status_code == 400
    out = io.BytesIO()
    DecisionLog(out.write).write(watched.last())
    line = json.loads(out.getvalue())
    assert line["event"] == "request"
    assert (line["requestId"], line["path"], line["status"]) == ("request-1", "/auth/login", 400)
    assert (line["route"], line["reason"]) == ("auth:login", "invalid_field")
    assert line["durationMs"] > 0
    assert PASSWORD.encode() not in out.getvalue()
    assert b"abc" not in out.getvalue()


async def test_head_sends_no_bytes(world: World, watched: Watched) -> None:
    await watched.http.head("/auth/me", headers=await world.bearer(ADMIN))
    assert (watched.last().status, watched.last().bytes_out) == (200, 0)


async def test_what_happens_below_knows_the_request(
    world: World, watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str | None] = []

    async def defect(*_: Any) -> Any:
        seen.append(REQUEST_ID.get())
        raise RuntimeError("a defect")

    monkeypatch.setattr(world.accounts.users, "get", defect)
    answer = await watched.http.get("/auth/me", headers=await world.bearer())
    assert_problem(answer, 500, "internal_error")
    assert seen == ["request-1"]
    assert REQUEST_ID.get() is None
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == "defect while answering auth:me"
    assert watched.last().reason == "internal_error"


async def test_a_client_that_leaves_or_a_process_that_stops_is_recorded_too(world: World) -> None:
    async def unavailable(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    watched = Watched(unavailable)
    with pytest.raises(asyncio.CancelledError):
        await watched.http.get("/auth/me")
    assert (watched.last().status, watched.last().reason) == (0, "client_gone")


async def test_a_database_that_is_away_is_named(
    world: World, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise Unavailable

    mine = await world.bearer()
    monkeypatch.setattr(world.database, "_run", away)
    await watched.http.get("/auth/me", headers=mine)
    assert (watched.last().status, watched.last().reason) == (503, "unavailable")


async def test_other_kinds_of_scope_pass_unwatched() -> None:
    passed: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])

    watched = Watched(app)
    await watched.app({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert passed == ["lifespan"]
    assert watched.records == []
