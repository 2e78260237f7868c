"""Starts programs, pins them to their core, tries whether they do the job, and stops them."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import backend, machine
from benchmarks.peers.gateway import TOKEN_SECONDS
from benchmarks.peers.peer import ADMIN_PREFIX, Peer, Place
from gateway.identity.keyset import KeySet
from gateway.identity.tokens import AccessTokens

USER_EMAIL = "ann@example.com"
_PATIENCE = 30.0
"""Seconds until a program must listen."""
_STOPPING = 5.0
"""Seconds it may take to stop before it is killed."""
_LOG_BYTES = 200 * 1024 * 1024
"""A program's output is cut to nothing when it is longer than this, so that no disk fills up."""


class Unfit(Exception):
    """A program did not start, or doesn't do its job. The text says how."""


@dataclass(frozen=True, slots=True)
class Running:
    """A started program."""

    peer: Peer
    place: Place
    processes: list[subprocess.Popen[bytes]]
    """The helpers first, the program last."""

    @property
    def port(self) -> int:
        return self.place.port

    @property
    def pids(self) -> list[int]:
        """All of it, what it asks on the way included."""
        return [pid for process in self.processes for pid in machine.family(process.pid)]

    def tidy(self) -> None:
        """Keep its log short."""
        log = self.place.folder / "output"
        if log.stat().st_size > _LOG_BYTES:
            os.truncate(log, 0)


class Stage:
    """One run: its secrets, its backends, and everything that was started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.program_core, self.load_core = machine.cores()
        self.open_files = machine.open_files()
        names = ("JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET")
        self._environ = os.environ | {name: secrets.token_urlsafe(48) for name in names}
        # Programs written in Python shall find their byte code the second time, as installed ones do.
        self._environ.pop("PYTHONDONTWRITEBYTECODE", None)
        self._ports: dict[str, int] = {}
        self._backends: dict[str, subprocess.Popen[bytes]] = {}
        self._running = contextlib.ExitStack()

    def __enter__(self) -> Stage:
        """From here on this process is one of those who make the load."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self.load_core})
        self._running.callback(os.sched_setaffinity, 0, before)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    # -- tokens ----------------------------------------------------------------------------------------------

    def token(self, *, user: str = "ann", is_admin: bool = False, seconds_ago: float = 0) -> str:
        """A valid access token, issued so long ago."""
        tokens = AccessTokens(
            keys=KeySet([self._environ["JWT_ACCESS_SECRET"].encode()]),
            issuer="gateway",
            ttl=TOKEN_SECONDS,
            leeway=10,
            clock=lambda: time.time() - seconds_ago,
        )
        return tokens.issue(
            user_id=user,
            email=USER_EMAIL,
            is_admin=is_admin,
            roles=(),
            session=f"of-{user}",
            session_ends=int(time.time()) + TOKEN_SECONDS,
            version=1,
        )

    # -- programs --------------------------------------------------------------------------------------------

    @property
    def answers(self) -> int:
        """The port of the backend with the small answer."""
        return self._backend("answers", backend.answers)

    @property
    def bodies(self) -> int:
        """The port of the backend that takes and gives bodies."""
        return self._backend("bodies", lambda port, _: backend.bodies(port))

    @property
    def echo(self) -> int:
        """The port of the WebSocket server that says what it hears."""
        return self._backend("echo", lambda port, _: [sys.executable, "-m", "benchmarks.echo", str(port)])

    def _backend(self, kind: str, command: Callable[[int, Path], list[str]]) -> int:
        if kind not in self._ports or self._backends[kind].poll() is not None:
            port, folder = machine.free_port(), self.new_folder(kind)
            process = self.popen(command(port, folder), folder, self._environ, [self.load_core])
            self._running.callback(_stop, process)
            wait_for(port, process, folder)
            self._ports[kind], self._backends[kind] = port, process
        return self._ports[kind]

    @contextlib.contextmanager
    def started(
        self, peer: Peer, *, backend: int | None = None, cores: Sequence[int] | None = None
    ) -> Iterator[Running]:
        """The program, listening, tried, and pinned to `cores`. Raises Unfit."""
        place = self.place(peer, backend=backend)
        with contextlib.ExitStack() as stopping:
            running = Running(peer, place, [])
            *helpers, program = peer.start(place)
            for command, port in [*((helper, place.helper) for helper in helpers), (program, place.port)]:
                process = self.popen(command, place.folder, place.environ, cores or [self.program_core])
                running.processes.append(process)
                stopping.callback(_stop, process)
                wait_for(port, process, place.folder)
            if peer.judges and place.backend != self._ports.get("echo"):
                self._try(running)
            yield running

    def place(self, peer: Peer, *, backend: int | None = None) -> Place:
        """Ports and a folder of its own."""
        ports = machine.free_port(), backend or self.answers, machine.free_port()
        return Place(*ports, self.new_folder(peer.name), dict(self._environ))

    def new_folder(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))

    def popen(
        self, command: list[str], folder: Path, environ: dict[str, str], cores: Sequence[int]
    ) -> subprocess.Popen[bytes]:
        """`taskset` becomes the program, so the process is the program's. It writes into a file."""
        pinned = ["taskset", "-c", ",".join(map(str, cores)), *command]
        with (folder / "output").open("ab") as output:
            return subprocess.Popen(
                pinned, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    def _try(self, running: Running) -> None:
        """Whether it verifies, expires, rules, tells and removes, as all of them have to."""
        user, admin = self.token(), self.token(user="root", is_admin=True)
        expired = self.token(seconds_ago=TOKEN_SECONDS + 60)
        told = f"|ann|{USER_EMAIL}|false"
        expected = [
            ("a forged token", user[:-4] + "AAAA", "/seen", {401}, None),
            ("an expired token", expired, "/seen", {401}, None),
            ("no token", "", "/seen", {401, 403}, None),
            ("a user asking for an admin's page", user, f"{ADMIN_PREFIX}seen", {403}, None),
            ("an admin asking for it", admin, f"{ADMIN_PREFIX}seen", {200}, None),
            ("a user", user, "/seen", {200}, told),
        ]
        for who, token, path, statuses, body in expected:
            status, text = ask(running.port, path, token)
            if status not in statuses or body not in (None, text):
                raise Unfit(f"it answers {who} with {status} {text!r}")


def ask(port: int, path: str, token: str) -> tuple[int, str]:
    """One request on a connection of its own, claiming to be somebody else besides: status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"X-User-Id": "mallory"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def wait_for(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Return when something listens on `port`. Raises Unfit with the last lines it wrote."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    lines = (folder / "output").read_text(errors="replace").splitlines()[-5:]
    raise Unfit("it did not listen: " + " / ".join(lines))


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOPPING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """A stage in a temporary folder."""
    if shutil.which("taskset") is None:
        raise SystemExit("The benchmark pins programs to cores with taskset (Linux, util-linux)")
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder, Stage(Path(folder)) as ready:
        yield ready
