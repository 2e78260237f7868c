"""Fixtures that every room shares."""

from __future__ import annotations

import pytest
from hypothesis import settings

# A machine that is busy with other tests is slow now and then; that is no failure.
settings.register_profile("gateway", deadline=None)
settings.load_profile("gateway")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
