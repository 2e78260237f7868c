"""What processes of their own do in tests: refresh tokens, in races and until they are killed."""

from __future__ import annotations

import asyncio
import os
import time
from multiprocessing.connection import Connection

from gateway.accounts.database import Database
from gateway.errors import InvalidRefreshToken
from tests.accounts.world import HOME, World


def answer(url: str, pipe: Connection) -> None:
    """One successor per token that comes through the pipe, until it is closed."""
    asyncio.run(_answer(url, pipe))


def run_on(url: str, token: str, pipe: Connection) -> None:
    """Refresh again and again, saying each token before it is spent."""
    asyncio.run(_run_on(url, token, pipe))


async def _answer(url: str, pipe: Connection) -> None:
    world = World(Database(url, threads=1), time.time)
    await world.database.ping()
    pipe.send("ready")
    while (token := pipe.recv()) is not None:
        try:
            pipe.send((await world.accounts.sessions.refresh(token, HOME)).refresh_token)
        except InvalidRefreshToken:
            pipe.send(None)
    await world.close()


async def _run_on(url: str, token: str, pipe: Connection) -> None:
    world = World(Database(url, threads=1), time.time)
    await world.database.ping()
    while os.getppid() != 1:
        pipe.send(token)
        token = (await world.accounts.sessions.refresh(token, HOME)).refresh_token
