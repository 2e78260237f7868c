"""Takes fields out of a JSON object or a query string: strictly typed, none missing, none unknown.

A value of the wrong type is refused, never converted: `"isAdmin": "false"` is
a mistake and not an admin. An unknown field is refused too, because a typo in
`disabled` must not look like success. The sentences name the field and what to
write; a value is never repeated, since it may be a password.

What a value *means* (is this an e-mail, is the password long enough) is decided
by `gateway.accounts`, for the command line too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from gateway.errors import InvalidField

Read = Callable[[str, Any], Any]
"""Checks one value: (the field's name, what was sent) -> the value, or InvalidField."""

_HARMLESS_NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(
    r"[0-9-]{10}[Tt][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


Readers = Mapping[str, Read]
"""Field names and how each is read."""

NONE: Readers = {}


def take(given: Mapping[str, Any], *, required: Readers = NONE, optional: Readers = NONE) -> dict[str, Any]:
    """The checked values, by name. Optional ones that were not sent are not there."""
    known = {**required, **optional}
    for name in given:
        if name not in known:
            raise InvalidField(f"{_shown(name)} is unknown here; {_choices(list(known))}.")
    for name in required:
        if name not in given:
            raise InvalidField(f"{name} is missing.")
    return {name: read(name, given[name]) for name, read in known.items() if name in given}


def text(name: str, value: Any) -> str:
    """A string of whole characters: no lone surrogate (`"\\ud800"`), which no encoding can carry."""
    if not isinstance(value, str):
        raise InvalidField(f"{name}: write a string.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidField(f"{name}: half a character (a lone surrogate) is in it.") from None
    return value


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidField(f"{name}: write true or false.")
    return value


def texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InvalidField(f"{name}: write a list of strings.")
    return tuple(text(f"{name}[{index}]", item) for index, item in enumerate(value))


def whole_number(least: int, most: int) -> Read:
    """A number in a query string: plain ASCII digits, within bounds."""

    def read(name: str, value: Any) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not least <= int(value) <= most:
            raise InvalidField(f"{name}: write a whole number from {least} to {most}.")
        return int(value)

    return read


def moment(name: str, value: Any) -> float:
    """A time, in Unix seconds: RFC 3339, or a day, which begins at 00:00 UTC."""
    try:
        if not isinstance(value, str):
            raise ValueError
        if _DAY.fullmatch(value):
            return datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp()
        if _MOMENT.fullmatch(value):
            return datetime.fromisoformat(value.upper()).timestamp()
    except (ValueError, OverflowError):
        pass
    raise InvalidField(f"{name}: write a day like 2027-01-31, or a time like 2027-01-31T18:00:00Z.")


def words(name: str, value: Any) -> tuple[str, ...]:
    """Words between commas in a query string."""
    return tuple(word.strip() for word in value.split(","))


def read_query(request: Request, optional: Readers = NONE) -> dict[str, Any]:
    """The query's checked parameters.

    One that nobody reads is a mistake, and at worst a token on its way into access logs.
    """
    return take(parse_query(request.scope["query_string"]), optional=optional)


def parse_query(query: bytes) -> dict[str, str]:
    """A query string's parameters, each at most once, in UTF-8."""
    if _BAD_ESCAPE.search(query):
        raise InvalidField("The query holds a % that is not followed by two hex digits.")
    values: dict[str, str] = {}
    for part in filter(None, query.split(b"&")):
        name, _, value = (_decoded(piece) for piece in part.partition(b"="))
        if name in values:
            raise InvalidField(f"{_shown(name)} is in the query twice; send it once.")
        values[name] = value
    return values


def _decoded(piece: bytes) -> str:
    try:
        return unquote_to_bytes(piece.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise InvalidField("The query is not UTF-8.") from None


def _shown(name: str) -> str:
    """The sender's own word for a field, if it is harmless to repeat."""
    return name if _HARMLESS_NAME.fullmatch(name) else "A field"


def _choices(names: list[str]) -> str:
    return f"send {', '.join(names)}" if names else "send none"
