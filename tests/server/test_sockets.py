"""What can be listened on, and the one sentence for what can't."""

from __future__ import annotations

import contextlib
import resource
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.server import sockets
from gateway.server.sockets import Address, CannotListen, Listeners, open_listeners, raise_open_files


@contextlib.contextmanager
def opened(*addresses: Address) -> Iterator[Listeners]:
    listeners = open_listeners(addresses)
    try:
        yield listeners
    finally:
        listeners.close()


def refusal(*addresses: Address) -> str:
    with pytest.raises(CannotListen) as caught:
        open_listeners(addresses)
    return str(caught.value)


def test_port_zero_becomes_a_real_one() -> None:
    with opened(Address("127.0.0.1", 0)) as listeners:
        host, _, port = listeners.addresses[0].partition(":")
        assert host == "127.0.0.1"
        assert int(port) == listeners.sockets[0].getsockname()[1] > 0


def test_ipv6_is_written_with_brackets() -> None:
    with opened(Address("::1", 0)) as listeners:
        assert listeners.addresses[0].startswith("[::1]:")


def test_a_name_with_two_addresses_gets_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with opened(Address("both.test", 0)) as listeners:
        first, second = (one.rpartition(":")[2] for one in listeners.addresses)
        assert first == second


def test_an_address_family_that_is_missing_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """192.0.2.1 (TEST-NET) is not ours: EADDRNOTAVAIL, as ::1 is without IPv6."""
    some = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (name, 0)) for name in ("192.0.2.1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: some)
    with opened(Address("some.test", 0)) as listeners:
        assert len(listeners.sockets) == 1


def test_a_taken_port_is_said_in_one_sentence() -> None:
    with opened(Address("127.0.0.1", 0)) as listeners:
        listeners.sockets[0].listen()
        port = listeners.sockets[0].getsockname()[1]
        assert refusal(Address("127.0.0.1", port)) == (
            f"Cannot listen on 127.0.0.1:{port}: the address is in use."
        )


def test_one_that_fails_frees_the_others() -> None:
    with opened(Address("127.0.0.1", 0)) as taken, opened(Address("127.0.0.1", 0)) as other:
        taken.sockets[0].listen()
        free = other.sockets[0].getsockname()[1]
        other.close()
        refusal(Address("127.0.0.1", free), Address("127.0.0.1", taken.sockets[0].getsockname()[1]))
        with opened(Address("127.0.0.1", free)):
            pass


def test_an_address_of_another_machine_and_an_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(Address("192.0.2.1", 80)).startswith("Cannot listen on 192.0.2.1:80: ")

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert refusal(Address("nowhere.test", 80)) == "Cannot listen on nowhere.test:80: there is no such host."


def test_a_unix_socket_is_for_its_group_and_goes_with_us(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    with opened(Address(path=str(path))) as listeners:
        assert listeners.addresses == [f"unix:{path}"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert not path.exists()


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with opened(Address(path=str(path))) as listeners:
        listeners.sockets[0].listen()
        assert refusal(Address(path=str(path))) == (
            f"Cannot listen on unix:{path}: another process listens there."
        )
        assert path.exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert refusal(Address(path=str(path))).endswith("there is a file of that name.")
    assert path.read_text() == "data"


def test_a_socket_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "datagrams"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        assert refusal(Address(path=str(path))).startswith(f"Cannot listen on unix:{path}: ")
        assert path.exists()


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "no" / "gateway.sock"
    assert refusal(Address(path=str(path))) == f"Cannot listen on unix:{path}: no such file or directory."


def test_the_socket_of_a_successor_stays(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    with opened(Address(path=str(path))):
        path.unlink()
        (tmp_path / "filler").write_text("takes the old inode")
        successor = open_listeners([Address(path=str(path))])
    assert path.exists()
    successor.close()


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "then"),
    [
        (1024, 4096, 2000, 2000),
        (1024, 4096, 9000, 4096),
        (1024, resource.RLIM_INFINITY, 9000, 9000),
        (9000, 9000, 100, 9000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 100, 100),
    ],
)
def test_open_files(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int, then: int) -> None:
    limits = [(soft, hard)]
    monkeypatch.setattr(sockets.resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(sockets.resource, "setrlimit", lambda _, pair: limits.append(pair))
    assert raise_open_files(wanted) == then


def test_a_system_that_allows_less_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(sockets.resource, "getrlimit", lambda _: (10, 100))
    monkeypatch.setattr(sockets.resource, "setrlimit", never)
    assert raise_open_files(50) == 10
