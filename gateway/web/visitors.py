"""Who is calling /auth, and may they.

The token says who they are; what they may do is read from the database each
time. /auth is asked a few times a minute, so the read costs nothing that
matters, and a deleted user or a demoted admin is refused here at once, even
by a process whose table of cut-offs has not heard of the change yet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request

from gateway.accounts.service import Accounts, User
from gateway.errors import Forbidden, InvalidToken, NotFound, Unauthorized
from gateway.http.head import Headers
from gateway.identity.principal import Principal
from gateway.web.seen import seen

Authenticate = Callable[[Headers], Awaitable[Principal | None]]
"""The gateway's own judgement of a credential: None without one, InvalidToken, DuplicateCredential."""


class Visitors:
    """Turns a request into the person behind it, or a refusal."""

    def __init__(self, accounts: Accounts, authenticate: Authenticate) -> None:
        self._accounts = accounts
        self._authenticate = authenticate

    async def bearer(self, request: Request) -> Principal:
        """Whoever the credential stands for, be it an API token. Raises Unauthorized or InvalidToken."""
        record = seen(request.scope)
        try:
            principal = await self._authenticate(list(request.scope["headers"]))
        except InvalidToken:
            record.token_sent = True
            raise
        if principal is None:
            raise Unauthorized
        record.token_sent, record.user, record.credential = True, principal.id, principal.token
        return principal

    async def principal(self, request: Request) -> Principal:
        """Whoever logged in. Forbidden for API tokens: with one, nobody can make more, or change accounts."""
        principal = await self.bearer(request)
        if principal.token is not None:
            raise Forbidden("API tokens can't be used for this. Log in.")
        return principal

    async def user(self, request: Request) -> User:
        """The same person as the database knows them now."""
        return await self._now(await self.principal(request))

    async def anyone(self, request: Request) -> User:
        """Likewise, be it by an API token."""
        return await self._now(await self.bearer(request))

    async def _now(self, principal: Principal) -> User:
        try:
            user = await self._accounts.users.get(principal.id)
        except NotFound:
            raise InvalidToken from None
        # An access token says what was; an API token stands for whatever the user is.
        outdated = principal.token is None and user.version > principal.version
        if user.disabled or outdated:
            raise InvalidToken
        return user

    async def admin(self, request: Request) -> User:
        """Likewise, and Forbidden for everyone who is no admin."""
        user = await self.user(request)
        if not user.is_admin:
            raise Forbidden("Only admins may do this.")
        return user
