"""What one plain YAML scalar means, by the core schema of YAML 1.2, and nothing else.

PyYAML follows YAML 1.1, where `no` is false, `012` is ten and `1:30` is ninety.
Here only the 1.2 readings exist, and a scalar that the two versions read
differently is a mistake, with a sentence that says what to write instead.
"""

from __future__ import annotations

import re

Plain = str | int | float | bool | None

_WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
}  # fmt: skip

_BOOLEAN_11 = re.compile(r"yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF|y|Y|n|N")
_TRUE_11 = {"yes", "on", "y"}
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_OCTAL = re.compile(r"0o[0-7]+")
_BINARY = re.compile(r"[-+]?0b[01_]+")
_UNDERSCORES = re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?")
_MAX_DIGITS = 18
"""More than any setting needs, and far below where int() becomes slow or refuses."""


def resolve(text: str) -> Plain:
    """The value of a plain scalar. Whoever is not a word or a number is a string."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789" or len(text) > _MAX_DIGITS:
        return text
    if _DECIMAL.fullmatch(text):
        return int(text)
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def surprise(text: str) -> str | None:
    """Why this plain scalar would be read differently elsewhere, or None; long text is only text."""
    if len(text) > _MAX_DIGITS:
        return None
    if _BOOLEAN_11.fullmatch(text):
        word = "true" if text.lower() in _TRUE_11 else "false"
        return f'YAML versions disagree about {text}; write {word}, or "{text}" in quotes for the word'
    if not text or text[0] not in "+-0123456789":
        return None
    if _LEADING_ZERO.fullmatch(text):
        return f"{text} is octal for some and decimal for others; drop the leading zero, or quote it"
    if _OCTAL.fullmatch(text) or _BINARY.fullmatch(text):
        return f"YAML versions disagree about {text}; write the number in decimal"
    if _UNDERSCORES.fullmatch(text):
        return f"YAML versions disagree about {text}; write the number without underscores, or quote it"
    if _SEXAGESIMAL.fullmatch(text):
        return f"{text} is a number in base 60 for some and text for others; quote it"
    if _DATE.fullmatch(text):
        return f"{text} is a date for some and text for others; quote it"
    return None
