"""Raw bytes against the complete gateway: what is refused, in which words, and what no backend ever sees."""

from __future__ import annotations

import contextlib
import json
import re

import pytest

from gateway.http.identity_headers import fold
from tests.support.backend import Peer, Truncated, response
from tests.support.lanes import ASGI, H11, RUN, Yard
from tests.support.raw import Answer, RawClient, request
from tests.wire.hostile.table import Case, broken_chunks, requests

pytestmark = pytest.mark.anyio

CASES = list(requests())
CHUNKS = list(broken_chunks())
PROBE = request("/probe")


async def tell(peer: Peer) -> None:
    """For ever: the request's body, and its target in a header."""
    while True:
        seen = await peer.request()
        raw = response(seen.body, (b"X-Path", seen.target), (b"X-Method", seen.method))
        await peer.send(raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if seen.method == b"HEAD" else raw)


def code(answer: Answer) -> str:
    """The error's code, told alike by header and body."""
    problem = json.loads(answer.body)
    assert answer["content-type"] == "application/problem+json"
    assert answer["x-gateway-error"] == problem["code"]
    assert answer["x-request-id"] == problem["requestId"]
    assert problem["status"] == answer.status
    assert "date" in dict(answer.headers)
    assert "server" not in dict(answer.headers)
    return str(problem["code"])


async def check_end(case: Case, client: RawClient, yard: Yard) -> None:
    """All answers, in order; then the next request, or the end."""
    for number, status in enumerate(case.statuses, 1):
        answer = await client.answer()
        assert answer.status == status, answer
        if number < len(case.statuses):
            continue
        if case.code is None:
            assert answer.get("x-gateway-error") is None
        else:
            assert code(answer) == case.code
    if case.then == "keep":
        assert (await client.ask(PROBE))["x-path"] == "/probe"
    else:
        assert answer["connection"] == "close"
        assert await client.closed() == b""


def check_upstream(yard: Yard) -> None:
    """Beyond what the yard checks: nobody got into /admin, and nobody said who they are."""
    for seen in yard.backend.requests:
        assert not re.match(rb"(?i)/admin\b", seen.target), seen.line
        names = {fold(name) for name, _ in seen.headers}
        assert not any(name.startswith(b"xuser") for name in names), names
        assert not names & {b"expect", b"te", b"trailer", b"keepalive", b"http2settings"}, names
        hops = [value.lower() for hop in (b"connection", b"upgrade") for value in seen.all(hop)]
        assert hops in ([], [b"upgrade", b"websocket"]), hops


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_every_case_of_the_table(case: Case, yard: Yard) -> None:
    yard.plays(tell)
    async with yard.connect(RUN) as client:
        await client.send(case.data)
        await check_end(case, client, yard)
    await yard.quiet()
    served = [status for status, last in zip(case.statuses, _lasts(case), strict=True) if not last]
    allowed = [line for line in yard.lines() if line["verdict"] == "allow" and line["path"] != "/probe"]
    assert len(allowed) == len(served)
    check_upstream(yard)


def _lasts(case: Case) -> list[bool]:
    """Which of the answers the gateway gave by itself."""
    own = [status != 200 for status in case.statuses]
    own[-1] = case.code is not None
    return own


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_dribbled_bytes_are_judged_like_whole_ones(case: Case, yard: Yard) -> None:
    """In pieces of a few bytes every case ends with the same statuses."""
    step = max(len(case.data) // 40, 1)
    yard.plays(tell)
    async with yard.connect(RUN) as client:
        with contextlib.suppress(ConnectionError):  # it was refused before its end
            await client.dribble(case.data, step=step)
        assert [(await client.answer()).status for _ in case.statuses] == list(case.statuses)
    await yard.quiet()
    check_upstream(yard)


@pytest.mark.parametrize("lane", [ASGI, H11])
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_under_another_server(case: Case, lane: str, yard: Yard) -> None:
    """It may be laxer. No hang, no 5xx but 501, and nothing at the backend that was not judged."""
    yard.plays(tell)
    yard.lax = lane == H11
    async with yard.connect(lane) as client:
        with contextlib.suppress(ConnectionError):
            await client.send(case.data)
        client.half_close()
        seen = await client.closed()
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", seen)]
    assert all(status < 500 or status == 501 for status in statuses), statuses
    await yard.quiet()
    check_upstream(yard)


@pytest.mark.parametrize(("name", "body"), CHUNKS, ids=[name for name, _ in CHUNKS])
@pytest.mark.parametrize("before", [b"", b"2\r\nok\r\n"], ids=["at once", "after a good chunk"])
async def test_a_broken_chunked_body_never_ends_as_if_it_were_whole(
    before: bytes, name: str, body: bytes, yard: Yard
) -> None:
    ends: list[str] = []

    async def script(peer: Peer) -> None:
        try:
            await peer.request()
            ends.append("whole")
        except Truncated:
            ends.append("truncated")

    yard.plays(script)
    async with yard.connect(RUN) as client:
        await client.send(request(method="POST", transfer_encoding="chunked") + before)
        answer = await client.ask(body)
        assert (answer.status, code(answer), answer["connection"]) == (400, "bad_framing", "close")
        assert await client.closed() == b""
    await yard.quiet()
    assert set(ends) <= {"truncated"}


@pytest.mark.parametrize("lane", [ASGI, H11])
@pytest.mark.parametrize(("name", "body"), CHUNKS, ids=[name for name, _ in CHUNKS])
async def test_a_broken_chunked_body_under_another_server(
    name: str, body: bytes, lane: str, yard: Yard
) -> None:
    """What it lets through is framed anew."""
    yard.plays(tell)
    async with yard.connect(lane) as client:
        with contextlib.suppress(ConnectionError):
            await client.send(request(method="POST", transfer_encoding="chunked") + b"2\r\nok\r\n" + body)
        client.half_close()
        seen = await client.closed()
    assert not re.search(rb"HTTP/1\.1 5\d\d ", seen)
    await yard.quiet()
    check_upstream(yard)
