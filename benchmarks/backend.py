"""The backend of every run: 376 bytes of JSON as fast as can be, from nginx if it is installed.

Without nginx, this file serves the same answer itself: `python -m benchmarks.backend PORT`.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

ANSWER = (b'{"items":["' + b"x" * 362 + b'"]}').ljust(376)

_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 127.0.0.1:{port}; default_type application/json; location / {{ return 200 '{answer}'; }} }}
}}
"""


def command(port: int, folder: Path) -> list[str]:
    """The command line that serves ANSWER on `port`."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        return [sys.executable, "-m", "benchmarks.backend", str(port)]
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, answer=ANSWER.decode()))
    return [nginx, "-p", str(folder), "-c", str(config)]


class _Answering(asyncio.Protocol):
    """Counts request heads by their blank lines; enough for GETs without bodies."""

    _RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(ANSWER),
        ANSWER,
    )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *heads, self._rest = (self._rest + data).split(b"\r\n\r\n")
        self._transport.write(self._RESPONSE * len(heads))


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(int(sys.argv[1])))
