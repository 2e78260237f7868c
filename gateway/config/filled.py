"""Marks on text that came from outside the file, so that it is typed late and never printed."""

from __future__ import annotations

from typing import Any

SHOWN = 60
"""Characters of a value that a message quotes."""


class Filled(str):
    """Text after `${…}` was filled in. It has no YAML type yet: the setting decides."""

    __slots__ = ("template",)
    template: str
    """The text as the file has it. Messages show this, never the value."""

    def __new__(cls, value: str, template: str) -> Filled:
        filled = super().__new__(cls, value)
        filled.template = template
        return filled


class Unset(Filled):
    """A secret whose variable is not set, where the caller said that this is fine."""

    __slots__ = ()


class Broken(Filled):
    """Stands where a value could not be read; the mistake is reported already."""

    __slots__ = ()


def show(value: Any) -> str:
    """A value as a message quotes it."""
    if isinstance(value, Filled):
        return f'"{value.template}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= SHOWN else f'"{value[:SHOWN]}…"'
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, tuple) else str(value)
