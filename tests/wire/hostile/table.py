"""Reads the tables of raw bytes that lie beside this file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Case:
    """One line of `requests.txt`."""

    source: str
    """The section of the specification."""
    name: str
    """What is odd about the bytes."""
    status: int
    """Of the answer."""
    then: str
    """The X-Gateway-Error of a refusal; "keep" or "close" for an answer of the app."""
    data: bytes
    """What is sent."""

    def __str__(self) -> str:
        return f"{self.source}: {self.name}"


def requests() -> Iterator[Case]:
    source = ""
    for line in _lines("requests.txt"):
        if line.startswith("## "):
            source = line[3:].partition(":")[0]
        elif not line.startswith("#"):
            answer, name, data = line.split(" | ", 2)
            status, then = answer.split(" ")
            yield Case(source, name, int(status), then, _bytes(data))


def broken_chunks() -> Iterator[tuple[str, bytes]]:
    for line in _lines("chunks.txt"):
        if not line.startswith("#"):
            name, data = line.split(" | ", 1)
            yield name, _bytes(data)


def _lines(name: str) -> list[str]:
    return [line for line in (_HERE / name).read_text("utf-8").split("\n") if line]


def _bytes(text: str) -> bytes:
    repeated = re.sub(r"<([^<>]+?)\*(\d+)>", lambda match: match[1] * int(match[2]), text)
    return repeated.encode("latin-1").decode("unicode_escape").encode("latin-1")
