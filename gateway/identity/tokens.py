"""Access and refresh tokens: what they claim, how they are issued, when they hold.

Theory of operation
-------------------
A login opens a *session*: one row in the database with an id (`sid`). The client
holds two JSON Web Tokens for it.

The **access token** (15 minutes by default) says who somebody is: `sub`, `email`,
`isAdmin`, `roles`, and two handles by which it can be ended early: `sid`, and
`ver`, the user's version when it was issued. It is verified on every request with
no database, so it may be stale for as long as it lives, and two things bound that:
it is short, and `revocation.Cutoffs` ends sessions and versions within a second
or two. Cut-offs are remembered for one access lifetime, so a token must not live
longer than that, whatever it claims: it ends at `exp` or at `iat + ttl`, whichever
is earlier. (Tokens issued before an operator shortened the ttl are such tokens.)

The **refresh token** (7 days) says nothing about a person. It names the session and
the session's *generation* (`gen`), a counter that each refresh raises by one. `iat`
and `exp` come from the session row and there is no random part, so the same
generation is always the same claims, and under one secret the same text: two tabs that
refresh at once get the same successor, and no token needs to be stored. It is always
signed by a secret, as signatures of other keys are never twice the same. When the secret
changes, the former one still verifies, and a generation that is asked for once more comes
under the new one: another text, the same generation, and the database counts those.

The two have separate keys and a `typ` claim besides (RFC 8725 §3.11-3.12), so
neither holds in the other's place, even if an operator gave both one secret.

**Everything is keyed by `sid`, never by a token's text.** A signature vouches for the
claims, not for the spelling; whatever counts, revokes or limits by text can be
evaded by another spelling.

Every claim is checked for type and range, though only holders of a key can
write one: `isAdmin` is `true` or `false` and never "truthy", times are integers
(others take "1e3", and `int(True)`), names fit where they will be used.

Times are read from an injected clock. Verifying costs 25 µs and more, so verified
tokens are remembered, least recently used first out. What is remembered is only
"this text was signed by one of these keys and well-formed": the end of its life, and of
its key's, is compared with the clock on every hit, cut-offs are asked afterwards by the
caller, and failures are never remembered. The memory belongs to one set of keys: who
`adopt`s others begins with an empty one.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import InvalidRefreshToken, InvalidToken
from gateway.identity.keys import MAX_TOKEN_BYTES, Unreadable
from gateway.identity.keyset import KeySet
from gateway.identity.principal import Principal

Clock = Callable[[], float]
"""Unix seconds."""

CACHED_TOKENS = 10_000
"""Verified tokens remembered per process: about 1.5 KB each."""

_LAST_SECOND = 253_402_300_799
"""9999-12-31T23:59:59Z. A later time is a mistake, and arithmetic on it could overflow."""

_ID = re.compile(r"[!-~]{1,255}")
"""`sub` and `sid`: visible ASCII, fit for a header, a log and a database key."""

_ROLE = re.compile(r"[a-z0-9._:-]{1,64}")
_SURROGATE = re.compile("[\ud800-\udfff]")


class AccessTokens:
    """Issues and verifies access tokens."""

    def __init__(
        self,
        *,
        keys: KeySet,
        issuer: str,
        ttl: int,
        leeway: float,
        clock: Clock = time.time,
        cache_size: int = CACHED_TOKENS,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._ttl = ttl
        self._leeway = leeway
        self._clock = clock
        self._cache_size = cache_size
        self._verified: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    def adopt(self, keys: KeySet) -> None:
        """Other keys, from the next token on. What the former ones verified is forgotten."""
        self._keys, self._verified = keys, OrderedDict()

    def published(self) -> list[dict[str, str]]:
        """The public keys by which anybody can verify these tokens: JSON Web Keys, none for secrets."""
        return self._keys.published(self._clock())

    def issue(
        self,
        *,
        user_id: str,
        email: str,
        is_admin: bool,
        roles: tuple[str, ...],
        session: str,
        session_ends: int,
        version: int,
    ) -> str:
        """A token that holds from now for `ttl` seconds, and no longer than its session."""
        clock = self._clock()
        now = int(clock)
        return self._keys.sign(
            {
                "iss": self._issuer,
                "typ": "access",
                "sub": user_id,
                "email": email,
                "isAdmin": is_admin,
                "roles": sorted(roles),
                "sid": session,
                "ver": version,
                "iat": now,
                "exp": min(now + self._ttl, session_ends),
            },
            clock,
        )

    def verify(self, token: bytes) -> Principal:
        """Who sent it. Raises InvalidToken, always with the same words, whatever is wrong."""
        if len(token) > MAX_TOKEN_BYTES:  # before even its hash is taken
            raise InvalidToken
        known = self._verified.get(token)
        if known is None:
            return self._read(token)
        dies_at, principal = known
        if self._clock() >= dies_at:
            del self._verified[token]
            raise InvalidToken
        self._verified.move_to_end(token)
        return principal

    def _read(self, token: bytes) -> Principal:
        try:
            now = self._clock()
            read = self._keys.read(token, now)
            _check_kind(read.claims, "access", self._issuer)
            lifetime = _lifetime(read.claims, ttl=self._ttl)
            lifetime.check(now, self._leeway)
            principal = _principal(read.claims, lifetime.ends)
        except Unreadable:
            raise InvalidToken from None
        self._remember(token, principal, read.until)
        return principal

    def _remember(self, token: bytes, principal: Principal, key_ends: float) -> None:
        self._verified[token] = (min(principal.expires_at + self._leeway, key_ends), principal)
        if len(self._verified) > self._cache_size:
            self._verified.popitem(last=False)


@dataclass(frozen=True, slots=True)
class RefreshClaims:
    """What a good refresh token says. Whether it is the newest one, the database knows."""

    user_id: str
    """`sub`."""
    session: str
    """`sid`."""
    generation: int
    """`gen`: how often the session had been refreshed when this token was made."""
    issued_at: int
    """Unix seconds (`iat`)."""
    expires_at: int
    """Unix seconds (`exp`)."""


class RefreshTokens:
    """Issues and verifies refresh tokens. `keys` has secrets only."""

    def __init__(self, *, keys: KeySet, issuer: str, leeway: float, clock: Clock = time.time) -> None:
        self._keys = keys
        self._issuer = issuer
        self._leeway = leeway
        self._clock = clock

    def issue(self, *, user_id: str, session: str, generation: int, issued_at: int, expires_at: int) -> str:
        """The token of this generation: under one secret the same arguments give the same text, always."""
        return self._keys.sign(
            {
                "iss": self._issuer,
                "typ": "refresh",
                "sub": user_id,
                "sid": session,
                "gen": generation,
                "iat": issued_at,
                "exp": expires_at,
            },
            self._clock(),
        )

    def verify(self, token: str, *, allow_expired: bool = False) -> RefreshClaims:
        """What it says. Raises InvalidRefreshToken, always with the same words.

        `allow_expired` is for logout, which must work with any token we ever signed.
        """
        try:
            now = self._clock()
            claims = self._keys.read(_ascii(token), now).claims
            _check_kind(claims, "refresh", self._issuer)
            lifetime = _lifetime(claims)
            if not allow_expired:
                lifetime.check(now, self._leeway)
            return RefreshClaims(
                user_id=_identifier(claims, "sub"),
                session=_identifier(claims, "sid"),
                generation=_natural(claims, "gen"),
                issued_at=lifetime.issued,
                expires_at=lifetime.ends,
            )
        except Unreadable:
            raise InvalidRefreshToken from None


@dataclass(frozen=True, slots=True)
class _Lifetime:
    issued: int
    starts: int
    ends: int

    def check(self, now: float, leeway: float) -> None:
        if not self.starts - leeway <= now < self.ends + leeway:
            raise Unreadable


def _lifetime(claims: dict[str, object], *, ttl: int | None = None) -> _Lifetime:
    """From `iat` (or a later `nbf`) to `exp`, and no longer than `ttl`."""
    issued, ends = _natural(claims, "iat", _LAST_SECOND), _natural(claims, "exp", _LAST_SECOND)
    starts = max(issued, _natural(claims, "nbf", _LAST_SECOND)) if "nbf" in claims else issued
    return _Lifetime(issued=issued, starts=starts, ends=ends if ttl is None else min(ends, issued + ttl))


def _check_kind(claims: dict[str, object], kind: str, issuer: str) -> None:
    """The right `typ` and `iss`, and no `aud`: what is meant for others is not for us (RFC 7519 §4.1.3)."""
    if claims.get("typ") != kind or claims.get("iss") != issuer or "aud" in claims:
        raise Unreadable


def _principal(claims: dict[str, object], expires_at: int) -> Principal:
    is_admin = claims.get("isAdmin")
    if is_admin is not True and is_admin is not False:
        raise Unreadable
    return Principal(
        id=_identifier(claims, "sub"),
        email=_email(claims),
        is_admin=is_admin,
        roles=_roles(claims),
        session=_identifier(claims, "sid"),
        version=_natural(claims, "ver"),
        expires_at=expires_at,
    )


def _roles(claims: dict[str, object]) -> tuple[str, ...]:
    roles = claims.get("roles")
    if not isinstance(roles, list):
        raise Unreadable
    for role in roles:
        if not isinstance(role, str) or not _ROLE.fullmatch(role):
            raise Unreadable
    return tuple(sorted(set(roles)))


def _email(claims: dict[str, object]) -> str:
    """Some text that can become bytes: JSON can spell lone surrogates, UTF-8 can't."""
    email = claims.get("email")
    if not isinstance(email, str) or not email or _SURROGATE.search(email):
        raise Unreadable
    return email


def _identifier(claims: dict[str, object], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise Unreadable
    return value


def _natural(claims: dict[str, object], name: str, most: int = 2**63 - 1) -> int:
    """A whole number from 0 to `most`. `True` is an int to Python and none to us."""
    value = claims.get(name)
    if type(value) is not int or not 0 <= value <= most:
        raise Unreadable
    return value


def _ascii(token: str) -> bytes:
    try:
        return token.encode("ascii")
    except UnicodeEncodeError:
        raise Unreadable from None
