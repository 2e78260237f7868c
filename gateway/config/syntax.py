"""What libyaml says of broken syntax, in words for the person who wrote the file."""

from __future__ import annotations

import re

import yaml

MAX_DEPTH = 32
"""The deepest setting is six levels down."""
TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep"

Mistake = tuple[int, int, str]
"""Line and column, from 1, and a sentence."""

_UNREADABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
"""What YAML can't hold (YAML 1.2 § 5.1)."""
_ESCAPE = "an unknown escape with \\ between double quotes; single quotes have none"
_TAB = "a tab can't indent; use spaces"
_NEVER_CLOSED = (
    ("did not find expected ',' or ']'", "this list is not closed with ], or a comma is missing in it"),
    (
        "did not find expected ',' or '}'",
        "this mapping is not closed with }, or a comma is missing in it; "
        'inside { } quote what holds braces, like "/{id}" or "${NAME}"',
    ),
    ("unexpected end of stream", "this quote is never closed"),
    ("expected alphabetic or numeric character", "a value can't begin with * or &; quote it"),
)
"""Told of where it begins; libyaml notices only much later."""
_WRONG_HERE = (
    ("mapping values are not allowed", 'a ": " or an indent too many; quote a value that holds ": "'),
    ("could not find expected ':'", 'a key without ": " after it'),
    ("did not find expected key", "this line does not fit the indent of the lines above it"),
    ("did not find expected '-'", "this line does not fit the list above it"),
    ("did not find expected node content", 'a value is missing here, or has to be quoted, like "::1"'),
    ("sequence entries are not allowed", "a list begins on a line of its own, or stands in [ ]"),
    ("a tab character", _TAB),
    ("exceeded maximum nesting depth", TOO_DEEP),  # it reads ahead of what it tells
    ("hexdecimal", _ESCAPE),
    ("unknown escape", _ESCAPE),
    ("undefined tag handle", "tags are not read; quote a value that begins with !"),
    ("expected <document start>", "nothing may follow the end of the configuration"),
)


def syntax_mistake(error: yaml.MarkedYAMLError, text: str) -> Mistake:
    """Where and what the mistake is that the parser stumbled over."""
    problem = str(error.problem)
    if closing := _find(problem, _NEVER_CLOSED):
        return _placed(error.context_mark, closing)
    if "cannot start any token" in problem:
        return _placed(error.problem_mark, _bad_beginning(text, error.problem_mark))
    return _placed(error.problem_mark, _find(problem, _WRONG_HERE) or f"not valid YAML: {problem}")


def unreadable_character(text: str) -> Mistake:
    """libyaml says which character it can't read, not where; we look for it ourselves."""
    match = _UNREADABLE.search(text)
    offset, name = (match.start(), f"U+{ord(match[0]):04X}") if match is not None else (0, "unknown")
    line, start = text.count("\n", 0, offset) + 1, text.rfind("\n", 0, offset) + 1
    return line, offset - start + 1, f"holds a control character ({name}); remove it"


def _find(problem: str, sentences: tuple[tuple[str, str], ...]) -> str:
    return next((sentence for words, sentence in sentences if words in problem), "")


def _placed(mark: yaml.Mark | None, sentence: str) -> Mistake:
    return (mark.line + 1, mark.column + 1, sentence) if mark is not None else (1, 1, sentence)


def _bad_beginning(text: str, mark: yaml.Mark | None) -> str:
    lines = text.splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    character = line[mark.column : mark.column + 1] if mark is not None else ""
    return _TAB if character == "\t" else f"a value can't begin with {character}; quote it"
