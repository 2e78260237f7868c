"""Who is calling /auth, and may they.

The token says who they are; what they may do is read from the database each
time. /auth is asked a few times a minute, so the read costs nothing that
matters, and a deleted user or a demoted admin is refused here at once, even
by a process whose table of cut-offs has not heard of the change yet.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request

from gateway.accounts.service import Accounts, User
from gateway.errors import Forbidden, InvalidToken, NotFound, Unauthorized
from gateway.http.head import Headers
from gateway.identity.principal import Principal
from gateway.web.seen import seen

Authenticate = Callable[[Headers], Principal | None]
"""The gateway's own judgement of a credential: None without one, InvalidToken, DuplicateCredential."""


class Visitors:
    """Turns a request into the person behind it, or a refusal."""

    def __init__(self, accounts: Accounts, authenticate: Authenticate) -> None:
        self._accounts = accounts
        self._authenticate = authenticate

    def principal(self, request: Request) -> Principal:
        """Whoever the access token names. Raises Unauthorized or InvalidToken."""
        record = seen(request.scope)
        try:
            principal = self._authenticate(list(request.scope["headers"]))
        except InvalidToken:
            record.token_sent = True
            raise
        if principal is None:
            raise Unauthorized
        record.token_sent, record.user = True, principal.id
        return principal

    async def user(self, request: Request) -> User:
        """The same person as the database knows them now."""
        principal = self.principal(request)
        try:
            user = await self._accounts.users.get(principal.id)
        except NotFound:
            raise InvalidToken from None
        if user.disabled or user.version > principal.version:
            raise InvalidToken
        return user

    async def admin(self, request: Request) -> User:
        """Likewise, and Forbidden for everyone who is no admin."""
        user = await self.user(request)
        if not user.is_admin:
            raise Forbidden("Only admins may do this.")
        return user
