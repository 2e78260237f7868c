"""How the command line speaks: colours and tables for a person, plain lines for a pipe, JSON for a script.

Text that came from a file, a database or a network is never printed raw: an e-mail address or
a path with an escape sequence in it must not be able to drive the reader's terminal.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Any

import click


def say(text: str = "", **style: Any) -> None:
    """One line to stdout, in colour on a terminal."""
    _echo(text, err=False, **style)


def complain(text: str, **style: Any) -> None:
    """One line to stderr, in colour on a terminal."""
    _echo(text, err=True, **style)


def say_json(value: Any) -> None:
    """One JSON document to stdout."""
    click.echo(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def refuse_if_unheard() -> None:
    """For what is said once only: raises ClickException if stdout was closed before the command began."""
    if sys.__stdout__ is None:
        raise click.ClickException("stdout is closed, and this would be shown only once; nothing was done")


def say_table(heads: Sequence[str], rows: Iterable[Sequence[str]], colours: Sequence[str] = ()) -> None:
    """Aligned columns under a heading on a terminal; in a pipe one line per row, cells apart by tabs.

    `colours` are those of the rows, in their order; an empty one is none.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in cells:
            click.echo("\t".join(row))
        return
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    say(_aligned([head.upper() for head in heads], widths), bold=True)
    for row, colour in zip(cells, chain(colours, repeat("")), strict=False):
        say(_aligned(row, widths), **({"fg": colour} if colour else {}))


def printable(text: str) -> str:
    """The text on one line, with control and invisible formatting characters spelled out."""
    return "".join(
        char if unicodedata.category(char) not in _UNSEEN else char.encode("unicode_escape").decode()
        for char in text
    )


def counted(number: int, noun: str) -> str:
    """`1 test`, `2 tests`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories that move the cursor, hide text or turn its direction."""


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _echo(text: str, *, err: bool, **style: Any) -> None:
    stream = sys.stderr if err else sys.stdout
    coloured = stream.isatty() and not os.environ.get("NO_COLOR")
    click.echo(click.style(text, **style) if style and coloured else text, err=err)
