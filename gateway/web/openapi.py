"""The OpenAPI 3.1 description of the endpoints, for `GET /auth/openapi.json`.

Written by hand, because it is a promise and not a by-product: the tests hold
the endpoints to it (each response named here occurs, with a body that fits its
schema), so a change of behaviour has to be a change of this file too.
"""

from __future__ import annotations

import itertools
from importlib.metadata import version

from gateway import errors
from gateway.errors import GatewayError
from gateway.identity.api_tokens import PATTERN
from gateway.web.body import BODY_LIMIT
from gateway.web.openapi_schemas import Json, ref, schemas

Errors = tuple[type[GatewayError], ...]

_BODY: Errors = (errors.BadJson, errors.InvalidField, errors.BodyTooLarge, errors.UnsupportedMediaType)
"""What any request with a body may be answered."""
_BEARER: Errors = (errors.DuplicateCredential, errors.Unauthorized, errors.InvalidToken)
"""What any request that needs a token may be answered."""
_CALLER: Errors = (*_BEARER, errors.Forbidden)
"""Likewise if it has to be a login's: an API token is forbidden."""
_ADMIN: Errors = _CALLER
_AWAY: Errors = (errors.Unavailable,)
"""The database is away, or too many logins wait already."""


def describe(prefix: str) -> Json:
    """The description, for endpoints below `prefix`."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gateway accounts and sessions",
            "version": version("auth-gateway"),
            "description": "Every error is `application/problem+json` (RFC 9457) with a stable `code`, "
            "which is also in the `X-Gateway-Error` header. HEAD is answered wherever GET is. "
            f"A body may have {BODY_LIMIT} bytes.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "session", "description": "Logging in and out"},
            {
                "name": "sessions",
                "description": "Sessions that are open: one's own, and for admins anybody's",
            },
            {"name": "users", "description": "Looking after accounts; for admins"},
            {
                "name": "tokens",
                "description": "API tokens for programs: one's own, and for admins anybody's",
            },
            {"name": "audit", "description": "What happened; for admins"},
            {"name": "description", "description": "The keys of access tokens, and this document"},
        ],
        "paths": {prefix + path: item for path, item in _paths().items()},
        "components": {
            "securitySchemes": {
                "accessToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "apiToken": {"type": "http", "scheme": "bearer", "bearerFormat": f"^{PATTERN}$"},
            },
            "schemas": schemas(),
        },
    }


def _paths() -> Json:
    return {
        "/login": {
            "post": _operation(
                "logIn",
                "session",
                "Log in. A wrong password, an unknown name and a disabled account get the same answer.",
                body="Login",
                answers={200: ("Logged in", "LoggedIn")},
                refusals=(*_BODY, errors.InvalidCredentials, errors.TooManyRequests, *_AWAY),
            )
        },
        "/refresh": {
            "post": _operation(
                "refresh",
                "session",
                "Trade a refresh token for new ones. It works once: spending it twice ends the session.",
                body="RefreshToken",
                answers={200: ("New tokens", "Tokens")},
                refusals=(*_BODY, errors.InvalidRefreshToken, errors.TooManyRequests, *_AWAY),
            )
        },
        "/logout": {
            "post": _operation(
                "logOut",
                "session",
                "End a refresh token's session and its access tokens, even if it is expired or spent.",
                body="RefreshToken",
                answers={204: ("Logged out", None)},
                refusals=(*_BODY, errors.InvalidRefreshToken, *_AWAY),
            )
        },
        "/me": {
            "get": _operation(
                "me",
                "session",
                "Who one is, as the database knows it now. API tokens may ask too.",
                answers={200: ("The caller", "Person")},
                refusals=(errors.InvalidField, *_BEARER, *_AWAY),
                token=True,
                api_token=True,
            ),
            "patch": _operation(
                "changeEmail",
                "session",
                "Change one's own address, where that is allowed. Access tokens that say the old one end.",
                body="EmailChange",
                answers={200: ("The caller, changed", "Person")},
                refusals=(
                    *_BODY,
                    *_CALLER,
                    errors.EmailTaken,
                    errors.TooManyRequests,
                    *_AWAY,
                ),
                token=True,
            ),
        },
        "/password": {
            "post": _operation(
                "changePassword",
                "session",
                "Change one's own password. Every other session ends.",
                body="PasswordChange",
                answers={204: ("Changed", None)},
                refusals=(*_BODY, *_CALLER, errors.TooManyRequests, *_AWAY),
                token=True,
            )
        },
        "/sessions": {
            "get": _operation(
                "listSessions",
                "sessions",
                "One's own open sessions, the latest login first, a page at a time.",
                parameters=_PAGED_SESSIONS,
                answers={200: ("One page", "Sessions")},
                refusals=(errors.InvalidField, *_CALLER, *_AWAY),
                token=True,
            )
        },
        "/sessions/{id}": {
            "parameters": [_ID],
            "delete": _operation(
                "endSession",
                "sessions",
                "End one of one's own sessions, and its access tokens.",
                answers={204: ("Ended", None)},
                refusals=(errors.InvalidField, *_CALLER, errors.NotFound, *_AWAY),
                token=True,
            ),
        },
        "/logout-all": {
            "post": _operation(
                "logOutEverywhere",
                "sessions",
                "End all of one's own sessions, this one too.",
                answers={204: ("Ended", None)},
                refusals=(*_BODY, *_CALLER, *_AWAY),
                token=True,
            )
        },
        "/users": {
            "get": _operation(
                "listUsers",
                "users",
                "The accounts, oldest first, a page at a time.",
                parameters=[
                    _query("query", "Only e-mails that hold this text", {"type": "string"}),
                    _query("limit", "Accounts on a page", {"type": "integer", "minimum": 1, "maximum": 200}),
                    _query("cursor", "`nextCursor` of the page before", {"type": "string"}),
                ],
                answers={200: ("One page", "Accounts")},
                refusals=(errors.InvalidField, *_ADMIN, *_AWAY),
                token=True,
            ),
            "post": _operation(
                "createUser",
                "users",
                "Create an account.",
                body="NewAccount",
                answers={201: ("Created; `Location` says where", "Account")},
                refusals=(*_BODY, *_ADMIN, errors.EmailTaken, *_AWAY),
                token=True,
            ),
        },
        "/users/{id}": {
            "parameters": [_ID],
            "get": _operation(
                "getUser",
                "users",
                "One account.",
                answers={200: ("The account", "Account")},
                refusals=(errors.InvalidField, *_ADMIN, errors.NotFound, *_AWAY),
                token=True,
            ),
            "patch": _operation(
                "updateUser",
                "users",
                "Change the fields that are sent. Where it must be felt at once, access tokens end.",
                body="AccountChanges",
                answers={200: ("The account, changed", "Account")},
                refusals=(
                    *_BODY,
                    *_ADMIN,
                    errors.NotFound,
                    errors.EmailTaken,
                    errors.LastAdmin,
                    *_AWAY,
                ),
                token=True,
            ),
            "delete": _operation(
                "deleteUser",
                "users",
                "Delete an account. Its sessions end.",
                answers={204: ("Deleted", None)},
                refusals=(errors.InvalidField, *_ADMIN, errors.NotFound, errors.LastAdmin, *_AWAY),
                token=True,
            ),
        },
        "/users/{id}/limits": {
            "parameters": [_ID],
            "delete": _operation(
                "clearLimitsOfUser",
                "users",
                "Forget all attempts to log in to an account: it can be tried again at once, from anywhere.",
                answers={204: ("Cleared", None)},
                refusals=(errors.InvalidField, *_ADMIN, errors.NotFound, *_AWAY),
                token=True,
            ),
        },
        "/users/{id}/sessions": {
            "parameters": [_ID],
            "get": _operation(
                "listSessionsOfUser",
                "sessions",
                "A user's open sessions, the latest login first, a page at a time.",
                parameters=_PAGED_SESSIONS,
                answers={200: ("One page", "Sessions")},
                refusals=(errors.InvalidField, *_ADMIN, errors.NotFound, *_AWAY),
                token=True,
            ),
            "delete": _operation(
                "endSessionsOfUser",
                "sessions",
                "End all sessions of a user, and their access tokens.",
                answers={204: ("Ended", None)},
                refusals=(errors.InvalidField, *_ADMIN, errors.NotFound, *_AWAY),
                token=True,
            ),
        },
        "/users/{id}/sessions/{session}": {
            "parameters": [_ID, _in_path("session")],
            "delete": _operation(
                "endSessionOfUser",
                "sessions",
                "End one session of a user, and its access tokens.",
                answers={204: ("Ended", None)},
                refusals=(errors.InvalidField, *_ADMIN, errors.NotFound, *_AWAY),
                token=True,
            ),
        },
        "/tokens": {
            "get": _operation(
                "listTokens",
                "tokens",
                "One's own API tokens, oldest first; those that have expired too.",
                answers={200: ("The tokens", "ApiTokens")},
                refusals=(errors.InvalidField, *_CALLER, *_AWAY),
                token=True,
            ),
            "post": _operation(
                "createToken",
                "tokens",
                "Make an API token for oneself. Its text is in this answer and in no other.",
                body="NewToken",
                answers={201: ("Created; `Location` says where", "NewApiToken")},
                refusals=(*_BODY, *_CALLER, errors.TooManyTokens, *_AWAY),
                token=True,
            ),
        },
        "/tokens/{id}": {
            "parameters": [_ID],
            "delete": _operation(
                "revokeToken",
                "tokens",
                "End one of one's own API tokens.",
                answers={204: ("Revoked", None)},
                refusals=(errors.InvalidField, *_CALLER, errors.NotFound, *_AWAY),
                token=True,
            ),
        },
        "/users/{id}/tokens": {
            "parameters": [_ID],
            "get": _operation(
                "listTokensOfUser",
                "tokens",
                "A user's API tokens, oldest first.",
                answers={200: ("The tokens", "ApiTokens")},
                refusals=(errors.InvalidField, *_ADMIN, errors.NotFound, *_AWAY),
                token=True,
            ),
            "post": _operation(
                "createTokenForUser",
                "tokens",
                "Make an API token for a user, a service account usually.",
                body="NewToken",
                answers={201: ("Created; `Location` says where", "NewApiToken")},
                refusals=(*_BODY, *_ADMIN, errors.NotFound, errors.TooManyTokens, *_AWAY),
                token=True,
            ),
        },
        "/users/{id}/tokens/{token}": {
            "parameters": [_ID, _in_path("token")],
            "delete": _operation(
                "revokeTokenOfUser",
                "tokens",
                "End an API token of a user.",
                answers={204: ("Revoked", None)},
                refusals=(errors.InvalidField, *_ADMIN, errors.NotFound, *_AWAY),
                token=True,
            ),
        },
        "/audit": {
            "get": _operation(
                "listEvents",
                "audit",
                "What happened, newest first, a page at a time.",
                parameters=[
                    _query("name", "Only these kinds of events, between commas", {"type": "string"}),
                    _query("user", "Whom it is about: an id or an e-mail", {"type": "string"}),
                    _query("actor", "Who did it: an id, an e-mail, cli or cli:NAME", {"type": "string"}),
                    _query("address", "The client's IP address, or unix", {"type": "string"}),
                    _query("since", "From this day or moment on (RFC 3339)", {"type": "string"}),
                    _query("until", "Before this day or moment", {"type": "string"}),
                    _query("limit", "Events on a page", {"type": "integer", "minimum": 1, "maximum": 200}),
                    _query("cursor", "`nextCursor` of the page before", {"type": "string"}),
                ],
                answers={200: ("One page", "Events")},
                refusals=(errors.InvalidField, *_ADMIN, *_AWAY),
                token=True,
            )
        },
        "/jwks.json": {
            "get": _operation(
                "keys",
                "description",
                "The public keys of access tokens, as a JSON Web Key Set (RFC 7517). None for a secret.",
                answers={200: ("All keys that verify now", "Keys")},
                refusals=(errors.InvalidField,),
            )
        },
        "/openapi.json": {
            "get": _operation(
                "describe",
                "description",
                "The description of these endpoints.",
                answers={200: ("This document", "Document")},
                refusals=(errors.InvalidField,),
            )
        },
    }


def _operation(
    operation_id: str,
    tag: str,
    summary: str,
    *,
    answers: dict[int, tuple[str, str | None]],
    refusals: Errors,
    body: str | None = None,
    parameters: list[Json] | None = None,
    token: bool = False,
    api_token: bool = False,
) -> Json:
    operation: Json = {
        "operationId": operation_id,
        "tags": [tag],
        "summary": summary,
        "security": [{"accessToken": []}] * token + [{"apiToken": []}] * api_token,
        "responses": {
            **{str(status): _answer(*answer) for status, answer in answers.items()},
            **_refusals(refusals),
            "default": _problem("Any other error"),
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": ref(body)}}}
    return operation


def _answer(description: str, schema: str | None) -> Json:
    if schema is None:
        return {"description": description}
    return {"description": description, "content": {"application/json": {"schema": ref(schema)}}}


def _refusals(refusals: Errors) -> Json:
    """One response for each status; its description lists the codes."""
    ordered = sorted(refusals, key=lambda error: error.status)
    return {
        str(status): _problem("\n".join(f"`{error.code}`: {error.sentence}" for error in same), status)
        for status, same in itertools.groupby(ordered, key=lambda error: error.status)
    }


def _problem(description: str, status: int = 0) -> Json:
    response: Json = {
        "description": description,
        "content": {"application/problem+json": {"schema": ref("Problem")}},
        "headers": {"X-Gateway-Error": {"description": "The code", "schema": {"type": "string"}}},
    }
    if status == errors.Unauthorized.status:
        response["headers"]["WWW-Authenticate"] = {
            "description": "The challenge (RFC 6750)",
            "schema": {"type": "string"},
        }
    if status == errors.TooManyRequests.status:
        response["headers"]["Retry-After"] = {
            "description": "Seconds to wait",
            "schema": {"type": "integer", "minimum": 1},
        }
    return response


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


_ID: Json = _in_path("id")
_PAGED_SESSIONS: list[Json] = [
    _query("limit", "Sessions on a page", {"type": "integer", "minimum": 1, "maximum": 200}),
    _query("cursor", "`nextCursor` of the page before", {"type": "string"}),
]
