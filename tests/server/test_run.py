"""The life of the process, with real signals: in this process to watch it, in another to see it exit."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gateway.server import run
from gateway.server.run import Ready
from gateway.server.sockets import Address
from gateway.server.terms import Limits, Refusal, Timeouts
from tests.support.life import LOCAL, Life, get, soon, terminate
from tests.support.serving import until


@pytest.fixture
def life() -> Life:
    return Life()


def test_from_start_to_stop(life: Life) -> None:
    def scenario(where: Ready) -> None:
        assert get(where.listen[0]) == (200, b"ok")
        assert get(where.ops[0], "/readyz") == (200, b"ok")

    assert life.serve(scenario) == 0
    assert life.events == ["start", "ready", "answer /", "answer /readyz", "draining", "stop"]


def test_requests_in_flight_finish_and_new_ones_find_no_listener(life: Life) -> None:
    answers: list[tuple[int, bytes]] = []

    def scenario(where: Ready) -> None:
        client = threading.Thread(target=lambda: answers.append(get(where.listen[0], "/slow")))
        client.start()
        assert life.begun.wait(10)
        terminate()
        soon(lambda: refused(where.listen[0]))
        assert get(where.ops[0], "/readyz") == (200, b"ok")  # the ops listener stays to the end
        life.let_go.set()
        client.join(10)

    assert life.serve(scenario) == 0
    assert answers == [(200, b"ok")]
    assert life.events[-2:] == ["answer /slow", "stop"]


def refused(where: str) -> bool:
    host, _, port = where.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_what_outlasts_the_drain_is_cut(life: Life) -> None:
    def scenario(where: Ready) -> None:
        host, _, port = where.listen[0].rpartition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            assert life.begun.wait(10)
            terminate()
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(100) == b""

    assert life.serve(scenario, timeouts=Timeouts(drain=0.2)) == 0
    assert "answer /slow" not in life.events
    assert life.events[-1] == "stop"


def test_idle_connections_do_not_hold_the_drain_up(life: Life) -> None:
    def scenario(where: Ready) -> None:
        with contextlib.closing(http.client.HTTPConnection(where.listen[0], timeout=30)) as connection:
            connection.request("GET", "/")
            connection.getresponse().read()
            terminate()
            soon(lambda: "stop" in life.events)

    began = time.monotonic()
    assert life.serve(scenario) == 0
    assert time.monotonic() - began < 5


def test_the_delay_before_the_listeners_close(life: Life) -> None:
    """A load balancer needs a while to notice; meanwhile everything is served."""

    def scenario(where: Ready) -> None:
        terminate()
        soon(lambda: "draining" in life.events)
        assert get(where.listen[0]) == (200, b"ok")

    assert life.serve(scenario, timeouts=Timeouts(drain_delay=0.3)) == 0
    assert life.events == ["start", "ready", "draining", "answer /", "stop"]


def test_a_second_interrupt_hurries(life: Life) -> None:
    def scenario(where: Ready) -> None:
        host, _, port = where.listen[0].rpartition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            assert life.begun.wait(10)
            terminate(signal.SIGINT)
            soon(lambda: "draining" in life.events)
            terminate(signal.SIGINT)
            soon(lambda: "stop" in life.events)

    assert life.serve(scenario, timeouts=Timeouts(drain_delay=60, drain=60)) == 0
    assert "answer /slow" not in life.events


def test_each_hangup_is_a_reload(life: Life) -> None:
    def scenario(where: Ready) -> None:
        terminate(signal.SIGHUP)
        soon(lambda: life.events.count("reload") == 1)
        terminate(signal.SIGHUP)
        soon(lambda: life.events.count("reload") == 2)
        assert get(where.listen[0]) == (200, b"ok")

    assert life.serve(scenario, reload=life.hook("reload")) == 0


def test_hangups_during_a_reload_are_one_more(life: Life) -> None:
    held = threading.Event()

    async def reload() -> None:
        life.events.append("reload")
        await until(held.is_set)
        life.events.append("reloaded")

    def scenario(_: Ready) -> None:
        for _ in range(3):
            terminate(signal.SIGHUP)
            soon(lambda: "reload" in life.events)
        held.set()
        soon(lambda: life.events.count("reloaded") == 2)

    assert life.serve(scenario, reload=reload) == 0
    assert life.events.count("reload") == 2


def test_a_reload_that_fails_is_told_and_survived(life: Life, caplog: pytest.LogCaptureFixture) -> None:
    async def reload() -> None:
        raise RuntimeError("a defect")

    told = "the reload failed; everything stays as it was"

    def scenario(where: Ready) -> None:
        for number in (1, 2):
            terminate(signal.SIGHUP)
            soon(lambda number=number: caplog.text.count(told) == number)
        assert get(where.listen[0]) == (200, b"ok")

    assert life.serve(scenario, reload=reload) == 0


def test_a_hangup_before_the_start_is_over_waits_for_it(life: Life) -> None:
    async def start() -> None:
        terminate(signal.SIGHUP)
        await asyncio.sleep(0)
        life.events.append("started")

    assert (
        life.serve(lambda _: soon(lambda: "reload" in life.events), start=start, reload=life.hook("reload"))
        == 0
    )
    assert life.events.index("started") < life.events.index("ready") < life.events.index("reload")


def test_every_kind_of_listener(life: Life, tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"

    def scenario(where: Ready) -> None:
        assert get(where.listen[0]) == get(where.listen[1]) == (200, b"ok")
        assert where.listen[2] == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /unix HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")

    assert life.serve(scenario, listen=[LOCAL, Address("::1", 0), Address(path=str(path))]) == 0
    assert not path.exists()


def test_refusals_of_the_public_listener_are_told_and_probes_are_not(life: Life) -> None:
    told: list[Refusal] = []

    def scenario(where: Ready) -> None:
        for one in (where.listen[0], where.ops[0]):
            host, _, port = one.rpartition(":")
            with socket.create_connection((host, int(port))) as client:
                client.sendall(b"nonsense\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 400 ")

    assert life.serve(scenario, on_refused=told.append) == 0
    assert len(told) == 1


def test_a_start_that_fails_is_one_sentence(life: Life) -> None:
    said: list[str] = []

    async def start() -> None:
        raise RuntimeError("the database is away")

    assert life.serve(lambda _: None, start=start, complain=said.append) == 1
    assert said == ["The gateway cannot start: the database is away"]
    assert life.events == []


def test_a_start_can_be_interrupted(life: Life) -> None:
    async def start() -> None:
        terminate()
        await asyncio.sleep(60)

    assert life.serve(lambda _: None, start=start) == 0
    assert life.events == []


@pytest.mark.parametrize("which", ["listen", "ops_listen"])
def test_a_taken_address_is_one_sentence(life: Life, which: str) -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        there = {which: [Address("127.0.0.1", port)]}
        assert life.serve(lambda _: None, complain=said.append, **there) == 1
    assert said == [f"Cannot listen on 127.0.0.1:{port}: the address is in use."]


def test_too_few_open_files_are_warned_about(
    life: Life, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "raise_open_files", lambda _: 1024)
    life.serve(lambda _: None, limits=Limits(connections=5000))
    assert "the limit of open files is 1024; 5000 connections need 6024" in caplog.text


def test_without_uvloop(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert life.serve(lambda where: None if get(where.listen[0]) == (200, b"ok") else 1 / 0) == 0


def test_uvicorn_keeps_its_own_log_settings_to_itself(life: Life) -> None:
    before = list(logging.getLogger("uvicorn").handlers)
    life.serve(lambda _: None)
    assert logging.getLogger("uvicorn").handlers == before
    assert logging.getLogger("uvicorn.error").propagate


SCRIPT = """
import asyncio, sys
from gateway.server.run import serve
from gateway.server.sockets import Address
from gateway.server.terms import Timeouts

async def app(scope, receive, send):
    print("begun", flush=True)
    await asyncio.sleep(float(scope["query_string"] or 0))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})

sys.exit(serve(
    app, listen=[Address(path=sys.argv[1])], timeouts=Timeouts(drain=float(sys.argv[2])),
    on_ready=lambda where: print("ready", flush=True),
))
"""


@pytest.mark.parametrize(("slow", "drain", "answered"), [("0.3", "10", True), ("60", "0.2", False)])
def test_a_real_process_drains_and_exits(tmp_path: Path, slow: str, drain: str, answered: bool) -> None:
    path = tmp_path / "gateway.sock"
    command = [sys.executable, "-c", SCRIPT, str(path), drain]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(run.__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(path))
            client.sendall(f"GET /?{slow} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert process.stdout.readline() == "begun\n"
            process.send_signal(signal.SIGTERM)
            try:
                answer = client.recv(1000)
            except ConnectionResetError:
                answer = b""
        assert answer.startswith(b"HTTP/1.1 200 OK") is answered
        assert process.wait(10) == 0
    assert not path.exists()
