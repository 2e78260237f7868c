"""A real /auth: real accounts on a real SQLite file, real bcrypt (cheap), real tokens, a clock that obeys."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import pytest
from starlette.types import ASGIApp, Scope

from gateway.accounts import schema
from gateway.accounts.database import Database
from gateway.accounts.passwords import Passwords
from gateway.accounts.service import Accounts, NewToken, SessionRules, TokenRules, User
from gateway.errors import InvalidToken
from gateway.http.head import Headers
from gateway.identity.api_tokens import digest_of
from gateway.identity.credentials import find_bearer
from gateway.identity.keyset import KeySet
from gateway.identity.principal import Principal
from gateway.identity.revocation import Cutoffs
from gateway.identity.tokens import AccessTokens, RefreshTokens
from gateway.policy.reach import mistake
from gateway.ratelimit import RateLimiter, Rule
from gateway.telemetry.audit import AuditTrail, Event
from gateway.web.attempts import Attempts, Limits
from gateway.web.auth import build_auth

ADMIN = "root@example.com"
USER = "ada@example.com"
PASSWORD = "correct horse battery staple"
HOME = IPv4Address("192.0.2.1")
ACCESS_LIFE = 900 + 10

LIMITS = Limits(
    login_per_account=Rule(5, 60, "login-account"),
    login_per_account_daily=Rule(100, 86_400, "login-daily"),
    login_per_address=Rule(30, 60, "login-address"),
    refresh_per_address=Rule(60, 60, "refresh-address"),
)


class Clock:
    """Unix seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """One running gateway, as far as /auth is concerned."""

    accounts: Accounts
    database: Database
    access: AccessTokens
    limiter: RateLimiter
    clock: Clock = field(default_factory=Clock)
    cutoffs: Cutoffs = field(default_factory=Cutoffs)
    events: list[Event] = field(default_factory=list)
    address: IPv4Address | IPv6Address | None = HOME
    app: ASGIApp = None  # type: ignore[assignment]  # built from the world itself
    http: httpx.AsyncClient = None  # type: ignore[assignment]
    strict: httpx.AsyncClient = None  # type: ignore[assignment]  # where nobody changes their own address
    attempts: Attempts = None  # type: ignore[assignment]
    admin: User = None  # type: ignore[assignment]
    user: User = None  # type: ignore[assignment]

    async def authenticate(self, headers: Headers) -> Principal | None:
        token = find_bearer(headers)
        digest = digest_of(token)
        if digest is not None:
            standing_for = await self.accounts.api_tokens.read(digest) if digest else None
            if standing_for is None:
                raise InvalidToken
            return standing_for
        if token is None:
            return None
        principal = self.access.verify(token)
        if self.cutoffs.cuts(principal):
            raise InvalidToken
        return principal

    def address_of(self, scope: Scope) -> IPv4Address | IPv6Address | None:
        return self.address

    async def log_in(self, email: str = USER, password: str = PASSWORD) -> dict[str, Any]:
        answer = await self.http.post("/auth/login", json={"email": email, "password": password})
        assert answer.status_code == 200, answer.text
        value: dict[str, Any] = answer.json()
        return value

    async def bearer(self, email: str = USER, password: str = PASSWORD) -> dict[str, str]:
        """The header of a fresh login."""
        return {"authorization": f"Bearer {(await self.log_in(email, password))['accessToken']}"}

    async def program(self, user: User, **wanted: Any) -> dict[str, str]:
        """The header of a new API token that stands for `user`."""
        _, token = await self.accounts.api_tokens.create(
            user.id, NewToken("a program", **wanted), actor=self.admin.id
        )
        return {"authorization": f"Bearer {token}"}

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if type(event).__name__ == name]


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database with an admin and a user: made once, copied for each test."""
    path = tmp_path_factory.mktemp("web") / "begun.db"

    async def begin() -> None:
        async with running(path) as world:
            await schema.prepare(world.database)
            await world.accounts.users.create(ADMIN, PASSWORD, is_admin=True)
            world.clock.now += 1  # accounts are listed in the order of their creation
            await world.accounts.users.create(USER, PASSWORD, roles=("auditor", "analyst"))

    asyncio.run(begin())
    return path


@pytest.fixture
async def world(begun: Path, tmp_path: Path) -> AsyncIterator[World]:
    async with running(Path(shutil.copy(begun, tmp_path / "gateway.db"))) as world:
        world.clock.now += 1
        world.admin, world.user = (await world.accounts.users.list()).items
        yield world


@contextlib.asynccontextmanager
async def running(path: Path) -> AsyncIterator[World]:
    """A world on the database at `path`; closed at the end, its write-ahead log folded in."""
    clock = Clock()
    secrets = b"an access secret for tests only, 0123456789", b"a refresh secret for tests only, 0123456789"
    access = AccessTokens(keys=KeySet([secrets[0]]), issuer="gateway", ttl=900, leeway=10, clock=clock)
    refresh = RefreshTokens(keys=KeySet([secrets[1]]), issuer="gateway", leeway=10, clock=clock)
    database = Database(f"sqlite:///{path}", clock=clock)
    passwords = Passwords(cost=4, threads=2)
    events: list[Event] = []
    audit = AuditTrail([lambda recorded: events.append(recorded.event)], clock=clock)
    cutoffs = Cutoffs()
    accounts = Accounts(
        database=database,
        passwords=passwords,
        access=access,
        refresh=refresh,
        session_rules=SessionRules(
            refresh_ttl=7 * 86400,
            session_max=30 * 86400,
            reuse_grace=10,
        ),
        access_life=ACCESS_LIFE,
        token_rules=TokenRules(own_scopes=frozenset({"read"}), per_user=5, mistake=mistake),
        on_cut=cutoffs.apply,
        audit=audit,
    )
    limiter = RateLimiter(clock=clock)
    world = World(accounts, database, access, limiter, clock, cutoffs, events)
    world.attempts = Attempts(limiter, LIMITS, standing=accounts.regulation.standing, audit=audit.record)
    auth = partial(
        build_auth,
        accounts=accounts,
        authenticate=world.authenticate,
        address_of=world.address_of,
        attempts=world.attempts,
        published=access.published,
    )
    world.app = auth(own_email=True)
    async with client(world.app) as world.http, client(auth()) as world.strict:
        yield world
    await world.limiter.close()
    await passwords.close()
    await database.close()


def client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway.test")


@pytest.fixture
def bcrypt_rounds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The cost of every bcrypt run, in order; their sum in rounds is the time an answer takes."""
    runs: list[int] = []
    hashpw, checkpw = bcrypt.hashpw, bcrypt.checkpw

    def counted_hashpw(password: bytes, salt: bytes) -> bytes:
        runs.append(2 ** int(salt.split(b"$")[2]))
        return hashpw(password, salt)

    def counted_checkpw(password: bytes, stored: bytes) -> bool:
        runs.append(2 ** int(stored.split(b"$")[2]))
        return checkpw(password, stored)

    monkeypatch.setattr(bcrypt, "hashpw", counted_hashpw)
    monkeypatch.setattr(bcrypt, "checkpw", counted_checkpw)
    return runs


def assert_problem(answer: httpx.Response, status: int, code: str, about: object = "") -> dict[str, Any]:
    """An error of ours, complete in every part that is promised. `about` tells one case of many."""
    seen = (answer.status_code, answer.headers.get("x-gateway-error"))
    assert seen == (status, code), f"{about!r}: {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    body: dict[str, Any] = json.loads(answer.text)
    assert body.keys() == {"type", "title", "status", "detail", "code", "requestId"}
    assert (body["status"], body["code"]) == (status, code)
    assert body["requestId"] == answer.headers["x-request-id"]
    assert ("www-authenticate" in answer.headers) == (status == 401 or "insufficient" in str(answer.headers))
    assert PASSWORD not in answer.text
    return body
