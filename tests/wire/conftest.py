"""The example backend as a process of its own, and a folder with a configuration for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import Site, free_port


@pytest.fixture(scope="module")
def backend() -> Iterator[int]:
    """examples/upstream as its own process."""
    port = free_port()
    example = Path(__file__).parents[2] / "examples/upstream/app.py"
    command = [sys.executable, str(example), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it says where it listens
        yield port
        process.terminate()


@pytest.fixture
def site(tmp_path: Path, backend: int) -> Site:
    return Site(tmp_path, backend=backend)
