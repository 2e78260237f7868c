"""The gateway's other lane: its ASGI application under a plain uvicorn."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.gateway import configure
from benchmarks.peers.peer import Peer, Place, uvicorn
from gateway import app as root
from gateway.config.load import load
from gateway.policy.compile import compile_policy
from gateway.telemetry import logs


def app() -> Any:
    loaded = load(Path(os.environ["GATEWAY_CONFIG"]), environ=os.environ)
    assert loaded.config is not None, [str(problem) for problem in loaded.problems]
    policy, _ = compile_policy(loaded.config, loaded.places)
    assert policy is not None
    gateway = root.build(loaded.config, policy, outlet=logs.configure(sys.stdout))

    async def lifespan(receive: Any, send: Any) -> None:
        await receive()
        await gateway.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await gateway.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        else:
            await gateway.asgi(scope, receive, send)

    return asgi


def _start(place: Place) -> list[list[str]]:
    place.environ["GATEWAY_CONFIG"] = configure(place)
    return [uvicorn("benchmarks.peers.gateway_asgi:app", place.port)]


PEER = Peer(
    name="gateway-asgi",
    what="this gateway's ASGI application under plain uvicorn, log and metrics on",
    start=_start,
)
