"""`${NAME}`, `${NAME:-default}` and `${file:/path}` inside single scalars.

Filling happens after parsing, so a value can hold anything and still is one
value: it can't add a key, end a string or become a list. What was filled in is
not looked at again. `$${` stands for a plain `${`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .filled import Broken, Filled, Unset

MAX_FILE_BYTES = 64 << 10
"""A secret, a certificate's password: never a large file, and never a device that has no end."""

_PLACEHOLDER = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_FORMS = "write ${NAME}, ${NAME:-default} or ${file:/path}; $${ for a plain ${"


class Missing(Exception):
    """A variable or file is not there, which a caller may accept for a secret."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What values may be taken from."""

    variables: Mapping[str, str]
    folder: Path
    """Where relative files begin."""
    files: list[Path] = field(default_factory=list)
    """Files that were asked for, whether they are there or not."""


def fill(text: str, outside: Outside, note: Callable[[str, bool], None]) -> Filled:
    """`text` with its placeholders filled in. Each mistake goes to `note(sentence, missing)`.

    The result is Unset if all that went wrong is that something is missing.
    """
    missing, wrong = 0, 0

    def replace(match: re.Match[str]) -> str:
        nonlocal missing, wrong
        try:
            return _value(match, outside)
        except Missing as reason:
            missing += 1
            note(str(reason), True)
        except ValueError as reason:
            wrong += 1
            note(str(reason), False)
        return ""

    value = _PLACEHOLDER.sub(replace, text)
    if wrong:
        return Broken(value, text)
    return Unset(value, text) if missing else Filled(value, text)


def _value(match: re.Match[str], outside: Outside) -> str:
    if match[0] == "$${":
        return "${"
    inner = match[1]
    if inner is None:
        raise ValueError(f"has a ${{ that does not end or holds braces; {_FORMS}")
    if inner.startswith("file:"):
        return _file(inner.removeprefix("file:"), outside)
    name, has_default, default = inner.partition(":-")
    if not _NAME.fullmatch(name):
        raise ValueError(f"can't fill in {match[0]}; {_FORMS}")
    variables = outside.variables
    if has_default:
        return _utf8(variables.get(name) or default, name)
    if name not in variables:
        raise Missing(f"the variable {name} is not set, neither in the environment nor in .env")
    return _utf8(variables[name], name)


def _utf8(value: str, name: str) -> str:
    """Bytes of the environment that are no UTF-8 arrive as lone surrogates (PEP 383)."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the variable {name} is not text in UTF-8") from None
    return value


def _file(name: str, outside: Outside) -> str:
    """The content of a file without its last line break. A relative name starts at the configuration."""
    path = outside.folder / name
    outside.files.append(path)
    try:
        if not path.exists():
            raise Missing(f"there is no file {name}")
        if not path.is_file():
            raise ValueError(f"{name} is not a regular file")
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"can't read {name}: {(error.strerror or 'the system refuses').lower()}") from None
    return _text(raw, name)


def _text(raw: bytes, name: str) -> str:
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"{name} is larger than {MAX_FILE_BYTES >> 10} KiB")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not text in UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")
