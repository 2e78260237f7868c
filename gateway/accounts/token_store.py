"""The queries about API tokens, bound to one transaction, like those of `store`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from gateway.accounts.ids import new_id
from gateway.accounts.store import PRUNED_AT_ONCE, user_of
from gateway.accounts.tables import api_tokens, users
from gateway.accounts.values import ApiToken, NewToken, User


class TokenStore:
    """The queries, on one connection, inside the transaction that its owner began."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, user_id: str, wanted: NewToken, *, digest: bytes, created_by: str, now: float) -> ApiToken:
        token = ApiToken(
            id=new_id(now),
            user_id=user_id,
            name=wanted.name,
            scopes=wanted.scopes,
            methods=wanted.methods,
            paths=wanted.paths,
            created_at=now,
            created_by=created_by,
            expires_at=None if wanted.expires_at is None else int(wanted.expires_at),
            last_used_at=None,
        )
        self._connection.execute(
            insert(api_tokens).values(
                id=token.id,
                user_id=user_id,
                name=token.name,
                digest=digest.hex(),
                scopes=json.dumps(token.scopes),
                limits=json.dumps({"methods": token.methods, "paths": token.paths}),
                created_at=now,
                created_by=created_by,
                expires_at=token.expires_at,
            )
        )
        return token

    def holder(self, digest: bytes) -> tuple[ApiToken, User] | None:
        """The token with this digest and its user, whatever state they are in; None for a revoked one."""
        query = (
            select(users, *_TOKEN)
            .join_from(api_tokens, users)
            .where(api_tokens.c.digest == digest.hex(), api_tokens.c.revoked_at.is_(None))
        )
        row = self._connection.execute(query).one_or_none()
        return None if row is None else (_token(row), user_of(row))

    def of_user(self, user_id: str) -> list[ApiToken]:
        """Those that were not revoked, oldest first."""
        return [token for token, _ in self._list(api_tokens.c.user_id == user_id)]

    def all(self) -> list[tuple[ApiToken, str]]:
        """Everybody's, likewise, each with its user's address."""
        return self._list()

    def _list(self, *conditions: ColumnElement[bool]) -> list[tuple[ApiToken, str]]:
        query = (
            select(users.c.email, *_TOKEN)
            .join_from(api_tokens, users)
            .where(*conditions, api_tokens.c.revoked_at.is_(None))
            .order_by(api_tokens.c.id)
        )
        return [(_token(row), row.email) for row in self._connection.execute(query)]

    def count(self, user_id: str, *, now: float) -> int:
        """How many of a user's hold."""
        query = select(func.count()).where(
            api_tokens.c.user_id == user_id,
            api_tokens.c.revoked_at.is_(None),
            or_(api_tokens.c.expires_at.is_(None), api_tokens.c.expires_at > now),
        )
        return int(self._connection.execute(query).scalar_one())

    def made_by_its_user(self, user_id: str, *, since: float) -> int:
        """How many the user has made since, whatever became of them."""
        own = api_tokens.c.user_id == user_id, api_tokens.c.created_by == user_id
        query = select(func.count()).where(*own, api_tokens.c.created_at > since)
        return int(self._connection.execute(query).scalar_one())

    def revoke(self, token_id: str, user_id: str | None, *, now: float) -> ApiToken | None:
        """The token as it was; None if there is none, of this user if one is named, that was not revoked."""
        mine = () if user_id is None else (api_tokens.c.user_id == user_id,)
        revoked = (
            update(api_tokens)
            .where(api_tokens.c.id == token_id, api_tokens.c.revoked_at.is_(None), *mine)
            .values(revoked_at=now)
            .returning(*_TOKEN)
        )
        row = self._connection.execute(revoked).one_or_none()
        return None if row is None else _token(row)

    def used(self, ids: Iterable[str], *, now: float, unless_since: float) -> None:
        """Note that these were used, unless that was noted since a moment ago."""
        noted = api_tokens.c.last_used_at
        self._connection.execute(
            update(api_tokens)
            .where(api_tokens.c.id.in_(list(ids)), or_(noted.is_(None), noted < unless_since))
            .values(last_used_at=now)
        )

    def prune(self, *, ended_before: float) -> int:
        """Delete a batch of those that were revoked or have expired before; how many."""
        ended = or_(api_tokens.c.revoked_at < ended_before, api_tokens.c.expires_at < ended_before)
        dead = select(api_tokens.c.id).where(ended).limit(PRUNED_AT_ONCE)
        return self._connection.execute(delete(api_tokens).where(api_tokens.c.id.in_(dead))).rowcount


_TOKEN = [
    column.label(f"token_{column.name}")
    for column in api_tokens.c
    if column.name not in ("digest", "revoked_at")
]
"""All that leaves the room, under names that don't meet those of users. Never the digest."""


def _token(row: Row[Any]) -> ApiToken:
    limits = json.loads(row.token_limits)
    return ApiToken(
        id=row.token_id,
        user_id=row.token_user_id,
        name=row.token_name,
        scopes=tuple(json.loads(row.token_scopes)),
        methods=_names(limits["methods"]),
        paths=_names(limits["paths"]),
        created_at=row.token_created_at,
        created_by=row.token_created_by,
        expires_at=row.token_expires_at,
        last_used_at=row.token_last_used_at,
    )


def _names(names: list[str] | None) -> tuple[str, ...] | None:
    """None, no limit, must stay different from empty, which fits nothing."""
    return None if names is None else tuple(names)
