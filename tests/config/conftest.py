"""A configuration in a folder of its own, loaded as `gateway check` would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config.load import Loaded, load

ACCESS = "3f0c1a9d7be24856c0d91e7f52ab6348"
REFRESH = "b81d6e02f94a7c35d0e8216b7fa953c4"
SECRETS = {"JWT_ACCESS_SECRET": ACCESS, "JWT_REFRESH_SECRET": REFRESH}
TOKENS = """
tokens:
  access: {secret: "${JWT_ACCESS_SECRET}"}
  refresh: {secret: "${JWT_REFRESH_SECRET}"}
"""
BASE = f"upstream: http://127.0.0.1:9000{TOKENS}"

Write = Callable[..., Loaded]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def loaded(folder: Path) -> Write:
    """Writes `gateway.yaml` (bytes, text, or text below a valid base) and loads it."""

    def write(text: str | bytes, *, base: str = "", unset: bool = False, **environ: str) -> Loaded:
        raw = text if isinstance(text, bytes) else (base + text).encode()
        (folder / "gateway.yaml").write_bytes(raw)
        return load(Path("gateway.yaml"), environ=SECRETS | environ, allow_unset=unset)

    return write
