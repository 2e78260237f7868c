"""The rim of /auth: paths, methods, bodies, defects, and what must never leave."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote_to_bytes

import httpx
import pytest
from starlette.requests import ClientDisconnect

from gateway.errors import GatewayTimeout, Overloaded, Unavailable
from gateway.web.answers import Answers
from gateway.web.body import BODY_LIMIT
from tests.web.conftest import ADMIN, PASSWORD, USER, World, assert_problem

pytestmark = pytest.mark.anyio

ENDPOINTS = {
    "/auth/login": ["POST"],
    "/auth/refresh": ["POST"],
    "/auth/logout": ["POST"],
    "/auth/password": ["POST"],
    "/auth/me": ["GET", "HEAD", "PATCH"],
    "/auth/users": ["GET", "HEAD", "POST"],
    "/auth/users/some-id": ["DELETE", "GET", "HEAD", "PATCH"],
    "/auth/users/some-id/limits": ["DELETE"],
    "/auth/audit": ["GET", "HEAD"],
    "/auth/jwks.json": ["GET", "HEAD"],
    "/auth/openapi.json": ["GET", "HEAD"],
}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]

OTHER_SPELLINGS = [
    b"/auth//login",
    b"//auth/login",
    b"/auth/login/",
    b"/auth/login//",
    b"/auth/./login",
    b"/auth/x/../login",
    b"/auth/%6cogin",
    b"/auth/%6Cogin",
    b"/%61uth/login",
    b"/auth%2flogin",
    b"/auth/login%2f",
    b"/auth/login%0a",
    b"/auth/login\n",
    b"/auth/login%00",
    b"/auth/login%20",
    b"/auth/login;x=1",
    b"/auth/login.json",
    b"/auth\\login",
    b"/AUTH/login",
    b"/auth/Login",
    b"/auth/LOGIN",
    b"/auth/\xef\xbd\x8cogin",
    b"/auth",
    b"/auth/",
    b"/",
    b"",
    b"*",
    b"/auth/users/",
    b"/auth/users/a/b",
    b"/auth/users/%61",
    b"/auth/users/a%2fb",
    b"/auth/openapi",
    b"/auth/openapi.yaml",
    b"/authlogin",
    b"/login",
]

NOT_BUILT = ["/auth/verify", "/auth/signup"]

NOT_JSON = [
    None,
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/json-patch+json",
    "application/problem+json",
    "application/jsonx",
    "application/json; charset=utf-16",
    "application/json; charset=utf-8; x=y",
    "application/json, text/plain",
    "text/plain; application/json",
]

CODINGS = ["gzip", "deflate", "br", "identity, gzip"]

JSON_SPELLINGS = [
    "application/json",
    "Application/JSON",
    "application/json;charset=UTF-8",
    'application/json; charset="utf-8"',
]

NO_OBJECTS = [b"", b"[]", b"null", b"{", b'{"email":"a","email":"b"}', b"[" * 10_000, b'{"a":NaN}', b"\xff"]


async def raw(app: Any, spelled: bytes, method: str = "POST", **scope: Any) -> int:
    """The status for a path exactly as spelled on the wire."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        statuses.append(message.get("status", 0))

    path = unquote_to_bytes(spelled).decode("utf-8", "replace")
    given = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": spelled,
        "query_string": b"",
        "headers": [],
        "root_path": "",
    }
    await app({**given, **scope}, receive, send)
    return statuses[0]


class TestPaths:
    async def test_the_plain_spelling_is_found(self, world: World) -> None:
        assert await raw(world.app, b"/auth/login") == 415
        assert await raw(world.app, b"/auth/me", "GET") == 401

    async def test_every_other_spelling_is_not_there_and_never_redirected(self, world: World) -> None:
        for path in OTHER_SPELLINGS:
            statuses = [await raw(world.app, path, method) for method in ("GET", "POST")]
            assert (path, statuses) == (path, [404, 404])

    async def test_what_is_not_built_is_not_there(self, world: World) -> None:
        admin = await world.bearer(ADMIN)
        for path in NOT_BUILT:
            assert_problem(await world.http.get(path, headers=admin), 404, "not_found", path)

    async def test_a_server_that_hides_the_bytes_of_the_path_gets_nothing(self, world: World) -> None:
        assert await raw(world.app, b"/auth/login", raw_path=None) == 404

    async def test_the_prefix_can_be_another(self, world: World) -> None:
        from gateway.web.attempts import Attempts
        from gateway.web.auth import build_auth
        from tests.web.conftest import LIMITS

        app = build_auth(
            accounts=world.accounts,
            authenticate=world.authenticate,
            address_of=world.address_of,
            attempts=Attempts(
                world.limiter,
                LIMITS,
                standing=world.accounts.regulation.standing,
                audit=world.events.append,
            ),
            published=world.access.published,
            prefix="/_gw/auth",
        )
        assert await raw(app, b"/_gw/auth/login") == 415
        assert await raw(app, b"/auth/login") == 404


class TestMethods:
    @pytest.mark.parametrize("path", ENDPOINTS)
    async def test_a_wrong_method_hears_the_right_ones(self, world: World, path: str) -> None:
        for method in METHODS:
            answer = await world.http.request(method, path)
            if method in ENDPOINTS[path]:
                assert answer.status_code != 405, method
            else:
                assert answer.headers["x-gateway-error"] == "method_not_allowed", method
                assert answer.headers["allow"] == ", ".join(ENDPOINTS[path])

    @pytest.mark.parametrize(
        "path", ["/auth/me", "/auth/users", "/auth/audit", "/auth/jwks.json", "/auth/openapi.json"]
    )
    async def test_head_is_get_without_the_body(self, world: World, path: str) -> None:
        admin = await world.bearer(ADMIN)
        got = await world.http.get(path, headers=admin)
        bodies: list[bytes] = []

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            async def note(message: Any) -> None:
                bodies.append(message.get("body", b""))
                await send(message)

            await world.app(scope, receive, note)

        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(watched), base_url="http://gateway.test"
        ) as client:
            head = await client.head(path, headers=admin)
        assert (got.status_code, head.status_code) == (200, 200)
        assert head.headers["content-length"] == str(len(got.content))
        assert b"".join(bodies) == b""


class TestBodies:
    async def test_only_json_is_read(self, world: World) -> None:
        for media_type in NOT_JSON:
            headers = {} if media_type is None else {"content-type": media_type}
            answer = await world.http.post("/auth/login", content=b"{}", headers=headers)
            assert_problem(answer, 415, "unsupported_media_type", media_type)

    async def test_two_media_types_are_one_too_many(self, world: World) -> None:
        headers = [("content-type", "application/json"), ("content-type", "application/json")]
        answer = await world.http.post("/auth/login", content=b"{}", headers=headers)
        assert_problem(answer, 415, "unsupported_media_type")

    async def test_a_packed_body_is_not_unpacked(self, world: World) -> None:
        for coding in CODINGS:
            headers = {"content-type": "application/json", "content-encoding": coding}
            answer = await world.http.post("/auth/login", content=b"{}", headers=headers)
            assert_problem(answer, 415, "unsupported_media_type", coding)

    async def test_json_by_any_of_its_spellings(self, world: World) -> None:
        for media_type in JSON_SPELLINGS:
            body = json.dumps({"email": USER, "password": PASSWORD})
            answer = await world.http.post("/auth/login", content=body, headers={"content-type": media_type})
            assert (media_type, answer.status_code) == (media_type, 200)

    async def test_what_is_no_object_is_bad_json(self, world: World) -> None:
        for body in NO_OBJECTS:
            answer = await world.http.post(
                "/auth/login", content=body, headers={"content-type": "application/json"}
            )
            assert_problem(answer, 400, "bad_json", body)

    @pytest.mark.parametrize(
        ("path", "fields"),
        [
            ("/auth/login", ["email", "password"]),
            ("/auth/refresh", ["refreshToken"]),
            ("/auth/logout", ["refreshToken"]),
            ("/auth/password", ["currentPassword", "newPassword"]),
        ],
    )
    async def test_each_field_is_needed_and_a_string_and_alone(
        self, world: World, path: str, fields: list[str]
    ) -> None:
        headers = await world.bearer() if path == "/auth/password" else {}
        good = dict.fromkeys(fields, "x")
        for field in fields:
            for wrong in (None, True, 0, 1.5, [], {}, ["x"], {"$gt": ""}):
                answer = await world.http.post(path, json={**good, field: wrong}, headers=headers)
                problem = assert_problem(answer, 400, "invalid_field")
                assert problem["detail"] == f"{field}: write a string."
            missing = {name: value for name, value in good.items() if name != field}
            answer = await world.http.post(path, json=missing, headers=headers)
            assert assert_problem(answer, 400, "invalid_field")["detail"] == f"{field} is missing."
            half = json.dumps({**good, field: "x\ud800"})
            answer = await world.http.post(
                path, content=half, headers={**headers, "content-type": "application/json"}
            )
            assert "surrogate" in assert_problem(answer, 400, "invalid_field")["detail"]
        answer = await world.http.post(path, json={**good, "isAdmin": True}, headers=headers)
        assert assert_problem(answer, 400, "invalid_field")["detail"].startswith("isAdmin is unknown here")
        answer = await world.http.post(f"{path}?x=1", json=good, headers=headers)
        assert_problem(answer, 400, "invalid_field")

    async def test_a_body_over_the_limit_is_refused_by_its_length_alone(self, world: World) -> None:
        body = json.dumps({"email": USER, "password": "x" * BODY_LIMIT}).encode()
        answer = await world.http.post(
            "/auth/login", content=body, headers={"content-type": "application/json"}
        )
        assert_problem(answer, 413, "body_too_large")
        assert answer.headers["connection"] == "close"

    async def test_a_body_that_grows_over_the_limit_is_read_no_further(self, world: World) -> None:
        taken = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal taken
            while True:
                taken += 4096
                yield b" " * 4096

        answer = await world.http.post(
            "/auth/login", content=endless(), headers={"content-type": "application/json"}
        )
        assert_problem(answer, 413, "body_too_large")
        assert taken <= BODY_LIMIT + 4096

    async def test_a_body_of_exactly_the_limit_is_read(self, world: World) -> None:
        body = json.dumps({"email": USER, "password": PASSWORD}).encode().ljust(BODY_LIMIT)
        answer = await world.http.post(
            "/auth/login", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 200

    async def test_a_client_that_leaves_in_the_middle_gets_no_answer(self, world: World) -> None:
        async def gone() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        async def nothing(message: Any) -> None:
            raise AssertionError("there is nobody to answer")

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/auth/login",
            "raw_path": b"/auth/login",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        await world.app(scope, gone, nothing)


class TestFailures:
    @pytest.mark.parametrize(
        ("failure", "status", "code"),
        [
            (Unavailable(retry_after=1), 503, "unavailable"),
            (Overloaded(retry_after=1), 503, "overloaded"),
            (GatewayTimeout(retry_after=1), 504, "timeout"),
            (RuntimeError("the secret is hunter2"), 500, "internal_error"),
        ],
    )
    async def test_a_failure_inside_is_a_clean_answer_and_its_cause_only_in_the_log(
        self,
        world: World,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        failure: Exception,
        status: int,
        code: str,
    ) -> None:
        async def fails(*_: Any) -> Any:
            raise failure

        monkeypatch.setattr(world.accounts.sessions, "log_in", fails)
        answer = await world.http.post("/auth/login", json={"email": USER, "password": PASSWORD})
        problem = assert_problem(answer, status, code)
        assert "hunter2" not in answer.text
        assert "Traceback" not in answer.text
        assert ("hunter2" in caplog.text) == (status == 500)
        assert (answer.headers.get("retry-after") == "1") == (status != 500)
        assert problem["title"]

    async def test_without_a_database_everything_here_is_503(self, world: World) -> None:
        mine = await world.bearer(ADMIN)
        await world.database.close()
        for method, path, body in [
            ("POST", "/auth/login", {"email": USER, "password": PASSWORD}),
            ("GET", "/auth/me", None),
            ("GET", "/auth/users", None),
            ("DELETE", "/auth/users/x", None),
        ]:
            answer = await world.http.request(method, path, json=body, headers=mine)
            assert_problem(answer, 503, "unavailable")

    async def test_without_the_counters_nobody_logs_in(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def away(*_: Any) -> Any:
            raise Unavailable

        monkeypatch.setattr(world.limiter, "hit", away)
        answer = await world.http.post("/auth/login", json={"email": USER, "password": PASSWORD})
        assert_problem(answer, 503, "unavailable")

    async def test_counters_that_break_after_the_login_do_not_undo_it(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def away(*_: Any) -> Any:
            raise Unavailable

        monkeypatch.setattr(world.limiter, "clear", away)
        assert await world.log_in()

    async def test_a_failure_after_the_answer_has_begun_cuts_it_off(self) -> None:
        async def half(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise ValueError

        sent: list[str] = []

        async def send(message: Any) -> None:
            sent.append(message["type"])

        with pytest.raises(Exception, match="failed to handle"):
            await Answers(half)({"type": "http", "method": "GET"}, None, send)  # type: ignore[arg-type]
        assert sent == ["http.response.start"]

    async def test_cancellation_is_nobodys_error(self) -> None:
        async def cancelled(scope: Any, receive: Any, send: Any) -> None:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await Answers(cancelled)({"type": "http", "method": "GET"}, None, None)  # type: ignore[arg-type]

    async def test_a_client_that_has_left_is_not_answered(self) -> None:
        async def left(scope: Any, receive: Any, send: Any) -> None:
            raise ClientDisconnect

        await Answers(left)({"type": "http", "method": "GET"}, None, None)  # type: ignore[arg-type]

    @pytest.mark.parametrize("kind", ["websocket", "lifespan"])
    async def test_only_http_is_spoken(self, world: World, kind: str) -> None:
        with pytest.raises(NotImplementedError, match=kind):
            await world.app({"type": kind}, None, None)  # type: ignore[arg-type]


async def test_no_secret_ever_stands_in_an_answer_to_others_or_in_a_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Every endpoint, right and wrong, with everything logged; then look for each secret."""
    caplog.set_level(logging.DEBUG)
    admin = await world.bearer(ADMIN)
    tokens = await world.log_in()
    mine = {"authorization": f"Bearer {tokens['accessToken']}"}
    new = "another passphrase entirely"
    refresh = {"refreshToken": tokens["refreshToken"]}
    bodies = [
        {"email": USER, "password": PASSWORD, "extra": PASSWORD},
        {"email": PASSWORD, "password": PASSWORD},
        {"email": USER, "password": [PASSWORD]},
        {PASSWORD: PASSWORD},
        {"currentPassword": PASSWORD + "x", "newPassword": new},
        {"currentPassword": PASSWORD, "newPassword": new[:9]},
        {**refresh, "password": PASSWORD},
        {"refreshToken": [tokens["refreshToken"]]},
        {"email": "x", "password": new},
        {"password": new, "isAdmin": new},
    ]
    texts = []
    for path in (*ENDPOINTS, f"/auth/users/{world.user.id}"):
        for method in ("POST", "PATCH"):
            for body in bodies:
                for headers in ({}, mine, admin):
                    answer = await world.http.request(method, path, json=body, headers=headers)
                    assert answer.status_code < 500
                    texts.append(str(answer.headers) + answer.text)
    everything = "\n".join([*texts, caplog.text, repr(world.events)])
    for secret in (
        PASSWORD,
        new,
        tokens["accessToken"],
        tokens["refreshToken"],
        "$gw1",
        "$2b$",
        "tests only",
    ):
        assert secret not in everything
