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

A session's end cuts off its access tokens as well, and a change to a user those
of an older version: see `ledger`, `users` and `feed`.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.accounts.ledger import Ledger
from gateway.accounts.store import Account, Session
from gateway.accounts.values import Client, User
from gateway.errors import GatewayError, InvalidCredentials, InvalidRefreshToken
from gateway.identity.tokens import RefreshClaims
from gateway.telemetry.audit import GraceHit, LoggedOut, LoginSucceeded, RefreshReused


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long a session lives. All are seconds."""

    refresh_ttl: float
    """A refresh token's; the session ends with its last one."""
    session_max: float
    """From the login to the session's fixed end."""
    reuse_grace: float
    """How long the token before the present one is answered with the same successor."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What a login or a refresh won; its tokens are signed after the commit."""

    user: User
    """As the transaction read them."""
    session: Session
    """At the generation that the refresh token names."""


def open_session(
    ledger: Ledger, lives: Lifetimes, *, proved: Account, fresh: str | None, client: Client
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
        user.id, client, ttl=lives.refresh_ttl, longest=lives.session_max, now=ledger.now
    )
    ledger.note(LoginSucceeded(user=user.id, email=user.email, session=session.id, address=client.address))
    return Granted(user, session)


def rotate(ledger: Ledger, lives: Lifetimes, claims: RefreshClaims, client: Client) -> Granted | GatewayError:
    """One generation further, or what the theory above says."""
    session = ledger.store.rotate(
        claims.session, claims.user_id, claims.generation, client, ttl=lives.refresh_ttl, now=ledger.now
    )
    if session is None:
        return _late(ledger, lives, claims, client)
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


def is_alive(session: Session, user: User, now: float) -> bool:
    """Whether the session is the user's and neither has ended."""
    mine = session.user_id == user.id and not user.disabled
    return mine and session.revoked_at is None and session.expires_at > now


def _late(ledger: Ledger, lives: Lifetimes, claims: RefreshClaims, client: Client) -> Granted | GatewayError:
    """The swap changed nothing: say why, and end the session if that is reuse."""
    session = ledger.store.session(claims.session)
    account = ledger.store.account(claims.user_id)
    if session is None or account is None or not is_alive(session, account.user, ledger.now):
        return InvalidRefreshToken()
    age = session.generation - claims.generation
    if age <= 0:
        return InvalidRefreshToken()
    if age == 1 and ledger.now - session.rotated_at <= lives.reuse_grace:
        if not session.used_from(client):
            ledger.note(GraceHit(user=session.user_id, session=session.id, address=client.address))
        return Granted(account.user, session)
    if end_session(ledger, session.id, session.user_id, reason="reuse"):
        ledger.note(RefreshReused(user=session.user_id, session=session.id, address=client.address))
    return InvalidRefreshToken()
