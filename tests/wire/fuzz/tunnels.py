"""Handshakes and what follows, made up by hypothesis: both ends may say anything, and leave at any moment.

What one end says reaches the other unchanged and in order, from the backend's 101 on and never before.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from typing import Literal

from hypothesis import strategies as st

from tests.support.backend import Peer
from tests.support.lanes import Yard
from tests.support.raw import Closed, RawClient, request
from tests.wire.fuzz.storms import CHANGES, SIZES, change, cut

_HANDSHAKE = request(
    "/public/x",
    connection="Upgrade",
    upgrade="websocket",
    sec_websocket_version="13",
    sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==",
)
_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
_SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
_DENIED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
End = Literal["client", "client resets", "backend", "backend resets"]


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One of them, from its handshake to its end."""

    early: bytes
    """What the client sends right behind its handshake."""
    said: tuple[bytes, ...]
    """What it sends when it has read the 101."""
    answer: bytes
    """The backend's, to the handshake."""
    changes: tuple[tuple[float, bytes], ...]
    """Bytes that are put over others in it, by their place."""
    told: tuple[bytes, ...]
    """What the backend sends behind its answer."""
    end: End
    """Who leaves when they have said all, and how."""
    pieces: tuple[int, ...]
    """Sizes of the first writes of both."""


_SOME = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.sampled_from([_HANDSHAKE, _SWITCHED, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", bytes(200_000)]),
)
tunnels = st.builds(
    Tunnel,
    early=st.one_of(st.just(b""), _SOME),
    said=st.lists(_SOME, max_size=4).map(tuple),
    answer=st.sampled_from([_SWITCHED] * 4 + [_HINTS + _SWITCHED, _DENIED, b""]),
    changes=st.one_of(st.just(()), CHANGES),
    told=st.lists(_SOME, max_size=4).map(tuple),
    end=st.sampled_from(["client", "client resets", "backend", "backend resets"]),
    pieces=SIZES,
)


async def play(tunnel: Tunnel, lane: str, yard: Yard) -> None:
    """Raises AssertionError if bytes were lost, invented, or let through too early; or if something hangs."""
    comes = change(tunnel.answer, tunnel.changes) + b"".join(tunnel.told)
    good = not tunnel.changes and tunnel.answer.endswith(_SWITCHED)
    heard = bytearray()

    async def script(peer: Peer) -> None:
        await peer.head()
        listening = asyncio.create_task(_listen(peer, heard))
        with contextlib.suppress(ConnectionError):  # the gateway may have heard enough
            for piece in cut(comes, tunnel.pieces):
                await peer.send(piece)
                await asyncio.sleep(0)
            if tunnel.end == "backend resets":
                await peer.reset()
            elif tunnel.end == "backend" or not good:
                await peer.half_close()
        await listening

    yard.plays(script)
    async with yard.connect(lane) as client:
        seen = await _visit(client, tunnel)
    async with asyncio.timeout(10):
        await asyncio.gather(*(peer.ended.wait() for peer in yard.backend.peers))
    await yard.quiet()
    _check(tunnel, good, _final(seen), _final(comes)[1], bytes(heard))


def _check(tunnel: Tunnel, good: bool, seen: tuple[bytes, bytes], told: bytes, heard: bytes) -> None:
    said = tunnel.early + b"".join(tunnel.said)
    head, read = seen
    if not head.startswith(b"HTTP/1.1 101 "):
        assert not heard, (heard[:80], tunnel)
        assert not good or tunnel.end == "backend resets", (head, tunnel)
        return
    assert told.startswith(read), (read[:80], tunnel)
    assert said.startswith(heard), (heard[:80], tunnel)
    if good and tunnel.end == "backend":
        assert read == told, (len(read), tunnel)
    elif good and tunnel.end == "client":
        assert heard == said, (len(heard), tunnel)


def _final(raw: bytes) -> tuple[bytes, bytes]:
    """The head behind the interim ones, and what follows it."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    while _INTERIM.match(head):
        head, _, rest = rest.partition(b"\r\n\r\n")
    return head, rest


async def _listen(peer: Peer, heard: bytearray) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await peer.read():
            heard += data


async def _visit(client: RawClient, tunnel: Tunnel) -> bytes:
    """All that the client read."""
    seen = b""
    try:
        for piece in cut(_HANDSHAKE + tunnel.early, tunnel.pieces):
            await client.send(piece)
            await asyncio.sleep(0)
        while not seen or _INTERIM.match(_last_head(seen)):
            seen += await client.until(b"\r\n\r\n")
    except Closed as error:
        return seen + error.seen
    except ConnectionError:
        return seen + await client.closed()
    if not _last_head(seen).startswith(b"HTTP/1.1 101 "):
        return seen + await client.closed()
    reading = asyncio.create_task(client.closed())
    with contextlib.suppress(ConnectionError, RuntimeError):  # uvloop's, of a closed transport
        for piece in tunnel.said:
            await client.send(piece)
        if tunnel.end == "client":
            client.half_close()
        elif tunnel.end == "client resets":
            client.reset()
    return seen + await reading


def _last_head(seen: bytes) -> bytes:
    return seen.removesuffix(b"\r\n\r\n").rpartition(b"\r\n\r\n")[2]


_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)\d\d")
