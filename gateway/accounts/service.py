"""The use cases of accounts: logging in, refreshing, logging out, passwords, users.

Theory of rotation
------------------
A login opens a *session*, one row with a generation counter and a fixed end. The
client's refresh token names the session and its generation; each refresh raises
the generation by one and hands out the next token (RFC 9700 §4.14.2, "refresh
token rotation"). So of every session exactly one refresh token is good, and an
old one that shows up again means that two parties hold the chain: the client and
a thief, and nobody can tell which is which. Then the session ends for both.

Rotation is one compare-and-swap in the database,

    UPDATE sessions SET generation = g + 1, … WHERE id = ? AND generation = g
        AND revoked_at IS NULL AND expires_at > now AND <its user is not disabled>

and what it changed, it won. There is no read before it that could be stale, so
threads, processes and machines may race, and a process may be killed at any
moment: the swap is committed or it never was.

Who lost, or comes late, meets one of five cases:

    session or user gone, ended, expired, disabled   401
    generation = current, or beyond it               401, forged or from a lost database
    generation = current - 1, within the grace       the same successor again
    generation = current - 1, after the grace        reuse: the session ends, 401
    generation < current - 1                         reuse: the session ends, 401

The grace is for honest clients: two tabs that refresh at the same moment, and an
answer that was lost on the way. Its holder gets the *same* successor, not another
one: `iat` and `exp` of a generation stand in the row, and the token has no random
part, so it can be made again to the byte. The chain stays one chain, and what a
thief could gain within the grace is a copy that collides with the client's at
the next refresh. Time is the database's, whichever machine asks. A grace hit
from another address than the one that rotated is audited.

A session's end cuts off its access tokens as well, and a change to a user those
of an older version: see `ledger`, `users` and `feed`.

Changing one's own password ends every *other* session: each is cut off by its own
id. The user's version stays, as raising it would kill the caller's own access
token too, and nothing that a token says has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gateway.accounts import users
from gateway.accounts.database import Database
from gateway.accounts.emails import canonical_email, fold
from gateway.accounts.ids import is_id
from gateway.accounts.ledger import Ledger, Ledgers
from gateway.accounts.passwords import Passwords, Verified, refuse_unfit
from gateway.accounts.store import Account, Session
from gateway.accounts.values import Changes, Client, LoggedIn, Page, Tokens, User
from gateway.errors import (
    GatewayError,
    InvalidCredentials,
    InvalidField,
    InvalidRefreshToken,
    InvalidToken,
    NotFound,
    Unavailable,
)
from gateway.identity.principal import Principal
from gateway.identity.revocation import Cut
from gateway.identity.tokens import AccessTokens, RefreshClaims, RefreshTokens
from gateway.telemetry.audit import (
    Event,
    GraceHit,
    LoggedOut,
    LoginFailed,
    LoginSucceeded,
    PasswordChanged,
    RefreshReused,
)

__all__ = ["Accounts", "Changes", "Client", "LoggedIn", "Page", "Tokens", "User", "canonical_email"]

MAX_PAGE = 200
"""Users in one page."""
_TRIES = 3
"""A password is compared outside the transaction; if its hash changed meanwhile, compare again."""


class Accounts:
    """Everything that can happen to users and sessions. Raises `gateway.errors` only.

    All durations are seconds. `access_life` is how long an access token may be
    accepted at the most: its ttl and the leeway. `on_cut` and `audit` are called on
    the event loop after the commit.
    """

    def __init__(
        self,
        *,
        database: Database,
        passwords: Passwords,
        access: AccessTokens,
        refresh: RefreshTokens,
        refresh_ttl: float,
        session_max: float,
        reuse_grace: float,
        access_life: float,
        on_cut: Callable[[Cut], None],
        audit: Callable[[Event], None],
        password_min_length: int = 10,
    ) -> None:
        self._ledgers = Ledgers(database, access_life=access_life, on_cut=on_cut, audit=audit)
        self._passwords = passwords
        self._access = access
        self._refresh = refresh
        self._refresh_ttl = refresh_ttl
        self._session_max = session_max
        self._reuse_grace = reuse_grace
        self._audit = audit
        self._password_min_length = password_min_length

    # sessions

    async def log_in(self, email: str, password: str, client: Client) -> LoggedIn:
        """Open a session. Raises InvalidCredentials, the same for every reason, after the same work."""
        address = _address_or_none(email)
        for _ in range(_TRIES):
            account = await self._ledgers.read(lambda store: store.account_by_email(address))
            found = await self._compare(account, password)
            if account is None or account.user.disabled or not found.right:
                self._audit(LoginFailed(email=address, address=client.address))
                raise InvalidCredentials
            # Only now, as a slower answer to a right password on a disabled account would confirm it.
            fresh = await self._passwords.hash(password) if found.outdated else None
            opening = partial(self._open, proved=account, fresh=fresh, client=client)
            opened = await self._ledgers.write(opening)
            if opened is not None:
                tokens = self._tokens(opened)
                return LoggedIn(tokens.access_token, tokens.refresh_token, opened.user)
        raise Unavailable(retry_after=1)

    async def refresh(self, refresh_token: str, client: Client) -> Tokens:
        """Spend a refresh token. Raises InvalidRefreshToken."""
        claims = self._refresh.verify(refresh_token)
        granted = await self._ledgers.write(lambda ledger: self._rotate(ledger, claims, client))
        return self._tokens(granted)

    async def log_out(self, refresh_token: str, client: Client | None = None) -> None:
        """End the session of any refresh token we ever signed. Raises InvalidRefreshToken for others."""
        claims = self._refresh.verify(refresh_token, allow_expired=True)
        await self._ledgers.write(lambda ledger: _log_out(ledger, claims, client))

    async def change_password(self, principal: Principal, current: str, new: str) -> None:
        """Raises InvalidCredentials (`current` is wrong), InvalidField (`new` is unfit), InvalidToken."""
        for _ in range(_TRIES):
            account = await self._ledgers.read(lambda store: store.account(principal.id))
            found = await self._compare(account, current)
            if account is None or not found.right:
                raise InvalidCredentials
            self._refuse_unfit(new, account.user.email)
            fresh = await self._passwords.hash(new)
            if await self._ledgers.write(partial(_replace, proved=account, fresh=fresh, principal=principal)):
                return
        raise Unavailable(retry_after=1)

    # users

    async def list_users(self, *, query: str = "", limit: int = 50, cursor: str | None = None) -> Page:
        """One page of the users whose e-mail contains `query`, oldest first. Raises InvalidField."""
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidField(f"limit must be from 1 to {MAX_PAGE}.")
        if cursor is not None and not is_id(cursor):
            raise InvalidField("cursor must be the nextCursor of an earlier page.")
        wanted = fold(query)
        if not wanted.isprintable() or (query and not wanted):  # no address is like that
            return Page((), None)
        # One more than asked for tells whether there is a next page.
        found = await self._ledgers.read(
            lambda store: store.list_users(query=wanted, limit=limit + 1, after=cursor or "")
        )
        items = tuple(found[:limit])
        return Page(items, items[-1].id if len(found) > limit else None)

    async def create_user(
        self,
        email: str,
        password: str,
        *,
        is_admin: bool = False,
        roles: tuple[str, ...] = (),
        actor: str | None = None,
    ) -> User:
        """Raises InvalidField, EmailTaken."""
        email, roles = canonical_email(email), users.checked_roles(roles)
        self._refuse_unfit(password, email)
        password_hash = await self._passwords.hash(password)
        return await self._ledgers.write(
            lambda ledger: users.create(
                ledger, email=email, password_hash=password_hash, is_admin=is_admin, roles=roles, actor=actor
            )
        )

    async def get_user(self, user_id: str) -> User:
        """Raises NotFound."""
        account = await self._ledgers.read(lambda store: store.account(user_id)) if is_id(user_id) else None
        if account is None:
            raise NotFound("There is no such user.")
        return account.user

    async def find_user(self, email: str) -> User:
        """Raises NotFound."""
        address = _address_or_none(email)
        account = await self._ledgers.read(lambda store: store.account_by_email(address))
        if account is None:
            raise NotFound("There is no such user.")
        return account.user

    async def update_user(self, user_id: str, changes: Changes, *, actor: str | None = None) -> User:
        """The user as changed. Raises NotFound, InvalidField, EmailTaken, LastAdmin."""
        wanted = Changes(
            email=None if changes.email is None else canonical_email(changes.email),
            password=changes.password,
            is_admin=changes.is_admin,
            roles=None if changes.roles is None else users.checked_roles(changes.roles),
            disabled=changes.disabled,
        )
        email = (await self.get_user(user_id)).email
        password_hash = None
        if wanted.password is not None:
            self._refuse_unfit(wanted.password, wanted.email or email)
            password_hash = await self._passwords.hash(wanted.password)
        edit = users.Edit(wanted, password_hash)
        return await self._ledgers.write(lambda ledger: users.update(ledger, user_id, edit, actor=actor))

    async def delete_user(self, user_id: str, *, actor: str | None = None) -> None:
        """The user and all their sessions. Raises NotFound, LastAdmin."""
        await self.get_user(user_id)
        await self._ledgers.write(lambda ledger: users.delete(ledger, user_id, actor=actor))

    # how

    async def _compare(self, account: Account | None, password: str) -> Verified:
        return await self._passwords.verify(password, account.password_hash if account else None)

    def _refuse_unfit(self, password: str, email: str) -> None:
        refuse_unfit(password, min_length=self._password_min_length)
        users.refuse_password_like_email(password, email)

    def _open(self, ledger: Ledger, *, proved: Account, fresh: str | None, client: Client) -> Granted | None:
        """None if the password was replaced since it was proved: a former one must not open a session."""
        account = ledger.store.account(proved.user.id, lock=True)
        if account is None or account.user.disabled:
            raise InvalidCredentials
        if account.password_hash != proved.password_hash:
            return None
        user = account.user
        if fresh is not None:
            ledger.store.save_password(user.id, fresh, now=ledger.now)
        session = ledger.store.open_session(
            user.id, client, ttl=self._refresh_ttl, longest=self._session_max, now=ledger.now
        )
        ledger.note(
            LoginSucceeded(user=user.id, email=user.email, session=session.id, address=client.address)
        )
        return Granted(user, session)

    def _rotate(self, ledger: Ledger, claims: RefreshClaims, client: Client) -> Granted | GatewayError:
        session = ledger.store.rotate(
            claims.session, claims.user_id, claims.generation, client, ttl=self._refresh_ttl, now=ledger.now
        )
        if session is None:
            return self._late(ledger, claims, client)
        account = ledger.store.account(session.user_id)
        if account is None or account.user.disabled:  # since the swap looked, a moment ago
            raise InvalidRefreshToken
        return Granted(account.user, session)

    def _late(self, ledger: Ledger, claims: RefreshClaims, client: Client) -> Granted | GatewayError:
        """The swap changed nothing: say why, and end the session if that is reuse."""
        session = ledger.store.session(claims.session)
        account = ledger.store.account(claims.user_id)
        if session is None or account is None or not _alive(session, account.user, ledger.now):
            return InvalidRefreshToken()
        age = session.generation - claims.generation
        if age <= 0:
            return InvalidRefreshToken()
        if age == 1 and ledger.now - session.rotated_at <= self._reuse_grace:
            if not session.used_from(client):
                ledger.note(GraceHit(user=session.user_id, session=session.id, address=client.address))
            return Granted(account.user, session)
        if _end_session(ledger, session.id, session.user_id, reason="reuse"):
            ledger.note(RefreshReused(user=session.user_id, session=session.id, address=client.address))
        return InvalidRefreshToken()

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


@dataclass(frozen=True, slots=True)
class Granted:
    """What a login or a refresh won; its tokens are signed after the commit."""

    user: User
    """As the transaction read them."""
    session: Session
    """At the generation that the refresh token names."""


def _alive(session: Session, user: User, now: float) -> bool:
    mine = session.user_id == user.id and not user.disabled
    return mine and session.revoked_at is None and session.expires_at > now


def _log_out(ledger: Ledger, claims: RefreshClaims, client: Client | None) -> None:
    if _end_session(ledger, claims.session, claims.user_id, reason="logout"):
        address = client.address if client else None
        ledger.note(LoggedOut(user=claims.user_id, session=claims.session, address=address))


def _end_session(ledger: Ledger, session_id: str, user_id: str, *, reason: str) -> bool:
    ended = ledger.store.end_session(session_id, user_id, reason=reason, now=ledger.now)
    if ended:
        ledger.cut_session(session_id)
    return ended


def _replace(ledger: Ledger, *, proved: Account, fresh: str, principal: Principal) -> bool:
    """False if the password was replaced since it was proved."""
    account = ledger.store.account(principal.id, lock=True)
    session = ledger.store.session(principal.session)
    if account is None or session is None or not _alive(session, account.user, ledger.now):
        raise InvalidToken
    if account.password_hash != proved.password_hash:
        return False
    ledger.store.save_password(principal.id, fresh, now=ledger.now)
    for ended in ledger.store.end_sessions(
        principal.id,
        reason="password_changed",
        now=ledger.now,
        unexpired_since=ledger.oldest_token,
        but=principal.session,
    ):
        ledger.cut_session(ended)
    ledger.note(PasswordChanged(user=principal.id, actor=principal.id))
    return True


def _address_or_none(email: str) -> str:
    """The canonical form, or "", which no account has: what is no address is looked up like any other."""
    try:
        return canonical_email(email)
    except InvalidField:
        return ""
