"""What was measured, as values: tables and targets, written as JSON and as the tables of docs/performance.md.

`benchmarks/results/FAMILY.json` is what a family measured; the page is made of these
files, between `<!-- measured: FAMILY -->` and `<!-- end -->`, and a test compares the two.
`python -m benchmarks.report` makes the page anew.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
_BLOCK = re.compile(r"<!-- measured: (\w+) -->.*?<!-- end -->", re.DOTALL)
Cell = str | float | None
"""A number is written as its column says, a word as it is, None as a dash."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one kind."""

    columns: dict[str, str]
    """Heading, and how a number below it is written (a format specification)."""
    rows: list[list[Cell]]
    title: str = ""
    """A line above it."""
    note: str = ""
    """A line below it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One target, and how near it was come."""

    what: str
    target: float
    measured: float | None
    """None if it could not be measured."""
    form: str = ".2f"
    unit: str = ""
    most: bool = False
    """Whether the target is the most it may be, not the least."""
    why: str = ""
    """Why it could not be measured."""

    @property
    def reached(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured <= self.target if self.most else self.measured >= self.target


@dataclass(frozen=True, slots=True)
class Found:
    """What one family found."""

    how: str
    """How long was measured, like "3 rounds of 2 s"."""
    tables: list[Table]
    marks: list[Mark] = field(default_factory=list)
    rounds: object = None
    """Every single round, for who wants to look closer."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    rounds: int
    """Turns of every program."""
    seconds: int
    """Length of one turn of the main table."""
    requests: int
    """Requests after which memory is looked at again."""
    full: bool
    """Every size and number, not only those that are quick."""

    @property
    def main(self) -> str:
        """Every round, in words."""
        return f"{self.rounds} rounds of {self.seconds} s"

    @property
    def short(self) -> str:
        """A few rounds, in words."""
        return f"{self.few} {'round' if self.few == 1 else 'rounds'} of {self.brief} s"

    @property
    def few(self) -> int:
        """Rounds of what has many rows."""
        return max(1, self.rounds // 2)

    @property
    def brief(self) -> int:
        """Seconds of a turn beside the main table."""
        return max(1, self.seconds // 2)


def text(found: Found) -> str:
    """Tables and marks for a terminal."""
    return "\n".join([*_tables([asdict(table) for table in found.tables]), *_marks(map(asdict, found.marks))])


def save(name: str, found: Found, effort: Effort) -> None:
    """Writes `results/NAME.json`."""
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "effort": asdict(effort),
        **asdict(found),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def blocks() -> dict[str, str]:
    """The measured parts of the page, by name, in its order, made of the files in `results/`."""
    files = {file.stem: file for file in RESULTS.glob("*.json")}
    documents = {name: json.loads(files[name].read_text()) for name in measured_parts() if name in files}
    made = {name: _block(document) for name, document in documents.items()}
    marks = [mark for document in documents.values() for mark in document["marks"]]
    return made | {"targets": "\n".join(_marks(marks)).strip() + "\n"}


def write_page() -> None:
    """Puts the blocks into the page."""
    made = blocks()
    PAGE.write_text(_BLOCK.sub(lambda found: framed(found[1], made.get(found[1], "")), PAGE.read_text()))


def measured_parts() -> dict[str, str]:
    """What the page says now, by name."""
    return {found[1]: found[0] for found in _BLOCK.finditer(PAGE.read_text())}


def framed(name: str, block: str) -> str:
    """A block with its marks, as it stands in the page."""
    return f"<!-- measured: {name} -->\n\n{block}\n<!-- end -->"


def _block(document: dict[str, object]) -> str:
    tables = document["tables"]
    assert isinstance(tables, list)
    where = f"Python {document['python']}, {document['cores']} cores"
    return "\n".join([*_tables(tables), "", f"({document['how']}, {document['at']!s:.10}, {where})"]) + "\n"


def _tables(tables: list[dict[str, object]]) -> Iterator[str]:
    for index, table in enumerate(tables):
        yield from [""] if index else []
        yield from [f"**{table['title']}**", ""] if table["title"] else []
        yield from _table(table["columns"], table["rows"])  # type: ignore[arg-type]  # as Table says
        yield from ["", str(table["note"])] if table["note"] else []


def _table(columns: dict[str, str], rows: list[list[Cell]]) -> Iterator[str]:
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "|".join("--:" if form else "---" for form in columns.values()) + "|"
    for row in rows:
        cells = (_cell(value, form) for value, form in zip(row, columns.values(), strict=True))
        yield "| " + " | ".join(cells) + " |"


def _cell(value: Cell, form: str) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else format(value, form)


def _marks(marks: object) -> Iterator[str]:
    every = [Mark(**mark) for mark in marks]  # type: ignore[attr-defined]  # dicts of Mark, out of JSON or asdict
    if not every:
        return
    rows: list[list[Cell]] = []
    for mark in every:
        target = f"{'≤' if mark.most else '≥'} {mark.target:{mark.form}}{mark.unit}"
        measured = mark.why if mark.measured is None else f"{mark.measured:{mark.form}}{mark.unit}"
        rows.append([mark.what, target, measured, {True: "yes", False: "**no**", None: "–"}[mark.reached]])
    yield ""
    yield from _table({"target": "", "wanted": "", "measured": "", "reached": ""}, rows)


if __name__ == "__main__":
    write_page()
