"""One large body up or down over a plain socket: how long it takes."""

from __future__ import annotations

import socket
import time

from benchmarks.stage import Unfit

_PIECE = bytes(1024 * 1024)
_TIMEOUT = 60.0


def up(port: int, size: int, token: str) -> float:
    """Seconds for a POST of `size` bytes and its answer."""
    with socket.create_connection(("127.0.0.1", port), _TIMEOUT) as connection:
        begun = time.perf_counter()
        connection.sendall(_head("POST", "/upload", token, f"Content-Length: {size}\r\n"))
        for _ in range(size // len(_PIECE)):
            connection.sendall(_PIECE)
        connection.sendall(_PIECE[: size % len(_PIECE)])
        answer = connection.recv(65_536)
        if b" 200 " not in answer[:20]:
            raise Unfit(repr(answer[:80]))
        return time.perf_counter() - begun


def down(port: int, size: int, token: str) -> float:
    """Seconds for a GET that is answered with `size` bytes."""
    room = bytearray(len(_PIECE))
    with socket.create_connection(("127.0.0.1", port), _TIMEOUT) as connection:
        begun = time.perf_counter()
        connection.sendall(_head("GET", f"/bytes/{size}", token))
        head = b""
        while b"\r\n\r\n" not in head:
            head += _some(connection.recv(65_536), head)
        missing = size - len(head.partition(b"\r\n\r\n")[2])
        while missing > 0:
            received = connection.recv_into(room)
            if not received:
                raise Unfit(f"{missing:,} bytes are missing")
            missing -= received
        return time.perf_counter() - begun


def _some(data: bytes, so_far: bytes) -> bytes:
    if not data:
        raise Unfit(repr(so_far[:80]))
    return data


def _head(method: str, path: str, token: str, more: str = "") -> bytes:
    lines = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
    return f"{lines}{more}\r\n".encode()
