"""The rules of a session's life, each inside one transaction: opened, refreshed, ended.

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

A session is over at `expires_at` unless it is refreshed before: when its refresh token
expires, when it was idle for too long, or at its fixed end, whichever comes first. No
access token lives longer than that, and no refresh moves the fixed end.

A session's end cuts off its access tokens as well, and a change to a user those
of an older version: see `ledger`, `users` and `feed`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from gateway.accounts.ids import is_id
from gateway.accounts.ledger import Ledger
from gateway.accounts.regulation import network_named
from gateway.accounts.store import Account, Session
from gateway.accounts.values import Client, User
from gateway.errors import GatewayError, InvalidCredentials, InvalidRefreshToken, NotFound
from gateway.identity.tokens import RefreshClaims
from gateway.telemetry.audit import (
    GraceHit,
    LoggedOut,
    LoginSucceeded,
    RefreshReused,
    SessionEnded,
    SessionsEnded,
)

NO_USER: Final = "There is no such user."
_NO_SESSION: Final = "There is no such session, or it is over."


@dataclass(frozen=True, slots=True)
class SessionRules:
    """How long a session lives, and how many a user may have. Durations are seconds."""

    refresh_ttl: float
    """A refresh token's; a session that is not refreshed ends with it."""
    session_max: float
    """From the login to the session's fixed end."""
    reuse_grace: float
    """How long the token before the present one is answered with the same successor."""
    idle_max: float | None = None
    """A session that was not refreshed for so long ends; None for no sooner than its refresh token."""
    max_per_user: int = 0
    """A login beyond so many ends the session that was used least recently; 0 for no cap."""

    @property
    def silence(self) -> float:
        """How long a session lives without being refreshed."""
        return self.refresh_ttl if self.idle_max is None else min(self.refresh_ttl, self.idle_max)


@dataclass(frozen=True, slots=True)
class Granted:
    """What a login or a refresh won; its tokens are signed after the commit."""

    user: User
    """As the transaction read them."""
    session: Session
    """At the generation that the refresh token names."""


def open_session(
    ledger: Ledger, rules: SessionRules, *, proved: Account, fresh: str | None, client: Client
) -> Granted | None:
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
        user.id, client, ttl=rules.silence, longest=rules.session_max, now=ledger.now
    )
    ledger.store.remember_network(user.id, network_named(client.address), now=ledger.now)
    ledger.note(LoginSucceeded(user=user.id, email=user.email, session=session.id, address=client.address))
    _make_room(ledger, rules, session)
    return Granted(user, session)


def rotate(
    ledger: Ledger, rules: SessionRules, claims: RefreshClaims, client: Client
) -> Granted | GatewayError:
    """One generation further, or what the theory above says."""
    session = ledger.store.rotate(
        claims.session, claims.user_id, claims.generation, client, ttl=rules.silence, now=ledger.now
    )
    if session is None:
        return _late(ledger, rules, claims, client)
    account = ledger.store.account(session.user_id)
    if account is None or account.user.disabled:  # since the swap looked, a moment ago
        raise InvalidRefreshToken
    return Granted(account.user, session)


def log_out(ledger: Ledger, claims: RefreshClaims, client: Client | None) -> None:
    if end_session(ledger, claims.session, claims.user_id, reason="logout"):
        address = client.address if client else None
        ledger.note(LoggedOut(user=claims.user_id, session=claims.session, address=address))


def end_session(ledger: Ledger, session_id: str, user_id: str, *, reason: str) -> bool:
    """False if there was none that had not been ended before."""
    ended = ledger.store.end_session(session_id, user_id, reason=reason, now=ledger.now)
    if ended:
        ledger.cut_session(session_id)
    return ended


def end_one(ledger: Ledger, session_id: str, user_id: str | None, *, actor: str | None) -> None:
    """Of this user, or of anyone. Raises NotFound, the same for a stranger's and for one that is over."""
    session = ledger.store.session(session_id) if is_id(session_id) else None
    account = ledger.store.account(session.user_id) if session else None
    if session is None or account is None or not is_alive(session, account.user, ledger.now):
        raise NotFound(_NO_SESSION)
    if user_id not in (None, session.user_id):
        raise NotFound(_NO_SESSION)
    if end_session(ledger, session.id, session.user_id, reason="ended"):
        ledger.note(SessionEnded(user=session.user_id, session=session.id, reason="ended", actor=actor))


def end_all(ledger: Ledger, user_id: str, *, actor: str | None) -> int:
    """Raises NotFound. The user's version is raised: one cut-off, however many sessions there are."""
    account = ledger.store.account(user_id, lock=True)
    if account is None:
        raise NotFound(NO_USER)
    ended = ledger.store.end_sessions(
        user_id, reason="all_ended", now=ledger.now, unexpired_since=ledger.oldest_token
    )
    if ended:
        raised = replace(account.user, version=account.user.version + 1)
        ledger.store.save_user(raised, now=ledger.now)
        ledger.cut_user(user_id, raised.version)
        ledger.note(SessionsEnded(user=user_id, count=len(ended), actor=actor))
    return len(ended)


def is_alive(session: Session, user: User, now: float) -> bool:
    """Whether the session is the user's and neither has ended."""
    mine = session.user_id == user.id and not user.disabled
    return mine and session.revoked_at is None and session.expires_at > now


def _make_room(ledger: Ledger, rules: SessionRules, opened: Session) -> None:
    """The user's row is locked, so two logins at once can't both find room."""
    if not rules.max_per_user:
        return
    for crowded in ledger.store.least_used_sessions(
        opened.user_id, but=opened.id, beyond=rules.max_per_user - 1, now=ledger.now
    ):
        if end_session(ledger, crowded, opened.user_id, reason="too_many"):
            ledger.note(SessionEnded(user=opened.user_id, session=crowded, reason="too_many"))


def _late(
    ledger: Ledger, rules: SessionRules, claims: RefreshClaims, client: Client
) -> Granted | GatewayError:
    """The swap changed nothing: say why, and end the session if that is reuse."""
    # The user before the session. PostgreSQL shows each query what was committed before it: the other way
    # round an access token could have the version that ended all sessions, and the look of one before that.
    account = ledger.store.account(claims.user_id)
    session = ledger.store.session(claims.session)
    if session is None or account is None or not is_alive(session, account.user, ledger.now):
        return InvalidRefreshToken()
    age = session.generation - claims.generation
    if age <= 0:
        return InvalidRefreshToken()
    if age == 1 and ledger.now - session.rotated_at <= rules.reuse_grace:
        if not session.used_from(client):
            ledger.note(GraceHit(user=session.user_id, session=session.id, address=client.address))
        return Granted(account.user, session)
    if end_session(ledger, session.id, session.user_id, reason="reuse"):
        ledger.note(RefreshReused(user=session.user_id, session=session.id, address=client.address))
    return InvalidRefreshToken()
