"""`.env` beside the configuration, in the syntax that docker compose and dotenv users know.

    # a comment
    NAME=value            # a comment after a blank
    export NAME='as it stands, $ and \\ too'
    NAME="with \\n, \\t, \\\\ and \\" as escapes"

Quoted values may span lines. Nothing is filled in: a `${…}` that other readers
would replace is a mistake here, because the difference would be silent.
"""

from __future__ import annotations

import re
from pathlib import Path

from .source import Place, Problem, Refused, read

_NAME = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*")
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_REST = re.compile(r"[ \t]*(#[^\n]*)?(\n|$)")
_LINE = re.compile(r"[^\n]*(\n|$)")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def read_dotenv(path: Path) -> tuple[dict[str, str], list[Problem]]:
    """The variables of `path`, or none if there is no such file."""
    try:
        if not path.exists():
            return {}, []
        return parse_dotenv(read(path), str(path))
    except OSError:
        return {}, []  # nothing beside it can be read either, and the reader of that says so
    except Refused as refused:
        return {}, [refused.problem]


def parse_dotenv(text: str, file: str) -> tuple[dict[str, str], list[Problem]]:
    variables: dict[str, str] = {}
    problems: list[Problem] = []
    text = text.replace("\r\n", "\n")
    offset = 0
    while offset < len(text):
        place = Place(file, text.count("\n", 0, offset) + 1, 1)
        try:
            offset, name, value = _assignment(text, offset)
        except ValueError as mistake:
            problems.append(Problem(place, "", str(mistake)))
            offset = _next_line(text, offset)
            continue
        if name:
            variables[name] = value
    return variables, problems


def _assignment(text: str, offset: int) -> tuple[int, str, str]:
    """What one line says, and where the next begins; no name for a line that says nothing."""
    while offset < len(text) and text[offset] in " \t":
        offset += 1
    if offset == len(text) or text[offset] in "#\n":
        return _next_line(text, offset), "", ""
    match = _NAME.match(text, offset)
    if match is None:
        raise ValueError("must be NAME=value; a name has letters, digits and _")
    end, value = _value(text, match.end(), match[1])
    return end, match[1], value


def _value(text: str, offset: int, name: str) -> tuple[int, str]:
    quote = text[offset : offset + 1]
    if quote in ("'", '"') and quote:
        return _quoted(text, offset, name, _SINGLE if quote == "'" else _DOUBLE)
    end = _next_line(text, offset)
    value = re.split(r"(?:^|[ \t])#", text[offset:end].rstrip("\n"), maxsplit=1)[0].strip()
    _refuse_filling(value, name)
    return end, value


def _quoted(text: str, offset: int, name: str, pattern: re.Pattern[str]) -> tuple[int, str]:
    match = pattern.match(text, offset)
    if match is None:
        raise ValueError(f"{name}: a quote is opened and never closed")
    rest = _REST.match(text, match.end())
    if rest is None:
        raise ValueError(f"{name}: something follows the closing quote")
    if pattern is _SINGLE:
        return rest.end(), match[1]
    _refuse_filling(match[1], name)
    return rest.end(), _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[1]), match[1])


def _refuse_filling(value: str, name: str) -> None:
    if "${" in value:
        raise ValueError(f"{name}: ${{…}} is not filled in here; write the value, or use single quotes")


def _next_line(text: str, offset: int) -> int:
    match = _LINE.match(text, offset)
    return match.end() if match is not None else len(text)
