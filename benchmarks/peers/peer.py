"""What every program in the tables is: a name, a way to start it, and how to get it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ADMIN_PREFIX = "/admin/"
"""What only admins may ask for."""
USER_HEADERS = {"X-User-Id": "sub", "X-User-Email": "email", "X-User-Admin": "isAdmin"}
"""What the backend is told, and the claim it comes from."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a program is told when it starts."""

    port: int
    """Where it listens, on 127.0.0.1."""
    backend: int
    """The backend's port."""
    helper: int
    """A port for what it needs beside it, say a verifier."""
    folder: Path
    """An empty folder of its own."""
    environ: dict[str, str]
    """With both JWT secrets."""

    @property
    def secret(self) -> str:
        """What access tokens are signed with."""
        return self.environ["JWT_ACCESS_SECRET"]

    def write(self, name: str, text: str) -> str:
        """A configuration file; returns its path."""
        file = self.folder / name
        file.write_text(text)
        return str(file)


@dataclass(frozen=True, slots=True)
class Peer:
    """One program."""

    name: str
    what: str
    """Half a line: what it is and how it does the job."""
    start: Callable[[Place], list[list[str]]]
    """Writes its configuration and returns command lines; the last one listens on `place.port`."""
    program: str = ""
    """The executable it needs, empty for what this environment always has."""
    install: str = ""
    """How to get it."""
    judges: bool = True
    """Whether it verifies tokens; if so, it is tried before it is measured."""

    def missing(self) -> str | None:
        """Why it can't run here, or None."""
        if self.program and find(self.program) is None:
            return f"not installed; {self.install}"
        return None


def find(program: str) -> str | None:
    """Beside this Python, on the PATH, or where Debian puts daemons."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(program, path=os.pathsep.join([beside, os.environ.get("PATH", ""), "/usr/sbin"]))


def found(program: str) -> str:
    return find(program) or program


def uvicorn(app: str, port: int) -> list[str]:
    """A command line that serves the application that `app` (`module:function`) makes."""
    options = ["--http", "httptools", "--loop", "uvloop", "--no-access-log", "--log-level", "warning"]
    return [sys.executable, "-m", "uvicorn", "--factory", app, "--port", str(port), *options]
