"""Accounts in CSV and JSON: read with the line of every mistake, written so that they can be read again.

Both have the same fields, under the names of the HTTP interface:

    email           the only one that must be there
    passwordHash    of bcrypt; left out: nobody can log in until a password is set
    isAdmin, disabled   CSV: true or false, also yes/no and 1/0; left out: false
    roles           CSV: with blanks between them
    id, createdAt   left out: new ones

CSV has a line of these names first (RFC 4180, UTF-8, with or without a BOM). A value
that a spreadsheet would take for a formula gets a `'` in front when it is written,
and loses it when it is read (OWASP, CSV injection).

JSON is a list of objects. Each is parsed by itself, so what is held is the text, and
the line of each object is known.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from gateway.accounts.emails import canonical_email
from gateway.accounts.ids import is_id
from gateway.accounts.passwords import refuse_unreadable
from gateway.accounts.transfer import Incoming
from gateway.accounts.users import checked_roles
from gateway.accounts.values import User
from gateway.errors import InvalidField
from gateway.web.fields import flag, text, texts
from gateway.web.shapes import account

COLUMNS: Final = ("email", "isAdmin", "roles", "disabled", "id", "createdAt", "passwordHash")
_Record = tuple[int, dict[str, Any]]
"""The line where an account begins, and its fields as JSON would have them."""
_FOREIGN: Final = re.compile("[\ud800-\udfff]")
"""Bytes that are not UTF-8, as `surrogateescape` shows them."""
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_YES: Final = {"true", "yes", "1"}
_NO: Final = {"false", "no", "0", ""}


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something in a file that can't be an account."""

    line: int
    """Where the account begins."""
    sentence: str
    """What is wrong."""


def read_accounts(path: Path, kind: str) -> Iterator[Incoming | Mistake]:
    """Every account of a file, or what is wrong with it. Raises OSError."""
    seen = _Seen()
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for found in (_csv if kind == "csv" else _json)(file):
            if isinstance(found, Mistake):
                yield found
                continue
            line, fields = found
            values, sentences = _checked(fields)
            sentences += seen.before(line, values)
            yield from (Mistake(line, sentence) for sentence in sentences)
            if not sentences:
                yield Incoming(line=line, **{_NAMES.get(name, name): value for name, value in values.items()})


def as_fields(user: User, password_hash: str) -> dict[str, Any]:
    """The fields of one account; without a hash if that is ""."""
    shown = account(user)
    fields: dict[str, Any] = {name: shown[name] for name in COLUMNS if name in shown}
    return {**fields, "passwordHash": password_hash} if password_hash else fields


class CsvWriter:
    """A file of accounts, line by line."""

    def __init__(self, file: TextIO, *, with_hashes: bool) -> None:
        self._columns = COLUMNS if with_hashes else COLUMNS[:-1]
        self._csv = csv.writer(file, lineterminator="\n")
        self._csv.writerow(self._columns)

    def write(self, fields: Mapping[str, Any]) -> None:
        self._csv.writerow([_cell(fields.get(name, "")) for name in self._columns])

    def end(self) -> None:
        pass


class JsonWriter:
    """A list of accounts, each on a line of its own."""

    def __init__(self, file: TextIO, *, with_hashes: bool) -> None:
        self._file = file
        self._before = "[\n"

    def write(self, fields: Mapping[str, Any]) -> None:
        self._file.write(self._before + json.dumps(fields, ensure_ascii=False))
        self._before = ",\n"

    def end(self) -> None:
        self._file.write("[]\n" if self._before == "[\n" else "\n]\n")


# -- CSV -----------------------------------------------------------------------------------------------------


def _csv(file: TextIO) -> Iterator[_Record | Mistake]:
    reader = csv.reader(file, strict=True)
    try:
        names = next(reader, [])
        if problems := _wrong_names(names):
            yield from (Mistake(1, problem) for problem in problems)
            return
        before = reader.line_num
        for cells in reader:
            line, before = before + 1, reader.line_num
            if cells:
                yield _row(line, names, cells)
    except csv.Error as error:
        yield Mistake(reader.line_num, f"can't be read as CSV from here on: {error}")


def _row(line: int, names: list[str], cells: list[str]) -> _Record | Mistake:
    if len(cells) != len(names):
        return Mistake(line, f"has {len(cells)} values for {len(names)} columns")
    if any(map(_FOREIGN.search, cells)):
        return Mistake(line, "is not UTF-8")
    return line, _typed(dict(zip(names, map(_unguarded, cells), strict=True)))


def _wrong_names(names: list[str]) -> list[str]:
    known = f"the columns are {', '.join(COLUMNS)}, with commas between them"
    problems = [f'unknown column "{name[:40]}"; {known}' for name in names if name not in COLUMNS]
    problems += [f"the column {name} is there twice" for name in COLUMNS if names.count(name) > 1]
    return problems or ([] if "email" in names else [f"the column email is missing; {known}"])


def _typed(cells: Mapping[str, str]) -> dict[str, Any]:
    """As JSON has them. What is empty is left out; what is no word for yes or no stays, and is refused."""
    fields: dict[str, Any] = {}
    for name, cell in cells.items():
        if name in ("isAdmin", "disabled"):
            word = cell.strip().lower()
            fields[name] = word in _YES if word in _YES | _NO else cell
        elif name == "roles":
            fields[name] = cell.split()
        elif cell or name == "email":
            fields[name] = cell
    return fields


def _cell(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case list():
            return " ".join(value)
        case _:
            return f"'{value}" if _FORMULA.match(value) else str(value)


def _unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


# -- JSON ----------------------------------------------------------------------------------------------------


class _Twice(dict[str, Any]):
    """An object in which a name stands twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else _Twice(fields)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object)
_SPACE: Final = re.compile(r"[ \t\r\n]*")


def _json(file: TextIO) -> Iterator[_Record | Mistake]:
    written = file.read()
    if foreign := _FOREIGN.search(written):
        yield Mistake(_line_of(written, foreign.start()), "is not UTF-8")
        return
    at, line, counted = _skip(written, 0), 1, 0
    if not written.startswith("[", at):
        yield Mistake(1, 'write a list of accounts: [{"email": "ann@example.com"}, …]')
        return
    at = _skip(written, at + 1)
    while not written.startswith("]", at):
        line, counted = line + written.count("\n", counted, at), at
        try:
            value, end = _DECODER.raw_decode(written, at)
            yield _record(line, value)
            at = _after(written, end)
        except json.JSONDecodeError as error:
            yield Mistake(error.lineno, f"can't be read as JSON from here on: {error.msg}")
            return
        except ValueError:  # Python reads no number of more than 4,300 digits
            yield Mistake(line, "holds a number that is too long")
            return
        except RecursionError:
            yield Mistake(line, "is nested too deeply")
            return
    if _skip(written, at + 1) < len(written):
        yield Mistake(_line_of(written, at), "something follows the end of the list")


def _record(line: int, value: Any) -> _Record | Mistake:
    if isinstance(value, _Twice):
        return Mistake(line, "has the same name twice")
    return (line, value) if isinstance(value, dict) else Mistake(line, "must be an object with an email")


def _after(written: str, end: int) -> int:
    """Where the next value begins, or the end of the list."""
    at = _skip(written, end)
    if written.startswith("]", at):
        return at
    following = _skip(written, at + 1)
    if not written.startswith(",", at):
        raise json.JSONDecodeError("Expecting ',' or ']'", written, at)
    if written.startswith("]", following):
        raise json.JSONDecodeError("A comma too many", written, at)
    return following


def _skip(written: str, at: int) -> int:
    found = _SPACE.match(written, at)
    return found.end() if found else at


def _line_of(written: str, at: int) -> int:
    return written.count("\n", 0, at) + 1


# -- one account ---------------------------------------------------------------------------------------------


def _checked(fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values that are right, and a sentence for each that is not."""
    values, sentences = {}, [f'unknown field "{name[:40]}"' for name in fields if name not in _READERS]
    for name, read in _READERS.items():
        if name not in fields:
            continue
        try:
            values[name] = read(name, fields[name])
        except InvalidField as error:
            sentences.append(error.detail if error.detail.startswith(name) else f"{name}: {error.detail}")
    return values, sentences if "email" in fields else [*sentences, "email is missing"]


class _Seen:
    """The addresses and ids of a file so far, with their lines."""

    def __init__(self) -> None:
        self._lines: dict[str, dict[str, int]] = {"email": {}, "id": {}}

    def before(self, line: int, values: Mapping[str, Any]) -> list[str]:
        sentences = []
        for name, lines in self._lines.items():
            if name in values and (first := lines.setdefault(values[name], line)) != line:
                sentences.append(f"{name}: the same as on line {first}")
        return sentences


def _hash(name: str, value: Any) -> str:
    stored = text(name, value)
    refuse_unreadable(stored)
    return stored


def _id(name: str, value: Any) -> str:
    if not is_id(text(name, value)):
        raise InvalidField(f"{name}: write a UUID in small letters.")
    return str(value)


def _moment(name: str, value: Any) -> float:
    try:
        moment = datetime.fromisoformat(text(name, value))
        seconds = moment.timestamp()
        datetime.fromtimestamp(seconds, UTC)  # its zone may lead to year 10000
    except (ValueError, OverflowError):
        moment, seconds = None, -1.0
    if moment is None or moment.tzinfo is None or seconds < 0:
        raise InvalidField(f"{name}: write a time from 1970 to 9999 with its zone: 2026-11-23T23:37:27Z.")
    return seconds


_READERS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "email": lambda name, value: canonical_email(text(name, value)),
    "passwordHash": _hash,
    "isAdmin": flag,
    "roles": lambda name, value: checked_roles(texts(name, value)),
    "disabled": flag,
    "id": _id,
    "createdAt": _moment,
}
_NAMES: Final = {"passwordHash": "password_hash", "isAdmin": "is_admin", "createdAt": "created_at"}
"""How the fields are called inside."""
