"""`gateway.yaml` as text: read strictly, with the place of everything in it.

The text is read as a stream of YAML events, never composed by PyYAML, so nothing
recurses, no tag makes an object, and an alias costs what it expands to. Of YAML
1.1 only the syntax is left: what scalars mean is `scalars`' business. Out comes
a tree of nodes that remember line and column; `load` fills and types it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import O_CLOEXEC, O_NONBLOCK, O_RDONLY, fdopen, fstat
from os import open as os_open
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, NoReturn

import yaml

from .syntax import MAX_DEPTH, TOO_DEEP, Mistake, syntax_mistake, unreadable_character

MAX_BYTES = 1 << 20
"""Ten thousand ordinary routes fit. A larger file is not a gateway.yaml."""
MAX_EXPANDED = 200_000
"""Nodes that aliases add; what the file itself holds is bounded by its size."""
INIT = "; `gateway init` writes "
"""For who has no gateway.yaml yet."""
_NO_FILES = {True: "this is a directory; name the file in it", False: "is not a regular file"}


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something stands."""

    file: str
    """As the caller named it."""
    line: int
    """From 1."""
    column: int
    """From 1, in characters."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the configuration, for the person who wrote it."""

    place: Place
    """Where to look."""
    path: str
    """The setting, like `routes[2].allow`; empty for the file itself."""
    sentence: str
    """What is wrong and what to write; holds no secret."""
    warning: bool = False
    """Worth a look, but the file is valid."""

    def __str__(self) -> str:
        words = f"{self.path}: {self.sentence}" if self.path else self.sentence
        return _printable(f"{self.place}  {'warning: ' if self.warning else ''}{words}")


@dataclass(frozen=True, slots=True)
class Scalar:
    """One scalar, not yet typed."""

    line: int
    column: int
    text: str
    plain: bool
    """Without quotes, so that it may be a number or a word."""


@dataclass(frozen=True, slots=True)
class Sequence:
    line: int
    column: int
    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of a mapping, with its own place, and its value."""

    line: int
    column: int
    value: Node


@dataclass(frozen=True, slots=True)
class Table:
    line: int
    column: int
    entries: dict[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an item of a list stood before the lists of several files became one."""

    file: str
    index: int


@dataclass(slots=True)
class Budget:
    """Nodes that the aliases of all files together may still add."""

    left: int = field(default_factory=lambda: MAX_EXPANDED)


Node = Scalar | Sequence | Table
Step = str | int
Steps = tuple[Step, ...]


class Places:
    """Where the settings stand, of one file and those that it includes.

    `aliases` tells which other path stands for an absent one, `origins` which items are from which file.
    """

    def __init__(
        self,
        file: str,
        root: Node | None,
        aliases: Mapping[Steps, Steps] | None = None,
        origins: Mapping[tuple[str, int], Origin] | None = None,
    ) -> None:
        self._file = file
        self._root = root
        self._aliases = aliases or {}
        self._origins: Mapping[Any, Origin] = origins or {}

    def of(self, *path: Step) -> Place:
        """The place of the value at `path`, or of its nearest parent that the file has."""
        node, left = self._find(path)
        return self._place(node, path[: len(path) - len(left)])

    def key(self, *path: Step) -> Place:
        """The place of the key that ends `path`; for a list's item, of the item."""
        parent, left = self._find(path[:-1])
        entry = parent.entries.get(str(path[-1])) if isinstance(parent, Table) and not left and path else None
        return self._place(entry, path) if entry is not None else self.of(*path)

    def name(self, *path: Step) -> str:
        """What the setting is called in the file that holds it, `routes[2]`."""
        origin = self._origins.get(path[:2])
        return written_path(path if origin is None else (path[0], origin.index, *path[2:]))

    def included(self, *path: Step) -> bool:
        """Whether it stands in an included file."""
        return path[:2] in self._origins

    @property
    def several(self) -> bool:
        """Whether more than one file holds rules or tests, so that a line alone says too little."""
        return bool(self._origins)

    def _find(self, path: Steps) -> tuple[Node | None, Steps]:
        """The deepest node along `path`, and the steps that lead no further."""
        node, left = _descend(self._root, path)
        for alias, target in self._aliases.items():
            if path[: len(alias)] == alias and len(path) - len(left) < len(alias):
                aliased, over = _descend(self._root, target + path[len(alias) :])
                return (aliased, over) if len(over) <= len(path) - len(alias) else (node, left)
        return node, left

    def _place(self, at: Node | Entry | None, path: Steps) -> Place:
        origin = self._origins.get(path[:2])
        file = self._file if origin is None else origin.file
        return Place(file, at.line, at.column) if at is not None else Place(file, 1, 1)


class Refused(Exception):
    """The text can't be read any further; the problem says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def read(path: Path) -> str:
    """The file's text. Raises Refused. Never waits: who opens a pipe would wait for its other end."""
    try:
        with fdopen(os_open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), "rb") as file:
            kind = fstat(file.fileno()).st_mode
            if not S_ISREG(kind):
                raise _refused(path, _NO_FILES[S_ISDIR(kind)])
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _refused(path, f"there is no such file{INIT}one") from None
    except IsADirectoryError:
        raise _refused(path, _NO_FILES[True]) from None
    except (OSError, ValueError) as error:
        raise _refused(path, f"can't be read: {_reason(error)}") from None
    if len(raw) > MAX_BYTES:
        raise _refused(path, f"is larger than {MAX_BYTES >> 20} MiB")
    return _decode(raw, str(path))


def compose(text: str, file: str, budget: Budget | None = None) -> tuple[Node | None, list[Problem]]:
    """The tree of one document (none if it can't be read to its end), and its mistakes."""
    composer = _Composer(file, Budget() if budget is None else budget)
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            composer.take(event)
        composer.end()
    except Refused as refused:
        composer.give_up(refused.problem)
    except yaml.MarkedYAMLError as error:
        composer.give_up(_at(file, syntax_mistake(error, text)))
    except yaml.reader.ReaderError:
        composer.give_up(_at(file, unreadable_character(text)))
    return composer.root, composer.problems


def written_path(path: Steps) -> str:
    """`("routes", 2, "allow")` as `routes[2].allow`."""
    words = (f"[{step}]" if isinstance(step, int) else f".{_short(step)}" for step in path)
    return "".join(words).removeprefix(".")


class _Composer:
    """Builds the tree from events. Open containers are on a stack; nothing recurses."""

    def __init__(self, file: str, budget: Budget) -> None:
        self.problems: list[Problem] = []
        self.root: Node | None = None
        self._file = file
        self._budget = budget
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._documents = 0

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            self._start(event)
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            self._end()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._document(event)

    def end(self) -> None:
        if self.root is None or (isinstance(self.root, Scalar) and self.root.plain and not self.root.text):
            raise Refused(Problem(Place(self._file, 1, 1), "", f"is empty{INIT}a first one"))

    def give_up(self, problem: Problem) -> None:
        """Half a file would only have more mistakes than the whole."""
        self.root = None
        self.problems.append(problem)

    def _document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            self._refuse(event, "a second document begins here; one file holds one configuration")

    def _scalar(self, event: Any) -> None:
        line, column = _position(event)
        node = Scalar(line, column, event.value, plain=event.implicit[0])
        self._note_tag(event)
        self._anchor(event, node, 1)
        self._add(event, node, 1)

    def _start(self, event: Any) -> None:
        line, column = _position(event)
        if len(self._open) >= MAX_DEPTH:
            self._refuse(event, TOO_DEEP)
        self._note_tag(event)
        table = isinstance(event, yaml.MappingStartEvent)
        node: Table | Sequence = Table(line, column) if table else Sequence(line, column)
        self._open.append(_Open(node, event))

    def _end(self) -> None:
        ended = self._open.pop()
        self._anchor(ended.event, ended.node, ended.size)
        self._add(ended.event, ended.node, ended.size)

    def _alias(self, event: Any) -> None:
        """Anchors are noted when their node ends, so an alias inside its own node is unknown."""
        if event.anchor not in self._anchors:
            self._refuse(
                event, "a value that begins with * names an anchor above it, and there is none; quote it"
            )
        node, size = self._anchors[event.anchor]
        self._budget.left -= size
        if self._budget.left < 0:
            self._refuse(event, "the aliases of this file expand to far too much")
        self._add(event, node, size)

    def _anchor(self, event: Any, node: Node, size: int) -> None:
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, size)

    def _add(self, event: Any, node: Node, size: int) -> None:
        """Put a finished node where it belongs: as the root, an item, a key or a value."""
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        parent.size += size
        if isinstance(parent.node, Sequence):
            parent.node.items.append(node)
        elif parent.key is None:
            self._key(event, node, parent)
        else:
            self._value(node, parent, parent.key)

    def _key(self, event: Any, node: Node, parent: _Open) -> None:
        if not isinstance(node, Scalar):
            self._refuse(event, "a key must be a word; quote a value that begins with { or [")
        line, column = _position(event)
        parent.key = (node.text, line, column)

    def _value(self, node: Node, parent: _Open, key: tuple[str, int, int]) -> None:
        parent.key = None
        name, line, column = key
        entries = parent.node.entries if isinstance(parent.node, Table) else {}
        if name in entries:
            self._note(line, column, f"is given twice; the first is on line {entries[name].line}", name)
        elif name == "<<":
            self._note(line, column, "merge keys are not read; write the settings out", name)
        else:
            entries[name] = Entry(line, column, node)

    def _note_tag(self, event: Any) -> None:
        if event.tag is not None:
            self._note(*_position(event), "tags are not read; quote a value that begins with !")

    def _note(self, line: int, column: int, sentence: str, *last: str) -> None:
        path = written_path((*self._steps(), *last))
        self.problems.append(Problem(Place(self._file, line, column), path, sentence))

    def _refuse(self, event: Any, sentence: str) -> NoReturn:
        raise Refused(Problem(Place(self._file, *_position(event)), written_path(self._steps()), sentence))

    def _steps(self) -> Steps:
        """The path to whatever is being read now."""
        return tuple(step for at in self._open if (step := at.step()) is not None)


@dataclass(slots=True)
class _Open:
    """A container whose end has not come yet."""

    node: Table | Sequence
    event: Any
    size: int = 1
    key: tuple[str, int, int] | None = None
    """The key that waits for its value, with its place."""

    def step(self) -> Step | None:
        """Where in the container we are."""
        if isinstance(self.node, Sequence):
            return len(self.node.items)
        return self.key[0] if self.key is not None else None


def _descend(node: Node | None, path: Steps) -> tuple[Node | None, Steps]:
    for index, step in enumerate(path):
        below = _step(node, step)
        if below is None:
            return node, path[index:]
        node = below
    return node, ()


def _step(node: Node | None, step: Step) -> Node | None:
    if isinstance(node, Table):
        entry = node.entries.get(str(step))
        return entry.value if entry is not None else None
    if isinstance(node, Sequence) and isinstance(step, int) and 0 <= step < len(node.items):
        return node.items[step]
    return None


def _position(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _printable(text: str) -> str:
    """One line that no terminal takes for a command: keys and values may hold anything."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def _refused(path: Path, sentence: str) -> Refused:
    return Refused(Problem(Place(str(path), 1, 1), "", sentence))


def _reason(error: OSError | ValueError) -> str:
    return (
        (error.strerror or "the system refuses").lower() if isinstance(error, OSError) else "a bad file name"
    )


def _decode(raw: bytes, file: str) -> str:
    if b"\0" in raw:
        sentence = "is not text in UTF-8: it holds a zero byte"
        raise Refused(Problem(_place_at(raw, raw.index(b"\0"), file), "", sentence))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        sentence = f"is not text in UTF-8: it holds the byte 0x{raw[error.start]:02x}"
        raise Refused(Problem(_place_at(raw, error.start, file), "", sentence)) from None


def _at(file: str, mistake: Mistake) -> Problem:
    line, column, sentence = mistake
    return Problem(Place(file, line, column), "", sentence)


def _place_at(raw: bytes, offset: int, file: str) -> Place:
    before = raw[:offset].decode("utf-8", errors="replace")
    return Place(file, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
