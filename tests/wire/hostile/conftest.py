"""A gateway whose backend answers everything, and would serve /admin to anyone who reached it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.lanes import Yard, open_yard

ROUTES = """
default: authenticated
routes:
  - {path: /**, allow: public}
  - {path: /admin/**, allow: admin}
"""


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """As `gateway run` does it."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
async def the_yard(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Yard]:
    async with open_yard(tmp_path_factory.mktemp("yard"), routes=ROUTES, body="10MiB") as yard:
        yield yard


@pytest.fixture
async def yard(the_yard: Yard) -> AsyncIterator[Yard]:
    """Whatever a test does, afterwards the gateway holds nothing."""
    await the_yard.fresh()
    yield the_yard
    await the_yard.quiet()
