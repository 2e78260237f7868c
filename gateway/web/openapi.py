"""The OpenAPI 3.1 description of the endpoints, for `GET /auth/openapi.json`.

Written by hand, because it is a promise and not a by-product: the tests hold
the endpoints to it (each response named here occurs, with a body that fits its
schema), so a change of behaviour has to be a change of this file too.
"""

from __future__ import annotations

import itertools
from importlib.metadata import version
from typing import Any

from gateway import errors
from gateway.errors import GatewayError
from gateway.identity.api_tokens import PATTERN
from gateway.web.body import BODY_LIMIT

Json = dict[str, Any]
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
            "schemas": _schemas(),
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
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return operation


def _answer(description: str, schema: str | None) -> Json:
    if schema is None:
        return {"description": description}
    return {"description": description, "content": {"application/json": {"schema": _ref(schema)}}}


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
        "content": {"application/problem+json": {"schema": _ref("Problem")}},
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


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_ID: Json = _in_path("id")
_PAGED_SESSIONS: list[Json] = [
    _query("limit", "Sessions on a page", {"type": "integer", "minimum": 1, "maximum": 200}),
    _query("cursor", "`nextCursor` of the page before", {"type": "string"}),
]
_TEXT: Json = {"type": "string"}
_TIME: Json = {"type": "string", "format": "date-time"}
_SECRET: Json = {"type": "string", "format": "password", "writeOnly": True}
_FLAG: Json = {"type": "boolean"}
_EMAIL: Json = {"type": "string", "description": "Compared trimmed, in NFKC, without case"}
_ROLES: Json = {"type": "array", "items": {"type": "string", "pattern": "^[a-z0-9._:-]{1,64}$"}}
_PERSON: Json = {"id": _TEXT, "email": _EMAIL, "isAdmin": _FLAG, "roles": _ROLES}
_ACCOUNT: Json = {
    **_PERSON,
    "disabled": _FLAG,
    "service": {**_FLAG, "description": "Has no password: for programs, which come with API tokens"},
    "createdAt": _TIME,
}
_SCOPES: Json = _ROLES
_METHODS: Json = {"type": "array", "items": {"type": "string", "pattern": "^[A-Z][A-Z-]*$"}}
_PATHS: Json = {"type": "array", "items": {"type": "string", "pattern": "^/"}}
_LIMITS: Json = {
    "methods": {**_METHODS, "type": ["array", "null"], "description": "It is good for these; null for all"},
    "paths": {**_PATHS, "type": ["array", "null"], "description": "Likewise, patterns as in routes"},
}
_API_TOKEN: Json = {
    "id": _TEXT,
    "name": _TEXT,
    "scopes": _SCOPES,
    **_LIMITS,
    "createdAt": _TIME,
    "createdBy": {**_TEXT, "description": "A user's id, or `cli:NAME`"},
    "expiresAt": {**_TIME, "type": ["string", "null"], "description": "null for never"},
    "lastUsedAt": {**_TIME, "type": ["string", "null"], "description": "To about a minute"},
}
_SESSION: Json = {
    "id": _TEXT,
    "createdAt": _TIME,
    "lastUsedAt": {**_TIME, "description": "Of the login or the latest refresh"},
    "expiresAt": {**_TIME, "description": "When it is over, unless it is refreshed before"},
    "address": {**_TEXT, "description": "Where it was last used from"},
    "userAgent": _TEXT,
    "current": {**_FLAG, "description": "It is the caller's own"},
}
_MAYBE: Json = {"type": ["string", "null"]}
_EVENT: Json = {
    "id": _TEXT,
    "time": _TIME,
    "name": _TEXT,
    "actor": _MAYBE,
    "actorEmail": _MAYBE,
    "address": _MAYBE,
    "requestId": _MAYBE,
    "user": _MAYBE,
    "email": _MAYBE,
    "details": {"type": "object"},
}
_TOKENS: Json = {"accessToken": _TEXT, "refreshToken": _TEXT}
_CHANGES: Json = {"email": _EMAIL, "password": _SECRET, "isAdmin": _FLAG, "roles": _ROLES, "disabled": _FLAG}


_KEY: Json = {
    "kid": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
    "use": {"const": "sig"},
    "alg": {"enum": ["ES256", "EdDSA", "RS256"]},
    "kty": {"enum": ["EC", "OKP", "RSA"]},
    "crv": {"enum": ["P-256", "Ed25519"]},
    **{name: {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"} for name in ("x", "y", "n", "e")},
}


def _schemas() -> Json:
    return {
        "Login": _object({"email": _EMAIL, "password": _SECRET}),
        "RefreshToken": _object({"refreshToken": _TEXT}),
        "EmailChange": _object({"email": _EMAIL, "currentPassword": _SECRET}),
        "PasswordChange": _object({"currentPassword": _SECRET, "newPassword": _SECRET}),
        "NewAccount": _object(
            {name: _CHANGES[name] for name in ("email", "password", "isAdmin", "roles")}
            | {"service": {**_FLAG, "description": "No password: either this or `password`"}},
            required=["email"],
        ),
        "AccountChanges": {**_object(_CHANGES, required=[]), "minProperties": 1},
        "Person": _object(_PERSON),
        "Account": _object(_ACCOUNT),
        "Accounts": _object(
            {"items": {"type": "array", "items": _ref("Account")}, "nextCursor": {"type": ["string", "null"]}}
        ),
        "Session": _object(_SESSION),
        "Sessions": _object(
            {"items": {"type": "array", "items": _ref("Session")}, "nextCursor": {"type": ["string", "null"]}}
        ),
        "ApiToken": _object(_API_TOKEN),
        "ApiTokens": _object({"items": {"type": "array", "items": _ref("ApiToken")}}),
        "NewApiToken": _object({**_API_TOKEN, "token": {"type": "string", "pattern": f"^{PATTERN}$"}}),
        "NewToken": _object(
            {
                "name": {"type": "string", "minLength": 1, "maxLength": 64},
                "scopes": _SCOPES,
                "methods": {**_METHODS, "minItems": 1},
                "paths": {**_PATHS, "minItems": 1},
                "expiresAt": _TIME,
            },
            required=["name"],
        ),
        "Event": _object(_EVENT),
        "Events": _object(
            {"items": {"type": "array", "items": _ref("Event")}, "nextCursor": {"type": ["string", "null"]}}
        ),
        "Tokens": _object(_TOKENS),
        "LoggedIn": _object({**_TOKENS, "user": _ref("Person")}),
        "Keys": _object({"keys": {"type": "array", "items": _ref("Key")}}),
        "Key": _object(_KEY, required=["kid", "use", "alg", "kty"]),
        "Document": {"type": "object", "required": ["openapi", "info", "paths"]},
        "Problem": _object(
            {
                "type": {"type": "string", "format": "uri"},
                "title": _TEXT,
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": _TEXT,
                "code": {"type": "string", "pattern": "^[a-z_]+$"},
                "requestId": _TEXT,
            }
        ),
    }


def _object(properties: Json, required: list[str] | None = None) -> Json:
    """A closed object: an unknown field is refused when sent, and never answered.

    Without a list, every property is required.
    """
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }
