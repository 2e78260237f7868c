"""Configuration files as they stood in a git revision: `HEAD~1:gateway.yaml`.

A file is copied into a folder of its own, and beside it, at their places, the files that it
names, all from the same revision. git is asked for objects by name, over stdin and never
through a shell, so neither a revision nor a path can become an option or a command.
"""

from __future__ import annotations

import os
import posixpath
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click

from gateway.cli.output import printable

MAX_BYTES = 64 << 20
"""No file of a configuration is as large; the loader says from when on it is too large for it."""


class Unavailable(click.ClickException):
    """A revision or a file in it can't be had. The sentence says which and why."""

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence))


@dataclass(frozen=True, slots=True)
class Source:
    """A configuration file, where it can be read, and how it is called."""

    path: Path
    """Where it is."""
    variables: Mapping[str, str] = field(default_factory=lambda: os.environ)
    """What fills it in."""
    revision: Revision | None = None
    """Where it comes from; None for an ordinary file."""
    root: Path = Path()
    """Where the revision's files are copied to."""

    def fetch(self, files: Iterable[Path]) -> bool:
        """Copy what the revision has of these files. Whether something came that was not there."""
        revision = self.revision
        if revision is None:
            return False
        copied = [self._copy(revision, file.absolute()) for file in files if not file.exists()]
        return any(copied)

    def shown(self, text: str) -> str:
        """The text with the names that people know: `HEAD~1:gateway.yaml`."""
        if self.revision is None:
            return text
        return text.replace(f"{self.root}/", f"{self.revision.name}:")

    def _copy(self, revision: Revision, file: Path) -> bool:
        name = posixpath.relpath(file, self.root)
        content = None if name.startswith("../") else revision.read(name)
        if content is None:
            return False
        try:
            file.parent.mkdir(parents=True, exist_ok=True)  # each step of rules/../x.yaml
            file.write_bytes(content)
        except OSError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Revision:
    """A state of a repository that git has."""

    name: str
    """As the user wrote it; empty for what is staged."""
    top: Path
    """The repository's folder; of a bare one that of its objects."""
    tree: str
    """The object that stands for it; empty for what is staged."""

    def read(self, path: str) -> bytes | None:
        """The content of a file, or None if there is no such file."""
        if "\n" in path:
            return None
        follow = ["--follow-symlinks"] if self.tree else []  # git can't follow them among what is staged
        answer = _git(self.top, "cat-file", "--batch", *follow, stdin=f"{self.tree}:{path}\n".encode())
        head, _, content = answer.partition(b"\n")
        words = head.split(b" ")
        if len(words) != 3 or words[1] != b"blob" or not words[2].isdigit() or int(words[2]) > MAX_BYTES:
            return None
        return content[: int(words[2])]


@contextmanager
def opened(text: str) -> Iterator[Source]:
    """The file that `text` names: a path, or `REVISION:PATH` as git has it. Raises Unavailable."""
    revision, path = _split(text)
    if revision is None or Path(text).exists():
        yield Source(Path(text))
        return
    found = _revision(revision)
    path = _from_top(found, path, text)
    with tempfile.TemporaryDirectory(prefix="gateway-diff-") as folder:
        root = Path(folder).resolve()
        source = Source(root / path, revision=found, root=root)
        if not source.fetch([root / path]):
            raise Unavailable(f"{text}: {_named(found)} has no file {path}")
        beside = root / path
        if source.fetch([beside.with_name(".env")]):
            yield source
        else:
            variables = {**_dotenv(found.top / path), **os.environ}
            yield Source(root / path, variables, found, root)


def _split(text: str) -> tuple[str | None, str]:
    """At the first colon outside of braces, as git does: `HEAD^{/fix: it}:gateway.yaml`."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if character == ":" and depth <= 0:
            return text[:index], text[index + 1 :]
    return None, text


def _revision(name: str) -> Revision:
    top = Path(os.fsdecode(_top()))
    if not name:
        return Revision(name, top, "")
    if name.startswith("-"):
        raise Unavailable(f"{name}: no revision begins with -")
    try:
        tree = _git(top, "rev-parse", "--verify", "--quiet", f"{name}^{{tree}}").decode().strip()
    except subprocess.CalledProcessError:
        raise Unavailable(
            f"{name}: git knows no such revision here; a shallow clone has only the latest"
        ) from None
    return Revision(name, top, tree)


def _top() -> bytes:
    try:
        return _git(Path(), "rev-parse", "--show-toplevel").rstrip(b"\n")
    except subprocess.CalledProcessError as error:
        reason = os.fsdecode(error.stderr).strip().partition("\n")[0].removeprefix("fatal: ")
        if "work tree" in reason:  # a bare repository, as servers have them: nothing is checked out
            return _git(Path(), "rev-parse", "--absolute-git-dir").rstrip(b"\n")
        if "not a git repository" in reason or not reason:
            reason = "this folder is in no git repository"
        raise Unavailable(reason) from None


def _from_top(revision: Revision, path: str, text: str) -> str:
    """git counts a path from the top of the repository, and one that begins with a dot from here."""
    if path.startswith(("./", "../")):
        path = posixpath.join(posixpath.relpath(Path.cwd(), revision.top.resolve()), path)
    path = posixpath.normpath(path)
    if path.startswith(("../", "/")) or path in (".", ".."):
        raise Unavailable(f"{text}: name a file in the repository, from its top, or from here with ./")
    return path


def _named(revision: Revision) -> str:
    return revision.name or "what is staged"


def _dotenv(path: Path) -> dict[str, str]:
    """Variables are rarely committed; those of the file in the working tree will do."""
    from gateway.config.dotenv import read_dotenv

    return read_dotenv(path.with_name(".env"))[0]


def _git(folder: Path, *words: str, stdin: bytes = b"") -> bytes:
    try:
        command = ["git", *words]
        done = subprocess.run(command, cwd=folder, input=stdin, capture_output=True, check=True)  # noqa: S603  no shell, and words of ours but one checked name
    except FileNotFoundError:
        raise Unavailable("git is not installed; name files instead of revisions") from None
    return done.stdout
