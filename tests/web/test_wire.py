"""/auth behind the real server, asked in raw bytes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from gateway.web.body import BODY_LIMIT
from tests.support.raw import Answer, RawClient, connect, request
from tests.support.serving import Served, serving
from tests.web.conftest import PASSWORD, USER, World

pytestmark = pytest.mark.anyio

LOGIN = json.dumps({"email": USER, "password": PASSWORD}).encode()


def code(answer: Answer) -> tuple[int, str | None]:
    return answer.status, answer.get("x-gateway-error")


@pytest.fixture
async def served(world: World) -> AsyncIterator[Served]:
    async with serving(world.app) as served:
        yield served


@pytest.fixture
async def wire(served: Served) -> AsyncIterator[RawClient]:
    async with connect(served.address) as wire:
        yield wire


def login(body: bytes = LOGIN) -> bytes:
    return request("/auth/login", method="POST", body=body, content_type="application/json")


async def test_a_session_on_one_connection(wire: RawClient) -> None:
    tokens = json.loads((await wire.ask(login())).body)
    bearer = f"Bearer {tokens['accessToken']}"
    me = await wire.ask(request("/auth/me", authorization=bearer))
    assert json.loads(me.body)["email"] == USER
    head = await wire.ask(request("/auth/me", method="HEAD", authorization=bearer), method="HEAD")
    assert (head.status, head["content-length"]) == (200, str(len(me.body)))
    out = json.dumps({"refreshToken": tokens["refreshToken"]}).encode()
    gone = await wire.ask(
        request("/auth/logout", method="POST", body=out, content_type="application/json"), method="POST"
    )
    assert (gone.status, gone.body) == (204, b"")
    assert code(await wire.ask(request("/auth/me", authorization=bearer))) == (401, "invalid_token")


async def test_a_body_in_chunks_is_the_same_body_and_its_trailers_are_nobody(wire: RawClient) -> None:
    head = request("/auth/login", method="POST", content_type="application/json", transfer_encoding="chunked")
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in LOGIN)
    trailers = b"Authorization: Bearer x\r\nContent-Type: text/plain\r\n"
    assert (await wire.ask(head + chunks + b"0\r\n" + trailers + b"\r\n")).status == 200


async def test_a_body_that_announces_too_much_is_refused_unread_and_the_connection_closed(
    wire: RawClient,
) -> None:
    head = request(
        "/auth/login", method="POST", content_type="application/json", content_length=str(BODY_LIMIT + 1)
    )
    answer = await wire.ask(head)
    assert code(answer) == (413, "body_too_large")
    assert answer["connection"] == "close"
    assert await wire.closed() == b""


async def test_a_body_that_grows_too_large_is_cut_off(wire: RawClient) -> None:
    head = request("/auth/login", method="POST", content_type="application/json", transfer_encoding="chunked")
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    answer = await wire.ask(head + chunk * 5)
    assert code(answer) == (413, "body_too_large")
    assert await wire.closed() == b""


@pytest.mark.parametrize(
    ("target", "method", "expected"),
    [
        ("/auth/me", "POST", (405, "method_not_allowed")),
        ("/auth/login", "POST", (415, "unsupported_media_type")),
        ("/auth/nothing", "POST", (404, "not_found")),
        ("/auth/users", "POST", (401, "not_logged_in")),
    ],
)
async def test_a_refusal_with_an_unread_body_closes_so_that_no_byte_of_it_is_a_request(
    wire: RawClient, target: str, method: str, expected: tuple[int, str]
) -> None:
    smuggled = request("/auth/openapi.json")
    head = request(target, method=method, content_length=str(len(smuggled) + 1))
    answer = await wire.ask(head + smuggled)
    assert code(answer) == expected
    assert answer["connection"] == "close"
    assert await wire.closed() == b""


async def test_two_authorization_lines_are_refused_whatever_their_order(
    world: World, wire: RawClient
) -> None:
    good = (await world.bearer())["authorization"]
    for pair in ((good, "Bearer x"), ("Basic x", good)):
        lines = "".join(f"Authorization: {value}\r\n" for value in pair)
        await wire.send(f"GET /auth/me HTTP/1.1\r\nHost: h\r\n{lines}\r\n".encode())
        assert code(await wire.answer()) == (400, "duplicate_credential")


@pytest.mark.parametrize(
    "target", ["/auth//login", "/auth/%6cogin", "/AUTH/login", "/auth/login/", "/auth/login%0a"]
)
async def test_look_alikes_on_the_wire_are_not_there(wire: RawClient, target: str) -> None:
    assert code(await wire.ask(request(target))) == (404, "not_found")


async def test_pipelined_answers_keep_their_order(wire: RawClient) -> None:
    await wire.send(login() + request("/auth/nothing") + login() + request("/auth/openapi.json"))
    assert [(await wire.answer()).status for _ in range(4)] == [200, 404, 200, 200]


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_no_trace(
    world: World, served: Served
) -> None:
    async with connect(served.address) as leaver:
        await leaver.send(login()[:-5])
        leaver.reset()
    await served.quiet()
    assert world.events == []
