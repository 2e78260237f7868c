"""Opens what the gateway listens on. Every failure is one sentence for the person who started it."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

BACKLOG = 2048
"""Connections the kernel keeps for us before we accept them (capped by net.core.somaxconn)."""
SOCKET_MODE = 0o660
"""Of a unix socket: the owner's group, where the proxy in front belongs, and nobody else."""


class Listen(Protocol):
    """Where to listen: host and port, or the path of a unix socket."""

    @property
    def host(self) -> str | None: ...
    @property
    def port(self) -> int | None: ...
    @property
    def path(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Address:
    """A Listen of plain values."""

    host: str | None = None
    """Name or IP address."""
    port: int | None = None
    """0 lets the system choose."""
    path: str | None = None
    """Of a unix socket, instead of the two."""


class CannotListen(Exception):
    """Its text is the sentence to show."""


@dataclass(slots=True)
class Listeners:
    """Bound sockets, and the socket files that go when they go."""

    sockets: list[socket.socket] = field(default_factory=list)
    """Bound, not yet listening."""
    files: list[tuple[Path, int]] = field(default_factory=list)
    """Unix sockets we made, with their inodes."""

    @property
    def addresses(self) -> list[str]:
        """As a person writes them, with the real ports."""
        return [_written(one) for one in self.sockets]

    def close(self) -> None:
        for one in self.sockets:
            one.close()
        for path, inode in self.files:
            # A successor may have put its own socket there already.
            with contextlib.suppress(OSError):
                if path.stat().st_ino == inode:
                    path.unlink()
        self.files.clear()


def open_listeners(addresses: Iterable[Listen]) -> Listeners:
    """All of them or none. Raises CannotListen."""
    listeners = Listeners()
    try:
        for address in addresses:
            if address.path:
                _open_unix(Path(address.path), listeners)
            else:
                _open_tcp(address.host or "", address.port or 0, listeners)
    except CannotListen:
        listeners.close()
        raise
    return listeners


def raise_open_files(wanted: int) -> int:
    """Lifts the soft limit of open files towards `wanted`; how many there are now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _open_tcp(host: str, port: int, listeners: Listeners) -> None:
    """Every address of the name, on one port."""
    named = f"{f'[{host}]' if ':' in host else host}:{port}"
    bound: list[socket.socket] = []
    failures: list[OSError] = []
    for family, address in _resolved(host, port, named):
        try:
            one = _bound(family, (address[0], port, *address[2:]))
        except OSError as error:
            failures.append(error)
            continue
        port = port or one.getsockname()[1]
        bound.append(one)
    listeners.sockets += bound
    # `localhost` may have an address of a family that this machine lacks. One that is taken is no such case.
    fatal = [error for error in failures if not bound or error.errno != errno.EADDRNOTAVAIL]
    if fatal:
        raise CannotListen(f"Cannot listen on {named}: {_reason(fatal[0])}.") from fatal[0]


def _resolved(host: str, port: int, named: str) -> list[tuple[int, tuple[Any, ...]]]:
    """Family and address of each thing the name stands for."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise CannotListen(f"Cannot listen on {named}: there is no such host.") from error
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def _bound(family: int, address: tuple[Any, ...]) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
        one.setblocking(False)
    except OSError:
        one.close()
        raise
    return one


def _open_unix(path: Path, listeners: Listeners) -> None:
    _clear_stale(path)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        one.bind(str(path))
        path.chmod(SOCKET_MODE)  # before anybody can connect: it does not listen yet
        one.setblocking(False)
    except OSError as error:
        one.close()
        raise CannotListen(f"Cannot listen on unix:{path}: {_reason(error)}.") from error
    listeners.sockets.append(one)
    listeners.files.append((path, path.stat().st_ino))


def _clear_stale(path: Path) -> None:
    """Removes the socket file of a process that is gone, and nothing else."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise CannotListen(f"Cannot listen on unix:{path}: there is a file of that name.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except OSError as error:
            raise CannotListen(f"Cannot listen on unix:{path}: {_reason(error)}.") from error
        else:
            raise CannotListen(f"Cannot listen on unix:{path}: another process listens there.")


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the address is in use"
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


def _written(one: socket.socket) -> str:
    name = one.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if one.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"
