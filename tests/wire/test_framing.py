"""Raw bytes against the real server: what is refused, with which words, and what the app never sees."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.raw import Answer, Closed, RawClient, connect, request
from tests.support.serving import Echo, Served, serving
from tests.wire.hostile.table import Case, broken_chunks, requests

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """As `gateway run` does it."""
    return "asyncio", {"use_uvloop": True}


CASES = list(requests())
CHUNKS = list(broken_chunks())
PROBE = request("/probe")


@pytest.fixture
def app() -> Echo:
    return Echo()


@pytest.fixture
async def served(app: Echo) -> AsyncIterator[Served]:
    async with serving(app) as served:
        yield served


def code(answer: Answer) -> str:
    """The error's code, told alike by header and body."""
    problem = json.loads(answer.body)
    assert answer["content-type"] == "application/problem+json"
    assert answer["x-gateway-error"] == problem["code"]
    assert answer["x-request-id"] == problem["requestId"]
    assert problem["status"] == answer.status
    assert answer["connection"] == "close"
    assert "date" in dict(answer.headers)
    assert "server" not in dict(answer.headers)
    return str(problem["code"])


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_every_case_of_the_table(case: Case, app: Echo, served: Served) -> None:
    async with connect(served.address) as client:
        answer = await client.ask(case.data)
        assert answer.status == case.status
        if case.then == "keep":
            assert (await client.ask(PROBE))["x-path"] == "/probe"
            assert len(app.seen) == 2
        elif case.then == "close":
            assert await client.closed() == b""
            assert len(app.seen) == 1
        else:
            assert code(answer) == case.then
            assert await client.closed() == b""
            assert app.seen == []
            assert [type(one.error).code for one in served.refusals] == [case.then]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_dribbled_bytes_are_judged_like_whole_ones(case: Case, app: Echo, served: Served) -> None:
    """In pieces of a few bytes every case ends with the same status."""
    step = max(len(case.data) // 40, 1)
    async with connect(served.address) as client:
        with contextlib.suppress(ConnectionError):  # it was refused before its end
            await client.dribble(case.data, step=step)
        answer = await client.answer()
        assert answer.status == case.status
        assert len(app.seen) == (case.status == 200)


@pytest.mark.parametrize(("name", "body"), CHUNKS, ids=[name for name, _ in CHUNKS])
async def test_a_broken_chunked_body_never_ends_as_if_it_were_whole(
    name: str, body: bytes, app: Echo, served: Served
) -> None:
    async with connect(served.address) as client:
        await client.send(request(method="POST", transfer_encoding="chunked"))
        answer = await client.ask(body)
        assert (answer.status, code(answer)) == (400, "bad_framing")
        assert await client.closed() == b""
    await served.quiet()
    assert (app.disconnects, app.bodies, len(app.seen)) == (1, [], 1)


GOOD = (
    b"POST /a%2Fb?c=d HTTP/1.1\r\nHost: a\r\nX-One: 1 \r\nx-two:\t2\r\nContent-Length: 5\r\n\r\nhello"
    b"POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: u\r\n\r\n"
    b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
)


async def answers_to(client: RawClient, pieces: list[bytes]) -> list[bytes]:
    for piece in pieces:
        await client.send(piece)
    got = [(await client.answer()).body for _ in range(3)]
    assert await client.closed() == b""
    return got


@pytest.mark.parametrize("cut", range(1, len(GOOD)))
async def test_every_split_of_good_requests_gives_the_same_answers(
    cut: int, app: Echo, served: Served
) -> None:
    async with connect(served.address) as client:
        assert await answers_to(client, [GOOD[:cut], GOOD[cut:]]) == [b"hello", b"abcde", b""]
    assert [scope["raw_path"] for scope in app.seen] == [b"/a%2Fb", b"/chunks", b"/last"]


async def test_good_requests_byte_by_byte(app: Echo, served: Served) -> None:
    async with connect(served.address) as client:
        await client.dribble(GOOD)
        assert await answers_to(client, []) == [b"hello", b"abcde", b""]


async def test_the_scope_says_what_was_sent(app: Echo, served: Served) -> None:
    async with connect(served.address) as client:
        await client.ask(
            b"POST /a%2Fb%C3%A9?c=%20 HTTP/1.1\r\nHost: A\r\nX-One: 1 \r\nx-ONE:\t\xff\t\r\n\r\n"
        )
    scope = app.seen[0]
    assert scope["type"] == "http"
    assert scope["method"] == "POST"
    assert scope["http_version"] == "1.1"
    assert scope["scheme"] == "http"
    assert scope["raw_path"] == b"/a%2Fb%C3%A9"
    assert scope["path"] == "/a/bé"
    assert scope["query_string"] == b"c=%20"
    assert scope["headers"] == [(b"host", b"A"), (b"x-one", b"1"), (b"x-one", b"\xff")]
    assert scope["client"][0] == "127.0.0.1"
    assert scope["server"] == served.address


async def test_trailers_never_become_headers(app: Echo, served: Served) -> None:
    async with connect(served.address) as client:
        await client.send(request(method="POST", transfer_encoding="chunked"))
        await client.ask(b"1\r\nx\r\n0\r\nX-User-Id: 1\r\nAuthorization: Bearer y\r\n\r\n")
    assert app.seen[0]["headers"] == [(b"host", b"gateway.test"), (b"transfer-encoding", b"chunked")]


async def test_a_refused_head_request_gets_no_body(served: Served) -> None:
    async with connect(served.address) as client:
        answer = await client.ask(b"HEAD / HTTP/1.1\r\n\r\n", method="HEAD")
        assert (answer.status, int(answer["content-length"]) > 0) == (400, True)
        assert await client.closed() == b""


async def test_a_405_names_what_is_allowed(served: Served) -> None:
    async with connect(served.address) as client:
        assert "GET" in (await client.ask(request(method="TRACE")))["allow"]


async def test_a_refusal_is_told_with_what_could_be_read(served: Served) -> None:
    async with connect(served.address) as client:
        answer = await client.ask(b"PUT /x?secret HTTP/1.1\r\n\r\n")
    async with connect(served.address) as client:
        await client.ask(b"\x16\x03\x01")
    first, second = served.refusals
    assert (first.method, first.target, first.peer) == ("PUT", b"/x?secret", "127.0.0.1")
    assert first.request_id == answer["x-request-id"]
    assert (second.method, second.target) == (None, None)


async def test_a_refused_client_can_finish_sending_and_still_reads_its_answer(served: Served) -> None:
    """No reset, which could destroy the answer before it is read (RFC 9112 §9.6)."""
    head = request(method="POST", content_length=str(20 * 1024 * 1024))
    async with connect(served.address) as client:
        await client.send(head)
        for _ in range(64):
            await client.send(b"x" * 65536)
        answer = await client.answer()
        assert (answer.status, code(answer)) == (413, "body_too_large")
        assert await client.closed() == b""


async def test_pipelined_requests_are_answered_in_order(app: Echo, served: Served) -> None:
    async with connect(served.address) as client:
        await client.send(b"".join(request(f"/{n}", method="POST", body=b"%d" % n) for n in range(100)))
        assert [(await client.answer()).body for _ in range(100)] == [b"%d" % n for n in range(100)]


async def test_a_bad_request_in_the_pipeline_hurts_none_before_it(app: Echo, served: Served) -> None:
    async with connect(served.address) as client:
        await client.send(request("/1") + request("/2") + b"GET /3 HTTP/1.1\r\n\r\n" + request("/4"))
        got = [await client.answer() for _ in range(3)]
        assert [answer.get("x-path") for answer in got] == ["/1", "/2", None]
        assert code(got[2]) == "bad_host"
        assert await client.closed() == b""
    assert [scope["path"] for scope in app.seen] == ["/1", "/2"]


@settings(max_examples=100, deadline=None)
@given(raw=st.deferred(lambda: st.one_of(st.binary(max_size=300), mutated(), soup())))
def test_no_bytes_bring_the_server_to_its_knees(raw: bytes) -> None:
    """Mutated and random bytes: an answer below 500 (or 501), or silence; never an app that hangs."""
    asyncio.run(storm(raw))


async def storm(raw: bytes) -> None:
    app = Echo()
    async with serving(app) as served:
        async with connect(served.address) as client:
            await client.send(raw)
            client.half_close()
            answers = statuses(await client.closed())
        assert all(status < 500 or status == 501 for status in answers)
        await served.quiet()
    for scope in app.seen:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        assert scope["raw_path"].startswith(b"/")
        assert len(hosts) == 1 or scope["http_version"] == "1.0"
        assert all(byte not in value for _, value in scope["headers"] for byte in b"\r\n\0")


def statuses(data: bytes) -> list[int]:
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A case of the table with a few bytes changed."""
    raw = bytearray(draw(st.sampled_from([case.data for case in CASES if len(case.data) < 500])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.integers(0, 3))] = draw(st.sampled_from(PIECES))
    return bytes(raw)


def soup() -> st.SearchStrategy[bytes]:
    """Pieces of HTTP in any order."""
    return st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join)


PIECES = [
    *(
        b"",
        b" ",
        b"\t",
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\0",
        b"\x7f",
        b"\xff",
        b":",
        b",",
        b";",
        b"0",
        b"5",
        b"#",
    ),
    *(
        b"GET ",
        b"POST / ",
        b"/",
        b"HTTP/1.1\r\n",
        b"HTTP/1.0\r\n",
        b"Host: a\r\n",
        b"Host",
        b"Content-Length: 3\r\n",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"abc",
        b"Upgrade: x\r\n",
    ),
]


async def test_an_answer_is_never_expected_in_vain(served: Served) -> None:
    """The helpers of these tests notice a closed connection."""
    async with connect(served.address) as client:
        await client.ask(b"nonsense\r\n\r\n")
        with pytest.raises(Closed):
            await client.answer()
