"""The table of `tests/data/decisions.yaml` as values. Every door of the gateway answers it alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[1] / "data" / "decisions.yaml"
CALLERS = ("anonymous", "user", "admin")
"""The columns of a table."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request and what must come of it."""

    request: str
    """`GET /path?query`."""
    caller: str | dict[str, Any]
    """`as:` of a test in gateway.yaml."""
    expect: int | str
    """`allow` or a status."""
    host: str | None = None
    """The Host header."""
    address: str | None = None
    """The client's address."""
    route: str | None = None
    """The path of the route that is chosen."""
    upstream: str | None = None
    """The backend that is chosen."""
    reason: str | None = None
    """The decision's reason."""
    forward: str | None = None
    """The path that the backend gets."""

    @property
    def method(self) -> str:
        return self.request.split()[0]

    @property
    def target(self) -> str:
        return self.request.split()[1]

    def __str__(self) -> str:
        return f"{self.request} as {self.caller}" + (f" at {self.host}" if self.host else "")


@dataclass(frozen=True, slots=True)
class World:
    """One configuration and its rows."""

    name: str
    gateway: dict[str, Any]
    """Settings without tokens and addresses; `settings` adds them."""
    rows: tuple[Row, ...]

    def settings(self, tokens: dict[str, Any], url: Callable[[str], str]) -> dict[str, Any]:
        """A whole gateway.yaml. `url` gives the address of the backend with that name."""
        names = self.gateway.get("upstreams", ["default"])
        upstreams = {name: {"url": url(name)} for name in names}
        rest = {key: value for key, value in self.gateway.items() if key not in ("upstream", "upstreams")}
        return {"tokens": tokens, "upstreams": upstreams, **rest}


def worlds() -> list[World]:
    """The whole file."""
    data = yaml.safe_load(FILE.read_text())
    return [World(each["world"], each["gateway"], tuple(_rows(each))) for each in data]


def _rows(world: dict[str, Any]) -> Iterator[Row]:
    for line in world.get("table", "").splitlines():
        method, target, *expected = line.split()
        for caller, expect in zip(CALLERS, expected, strict=True):
            yield Row(f"{method} {target}", caller, expect if expect == "allow" else int(expect))
    for row in world.get("rows", []):
        row = {"caller": row.pop("as"), "address": row.pop("from", None), **row}
        yield Row(**row)
