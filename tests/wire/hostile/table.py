"""Reads the tables of raw bytes that lie beside this file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Case:
    """One line of a table of requests."""

    source: str
    """The section of the specification, or the advisory."""
    name: str
    """What is odd about the bytes."""
    statuses: tuple[int, ...]
    """Of the answers, in order."""
    code: str | None
    """The X-Gateway-Error of the last one; None if the backend gave it."""
    then: Literal["keep", "close"]
    """Whether the connection serves another request."""
    data: bytes
    """What is sent."""

    def __str__(self) -> str:
        return f"{self.source}: {self.name}"


def requests() -> Iterator[Case]:
    """Every case of every table."""
    for file in ("requests.txt", "targets.txt", "smuggling.txt"):
        source = ""
        for line in _lines(file):
            if line.startswith("## "):
                source = line[3:].partition(":")[0]
            elif not line.startswith("#"):
                answer, name, data = line.split(" | ", 2)
                yield _case(source, name, answer.split(" "), _bytes(data))


def broken_chunks() -> Iterator[tuple[str, bytes]]:
    for line in _lines("chunks.txt"):
        if not line.startswith("#"):
            name, data = line.split(" | ", 1)
            yield name, _bytes(data)


def _case(source: str, name: str, words: list[str], data: bytes) -> Case:
    statuses = tuple(int(status) for status in words[0].split(","))
    codes = [word for word in words[1:] if word not in ("keep", "close")]
    then: Literal["keep", "close"] = "keep" if words[-1] == "keep" else "close"
    return Case(source, name, statuses, codes[0] if codes else None, then, data)


def _lines(name: str) -> list[str]:
    return [line for line in (_HERE / name).read_text("utf-8").split("\n") if line]


def _bytes(text: str) -> bytes:
    repeated = re.sub(r"<([^<>]+?)\*(\d+)>", lambda match: match[1] * int(match[2]), text)
    return repeated.encode("latin-1").decode("unicode_escape").encode("latin-1")
