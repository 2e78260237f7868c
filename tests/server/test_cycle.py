"""What an ASGI app sees of a request and of its end, and what becomes of what it answers."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from tests.support.raw import PATIENCE, Answer, Closed, connect, request
from tests.support.serving import Echo, read_body, serving, until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


def answering(*messages: dict[str, Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def asked(app: Any, data: bytes, *, method: str = "GET") -> tuple[Answer, bool]:
    """The answer, and whether the connection lives on."""
    async with serving(app) as served, connect(served.address) as client:
        answer = await client.ask(data, method=method)
        await client.send(request("/again", connection="close"))
        return answer, b"HTTP/1.1" in await client.closed()


async def test_an_answer_of_known_length() -> None:
    answer, lives = await asked(
        answering(start(200, (b"Content-Length", b"2"), (b"X", b"y")), body(b"ok")), request()
    )
    assert answer.head.startswith(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: y\r\ndate: ")
    assert (answer.body, lives) == (b"ok", True)


async def test_an_answer_of_unknown_length_is_chunked() -> None:
    app = answering(start(), body(b"a", more=True), body(b"", more=True), body(b"bc", more=True), body())
    answer, lives = await asked(app, request())
    assert (answer["transfer-encoding"], answer.body, lives) == ("chunked", b"abc", True)


async def test_a_client_of_http_1_0_gets_no_chunks() -> None:
    answer, lives = await asked(
        answering(start(), body(b"a", more=True), body(b"b")), b"GET / HTTP/1.0\r\n\r\n"
    )
    assert answer.get("transfer-encoding") is None
    assert (answer["connection"], answer.body, lives) == ("close", b"ab", False)


@pytest.mark.parametrize(("status", "method"), [(204, "GET"), (304, "GET"), (200, "HEAD"), (404, "HEAD")])
async def test_answers_without_a_body(status: int, method: str) -> None:
    answer, lives = await asked(
        answering(start(status), body(b"ignored")), request(method=method), method=method
    )
    assert answer.get("transfer-encoding") is None
    assert (answer.status, answer.body, lives) == (status, b"", True)


async def test_head_keeps_the_length_and_204_has_none() -> None:
    length = (b"content-length", b"5")
    head, _ = await asked(answering(start(200, length), body(b"")), request(method="HEAD"), method="HEAD")
    empty, _ = await asked(answering(start(204, length), body(b"")), request())
    assert (head["content-length"], empty.get("content-length")) == ("5", None)


async def test_the_app_does_not_frame_its_answer() -> None:
    lines = [(b"Transfer-Encoding", b"gzip"), (b"Connection", b"x"), (b"Keep-Alive", b"timeout=5")]
    answer, lives = await asked(answering(start(200, *lines), body(b"ok")), request())
    assert answer.all("transfer-encoding") == ["chunked"]
    assert (answer.get("connection"), answer.get("keep-alive"), lives) == (None, None, True)


async def test_the_app_may_close() -> None:
    answer, lives = await asked(answering(start(200, (b"connection", b"Close")), body(b"ok")), request())
    assert (answer.all("connection"), answer.body, lives) == (["close"], b"ok", False)


async def test_a_date_of_the_backend_is_kept_and_a_missing_one_is_added() -> None:
    dated, _ = await asked(
        answering(start(200, (b"date", b"Sun, 06 Nov 1994 08:49:37 GMT")), body()), request()
    )
    undated, _ = await asked(answering(start(), body()), request())
    assert dated.all("date") == ["Sun, 06 Nov 1994 08:49:37 GMT"]
    assert undated["date"].endswith(" GMT")


async def test_set_cookie_lines_and_raw_bytes_stay_as_they_are() -> None:
    lines = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=\xff")]
    answer, _ = await asked(answering(start(200, *lines), body()), request())
    assert answer.all("set-cookie") == ["a=1", "b=\xff"]


DEFECTS = {
    "an exception": answering(start(), {"type": "nonsense"}),
    "no such message": answering({"type": "http.response.body"}),
    "no answer at all": answering(),
    "a line end in a value": answering(start(200, (b"x", b"y\r\nset-cookie: z"))),
    "a bare LF in a value": answering(start(200, (b"x", b"y\nz"))),
    "a bare CR in a value": answering(start(200, (b"x", b"y\rz"))),
    "an impossible name": answering(start(200, (b"x y", b"z"))),
    "an impossible status": answering(start(99)),
    "a body longer than announced": answering(start(200, (b"content-length", b"1")), body(b"ab")),
    "a body shorter than announced": answering(start(200, (b"content-length", b"3")), body(b"ab")),
    "a body that does not end": answering(start(), body(b"ab", more=True)),
}
STARTED = {"an exception", *(name for name in DEFECTS if name.startswith("a body"))}


@pytest.mark.parametrize("name", DEFECTS)
async def test_a_defect_of_the_app(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Before the head: a 500 in our words. After it: a cut that no client takes for an end."""
    caplog.set_level(logging.INFO, "gateway.server")
    async with serving(DEFECTS[name]) as served:
        async with connect(served.address) as client:
            await client.send(request("/broken"))
            if name in STARTED:
                with pytest.raises(Closed):
                    await client.answer()
                assert served.refusals == []
            else:
                answer = await client.answer()
                problem = json.loads(answer.body)
                assert (answer.status, problem["code"]) == (500, "internal_error")
                assert answer["connection"] == "close"
                assert "Traceback" not in answer.body.decode()
                assert served.refusals[0].target == b"/broken"
        await served.quiet()
    assert caplog.records[0].name == "gateway.server"


async def test_a_defect_after_the_answer_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = answering(start(200, (b"content-length", b"0")), body(), body())
    answer, lives = await asked(app, request())
    assert (answer.status, lives) == (200, True)
    assert "the application failed" in caplog.text


async def test_after_the_body_comes_the_disconnect() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([await receive(), await receive()])

    async with serving(app) as served:
        async with connect(served.address) as client:
            await client.send(request(method="POST", body=b"abc"))
            await until(lambda: served.state.tasks)
        await served.quiet()
    assert seen == [{"type": "http.request", "body": b"abc", "more_body": False}, {"type": "http.disconnect"}]


@pytest.mark.parametrize("leave", ["fin", "reset", "half-close"])
async def test_a_client_that_leaves_is_a_disconnect(leave: str) -> None:
    left = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        assert (await receive())["type"] == "http.disconnect"
        assert (await receive())["type"] == "http.disconnect"
        await send(start())
        await send(body(b"to nobody"))
        left.set()

    async with serving(app) as served, connect(served.address) as client:
        await client.send(request())
        await until(lambda: served.state.tasks)
        if leave == "reset":
            client.reset()
        elif leave == "fin":
            await client.close()
        else:
            client.half_close()
        async with asyncio.timeout(PATIENCE):
            await left.wait()
        await served.quiet()
        assert served.refusals == []


async def test_a_client_that_leaves_in_the_middle_of_a_body() -> None:
    app = Echo()
    async with serving(app) as served:
        async with connect(served.address) as client:
            await client.send(request(method="POST", content_length="10") + b"abc")
            await until(lambda: app.seen)
        await served.quiet()
    assert (app.bodies, app.disconnects) == ([], 1)


async def test_a_client_that_leaves_after_a_large_body_is_noticed_too() -> None:
    """Its last bytes had stopped our reading; once they are taken we read on."""
    held = asyncio.Event()
    left = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await held.wait()
        await read_body(receive)
        assert (await receive())["type"] == "http.disconnect"
        left.set()

    async with serving(app) as served:
        async with connect(served.address) as client:
            await client.send(request(method="POST", body=b"x" * 100_000))
            await until(lambda: served.state.connections)
            (one,) = served.state.connections
            await until(lambda: one.flow is not None and one.flow.read_paused)
            held.set()
        async with asyncio.timeout(PATIENCE):
            await left.wait()


async def test_after_the_answer_the_app_hears_a_disconnect() -> None:
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        waiting = asyncio.ensure_future(receive())
        await send(start(200, (b"content-length", b"0")))
        await send(body())
        heard.append((await waiting)["type"])

    await asked(app, request())
    assert heard == ["http.disconnect"] * 2


async def test_100_continue_is_sent_when_the_app_asks_for_the_body() -> None:
    async with serving(Echo()) as served, connect(served.address) as client:
        await client.send(request(method="POST", expect="100-continue", content_length="3"))
        assert (await client.answer(informational=True)).status == 100
        assert (await client.ask(b"abc")).body == b"abc"


async def test_a_refusal_needs_no_100_and_closes() -> None:
    app = answering(start(401, (b"content-length", b"0")), body())
    async with serving(app) as served, connect(served.address) as client:
        answer = await client.ask(request(method="POST", expect="100-continue", content_length="3"))
        assert (answer.status, answer["connection"]) == (401, "close")
        assert await client.closed() == b""


async def test_an_answer_before_the_end_of_the_body_ends_the_connection() -> None:
    """Even a good one: what follows could be the rest of the body or another request."""
    app = answering(start(200, (b"content-length", b"2")), body(b"ok"))
    async with serving(app) as served, connect(served.address) as client:
        answer = await client.ask(request(method="POST", content_length="3") + b"a")
        assert answer.body == b"ok"
        assert await client.closed() == b""


async def test_a_refusal_of_a_whole_body_keeps_the_connection() -> None:
    answer, lives = await asked(
        answering(start(401, (b"content-length", b"0")), body()), request(body=b"abc")
    )
    assert (answer.status, answer.get("connection"), lives) == (401, None, True)


async def test_an_app_that_does_not_read_holds_the_client_back() -> None:
    go_on = asyncio.Event()
    size = 8 * 1024 * 1024
    got = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal got
        await go_on.wait()
        more = True
        while more:
            message = await receive()
            assert len(message["body"]) < 1024 * 1024
            got += len(message["body"])
            more = message["more_body"]
        await answering(start(204), body())(scope, receive, send)

    async with serving(app) as served, connect(served.address) as client:
        sending = asyncio.ensure_future(
            client.send(request(method="POST", content_length=str(8 * 1024 * 1024)))
        )
        await sending
        sending = asyncio.ensure_future(client.send(b"x" * size))
        (one,) = served.state.connections
        await until(lambda: one.flow is not None and one.flow.read_paused)
        assert not sending.done()
        go_on.set()
        assert (await client.answer()).status == 204
        await sending
    assert got == size


async def test_a_client_that_does_not_read_holds_the_app_back() -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send(start())
        for _ in range(24):
            await send(body(b"x" * 1024 * 1024, more=True))
            sent += 1
        await send(body())

    async with serving(app) as served, connect(served.address) as client:
        await client.send(request())
        await until(lambda: served.state.connections)
        (one,) = served.state.connections
        await until(lambda: one.flow is not None and one.flow.write_paused)
        assert sent < 16
        assert len((await client.answer()).body) == 24 * 1024 * 1024


async def test_an_app_that_outlives_its_connection_is_cancelled_in_peace() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answering(start(), body(b"x" * 16 * 1024 * 1024))(scope, receive, send)
        await asyncio.Event().wait()

    async with serving(app) as served, connect(served.address) as client:
        await client.send(request())
        await until(lambda: served.state.connections)
        (one,) = served.state.connections
        await until(lambda: one.flow is not None and one.flow.write_paused)
        client.half_close()  # the server closes, and what it had written still goes out
        assert b"xxx" in await client.closed()
        await until(lambda: not served.state.connections)
        (task,) = served.state.tasks
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_what_is_pipelined_behind_a_slow_answer_is_bounded() -> None:
    go_on = asyncio.Event()
    echo = Echo()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        waiting = asyncio.ensure_future(receive())
        await go_on.wait()
        waiting.cancel()
        await answering(start(204), body())(scope, receive, send)
        echo.seen.append(scope)

    one_more = request("/" + "p" * 1000)
    async with serving(app) as served, connect(served.address) as client:
        sending = asyncio.ensure_future(client.send(one_more * 600))
        await until(lambda: served.state.connections)
        (one,) = served.state.connections
        await until(lambda: one.flow is not None and one.flow.read_paused)
        assert len(one._buffer) < 512 * 1024  # type: ignore[union-attr]
        assert len(served.state.tasks) == 1
        go_on.set()
        for _ in range(600):
            assert (await client.answer()).status == 204
        await sending
    assert len(echo.seen) == 600
