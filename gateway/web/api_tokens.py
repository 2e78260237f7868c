"""What /auth says over HTTP about API tokens: one's own, and to admins anybody's."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.accounts.service import Accounts, NewToken
from gateway.web.answers import json_answer, no_content
from gateway.web.body import read_fields
from gateway.web.fields import moment, read_query, text, texts
from gateway.web.shapes import api_token
from gateway.web.visitors import Visitors


class ApiTokens:
    """Each endpoint first asks who is calling, before it reads anything else."""

    def __init__(self, accounts: Accounts, visitors: Visitors, prefix: str) -> None:
        self._tokens = accounts.api_tokens
        self._visitors = visitors
        self._prefix = prefix

    async def list(self, request: Request) -> Response:
        user = await self._visitors.user(request)
        return await self._list(request, user.id)

    async def create(self, request: Request) -> Response:
        user = await self._visitors.user(request)
        wanted = await _wanted(request)
        made, secret = await self._tokens.create(user.id, wanted, actor=user.id, own=not user.is_admin)
        answer = json_answer({**api_token(made), "token": secret}, 201)
        answer.headers["location"] = f"{self._prefix}/tokens/{made.id}"
        return answer

    async def revoke(self, request: Request) -> Response:
        user = await self._visitors.user(request)
        read_query(request)
        await self._tokens.revoke(request.path_params["id"], user_id=user.id, actor=user.id)
        return no_content()

    # for admins

    async def list_of(self, request: Request) -> Response:
        await self._visitors.admin(request)
        return await self._list(request, request.path_params["id"])

    async def create_for(self, request: Request) -> Response:
        admin = await self._visitors.admin(request)
        wanted, whose = await _wanted(request), request.path_params["id"]
        made, secret = await self._tokens.create(whose, wanted, actor=admin.id)
        answer = json_answer({**api_token(made), "token": secret}, 201)
        answer.headers["location"] = f"{self._prefix}/users/{whose}/tokens/{made.id}"
        return answer

    async def revoke_of(self, request: Request) -> Response:
        admin = await self._visitors.admin(request)
        read_query(request)
        whose, which = request.path_params["id"], request.path_params["token"]
        await self._tokens.revoke(which, user_id=whose, actor=admin.id)
        return no_content()

    async def _list(self, request: Request, user_id: str) -> Response:
        read_query(request)
        return json_answer({"items": [api_token(token) for token in await self._tokens.of_user(user_id)]})


async def _wanted(request: Request) -> NewToken:
    sent = await read_fields(
        request,
        required={"name": text},
        optional={"scopes": texts, "methods": texts, "paths": texts, "expiresAt": moment},
    )
    return NewToken(
        name=sent["name"],
        scopes=sent.get("scopes", ()),
        methods=sent.get("methods"),
        paths=sent.get("paths"),
        expires_at=sent.get("expiresAt"),
    )
