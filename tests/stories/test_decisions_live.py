"""The table of decisions, asked at the front door of the whole gateway: bytes in, status and reason out.

Once in each lane: as `gateway run` serves it, on a socket, and as an ASGI server would hand a request in.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.accounts.service import NewToken
from gateway.app import Gateway
from gateway.config.load import load
from gateway.telemetry.outlet import Outlet, target_of
from tests.policy.rules import TOKENS
from tests.support.decisions import Row, World, person, worlds
from tests.support.house import PASSWORD, Clock, open_backend, open_gateway
from tests.support.lanes import listening, run_lane
from tests.support.raw import connect
from tests.support.tokens import Mint

WORLDS = worlds()
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[bytes, bytes]
    """By names in small letters."""
    body: bytes


Ask = Callable[[Row, Headers], Awaitable[Answer]]


@pytest.mark.anyio
@pytest.mark.parametrize("lane", ["run", "asgi"])
@pytest.mark.parametrize("world", WORLDS, ids=[world.name for world in WORLDS])
async def test_the_live_gateway_decides_as_the_table_says(world: World, lane: str, tmp_path: Path) -> None:
    clock, log = Clock(), io.StringIO()
    outlet = Outlet(target_of(log), report=lambda lost: b"")
    async with contextlib.AsyncExitStack() as stack:
        ports = {name: await stack.enter_async_context(open_backend()) for name in world.upstreams}
        file = world.write(
            tmp_path,
            TOKENS,
            lambda name: f"http://127.0.0.1:{ports[name]}",
            server={"ops_listen": "off", "trusted_proxies": ["127.0.0.1/32"]},
            accounts={"database": f"sqlite:///{tmp_path}/gateway.db", "bcrypt_cost": 4},
        )
        gateway = await stack.enter_async_context(
            open_gateway(tmp_path, file.read_text(), clock=clock, outlet=outlet)
        )
        ask = (
            await stack.enter_async_context(_on_a_socket(gateway, file)) if lane == "run" else _asgi(gateway)
        )
        programs = await _programs(world, gateway)
        for row in world.rows:
            clock.now = row.now
            token = _token(row, programs, Mint(TOKENS["access"]["secret"].encode(), int(row.now)))
            answer = await ask(row, _headers(row, token))
            outlet.flush()
            line = json.loads(log.getvalue().splitlines()[-1])
            _check(row, answer, line, ports)


def _check(row: Row, answer: Answer, line: dict[str, Any], ports: dict[str, int]) -> None:
    if row.target.startswith("/auth/"):
        assert line["route"].startswith("auth:"), str(row)  # the gateway's own: the policy is not asked
        return
    status = answer.status
    assert (status if status != 200 else "allow") == row.expect, str(row)
    assert line["status"] == status, str(row)
    if row.readable is not None:
        allowed = answer.headers.get(b"access-control-allow-origin", b"").decode()
        assert (allowed in (row.origin, "*")) is row.readable, str(row)
    if status == 204:
        return  # a preflight: the gateway has answered by itself
    assert line["verdict"] == ("allow" if status == 200 else "deny"), str(row)
    assert row.reports(line.get("would")), str(row)
    if row.reason is not None:
        assert line["reason"] == row.reason, str(row)
    if row.upstream is not None and status == 200:
        assert line["upstream"] == f"127.0.0.1:{ports[row.upstream]}", str(row)
    if status == 200 and row.method != "HEAD":
        path = json.loads(answer.body)["target"].partition("?")[0]
        assert path == (row.forward or path), str(row)
        _check_identity(row, {name.lower() for name, _ in json.loads(answer.body)["headers"]})


def _check_identity(row: Row, names: set[str]) -> None:
    """The backend is told who asks, also where a rule only reports."""
    assert ("x-user-id" in names) is (row.caller != "anonymous"), str(row)


async def _programs(world: World, gateway: Gateway) -> dict[str, bytes]:
    """An API token for each caller that comes with one, by its user's address."""
    tokens: dict[str, bytes] = {}
    for row in world.rows:
        who = person(row.caller)
        if who is None or who["scopes"] is None or who["email"] in tokens:
            continue
        user = await gateway.accounts.users.create(
            who["email"], PASSWORD, is_admin=who["admin"], roles=tuple(who["roles"])
        )
        wanted = NewToken("a program", scopes=tuple(who["scopes"]))
        _, text = await gateway.accounts.api_tokens.create(user.id, wanted, actor="cli:test")
        tokens[who["email"]] = text.encode()
    return tokens


def _token(row: Row, programs: dict[str, bytes], mint: Mint) -> bytes | None:
    who = person(row.caller)
    if who is None:
        return None
    if who["scopes"] is not None:
        return programs[who["email"]]
    return mint.access(isAdmin=who["admin"], roles=who["roles"], email=who["email"])


def _headers(row: Row, token: bytes | None) -> Headers:
    lines = [
        ("host", row.host or "gateway.test"),
        ("x-forwarded-for", row.address or "192.0.2.7"),
        ("origin", row.origin),
        ("access-control-request-method", row.wants),
        ("access-control-request-headers", row.sends),
    ]
    headers = [(name.encode(), value.encode()) for name, value in lines if value is not None]
    if token is not None:
        headers.append((b"authorization", b"Bearer " + token))
    return headers


@contextlib.asynccontextmanager
async def _on_a_socket(gateway: Gateway, file: Path) -> AsyncIterator[Ask]:
    """As `gateway run` serves it, over one connection, as long as it lasts."""
    config = load(file, environ={}).config
    assert config is not None
    async with listening(run_lane(gateway, config)) as (address, _), contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(address))]

        async def ask(row: Row, headers: Headers) -> Answer:
            lines = [f"{row.method} {row.target} HTTP/1.1".encode()] + [b": ".join(line) for line in headers]
            answer = await clients[-1].ask(b"\r\n".join([*lines, b"", b""]), method=row.method)
            if answer.get("connection") == "close":
                clients.append(await stack.enter_async_context(connect(address)))
            return Answer(answer.status, {k.encode(): v.encode() for k, v in answer.headers}, answer.body)

        yield ask


def _asgi(gateway: Gateway) -> Ask:
    """As an ASGI server would hand it in, so that no client library straightens the path."""

    async def ask(row: Row, headers: Headers) -> Answer:
        path, _, query = row.target.partition("?")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": row.method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": headers,
            "client": ("127.0.0.1", 4321),
        }
        messages: list[MutableMapping[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            messages.append(message)

        await gateway.asgi(scope, receive, send)
        answered = {bytes(name).lower(): bytes(value) for name, value in messages[0]["headers"]}
        body = b"".join(message.get("body", b"") for message in messages)
        return Answer(messages[0]["status"], answered, body)

    return ask
