"""Active health checks: a GET that each server is asked now and then, on a connection of its own.

A connection of its own, so that a check says whether a *new* client would be served,
takes none of the upstream's `connections`, and never meets a request's bytes.
Only the head of the answer counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import ssl
from collections.abc import Callable, Iterable
from typing import cast

from gateway.proxy.upstream.address import Address
from gateway.proxy.upstream.server import Server
from gateway.proxy.upstream.settings import HealthCheck

MAX_HEAD = 64 * 1024
"""Bytes of the answer's head, interim answers included."""
GOODBYE = 0.5
"""Seconds for the backend to finish the body and close. Closing on unread bytes would be a reset."""
SPREAD = 0.1
"""Part of the interval by which checks vary, so that many gateways don't ask in step."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)[ \r]")

Verdict = Callable[[Server, HealthCheck, str], None]
"""Told of each check why it failed, or an empty string."""


class HealthChecks:
    """Checks the servers of one upstream, each in a task of its own, until stopped."""

    def __init__(self, check: HealthCheck | None, context: ssl.SSLContext | None, verdict: Verdict) -> None:
        """Without a check nothing is done."""
        self._check, self._context, self._verdict = check, context, verdict
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, servers: Iterable[Server]) -> None:
        """The first round begins at once."""
        if self._check is not None:
            check = self._check
            self._tasks = [asyncio.create_task(self._watch(server, check)) for server in servers]

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    async def _watch(self, server: Server, check: HealthCheck) -> None:
        while True:
            self._verdict(server, check, await failing(server.address, check, self._context))
            spread = random.uniform(1.0 - SPREAD, 1.0 + SPREAD)  # noqa: S311 - nobody gains by guessing it
            await asyncio.sleep(check.interval * spread)


async def failing(address: Address, check: HealthCheck, context: ssl.SSLContext | None) -> str:
    """Check once. Returns why it failed, or nothing. Never raises for what a server does."""
    reader = asyncio.StreamReader(limit=MAX_HEAD)
    transport: asyncio.WriteTransport | None = None
    try:
        async with asyncio.timeout(check.timeout):
            opened = await address.open(lambda: asyncio.StreamReaderProtocol(reader), context)
            transport = cast(asyncio.WriteTransport, opened)
            transport.write(_request(check))
            status = await _status(reader)
        await _let_finish(reader)
    except TimeoutError:
        return f"no answer to {check.path} within {check.timeout:g} s"
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return f"no HTTP answer to {check.path}"
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    finally:
        if transport is not None:
            transport.abort()
    first, last = check.expect
    return "" if first <= status <= last else f"{check.path} answered {status}"


def _request(check: HealthCheck) -> bytes:
    head = (
        f"GET {check.path} HTTP/1.1\r\nHost: {check.host}\r\nUser-Agent: gateway-health-check\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii")


async def _status(reader: asyncio.StreamReader) -> int:
    """Of the final answer; interim ones are passed over."""
    status = 100
    while status < 200:
        head = await reader.readuntil(b"\r\n\r\n")
        match = _STATUS_LINE.match(head)
        if match is None:
            raise ValueError(f"not an HTTP/1.1 answer: {head[:40]!r}")
        status = int(match[1])
    return status


async def _let_finish(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(GOODBYE):
            while await reader.read(MAX_HEAD):
                pass
