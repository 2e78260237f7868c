"""Logging in, refreshing, logging out. What may happen to a session is said in `rotation`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from gateway.accounts import rotation
from gateway.accounts.emails import canonical_or_empty
from gateway.accounts.ledger import Ledgers
from gateway.accounts.passwords import TRIES, Passwords
from gateway.accounts.rotation import Granted, Lifetimes
from gateway.accounts.values import Client, LoggedIn, Tokens
from gateway.errors import InvalidCredentials, Unavailable
from gateway.identity.tokens import AccessTokens, RefreshTokens
from gateway.telemetry.audit import Event, LoginFailed


class Sessions:
    """The use cases of sessions."""

    def __init__(
        self,
        ledgers: Ledgers,
        passwords: Passwords,
        *,
        access: AccessTokens,
        refresh: RefreshTokens,
        lifetimes: Lifetimes,
        audit: Callable[[Event], None],
    ) -> None:
        self._ledgers = ledgers
        self._passwords = passwords
        self._access = access
        self._refresh = refresh
        self._lifetimes = lifetimes
        self._audit = audit

    async def log_in(self, email: str, password: str, client: Client) -> LoggedIn:
        """Open a session. Raises InvalidCredentials, the same for every reason, after the same work."""
        address = canonical_or_empty(email)
        for _ in range(TRIES):
            account = await self._ledgers.read(lambda store: store.account_by_email(address))
            found = await self._passwords.verify(password, account.password_hash if account else None)
            if account is None or account.user.disabled or not found.right:
                self._audit(LoginFailed(email=address, address=client.address))
                raise InvalidCredentials
            # Only now, as a slower answer to a right password on a disabled account would confirm it.
            fresh = await self._passwords.hash(password) if found.outdated else None
            opening = partial(
                rotation.open_session, lives=self._lifetimes, proved=account, fresh=fresh, client=client
            )
            opened = await self._ledgers.write(opening)
            if opened is not None:
                tokens = self._tokens(opened)
                return LoggedIn(tokens.access_token, tokens.refresh_token, opened.user)
        raise Unavailable(retry_after=1)

    async def refresh(self, refresh_token: str, client: Client) -> Tokens:
        """Spend a refresh token. Raises InvalidRefreshToken."""
        claims = self._refresh.verify(refresh_token)
        granted = await self._ledgers.write(
            lambda ledger: rotation.rotate(ledger, self._lifetimes, claims, client)
        )
        return self._tokens(granted)

    async def log_out(self, refresh_token: str, client: Client | None = None) -> None:
        """End the session of any refresh token we ever signed. Raises InvalidRefreshToken for others."""
        claims = self._refresh.verify(refresh_token, allow_expired=True)
        await self._ledgers.write(lambda ledger: rotation.log_out(ledger, claims, client))

    def _tokens(self, granted: Granted) -> Tokens:
        user, session = granted.user, granted.session
        access = self._access.issue(
            user_id=user.id,
            email=user.email,
            is_admin=user.is_admin,
            roles=user.roles,
            session=session.id,
            version=user.version,
        )
        refresh = self._refresh.issue(
            user_id=user.id,
            session=session.id,
            generation=session.generation,
            issued_at=session.issued_at,
            expires_at=session.expires_at,
        )
        return Tokens(access, refresh)
