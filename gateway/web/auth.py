"""What /auth says over HTTP: logging in and out, refreshing, and who one is.

A handler speaks HTTP and asks one service; the rules of accounts are in
`gateway.accounts`. The order within a login is the order of its cost: parse,
count the attempt, and only then bcrypt.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from gateway.accounts.service import Accounts, Client
from gateway.http.client_address import Address
from gateway.http.cors import Cors
from gateway.web.answers import Answers, json_answer, no_content
from gateway.web.api_tokens import ApiTokens
from gateway.web.attempts import Attempts
from gateway.web.body import read_fields
from gateway.web.cors import CrossOrigin
from gateway.web.fields import read_query, text
from gateway.web.openapi import describe
from gateway.web.own import Own
from gateway.web.routing import Endpoint, Handler, route
from gateway.web.seen import seen
from gateway.web.sessions import Sessions
from gateway.web.shapes import person, tokens
from gateway.web.trail import Trail
from gateway.web.users import Users
from gateway.web.visitors import Authenticate, Visitors

JWKS_MAX_AGE = 300
"""Seconds for which the public keys may be stored. A new key is there for twice as long before it signs."""

Published = Callable[[], list[dict[str, str]]]
"""The public keys of access tokens, as JSON Web Keys."""

AddressOf = Callable[[Scope], Address | None]
"""The client's address as the gateway believes it; None where there is none (a unix socket)."""


def build_auth(
    *,
    accounts: Accounts,
    authenticate: Authenticate,
    address_of: AddressOf,
    attempts: Attempts,
    published: Published,
    prefix: str = "/auth",
    cors: Cors | None = None,
    own_email: bool = False,
) -> ASGIApp:
    """The ASGI application behind `prefix`. It expects paths with the prefix still on them.

    `own_email` lets people change their own address.
    """
    visitors = Visitors(accounts, authenticate)
    auth = Auth(accounts, visitors, attempts, address_of)
    own = Own(accounts, visitors, attempts, address_of, may_move=own_email)
    sessions = Sessions(accounts, visitors)
    users = Users(accounts, visitors, prefix)
    trail = Trail(accounts, visitors)
    api_tokens = ApiTokens(accounts, visitors, prefix)

    endpoints = [
        Endpoint(f"{prefix}/login", "auth:login", {"POST": auth.log_in}),
        Endpoint(f"{prefix}/refresh", "auth:refresh", {"POST": auth.refresh}),
        Endpoint(f"{prefix}/logout", "auth:logout", {"POST": auth.log_out}),
        Endpoint(f"{prefix}/me", "auth:me", {"GET": own.me, "PATCH": own.change_email}),
        Endpoint(f"{prefix}/password", "auth:password", {"POST": own.change_password}),
        Endpoint(f"{prefix}/sessions", "auth:sessions", {"GET": sessions.list}),
        Endpoint(f"{prefix}/sessions/{{id}}", "auth:session", {"DELETE": sessions.end}),
        Endpoint(f"{prefix}/logout-all", "auth:logout_all", {"POST": sessions.end_all}),
        Endpoint(f"{prefix}/users", "auth:users", {"GET": users.list, "POST": users.create}),
        Endpoint(
            f"{prefix}/users/{{id}}",
            "auth:user",
            {"GET": users.get, "PATCH": users.update, "DELETE": users.delete},
        ),
        Endpoint(f"{prefix}/users/{{id}}/limits", "auth:user_limits", {"DELETE": users.clear_limits}),
        Endpoint(
            f"{prefix}/users/{{id}}/sessions",
            "auth:user_sessions",
            {"GET": sessions.list_of, "DELETE": sessions.end_all_of},
        ),
        Endpoint(
            f"{prefix}/users/{{id}}/sessions/{{session}}",
            "auth:user_session",
            {"DELETE": sessions.end_of},
        ),
        Endpoint(f"{prefix}/tokens", "auth:tokens", {"GET": api_tokens.list, "POST": api_tokens.create}),
        Endpoint(f"{prefix}/tokens/{{id}}", "auth:token", {"DELETE": api_tokens.revoke}),
        Endpoint(
            f"{prefix}/users/{{id}}/tokens",
            "auth:user_tokens",
            {"GET": api_tokens.list_of, "POST": api_tokens.create_for},
        ),
        Endpoint(
            f"{prefix}/users/{{id}}/tokens/{{token}}",
            "auth:user_token",
            {"DELETE": api_tokens.revoke_of},
        ),
        Endpoint(f"{prefix}/audit", "auth:audit", {"GET": trail.list}),
        Endpoint(f"{prefix}/jwks.json", "auth:jwks", {"GET": _keys(published)}),
        Endpoint(f"{prefix}/openapi.json", "auth:openapi", {"GET": _description(prefix)}),
    ]
    answers = Answers(route(endpoints))
    return answers if cors is None else CrossOrigin(answers, cors)


def _description(prefix: str) -> Handler:
    """Like the keys a page that is the same for everyone, and may be stored."""
    document = json.dumps(describe(prefix)).encode()

    async def openapi(request: Request) -> Response:
        read_query(request)
        return Response(
            document, headers={"cache-control": "public, max-age=300"}, media_type="application/json"
        )

    return openapi


def _keys(published: Published) -> Handler:
    """RFC 7517 §5: by these anybody can verify our access tokens. Public by nature."""

    async def jwks(request: Request) -> Response:
        read_query(request)
        return Response(
            json.dumps({"keys": published()}),
            headers={"cache-control": f"public, max-age={JWKS_MAX_AGE}"},
            media_type="application/json",
        )

    return jwks


class Auth:
    """The endpoints for everyone."""

    def __init__(
        self,
        accounts: Accounts,
        visitors: Visitors,
        attempts: Attempts,
        address_of: AddressOf,
    ) -> None:
        self._accounts = accounts
        self._visitors = visitors
        self._attempts = attempts
        self._address_of = address_of

    async def log_in(self, request: Request) -> Response:
        sent = await read_fields(request, {"email": text, "password": text})
        counted = await self._attempts.login(sent["email"], self._address_of(request.scope))
        logged_in = await self._accounts.sessions.log_in(
            sent["email"], sent["password"], self._client(request)
        )
        await self._attempts.login_succeeded(counted)
        seen(request.scope).user = logged_in.user.id
        return json_answer({**tokens(logged_in), "user": person(logged_in.user)})

    async def refresh(self, request: Request) -> Response:
        sent = await read_fields(request, {"refreshToken": text})
        await self._attempts.refresh(self._address_of(request.scope))
        fresh = await self._accounts.sessions.refresh(sent["refreshToken"], self._client(request))
        return json_answer(tokens(fresh))

    async def log_out(self, request: Request) -> Response:
        sent = await read_fields(request, {"refreshToken": text})
        await self._accounts.sessions.log_out(sent["refreshToken"], self._client(request))
        return no_content()

    def _client(self, request: Request) -> Client:
        address = self._address_of(request.scope)
        return Client(str(address or "unix"), request.headers.get("user-agent", ""))
