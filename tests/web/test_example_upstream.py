"""The example backend shows what reached it byte for byte: docs and tests rely on that."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.support.process import PATIENCE

SOURCE = Path(__file__).parents[2] / "examples" / "upstream" / "app.py"

pytestmark = pytest.mark.anyio

Talk = Callable[[bytes], Any]


@pytest.fixture(scope="module")
def upstream() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_upstream", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def talk(upstream: ModuleType) -> AsyncIterator[Talk]:
    """Sends bytes, says no more, and returns every byte that came back."""
    server = await upstream.listen(port=0)
    port = server.sockets[0].getsockname()[1]

    async def exchange(sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        writer.write_eof()
        received = await reader.read()
        writer.close()
        await writer.wait_closed()
        return received

    yield exchange
    server.close()
    await server.wait_closed()


def told(response: bytes) -> dict[str, Any]:
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    value: dict[str, Any] = json.loads(body)
    return value


async def test_the_request_is_told_back_as_it_came(talk: Talk) -> None:
    echo = told(
        await talk(
            b"PATCH //a/%2F/../b?x=%zz&\xff HTTP/1.1\r\nHost: h\r\nX-Twice: 1\r\nx-tWICE:  2 \r\n"
            b"X-Raw: \xe9\xff\r\nContent-Length: 4\r\n\r\n\x00\xff\r\n"
        )
    )
    assert echo["requestLine"] == "PATCH //a/%2F/../b?x=%zz&\xff HTTP/1.1"
    assert echo["headers"] == [
        ["Host", "h"],
        ["X-Twice", "1"],
        ["x-tWICE", "2"],
        ["X-Raw", "\xe9\xff"],
        ["Content-Length", "4"],
    ]
    assert base64.b64decode(echo["bodyBase64"]) == b"\x00\xff\r\n"
    assert echo["body"] == "\x00\xff\r\n"


async def test_a_chunked_body_is_joined_and_its_trailers_shown(talk: Talk) -> None:
    echo = told(
        await talk(
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;ext=1\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-End: yes\r\n\r\n"
        )
    )
    assert (echo["body"], echo["trailers"]) == ("abc0123456789", [["X-End", "yes"]])


async def test_a_long_body_is_counted_and_hashed_whole_but_told_back_only_in_part(talk: Talk) -> None:
    body = bytes(range(256)) * 4096
    echo = told(await talk(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)))
    assert echo["bodyLength"] == len(body)
    assert echo["bodySha256"] == hashlib.sha256(body).hexdigest()
    assert base64.b64decode(echo["bodyBase64"]) == body[: 64 * 1024]


async def test_requests_on_one_connection_are_answered_in_turn_until_one_says_close(talk: Talk) -> None:
    response = await talk(
        b"HEAD /1 HTTP/1.1\r\nHost: h\r\n\r\n"
        b"GET /2 HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n"
        b"GET /3 HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    assert response.count(b"HTTP/1.1 200 OK") == 2
    assert b'"/2"' in response
    assert b'"/1"' not in response  # an answer to HEAD has no body
    assert b'"/3"' not in response


async def test_http_1_0_closes_unless_asked_to_stay(talk: Talk) -> None:
    assert (await talk(b"GET /1 HTTP/1.0\r\n\r\nGET /2 HTTP/1.0\r\n\r\n")).count(b"200 OK") == 1
    stay = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    assert (await talk(stay + stay)).count(b"200 OK") == 2


async def test_it_says_go_on_to_a_client_that_waits(talk: Talk) -> None:
    response = await talk(
        b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"
    )
    assert response.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


async def test_lines_and_events_come_one_chunk_each(talk: Talk) -> None:
    lines = await talk(b"GET /stream?lines=2&every=0 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert lines.endswith(b"\r\n\r\n7\r\nline 1\n\r\n7\r\nline 2\n\r\n0\r\n\r\n")
    events = await talk(b"GET /sse?events=1 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b"content-type: text/event-stream\r\n" in events
    assert b'id: 1\nevent: tick\ndata: {"n": 1}\n\n\r\n0\r\n\r\n' in events
    old = await talk(b"GET /stream?lines=2&every=0 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert old.endswith(b"connection: close\r\n\r\nline 1\nline 2\n")
    assert (await talk(b"HEAD /stream HTTP/1.1\r\nHost: h\r\n\r\n")).endswith(b"\r\n\r\n")


@pytest.mark.parametrize("query", [b"?seconds=0", b"?seconds=-1", b"?seconds=nan"])
async def test_slow_answers_the_echo_afterwards(talk: Talk, query: bytes) -> None:
    assert told(await talk(b"GET /slow%b HTTP/1.1\r\nHost: h\r\n\r\n" % query))["target"].startswith("/slow")


@pytest.fixture
async def url(upstream: ModuleType) -> AsyncIterator[str]:
    server = await upstream.listen(port=0)
    yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


@pytest.mark.parametrize("offered", [[], ["chat.v2", "chat.v1"]])
async def test_a_websocket_is_told_its_request_and_then_what_it_says(url: str, offered: list[str]) -> None:
    async with connect(f"{url}/any?x=1", subprotocols=offered or None, proxy=None) as client:
        assert client.subprotocol == (offered or [None])[0]
        echo = json.loads(await client.recv())
        assert (echo["method"], echo["target"]) == ("GET", "/any?x=1")
        assert ["Upgrade", "websocket"] in echo["headers"]
        for message in ("", "hallo ä€", b"\x00\xff", "x" * 126, b"y" * 70_000, "z" * 1_000_000):
            await client.send(message)
            assert await client.recv() == message
        await client.send(["in ", "three ", "pieces"])
        assert [piece async for piece in client.recv_streaming()] == ["in ", "three ", "pieces", ""]
        async with asyncio.timeout(PATIENCE):
            await (await client.ping(b"there?"))
        await client.pong(b"unasked")
        await client.close(4001, "enough")
        assert (client.close_code, client.close_reason) == (4001, "enough")


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x02hi", 1002),  # not masked
        (b"\xc1\x82\x00\x00\x00\x00hi", 1002),  # compressed, which was not agreed on
        (b"\x82\xff\x00\x00\x00\x01\x00\x00\x00\x00", 1009),
    ],
)
async def test_a_bad_frame_closes_the_websocket_with_its_reason(talk: Talk, frame: bytes, code: int) -> None:
    response = await talk(HANDSHAKE + frame)
    assert response.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in response
    assert b"\x88" in response[-40:]
    assert code.to_bytes(2, "big") in response[-40:]


async def test_a_websocket_that_breaks_off_is_let_go(talk: Talk) -> None:
    with contextlib.suppress(ConnectionResetError):
        assert b" 101 " in await talk(HANDSHAKE + b"\x81\x85")


async def test_half_a_websocket_handshake_is_an_ordinary_request(talk: Talk) -> None:
    assert told(await talk(HANDSHAKE.replace(b"Connection: Upgrade\r\n", b"")))["method"] == "GET"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_a_400_and_a_closed_connection(talk: Talk, request_bytes: bytes) -> None:
    response = await talk(request_bytes)
    assert response.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"connection: close" in response


@pytest.mark.parametrize(
    "broken_off",
    [
        b"GET / HT",
        b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha",
    ],
)
async def test_an_upload_that_breaks_off_gets_no_answer(talk: Talk, broken_off: bytes) -> None:
    with contextlib.suppress(ConnectionResetError):
        assert await talk(broken_off) == b""


def test_the_command_listens_on_a_socket_and_ends_on_sigterm(tmp_path: Path) -> None:
    path = tmp_path / "s"
    command = [sys.executable, str(SOURCE), "--unix", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"upstream listening on {path}\n"
        reply = asyncio.run(_ask(path))
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    assert told(reply)["target"] == "/through-a-socket"


async def _ask(path: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /through-a-socket HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    reply = await reader.read()
    writer.close()
    await writer.wait_closed()
    return reply
