"""One gateway for all rows of a file, with all its lanes; each row begins as if nothing had happened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.lanes import Yard, open_yard
from tests.support.redis import RedisServer


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """As `gateway run` does it."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
async def the_yard(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Yard]:
    async with open_yard(tmp_path_factory.mktemp("yard")) as yard:
        yield yard


@pytest.fixture
async def yard(the_yard: Yard) -> AsyncIterator[Yard]:
    """Whatever a test does, afterwards the gateway holds nothing."""
    await the_yard.fresh()
    yield the_yard
    await the_yard.quiet()


@pytest.fixture(scope="module")
async def the_big_yard(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Yard]:
    async with open_yard(tmp_path_factory.mktemp("yard"), body="1GiB") as yard:
        yield yard


@pytest.fixture
async def big_yard(the_big_yard: Yard) -> AsyncIterator[Yard]:
    """The same, for bodies of up to a gigabyte."""
    await the_big_yard.fresh()
    yield the_big_yard
    await the_big_yard.quiet()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with TemporaryDirectory(prefix="redis-") as directory, RedisServer(Path(directory)) as server:
        yield server
