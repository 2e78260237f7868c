"""Who gets which connection, who waits, and what is left behind: nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from gateway.errors import BadGateway, Overloaded, UpstreamTimeout, UpstreamUnavailable
from gateway.proxy.upstream.address import Address, Tls
from gateway.proxy.upstream.pool import Pool
from gateway.proxy.upstream.settings import Settings
from tests.support.backend import Backend, Peer, answering, echo, response
from tests.support.forwarding import Clock, pool_for, talk, until

pytestmark = pytest.mark.anyio


class Valve:
    """A backend that answers only when it is told to."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.request()
            await self.open.wait()
            await peer.send(response(b"ok"))


async def test_no_more_connections_than_allowed_and_nobody_is_forgotten() -> None:
    valve = Valve()
    async with Backend(valve) as backend:
        pool = pool_for(backend.url, connections=3)
        talks = [talk(pool) for _ in range(20)]
        await until(lambda: len(backend.requests) == 3)
        assert (pool.busy_count, pool.waiting_count) == (3, 17)
        valve.open.set()
        for each in talks:
            assert (await each.ended()).outcome == "finish"
        assert len(backend.peers) == 3
        assert (pool.busy_count, pool.waiting_count, pool.idle_count) == (0, 0, 3)
        pool.close()
        assert (pool.idle_count, len(pool.ticker)) == (0, 0)


async def test_first_come_first_served() -> None:
    valve = Valve()
    async with Backend(valve) as backend:
        pool = pool_for(backend.url, connections=1)
        talks = [talk(pool, target=b"/%d" % number) for number in range(5)]
        valve.open.set()
        for each in talks:
            await each.ended()
        assert [request.target for request in backend.requests] == [b"/0", b"/1", b"/2", b"/3", b"/4"]
        pool.close()


async def test_a_full_queue_refuses_at_once() -> None:
    async with Backend(Valve()) as backend:
        pool = pool_for(backend.url, connections=1, queue=2)
        held = [talk(pool) for _ in range(3)]
        port = await talk(pool).ended()
        assert isinstance(port.error, Overloaded)
        assert port.error.retry_after
        for each in held:
            each.exchange.client_gone()
        assert repr(pool) == "<Pool 'app': 0 busy, 0 idle, 0 opening, 0 waiting>"


async def test_waiting_ends_in_time() -> None:
    clock = Clock()
    async with Backend(Valve()) as backend:
        pool = pool_for(backend.url, clock=clock, connections=1, queue_timeout=2.0)
        first, second = talk(pool), talk(pool)
        await until(lambda: backend.requests)
        clock.pass_by(1.9, pool)
        assert not second.port.outcome
        clock.pass_by(0.2, pool)
        port = await second.ended()
        assert isinstance(port.error, UpstreamUnavailable)
        assert port.status == 503
        assert (pool.waiting_count, first.port.outcome) == (0, "")
        first.exchange.client_gone()
        assert len(pool.ticker) == 0


async def test_a_client_that_leaves_the_queue_leaves_nothing() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.hang()

    async with Backend(script) as backend:
        pool = pool_for(backend.url, connections=1)
        first, second = talk(pool), talk(pool)
        await until(lambda: backend.requests)
        second.exchange.client_gone()
        assert (pool.waiting_count, second.record.status, second.record.reason) == (0, 499, "client_gone")
        first.exchange.client_gone()
        await until(lambda: backend.open == 0)
        assert (pool.busy_count, pool.idle_count, len(pool.ticker)) == (0, 0, 0)


async def test_a_client_that_leaves_while_we_connect_stops_the_attempt() -> None:
    async with Backend(echo) as backend:
        pool = pool_for(backend.url)
        asked = talk(pool)
        assert pool.opening_count == 1
        asked.exchange.client_gone()
        assert (pool.opening_count, pool.waiting_count) == (0, 0)
        await asyncio.sleep(0.01)
        assert repr(pool) == "<Pool 'app': 0 busy, 0 idle, 0 opening, 0 waiting>"
        assert not backend.requests


async def test_the_last_used_is_used_next_and_the_others_grow_old() -> None:
    clock, valve = Clock(), Valve()
    async with Backend(valve) as backend:
        pool = pool_for(backend.url, clock=clock, keep_alive=4.0)
        talks = [talk(pool) for _ in range(3)]
        await until(lambda: len(backend.requests) == 3)
        valve.open.set()
        for each in talks:
            await each.ended()
        clock.pass_by(3, pool)
        await talk(pool).ended()
        clock.pass_by(2, pool)
        assert pool.idle_count == 1
        clock.pass_by(5, pool)
        await until(lambda: backend.open == 0)
        assert (pool.idle_count, len(pool.ticker)) == (0, 0)


async def test_the_backends_own_keep_alive_is_believed_if_shorter() -> None:
    clock = Clock()
    async with Backend(answering(response(b"ok", (b"Keep-Alive", b"max=9, timeout=3")))) as backend:
        pool = pool_for(backend.url, clock=clock)
        await talk(pool).ended()
        clock.pass_by(2.1, pool)
        assert pool.idle_count == 0


async def test_an_idle_connection_that_speaks_is_closed() -> None:
    async with Backend(echo) as backend:
        pool = pool_for(backend.url, clock=Clock())  # no time passes: it is not closed for being idle
        await talk(pool).ended()
        await backend.peers[0].send(response(b"evil"))
        await until(lambda: pool.idle_count == 0)
        assert (await talk(pool, target=b"/x").ended()).body.startswith(b"GET /x")
        pool.close()


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_get_survives_the_backend_closing_at_that_very_moment(end: str) -> None:
    """The backend closes the idle connection when the request is already under way, five times over."""
    served = 0

    async def script(peer: Peer) -> None:
        nonlocal served
        if len(backend.peers) % 2:  # every other connection dies when its second request comes
            await peer.request()
            await peer.send(response(b"ok"))
            await peer.head()
            if end == "reset":
                await peer.reset()
        else:
            await peer.request()
            served += 1
            await peer.send(response(b"again", (b"Connection", b"close")))

    async with Backend(script) as backend:
        pool = pool_for(backend.url)
        for _ in range(5):
            assert (await talk(pool).ended()).body == b"ok"
            assert (await talk(pool).ended()).body == b"again"
        assert served == 5


async def test_only_once_and_only_what_can_be_asked_twice() -> None:
    async def script(peer: Peer) -> None:
        if len(backend.peers) == 1:
            await peer.request()
            await peer.send(response(b"ok"))
        await peer.head()

    async with Backend(script) as backend:
        pool = pool_for(backend.url)
        await talk(pool).ended()
        assert isinstance((await talk(pool).ended()).error, BadGateway)
        assert len(backend.requests) == 3, "the retry, on a connection of its own, was the last"

    async with Backend(script) as backend:
        pool = pool_for(backend.url)
        await talk(pool).ended()
        asked = talk(pool, b"POST", body=0)
        assert isinstance((await asked.ended()).error, BadGateway)
        assert len(backend.requests) == 2


async def test_nothing_is_resent_once_a_byte_came_back() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(response(b"ok"))
        await peer.request()
        await peer.send(b"HTTP/1.1 2")

    async with Backend(script) as backend:
        pool = pool_for(backend.url)
        await talk(pool).ended()
        assert isinstance((await talk(pool).ended()).error, BadGateway)
        assert len(backend.requests) == 2


async def test_a_post_looks_before_it_leaps() -> None:
    """The FIN has arrived but the event loop has not seen it yet; the kernel has."""
    async with Backend(echo) as backend:
        pool = pool_for(backend.url)
        await talk(pool).ended()
        backend.peers[0].writer.get_extra_info("socket").shutdown(1)
        asked = talk(pool, b"POST", body=2)
        await asked.port.may_feed.wait()
        asked.exchange.feed(b"hi")
        asked.exchange.feed_end()
        assert (await asked.ended()).body.endswith(b"hi")
        assert len(backend.peers) == 2
        pool.close()


async def test_the_retry_does_not_take_the_next_stale_one() -> None:
    valve = Valve()
    valve.open.set()
    async with Backend(valve) as backend:
        pool = pool_for(backend.url, connections=2)
        first, second = talk(pool), talk(pool)
        await first.ended()
        await second.ended()
        for peer in backend.peers:
            peer.writer.get_extra_info("socket").shutdown(1)
        port = await talk(pool).ended()
        assert (port.outcome, port.body) == ("finish", b"ok")
        pool.close()


# -- opening -----------------------------------------------------------------------


async def test_refused_is_503_and_the_other_server_is_asked_first() -> None:
    dead = await _dead_port()
    port = await talk(pool_for(f"http://127.0.0.1:{dead}")).ended()
    assert isinstance(port.error, UpstreamUnavailable)
    assert str(dead) not in port.error.detail
    async with Backend(echo) as backend:
        pool = pool_for(f"http://127.0.0.1:{dead}", backend.url)
        for _ in range(4):
            assert (await talk(pool).ended()).status == 200
        pool.close()


async def test_an_unknown_name_is_503() -> None:
    port = await talk(pool_for("http://nowhere.invalid:80")).ended()
    assert isinstance(port.error, UpstreamUnavailable)
    port = await talk(pool_for(f"http://{'a' * 70}.invalid")).ended()
    assert port.status in (502, 503)


async def test_no_answer_to_connect_is_504(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: Address, protocol: object, context: ssl.SSLContext) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Address, "open", never)
    pool = pool_for("http://127.0.0.1:9", connect=0.01)
    port = await talk(pool).ended()
    assert isinstance(port.error, UpstreamTimeout)
    assert repr(pool) == "<Pool 'app': 0 busy, 0 idle, 0 opening, 0 waiting>"


async def test_several_servers_share_the_work() -> None:
    valve = Valve()
    async with Backend(valve) as one, Backend(valve) as two:
        pool = pool_for(one.url, two.url)
        talks = [talk(pool) for _ in range(10)]
        await until(lambda: len(one.requests) + len(two.requests) == 10)
        assert (len(one.requests), len(two.requests)) == (5, 5)
        valve.open.set()
        for each in talks:
            await each.ended()
        for _ in range(10):
            await talk(pool).ended()
        assert len(one.requests) + len(two.requests) == 20
        assert abs(len(one.requests) - len(two.requests)) <= 2
        assert len(one.peers) == len(two.peers) == 5
        pool.close()


async def test_a_backend_that_hangs_up_at_once_is_broken() -> None:
    async def script(peer: Peer) -> None:
        await peer.reset()

    async with Backend(script) as backend:
        port = await talk(pool_for(backend.url)).ended()
        assert port.status == 502


async def test_a_unix_socket(tmp_path: Path) -> None:
    async with Backend(echo, unix=tmp_path / "s") as backend:
        pool = pool_for(backend.url)
        asked = talk(pool)
        assert (await asked.ended()).status == 200
        assert asked.record.upstream == f"unix:{tmp_path}/s"
        pool.close()


async def test_small_packets_are_not_held_back() -> None:
    async with Backend(echo) as backend:
        pool = pool_for(backend.url)
        asked = talk(pool, b"POST", body=1)
        await asked.port.may_feed.wait()
        connection = asked.exchange._connection
        assert connection is not None
        sock = connection._transport.get_extra_info("socket")  # type: ignore[union-attr]
        import socket

        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert repr(connection) == f"<Connection to 127.0.0.1:{backend.port}, busy, 1 requests>"
        asked.exchange.client_gone()
        assert "closed" in repr(connection)


async def test_a_closed_pool_serves_nobody_but_lets_the_running_ones_end() -> None:
    valve = Valve()
    async with Backend(valve) as backend:
        pool = pool_for(backend.url, connections=1)
        running, waiting = talk(pool), talk(pool)
        await until(lambda: backend.requests)
        pool.close()
        assert isinstance((await waiting.ended()).error, UpstreamUnavailable)
        assert isinstance((await talk(pool).ended()).error, UpstreamUnavailable)
        valve.open.set()
        assert (await running.ended()).outcome == "finish"
        assert (pool.idle_count, pool.busy_count) == (0, 0)
    pool = pool_for(backend.url)
    asked = talk(pool)
    pool.close()
    assert isinstance((await asked.ended()).error, UpstreamUnavailable)


# -- TLS ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _server_side(authority: trustme.CA, name: str, *protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def _trusting(authority: trustme.CA, folder: Path, issued: str = "") -> Tls:
    """The files of a gateway that trusts this authority, and has a certificate of its own."""
    ca, certificate, key = (str(folder / name) for name in ("ca.pem", "own.pem", "own.key"))
    authority.cert_pem.write_to_path(ca)
    if not issued:
        return Tls.read(ca)
    own = authority.issue_cert(issued)
    own.private_key_pem.write_to_path(key)
    for number, blob in enumerate(own.cert_chain_pems):
        blob.write_to_path(certificate, append=number > 0)
    return Tls.read(ca, certificate, key)


async def test_tls_with_the_right_name(authority: trustme.CA, tmp_path: Path) -> None:
    names: list[str | None] = []
    server = _server_side(authority, "localhost", "h2", "http/1.1")
    server.sni_callback = lambda _socket, name, _context: names.append(name)
    chosen: list[object] = []

    async def script(peer: Peer) -> None:
        chosen.append(peer.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await echo(peer)

    async with Backend(script, tls=server, host="localhost") as backend:
        pool = pool_for(backend.url, tls=_trusting(authority, tmp_path))
        assert (await talk(pool).ended()).status == 200
        assert (await talk(pool).ended()).status == 200
        assert (names, chosen) == (["localhost"], ["http/1.1"])
        asked = talk(pool, b"POST", body=2)
        await asked.port.may_feed.wait()
        asked.exchange.feed(b"hi")
        asked.exchange.feed_end()
        assert (await asked.ended()).body.endswith(b"hi")
        pool.close()


@pytest.mark.parametrize("wrong", ["name", "authority"])
async def test_a_certificate_that_does_not_hold_is_502_and_the_log_says_why(
    wrong: str, authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = _server_side(authority, "other.example" if wrong == "name" else "localhost")
    trusted = authority if wrong == "name" else trustme.CA()
    async with Backend(echo, tls=server, host="localhost") as backend:
        pool = pool_for(backend.url, tls=_trusting(trusted, tmp_path))
        port = await talk(pool).ended()
        assert isinstance(port.error, BadGateway)
        assert port.error.detail == BadGateway.sentence
        assert "certificate verify failed" in caplog.text
        assert not backend.requests


async def test_the_systems_authorities_count_if_no_others_are_named() -> None:
    async with Backend(echo, tls=_server_side(trustme.CA(), "localhost"), host="localhost") as backend:
        assert (await talk(pool_for(backend.url)).ended()).status == 502


async def test_another_name_than_the_hosts(authority: trustme.CA, tmp_path: Path) -> None:
    names: list[str | None] = []
    server = _server_side(authority, "app.internal")
    server.sni_callback = lambda _socket, name, _context: names.append(name)
    async with Backend(echo, tls=server) as backend:
        address = Address("127.0.0.1", backend.port, tls=True, server_name="app.internal")
        settings = Settings(servers=(address,), tls=_trusting(authority, tmp_path))
        pool = Pool(name="app", settings=settings)
        assert (await talk(pool).ended()).status == 200
        assert names == ["app.internal"]
        pool.close()


async def test_a_backend_that_asks_who_we_are(authority: trustme.CA, tmp_path: Path) -> None:
    server = _server_side(authority, "localhost")
    server.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(server)
    seen: list[object] = []

    async def script(peer: Peer) -> None:
        seen.append(peer.writer.get_extra_info("peercert")["subjectAltName"])
        await echo(peer)

    async with Backend(script, tls=server, host="localhost") as backend:
        pool = pool_for(backend.url, tls=_trusting(authority, tmp_path, "gateway.internal"))
        assert (await talk(pool).ended()).status == 200
        assert seen == [(("DNS", "gateway.internal"),)]
        pool.close()
        nobody = pool_for(backend.url, tls=_trusting(authority, tmp_path))
        assert (await talk(nobody).ended()).status == 502
        assert len(seen) == 1


@pytest.mark.parametrize("broken", ["ca", "certificate", "key"])
def test_a_file_that_cannot_be_used_is_named(broken: str, authority: trustme.CA, tmp_path: Path) -> None:
    tls = _trusting(authority, tmp_path, "gateway.internal")
    file = getattr(tls, broken)
    Path(file).write_text("no PEM")
    with pytest.raises(OSError, match=Path(file).name):
        tls.context()
    Path(file).unlink()
    with pytest.raises(OSError, match=Path(file).name):
        Tls.read(tls.ca, tls.certificate, tls.key)
    os.mkfifo(file)
    with pytest.raises(OSError, match=f"not a regular file.*{Path(file).name}"):
        Tls.read(tls.ca, tls.certificate, tls.key)


def test_an_encrypted_key_is_refused_and_nobody_is_asked(authority: trustme.CA, tmp_path: Path) -> None:
    tls = _trusting(authority, tmp_path, "gateway.internal")
    assert tls.key is not None
    key = serialization.load_pem_private_key(Path(tls.key).read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    formats = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    Path(tls.key).write_bytes(key.private_bytes(*formats, secret))
    with pytest.raises(OSError, match=r"own\.key"):
        tls.context()


def test_files_written_anew_are_other_settings(authority: trustme.CA, tmp_path: Path) -> None:
    before = _trusting(authority, tmp_path, "gateway.internal")
    assert before == Tls.read(before.ca, before.certificate, before.key)
    assert before != _trusting(authority, tmp_path, "gateway.internal")
    before = _trusting(authority, tmp_path, "gateway.internal")
    found = Path(before.ca or "").stat()
    Path(before.ca or "").write_bytes(b"x" * found.st_size)
    os.utime(before.ca or "", ns=(found.st_atime_ns, found.st_mtime_ns))
    assert before != Tls.read(before.ca, before.certificate, before.key)


async def test_plain_http_behind_a_tls_address_is_502(authority: trustme.CA, tmp_path: Path) -> None:
    async with Backend(answering(b"HTTP/1.1 400 Bad\r\n\r\n")) as backend:
        pool = pool_for(backend.url.replace("http", "https"), tls=_trusting(authority, tmp_path), connect=1.0)

        async def nonsense(peer: Peer) -> None:
            await peer.read()
            await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        backend.script = nonsense
        assert (await talk(pool).ended()).status == 502


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": uvloop}) for uvloop in (False, True)])
@pytest.mark.parametrize("patient", [True, False])
@pytest.mark.parametrize("alert", [True, False])
async def test_a_body_without_a_length_is_whole_only_if_tls_says_so(
    alert: bool, patient: bool, authority: trustme.CA, tmp_path: Path
) -> None:
    """Anybody on the way can send a FIN. And uvloop loses what was unread when it came without the alert."""
    body = b"x" * 300_000
    sent = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n", body)
        sent.set()
        await until(lambda: not peer.writer.transport.get_write_buffer_size())
        if not alert:
            peer.abort()

    async with Backend(script, tls=_server_side(authority, "localhost"), host="localhost") as backend:
        asked = talk(pool_for(backend.url, tls=_trusting(authority, tmp_path)))
        await asked.port.started.wait()
        if not patient:
            asked.exchange.pause()
            await sent.wait()
            asked.exchange.resume()
        port = await asked.ended()
        if alert:
            assert (port.outcome, port.body) == ("finish", body)
        else:
            assert (port.outcome, asked.record.reason) == ("abort", "upstream_broken")


# -- addresses ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://a.example", "a.example:80"),
        ("https://a.example/", "a.example:443"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
    ],
)
def test_addresses(url: str, shown: str) -> None:
    assert str(Address.from_url(url)) == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.example",
        "ftp://a",
        "http://",
        "http://a/base",
        "http://u@a",
        "http://a?x",
        "unix:rel",
        "http://a#f",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match="upstream URL"):
        Address.from_url(url)


async def _dead_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def test_bytes_that_wait_in_an_idle_connection_are_nobodys_answer() -> None:
    """They may have arrived in the very moment: the event loop has not seen them when the next one comes."""
    evil = response(b"for somebody else")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        pool = pool_for(f"http://127.0.0.1:{listener.getsockname()[1]}")
        first = talk(pool)
        await until(lambda: pool.opening_count == 0 and pool.busy_count)
        peer, _ = listener.accept()
        with peer:
            peer.recv(65536)
            peer.sendall(response(b"first"))
            assert (await first.ended()).body == b"first"
            peer.sendall(evil)
            second = talk(pool)  # with no turn of the loop between
            await until(lambda: pool.busy_count)
            other, _ = listener.accept()
            with other:
                other.recv(65536)
                other.sendall(response(b"second"))
                assert (await second.ended()).body == b"second"
        pool.close()
