"""A whole run of the server in this process: real signals, real sockets, a scenario in a thread beside it."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from gateway.server.run import Ready, serve
from gateway.server.sockets import Address
from tests.support.serving import read_body, until

LOCAL = Address("127.0.0.1", 0)


class Life:
    """What happened, in order; also an app whose requests end when they are let."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.let_go = threading.Event()
        self.begun = threading.Event()
        self.failure: BaseException | None = None

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        if scope["path"] == "/slow":
            self.begun.set()
            await until(self.let_go.is_set)
        self.events.append(f"answer {scope['path']}")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def hook(self, name: str) -> Callable[[], Any]:
        async def happens() -> None:
            self.events.append(name)

        return happens

    def serve(self, scenario: Callable[[Ready], None], **settings: Any) -> int:
        """Serves while `scenario` runs in a thread of its own; then SIGTERM, unless that was sent already."""
        threads: list[threading.Thread] = []

        def ready(where: Ready) -> None:
            self.events.append("ready")
            thread = threading.Thread(target=self.play, args=(scenario, where))
            threads.append(thread)
            thread.start()

        settings = {"listen": [LOCAL], "ops": self.app, "ops_listen": [LOCAL]} | settings
        settings.setdefault("start", self.hook("start"))
        settings.setdefault("on_draining", lambda: self.events.append("draining"))
        code = serve(self.app, stop=self.hook("stop"), on_ready=ready, **settings)
        for thread in threads:
            thread.join(10)
        if self.failure is not None:
            raise self.failure
        return code

    def play(self, scenario: Callable[[Ready], None], where: Ready) -> None:
        try:
            scenario(where)
        except BaseException as failure:
            self.failure = failure
        finally:
            self.let_go.set()
            if "draining" not in self.events:
                terminate()


def terminate(which: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), which)


def get(where: str, path: str = "/") -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection(where, timeout=30)) as connection:
        connection.request("GET", path)
        with connection.getresponse() as response:
            return response.status, response.read()


def soon(true: Callable[[], object], within: float = 10) -> None:
    """Waits until `true()`; fails after so many seconds."""
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)
