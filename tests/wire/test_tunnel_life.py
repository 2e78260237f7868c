"""How tunnels and streams end: by their own peers, by silence, by the end of the right to have them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from examples.upstream.app import serve_connection
from tests.support.backend import Backend, Peer
from tests.support.process import PASSWORD, PATIENCE
from tests.support.raw import RawClient, connect, request
from tests.support.tunnels import IDLE, Person, TunnelSite, accepting, echo_bytes, opened, tunnel_site, until
from tests.support.websockets import WebSocketBackend, handshake

pytestmark = pytest.mark.anyio

End = Callable[[TunnelSite, Person], Awaitable[None]]

SOON = 2.0
"""Seconds in which a tunnel has to end when its reason has."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TunnelSite]:
    with tunnel_site(tmp_path_factory.mktemp("site")) as opened:
        yield opened


@contextlib.asynccontextmanager
async def streaming(site: TunnelSite) -> AsyncIterator[None]:
    """The example backend, for its server-sent events."""
    server = await asyncio.start_server(serve_connection, sock=site.app.dup())
    try:
        yield
    finally:
        server.close()


@contextlib.asynccontextmanager
async def stream(site: TunnelSite, who: Person | str | None, below: str) -> AsyncIterator[RawClient]:
    """A stream of events of which the first has come."""
    token = who.access if isinstance(who, Person) else who
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with connect(site.gateway.address) as client:
        await client.send(request(f"{below}/sse?events=10000&every=0.02", **headers))
        head = await client.until(b"data: ")
        assert head.startswith(b"HTTP/1.1 200 ")
        yield client


# -- by itself -----------------------------------------------------------------------------------------------


async def test_the_clients_end_ends_both_directions(site: TunnelSite) -> None:
    """A tunnel has no half: who is done has left. What he said before is delivered."""
    said: list[bytes] = []

    async def script(peer: Peer) -> None:
        said.append(await peer.closed())

    async with Backend(accepting(script), listening=site.raw) as backend:
        async with connect(site.gateway.address) as client:
            await opened(client, handshake("/raw/x", token=site.root.access))
            await client.send(b"all of it" * 10_000)
            client.half_close()
            await until(lambda: backend.peers[0].ended.is_set())
            assert await client.closed() == b""
        assert said == [b"all of it" * 10_000]


async def test_the_backends_end_ends_both_directions(site: TunnelSite) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"that was all" * 10_000)
        await peer.half_close()
        assert await peer.closed() == b""

    async with (
        Backend(accepting(script), listening=site.raw) as backend,
        connect(site.gateway.address) as client,
    ):
        await opened(client, handshake("/raw/x", token=site.root.access))
        assert await client.closed() == b"that was all" * 10_000
        await until(lambda: backend.peers[0].ended.is_set())
        await site.quiet()  # though the client has not closed yet


async def test_a_client_that_vanishes_takes_the_backends_connection_along(site: TunnelSite) -> None:
    async with WebSocketBackend(site.talk) as backend:
        async with connect(site.gateway.address) as client:
            await opened(client, handshake("/deaf/vanish", token=site.root.access))
            await until(lambda: backend.seen)
            client.reset()
        backend.seen[0].go_on.set()
        await until(backend.seen[0].ended.is_set)
        assert backend.seen[0].closed_with == (None, None)
        await site.quiet()
        assert (await site.line("/deaf/vanish"))["status"] == 101


async def test_a_backend_that_breaks_off_ends_the_client(site: TunnelSite) -> None:
    async def script(peer: Peer) -> None:
        await peer.read()
        await peer.reset()

    async with Backend(accepting(script), listening=site.raw), connect(site.gateway.address) as client:
        await opened(client, handshake("/raw/breaks", token=site.root.access))
        await client.send(b"hello")
        assert await client.closed() == b""
        assert (await site.line("/raw/breaks"))["status"] == 101
        await site.quiet()


async def test_what_was_said_before_the_end_still_arrives(site: TunnelSite) -> None:
    """Also when the gateway heard long ago that this side is done."""
    last_words = os.urandom(256 * 1024)

    async def script(peer: Peer) -> None:
        await peer.send(last_words)

    async with (
        Backend(accepting(script), listening=site.raw) as backend,
        connect(site.gateway.address) as client,
    ):
        await opened(client, handshake("/raw/x", token=site.root.access))
        await until(lambda: backend.peers[0].ended.is_set())
        assert await client.closed() == last_words


async def test_a_silent_tunnel_is_ended(site: TunnelSite) -> None:
    async with WebSocketBackend(site.talk) as backend:
        async with site.door(site.root).connect("/brief/echo/silent") as client:
            async with asyncio.timeout(IDLE + 3):
                await client.wait_closed()
            assert client.close_code == 1006  # no close frame: nobody puts words into the ends' mouths
        await until(backend.seen[0].ended.is_set)
        line = await site.line("/brief/echo/silent")
        assert 0.75 < line["durationMs"] / 1000 / IDLE < 3  # by a clock that is looked at five times a second


async def test_either_sides_bytes_keep_a_tunnel(site: TunnelSite) -> None:
    """One direction is enough: whoever only listens is not idle."""
    end = asyncio.Event()

    async def script(peer: Peer) -> None:
        if peer.requests[0].target.endswith(b"listens"):
            while not end.is_set():
                await peer.send(b".")
                await asyncio.sleep(IDLE / 4)
        else:
            await peer.closed()

    async with (
        Backend(accepting(script), listening=site.talk),
        connect(site.gateway.address) as listens,
        connect(site.gateway.address) as speaks,
    ):
        await opened(listens, handshake("/brief/listens", token=site.root.access))
        await opened(speaks, handshake("/brief/speaks", token=site.root.access))
        for _ in range(8):  # twice as long as a silent one may last
            await speaks.send(b".")
            await listens.read(1)
            await asyncio.sleep(IDLE / 4)
        assert not site.lines("/brief/listens") + site.lines("/brief/speaks")
        end.set()


# -- with the right to have it ------------------------------------------------------------------------------


async def _by_logging_out(site: TunnelSite, who: Person) -> None:
    told = await site.ask("POST", "/auth/logout", json_body={"refreshToken": who.refresh})
    assert told.status == 204


async def _by_another_password(site: TunnelSite, who: Person) -> None:
    """From another session of the same person."""
    other = await asyncio.to_thread(site.log_in, who.email)
    passwords = {"currentPassword": PASSWORD, "newPassword": "quite another password"}
    told = await site.ask("POST", "/auth/password", token=other.access, json_body=passwords)
    assert told.status == 204


async def _by_the_command_line(site: TunnelSite, who: Person) -> None:
    """In another process: only the database tells the gateway."""
    done = await asyncio.to_thread(site.command, "users", "disable", who.email)
    assert done.returncode == 0, done.stderr


async def _by_deletion(site: TunnelSite, who: Person) -> None:
    told = await site.ask("DELETE", f"/auth/users/{who.id}", token=site.root.access)
    assert told.status == 204


async def _by_running_out(site: TunnelSite, who: Person) -> None:
    """The last seconds of a session that nobody refreshed: there is a week before it, so the row is told."""
    end = int(time.time()) + 2
    with (
        contextlib.closing(sqlite3.connect(site.folder / "gateway.db", timeout=PATIENCE)) as database,
        database,
    ):
        database.execute("UPDATE sessions SET expires_at = ? WHERE user_id = ?", (end, who.id))
    await asyncio.sleep(end - time.time())


def _by_a_change(**changes: Any) -> End:
    async def end(site: TunnelSite, who: Person) -> None:
        told = await site.ask("PATCH", f"/auth/users/{who.id}", token=site.root.access, json_body=changes)
        assert told.status == 200, told.body

    return end


ENDS: dict[str, End] = {
    "logout": _by_logging_out,
    "another password": _by_another_password,
    "the command line": _by_the_command_line,
    "deletion": _by_deletion,
    "running out": _by_running_out,
    "disabled": _by_a_change(disabled=True),
    "other roles": _by_a_change(roles=["auditor"]),
    "an admin's right": _by_a_change(isAdmin=True),
}


@pytest.mark.parametrize("end", ENDS)
async def test_tunnels_and_streams_end_with_the_right_to_them(site: TunnelSite, end: str) -> None:
    who, bystander = await site.person(roles=["analyst"]), await site.person()
    async with (
        WebSocketBackend(site.talk) as backend,
        streaming(site),
        site.door(who).connect("/analysts/echo") as tunnel,
        site.door(who).connect("/public/echo") as known,  # it told the backend who that is
        site.door(bystander).connect("/echo") as others,
        site.door(None).connect("/public/echo") as anonymous,
        stream(site, who, "/app") as events,
        stream(site, bystander, "/app") as others_events,
        stream(site, None, "/app/public") as anonymous_events,
    ):
        await ENDS[end](site, who)
        async with asyncio.timeout(SOON):
            await asyncio.gather(tunnel.wait_closed(), known.wait_closed())
            rest = await events.closed()
        assert (tunnel.close_code, known.close_code) == (1006, 1006)
        assert not rest.endswith(b"0\r\n\r\n")  # a stream that was cut looks cut
        assert (await site.ask("GET", "/echo", token=who.access)).status == 401

        for alive in (others, anonymous):
            await alive.send("still here")
            assert await alive.recv() == "still here"
        for flowing in (others_events, anonymous_events):
            assert b"data: " in await flowing.read(500)
        await until(lambda: sum(seen.ended.is_set() for seen in backend.seen) == 2)
    await site.quiet()


async def test_a_refresh_ends_nothing(site: TunnelSite) -> None:
    who = await site.person()
    async with WebSocketBackend(site.talk), site.door(who).connect("/echo") as tunnel:
        told = await site.ask("POST", "/auth/refresh", json_body={"refreshToken": who.refresh})
        assert told.status == 200
        await tunnel.send("still here")
        assert await tunnel.recv() == "still here"


async def test_a_tunnel_may_be_bound_to_its_tokens_end(site: TunnelSite) -> None:
    """`tunnels: until_exp`; everywhere else it outlives the token, not the session."""
    who = await site.person()
    token = site.short(who, seconds=2)
    began = time.monotonic()
    async with (
        WebSocketBackend(site.talk),
        streaming(site),
        site.door(token).connect("/expiring/echo") as bound,
        site.door(token).connect("/echo") as free,
        stream(site, token, "/app/expiring") as bound_events,
        stream(site, token, "/app") as free_events,
    ):
        async with asyncio.timeout(2 + SOON):
            await bound.wait_closed()
            await bound_events.closed()
        assert time.monotonic() - began > 1  # `exp` counts whole seconds
        await free.send("still here")
        assert await free.recv() == "still here"
        assert b"data: " in await free_events.read(500)
        assert (await site.ask("GET", "/echo", token=token)).status == 401
        await _by_logging_out(site, who)
        async with asyncio.timeout(SOON):
            await free.wait_closed()
            await free_events.closed()


async def test_a_reload_that_takes_the_right_away_ends_the_tunnel(tmp_path: Path) -> None:
    with tunnel_site(tmp_path) as site:
        who = await site.person(roles=["analyst"])
        async with (
            WebSocketBackend(site.talk),
            streaming(site),
            site.door(who).connect("/analysts/echo") as loses,
            site.door(who).connect("/echo") as keeps,
            stream(site, who, "/app") as loses_events,
        ):
            written = site.config.read_text()
            written = written.replace("any: [analyst]", "any: [auditor]")
            site.config.write_text(written.replace("/app/**, allow: authenticated", "/app/**, allow: admin"))
            site.gateway.process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(SOON):
                await loses.wait_closed()
                await loses_events.closed()
            await keeps.send("still here")
            assert await keeps.recv() == "still here"


# -- with the gateway ----------------------------------------------------------------------------------------


async def test_tunnels_have_the_drain_time_to_end(tmp_path: Path) -> None:
    with tunnel_site(tmp_path, drain="2s") as site:
        async with (
            WebSocketBackend(site.talk) as backend,
            site.door(site.root).connect("/echo/ends") as ends,
            site.door(site.root).connect("/echo/stays") as stays,
        ):
            began = time.monotonic()
            site.gateway.process.send_signal(signal.SIGTERM)
            await until(lambda: not _listens(site))
            for client in (ends, stays):
                await client.send("still here")
                assert await client.recv() == "still here"
            await ends.close(4001, "on my own")
            await until(lambda: any(seen.closed_with == (4001, "on my own") for seen in backend.seen))
            await stays.wait_closed()
            assert stays.close_code == 1006
            assert await asyncio.to_thread(site.gateway.process.wait, 10) == 0
            assert 2 <= time.monotonic() - began < 5
        assert {
            line["status"] for line in (await site.line("/echo/ends"), await site.line("/echo/stays"))
        } == {101}


async def test_without_tunnels_the_drain_is_short(tmp_path: Path) -> None:
    with tunnel_site(tmp_path, drain="30s") as site:
        async with WebSocketBackend(site.talk), site.door(site.root).connect("/echo") as client:
            began = time.monotonic()
            site.gateway.process.send_signal(signal.SIGTERM)
            await until(lambda: not _listens(site))
            await client.close()
            assert await asyncio.to_thread(site.gateway.process.wait, 10) == 0
            assert time.monotonic() - began < 5


def _listens(site: TunnelSite) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(site.gateway.address, 1):
        return True
    return False


# -- what is written down ------------------------------------------------------------------------------------


async def test_a_tunnel_has_one_line_when_it_ends(site: TunnelSite) -> None:
    await site.quiet()
    async with Backend(accepting(echo_bytes), listening=site.raw), connect(site.gateway.address) as client:
        sent = handshake("/raw/line", token=site.root.access)
        await opened(client, sent + b"ahead ")
        await client.send(b"and afterwards")
        assert await client.read(20) == b"ahead and afterwards"
        assert await site.metric("gateway_requests_in_flight") == 1
        assert not site.lines("/raw/line")
        client.half_close()
        assert await client.closed() == b""
    line = await site.line("/raw/line")
    assert (line["method"], line["status"], line["route"]) == ("GET", 101, "/raw/**")
    assert (line["user"], line["verdict"], line["reason"]) == (site.root.id, "allow", "logged_in")
    assert (line["bytesIn"], line["bytesOut"]) == (20, 20)
    assert line["upstream"].endswith(str(site.raw.getsockname()[1]))
    assert line["durationMs"] >= line["upstreamMs"] > 0
    await site.quiet()


async def test_what_was_compressed_stays_compressed(site: TunnelSite) -> None:
    async with WebSocketBackend(site.talk), site.door(site.root).connect("/echo/deflated") as client:
        await client.send("all the same " * 100_000)
        await client.recv()
    line = await site.line("/echo/deflated")
    assert 0 < line["bytesIn"] < 50_000
    assert 0 < line["bytesOut"] < 50_000


async def test_a_denied_and_a_refused_upgrade_have_the_lines_of_requests(site: TunnelSite) -> None:
    async with WebSocketBackend(site.talk):
        for path, token in (("/denied/line?status=418", site.root.access), ("/echo/refused", None)):
            with pytest.raises(InvalidStatus):
                async with site.door(token).connect(path):
                    pass
    denied, refused = await site.line("/denied/line"), await site.line("/echo/refused")
    assert (denied["status"], denied["verdict"], denied["reason"]) == (418, "allow", "default")
    assert (refused["status"], refused["verdict"], refused["reason"]) == (401, "deny", "no_credential")


async def test_no_token_is_logged(site: TunnelSite) -> None:
    async with (
        WebSocketBackend(site.talk),
        site.door(site.root).connect("/echo/secret", as_subprotocol=True) as client,
    ):
        await client.send("hello")
    await site.line("/echo/secret")
    assert site.root.access.split(".")[2] not in json.dumps(site.gateway.lines)
