"""Very many people, sessions, cut-offs and API tokens, put into a database by SQL; and tokens of sessions.

Nobody of them ever logged in: a comparison of passwords for each would take days.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

import jwt
from sqlalchemy import Engine, create_engine, make_url, text

from benchmarks.peers.gateway import TOKEN_SECONDS
from benchmarks.peers.peer import Place
from gateway.identity.api_tokens import digest_of

_AT_ONCE = 100_000
"""Rows of one statement."""
_NUMBERS = {
    "sqlite": "WITH RECURSIVE numbers (n) AS"
    " (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n < {last})",
    "postgresql": "WITH numbers AS (SELECT generate_series({first}, {last}) AS n)",
}
_ID = {
    "sqlite": "printf('{kind:08x}-0000-7000-8000-%012x', n)",
    "postgresql": "'{kind:08x}-0000-7000-8000-' || lpad(to_hex(n), 12, '0')",
}
_USER, _SESSION, _CUT, _API_TOKEN = 1, 2, 3, 4
"""How ids of each kind begin."""
_USERS = """
INSERT INTO users
  (id, email, password_hash, is_admin, roles, disabled, version, created_at, updated_at)
SELECT {user}, 'user-' || n || '@example.com', 'none', false, '[]', false, 1, {now}, {now} FROM numbers
"""
_SESSIONS = """
INSERT INTO sessions
  (id, user_id, generation, issued_at, expires_at, rotated_at, created_at, ends_at, last_used_at, address,
   user_agent)
SELECT {session}, {user}, 0, {now}, {now} + 500000, {now}, {now}, {now} + 900000, {now}, '', '' FROM numbers
"""
_CUT_OFFS = """
INSERT INTO cutoffs (kind, id, version, until, recorded_at)
SELECT 'session', {cut}, 0, {now} + 50000, {now} - 3600 FROM numbers
"""
_API_TOKENS = """
INSERT INTO api_tokens (id, user_id, name, digest, scopes, limits, created_at, created_by)
VALUES (:id, :user, 'measured', :digest, '[]', :limits, :now, 'cli:benchmarks')
"""
_TOKENS_EACH = 50
"""API tokens of one person: as many as anybody may have (`api_tokens.per_user`)."""


def fill(url: str, *, people: int = 0, cut_offs: int = 0) -> None:
    """The tables are there and empty."""
    engine = _engine(url)
    now = int(time.time())
    for statement, count in ((_USERS, people), (_SESSIONS, people), (_CUT_OFFS, cut_offs)):
        for first in range(1, count + 1, _AT_ONCE):
            _run(engine, statement, first, min(first + _AT_ONCE - 1, count), now)
    _close(engine)


def fill_tokens(url: str, *, tokens: list[str]) -> None:
    """API tokens that hold, and as many people as they belong to."""
    fill(url, people=1 + len(tokens) // _TOKENS_EACH)
    now = int(time.time())
    rows = [
        {
            "id": _id(_API_TOKEN, number),
            "user": _id(_USER, 1 + number // _TOKENS_EACH),
            "digest": (digest_of(token.encode()) or b"").hex(),
            "limits": json.dumps({"methods": None, "paths": None}),
            "now": now,
        }
        for number, token in enumerate(tokens)
    ]
    engine = _engine(url)
    with engine.begin() as connection:
        connection.execute(text(_API_TOKENS), rows)
    _close(engine)


def _engine(url: str) -> Engine:
    return create_engine(make_url(url.replace("postgresql:", "postgresql+psycopg:")))


def _close(engine: Engine) -> None:
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


def _run(engine: Engine, statement: str, first: int, last: int, now: int) -> None:
    dialect = engine.dialect.name
    kinds = {"user": _USER, "session": _SESSION, "cut": _CUT}
    ids = {name: _ID[dialect].format(kind=kind) for name, kind in kinds.items()}
    # SQLite wants the numbers behind the INSERT, PostgreSQL takes them there as well.
    insert, _, select = statement.partition("SELECT ")
    numbers = _NUMBERS[dialect].format(first=first, last=last)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"{insert} {numbers} SELECT {select.format(now=now, **ids)}")


@dataclass(slots=True)
class Person:
    """One of those who were filled in, by number, from 1."""

    number: int
    place: Place
    issued_at: int = field(default_factory=lambda: int(time.time()))

    def access_token(self) -> str:
        claims = {"email": f"user-{self.number}@example.com", "isAdmin": False, "roles": [], "ver": 1}
        return self._sign("JWT_ACCESS_SECRET", "access", TOKEN_SECONDS, claims)

    def refresh_token(self) -> str:
        """The first of the session."""
        return self._sign("JWT_REFRESH_SECRET", "refresh", 500_000, {"gen": 0})

    def _sign(self, secret: str, kind: str, seconds: int, claims: dict[str, object]) -> str:
        common = {
            "iss": "gateway",
            "typ": kind,
            "sub": _id(_USER, self.number),
            "sid": _id(_SESSION, self.number),
        }
        times = {"iat": self.issued_at, "exp": self.issued_at + seconds}
        return jwt.encode(common | times | claims, self.place.environ[secret], "HS256")


def _id(kind: int, number: int) -> str:
    return f"{kind:08x}-0000-7000-8000-{number:012x}"
