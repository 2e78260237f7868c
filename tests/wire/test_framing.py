"""Raw bytes against the real server, before any application: heads, splits, trailers and refusals."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from tests.support.raw import Answer, Closed, RawClient, connect, request
from tests.support.serving import Echo, Served, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """As `gateway run` does it."""
    return "asyncio", {"use_uvloop": True}


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


async def test_an_answer_is_never_expected_in_vain(served: Served) -> None:
    """The helpers of these tests notice a closed connection."""
    async with connect(served.address) as client:
        await client.ask(b"nonsense\r\n\r\n")
        with pytest.raises(Closed):
            await client.answer()
