"""Files that are no configuration, given to the real command: one sentence with a place, exit 1, at once."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest

from tests.cli.conftest import MINIMAL, Command

BOMB = "\n".join(
    ["a: &a [x, x, x, x, x, x, x, x, x]"]
    + [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in pairwise("abcdefghi")]
)
FILES = {
    "large.yaml": b"# routes\n" * (5 << 20),
    "binary.yaml": b"\x89PNG\r\n\x1a\n\0",
    "bomb.yaml": BOMB.encode(),
    "deep.yaml": b"[" * 500_000,
}
CASES = [
    ("large.yaml", ":1:1  is larger than 1 MiB"),
    ("binary.yaml", ":3:1  is not text in UTF-8: it holds a zero byte"),
    ("bomb.yaml", "the aliases of this file expand to far too much"),
    ("deep.yaml", "is nested more than 32 levels deep"),
    ("folder", ":1:1  this is a directory; name the file in it"),
    ("pipe", ":1:1  is not a regular file"),
    ("/dev/zero", ":1:1  is not a regular file"),
    ("gone.yaml", ":1:1  there is no such file; `gateway init` writes one"),
    ("circle.yaml", ":5:10  include: circle.yaml is included within itself: circle.yaml → circle.yaml"),
]


COMMANDS = [
    "check -c",
    "check --cover -c",
    "run -c",
    "routes -c",
    "explain GET / --as user -c",
    "diff",
    "diff gateway.yaml",
    "replay gateway.yaml -c",
]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("name", "sentence"), CASES)
def test_is_one_sentence(site: Path, gateway: Command, command: str, name: str, sentence: str) -> None:
    (site / "folder").mkdir()
    os.mkfifo(site / "pipe")
    (site / "circle.yaml").write_text(f"{MINIMAL}include: circle.yaml\n")
    if name in FILES:
        (site / name).write_bytes(FILES[name])
    result = gateway(*command.split(), name)
    lines = (result.out + result.err).splitlines()
    assert (result.code, len(lines)) == (1, 1)
    assert lines[0].startswith(f"{name}:")
    assert sentence in lines[0]
