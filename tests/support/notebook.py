"""A guide as its reader pastes it: all its `sh` blocks, in one shell on one terminal, and what they printed.

A `text` block says what the `sh` block before it prints. In it `…` stands for anything on its line,
and a line of `…` alone for any lines. What is left running in the background must write elsewhere.
"""

from __future__ import annotations

import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

COLUMNS = 120
PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One `sh` block."""

    commands: str
    """What is pasted."""
    told: str | None
    """What the guide says that it prints; None if it doesn't say."""


@dataclass(frozen=True, slots=True)
class Printed:
    """What came of one block, in order of its lines on the terminal."""

    cell: Cell
    text: str

    @property
    def as_told(self) -> bool:
        return self.cell.told is None or re.fullmatch(_pattern(self.cell.told), self.text) is not None


def cells(page: Path) -> Iterator[Cell]:
    """The `sh` blocks of a page, each with the `text` block that follows before the next one."""
    blocks = re.findall(r"^```(sh|text)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    for (language, text), following in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if language == "sh":
            yield Cell(text, following[1] if following[0] == "text" else None)


def play(cells: list[Cell], folder: Path, environ: Mapping[str, str]) -> list[Printed]:
    """Paste them one after the other, in `folder`. The first command that fails ends it, and the test."""
    parts = [f"printf '{_MARK}\\n' {number}\n{cell.commands}" for number, cell in enumerate(cells)]
    script = folder / "guide.sh"
    script.write_text("\n".join(["set -e", *parts, f"printf '{_MARK}\\n' {len(cells)}\n"]))
    shown = _on_a_terminal(["bash", str(script)], folder, environ)
    pieces = re.split(r"^=== cell \d+\n", shown, flags=re.MULTILINE)[1:]
    assert len(pieces) == len(cells) + 1, f"it stopped in the block that printed this:\n{pieces[-1]}"
    return [Printed(cell, text) for cell, text in zip(cells, pieces, strict=False)]


_MARK = "=== cell %s"


def _on_a_terminal(command: list[str], folder: Path, environ: Mapping[str, str]) -> str:
    """What it and everything it starts prints; what it leaves running is ended."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    process = subprocess.Popen(
        command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    late = threading.Timer(PATIENCE, _end, [process])
    late.start()
    seen = bytearray()
    with suppress(OSError):  # EIO: nobody has the terminal open any more
        while part := os.read(ours, 65536):
            seen += part
    late.cancel()
    _end(process)
    process.wait()
    os.close(ours)
    return seen.decode().replace("\r\n", "\n")


def _end(process: subprocess.Popen[bytes]) -> None:
    """With everything that it has left running."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _pattern(told: str) -> str:
    lines = (re.escape(line).replace("…", ".*") for line in told.splitlines())
    return "".join("(?:.*\n)*" if line == ".*" else f"{line}\n" for line in lines)


def environment(folder: Path, clone: Path) -> dict[str, str]:
    """With `gateway` and `python3` in front, nothing of this machine's settings, and no colours."""
    shims = folder / "bin"
    shims.mkdir()
    for name, words in (("gateway", "-m gateway"), ("python3", "")):
        shim = shims / name
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        shim.chmod(0o755)
    (folder / "gateway").symlink_to(clone)
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "JWT_"))}
    return bare | {"PATH": f"{shims}:{os.environ['PATH']}", "NO_COLOR": "1", "COLUMNS": str(COLUMNS)}
