"""What /auth/users says over HTTP: admins look after accounts."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.accounts.service import Accounts, Changes
from gateway.errors import InvalidField
from gateway.web.answers import json_answer, no_content
from gateway.web.body import read_fields
from gateway.web.fields import flag, read_query, text, texts, whole_number
from gateway.web.shapes import account, accounts_page
from gateway.web.visitors import Visitors

PAGE_SIZE = 50
"""Users on a page when the caller does not say."""
LARGEST_PAGE = 200

_NAMES = {"isAdmin": "is_admin"}
"""JSON names that are spelled differently inside."""


class Users:
    """The endpoints for admins. Each first asks who is calling, before it reads anything else."""

    def __init__(self, accounts: Accounts, visitors: Visitors, prefix: str) -> None:
        self._accounts = accounts
        self._visitors = visitors
        self._prefix = prefix

    async def list(self, request: Request) -> Response:
        await self._visitors.admin(request)
        asked = read_query(request, {"query": text, "limit": whole_number(1, LARGEST_PAGE), "cursor": text})
        return json_answer(accounts_page(await self._accounts.users.list(**{"limit": PAGE_SIZE, **asked})))

    async def create(self, request: Request) -> Response:
        admin = await self._visitors.admin(request)
        sent = await read_fields(
            request,
            required={"email": text},
            optional={"password": text, "isAdmin": flag, "roles": texts, "service": flag},
        )
        if ("password" in sent) is sent.get("service", False):
            raise InvalidField("Send a password, or service: true for an account that has none.")
        user = await self._accounts.users.create(
            sent["email"],
            sent.get("password"),
            is_admin=sent.get("isAdmin", False),
            roles=sent.get("roles", ()),
            actor=admin.id,
        )
        answer = json_answer(account(user), 201)
        answer.headers["location"] = f"{self._prefix}/users/{user.id}"
        return answer

    async def get(self, request: Request) -> Response:
        await self._visitors.admin(request)
        read_query(request)
        return json_answer(account(await self._accounts.users.get(request.path_params["id"])))

    async def update(self, request: Request) -> Response:
        admin = await self._visitors.admin(request)
        sent = await read_fields(
            request,
            optional={"email": text, "password": text, "isAdmin": flag, "roles": texts, "disabled": flag},
        )
        if not sent:
            raise InvalidField("Send at least one of email, password, isAdmin, roles, disabled.")
        changes = Changes(**{_NAMES.get(name, name): value for name, value in sent.items()})
        user = await self._accounts.users.update(request.path_params["id"], changes, actor=admin.id)
        return json_answer(account(user))

    async def delete(self, request: Request) -> Response:
        admin = await self._visitors.admin(request)
        read_query(request)
        await self._accounts.users.delete(request.path_params["id"], actor=admin.id)
        return no_content()

    async def clear_limits(self, request: Request) -> Response:
        admin = await self._visitors.admin(request)
        read_query(request)
        await self._accounts.regulation.clear(request.path_params["id"], actor=admin.id)
        return no_content()
