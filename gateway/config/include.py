"""`include:` and `tests_include:`: several files, read as one.

Routes and tests of included files are put behind those of gateway.yaml before anything is
typed, so a rule means the same in whichever file it stands. Where it stood is kept beside
(`Origin`), for messages.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from .source import (
    INIT,
    Budget,
    Entry,
    Node,
    Origin,
    Place,
    Problem,
    Refused,
    Scalar,
    Sequence,
    Table,
    compose,
)

MAX_FILES = 100
"""Included ones. Whoever has more can't keep them in mind either."""
MAX_CHARACTERS = 8 << 20
"""Of all included files together."""

_HELD: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"include": ("include", "routes", "tests"), "tests_include": ("tests",)}
)
"""What a file may hold, by the setting that names it."""
_HOMES = ("routes", "tests")
_PATTERN = frozenset("*?[]{}")

_SHOWN = 120
"""Characters of a file's name in a message."""

Read = Callable[[Path], str]
"""A file's text. Raises Refused."""
Fill = Callable[[Scalar], tuple[str, list[str]]]
"""What a scalar says once its `${…}` are filled in, and what went wrong with that."""


@dataclass(slots=True)
class Gathered:
    """What came of following every include."""

    root: Table
    """gateway.yaml with all routes and tests."""
    origins: dict[tuple[str, int], Origin] = field(default_factory=dict)
    """Where the included ones stand: by `("routes", 7)`."""
    files: list[Path] = field(default_factory=list)
    """Every file that was read, or that would have been."""
    problems: list[Problem] = field(default_factory=list)


def gather(root: Table, path: Path, read: Read, fill: Fill) -> Gathered:
    """Follow the includes of gateway.yaml, whose tree is `root`. Never raises."""
    gatherer = _Gatherer(root, read, fill)
    main = _File(path, None)
    gatherer.seen[os.path.realpath(path)] = main
    for setting in _HELD:
        gatherer.follow(root, setting, main)
    return gatherer.gathered()


@dataclass(frozen=True, slots=True)
class _File:
    """A file on the way, and how one came to it."""

    path: Path
    by: tuple[_File, Place] | None
    """The file that includes it, and where."""

    def way(self) -> list[_File]:
        """From gateway.yaml to here."""
        return [*(self.by[0].way() if self.by else ()), self]


class _Gatherer:
    def __init__(self, root: Table, read: Read, fill: Fill) -> None:
        self.seen: dict[str, _File] = {}
        self._root = root
        self._read = read
        self._fill = fill
        self._files: list[Path] = []
        self._problems: list[Problem] = []
        self._characters = 0
        self._budget = Budget()
        self._found: dict[str, list[tuple[Node, Origin]]] = {home: [] for home in _HOMES}

    def follow(self, table: Table, setting: str, file: _File) -> None:
        """Take in the files that one setting names."""
        entry = table.entries.get(setting)
        for item in _items(entry.value) if entry is not None else ():
            place = Place(str(file.path), item.line, item.column)
            name, faults = self._fill(item) if isinstance(item, Scalar) else ("", [])
            if name and not faults:
                self._take(name, setting, file, place)
            elif file.by is not None:  # of the main file, whoever validates it finds the same
                for fault in faults or ["must be the name of a file, or a list of names"]:
                    self._say(place, setting, fault)

    def gathered(self) -> Gathered:
        gathered = Gathered(self._root, files=self._files, problems=self._problems)
        entries = dict(self._root.entries)
        for home, found in self._found.items():
            own = entries.get(home)
            if not found or (own is not None and not isinstance(own.value, Sequence)):
                continue
            line, column = (own.line, own.column) if own is not None else (1, 1)
            items = list(own.value.items) if own is not None and isinstance(own.value, Sequence) else []
            for node, origin in found:
                gathered.origins[home, len(items)] = origin
                items.append(node)
            entries[home] = Entry(line, column, Sequence(line, column, items))
        gathered.root = Table(self._root.line, self._root.column, entries)
        return gathered

    def _take(self, name: str, setting: str, by: _File, place: Place) -> None:
        file = _File(by.path.parent / name, (by, place))
        objection = self._objection(name, file)
        if len(self._files) < MAX_FILES:
            self._files.append(file.path)  # also one that can't be taken: a link may turn elsewhere
        if objection:
            self._say(place, setting, objection)
            return
        self.seen[os.path.realpath(file.path)] = file
        root = self._tree(name, setting, file, place)
        if root is None:
            return
        if isinstance(root, Sequence) and setting == "tests_include":
            root = Table(root.line, root.column, {"tests": Entry(root.line, root.column, root)})
        if isinstance(root, Table):
            self._hold(root, setting, file)
        else:
            self._say(Place(str(file.path), root.line, root.column), "", _shape(setting))

    def _objection(self, name: str, file: _File) -> str:
        """Why a file can't be included here, before it is read."""
        if "\0" in name:
            return "is a bad file name: it holds a zero byte"
        before = self.seen.get(os.path.realpath(file.path))
        if before is not None and before in file.way():
            way = " → ".join(str(each.path) for each in [*file.way()[file.way().index(before) :]])
            return f"{_shown(name)} is included within itself: {way}"
        if before is not None and before.by is not None:
            first = before.by[1]
            return f"{_shown(name)} is included twice; the first time on line {first.line} of {first.file}"
        if len(self._files) >= MAX_FILES:
            return f"is one file too many; at most {MAX_FILES} can be included"
        if _PATTERN & set(name):
            return (
                f"{_shown(name)} looks like a pattern; name each file, so that none is forgotten or slips in"
            )
        return ""

    def _tree(self, name: str, setting: str, file: _File, place: Place) -> Node | None:
        try:
            text = self._read(file.path)
        except Refused as refused:
            found = refused.problem
            if (found.place.line, found.place.column) == (1, 1):
                self._say(place, setting, f"{_shown(name)}: {_plainly(found.sentence)}")
            else:
                self._say(Place(str(file.path), found.place.line, found.place.column), "", found.sentence)
            return None
        self._characters += len(text)
        if self._characters > MAX_CHARACTERS:
            self._say(place, setting, f"all included files are larger than {MAX_CHARACTERS >> 20} MiB")
            return None
        root, problems = compose(text, str(file.path), self._budget)
        self._problems += (replace(each, sentence=_plainly(each.sentence)) for each in problems)
        return root

    def _hold(self, root: Table, setting: str, file: _File) -> None:
        """Take over what the file holds, and follow it further."""
        for name, entry in root.entries.items():
            here = Place(str(file.path), entry.line, entry.column)
            if name not in _HELD[setting]:
                self._say(here, name, _stranger(setting))
            elif name in _HOMES and not isinstance(entry.value, Sequence):
                self._say(here, name, "must be a list; begin each item with -, or write [ ] around them")
            elif name in _HOMES and isinstance(entry.value, Sequence):
                origins = (Origin(str(file.path), index) for index in range(len(entry.value.items)))
                self._found[name] += zip(entry.value.items, origins, strict=True)
        if setting == "include":
            self.follow(root, "include", file)

    def _say(self, place: Place, setting: str, sentence: str) -> None:
        self._problems.append(Problem(place, setting, sentence))


def _shown(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"


def _plainly(sentence: str) -> str:
    """`gateway init` writes no included file."""
    return sentence.partition(INIT)[0]


def _items(node: Node) -> list[Node]:
    return node.items if isinstance(node, Sequence) else [node]


def _stranger(setting: str) -> str:
    if setting == "tests_include":
        return "unknown setting here; a file of tests_include holds tests alone"
    return (
        "unknown setting here; an included file holds routes, tests and include; all else is in the main file"
    )


def _shape(setting: str) -> str:
    if setting == "tests_include":
        return "must be a list of tests, or a mapping with `tests:`"
    return "must be a mapping with `routes:`, `tests:` or `include:`"
