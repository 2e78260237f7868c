"""The table of `tests/data/decisions.yaml` as values. Every door of the gateway answers it alike.

    for world in worlds():
        file = world.write(folder, TOKENS, url)      # its gateway.yaml, and the files that this includes
        for row in world.rows:
            row.method, row.target, row.host, row.address, row.caller, row.now     # what is asked
            row.expect, row.reason, row.reports, row.route, row.upstream, row.forward  # what must come of it

`NOW` is when a row is asked that doesn't say; clocks in tests stand there anyway. A row with
`row.preflight` is a browser's question before a cross-origin request: only the live gateway
answers it. What a caller is, `person` says in one shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[1] / "data" / "decisions.yaml"
NOW = 1_800_000_000.0
"""2027-01-15T08:00:00Z."""
CALLERS = ("anonymous", "user", "admin")
"""The columns of a table that names none."""


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
    at: str | None = None
    """When: a day or a time, as `at:` of a test in gateway.yaml; None for `NOW`."""
    route: str | None = None
    """The path of the route that is chosen."""
    upstream: str | None = None
    """The backend that is chosen."""
    reason: str | None = None
    """The decision's reason."""
    would: str | int | None = None
    """The reason or the status with which a route that only reports would have refused it."""
    forward: str | None = None
    """The path that the backend gets."""
    origin: str | None = None
    """The page that asks from a browser."""
    wants: str | None = None
    """The method that a preflight asks for."""
    sends: str | None = None
    """The request headers that a preflight asks for, between commas."""
    readable: bool | None = None
    """The page may read the answer (`Access-Control-Allow-Origin` names it)."""

    @property
    def method(self) -> str:
        return self.request.split()[0]

    @property
    def target(self) -> str:
        return self.request.split()[1]

    @property
    def now(self) -> float:
        """`at`, in Unix seconds."""
        if self.at is None:
            return NOW
        moment = datetime.fromisoformat(self.at)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

    @property
    def preflight(self) -> bool:
        """Asks for what a browser will ask; only the live gateway answers that."""
        return self.wants is not None

    def reports(self, reason: str | None) -> bool:
        """Whether a rule that only reports refuses it for this reason, as it should; None: none refuses."""
        if reason is None or self.would is None:
            return reason == self.would
        return self.would in (reason, 401 if reason == "no_credential" else 403)

    def __str__(self) -> str:
        words = [f"{self.request} as {self.caller}"]
        words += [f"at {self.host}"] if self.host else []
        words += [f"from {self.address}"] if self.address else []
        words += [f"on {self.at}"] if self.at else []
        words += [f"for {self.wants} by {self.origin}"] if self.preflight else []
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class World:
    """One configuration and its rows."""

    name: str
    gateway: dict[str, Any]
    """Settings without tokens and addresses; `settings` adds them."""
    files: dict[str, Any]
    """What the files hold that it includes, by their paths."""
    rows: tuple[Row, ...]

    @property
    def upstreams(self) -> list[str]:
        """The names of its backends."""
        return list(self.gateway.get("upstreams", ["default"]))

    def settings(self, tokens: dict[str, Any], url: Callable[[str], str]) -> dict[str, Any]:
        """A whole gateway.yaml. `url` gives the address of the backend with that name."""
        upstreams = {name: {"url": url(name)} for name in self.upstreams}
        rest = {key: value for key, value in self.gateway.items() if key not in ("upstream", "upstreams")}
        return {"tokens": tokens, "upstreams": upstreams, **rest}

    def write(self, folder: Path, tokens: dict[str, Any], url: Callable[[str], str], **more: Any) -> Path:
        """Write it and what it includes into `folder`; the path of gateway.yaml. `more`: other settings."""
        for name, content in (*self.files.items(), ("gateway.yaml", self.settings(tokens, url) | more)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        return folder / "gateway.yaml"


def worlds() -> list[World]:
    """The whole file."""
    data = yaml.safe_load(FILE.read_text())
    return [World(each["world"], each["gateway"], each.get("files", {}), tuple(_rows(each))) for each in data]


def person(caller: str | dict[str, Any]) -> dict[str, Any] | None:
    """`email`, `admin`, `roles` and `scopes` (None: a login) of a row's caller; None for the anonymous."""
    if caller == "anonymous":
        return None
    if isinstance(caller, str):
        return {"email": f"{caller}@example.com", "admin": caller == "admin", "roles": [], "scopes": None}
    return {
        "email": caller.get("email", "user@example.com").casefold(),
        "admin": caller.get("admin", False),
        "roles": sorted(caller.get("roles", [])),
        "scopes": caller.get("scopes"),
    }


def _rows(world: dict[str, Any]) -> Iterator[Row]:
    people = world.get("people", {})
    for table in [{"table": world.get("table", "")}, *world.get("tables", [])]:
        yield from _of_table(table, world.get("columns", CALLERS), people)
    for row in world.get("rows", []):
        yield Row(**_renamed(row, people))


def _of_table(table: dict[str, Any], columns: list[str], people: dict[str, Any]) -> Iterator[Row]:
    """What stands beside the `table` holds for each of its rows."""
    shared = {key: value for key, value in table.items() if key != "table"}
    for line in table["table"].splitlines():
        method, target, *expected = line.split()
        for caller, expect in zip(columns, expected, strict=True):
            row = {"request": f"{method} {target}", "as": caller, **_verdict(expect), **shared}
            yield Row(**_renamed(row, people))


def _verdict(cell: str) -> dict[str, Any]:
    """Of `allow`, `401`, or `401?`."""
    if cell.endswith("?"):
        return {"expect": "allow", "would": int(cell[:-1])}
    return {"expect": cell if cell == "allow" else int(cell)}


def _renamed(row: dict[str, Any], people: dict[str, Any]) -> dict[str, Any]:
    """`as` and `from` are no names in Python."""
    rest = {key: value for key, value in row.items() if key not in ("as", "from")}
    caller = row["as"]
    return rest | {
        "caller": people.get(caller, caller) if isinstance(caller, str) else caller,
        "address": row.get("from"),
    }
