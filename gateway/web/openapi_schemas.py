"""The schemas of the OpenAPI description: what /auth takes and answers, as JSON Schema."""

from __future__ import annotations

from typing import Any

from gateway.identity.api_tokens import PATTERN

Json = dict[str, Any]


def ref(name: str) -> Json:
    """A reference to one of `schemas`."""
    return {"$ref": f"#/components/schemas/{name}"}


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


def schemas() -> Json:
    """All of them, by name."""
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
            {"items": {"type": "array", "items": ref("Account")}, "nextCursor": {"type": ["string", "null"]}}
        ),
        "Session": _object(_SESSION),
        "Sessions": _object(
            {"items": {"type": "array", "items": ref("Session")}, "nextCursor": {"type": ["string", "null"]}}
        ),
        "ApiToken": _object(_API_TOKEN),
        "ApiTokens": _object({"items": {"type": "array", "items": ref("ApiToken")}}),
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
            {"items": {"type": "array", "items": ref("Event")}, "nextCursor": {"type": ["string", "null"]}}
        ),
        "Tokens": _object(_TOKENS),
        "LoggedIn": _object({**_TOKENS, "user": ref("Person")}),
        "Keys": _object({"keys": {"type": "array", "items": ref("Key")}}),
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
