"""The accounts room with everything it needs, and a clock that tests move."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from gateway.accounts.database import Database
from gateway.accounts.passwords import Passwords
from gateway.accounts.service import Accounts, Client, LoggedIn, SessionRules, User
from gateway.accounts.tables import sessions
from gateway.identity.keyset import KeySet
from gateway.identity.principal import Principal
from gateway.identity.revocation import Cutoffs
from gateway.identity.tokens import AccessTokens, RefreshTokens
from gateway.telemetry.audit import AuditTrail

ACCESS_TTL = 900
REFRESH_TTL = 7 * 86_400
SESSION_MAX = 30 * 86_400
GRACE = 10
LEEWAY = 10.0

HOME = Client("192.0.2.1", "Firefox")
ELSEWHERE = Client("198.51.100.7", "curl")
PASSWORD = "correct horse battery"
NEW_PASSWORD = "another long password"
TERMINATE_OTHERS = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'gateway'"
    " AND pid <> pg_backend_pid()"
)


def execute(sql: str) -> Callable[[Connection], None]:
    """A piece of work for the database."""
    return lambda connection: connection.exec_driver_sql(sql).close()


@asynccontextmanager
async def opened(url: str, **settings: object) -> AsyncIterator[Database]:
    database = Database(url, **settings)  # type: ignore[arg-type]
    try:
        yield database
    finally:
        await database.close()


def make_read_only(database: Database, switch: str) -> None:
    """ON or OFF, on every connection to a SQLite file, as if it lay on a disk that was remounted."""
    pool = database._engine.pool
    connections = [pool.connect() for _ in range(pool.size())]  # type: ignore[attr-defined]
    for connection in connections:
        connection.cursor().execute(f"PRAGMA query_only = {switch}")
        connection.close()


class Clock:
    """Unix seconds that pass only when told to."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class World:
    """One process of the gateway, as far as accounts are concerned."""

    database: Database
    clock: Callable[[], float]
    events: list[Any] = field(default_factory=list)
    cutoffs: Cutoffs = field(default_factory=Cutoffs)
    cost: int = 4
    min_length: int = 10
    rules: dict[str, Any] = field(default_factory=dict)
    """Of sessions, where a test wants others."""

    def __post_init__(self) -> None:
        self.passwords = Passwords(cost=self.cost, threads=2)
        self.access = AccessTokens(
            keys=KeySet([b"a" * 32]), issuer="gateway", ttl=ACCESS_TTL, leeway=LEEWAY, clock=self.clock
        )
        self.refresh_tokens = RefreshTokens(
            keys=KeySet([b"r" * 32]), issuer="gateway", leeway=LEEWAY, clock=self.clock
        )
        self.accounts = Accounts(
            database=self.database,
            passwords=self.passwords,
            access=self.access,
            refresh=self.refresh_tokens,
            session_rules=SessionRules(
                refresh_ttl=REFRESH_TTL,
                session_max=SESSION_MAX,
                reuse_grace=GRACE,
                **self.rules,
            ),
            access_life=ACCESS_TTL + LEEWAY,
            on_cut=self.cutoffs.apply,
            audit=AuditTrail([lambda recorded: self.events.append(recorded.event)]),
            password_min_length=self.min_length,
        )

    async def close(self) -> None:
        await self.passwords.close()
        await self.database.close()

    # short words for stories

    async def ann(self, **settings: Any) -> User:
        return await self.accounts.users.create("ann@example.com", PASSWORD, **settings)

    async def log_in(
        self, email: str = "ann@example.com", password: str = PASSWORD, client: Client = HOME
    ) -> LoggedIn:
        return await self.accounts.sessions.log_in(email, password, client)

    def holds(self, access_token: str) -> bool:
        """Whether the gateway would let this token in."""
        return not self.cutoffs.cuts(self.principal(access_token))

    def principal(self, access_token: str) -> Principal:
        return self.access.verify(access_token.encode())

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    async def rows(self, user_id: str) -> list[Any]:
        def read(connection: Connection) -> list[Any]:
            return list(connection.execute(select(sessions).where(sessions.c.user_id == user_id)))

        return await self.database.read(read)
