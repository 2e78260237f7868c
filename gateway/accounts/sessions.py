"""Logging in and out, refreshing, lists of sessions. What may happen to one is said in `rotation`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from gateway.accounts import rotation
from gateway.accounts.emails import canonical_or_empty
from gateway.accounts.ids import is_id
from gateway.accounts.ledger import Ledger, Ledgers
from gateway.accounts.pages import check_page, page_of
from gateway.accounts.passwords import TRIES, Passwords
from gateway.accounts.rotation import NO_USER, Granted, SessionRules
from gateway.accounts.store import Store
from gateway.accounts.values import Client, LoggedIn, OpenSession, Page, Tokens
from gateway.errors import InvalidCredentials, NotFound, Unavailable
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
        session_rules: SessionRules,
        audit: Callable[[Event], None],
    ) -> None:
        self._ledgers = ledgers
        self._passwords = passwords
        self._access = access
        self._refresh = refresh
        self._rules = session_rules
        self._audit = audit

    async def log_in(self, email: str, password: str, client: Client) -> LoggedIn:
        """Open a session. Raises InvalidCredentials, the same for every reason, after the same work."""
        address = canonical_or_empty(email)
        for _ in range(TRIES):
            account = await self._ledgers.read(lambda store: store.account_by_email(address))
            found = await self._passwords.verify(password, account.password_hash if account else None)
            if account is None or account.user.disabled or not found.right:
                user = account.user.id if account is not None else None
                self._audit(LoginFailed(email=address, user=user, address=client.address))
                raise InvalidCredentials
            # Only now, as a slower answer to a right password on a disabled account would confirm it.
            fresh = await self._passwords.hash(password) if found.outdated else None
            opening = partial(
                rotation.open_session, rules=self._rules, proved=account, fresh=fresh, client=client
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
            lambda ledger: rotation.rotate(ledger, self._rules, claims, client)
        )
        return self._tokens(granted)

    async def log_out(self, refresh_token: str, client: Client | None = None) -> None:
        """End the session of any refresh token we ever signed. Raises InvalidRefreshToken for others."""
        claims = self._refresh.verify(refresh_token, allow_expired=True)
        await self._ledgers.write(lambda ledger: rotation.log_out(ledger, claims, client))

    async def list(
        self, user_id: str | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> Page[OpenSession]:
        """One page of the sessions of a user, or of all, that are not over; the latest login first.

        Raises NotFound (there is no such user), InvalidField.
        """
        check_page(limit, cursor)
        if user_id is not None and not is_id(user_id):
            raise NotFound(NO_USER)

        def read(store: Store, now: float) -> list[OpenSession]:
            if user_id is not None and store.account(user_id) is None:
                raise NotFound(NO_USER)
            # One more than asked for tells whether there is a next page.
            return store.list_sessions(user_id=user_id, limit=limit + 1, before=cursor or "", now=now)

        return page_of(await self._ledgers.read_at(read), limit)

    async def end(self, session_id: str, *, user_id: str, actor: str | None = None) -> None:
        """End one session, if it is this user's. Raises NotFound."""
        await self._ledgers.write(lambda ledger: rotation.end_one(ledger, session_id, user_id, actor=actor))

    async def end_these(self, session_ids: tuple[str, ...], *, actor: str | None = None) -> None:
        """End all of these, whosever they are, or none. Raises NotFound, which says which one."""

        def end(ledger: Ledger) -> None:
            for session_id in dict.fromkeys(session_ids):
                try:
                    rotation.end_one(ledger, session_id, None, actor=actor)
                except NotFound:
                    raise NotFound(f"There is no session {session_id}, or it is over.") from None

        await self._ledgers.write(end)

    async def end_all(self, user_id: str, *, actor: str | None = None) -> int:
        """End every session of a user; how many there were. Raises NotFound."""
        if not is_id(user_id):
            raise NotFound(NO_USER)
        return await self._ledgers.write(lambda ledger: rotation.end_all(ledger, user_id, actor=actor))

    def _tokens(self, granted: Granted) -> Tokens:
        user, session = granted.user, granted.session
        access = self._access.issue(
            user_id=user.id,
            email=user.email,
            is_admin=user.is_admin,
            roles=user.roles,
            session=session.id,
            session_ends=session.expires_at,
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
