"""What /auth says over HTTP about oneself: who one is, one's own password, one's own address."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from gateway.accounts.service import Accounts
from gateway.errors import Forbidden, InvalidCredentials, InvalidField
from gateway.http.client_address import Address
from gateway.web.answers import json_answer, no_content
from gateway.web.attempts import Attempts
from gateway.web.body import read_fields
from gateway.web.fields import read_query, text
from gateway.web.shapes import person
from gateway.web.visitors import Visitors


class Own:
    """The endpoints for whoever is logged in. A change counts as a try to log in, before any bcrypt."""

    def __init__(
        self,
        accounts: Accounts,
        visitors: Visitors,
        attempts: Attempts,
        address_of: Callable[[Scope], Address | None],
        *,
        may_move: bool,
    ) -> None:
        self._accounts = accounts
        self._visitors = visitors
        self._attempts = attempts
        self._address_of = address_of
        self._may_move = may_move
        """Whether people may change their own address."""

    async def me(self, request: Request) -> Response:
        read_query(request)
        return json_answer(person(await self._visitors.anyone(request)))

    async def change_email(self, request: Request) -> Response:
        principal = await self._visitors.principal(request)
        if not self._may_move:
            raise Forbidden("Ask an admin: here nobody changes their own address.")
        sent = await read_fields(request, {"email": text, "currentPassword": text})
        await self._attempts.password(principal, self._address_of(request.scope))
        try:
            user = await self._accounts.own.change_email(principal, sent["currentPassword"], sent["email"])
        except InvalidCredentials:
            raise _not_yours() from None
        await self._attempts.password_succeeded(principal)
        return json_answer(person(user))

    async def change_password(self, request: Request) -> Response:
        principal = await self._visitors.principal(request)
        sent = await read_fields(request, {"currentPassword": text, "newPassword": text})
        await self._attempts.password(principal, self._address_of(request.scope))
        try:
            await self._accounts.own.change_password(principal, sent["currentPassword"], sent["newPassword"])
        except InvalidCredentials:
            raise _not_yours() from None
        await self._attempts.password_succeeded(principal)
        return no_content()


def _not_yours() -> InvalidField:
    """Not a 401: the caller is logged in, and clients answer a 401 by refreshing or logging out."""
    return InvalidField("currentPassword: this is not your current password.")
