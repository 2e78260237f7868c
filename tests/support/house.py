"""A whole gateway in this process: a real SQLite file, real bcrypt, a real backend, a clock we move."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from examples.upstream.app import serve_connection
from gateway.app import Gateway, build
from gateway.config.load import load
from gateway.policy.compile import compile_policy
from gateway.telemetry.outlet import Outlet, target_of

PASSWORD = "a long enough password"
ROUTES = """
routes:
  - {path: /health, methods: [GET], allow: public}
  - {path: "/admin/**", allow: admin}
  - {path: "/projects/{id}", methods: [DELETE], allow: admin}
  - {path: "/reports/**", allow: {roles: {any: [analyst, auditor]}}}
"""
_YAML = """
server: {{listen: "127.0.0.1:0", ops_listen: "off", limits: {{body: 1MiB}}, trusted_proxies: [{trusted}]}}
tokens:
  access: {{secret: "${{JWT_ACCESS_SECRET}}"}}
  refresh: {{secret: "${{JWT_REFRESH_SECRET}}"}}
accounts: {{database: "sqlite:///{folder}/gateway.db", bcrypt_cost: 4}}
upstream: http://127.0.0.1:{port}
"""


@dataclass(slots=True)
class Clock:
    """Stands still until somebody moves it. Unix seconds."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, *, seconds: float = 0, minutes: float = 0, days: float = 0) -> None:
        self.now += seconds + minutes * 60 + days * 86_400


@dataclass(slots=True)
class Person:
    """Somebody with a browser: the tokens of one login."""

    house: House
    email: str
    access: str
    refresh: str
    user: dict[str, Any]

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.send("GET", path, **options)

    async def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.access}"} | options.pop("headers", {})
        return await self.house.http.request(method, path, headers=headers, **options)

    async def renew(self) -> httpx.Response:
        """Refresh; on success the new tokens replace the old ones, as a browser does it."""
        answer = await self.house.http.post("/auth/refresh", json={"refreshToken": self.refresh})
        if answer.status_code == 200:
            self.access, self.refresh = answer.json()["accessToken"], answer.json()["refreshToken"]
        return answer

    async def log_out(self) -> httpx.Response:
        return await self.house.http.post("/auth/logout", json={"refreshToken": self.refresh})


@dataclass(slots=True)
class House:
    """The gateway, its backend, and people in front of it."""

    gateway: Gateway
    http: httpx.AsyncClient
    clock: Clock
    outlet: Outlet
    log: io.StringIO
    """What the gateway has written; see `events`."""

    async def add(self, email: str, *, is_admin: bool = False, roles: tuple[str, ...] = ()) -> str:
        """A new user's id."""
        user = await self.gateway.accounts.users.create(email, PASSWORD, is_admin=is_admin, roles=roles)
        return user.id

    def events(self) -> list[dict[str, Any]]:
        """Every decision line and audit event so far."""
        self.outlet.flush()
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    async def log_in(self, email: str, password: str = PASSWORD) -> Person:
        answer = await self.try_log_in(email, password)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        return Person(self, email, body["accessToken"], body["refreshToken"], body["user"])

    async def try_log_in(self, email: str, password: str = PASSWORD) -> httpx.Response:
        return await self.http.post("/auth/login", json={"email": email, "password": password})


def seen_by_backend(answer: httpx.Response) -> dict[str, str]:
    """The headers that reached the backend, by lower-case name. Fails if one came twice."""
    pairs = [(name.lower(), value) for name, value in answer.json()["headers"]]
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


@asynccontextmanager
async def open_house(folder: Path, *, routes: str = ROUTES, trusted: str = "") -> AsyncIterator[House]:
    """A gateway with `routes` (YAML), in front of examples/upstream, with nobody in it yet.

    Its clients come from 192.0.2.7; `trusted` is a network whose X-Forwarded-* are believed.
    """
    clock, log = Clock(), io.StringIO()
    outlet = Outlet(target_of(log), report=lambda lost: b"")
    async with open_backend() as port:
        text = _YAML.format(folder=folder, port=port, trusted=trusted) + routes
        async with open_gateway(folder, text, clock=clock, outlet=outlet) as gateway:
            transport = httpx.ASGITransport(gateway.asgi, client=("192.0.2.7", 1234))
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as http:
                yield House(gateway, http, clock, outlet, log)


@asynccontextmanager
async def open_backend() -> AsyncIterator[int]:
    """examples/upstream in this process; its port."""
    backend = await asyncio.start_server(serve_connection, "127.0.0.1", 0)
    try:
        yield backend.sockets[0].getsockname()[1]
    finally:
        backend.close()
        await backend.wait_closed()


@asynccontextmanager
async def open_gateway(folder: Path, text: str, *, clock: Clock, outlet: Outlet) -> AsyncIterator[Gateway]:
    """The gateway of a whole gateway.yaml, started."""
    file = folder / "gateway.yaml"
    file.write_text(text)
    environ = {name: secrets.token_urlsafe(48) for name in ("JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET")}
    loaded = load(file, environ=environ)
    assert loaded.config is not None, loaded.problems
    policy, problems = compile_policy(loaded.config, loaded.places)
    assert policy is not None, problems
    gateway = build(loaded.config, policy, clock=clock, outlet=outlet)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()
