"""Plays a storm, and looks whether anybody got what was not theirs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re

from tests.support.backend import Peer, Request, Script
from tests.support.lanes import H11, Yard
from tests.support.raw import Answer, Closed, RawClient
from tests.wire.fuzz.storms import Ask, Mood, Storm, Visit, change, cut

_numbers = itertools.count()
SILENCE = 0.03
"""Seconds after which a hostile client takes it that the gateway waits for more."""
OWN = {"private": 401, "auth": 401}
FAILURES = {502, 503, 504}


async def play(storm: Storm, lane: str, yard: Yard) -> None:
    """Raises AssertionError if the gateway mixed, invented, leaked or hung."""
    moods: dict[bytes, Mood] = {}
    yard.plays(_script(moods))
    yard.lax = lane == H11
    visits = [_Visit(visit, lane, yard, moods) for visit in storm]
    calm = all(mood.good for mood in moods.values())
    for each in visits:
        each.calm = calm
    await asyncio.gather(*(visit.play() for visit in visits))
    for one, other in itertools.permutations(visits, 2):
        assert not other.ids & one.seen_ids(), "somebody else's answer"
    await yard.quiet()


class _Visit:
    def __init__(self, visit: Visit, lane: str, yard: Yard, moods: dict[bytes, Mood]) -> None:
        self.visit, self.lane, self.yard = visit, lane, yard
        self.asks = [(b"id%08d" % next(_numbers), ask) for ask in visit.asks]
        self.calm = True
        """No backend closes without saying so, which no request that can't be sent again survives."""
        self.ids = {name for name, _ in self.asks}
        self.seen = b""
        moods.update((name, ask.mood) for name, ask in self.asks)

    def seen_ids(self) -> set[bytes]:
        return set(re.findall(rb"id\d{8}", self.seen))

    async def play(self) -> None:
        async with self.yard.connect(self.lane) as client:
            with contextlib.suppress(ConnectionError):  # the gateway may close while we write
                if self.visit.rubbish is not None:
                    await self._hostile(client)
                elif self.visit.leaves < 1:
                    await self._leave(client)
                elif self.visit.pipelined:
                    await self._send(client, b"".join(_bytes(name, ask) for name, ask in self.asks))
                    await self._read(client, self.asks)
                else:
                    for each in self.asks:
                        await self._send(client, _bytes(*each))
                        if not await self._read(client, [each]):
                            return

    async def _send(self, client: RawClient, data: bytes) -> None:
        for piece in cut(data, self.visit.pieces):
            await client.send(piece)
            await asyncio.sleep(0)

    async def _leave(self, client: RawClient) -> None:
        data = b"".join(_bytes(name, ask) for name, ask in self.asks)
        await self._send(client, data[: int(len(data) * self.visit.leaves)])
        client.reset()

    async def _hostile(self, client: RawClient) -> None:
        """Whatever it sends: what it reads is answers to its own, none of them our fault, and an end."""
        assert self.visit.rubbish is not None
        data = b"".join(_bytes(name, ask) for name, ask in self.asks) + self.visit.rubbish
        try:
            await self._send(client, data)
            while True:
                self.seen += await asyncio.wait_for(client.some(), SILENCE)
        except (TimeoutError, Closed, ConnectionError):
            pass
        with contextlib.suppress(OSError, RuntimeError):  # uvloop says so of a closed transport
            client.half_close()
        self.seen += await client.closed()
        assert b"HTTP/1.1 500" not in self.seen, self.seen
        assert b"evil" not in self.seen or any(ask.mood.changes for _, ask in self.asks), self.seen

    async def _read(self, client: RawClient, asks: list[tuple[bytes, Ask]]) -> bool:
        """Each answer in its turn. False if the connection has ended as it may."""
        for name, ask in asks:
            answer = await self._answer(client, ask.method)
            if answer is None:
                assert not self._must_answer(ask), (name, ask)
                return False
            self.seen += answer.head + answer.body
            self._check(name, ask, answer)
            if answer.get("connection") == "close":
                self.seen += await client.closed()
                return False
        return True

    async def _answer(self, client: RawClient, method: str) -> Answer | None:
        """None if there is no whole one."""
        try:
            return await client.answer(method=method)
        except Closed as error:
            self.seen += error.seen
        except (ValueError, AssertionError, IndexError):
            pass  # a backend's bytes that were changed, and passed on as they were
        return None

    def _must_answer(self, ask: Ask) -> bool:
        return ask.place in OWN or _is_whole(ask)

    def _check(self, name: bytes, ask: Ask, answer: Answer) -> None:
        if ask.place in OWN:
            assert answer.status in (OWN[ask.place], 405), answer
        elif _is_whole(ask) and (self.calm or _replayable(ask) or answer.status != 502):
            assert (answer.status, answer["x-id"].encode()) == (200, name), (ask, answer)
            assert ask.method == "HEAD" or answer.body == name + ask.mood.body, (ask, answer)
        elif "x-gateway-error" in dict(answer.headers):
            assert answer.status in FAILURES, (ask, answer)
        else:
            assert answer.status != 500 or ask.mood.changes, (ask, answer)


def _is_whole(ask: Ask) -> bool:
    """The client gets all of the answer. Where 300 ms are the limit, a busy machine may be too slow."""
    return ask.mood.good and ask.place != "hasty"


def _replayable(ask: Ask) -> bool:
    return ask.body is None and ask.method != "POST"


def _bytes(name: bytes, ask: Ask) -> bytes:
    target = b"/auth/me" if ask.place == "auth" else b"/%b/%b" % (ask.place.encode(), name)
    head = b"%b %b HTTP/1.1\r\nHost: gateway.test\r\n" % (ask.method.encode(), target)
    if ask.body is None or ask.place in OWN:  # a refusal of a body closes, which is the tables' matter
        return head + b"\r\n"
    if not ask.chunks:
        return head + b"Content-Length: %d\r\n\r\n" % len(ask.body) + ask.body
    chunks = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in cut(ask.body, ask.chunks)]
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\n\r\n"


def _script(moods: dict[bytes, Mood]) -> Script:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.head()
            found = re.search(rb"id\d{8}", request.target)
            name = found[0] if found else b"other"
            mood = moods.get(name, Mood())
            if not mood.early:
                await _rest(peer, request)
            raw = _answer(name, mood, to_head=request.method == b"HEAD")
            for piece in cut(raw, mood.pieces if len(raw) > sum(mood.pieces) + len(mood.surplus) else ()):
                await peer.send(piece)
                await asyncio.sleep(0)
            if mood.silent and not mood.good and "hasty" in request.target.decode("latin-1"):
                await peer.hang()
            elif mood.rough and not mood.good and not peer.writer.transport.is_closing():
                await peer.reset()
            if not mood.good or mood.framing == "end":
                return

    return script


async def _rest(peer: Peer, request: Request) -> None:
    """The body of a request whose head was read."""
    if request.all(b"transfer-encoding"):
        await peer._chunked(request)
    elif request.all(b"content-length"):
        await peer._exactly(int(request.one(b"content-length")))


def _answer(name: bytes, mood: Mood, *, to_head: bool) -> bytes:
    body = name + mood.body
    lines = [b"HTTP/1.1 200 OK", b"X-Id: " + name]
    if mood.framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif mood.framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        body = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in cut(body, (3, 7))) + b"0\r\n\r\n"
    raw = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * mood.interims
    raw += b"\r\n".join([*lines, b"", b""]) + (b"" if to_head else body)
    if mood.framing != "end" or to_head:
        raw += mood.surplus
    changed = change(raw, mood.changes)
    return changed[: int(len(changed) * mood.cut)]
