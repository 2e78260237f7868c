"""API tokens: credentials for programs, made by people for themselves and by admins for anyone.

A token stands for its user *now*: it holds no copy of rights. Whatever becomes of the
user becomes of the token, within a second or two everywhere (see `identity.known_tokens`).
What it adds are restrictions, and scopes, which rules may ask for besides.

**Scopes are given, not taken.** A rule may ask for nothing but a scope, so people may
give to their own tokens only scopes that the operator named for it; admins may give any.
What admins gave to themselves counts no longer than they are admins.

The text is shown once, and only its digest is stored. A lower `max_ttl` also shortens the
tokens that exist, like a lower ttl does access tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Final

from sqlalchemy import Connection

from gateway.accounts.database import Database
from gateway.accounts.ids import is_id
from gateway.accounts.ledger import Ledger, Ledgers
from gateway.accounts.store import Store
from gateway.accounts.token_store import TokenStore
from gateway.accounts.values import ApiToken, NewToken, User
from gateway.errors import InvalidField, NotFound, TooManyTokens
from gateway.http.head import REFUSED_METHODS
from gateway.identity.api_tokens import digest_of, make_token
from gateway.identity.principal import LOGIN, Principal, Reach
from gateway.telemetry.audit import TokenCreated, TokenRevoked

LONGEST_NAME: Final = 64
MOST_SCOPES: Final = 64
MOST_LIMITS: Final = 32
"""Of methods, and of paths: each request is compared with them."""
LONGEST_PATH: Final = 256
MADE_A_DAY: Final = 10
"""Times as many as it may have an account may make within a day: also those that were revoked leave rows."""
DAY_S: Final = 86_400.0
NOTED_EVERY_S: Final = 60.0
"""How exact `last used` is."""
NOTED_AT_ONCE: Final = 500
"""Ids in one statement."""
KEEP_ENDED_S: Final = 30 * DAY_S
"""A revoked or expired token's row stays so long, for those who look into something."""
_LAST_SECOND: Final = 253_402_300_799
"""9999-12-31T23:59:59Z, for tokens without an end."""
_SCOPE: Final = re.compile(r"[a-z0-9._:-]{1,64}")
_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,31}")


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What the operator allows."""

    own_scopes: frozenset[str] = frozenset()
    """Scopes that people may give to tokens of their own."""
    max_ttl: float | None = None
    """Seconds that a token may last; None for any time, and for ever."""
    per_user: int = 50
    """Tokens of one user that hold at once."""
    mistake: Callable[[Reach], str | None] = lambda reach: None
    """What is wrong with paths, in the words of those who match them; None if nothing is."""


class ApiTokens:
    """The use cases of API tokens. `actor` is who does it: a user's id, or the command line."""

    def __init__(self, ledgers: Ledgers, database: Database, rules: TokenRules) -> None:
        self._ledgers = ledgers
        self._database = database
        self._rules = rules

    async def create(
        self, user_id: str, wanted: NewToken, *, actor: str, own: bool = False
    ) -> tuple[ApiToken, str]:
        """The new token and its text. `own`: made by its user, who is no admin.

        Raises InvalidField, NotFound, TooManyTokens.
        """
        wanted = self._checked(wanted, own=own)
        text = make_token()
        digest = digest_of(text.encode()) or b""
        made = await self._ledgers.write(
            lambda ledger: self._create(ledger, user_id, wanted, digest=digest, actor=actor)
        )
        return made, text

    async def of_user(self, user_id: str) -> list[ApiToken]:
        """A user's, oldest first; those that have expired too. Raises NotFound."""
        if not is_id(user_id):
            raise NotFound("There is no such user.")
        return await self._database.read(lambda connection: self._of_user(connection, user_id))

    async def all(self) -> list[tuple[ApiToken, str]]:
        """Everybody's, each with its user's address."""
        found = await self._database.read(lambda connection: TokenStore(connection).all())
        return [(self._capped(token), email) for token, email in found]

    async def revoke(self, token_id: str, *, user_id: str | None = None, actor: str) -> ApiToken:
        """End it, everywhere. Raises NotFound, also if it is not this user's."""
        if not is_id(token_id):
            raise NotFound("There is no such token.")
        return await self._ledgers.write(lambda ledger: _revoke(ledger, token_id, user_id, actor))

    async def read(self, digest: bytes) -> Principal | None:
        """Whom a digest stands for now; None if there is none, or it does not hold."""
        return await self._database.read(lambda connection: self._holder(connection, digest))

    async def note_used(self, ids: Iterable[str]) -> None:
        """Write down that these were used just now, more or less. Raises Unavailable, GatewayTimeout."""
        left = iter(ids)
        while batch := list(islice(left, NOTED_AT_ONCE)):
            await self._database.write(partial(self._note, ids=batch))

    async def prune(self) -> None:
        """Delete what ended long ago, a batch at a time."""
        while await self._database.write(self._prune):
            pass

    # how

    def _of_user(self, connection: Connection, user_id: str) -> list[ApiToken]:
        if Store(connection).account(user_id) is None:
            raise NotFound("There is no such user.")
        return [self._capped(token) for token in TokenStore(connection).of_user(user_id)]

    def _create(
        self, ledger: Ledger, user_id: str, wanted: NewToken, *, digest: bytes, actor: str
    ) -> ApiToken:
        locked = ledger.store.account(user_id, lock=True) if is_id(user_id) else None
        if locked is None:
            raise NotFound("There is no such user.")
        if ledger.tokens.count(user_id, now=ledger.now) >= self._rules.per_user:
            raise TooManyTokens
        made = ledger.tokens.made_by_its_user(user_id, since=ledger.now - DAY_S) if actor == user_id else 0
        if made >= MADE_A_DAY * self._rules.per_user:
            raise TooManyTokens("This account has made too many API tokens today; come back tomorrow.")
        wanted = replace(wanted, expires_at=self._end(wanted.expires_at, ledger.now))
        token = ledger.tokens.add(user_id, wanted, digest=digest, created_by=actor, now=ledger.now)
        ledger.note(TokenCreated(user=user_id, credential=token.id, label=token.name, actor=actor))
        return token

    def _end(self, wanted: float | None, now: float) -> float | None:
        longest = self._rules.max_ttl
        if wanted is None:
            return None if longest is None else min(now + longest, _LAST_SECOND)
        if not now < wanted <= _LAST_SECOND:
            raise InvalidField("expiresAt is over, or beyond the year 9999.")
        if longest is not None and wanted > now + longest:
            raise InvalidField(f"expiresAt: a token may last {_days(longest)} at most.")
        return wanted

    def _capped(self, token: ApiToken) -> ApiToken:
        """As it holds by the rules of today."""
        longest = self._rules.max_ttl
        if longest is None:
            return token
        end = int(min(token.created_at + longest, _LAST_SECOND))
        return replace(token, expires_at=end if token.expires_at is None else min(end, token.expires_at))

    def _holder(self, connection: Connection, digest: bytes) -> Principal | None:
        found = TokenStore(connection).holder(digest)
        if found is None:
            return None
        token, user = self._capped(found[0]), found[1]
        end = _LAST_SECOND if token.expires_at is None else token.expires_at
        if user.disabled or end <= self._database.now(connection):
            return None
        limited = token.methods is not None or token.paths is not None
        return Principal(
            id=user.id,
            email=user.email,
            is_admin=user.is_admin,
            roles=user.roles,
            session=token.id,
            version=user.version,
            expires_at=end,
            scopes=self._given(token, user),
            reach=Reach(token.methods, token.paths) if limited else None,
            token=token.id,
        )

    def _given(self, token: ApiToken, user: User) -> tuple[str, ...]:
        """Its scopes; what people gave themselves as admins goes with their being one."""
        if user.is_admin or token.created_by != user.id:
            return token.scopes
        return tuple(scope for scope in token.scopes if scope in self._rules.own_scopes)

    def _note(self, connection: Connection, *, ids: list[str]) -> None:
        now = self._database.now(connection)
        TokenStore(connection).used(ids, now=now, unless_since=now - NOTED_EVERY_S / 2)

    def _prune(self, connection: Connection) -> int:
        return TokenStore(connection).prune(ended_before=self._database.now(connection) - KEEP_ENDED_S)

    # what may be asked for

    def _checked(self, wanted: NewToken, *, own: bool) -> NewToken:
        name = wanted.name.strip()
        if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
            raise InvalidField(f"name: write 1 to {LONGEST_NAME} printable characters.")
        scopes = tuple(sorted(set(wanted.scopes)))
        self._check_scopes(scopes, own=own)
        methods = None if wanted.methods is None else tuple(sorted(set(wanted.methods)))
        paths = None if wanted.paths is None else tuple(dict.fromkeys(wanted.paths))
        self._check_limits(methods, paths)
        return replace(wanted, name=name, scopes=scopes, methods=methods, paths=paths)

    def _check_scopes(self, scopes: tuple[str, ...], *, own: bool) -> None:
        if len(scopes) > MOST_SCOPES or not all(map(_SCOPE.fullmatch, scopes)):
            raise InvalidField(f"scopes: up to {MOST_SCOPES}, each 1 to 64 of the characters a-z 0-9 . _ : -")
        if LOGIN in scopes:
            raise InvalidField(f"scopes: {LOGIN} is for those who log in; no token can have it.")
        foreign = sorted(set(scopes) - self._rules.own_scopes) if own else []
        if foreign:
            raise InvalidField(f"scopes: only an admin can give {', '.join(foreign)} to a token.")

    def _check_limits(self, methods: tuple[str, ...] | None, paths: tuple[str, ...] | None) -> None:
        for name, items in (("methods", methods), ("paths", paths)):
            if items is not None and not 1 <= len(items) <= MOST_LIMITS:
                raise InvalidField(f"{name}: name 1 to {MOST_LIMITS}, or leave it out for all.")
        for method in methods or ():
            if not _METHOD.fullmatch(method) or method in REFUSED_METHODS:
                raise InvalidField("methods: write them in capitals, like GET; TRACE and CONNECT never pass.")
        if any(len(path) > LONGEST_PATH for path in paths or ()):
            raise InvalidField(f"paths: at most {LONGEST_PATH} characters each.")
        if mistake := self._rules.mistake(Reach(methods, paths)):
            raise InvalidField(f"paths: {mistake}.")


def _revoke(ledger: Ledger, token_id: str, user_id: str | None, actor: str) -> ApiToken:
    token = ledger.tokens.revoke(token_id, user_id, now=ledger.now)
    if token is None:
        raise NotFound("There is no such token.")
    ledger.cut_token(token.id)
    ledger.note(TokenRevoked(user=token.user_id, credential=token.id, label=token.name, actor=actor))
    return token


def _days(seconds: float) -> str:
    return f"{seconds / 86_400:g} days"
