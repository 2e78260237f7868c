"""The reference of every setting, as Markdown: `python -m gateway.config.reference`.

Written from the JSON Schema, so that editor, reference and gateway can't disagree.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from .json_schema import FILLED, json_schema

_INTRODUCTION = """\
# gateway.yaml

<!-- Generated: python -m gateway.config.reference > docs/reference/configuration.md -->

Every setting, its type, its default and what it does. `gateway check` names every mistake with its place;
`gateway schema` prints the JSON Schema, which editors read from the first line of the file:
`# yaml-language-server: $schema=config/gateway.schema.json`.

## Notation

| | |
|---|---|
| size | `512B`, `8KiB`, `10MiB`, `1GiB` (powers of 1024), `kB`, `MB`, `GB` (of 1000), or a number of bytes |
| duration | `500ms`, `10s`, `15m`, `12h`, `7d`, or several: `1h30m`. The unit is never left out |
| rate | `5/minute`, `100/hour`, `20/10s`: so many in a second, minute, hour or day, or in several of them |
| network | `10.0.0.0/8`, `fd00::/8`, or one address |
| role | 1 to 64 of `a-z 0-9 . _ : -` |

## Values from outside

Any single value may hold `${NAME}` (a variable), `${NAME:-default}` (used when the variable is unset or
empty) and `${file:/run/secrets/name}` (the content of a file without its last line break; a relative name
starts beside `gateway.yaml`). They are filled in after the file was read, so a value is always one value,
whatever it holds, and has the type that its setting needs. `$${` stands for a plain `${`. Inside `{ }` and
`[ ]` write them in quotes. `server.listen`, `server.trusted_proxies` and `urls` take several items between
commas from one variable.

A `.env` beside the file is read, and the real environment wins over it. It has lines like `NAME=value`,
`export NAME='as it stands'` and `NAME="with \\n escapes"`; quoted values may span lines, and ` #` begins a
comment. A variable that is missing is a mistake; `check --allow-unset` accepts that of
`tokens.access.secret`, `tokens.refresh.secret`, `accounts.database` and `rate_limits.storage`.

## What the file may hold

YAML 1.2, in UTF-8, up to 1 MiB, one document. What YAML 1.1 reads differently is a mistake: `yes`, `no`,
`on`, `off`, `012`, `0o14`, `1:30`, `1_000`, a date. Quote them (`ops_listen: off` is fine as it stands).
Mistakes are also duplicate and unknown keys, tags, merge keys (`<<`), and keys without a value. Anchors and
aliases work.
"""


def reference() -> str:
    """The whole document."""
    schema = json_schema()
    return "\n".join([_INTRODUCTION, *_section("", schema, schema)])


def settings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every setting by its path (`upstreams.NAME.url`, `routes[].path`), with its part of the schema."""
    schema = json_schema()
    yield from _settings("", schema, schema)


def _settings(
    path: str, section: dict[str, Any], root: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, described in section["properties"].items():
        below = f"{path}.{name}".removeprefix(".")
        yield below, described
        for suffix, inner in _inner(described, root):
            yield from _settings(below + suffix, inner, root)


def _section(path: str, section: dict[str, Any], root: dict[str, Any]) -> Iterator[str]:
    """A table of one section, then the sections below it."""
    yield f"## {f'`{path}`' if path else 'Top level'}\n"
    if path:
        yield f"{section['description']}\n"
    yield "| setting | type | default | |"
    yield "|---|---|---|---|"
    for name, described in section["properties"].items():
        yield _row(name, described, section, root)
    yield ""
    for name, described in section["properties"].items():
        for suffix, inner in _inner(described, root):
            yield from _section(f"{path}.{name}{suffix}".removeprefix("."), inner, root)


def _row(name: str, described: dict[str, Any], section: dict[str, Any], root: dict[str, Any]) -> str:
    needed = name in section.get("required", ())
    default = (
        f"`{_plain(described['default'])}`" if "default" in described else ("required" if needed else "")
    )
    words = described.get("description") or _resolved(described, root)["description"]
    examples = ", ".join(f"`{_plain(example)}`" for example in described.get("examples", ()))
    words += f" For example {examples}." if examples else ""
    cells = (f"`{name}`", _type(described, root), default, words)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _inner(described: dict[str, Any], root: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The sections that a setting holds: itself, its items, or its named values."""
    candidates = [("", described), *(("", each) for each in described.get("oneOf", ()))]
    candidates += [("[]", described.get("items", {})), (".NAME", described.get("additionalProperties", {}))]
    for suffix, candidate in candidates:
        inner = _resolved(candidate, root) if isinstance(candidate, dict) else {}
        if "properties" in inner:
            yield suffix, inner


def _resolved(described: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    target = described.get("$ref")
    return root["$defs"][target.rpartition("/")[2]] if target is not None else described


def _type(described: dict[str, Any], root: dict[str, Any]) -> str:
    """What kind of value this is, in words."""
    resolved = _resolved(described, root)
    if "enum" in resolved:
        return (
            ", ".join(f"`{_plain(word)}`" for word in resolved["enum"])
            if len(resolved["enum"]) < 9
            else "word"
        )
    if "properties" in resolved:
        return "mapping"
    if "title" in resolved:
        return str(resolved["title"])
    choices = [each for each in resolved.get("anyOf", resolved.get("oneOf", ())) if each != FILLED]
    if choices:
        return " or ".join(dict.fromkeys(_type(each, root) for each in choices))
    if resolved.get("type") == "array":
        return f"list of {_type(resolved['items'], root)}"
    return "mapping of names" if resolved.get("type") == "object" else "text"


def _plain(value: Any) -> str:
    """A value as one would write it in the file."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace('"', "")


if __name__ == "__main__":
    sys.stdout.write(reference())
