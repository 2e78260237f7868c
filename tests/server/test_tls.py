"""TLS on the listener: what is served, what is refused, and how a certificate is renewed."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGHUP
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.server.certificates import BadCertificate, Certificates, Fault, faults
from gateway.server.run import Ready
from gateway.server.sockets import Address
from gateway.server.terms import Limits, Refusal, Timeouts
from tests.support.life import LOCAL, Life, get, soon, terminate

AUTHORITY = trustme.CA()
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
SERVER_AUTH, CLIENT_AUTH = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
HUNG_UP = (ConnectionError, ssl.SSLError)
PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
FUTURE = datetime.datetime(2300, 1, 1, tzinfo=datetime.UTC)


class Files:
    """A certificate and its key in a folder, and ways to change them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        self.write()

    def write(self, name: str = "localhost", **dates: datetime.datetime) -> trustme.LeafCert:
        issued = AUTHORITY.issue_cert(name, **dates)
        self.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())
        return issued

    def faults(self) -> list[Fault]:
        return faults(self.certificate, self.key)

    def opened(self) -> Certificates:
        return Certificates(self.certificate, self.key)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


# -- the files -----------------------------------------------------------------------------------------------


def test_a_good_pair_has_no_fault(files: Files) -> None:
    assert files.faults() == []
    assert files.opened().expires > time.time()


def test_one_file_may_hold_both(files: Files) -> None:
    files.certificate.write_bytes(files.key.read_bytes() + files.certificate.read_bytes())
    assert faults(files.certificate, files.certificate) == []


def encrypted(files: Files) -> None:
    key = load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))


def of_another(files: Files) -> None:
    files.key.write_bytes(AUTHORITY.issue_cert("localhost").private_key_pem.bytes())


def self_signed(files: Files, size: int, usage: x509.ObjectIdentifier) -> None:
    key = generate_private_key(65537, size)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, FUTURE)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .sign(key, SHA256())
    )
    files.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def truncated(path: Path) -> None:
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], lines[-1]]))


@pytest.mark.parametrize(
    ("spoil", "setting", "sentence"),
    [
        (
            lambda files: files.certificate.unlink(),
            "certificate",
            "tls.crt can't be read: no such file or directory",
        ),
        (lambda files: files.key.unlink(), "key", "tls.key can't be read: no such file or directory"),
        (
            lambda files: (files.key.unlink(), files.key.mkdir()),
            "key",
            "tls.key can't be read: is a directory",
        ),
        (
            lambda files: files.certificate.write_text("x"),
            "certificate",
            "tls.crt holds no certificate in PEM",
        ),
        (lambda files: files.key.write_text(""), "key", "tls.key holds no private key in PEM"),
        (
            lambda files: truncated(files.certificate),
            "certificate",
            "tls.crt holds a certificate that is damaged",
        ),
        (lambda files: truncated(files.key), "key", "tls.key holds a private key that is damaged"),
        (of_another, "key", "tls.key is not the key of FOLDER/tls.crt"),
        (encrypted, "key", "tls.key is encrypted, and nobody is there to be asked"),
        (
            lambda files: self_signed(files, 1024, SERVER_AUTH),
            "certificate",
            "tls.crt is too weak to be served: ee key too small",
        ),
        (lambda files: files.write(not_after=PAST), "certificate", "tls.crt expired on 2020-01-01 00:00 UTC"),
        (
            lambda files: files.write(not_before=FUTURE),
            "certificate",
            "tls.crt is not valid before 2300-01-01 00:00 UTC",
        ),
    ],
)
def test_each_fault_is_one_sentence(
    files: Files, spoil: Callable[[Files], object], setting: str, sentence: str
) -> None:
    spoil(files)
    (fault,) = files.faults()
    expected = f"{files.folder}/{sentence}".replace("FOLDER", str(files.folder))
    assert (fault.setting, fault.sentence, fault.warning) == (setting, expected, False)
    with pytest.raises(BadCertificate) as caught:
        files.opened()
    assert str(caught.value) == expected


def test_a_certificate_that_is_none_of_a_server_is_warned_about(files: Files) -> None:
    self_signed(files, 2048, CLIENT_AUTH)
    (fault,) = files.faults()
    assert fault.warning
    assert fault.sentence.endswith("tls.crt is one that clients refuse: unsuitable certificate purpose")
    files.opened()


# -- renewal -------------------------------------------------------------------------------------------------


def shown_by(certificates: Certificates) -> str:
    """The name in the certificate that a new client sees, by a handshake in memory."""
    client, upward, downward = trusting(), ssl.MemoryBIO(), ssl.MemoryBIO()
    client.check_hostname = False
    asking = client.wrap_bio(downward, upward)
    serving = certificates.context.wrap_bio(upward, downward, server_side=True)
    for side in (asking, serving, asking):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return name_in(asking.getpeercert())


def name_in(shown: Any) -> str:
    return str(shown["subjectAltName"][0][1])


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def test_a_renewed_pair_is_taken_up_at_the_second_look(files: Files) -> None:
    certificates = files.opened()
    assert shown_by(certificates) == "localhost"
    files.write("renewed.test")
    certificates.look()
    assert shown_by(certificates) == "localhost"
    certificates.look()
    assert shown_by(certificates) == "renewed.test"


def test_a_renewal_that_is_half_done_is_not_tried(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    certificates = files.opened()
    issued = AUTHORITY.issue_cert("renewed.test")
    files.certificate.write_bytes(issued.cert_chain_pems[0].bytes())
    certificates.look()
    files.key.write_bytes(issued.private_key_pem.bytes())
    certificates.look()
    certificates.look()
    assert shown_by(certificates) == "renewed.test"
    assert "not taken up" not in caplog.text


def test_a_bad_pair_is_told_once_and_the_old_one_stays(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    certificates = files.opened()
    of_another(files)
    for _ in range(5):
        certificates.look()
    assert shown_by(certificates) == "localhost"
    assert caplog.text.count("the new certificate is not taken up: ") == 1
    assert "tls.key is not the key of" in caplog.text
    files.write("repaired.test")
    certificates.look()
    certificates.look()
    assert shown_by(certificates) == "repaired.test"


def test_a_renewal_by_a_swapped_symlink(tmp_path: Path) -> None:
    """As the kubelet does it: tls.crt is a link to ..data/tls.crt, and ..data one to a folder of a date."""
    for folder, name in (("..2026_01", "first.test"), ("..2026_02", "second.test")):
        (tmp_path / folder).mkdir()
        Files(tmp_path / folder).write(name)
    (tmp_path / "..data").symlink_to("..2026_01")
    for file in ("tls.crt", "tls.key"):
        (tmp_path / file).symlink_to(f"..data/{file}")
    certificates = Certificates(tmp_path / "tls.crt", tmp_path / "tls.key")
    assert shown_by(certificates) == "first.test"
    (tmp_path / "..data_tmp").symlink_to("..2026_02")
    os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
    certificates.look()
    certificates.look()
    assert shown_by(certificates) == "second.test"


def test_a_pipe_in_their_place_makes_nobody_wait(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    certificates = files.opened()
    files.key.unlink()
    os.mkfifo(files.key)
    for _ in range(3):
        certificates.look()
    assert caplog.text.count("the new certificate is not taken up: ") == 1
    assert shown_by(certificates) == "localhost"
    assert [fault.setting for fault in files.faults()] == ["key"]


# -- the listener --------------------------------------------------------------------------------------------


class Secured(Life):
    """A run with TLS, whose app remembers how it was asked."""

    def __init__(self, files: Files) -> None:
        super().__init__()
        self.files = files
        self.scopes: list[Any] = []

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await super().app(scope, receive, send)

    def serve(self, scenario: Callable[[Ready], None], **settings: Any) -> int:
        return super().serve(scenario, certificates=self.files.opened(), **settings)


@pytest.fixture(params=["uvloop", "asyncio"])
def life(request: pytest.FixtureRequest, files: Files, monkeypatch: pytest.MonkeyPatch) -> Secured:
    if request.param == "asyncio":
        monkeypatch.setitem(sys.modules, "uvloop", None)
    return Secured(files)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever clients do, nothing is logged that would wake a person, except where a test says so."""
    yield
    loud = [record for record in caplog.records if record.levelno > logging.INFO]
    expected = ("the new certificate is not taken up", "Cancel ")
    assert [record for record in loud if not record.getMessage().startswith(expected)] == []


def dial(where: str) -> socket.socket:
    host, _, port = where.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


@contextlib.contextmanager
def connected(where: str) -> Iterator[ssl.SSLSocket]:
    context = trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        dial(where) as plain,
        context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as client,
    ):
        yield client


def ask(client: socket.socket, request: bytes = GET) -> bytes:
    """One request, and the answer up to its two bytes of body."""
    client.sendall(request)
    answer = b""
    while not answer.endswith(b"\r\n\r\nok"):
        answer += client.recv(1000)
    return answer


def hung_up(client: socket.socket) -> bool:
    with contextlib.suppress(*HUNG_UP):
        return client.recv(1) == b""
    return True


def to_the_end(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def test_a_request_over_tls(life: Secured) -> None:
    def scenario(where: Ready) -> None:
        with connected(where.listen[0]) as client:
            assert client.version() == "TLSv1.3"
            assert client.selected_alpn_protocol() == "http/1.1"
            for _ in range(2):
                assert ask(client).startswith(b"HTTP/1.1 200 OK\r\n")

    assert life.serve(scenario) == 0
    assert [scope["scheme"] for scope in life.scopes] == ["https", "https"]


def test_tls_1_2_is_the_oldest(life: Secured) -> None:
    def scenario(where: Ready) -> None:
        context = trusting()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with (
            dial(where.listen[0]) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as client,
        ):
            assert client.version() == "TLSv1.2"
            ask(client)
        context = trusting()
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = ssl.TLSVersion.TLSv1_1
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with dial(where.listen[0]) as plain, pytest.raises(ssl.SSLError):
            context.wrap_socket(plain, server_hostname="localhost")

    assert life.serve(scenario) == 0


def test_operators_and_unix_sockets_are_asked_in_plain(life: Secured, tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"

    def scenario(where: Ready) -> None:
        assert get(where.ops[0], "/readyz") == (200, b"ok")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            assert ask(client).startswith(b"HTTP/1.1 200 OK\r\n")
        with connected(where.listen[0]) as client:
            ask(client)

    assert life.serve(scenario, listen=[LOCAL, Address(path=str(path))]) == 0
    assert [scope["scheme"] for scope in life.scopes] == ["http", "http", "https"]


def test_plain_http_is_told_so_and_nothing_of_it_is_served(life: Secured) -> None:
    told: list[Refusal] = []

    def scenario(where: Ready) -> None:
        with dial(where.listen[0]) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + GET)
            answer = to_the_end(client)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"This port speaks HTTPS" in answer
        assert answer.count(b"HTTP/1.1 ") == 1

    assert life.serve(scenario, on_refused=told.append) == 0
    assert [refusal.error.code for refusal in told] == ["bad_request"]
    assert life.scopes == []


def test_a_handshake_that_goes_wrong_harms_nobody(life: Secured) -> None:
    def scenario(where: Ready) -> None:
        dial(where.listen[0]).close()  # a health check of a load balancer
        with dial(where.listen[0]) as client, pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(client, server_hostname="localhost")
        for broken in (b"\x16\x03\x01\x00\x05hello", b"\x16\x03", b"\x00", b"\x16" + b"\xff" * 70_000):
            with dial(where.listen[0]) as client, contextlib.suppress(*HUNG_UP):
                client.sendall(broken)
                with contextlib.suppress(OSError):  # it has hung up already
                    client.shutdown(socket.SHUT_WR)
                to_the_end(client)
        with connected(where.listen[0]) as client:
            ask(client)

    assert life.serve(scenario) == 0


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"])
def test_a_handshake_has_a_deadline(life: Secured, said: bytes) -> None:
    def scenario(where: Ready) -> None:
        with dial(where.listen[0]) as client:
            client.sendall(said)
            assert hung_up(client)

    assert life.serve(scenario, timeouts=Timeouts(headers=0.1)) == 0


def test_handshakes_count_as_connections(life: Secured) -> None:
    def scenario(where: Ready) -> None:
        with dial(where.listen[0]), dial(where.listen[0]), dial(where.listen[0]) as third:
            assert hung_up(third)
        soon(lambda: served(where))

    def served(where: Ready) -> bool:
        with contextlib.suppress(*HUNG_UP), connected(where.listen[0]) as client:
            return bool(ask(client))
        return False

    assert life.serve(scenario, limits=Limits(connections=2)) == 0


def test_nobody_who_only_dialled_holds_the_drain_up(life: Secured) -> None:
    def scenario(where: Ready) -> None:
        with dial(where.listen[0]), dial(where.listen[0]) as halfway, connected(where.listen[0]) as idle:
            halfway.sendall(b"\x16\x03\x01")
            ask(idle)
            terminate()
            assert idle.recv(1) == b""
            idle.unwrap().close()
            soon(lambda: "stop" in life.events)

    began = time.monotonic()
    assert life.serve(scenario) == 0
    assert time.monotonic() - began < 5


def test_a_closed_answer_ends_at_once_and_cleanly(life: Secured) -> None:
    """Without close_notify the end could be an attacker's (RFC 8446 §6.1); a client can wait for it."""

    def scenario(where: Ready) -> None:
        for request in (
            b"GET / HTTP/1.0\r\n\r\n",
            GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        ):
            with connected(where.listen[0]) as client:
                client.sendall(request)
                assert to_the_end(client).endswith(b"\r\n\r\nok")

    began = time.monotonic()
    assert life.serve(scenario) == 0
    assert time.monotonic() - began < 5


def test_a_client_that_is_refused_while_it_uploads_reads_why(life: Secured) -> None:
    def scenario(where: Ready) -> None:
        with connected(where.listen[0]) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
            for _ in range(50):
                client.sendall(bytes(10_000))
            assert client.recv(1000).startswith(b"HTTP/1.1 413 ")

    assert life.serve(scenario) == 0


def test_a_slow_reader_gets_all_of_a_closed_answer(life: Secured) -> None:
    size = 8_000_000

    async def large(scope: Any, receive: Any, send: Any) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]}
        )
        await send({"type": "http.response.body", "body": bytes(size)})

    life.app = large  # type: ignore[method-assign]

    def scenario(where: Ready) -> None:
        with connected(where.listen[0]) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            time.sleep(0.5)  # what is tested is that nothing is cut meanwhile
            head, _, body = to_the_end(client).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert len(body) == size

    assert life.serve(scenario, timeouts=Timeouts(linger=0.1)) == 0


def test_a_renewal_leaves_open_connections_alone(life: Secured, caplog: pytest.LogCaptureFixture) -> None:
    def name(where: Ready) -> str:
        context = trusting()
        context.check_hostname = False
        with dial(where.listen[0]) as plain, context.wrap_socket(plain) as client:
            return name_in(client.getpeercert())

    def scenario(where: Ready) -> None:
        with connected(where.listen[0]) as before:
            ask(before)
            life.files.write("renewed.test")
            terminate(SIGHUP)
            soon(lambda: name(where) == "renewed.test")
            ask(before)
            life.files.key.write_text("")
            terminate(SIGHUP)
            soon(lambda: "not taken up" in caplog.text)
            assert name(where) == "renewed.test"
            ask(before)

    assert life.serve(scenario) == 0
