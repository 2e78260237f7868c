"""The two backends of every run.

`answers`: 376 bytes of JSON as fast as can be, from nginx if it is installed; `/seen`
tells what the backend was told of the caller. `bodies` reads every body to its end
before it answers, and gives as many bytes as asked for: `GET /bytes/1000`. It is
`python -m benchmarks.backend PORT`, and stands in where there is no nginx.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import cast

from benchmarks.peers import nginx
from benchmarks.peers.peer import find

ANSWER = (b'{"items":["' + b"x" * 362 + b'"]}').ljust(376)
SEEN = ("authorization", "x-user-id", "x-user-email", "x-user-admin")
"""The headers that `/seen` answers with, in one line, with `|` between them."""

_NGINX = """
  server {{
    listen 127.0.0.1:{port}; default_type application/json;
    location / {{ return 200 '{answer}'; }}
    location /seen {{ return 200 '{seen}'; }}
    location /admin/seen {{ return 200 '{seen}'; }}
  }}
"""
_PIECE = memoryview(bytes(256 * 1024))


def answers(port: int, folder: Path) -> list[str]:
    """The command line that serves ANSWER on `port`."""
    if find("nginx") is None:
        return bodies(port)
    seen = "|".join(f"$http_{name.replace('-', '_')}" for name in SEEN)
    return nginx.command(folder, _NGINX.format(port=port, answer=ANSWER.decode(), seen=seen))


def bodies(port: int) -> list[str]:
    """The command line of the backend that takes and gives bodies."""
    return [sys.executable, "-m", "benchmarks.backend", str(port)]


class _Backend(asyncio.BufferedProtocol):
    """One connection. Bodies must say their length; all the peers forward it."""

    def __init__(self) -> None:
        self._room = bytearray(256 * 1024)
        self._head = b""
        self._body_left = 0
        self._giving = 0
        self._may_write = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._room

    def buffer_updated(self, count: int) -> None:
        if self._body_left > count:
            self._body_left -= count
            return
        self._read(bytes(self._room[:count]))

    def _read(self, data: bytes) -> None:
        while data:
            if self._body_left:
                taken = min(self._body_left, len(data))
                self._body_left -= taken
                data = data[taken:]
                if self._body_left == 0:
                    self._answer()
                continue
            self._head += data
            head, blank, data = self._head.partition(b"\r\n\r\n")
            if not blank:
                return
            self._head = head
            length = _field(head, b"content-length")
            self._body_left = int(length or 0)
            if self._body_left == 0:
                self._answer()

    def _answer(self) -> None:
        head, self._head = self._head, b""
        target = head.split(b" ", 2)[1]
        if target.startswith(b"/bytes/"):
            self._giving = int(target[len(b"/bytes/") :])
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self._giving)
            self._give()
        elif target.endswith(b"/seen"):
            self._say(b"|".join(_field(head, name.encode()) for name in SEEN))
        else:
            self._say(ANSWER)

    def _say(self, body: bytes) -> None:
        line = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        self._transport.write(line % (len(body), body))

    def _give(self) -> None:
        while self._giving and self._may_write:
            piece = _PIECE[: self._giving]
            self._giving -= len(piece)
            self._transport.write(piece)

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        self._give()


def _field(head: bytes, name: bytes) -> bytes:
    found = re.search(rb"\r\n" + name + rb":[ \t]*([^\r]*)", head, re.IGNORECASE)
    return found[1] if found else b""


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Backend, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(int(sys.argv[1])))
