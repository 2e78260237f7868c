"""A real browser that opens a page of its own origin; what the page's script finds out is told back.

with Origin() as origin:
    told = look(origin, "return (await fetch('http://…')).status", folder)
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from types import TracebackType
from typing import Any

PATIENCE = 60.0
"""Seconds for a browser to start, on a busy machine."""
_PAGE = """<!doctype html><title>a page</title><script type="module">
async function tell() { %s }
const told = await tell().catch(error => ({failed: String(error)}));
await fetch("/told", {method: "POST", body: JSON.stringify(told)});
</script>"""


class Origin:
    """A web server on a port of its own, so whatever it serves is of another origin than the gateway."""

    def __init__(self) -> None:
        self.page = b""
        self.told: Queue[Any] = Queue()
        origin = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("text/html; charset=utf-8", origin.page)

            def do_POST(self) -> None:
                origin.told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._answer("text/plain", b"")

            def _answer(self, kind: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Origin:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def find_browser() -> str | None:
    """Chromium, by whichever name it is installed."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def look(origin: Origin, script: str, folder: Path) -> Any:
    """What `script`, the body of an async function, returns in a page of `origin`."""
    browser = find_browser()
    assert browser is not None
    origin.page = (_PAGE % script).encode()
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        f"--user-data-dir={folder}", "--remote-debugging-port=0", origin.url,
    ]  # fmt: skip
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        return origin.told.get(timeout=PATIENCE)
    except Empty:
        raise AssertionError("the page has told nothing") from None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
