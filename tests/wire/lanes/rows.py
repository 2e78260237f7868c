"""What a row of the table says, and how it is played: one story of a client, the gateway and a backend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from tests.support.backend import Peer, Request, Script, response
from tests.support.lanes import H11, LANES, RUN, Yard
from tests.support.raw import Answer, RawClient

WHOLE = frozenset([RUN])
"""The lanes of a row that ASGI has no words for."""
BOTH = frozenset([*LANES, H11])


@dataclass(frozen=True, slots=True)
class Reply:
    """What the backend says to one request."""

    pieces: tuple[bytes, ...]
    """Each a write of its own."""
    end: Literal["keep", "close", "reset", "hang"] = "keep"
    """What it does then: reads the next request, closes, resets, or says nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gets:
    """One request as the backend must have received it."""

    line: bytes
    """The request line."""
    has: tuple[bytes, ...] = ()
    """Header lines that are there once, whatever the case of their names."""
    exact: tuple[bytes, ...] = ()
    """Header lines that are there to the letter."""
    lacks: tuple[bytes, ...] = ()
    """Header names that are not there."""
    body: bytes = b""
    """Without its framing."""

    def check(self, request: Request) -> None:
        lines = request.raw_head.split(b"\r\n")[1:-2]
        assert request.line == self.line
        _check_lines(lines, self.has, self.exact, self.lacks)
        assert request.body == self.body
        assert request.raw_trailers == b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """One answer as the client must read it."""

    status: int
    """Of the final answer."""
    has: tuple[bytes, ...] = ()
    """Header lines that are there once, whatever the case of their names."""
    exact: tuple[bytes, ...] = ()
    """Header lines that are there to the letter."""
    lacks: tuple[bytes, ...] = ()
    """Header names that are not there."""
    body: bytes | None = None
    """Without its framing; None: whatever it is."""
    code: str | None = None
    """The X-Gateway-Error; None: there is none, the backend speaks."""
    reason: bytes | None = None
    """The reason phrase."""
    interim: tuple[int, ...] = ()
    """The 1xx answers before it, in order."""
    trailers: bytes = b""
    """Lines behind the last chunk."""
    method: str = "GET"
    """HEAD says that there is no body to read."""

    def check(self, answer: Answer, interim: list[int]) -> None:
        assert (answer.status, answer.get("x-gateway-error")) == (self.status, self.code), answer
        _check_lines(answer.lines, self.has, self.exact, self.lacks)
        assert self.body is None or answer.body == self.body, answer
        assert self.reason is None or answer.reason == self.reason
        assert (interim, answer.trailers) == (list(self.interim), self.trailers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A client sends this; the backend gets that and answers; the client reads; and then?"""

    name: str
    """What it shows."""
    send: tuple[bytes, ...]
    """The client's bytes, each piece a write of its own."""
    gets: tuple[Gets, ...] = ()
    """Everything that reaches the backend, in any order of arrival only if it came on several connections."""
    replies: tuple[Reply, ...] = ()
    """To each request in turn; 200 "ok" where there are no more."""
    reads: tuple[Reads, ...] = ()
    """Everything the client is answered, in order."""
    then: Literal["keep", "close", "cut"] = "keep"
    """The connection serves another request; or is closed; or was closed within the last answer."""
    lanes: frozenset[str] = field(default=BOTH)
    """Where it holds."""

    def __str__(self) -> str:
        return self.name


PROBE = b"GET /probe HTTP/1.1\r\nHost: gateway.test\r\n\r\n"


async def play(row: Row, lane: str, yard: Yard) -> None:
    yard.plays(_script(row))
    async with yard.connect(lane) as client:
        for piece in row.send:
            await client.send(piece)
        for number, expected in enumerate(row.reads, 1):
            if row.then == "cut" and number == len(row.reads):
                await _check_cut(client, expected)
            else:
                answer, interim = await final(client, expected.method)
                expected.check(answer, interim)
                last = number == len(row.reads)
                assert (answer.get("connection") == "close") == (last and row.then == "close"), answer
        if row.then == "keep":
            await client.send(PROBE)
            probe, _ = await final(client)
            assert probe.body == b"probed"
        elif row.then == "close":
            assert await client.closed() == b""
    await yard.quiet()
    seen = [request for request in yard.backend.requests if request.target != b"/probe"]
    assert [request.line for request in seen] == [gets.line for gets in row.gets]
    for gets, request in zip(row.gets, seen, strict=True):
        gets.check(request)


async def final(client: RawClient, method: str = "GET") -> tuple[Answer, list[int]]:
    """The next final answer, and the interim ones before it."""
    interim = []
    while (answer := await client.answer(method=method, informational=True)).status < 200:
        interim.append(answer.status)
    return answer, interim


async def _check_cut(client: RawClient, expected: Reads) -> None:
    """What follows the head ends before its framing says so.

    Where the backend broke off at once the gateway may not have sent anything yet: then there is nothing.
    """
    head, _, rest = (await client.closed()).partition(b"\r\n\r\n")
    if not head:
        return
    assert int(head.split(b" ")[1]) == expected.status
    assert b"evil" not in rest
    lines = [line.lower() for line in head.split(b"\r\n")]
    lengths = [int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")]
    if lengths:
        assert len(rest) < lengths[0]
    else:
        assert b"transfer-encoding: chunked" in lines, "a client can't see that it was cut"
        assert not rest.endswith(b"0\r\n\r\n")


def _script(row: Row) -> Script:
    replies = iter(row.replies)

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.target == b"/probe":
                await peer.send(response(b"probed"))
                continue
            reply = next(replies, Reply((response(b"ok"),)))
            await peer.send(*reply.pieces)
            if reply.end == "reset":
                await peer.reset()
            elif reply.end == "hang":
                await peer.hang()
            if reply.end != "keep":
                return

    return script


def _check_lines(
    lines: list[bytes], has: Iterable[bytes], exact: Iterable[bytes], lacks: Iterable[bytes]
) -> None:
    folded = [_lower_name(line) for line in lines]
    for line in has:
        assert folded.count(_lower_name(line)) == 1, (line, lines)
    for line in exact:
        assert lines.count(line) == 1, (line, lines)
    names = {line.partition(b":")[0] for line in folded}
    assert not names & {name.lower() for name in lacks}, lines


def _lower_name(line: bytes) -> bytes:
    name, _, value = line.partition(b":")
    return name.lower() + b":" + value
