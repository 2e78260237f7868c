"""The table of decisions, asked at the front door of the whole gateway: bytes in, status and reason out."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.app import Gateway
from gateway.telemetry.outlet import Outlet, target_of
from tests.policy.rules import TOKENS
from tests.support.decisions import Row, World, worlds
from tests.support.house import Clock, open_backend, open_gateway
from tests.support.tokens import Mint

WORLDS = worlds()


@pytest.mark.anyio
@pytest.mark.parametrize("world", WORLDS, ids=[world.name for world in WORLDS])
async def test_the_live_gateway_decides_as_the_table_says(world: World, tmp_path: Path) -> None:
    clock, log = Clock(), io.StringIO()
    outlet = Outlet(target_of(log), report=lambda lost: b"")
    async with contextlib.AsyncExitStack() as stack:
        ports = {name: await stack.enter_async_context(open_backend()) for name in _upstreams(world)}
        settings = world.settings(TOKENS, lambda name: f"http://127.0.0.1:{ports[name]}")
        settings |= {"accounts": {"database": f"sqlite:///{tmp_path}/gateway.db"}}
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        gateway = await stack.enter_async_context(open_gateway(tmp_path, text, clock=clock, outlet=outlet))
        mint = Mint(TOKENS["access"]["secret"].encode(), int(clock()))
        for row in world.rows:
            status, body = await _ask(gateway, row, mint)
            outlet.flush()
            line = json.loads(log.getvalue().splitlines()[-1])
            _check(row, status, body, line, ports)


def _check(row: Row, status: int, body: bytes, line: dict[str, Any], ports: dict[str, int]) -> None:
    if row.target.startswith("/auth/"):
        assert line["route"].startswith("auth:"), str(row)  # the gateway's own: the policy is not asked
        return
    assert (status if status != 200 else "allow") == row.expect, str(row)
    assert line["status"] == status, str(row)
    assert line["verdict"] == ("allow" if status == 200 else "deny"), str(row)
    if row.reason is not None:
        assert line["reason"] == row.reason, str(row)
    if row.upstream is not None and status == 200:
        assert line["upstream"] == f"127.0.0.1:{ports[row.upstream]}", str(row)
    if status == 200 and row.method != "HEAD":
        path = json.loads(body)["target"].partition("?")[0]
        assert path == (row.forward or path), str(row)


async def _ask(gateway: Gateway, row: Row, mint: Mint) -> tuple[int, bytes]:
    """As an ASGI server would hand it in, so that no client library straightens the path."""
    path, _, query = row.target.partition("?")
    headers = [(b"host", (row.host or "gateway.test").encode())]
    if (claims := _claims(row.caller)) is not None:
        headers.append((b"authorization", b"Bearer " + mint.access(**claims)))
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": row.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("latin-1", "backslashreplace") if path.isascii() else path.encode(),
        "query_string": query.encode(),
        "headers": headers,
        "client": (row.address or "192.0.2.7", 4321),
    }
    messages: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        messages.append(message)

    await gateway.asgi(scope, receive, send)
    return messages[0]["status"], b"".join(message.get("body", b"") for message in messages)


def _claims(caller: str | dict[str, Any]) -> dict[str, Any] | None:
    if caller == "anonymous":
        return None
    if isinstance(caller, str):
        return {"isAdmin": caller == "admin", "roles": [], "email": f"{caller}@example.com"}
    return {
        "isAdmin": caller.get("admin", False),
        "roles": sorted(caller.get("roles", [])),
        "email": caller.get("email", "user@example.com").casefold(),
    }


def _upstreams(world: World) -> list[str]:
    return list(world.gateway.get("upstreams", ["default"]))
