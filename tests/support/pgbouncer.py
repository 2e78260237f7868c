"""A real PgBouncer between a test and its PostgreSQL, as Debian packages it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from sqlalchemy import URL, make_url

_PATIENCE = 20.0
_PORT = 6432
_CONFIGURATION = """
[databases]
{name} = {server}
[pgbouncer]
unix_socket_dir = {folder}
listen_port = {port}
auth_type = any
pool_mode = {mode}
ignore_startup_parameters = {ignored}
"""


def find_pgbouncer() -> str | None:
    """Debian puts it where only root looks."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class PgBouncer:
    """In front of one database; may be started again in another mode. It listens in a folder of its own."""

    def __init__(self, url: str) -> None:
        self._server = make_url(url)
        # Short: the path of a socket has at most a hundred characters.
        self._folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PgBouncer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    @property
    def url(self) -> str:
        """The same database behind it."""
        return f"postgresql://anyone@/{self._server.database}?host={self._folder}&port={_PORT}"

    def start(self, mode: str, *, ignored: str = "") -> None:
        """In this `pool_mode`, told to ignore these startup parameters."""
        configuration = self._folder / "pgbouncer.ini"
        values = {"name": self._server.database, "server": _target(self._server), "port": _PORT}
        configuration.write_text(
            _CONFIGURATION.format(**values, folder=self._folder, mode=mode, ignored=ignored)
        )
        command = [*_command(self._server, self._folder), str(configuration)]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._wait(self._process)

    def stop(self) -> None:
        """At once; everybody's connection ends."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._socket.unlink(missing_ok=True)

    @property
    def _socket(self) -> Path:
        return self._folder / f".s.PGSQL.{_PORT}"

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.connect(str(self._socket))
                return
            time.sleep(0.01)
        raise RuntimeError("pgbouncer did not start: " + (self._folder / "log").read_text())


def _target(server: URL) -> str:
    """The server, in PgBouncer's words."""
    host = server.query.get("host") or server.host
    told = {"host": host, "port": server.port, "user": server.username, "password": server.password}
    return " ".join(f"{name}={value}" for name, value in told.items() if value)


def _command(server: URL, folder: Path) -> list[str]:
    """It refuses to be root, and must be let into the folder of the server's socket."""
    program = find_pgbouncer()
    assert program is not None, "whoever asks has looked for it"
    if os.getuid() != 0:
        return [program]
    host = str(server.query.get("host") or "")
    user = pwd.getpwuid(os.stat(host).st_uid) if host.startswith("/") else pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return [program, "-u", user.pw_name]
