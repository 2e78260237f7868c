"""The description is valid, and true: each response it names occurs, with a body that fits its schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from gateway.accounts.service import NewToken
from gateway.errors import Unavailable
from gateway.web.openapi import describe
from tests.web.conftest import ADMIN, PASSWORD, USER, World

pytestmark = pytest.mark.anyio

DOCUMENT = describe("/auth")
METHODS = {"get", "post", "patch", "delete"}
TOO_LARGE = {"email": "x" * 20_000}
NEW = {"email": "new@example.com", "password": PASSWORD}
SOMEBODY = "/auth/users/{id}"
OWN_SESSION = "/auth/sessions/{id}"
THEIR_LIMITS = "/auth/users/{id}/limits"
THEIR_SESSIONS = "/auth/users/{id}/sessions"
THEIR_SESSION = "/auth/users/{id}/sessions/{session}"
THEIR_TOKENS = "/auth/users/{id}/tokens"
THEIR_TOKEN = "/auth/users/{id}/tokens/{token}"
BODILESS = "/auth/logout-all"


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS & item.keys():
            yield path, method, item[method]


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from walk(child)
    elif isinstance(value, list):
        for child in value:
            yield from walk(child)


def validate(value: Any, schema: dict[str, Any]) -> None:
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker()).validate(value)


class TestShape:
    async def test_it_is_served_to_everyone_and_may_be_stored(self, world: World) -> None:
        answer = await world.http.get("/auth/openapi.json")
        assert (answer.status_code, answer.json()) == (200, DOCUMENT)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "public, max-age=300"

    def test_every_reference_leads_somewhere_and_every_schema_is_one(self) -> None:
        for part in walk(DOCUMENT):
            if "$ref" in part:
                assert part["$ref"].removeprefix("#/components/schemas/") in DOCUMENT["components"]["schemas"]
        for schema in DOCUMENT["components"]["schemas"].values():
            jsonschema.Draft202012Validator.check_schema(schema)

    def test_every_schema_and_every_tag_is_used(self) -> None:
        used = {part["$ref"].rpartition("/")[2] for part in walk(DOCUMENT) if "$ref" in part}
        assert used == DOCUMENT["components"]["schemas"].keys()
        tags = {tag for _, _, operation in operations() for tag in operation["tags"]}
        assert tags == {tag["name"] for tag in DOCUMENT["tags"]}

    def test_operations_are_complete(self) -> None:
        ids = [operation["operationId"] for _, _, operation in operations()]
        assert len(ids) == len(set(ids)) == 27
        for path, method, operation in operations():
            assert operation["summary"].endswith(".")
            either = [{"accessToken": []}, {"apiToken": []}]
            assert operation["security"] in ([], either[:1], either if path == "/auth/me" else None)
            assert ("requestBody" in operation) == (method in ("post", "patch") and path != BODILESS)
            declared = {part["name"] for part in DOCUMENT["paths"][path].get("parameters", [])}
            assert declared == set(re.findall(r"\{(\w+)\}", path))
            assert all(response["description"] for response in operation["responses"].values())

    def test_what_a_request_may_hold_is_closed(self) -> None:
        for _, _, operation in operations():
            if "requestBody" in operation:
                reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                assert (
                    DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]["additionalProperties"]
                    is False
                )

    def test_the_prefix_is_the_configured_one(self) -> None:
        assert all(path.startswith("/_gw/") for path in describe("/_gw")["paths"])


NEW_TOKEN = {"name": "deploys", "scopes": ["read"], "paths": ["/x/**"], "expiresAt": "2027-03-01T00:00:00Z"}
ADMIN_CASES = [
    (method, path, case)
    for method, path in [
        ("get", "/auth/users"),
        ("post", "/auth/users"),
        ("get", SOMEBODY),
        ("patch", SOMEBODY),
        ("delete", SOMEBODY),
        ("get", THEIR_SESSIONS),
        ("delete", THEIR_LIMITS),
        ("delete", THEIR_SESSIONS),
        ("delete", THEIR_SESSION),
        ("get", THEIR_TOKENS),
        ("post", THEIR_TOKENS),
        ("delete", THEIR_TOKEN),
        ("get", "/auth/audit"),
    ]
    for case in [
        ({"as": "anonymous"}, 401, "not_logged_in"),
        ({"as": "forged"}, 401, "invalid_token"),
        ({"as": "twice"}, 400, "duplicate_credential"),
        ({"as": USER}, 403, "forbidden"),
        ({"as": "program"}, 403, "forbidden"),
        ({"as": ADMIN, "query": "x=1"}, 400, "invalid_field"),
        ({"as": ADMIN, "away": True}, 503, "unavailable"),
    ]
]
BODY_CASES = [
    (method, path, case)
    for method, path, caller in [
        ("post", "/auth/login", "anonymous"),
        ("post", "/auth/refresh", "anonymous"),
        ("post", "/auth/logout", "anonymous"),
        ("patch", "/auth/me", USER),
        ("post", "/auth/password", USER),
        ("post", BODILESS, USER),
        ("post", "/auth/users", ADMIN),
        ("patch", SOMEBODY, ADMIN),
        ("post", "/auth/tokens", USER),
        ("post", THEIR_TOKENS, ADMIN),
    ]
    for case in [
        ({"as": caller, "raw": b"["}, 400, "bad_json"),
        ({"as": caller, "json": {"x": 1}}, 400, "invalid_field"),
        ({"as": caller, "json": TOO_LARGE}, 413, "body_too_large"),
        ({"as": caller, "text": "hello"}, 415, "unsupported_media_type"),
    ]
]
MOVE = {"email": "ada@new.example", "currentPassword": PASSWORD}
WRONG_MOVE = {**MOVE, "currentPassword": "wrong"}
LOGIN = {"email": USER, "password": PASSWORD}
OWN_CASES = [
    *[
        (method, path, case)
        for method, path in [
            ("get", "/auth/sessions"),
            ("delete", OWN_SESSION),
            ("post", BODILESS),
            ("get", "/auth/tokens"),
            ("post", "/auth/tokens"),
            ("delete", "/auth/tokens/{id}"),
        ]
        for case in [
            ({"as": "anonymous"}, 401, "not_logged_in"),
            ({"as": "forged"}, 401, "invalid_token"),
            ({"as": "twice"}, 400, "duplicate_credential"),
            ({"as": "program"}, 403, "forbidden"),
            ({"as": USER, "query": "x=1"}, 400, "invalid_field"),
            ({"as": USER, "away": True}, 503, "unavailable"),
        ]
    ],
    ("get", "/auth/sessions", ({"as": USER, "query": "limit=1"}, 200, None)),
    ("delete", OWN_SESSION, ({"as": USER, "id": "session"}, 204, None)),
    ("delete", OWN_SESSION, ({"as": ADMIN, "id": "session"}, 404, "not_found")),
    ("post", BODILESS, ({"as": USER}, 204, None)),
    ("get", THEIR_SESSIONS, ({"as": ADMIN, "query": "limit=1"}, 200, None)),
    ("get", THEIR_SESSIONS, ({"as": ADMIN, "id": "x"}, 404, "not_found")),
    ("delete", THEIR_SESSIONS, ({"as": ADMIN}, 204, None)),
    ("delete", THEIR_SESSIONS, ({"as": ADMIN, "id": "x"}, 404, "not_found")),
    ("delete", THEIR_SESSION, ({"as": ADMIN}, 204, None)),
    ("delete", THEIR_SESSION, ({"as": ADMIN, "id": "admin"}, 404, "not_found")),
    ("post", "/auth/login", ({"json": LOGIN}, 200, None)),
    ("post", "/auth/login", ({"json": {**LOGIN, "password": "x"}}, 401, "invalid_credentials")),
    ("post", "/auth/login", ({"json": {**LOGIN, "password": "x"}, "times": 6}, 429, "too_many_requests")),
    ("post", "/auth/login", ({"json": LOGIN, "away": True}, 503, "unavailable")),
    ("post", "/auth/refresh", ({"json": "refresh"}, 200, None)),
    ("post", "/auth/refresh", ({"json": {"refreshToken": "x"}}, 401, "invalid_refresh_token")),
    ("post", "/auth/refresh", ({"json": {"refreshToken": "x"}, "times": 61}, 429, "too_many_requests")),
    ("post", "/auth/refresh", ({"json": "refresh", "away": True}, 503, "unavailable")),
    ("post", "/auth/logout", ({"json": "refresh"}, 204, None)),
    ("post", "/auth/logout", ({"json": {"refreshToken": "x"}}, 401, "invalid_refresh_token")),
    ("post", "/auth/logout", ({"json": "refresh", "away": True}, 503, "unavailable")),
    ("get", "/auth/me", ({"as": USER}, 200, None)),
    ("get", "/auth/me", ({"as": "program"}, 200, None)),
    ("get", "/auth/tokens", ({"as": USER}, 200, None)),
    ("post", "/auth/tokens", ({"as": USER, "json": NEW_TOKEN}, 201, None)),
    ("post", "/auth/tokens", ({"as": USER, "json": NEW_TOKEN, "times": 6}, 409, "too_many_tokens")),
    ("delete", "/auth/tokens/{id}", ({"as": USER, "id": "token"}, 204, None)),
    ("delete", "/auth/tokens/{id}", ({"as": ADMIN, "id": "token"}, 404, "not_found")),
    ("get", THEIR_TOKENS, ({"as": ADMIN}, 200, None)),
    ("get", THEIR_TOKENS, ({"as": ADMIN, "id": "x"}, 404, "not_found")),
    ("post", THEIR_TOKENS, ({"as": ADMIN, "json": NEW_TOKEN}, 201, None)),
    ("post", THEIR_TOKENS, ({"as": ADMIN, "json": NEW_TOKEN, "times": 6}, 409, "too_many_tokens")),
    ("post", THEIR_TOKENS, ({"as": ADMIN, "json": NEW_TOKEN, "id": "x"}, 404, "not_found")),
    ("delete", THEIR_TOKEN, ({"as": ADMIN}, 204, None)),
    ("delete", THEIR_TOKEN, ({"as": ADMIN, "id": "admin"}, 404, "not_found")),
    ("get", "/auth/me", ({"as": USER, "query": "x=1"}, 400, "invalid_field")),
    ("get", "/auth/me", ({"as": "twice"}, 400, "duplicate_credential")),
    ("get", "/auth/me", ({"as": "anonymous"}, 401, "not_logged_in")),
    ("get", "/auth/me", ({"as": "forged"}, 401, "invalid_token")),
    ("get", "/auth/me", ({"as": USER, "away": True}, 503, "unavailable")),
    ("patch", "/auth/me", ({"as": USER, "json": MOVE}, 200, None)),
    ("patch", "/auth/me", ({"as": "twice", "json": MOVE}, 400, "duplicate_credential")),
    ("patch", "/auth/me", ({"as": "anonymous", "json": MOVE}, 401, "not_logged_in")),
    ("patch", "/auth/me", ({"as": "forged", "json": MOVE}, 401, "invalid_token")),
    ("patch", "/auth/me", ({"as": USER, "json": MOVE, "strict": True}, 403, "forbidden")),
    ("patch", "/auth/me", ({"as": USER, "json": {**MOVE, "email": ADMIN}}, 409, "email_taken")),
    ("patch", "/auth/me", ({"as": USER, "json": WRONG_MOVE, "times": 6}, 429, "too_many_requests")),
    ("patch", "/auth/me", ({"as": USER, "json": MOVE, "away": True}, 503, "unavailable")),
    ("post", "/auth/password", ({"as": USER, "json": "right"}, 204, None)),
    ("post", "/auth/password", ({"as": "twice", "json": "right"}, 400, "duplicate_credential")),
    ("post", "/auth/password", ({"as": "anonymous", "json": "right"}, 401, "not_logged_in")),
    ("post", "/auth/password", ({"as": "program", "json": "right"}, 403, "forbidden")),
    ("post", "/auth/password", ({"as": "forged", "json": "right"}, 401, "invalid_token")),
    ("post", "/auth/password", ({"as": USER, "json": "wrong", "times": 6}, 429, "too_many_requests")),
    ("post", "/auth/password", ({"as": USER, "json": "right", "away": True}, 503, "unavailable")),
    ("get", "/auth/users", ({"as": ADMIN, "query": "query=a&limit=1"}, 200, None)),
    ("post", "/auth/users", ({"as": ADMIN, "json": NEW}, 201, None)),
    ("post", "/auth/users", ({"as": ADMIN, "json": {**NEW, "email": USER}}, 409, "email_taken")),
    ("get", SOMEBODY, ({"as": ADMIN}, 200, None)),
    ("get", SOMEBODY, ({"as": ADMIN, "id": "x"}, 404, "not_found")),
    ("patch", SOMEBODY, ({"as": ADMIN, "json": {"roles": ["x"]}}, 200, None)),
    ("patch", SOMEBODY, ({"as": ADMIN, "json": {"roles": ["x"]}, "id": "x"}, 404, "not_found")),
    ("patch", SOMEBODY, ({"as": ADMIN, "json": {"email": ADMIN}}, 409, "email_taken")),
    ("patch", SOMEBODY, ({"as": ADMIN, "json": {"isAdmin": False}, "id": "admin"}, 409, "last_admin")),
    ("delete", SOMEBODY, ({"as": ADMIN}, 204, None)),
    ("delete", THEIR_LIMITS, ({"as": ADMIN}, 204, None)),
    ("delete", THEIR_LIMITS, ({"as": ADMIN, "id": "x"}, 404, "not_found")),
    ("delete", SOMEBODY, ({"as": ADMIN, "id": "x"}, 404, "not_found")),
    ("delete", SOMEBODY, ({"as": ADMIN, "id": "admin"}, 409, "last_admin")),
    ("get", "/auth/audit", ({"as": ADMIN, "query": "name=user_created&limit=1"}, 200, None)),
    ("get", "/auth/jwks.json", ({"query": "x=1"}, 400, "invalid_field")),
    ("get", "/auth/jwks.json", ({}, 200, None)),
    ("get", "/auth/openapi.json", ({"query": "x=1"}, 400, "invalid_field")),
    ("get", "/auth/openapi.json", ({}, 200, None)),
]
CASES = [*ADMIN_CASES, *BODY_CASES, *OWN_CASES]


class TestTruth:
    @pytest.mark.parametrize(("method", "path", "case"), CASES)
    async def test_what_it_says_may_be_answered_is_answered(
        self, world: World, monkeypatch: pytest.MonkeyPatch, method: str, path: str, case: tuple[Any, ...]
    ) -> None:
        given, status, code = case
        answer = await ask(world, monkeypatch, method, path, given)
        assert (answer.status_code, answer.headers.get("x-gateway-error")) == (status, code), answer.text
        described = DOCUMENT["paths"][path][method]["responses"][str(status)]
        if status == 204:
            assert "content" not in described
            assert answer.content == b""
            return
        media_type = "application/problem+json" if code else "application/json"
        assert answer.headers["content-type"] == media_type
        validate(answer.json(), described["content"][media_type]["schema"])
        assert not code or f"`{code}`" in described["description"]
        assert described.get("headers", {}).keys() <= {name.title() for name in answer.headers} | {
            "WWW-Authenticate"
        }
        assert ("WWW-Authenticate" in described.get("headers", {})) == (status == 401)

    def test_no_described_answer_is_left_out_above(self) -> None:
        """Neither a status nor a code."""
        shown = {(path, method, str(status), code) for method, path, (_, status, code) in CASES}
        for path, method, operation in operations():
            for status, response in operation["responses"].items():
                if status == "default":
                    continue
                codes = [part.split("`")[1] for part in response["description"].split("\n") if part[0] == "`"]
                for code in codes or [None]:
                    assert (path, method, status, code) in shown


async def ask(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str, path: str, given: dict[str, Any]
) -> httpx.Response:
    """Carry out one case of the tables above."""
    login = await world.log_in()
    session = world.access.verify(login["accessToken"].encode()).session
    token = await _token_of(world)
    ids = {"admin": world.admin.id, "session": session, "token": token, None: world.user.id}
    asked: dict[str, Any] = {"headers": await _credentials(world, given.get("as", "anonymous"))}
    if "text" in given:
        asked["content"] = given["text"]
    elif "raw" in given:
        asked["content"] = given["raw"]
        asked["headers"] += [("content-type", "application/json")]
    elif "json" in given:
        asked["json"] = {
            "refresh": {"refreshToken": login["refreshToken"]},
            "right": {"currentPassword": PASSWORD, "newPassword": "a different passphrase"},
            "wrong": {"currentPassword": "wrong", "newPassword": "a different passphrase"},
        }.get(str(given["json"]), given["json"])
    if given.get("away"):
        monkeypatch.setattr(world.database, "_run", _away)
    url = path.format(id=ids.get(given.get("id"), given.get("id")), session=session, token=token)
    if "query" in given:
        url += f"?{given['query']}"
    for _ in range(given.get("times", 1)):
        answer = await (world.strict if given.get("strict") else world.http).request(
            method.upper(), url, **asked
        )
    return answer


async def _token_of(world: World) -> str:
    """The id of a token of the user."""
    made, _ = await world.accounts.api_tokens.create(
        world.user.id, NewToken("deploys", paths=("/x/**",)), actor=world.admin.id
    )
    return made.id


async def _credentials(world: World, who: str) -> list[tuple[str, str]]:
    if who == "anonymous":
        return []
    if who == "forged":
        return [("authorization", "Bearer forged")]
    if who == "program":
        return list((await world.program(world.user, scopes=("read",), methods=("GET",))).items())
    if who == "twice":
        return list((await world.bearer()).items()) * 2
    return list((await world.bearer(who)).items())


async def _away(*_: Any, **__: Any) -> Any:
    raise Unavailable
