"""A place to work in, and the command: in this process, or as a real one where that is the point."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.cli.main import run

MINIMAL = """\
tokens:
  access: {secret: "${JWT_ACCESS_SECRET}"}
  refresh: {secret: "${JWT_REFRESH_SECRET}"}
upstream: http://127.0.0.1:9000
"""
"""Leaves everything to the defaults."""
SECRETS = {
    "JWT_ACCESS_SECRET": "fK3x-9sQpZ7wLr2mVb8nTc5yHd1gJe4uAo6iXq0W",
    "JWT_REFRESH_SECRET": "Wq0Xi6oAu4eJg1dHy5cTn8bVm2rLw7ZpQs9-x3Kf",
}


@dataclass(frozen=True)
class Result:
    """What a command line came to."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no setting of this machine in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("GATEWAY_", "JWT_"))]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def site(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a right gateway.yaml and its secrets in the environment."""
    (folder / "gateway.yaml").write_text(MINIMAL)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def gateway(folder: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line in this process."""

    def command(*words: str) -> Result:
        capsys.readouterr()
        code = run(list(words))
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return command


def environment() -> dict[str, str]:
    """The environment for a process of its own; compiled files are kept, or each would compile everything."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@pytest.fixture
def process(folder: Path) -> Command:
    """Run a command line as users do, in a process of its own."""

    def command(*words: str, stdin: str = "") -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *words],
            input=stdin, env=environment(), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)

    return command
